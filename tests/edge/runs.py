"""A run within a gateway that serves in the test, and upstreams that ask models in their turn, as agents do."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import orjson

from agw_proxy.edge.inner import Inner, Wire
from agw_proxy.sdk.entry import Run
from agw_proxy.types import Call, Caller
from agw_proxy.types import Upstream as Asked
from tests.edge.inprocess import Running, serving
from tests.support.gateway import Tree, chat_body, configuration, provider
from tests.support.upstream import Upstream

PRICES = [{"model": "gpt-4o-mini", "input": 1.0, "output": 2.0}]  # dollars a million tokens

COST = 11 * 1 + 7 * 2  # micro-dollars of one answer


class Within:
    """A gateway that serves, and a run in it."""

    def __init__(self, running: Running, key: str) -> None:
        self.running = running
        self.inner = Inner(running.gateway._edges[0].load_full)
        self.run = Run("req_outer", running.gateway.state.keys.named(key), "default/clerk")

    async def open(self, path: str = "/v1/chat/completions", **members: object) -> Wire:
        headers = [("content-type", "application/json"), ("authorization", "Bearer nobody's")]
        return await self.inner.open(self.run, "POST", path, headers, orjson.dumps(chat_body(**members)))

    async def ask(self, path: str = "/v1/chat/completions", **members: object) -> tuple[int, Any]:
        """Status and tree of a whole answer."""
        reply = await self.open(path, **members)
        return reply.status, orjson.loads(await everything(reply))

    async def quiet(self) -> None:
        """Nothing is under way."""
        await self.running.until(lambda: not self.inner.active and not self.running.gateway.active)


async def everything(reply: Wire) -> bytes:
    read = b""
    while not reply.ended:
        read += await reply.read()
    return read


@asynccontextmanager
async def within(config: Tree, folder: Path, key: str = "app") -> AsyncIterator[Within]:
    async with serving(config, folder) as running:
        yield Within(running, key)


class Noting:
    """An upstream as it is, that shows on whose behalf it is asked."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self.name, self.dialect = asked.name, asked.dialect
        self.callers: list[Caller | None] = []

    async def open(self, target: Any, call: Call) -> Any:
        self.callers.append(call.caller)
        return await self._asked.open(target, call)

    async def close(self) -> None:
        await self._asked.close()


class Asks:
    """An upstream that asks another model, as an agent does."""

    name = "fake"
    dialect: Any = "openai"

    def __init__(self, inner: Inner, model: str) -> None:
        self._inner, self._model = inner, model

    async def open(self, target: Any, call: Call) -> Wire:
        assert call.caller is not None
        assert isinstance(call.body, bytes)
        told = call.caller
        run = Run(call.request_id, told.principal, "default/clerk", told.session, told.trace, told.user, told.channel)
        body = orjson.dumps({**orjson.loads(call.body), "model": self._model})
        return await self._inner.open(run, call.method, f"/v1{call.path}", call.headers, body)

    async def close(self) -> None:
        """Nothing is open."""


def two(upstream: Upstream) -> Tree:
    """The first of two upstreams is to be one that asks models itself, of the second."""
    return configuration(
        provider(upstream.url, models=["gpt-4o"]),
        provider(upstream.url, "other", models=["gpt-4o-mini"]),
        prices=PRICES,
    )


def delegate(here: Within, asked: Asks | None = None) -> Noting:
    """Let the first upstream be one that asks models itself."""
    gateway = here.running.gateway
    first, *rest = gateway.state.services
    noting = Noting(asked or first.upstream)
    services = (msgspec.structs.replace(first, upstream=noting, delegates=True), *rest)
    gateway.state = msgspec.structs.replace(gateway.state, services=services)
    for edge in gateway._edges:
        edge.lane.swap(gateway._policy(edge.accounts))
    return noting
