"""Upstreams without sockets: each call takes the next of what it was given, an error or an answer."""

from collections.abc import Sequence

from agw_proxy._hot.peek import peek
from agw_proxy._hot.route import RouteTable, Target
from agw_proxy.config.resilience import Retries, Timeouts
from agw_proxy.config.values import Dialect as Provider
from agw_proxy.errors import UpstreamError
from agw_proxy.types import Call, RawHeaders
from agw_proxy.upstreams.health import Health
from agw_proxy.upstreams.service import Service

SSE = "text/event-stream"


class Answered:
    """A Reply whose portions are given; an error among them is raised in its turn."""

    connect_ms = 1.5
    began_ns = 0

    def __init__(
        self,
        *portions: bytes | UpstreamError,
        status: int = 200,
        kind: str = "application/json",
        headers: Sequence[tuple[str, str]] = (),
    ) -> None:
        self.status = status
        self.headers: RawHeaders = [
            (name.encode(), value.encode()) for name, value in (("Content-Type", kind), *headers)
        ]
        self.ended = not portions
        self.closed = 0
        self.progress: list[bool] = []
        self._left = list(portions)

    async def read(self, *, progress: bool = True) -> bytes:
        self.progress.append(progress)
        portion = self._left.pop(0)
        if isinstance(portion, UpstreamError):
            raise portion
        self.ended = not self._left
        return portion

    def close(self) -> None:
        self.closed += 1


class Scripted:
    """An Upstream. ``calls``: what it was asked, with the target."""

    dialect: Provider = "openai"

    def __init__(self, name: str, *script: Answered | UpstreamError) -> None:
        self.name = name
        self.script = list(script)
        self.calls: list[tuple[str, Call]] = []
        self.closed = 0

    async def open(self, target: Target, call: Call) -> Answered:
        self.calls.append((target.name, call))
        step = self.script.pop(0)
        if isinstance(step, UpstreamError):
            raise step
        return step

    async def close(self) -> None:
        self.closed += 1


def service(
    upstream: Scripted,
    *,
    secrets: tuple[str, ...] = (),
    total: float = 60.0,
    auth: str = "key",
    stream_usage: bool = True,
    **retries: float,
) -> Service:
    """The upstream with three attempts and short waits."""
    settings = Retries.model_validate({"attempts": 3, "base": 0.01, "max": 0.05, **retries})
    return Service(upstream, settings, Health(), secrets, Timeouts(total=total), auth, stream_usage)


def plan(*names: str) -> tuple[Target, ...]:
    """Targets ``name/m``, numbered in order."""
    table = RouteTable([(name, ("*",)) for name in names], [])
    routes = [table.find(f"{name}/m") for name in names]
    return tuple(route.targets[0] for route in routes if route is not None)


def call(body: bytes | None = b'{"model":"m"}', *, asks_usage: bool = False, repeatable: bool = True) -> Call:
    """A chat call."""
    seen = peek(body) if body is not None else None
    return Call("POST", "/chat/completions", "", [], body, seen, "req-1", asks_usage=asks_usage, repeatable=repeatable)
