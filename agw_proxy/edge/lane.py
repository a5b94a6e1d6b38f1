"""Compiles a configuration's state into the policy of the fast lane: which request goes by which lane is decided here, once.

A request takes the fast lane when its endpoint relays JSON by the model that it names (``doors``), and that model leads to
an upstream over HTTP that is asked with the gateway's own key, in the endpoint's dialect. So does a generation in Google's
form, whose path names the model. Everything else goes by the full lane, for a reason with a name (docs/performance.md lists them).
"""

import functools
from collections.abc import Mapping, Sequence

from agw_proxy._hot.lane import Caller, Door, Names, Origin, Policy
from agw_proxy._hot.route import Globs
from agw_proxy.api.endpoint import Endpoint, Relay
from agw_proxy.api.passthrough import COUNTING_PATHS
from agw_proxy.api.responses import PATH as RESPONSES
from agw_proxy.config.settings import Model
from agw_proxy.config.storage import Cache
from agw_proxy.config.values import AGENTS
from agw_proxy.edge.headers import KEPT_IN, KEPT_PREFIXES, SAFE_OUT, SAFE_OUT_PREFIXES
from agw_proxy.edge.pings import PINGS
from agw_proxy.edge.state import State
from agw_proxy.observe.metrics import OPERATIONS
from agw_proxy.policy.affinity import marked, recalls, sealed, spread
from agw_proxy.types import Dialect
from agw_proxy.upstreams.http import HttpUpstream
from agw_proxy.upstreams.service import Service

STORED_PATHS = frozenset({RESPONSES, f"{RESPONSES}/input_tokens"})


def names() -> Names:
    """The header names that the lane knows: the very sets by which the full lane decides."""
    kept = [name.encode() for name in sorted(KEPT_IN)]
    return Names(kept, sorted(SAFE_OUT), SAFE_OUT_PREFIXES, [prefix.encode() for prefix in KEPT_PREFIXES])


class Origins:
    """The lane's connections to upstreams, kept over reloads for those that have not changed."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[Service, Origin]] = {}

    def of(self, service: Service) -> Origin | None:
        """The origin of a service over HTTP; None for one in this process."""
        upstream = service.upstream
        if not isinstance(upstream, HttpUpstream):
            return None
        found = self._known.get(id(upstream))
        if found is not None:
            found[1].replays = service.retries.attempts > 1
            return found[1]
        address = upstream.address()
        origin = Origin(
            upstream.name,
            host=address.host,
            port=address.port,
            tls=address.tls,
            authority=address.authority,
            base=address.base,
            headers=address.headers,
            stream_usage=service.stream_usage,
            kept=[name.encode() for name in KEPT_IN],
            replays=service.retries.attempts > 1,
            health=service.health,
            places=service.places,
        )
        self._known[id(upstream)] = (service, origin)
        return origin

    def keep(self, services: Sequence[Service]) -> None:
        """Close the connections of all others, once they are done."""
        kept = {id(service.upstream) for service in services}
        for key in [key for key in self._known if key not in kept]:
            self._known.pop(key)[1].close()

    def close(self) -> None:
        """Close all that is idle."""
        for _, origin in self._known.values():
            origin.close()


def compile_policy(state: State, endpoints: Sequence[Endpoint], origins: Origins, *, why: str | None) -> Policy:
    """``why``: the reason why every request goes by the full lane; None where it is decided by request."""
    server = state.settings.server
    return Policy(
        keys=state.keys.table,
        callers=[Caller(principal) for principal in state.keys.principals],
        routes=state.routes.table,
        origins=[origins.of(service) for service in state.services],
        doors=_doors(endpoints, state),
        google=_google(endpoints, state),
        terms=functools.partial(_terms, state),
        sticky={name: model.sticky for name, model in state.models.items() if model.sticky is not None},
        spread=spreads(state),
        prices=state.prices,
        learners=state.learners,
        state=state,
        json_depth=server.json_depth,
        seconds=(server.head_seconds, server.body_seconds, server.keepalive_seconds, server.write_seconds),
        why=why,
        ping_seconds=server.ping_seconds,
        lends=next((number for number, each in enumerate(state.services) if each.upstream.name == AGENTS), -1),
    )


def _doors(endpoints: Sequence[Endpoint], state: State) -> Mapping[str, Door]:
    doors: dict[str, Door] = {}
    for endpoint in endpoints:
        relay = endpoint.relay
        if relay is None or endpoint.method != "POST":
            continue
        paths = (endpoint.path,) if relay.model_paths is None else relay.model_paths
        for path in paths:
            if "{" in path:
                continue
            door = _door(endpoint, relay, path, state)
            if relay.model_paths is None:
                doors[path] = door
            else:
                doors.setdefault(path, door)
    return doors


def _google(endpoints: Sequence[Endpoint], state: State) -> Door | None:
    """The door of generations in Google's form, None where nobody serves them."""
    for endpoint in endpoints:
        if endpoint.relay is not None and endpoint.relay.form == "gemini":
            return _door(endpoint, endpoint.relay, endpoint.path, state)
    return None


def _door(endpoint: Endpoint, relay: Relay, path: str, state: State) -> Door:
    return Door(
        endpoint.name,
        endpoint.dialect,
        upstream_path=relay.upstream_path,
        default_model=relay.default_model,
        asks_usage=relay.sse_usage,
        known_end=relay.known_end,
        needs_json=relay.json_only,
        refusals=tuple(
            _refusal(service, dialect, endpoint, state)
            for service, dialect in zip(state.services, state.routes.dialects, strict=True)
        ),
        operation=OPERATIONS.get(endpoint.name),
        counts_only=path in COUNTING_PATHS,
        remembers=remembers(relay, path),
        recalls=stored(state, path),
        mixed=mixed(state, relay),
        ping=PINGS.get(relay.form) if relay.form is not None and path not in COUNTING_PATHS else None,
    )


def full_lane_reason(state: State, endpoint: Endpoint, model: str, upstream: int, body: bytes) -> str | None:
    """Why that request, of that model to that upstream, goes by the full lane; None: it need not."""
    service = state.services[upstream]
    if not isinstance(service.upstream, HttpUpstream):
        return "in_process"
    reason = _refusal(service, state.routes.dialects[upstream], endpoint, state) or _terms(state, model, upstream)[0]
    relay = endpoint.relay
    if (
        reason is None
        and relay is not None
        and marked(body, spreads(state).get(model, 0), remembers(relay, endpoint.path))
    ):
        return "affinity"
    if reason is None and stored(state, endpoint.path) and recalls(body):
        return "store"
    if reason is None and relay is not None and mixed(state, relay) and sealed(body):
        return "affinity"
    return reason


def mixed(state: State, relay: Relay) -> bool:
    """Callers in this form may have been answered by models that are asked in another one, whose thoughts travel sealed."""
    return any(relay.form in service.mixed for service in state.services)


def stored(state: State, path: str) -> bool:
    """A request there may go on from what the gateway keeps itself."""
    store = state.settings.store
    return store is not None and store.keeps and path in STORED_PATHS


def spreads(state: State) -> Mapping[str, int]:
    """How far virtual models are spread over upstreams, where they are at all; see ``policy.affinity.spread``."""
    routes = {name: state.routes.table.find(name) for name in state.models}
    levels = {name: spread(route, len(state.settings.upstreams)) for name, route in routes.items() if route is not None}
    return {name: level for name, level in levels.items() if level}


def remembers(relay: Relay, path: str) -> int:
    """2: an answer from here may be referred to later; 1: a request may refer to what was made before; 0: neither."""
    if relay.form == "responses":
        return 2
    return int(relay.form not in (None, "completions") or path in COUNTING_PATHS)


def _refusal(service: Service, dialect: Dialect, endpoint: Endpoint, state: State) -> str | None:
    """Why a request from this endpoint to this upstream needs the full lane."""
    relay, store = endpoint.relay, state.settings.store
    if relay is not None and relay.form is not None:
        if relay.form not in service.speaks:
            return "dialect"
        if relay.form == "responses" and store is not None and store.responses == "all":
            return "store"
    elif relay is not None and relay.upstream_path and dialect != endpoint.dialect:
        return "dialect"
    if service.by_deployment:
        return "deployment"
    if relay is not None and any(
        form not in service.speaks for path, form in COUNTING_PATHS.items() if path in (relay.model_paths or ())
    ):
        return "dialect"
    if service.auth == "passthrough":
        return "own_credentials"
    if service.keys is not None:
        return "keys"
    return None


@functools.lru_cache(1)
def _patterns(cache: Cache) -> Globs:
    return Globs(cache.models)


def serves(cache: Cache | None, model: str, own: bool | None) -> bool:
    """Answers of this model are kept. ``own``: what the virtual model itself says."""
    return cache is not None and (_patterns(cache).match(model) if own is None else own)


def _feature(state: State, model: str, route: Model | None) -> str | None:
    """What a model has that is the full lane's."""
    if serves(state.settings.cache, model, route.cache if route is not None else None):
        return "cache"
    return "hedge" if route is not None and route.hedge is not None else None


def _terms(
    state: State, model: str, upstream: int
) -> tuple[str | None, float, float, float, float, float | None, float, float, float, bool]:
    """Why the full lane, and seconds by phase, as ``lane.Policy`` takes them, for requests that name ``model`` and go to that upstream."""
    route = state.models.get(model)
    times = state.services[upstream].timeouts
    times = times if route is None else route.timeouts.over(times)
    return (
        _feature(state, model, route),
        times.connect,
        times.tls or times.connect,
        times.write,
        times.first_byte,
        times.first_token,
        times.between_bytes,
        times.between_tokens or times.between_bytes,
        times.total,
        times.first_token is not None or (route is not None and route.on_break == "restart_if_uncommitted"),
    )
