"""Whether a request has to do with runs in the background. What is done then, ``runs`` does: imported only where it is."""

from abc import abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING
from urllib.parse import unquote

from aiohttp import web

from agw_proxy._hot.peek import Peek
from agw_proxy.api.endpoint import RunPart
from agw_proxy.api.responses import PATH
from agw_proxy.api.runs import seed_of
from agw_proxy.config.devkey import state_dir
from agw_proxy.config.settings import Settings
from agw_proxy.edge.affinity import UPSTREAM_HEADER
from agw_proxy.edge.body import Bodies
from agw_proxy.edge.exchange import Exchange
from agw_proxy.edge.state import State
from agw_proxy.edge.storing import Storing
from agw_proxy.errors import CallerError
from agw_proxy.upstreams.asking import ready

if TYPE_CHECKING:
    from agw_proxy.edge.runs import Runs

FILE = "runs.db"
BELOW = f"{PATH}/"
MARK = b'"background"'
_OF_A_RESPONSE = frozenset({("GET", ""), ("GET", "input_items"), ("DELETE", ""), ("POST", "cancel")})

Serve = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
"""Answers a request, as the handler does."""


class Later(web.StreamResponse):
    """An answer that is written when the body of its request has been let go of."""

    @abstractmethod
    async def follow(self) -> web.StreamResponse:
        """Write it. Raises GatewayError."""


class Background:
    """Of one worker; outlives reloads."""

    def __init__(self, settings: Settings, environ: Mapping[str, str]) -> None:
        """``environ``: says where the state directory is."""
        self._settings = settings.runs
        self._path = settings.runs.path or state_dir(settings.server.state_dir, environ) / FILE
        self._runs: Runs | None = None

    async def serve(
        self,
        serve: Serve,
        exchange: Exchange,
        request: web.BaseRequest,
        part: RunPart,
        values: Mapping[str, str],
        query: Mapping[str, str],
        state: State,
        bodies: Bodies,
    ) -> web.StreamResponse:
        """See ``Runs.create`` and ``Runs.serve``. Raises CallerError where none are taken."""
        if part == "create" and not self._settings.concurrent:
            raise CallerError("This gateway takes no runs (runs.concurrent is 0).")
        runs = await self._open()
        if part == "create":
            return await runs.create(serve, exchange, request, state, bodies)
        return await runs.serve(exchange, request, state, part, values, query)

    async def begun(
        self,
        serve: Serve,
        exchange: Exchange,
        request: web.BaseRequest,
        state: State,
        path: str,
        body: bytes,
        seen: Peek,
    ) -> web.StreamResponse | None:
        """See ``Runs.begun``; None: the request waits for its answer, or is one of those of a run."""
        if path != PATH or MARK not in body or exchange.behind is not None or exchange.within is not None:
            return None
        if not self._settings.concurrent:
            return None
        return await (await self._open()).begun(serve, exchange, request, state, body, seen.model)

    async def answered(
        self, storing: Storing, exchange: Exchange, request: web.BaseRequest, state: State, path: str, query: str
    ) -> web.StreamResponse | None:
        """See ``Runs.answered``; None: the request is not about a Response that could be a run's."""
        if not path.startswith(BELOW) or UPSTREAM_HEADER in request.headers:
            return None
        what, _, part = unquote(path.removeprefix(BELOW)).partition("/")
        method = "GET" if request.method == "HEAD" else request.method
        seed = seed_of(what, "resp")
        if seed is None or (method, part) not in _OF_A_RESPONSE:
            return None
        runs = await self._open()
        return await runs.answered(storing, exchange, request, state, path, query, seed, part or method.lower())

    async def close(self) -> None:
        """Write down how all runs have ended."""
        if self._runs is not None:
            await self._runs.close()

    async def _open(self) -> "Runs":
        await ready("agw_proxy.edge.runs")
        if self._runs is None:
            from agw_proxy.edge.runs import Runs  # noqa: PLC0415  it brings SQLite and dialects

            self._runs = Runs(self._path, self._settings)
        return self._runs
