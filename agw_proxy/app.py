"""The composition root: Settings -> Gateway. Everything that is wired is wired here, by name, once."""

import asyncio
import functools
import mmap
import signal
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from agw_proxy import __version__
from agw_proxy._hot.circuit import Board
from agw_proxy._hot.lane import Policy
from agw_proxy._hot.limit import Table
from agw_proxy._hot.meter import Meter
from agw_proxy.api.endpoint import Endpoint, Matcher
from agw_proxy.api.openapi import document
from agw_proxy.api.table import ENDPOINTS, parted
from agw_proxy.config import devkey
from agw_proxy.config.loader import ConfigError, Loaded
from agw_proxy.config.reload import Reloader, needs_restart
from agw_proxy.config.settings import Settings
from agw_proxy.config.tree import problem
from agw_proxy.edge.accounts import Accounts
from agw_proxy.edge.agents import Find, agents_for, runs_of, tools_of
from agw_proxy.edge.asleep import Asleep
from agw_proxy.edge.descriptors import Descriptors
from agw_proxy.edge.exchange import Bounds
from agw_proxy.edge.lane import Origins, compile_policy
from agw_proxy.edge.overload import Overload
from agw_proxy.edge.prompt import Prompt
from agw_proxy.edge.recording import recorder
from agw_proxy.edge.server import Edge
from agw_proxy.edge.state import State, compile_state, longest_seconds
from agw_proxy.edge.telling import Telling
from agw_proxy.edge.worker_link import WorkerLink
from agw_proxy.errors import ReloadFailed
from agw_proxy.observe.alerts import Alerts
from agw_proxy.observe.log import Log
from agw_proxy.observe.metrics import FAMILIES, Metrics
from agw_proxy.observe.trace import tracer_of
from agw_proxy.types import Upstream
from agw_proxy.upstreams.catalog import Catalog
from agw_proxy.upstreams.probes import Probes
from agw_proxy.upstreams.service import retire
from agw_proxy.upstreams.standing import subjects

if TYPE_CHECKING:
    from agw_proxy.edge.full_server import Full
    from agw_proxy.edge.replicas import Replicas
    from agw_proxy.edge.taping import Taping

T = TypeVar("T")


class Gateway(Telling):
    """One process: the state in force, the edge in front of it, and what its own endpoints can do (``types.Control``)."""

    version = __version__

    def __init__(
        self,
        loaded: Loaded,
        load: Callable[[], Loaded],
        log: Log,
        environ: Mapping[str, str],
        link: WorkerLink | None = None,
        limits: mmap.mmap | None = None,
    ) -> None:
        """``load`` reads the configuration again, for reloads. Raises ConfigError where a key cannot be kept.

        ``link``: to the supervisor, where this is one of several workers. ``limits``: memory for them that is kept,
        where it is the only one.
        """
        self._link, self.log, self._environ = link, log, environ
        self._started = loaded.settings
        self._reloader = Reloader(lambda: self._prepare(load()), loaded)
        self._table = Table(limits) if link is None else link.shared.table(link.worker)
        self._board = Board() if link is None else link.shared.board(link.worker)
        self.metrics = Metrics(Meter(FAMILIES) if link is None else link.shared.meter(link.worker), __version__)
        if link is not None:
            self._reloader.version = link.version
        self._catalog = Catalog()
        self._discovery: asyncio.Task[None] | None = None
        self._closing: set[asyncio.Task[Any]] = set()
        self._reloading = asyncio.Lock()
        self._served: list[tuple[str, str]] = []
        self._edges: list[Edge] = []
        self._origins = Origins()
        self._overload = Overload(loaded.settings, self.metrics, log, Descriptors(), Asleep(self._table).look)
        self._probes = Probes(self.metrics, log.events.warning)
        self._replicas: Replicas | None = None
        self._next: State | None = None
        self._taping: Taping | None = None
        if loaded.settings.server.record is not None:
            from agw_proxy.edge.taping import taping  # noqa: PLC0415  few gateways record

            self._taping = taping(loaded.settings.server.record, self.metrics, log)
        self._tracer = tracer_of(loaded.settings.trace, loaded.settings.log.level, log, self.metrics.dropped)
        tools = functools.partial(tools_of, log.events, self.metrics, lambda: self._replicas, self._table)
        keys, changed = lambda: self.state.keys, self._take_agents
        self._agents = agents_for(link, log, self._make_runs, keys, changed, tools, self._tracer)
        self.state = self._compile(loaded.settings, None)
        self._know_models()
        settings, shared = loaded.settings, link.shared if link is not None else None
        self._recorder = recorder(settings, environ, shared, self.metrics, log, lambda: self.state)
        self.development_key = devkey.generated(settings, environ)
        self._bounds = Bounds.of(settings.server)
        endpoints, self._endpoints, self._admin_endpoints = parted(settings)
        self._document = functools.cache(lambda: document(endpoints, __version__))
        self._alerts = Alerts(loaded.settings.alerts, log.events.warning, self.metrics.dropped)
        self.accounts = Accounts(self.metrics, log, self._alerts, self._tracer)
        self._admin_accounts = Accounts(self.metrics, log)

    def _edge(self, endpoints: Sequence[Endpoint], accounts: Accounts) -> Edge:
        server = self._reloader.current.settings.server
        edge = Edge(
            accounts,
            Prompt(endpoints, self, accounts),
            lambda edge: self._full(edge, endpoints),
            max_connections=server.max_connections,
            max_header_bytes=server.max_header_kb << 10,
            max_held=self._bounds.max_bodies_bytes,
            head_seconds=server.head_seconds,
            policy=self._policy(accounts),
            descriptors=self._overload.descriptors,
        )
        self._overload.join(edge.lane)
        self._edges.append(edge)
        return edge

    def _full(self, edge: Edge, endpoints: Sequence[Endpoint]) -> "Full":
        """The full lane behind an edge, whose modules are imported by now."""
        from agw_proxy.edge.affinity import Affinity  # noqa: PLC0415  not before a request needs it
        from agw_proxy.edge.behind import Background  # noqa: PLC0415  likewise
        from agw_proxy.edge.full_server import Full  # noqa: PLC0415  likewise
        from agw_proxy.edge.handler import Handler  # noqa: PLC0415  likewise
        from agw_proxy.edge.reuse import Reuse  # noqa: PLC0415  likewise
        from agw_proxy.edge.storing import Storing  # noqa: PLC0415  likewise

        handler = Handler(
            matcher=Matcher(endpoints),
            state=lambda: self.state,
            control=self,
            bounds=self._bounds,
            accounts=edge.accounts,
            lane=edge.lane,
            overload=self._overload,
            reuse=Reuse(self.state.settings, self.metrics, self._environ, self._link is None, self._replicas, self.log),
            affinity=Affinity(self.state.settings, self._environ, self._replicas, self.log),
            storing=Storing(self.state.settings, self._environ, self.metrics, lambda: self._sessions),
            runs=Background(self.state.settings, self._environ),
            replicas=self._replicas,
        )
        return Full(handler, edge)

    def _policy(self, accounts: Accounts) -> Policy:
        """The fast lane's reading of the state in force, for one edge."""
        why = "admin_port" if accounts is self._admin_accounts else None
        if self.state.settings.server.lane == "full":
            why = "forced"
        if self._taping is not None:
            why = why or "recording"
        return compile_policy(self.state, ENDPOINTS, self._origins, why=why)

    async def _make_runs(self, find: Find) -> Upstream:
        """What runs agents in this process."""
        full = lambda: self._edges[0].load_full()  # noqa: E731, PLW0108  no edge yet
        state, sessions = lambda: self.state.settings, lambda: self._sessions
        return await runs_of(find, full, state, self.log.events, self.metrics, sessions, self._tracer)

    # -- the state in force

    def _compile(self, settings: Settings, old: State | None) -> State:
        """New tables from settings; what is unchanged (an upstream's pool, its health) is carried over."""
        if old is not None:  # with whom it shares limits is fixed at the start
            settings = settings.model_copy(update={"redis": old.settings.redis})
        development = devkey.generated(settings, self._environ)
        keys = devkey.let_in(settings, development)

        def on_dead(upstream: str, key: str) -> None:
            self.log.events.warning("upstream.key_refused", upstream=upstream, key=key)

        keeper = None
        if self._taping is not None:
            self._taping.know(settings, development)
            keeper = self._taping.keeper
        told, agents = self.metrics, self._agents.upstream
        return compile_state(
            settings, keys, self._table, self._board, old, on_dead, told=told, keeper=keeper, agents=agents
        )

    async def reload(self, *, heard: bool = False) -> Mapping[str, object]:
        """Read the configuration again and swap; a bad one leaves the old tables serving. Raises ReloadFailed.

        Once begun it goes to its end, also where whoever asked for it has gone: what was read is what is served.
        """
        if self._link is not None:
            await self._link.reload(discover=False, heard=heard)
            return self.configuration()
        return await asyncio.shield(self._begin_reload(heard=heard))

    def _begin_reload(self, *, discover: bool = False, heard: bool = False) -> asyncio.Task[Mapping[str, object]]:
        def ended(task: asyncio.Task[Mapping[str, object]]) -> None:
            error = None if task.cancelled() else task.exception()
            if error is not None and not isinstance(error, ReloadFailed):  # those are in the log
                self.log.events.error("config.rejected", error=repr(error), version=self._reloader.version)

        task = self._keep(self._reload_in_turn(discover=discover, heard=heard))
        task.add_done_callback(ended)
        return task

    async def _reload_in_turn(self, *, discover: bool, heard: bool) -> Mapping[str, object]:
        """One after the other: an older reading must not replace a newer one. Other gateways hear of it afterwards."""
        async with self._reloading:
            told = await self._reload()
        self._tell(discover=discover, heard=heard)
        return told

    def _tell(self, *, discover: bool, heard: bool) -> None:
        """Let other gateways hear of a reload. ``heard``: it is one of theirs, and all have heard of it."""
        if self._replicas is not None and not heard:
            self._replicas.tell(discover=discover)

    def _keep(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Do it beside all else, at the latest until the gateway closes."""
        task = asyncio.get_running_loop().create_task(work)
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
        return task

    async def take_up(self, version: int, *, discover: bool, heard: bool) -> str | None:
        """Put in force what the supervisor has handed over, as ``version``; gives why not."""
        try:
            async with self._reloading:
                await self._reload()
        except ReloadFailed as error:
            return str(error)
        self._reloader.version = version
        await self._agents.settle(self.state.settings)
        if discover:
            await self._discover()
        self._tell(discover=discover, heard=heard)
        return None

    def check(self, loaded: Loaded) -> Loaded:
        """Give it back if it can be served. Raises ConfigError."""
        loaded, self._next = self._prepare(loaded), None
        return loaded

    def _prepare(self, loaded: Loaded) -> Loaded:
        """Compile what was loaded, still within the reload that can be refused. Raises ConfigError."""
        try:
            self._next = self._compile(loaded.settings, self.state)
        except ValueError as error:
            raise ConfigError([problem(str(error))]) from None
        return loaded

    async def _reload(self) -> Mapping[str, object]:
        try:
            loaded = await asyncio.get_running_loop().run_in_executor(None, self._reloader.reload)
        except ConfigError as error:
            if self._link is None:  # else the supervisor says it, once
                self.log.events.error("config.rejected", error=str(error), version=self._reloader.version)
            raise ReloadFailed(
                f"The new configuration was not accepted, the old one goes on serving:\n{error}"
            ) from None
        old, new = self.state, self._next
        if new is None:
            raise ReloadFailed("Nothing was compiled; the old configuration goes on serving.")
        if await self._agents.refresh(loaded.settings):
            loop = asyncio.get_running_loop()
            new = await loop.run_in_executor(None, self._compile, loaded.settings, new)
        self._next = None
        self._put_in_force(new)
        self._origins.keep(new.services)
        self._overload.take_up(new.settings)
        self._alerts.take_up(new.settings.alerts)
        self._probe()
        kept = {id(service.upstream) for service in new.services}
        for service in old.services:
            if id(service.upstream) not in kept:
                self._keep(retire(service, longest_seconds(old)))
        self.metrics.adapting({upstream.name for upstream in new.settings.upstreams if upstream.adaptive is not None})
        if self._link is None:
            files = [str(file) for file in loaded.files]
            self.log.events.info("config.reloaded", version=self._reloader.version, files=files)
            if fixed := needs_restart(self._started, loaded.settings):
                self.log.events.warning("config.needs_restart", settings=fixed)
        return self.configuration()

    def _put_in_force(self, state: State) -> None:
        self.state = state
        for edge in self._edges:
            edge.lane.swap(self._policy(edge.accounts))
        self._know_models()

    async def _take_agents(self) -> None:
        """There are other agents, which other workers run."""
        async with self._reloading:
            old = self.state
            self._put_in_force(await asyncio.to_thread(self._compile, old.settings, old))

    async def refresh_upstreams(self, *, heard: bool = False) -> Mapping[str, object]:
        """See ``types.Control``."""
        if self._link is not None:
            await self._link.reload(discover=True, heard=heard)
        else:
            await asyncio.shield(self._begin_reload(discover=True, heard=heard))
            await self._discover()
        models = {name: len(models) for name, models in self._catalog.models.items()}
        return {**self.configuration(), "errors": self._catalog.errors, "models": models}

    async def _discover(self) -> None:
        """Ask the upstreams whose models are given by pattern."""
        errors = await self._catalog.ask(self.state.pairs())
        self._know_models()
        for name, error in errors.items():
            self.log.events.warning("upstream.models_unknown", upstream=name, error=error)

    def _know_models(self) -> None:
        """What can be listed and shown has changed."""
        self._served = self.state.routes.served(self._catalog.models)
        self.metrics.know(self.state.routes.labels(self._catalog.models))
        for edge in self._edges:
            edge.lane.know(self.metrics.known)

    # -- life

    async def serve(self, ready: Callable[["Gateway", str], None]) -> None:
        """Listen, call ``ready`` with the URL, serve until SIGTERM or SIGINT, drain. Raises OSError.

        A worker accepts on its supervisor's sockets instead, and serves until that says so or is gone.
        """
        settings = self.state.settings.server
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        hurry = asyncio.Event()

        def on_stop() -> None:
            (hurry if stop.is_set() else stop).set()

        def told_to_stop(now: bool) -> None:
            stop.set()
            if now:
                hurry.set()

        # A service manager signals all processes at once: in a worker only the supervisor can mean it for the second time.
        loop.add_signal_handler(signal.SIGTERM, on_stop if self._link is None else self._link.on_term(stop.set))
        self._replicas = await self._join()
        if await self._agents.start(self.state.settings):
            self._put_in_force(self._compile(self.state.settings, self.state))
        edge = self._edge(self._endpoints, self.accounts)
        self._agents.attend(edge)
        admin = self._admin_endpoints
        admin_edge = self._edge(admin, self._admin_accounts) if admin is not None else None
        if self._link is not None:
            await self._link.open(self._edges, self, told_to_stop)
        else:
            loop.add_signal_handler(signal.SIGINT, on_stop)
            loop.add_signal_handler(signal.SIGHUP, self._begin_reload)
            url = await edge.listen(settings.host, settings.port)
            if admin_edge is not None:
                near = settings.host if not settings.host.startswith("unix:") else "127.0.0.1"
                await admin_edge.listen(near, settings.admin_port or 0)
            ready(self, url)
        self._overload.start()
        self._probe()
        if self._link is None or self._link.worker == 0:  # one writes for all
            self._recorder.start(self.state.settings.usage.days)
            self._agents.watch(lambda: self.state.settings, self.reload)
        self._discovery = loop.create_task(self._discover())
        await stop.wait()
        if self._link is not None:
            self._link.shut_doors()
        seconds = self.state.settings.server.drain_seconds
        self.log.events.info("server.draining", active=self.active, seconds=seconds)
        drain = loop.create_task(edge.drain(seconds))
        second = loop.create_task(hurry.wait())
        await asyncio.wait({drain, second}, return_when=asyncio.FIRST_COMPLETED)
        second.cancel()
        late = await edge.drain(0) if not drain.done() else drain.result()
        drain.cancel()
        if admin_edge is not None:
            await admin_edge.drain(0)
        await self._close()
        if self._link is not None:
            await self._link.close()
        self.log.events.info("server.stopped", ended_early=late)

    async def _close(self) -> None:
        tasks = [task for task in (self._discovery, *self._closing) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._overload.close()
        if self._replicas is not None:
            await self._replicas.close()
        await self._alerts.close()
        await asyncio.get_running_loop().run_in_executor(None, self._recorder.close)
        await self._probes.close()
        await self._agents.close()
        self._origins.close()
        for service in self.state.services:
            await service.upstream.close()
        if self._taping is not None:
            await self._taping.keeper.close()
        await self.accounts.close()

    async def _join(self) -> "Replicas | None":
        """Share limits and news with other gateways, where so configured."""
        if (settings := self.state.settings.redis) is None:
            return None
        from agw_proxy.edge.replicas import join  # noqa: PLC0415  it brings Redis' client

        return await join(settings, self._link, self._table, self.metrics, self.log.events, self)

    def _probe(self) -> None:
        """Probe what is to be probed: in one worker, for all."""
        if self._link is None or self._link.worker == 0:
            self._probes.take_up(subjects(self.state.pairs(), self._board))
