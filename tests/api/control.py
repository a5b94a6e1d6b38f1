"""A gateway that does nothing: what the endpoints see of it is set by the test."""

from collections.abc import Mapping
from types import MappingProxyType

import msgspec
import orjson

from agw_proxy._hot.limit import Limits, Table
from agw_proxy._hot.route import Globs
from agw_proxy.api.endpoint import Endpoint, Matcher
from agw_proxy.api.openapi import document
from agw_proxy.api.table import ENDPOINTS
from agw_proxy.errors import ModelNotFound, NotKept, ReloadFailed
from agw_proxy.states import AgentState, SessionState, UpstreamState
from agw_proxy.types import Answer, Asked, Control, ExplainWanted, Principal, ServedModel, UsagePage, UsageWanted

MATCHER = Matcher(ENDPOINTS)


class FakeControl:
    """Satisfies ``Control``. ``fault`` set: every reload fails with it."""

    def __init__(self) -> None:
        self.version = "1.2.3"
        self.draining = False
        self.active = 0
        self.shedding: str | None = None
        self.fault: str | None = None
        self.served = [
            ServedModel("gpt-4o", "openai", 17),
            ServedModel("agw/echo", "agw"),
            ServedModel("team/a b", "agw"),
        ]
        self.explained: list[tuple[str, ExplainWanted]] = []
        self.talks: dict[str, list[SessionState]] = {}
        self.wanted: list[UsageWanted] = []
        self.used = UsagePage((), (0,) * 7, more=False)
        self.shares: Mapping[str, object] | None = None
        self.dropped_in: list[AgentState] = []
        self.known = [state(name) for name in ("openai", "claude", "local")]

    def shows_upstreams(self, principal: Principal | None) -> bool:
        return principal is not None and principal.admin

    def models(self, principal: Principal) -> list[ServedModel]:
        return [model for model in self.served if principal.models.match(model.id)]

    def model(self, principal: Principal, name: str) -> ServedModel:
        for model in self.models(principal):
            if model.id == name:
                return model
        raise ModelNotFound(f"no model {name}", param="model")

    def upstreams(self) -> list[UpstreamState]:
        return self.known

    async def agents(self) -> list[AgentState]:
        return self.dropped_in

    def egress(self, upstream: str) -> Mapping[str, object]:
        if upstream not in {state.name for state in self.known}:
            raise ModelNotFound(f"no upstream {upstream}")
        return {"object": "egress", "upstream": upstream}

    def redis(self) -> Mapping[str, object] | None:
        return self.shares

    async def refresh_upstreams(self, *, heard: bool = False) -> Mapping[str, object]:
        return {"upstreams": self._reload()}

    async def reload(self, *, heard: bool = False) -> Mapping[str, object]:
        return {"version": self._reload()}

    def configuration(self) -> Mapping[str, object]:
        return {"version": 1, "last_error": "gateway.yaml: a fault"}

    def metrics_text(self) -> bytes:
        return b"agw_requests_total 1\n"

    def metrics_tree(self) -> Mapping[str, object]:
        return {"agw_requests_total": [{"labels": {}, "value": 1}]}

    async def usage(self, wanted: UsageWanted) -> UsagePage:
        self.wanted.append(wanted)
        return self.used

    async def sessions(self, key: str, name: str | None, after: tuple[str, str], limit: int) -> list[SessionState]:
        of_key = [each for each in self.talks.get(key, ()) if name in {None, each.id} and (each.agent, each.id) > after]
        return of_key[:limit]

    async def forget_sessions(self, key: str, name: str) -> None:
        left = [each for each in self.talks.get(key, ()) if each.id != name]
        if left == self.talks.get(key, []):
            raise NotKept(f"no session {name}")
        self.talks[key] = left

    def explain(self, principal: Principal, wanted: ExplainWanted) -> Mapping[str, object]:
        self.explained.append((wanted.key or principal.name, wanted))
        return {"object": "explanation"}

    def openapi(self) -> bytes:
        return document(ENDPOINTS, self.version)

    def _reload(self) -> int:
        if self.fault is not None:
            raise ReloadFailed(self.fault)
        return 2


def state(name: str, **changes: object) -> UpstreamState:
    """An upstream nobody has used yet."""
    unused = UpstreamState(
        name=name,
        dialect="openai",
        base_url=f"https://{name}.example/v1",
        auth="key",
        models=("gpt-*",),
        state="unused",
        since=None,
        last_error=None,
        requests=0,
        failures=0,
    )
    return msgspec.structs.replace(unused, **changes)


def principal(*models: str, admin: bool = False) -> Principal:
    """A key that may use these models (all of them by default)."""
    globs = Globs(models or ("*",))
    return Principal("test", 1, globs, globs, admin, Limits(Table(slots=8, gates=8), ()))


async def ask(
    control: Control,
    target: str,
    *,
    method: str = "GET",
    caller: Principal | None = None,
    query: Mapping[str, str] = MappingProxyType({}),
    body: bytes = b"",
) -> Answer:
    """What a local endpoint answers, found by method and path as a request would."""
    endpoint, values = MATCHER.match(method, target)
    assert endpoint.handler is not None
    return await endpoint.handler(control, Asked(caller, values, query, body, endpoint.dialect))


def tree(answer: Answer) -> dict[str, object]:
    """The JSON object in an answer."""
    assert answer.content_type == "application/json"
    found = orjson.loads(answer.body)
    assert isinstance(found, dict)
    return found


def by_name(name: str) -> Endpoint:
    """The endpoint of this name."""
    return next(endpoint for endpoint in ENDPOINTS if endpoint.name == name)
