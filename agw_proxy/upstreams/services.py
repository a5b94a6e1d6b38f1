"""Makes what is asked for answers out of the settings; what has not changed since the last time is carried over."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

import msgspec

from agw_proxy.config.presets import quirks_of, speaks_of
from agw_proxy.config.settings import Settings
from agw_proxy.config.settings import Upstream as Configured
from agw_proxy.config.values import Form
from agw_proxy.types import Upstream
from agw_proxy.upstreams.echo import Echo
from agw_proxy.upstreams.health import Health
from agw_proxy.upstreams.http import Cloud, HttpUpstream, by_deployment, header_of, keys_of
from agw_proxy.upstreams.keyring import Keyring
from agw_proxy.upstreams.queue import Places, Told
from agw_proxy.upstreams.service import Service

if TYPE_CHECKING:
    from agw_proxy.upstreams.replay import Replay
    from agw_proxy.upstreams.taping import Keeper

SIGNED: tuple[Form, ...] = ("messages", "responses", "gemini")
"""Forms whose thoughts have signatures, which travel sealed in the others."""
SECRET_CHARACTERS = 8  # a shorter header value is no secret


class AgentUpstream(Upstream, Protocol):
    """What runs agents: an upstream whose models they are. It speaks Responses."""

    @property
    def ids(self) -> Sequence[str]:
        """What can be asked for."""
        ...

    @property
    def longest_seconds(self) -> float:
        """How long a run may take that has a bound."""
        ...


def compile_services(
    settings: Settings,
    before: Settings | None,
    old: Sequence[Service],
    on_dead: Callable[[str, str], None] = lambda upstream, key: None,  # noqa: ARG005  told by name
    *,
    told: Told | None = None,
    keeper: "Keeper | None" = None,
    agents: AgentUpstream | None = None,
) -> tuple[Service, ...]:
    """One for each upstream in the settings' order, then the built-in echo model's, then that of the agents, where there are any.

    ``old``: what this made of the settings ``before``. An upstream that is the same in both keeps its pool and its keys'
    state, one of the same name its health, and who has a place there. ``on_dead``: see
    ``Keyring``; ``told``: hears of queues; ``keeper``: hears of every exchange. Raises ValueError where an upstream cannot be used.
    """
    known = {}
    if before is not None:
        known = {upstream.name: (upstream, old[place]) for place, upstream in enumerate(before.upstreams)}
    services: list[Service] = []
    for upstream in settings.upstreams:
        then, service = known.get(upstream.name, (None, None))
        same = then == upstream and before is not None and before.timeouts == settings.timeouts
        places = _places(upstream, service, told)
        keys = service.keys if service is not None and then == upstream else _keyring(upstream, on_dead)
        asked = (
            service.upstream if service is not None and same else _upstream(upstream, settings, keys, places, keeper)
        )
        services.append(
            Service(
                upstream=asked,
                retries=upstream.retries.over(settings.retries),
                health=service.health if service is not None else Health(),
                secrets=_secrets(upstream),
                timeouts=upstream.timeouts.over(settings.timeouts),
                auth=upstream.auth,
                stream_usage=upstream.stream_usage,
                speaks=speaks_of(upstream),
                quirks=quirks_of(upstream),
                by_deployment=by_deployment(upstream) or upstream.dialect in {"bedrock", "vertex"},
                keys=keys,
                places=places,
            )
        )
    before_echo = len(before.upstreams) if before is not None else 0
    services.append(_echo(settings, old[before_echo] if old else None))
    if agents is not None:
        services.append(_agents(settings, agents, old[-1] if len(old) > before_echo + 1 else None))
    mixed = frozenset(
        form
        for form in SIGNED
        for at, one in enumerate(services)
        if at != len(settings.upstreams) and form not in one.speaks
    )
    # An agent's models are asked by requests of their own, which find whose thoughts these are.
    return tuple(msgspec.structs.replace(one, mixed=mixed) if not one.delegates else one for one in services)


def _upstream(
    upstream: Configured, settings: Settings, keys: Keyring | None, places: Places | None, keeper: "Keeper | None"
) -> "HttpUpstream | Replay":
    if upstream.replay is not None:
        from agw_proxy.upstreams.replay import Replay  # noqa: PLC0415  few upstreams are recordings

        return Replay(upstream, upstream.replay)
    if keeper is not None:
        from agw_proxy.upstreams.taping import Taped  # noqa: PLC0415  few gateways record

        return Taped(upstream, settings.timeouts, keys, places, keeper, _cloud(upstream))
    return HttpUpstream(upstream, settings.timeouts, keys, places, _cloud(upstream))


def _cloud(upstream: Configured) -> Cloud | None:
    """Whose models it has, where they are in a cloud. Raises ValueError."""
    if upstream.dialect == "bedrock":
        from agw_proxy.upstreams.bedrock import Bedrock  # noqa: PLC0415  few gateways ask it

        return Bedrock(upstream)
    if upstream.dialect == "vertex":
        from agw_proxy.upstreams.vertex import Vertex  # noqa: PLC0415  likewise

        return Vertex(upstream, gemini=speaks_of(upstream)[0] == "gemini")
    return None


def _places(upstream: Configured, service: Service | None, told: Told | None) -> Places | None:
    """An upstream's places; those that it has had where nothing about them has changed, else with who has one of them."""
    most, queue, adaptive = upstream.max_concurrent, upstream.queue, upstream.adaptive
    if upstream.replay is not None:
        return None
    if most is None:
        if adaptive is None:
            return None
        most = adaptive.max
    kept = service.places if service is not None else None
    if kept is not None and kept.like(most=most, size=queue.size, wait=queue.wait, adaptive=adaptive):
        return kept
    made = Places(upstream.name, most=most, size=queue.size, wait=queue.wait, told=told, before=kept)
    return made if adaptive is None else made.follow(adaptive)


def _keyring(upstream: Configured, on_dead: Callable[[str, str], None]) -> Keyring | None:
    """For several keys; a single one needs no turns."""
    keys = keys_of(upstream)
    if upstream.auth != "key" or len(keys) < 2 or upstream.replay is not None:
        return None
    return Keyring(upstream.name, [header_of(upstream.dialect, key) for key in keys], on_dead)


def _echo(settings: Settings, old: Service | None) -> Service:
    """The built-in model's; ``old``: what keeps its health."""
    return Service(
        upstream=old.upstream if old is not None else Echo(),
        retries=settings.retries,
        health=old.health if old is not None else Health(),
        secrets=(),
        timeouts=settings.timeouts,
        auth="none",
        stream_usage=True,
    )


def _agents(settings: Settings, agents: AgentUpstream, old: Service | None) -> Service:
    """Of what runs the agents. A run is not made twice, since its tools may have had effects: its model calls are."""
    longest = max(settings.timeouts.total, agents.longest_seconds + settings.timeouts.connect)
    return Service(
        upstream=agents,
        retries=settings.retries.model_copy(update={"attempts": 1}),
        health=old.health if old is not None else Health(),
        secrets=(),
        timeouts=settings.timeouts.model_copy(update={"total": longest}),
        auth="none",
        stream_usage=True,
        speaks=("responses",),
        keeps=False,
        delegates=True,
    )


def _secrets(upstream: Configured) -> tuple[str, ...]:
    """What of an upstream's settings must never be shown."""
    values = list(keys_of(upstream))
    values += [value.rpartition(" ")[2] for value in upstream.headers.values()]
    return tuple(value for value in values if len(value) >= SECRET_CHARACTERS)
