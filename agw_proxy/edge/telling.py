"""What a gateway tells of itself: the part of ``types.Control`` that only reads."""

import asyncio
import functools
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from agw_proxy._hot.circuit import Board
from agw_proxy.config.reload import Reloader, needs_restart
from agw_proxy.config.settings import Settings
from agw_proxy.edge.accounts import Accounts
from agw_proxy.edge.agents import Agents
from agw_proxy.edge.explaining import explain
from agw_proxy.edge.overload import Overload
from agw_proxy.edge.server import Edge
from agw_proxy.edge.state import State
from agw_proxy.observe.metrics import Metrics
from agw_proxy.states import AgentState, SessionState, UpstreamState
from agw_proxy.store.recorder import Recorder
from agw_proxy.types import ExplainWanted, Principal, ServedModel, UsagePage, UsageWanted
from agw_proxy.upstreams.catalog import Catalog
from agw_proxy.upstreams.probes import Probes
from agw_proxy.upstreams.standing import standing

if TYPE_CHECKING:
    from agw_proxy.edge.replicas import Replicas
    from agw_proxy.edge.sessions import Sessions
    from agw_proxy.edge.worker_link import WorkerLink


class Telling:
    """The gateway derives from it: it has all that is told of."""

    state: State
    metrics: Metrics
    accounts: Accounts
    _link: "WorkerLink | None"
    _started: Settings
    _reloader: Reloader
    _overload: Overload
    _edges: list[Edge]
    _served: list[tuple[str, str]]
    _catalog: Catalog
    _board: Board
    _probes: Probes
    _recorder: Recorder
    _replicas: "Replicas | None"
    _document: Callable[[], bytes]
    _agents: Agents
    _environ: Mapping[str, str]

    def configuration(self) -> Mapping[str, object]:
        """See ``types.Control``."""
        return {
            **self._reloader.told(),
            "keys": len(self.state.keys.principals),
            "upstreams": len(self.state.settings.upstreams),
            **(
                {"needs_restart": needs_restart(self._started, self._reloader.current.settings)}
                if self._link is None
                else {}
            ),
        }

    @property
    def draining(self) -> bool:
        """See ``types.Control``."""
        return self.accounts.draining

    @property
    def shedding(self) -> str | None:
        """See ``types.Control``."""
        return self._overload.refuses

    @property
    def active(self) -> int:
        """See ``types.Control``; the asking request is one of them."""
        lanes = [edge.lane for edge in self._edges]
        return len(self.accounts.active) + sum(lane.active + lane.away + lane.reading for lane in lanes)

    def shows_upstreams(self, principal: Principal | None) -> bool:
        """See ``types.Control``."""
        who = self.state.settings.server.readiness
        return who == "open" or (who == "admin" and principal is not None and principal.admin)

    def models(self, principal: Principal) -> list[ServedModel]:
        """See ``types.Control``."""
        return [ServedModel(id=name, owner=owner) for name, owner in self._served if principal.models.match(name)]

    def model(self, principal: Principal, name: str) -> ServedModel:
        """See ``types.Control``."""
        return ServedModel(id=name, owner=self.state.routes.owner(name, principal, self._catalog.models))

    def upstreams(self) -> list[UpstreamState]:
        """See ``types.Control``."""
        state = self.state
        now = time.monotonic_ns()
        return standing(state.pairs(), state.own, state.routes.table, self._board, self._probes, now)

    async def agents(self) -> list[AgentState]:
        """See ``types.Control``."""
        return await self._agents.look()

    def egress(self, upstream: str) -> Mapping[str, object]:
        """See ``types.Control``."""
        from agw_proxy.edge.egress import egress  # noqa: PLC0415  it brings all dialects

        return egress(self.state, upstream)

    def redis(self) -> Mapping[str, object] | None:
        """See ``types.Control``."""
        return self._replicas.standing() if self._replicas is not None else None

    def metrics_text(self) -> bytes:
        """See ``types.Control``."""
        return self.metrics.text()

    def metrics_tree(self) -> Mapping[str, object]:
        """See ``types.Control``."""
        return self.metrics.tree()

    async def usage(self, wanted: UsageWanted) -> UsagePage:
        """See ``types.Control``."""
        return await asyncio.get_running_loop().run_in_executor(None, self._recorder.read, wanted)

    def explain(self, principal: Principal, wanted: ExplainWanted) -> Mapping[str, object]:
        """See ``types.Control``."""
        return explain(self.state, self.state.keys.named(wanted.key or principal.name), wanted)

    async def sessions(self, key: str, name: str | None, after: tuple[str, str], limit: int) -> list[SessionState]:
        """See ``types.Control``."""
        sessions = await asyncio.get_running_loop().run_in_executor(None, lambda: self._sessions)
        return await sessions.about(key, name, after, limit)

    async def forget_sessions(self, key: str, name: str) -> None:
        """See ``types.Control``."""
        sessions = await asyncio.get_running_loop().run_in_executor(None, lambda: self._sessions)
        await sessions.forget(key, name)

    @functools.cached_property
    def _sessions(self) -> "Sessions":
        """Of agents; imported where there are any, or are asked for."""
        from agw_proxy.edge.sessions import Sessions  # noqa: PLC0415  it brings SQLite

        return Sessions(lambda: self.state.settings, self._environ, self.metrics.dropped)

    def openapi(self) -> bytes:
        """See ``types.Control``."""
        return self._document()
