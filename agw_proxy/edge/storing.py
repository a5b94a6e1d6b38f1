"""Whether there is a store for Responses, and its file. What is done with it, ``stored`` does: imported only where there is one."""

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from aiohttp import web

from agw_proxy._hot.peek import Peek
from agw_proxy.api.responses import PATH
from agw_proxy.config.devkey import state_dir
from agw_proxy.config.settings import Settings
from agw_proxy.edge.affinity import UPSTREAM_HEADER
from agw_proxy.edge.body import Bodies
from agw_proxy.edge.exchange import Exchange
from agw_proxy.edge.lane import STORED_PATHS
from agw_proxy.edge.state import State
from agw_proxy.observe.metrics import Metrics
from agw_proxy.upstreams.asking import ready

if TYPE_CHECKING:
    from agw_proxy.edge.sessions import Sessions
    from agw_proxy.edge.stored import Recalled
    from agw_proxy.store.responses import Responses

BELOW = (f"{PATH}/", "/v1/conversations")
FILE = "responses.db"


class Storing:
    """Of one worker; outlives reloads. Its file is opened when there is something to keep or to look for."""

    def __init__(
        self, settings: Settings, environ: Mapping[str, str], metrics: Metrics, sessions: Callable[[], "Sessions"]
    ) -> None:
        """``environ``: says where the state directory is. ``sessions``: of agents, which are forgotten with what is deleted here."""
        self._sessions = sessions
        self._folder = state_dir(settings.server.state_dir, environ)
        self._metrics = metrics
        self._opened: tuple[object, Responses] | None = None

    async def serve(
        self, exchange: Exchange, request: web.BaseRequest, state: State, path: str, query: str, bodies: Bodies
    ) -> bytes | None:
        """See ``stored.answered``."""
        if not path.startswith(BELOW) or UPSTREAM_HEADER in request.headers:
            return None
        kept = await self._kept(state)
        if kept is None:
            return None
        from agw_proxy.edge.stored import answered  # noqa: PLC0415  likewise

        return await answered(kept, exchange, request, state, path, query, bodies, self._forget)

    async def _forget(self, owner: str, root: str) -> None:
        sessions = await asyncio.get_running_loop().run_in_executor(None, self._sessions)
        await sessions.forget_thread(owner, root)

    async def forget(self, exchange: Exchange, request: web.BaseRequest, state: State, path: str, query: str) -> None:
        """Delete what a request without a body wants deleted. Raises NotKept, StoreUnavailable."""
        kept = await self._kept(state)
        if kept is not None:
            from agw_proxy.edge.stored import answered  # noqa: PLC0415  likewise

            await answered(kept, exchange, request, state, path, query, None, self._forget)

    async def recall(self, exchange: Exchange, state: State, path: str, body: bytes, seen: Peek) -> "Recalled | None":
        """See ``stored.recall``."""
        kept = await self._kept(state) if path in STORED_PATHS else None
        if kept is None or state.settings.store is None:
            return None
        from agw_proxy.edge.stored import recall  # noqa: PLC0415  likewise

        everything = state.settings.store.responses == "all"
        return await recall(kept, exchange, state, path, body, seen, self._metrics, everything=everything)

    async def _kept(self, state: State) -> "Responses | None":
        """The file of the settings in force; None where nothing is kept."""
        store = state.settings.store
        if store is None or not store.keeps:
            return None
        await ready("agw_proxy.edge.stored")  # it brings a dialect
        from agw_proxy.store.responses import Responses  # noqa: PLC0415  SQLite only where it is needed

        meant = (store.path, store.max_mb, store.retention)
        if self._opened is None or self._opened[0] != meant:
            path = store.path or self._folder / FILE
            self._opened = meant, Responses(path, store.max_mb << 20, store.retention)
        return self._opened[1]
