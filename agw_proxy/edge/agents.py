"""The agents of one process: looked for at the start and at each reload, and run behind one upstream.

Where no folder has an agent, nothing of the SDK is imported, and there is no such upstream.
"""

import asyncio
import contextlib
import contextvars
import gc
import importlib
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agw_proxy._hot.limit import Table
from agw_proxy._hot.route import Target
from agw_proxy.config.agents import Agents as AgentSettings
from agw_proxy.config.settings import Settings
from agw_proxy.config.values import Dialect
from agw_proxy.observe.log import Log
from agw_proxy.observe.metrics import Metrics
from agw_proxy.policy.keys import Keys
from agw_proxy.spans import Tracer
from agw_proxy.states import AgentState
from agw_proxy.types import Call, Reply, Upstream
from agw_proxy.upstreams.passing import PassedOn
from agw_proxy.upstreams.services import AgentUpstream
from agw_proxy.upstreams.unwrapped import lost_by

if TYPE_CHECKING:
    from agw_proxy.edge.full_server import Full
    from agw_proxy.edge.server import Edge
    from agw_proxy.edge.sessions import Sessions
    from agw_proxy.edge.worker_link import WorkerLink
    from agw_proxy.sdk.catalog import Catalog, Events
    from agw_proxy.sdk.entry import Entry
    from agw_proxy.tools.registry import Registry, Shared

RETRY_SECONDS = 2.0  # until an agent that waits for an MCP server is tried again; then twice as long each time,
RETRY_AT_MOST = 60.0  # up to this
WATCH_SECONDS = 1.0  # between two looks at the files: an editor's save is taken up within two

Find = Callable[[str], "Entry | None"]
Make = Callable[[Find], Awaitable[Upstream]]
"""Makes what runs the agents that ``Find`` finds by their ids; called once, when the first agent is there."""


async def runs_of(
    find: Find,
    full: Callable[[], Awaitable["Full"]],
    settings: Callable[[], Settings],
    events: "Events",
    metrics: Metrics,
    sessions: Callable[[], "Sessions"],
    tracer: Tracer | None,
) -> Upstream:
    """What runs the agents, and takes their own model calls back through the full lane.

    ``settings``: those in force; ``sessions``: what keeps conversations, asked for once, off the loop. ``tracer``: None
    where nothing is traced.
    """

    def default() -> str | None:
        return settings().agents.model

    def threads() -> int:
        return settings().agents.threads

    def say(name: str, members: Mapping[str, object]) -> None:
        (events.warning if name.endswith(("failure", "blocked_loop")) else events.info)(name, **members)

    loop = asyncio.get_running_loop()
    await loop.run_in_executor(None, _import)
    from agw_proxy.edge.inner import Inner  # noqa: PLC0415  it brings aiohttp
    from agw_proxy.sdk.models import provider  # noqa: PLC0415  it brings the SDK
    from agw_proxy.sdk.runner import Runner  # noqa: PLC0415  likewise
    from agw_proxy.sdk.tracing import Traces  # noqa: PLC0415  likewise
    from agw_proxy.upstreams.agent import Agents as Running  # noqa: PLC0415  likewise

    models = await loop.run_in_executor(None, provider, Inner(full), default)
    books = await loop.run_in_executor(None, sessions)
    traces = Traces(tracer) if tracer is not None else None
    return Running(find, Runner(models, say, threads, metrics.agent_blocked, traces), books=books)


def _import() -> None:
    for module in ("agw_proxy.edge.inner", "agw_proxy.upstreams.agent", "agw_proxy.sdk.tracing"):
        importlib.import_module(module)


def agents_for(
    link: "WorkerLink | None",
    log: Log,
    make: Make,
    keys: Callable[[], Keys],
    on_change: Callable[[], Awaitable[None]],
    registry: "Callable[[], Registry]",
    tracer: Tracer | None,
) -> "Agents":
    """Those that this process runs; where it is one of several, and some only run agents, those that they run.

    ``make``: see ``Make``. ``keys``: those in force. ``on_change``: called where there are others than at the last look.
    ``registry``: makes that of their tools. ``tracer``: None where nothing is traced.
    """
    if link is None or link.inboxes is None:
        return Agents(lambda: log.events, make, registry, on_change)
    if link.apart:
        from agw_proxy.edge.agents_hosted import HostedAgents  # noqa: PLC0415  few gateways have workers for them

        return HostedAgents(link, log, make, keys, registry, tracer, on_change)
    from agw_proxy.edge.agents_placed import PlacedAgents  # noqa: PLC0415  likewise

    return PlacedAgents(link, log, on_change)


def tools_of(events: "Events", metrics: "Metrics", shared: "Callable[[], Shared | None]", table: Table) -> "Registry":
    """What holds the tools that agents ask for by name; from now on authors' helpers count and limit by the gateway.

    ``shared``: where limits are shared with other gateways. ``table``: what the helpers limit by.
    """
    from agw_proxy.sdk.host import Host, serve  # noqa: PLC0415  few gateways have agents
    from agw_proxy.tools.registry import Registry  # noqa: PLC0415  likewise

    serve(Host(table, metrics.helped, metrics.tracked))
    return Registry(events, metrics, shared)


class Hosted:
    """The upstream of the agents, which keeps each version that a run uses."""

    dialect: Dialect = "openai"

    def __init__(self, upstream: Upstream, catalog: "Catalog") -> None:
        """``upstream``: what runs them."""
        self.name: str = upstream.name
        self._upstream, self._catalog = upstream, catalog

    @property
    def ids(self) -> Sequence[str]:
        """What can be asked for."""
        return self._catalog.ids

    @property
    def longest_seconds(self) -> float:
        """How long a run may take that has a bound."""
        return self._catalog.longest_seconds

    async def open(self, target: Target, call: Call) -> Reply:
        """See ``types.Upstream``."""
        with ExitStack() as stack:
            stack.enter_context(self._catalog.using(target.model))
            reply = await self._upstream.open(target, call)
            return _Run(reply, stack.pop_all())

    async def close(self) -> None:
        """End all runs, then let go of the agents."""
        await self._upstream.close()
        await self._catalog.close()


class _Run(PassedOn):
    """A reply that holds its agent until it is closed."""

    def __init__(self, reply: Reply, held: ExitStack) -> None:
        super().__init__(reply)
        self.dropped = lost_by(reply)
        """See ``opening.Opened``."""
        self._held = held

    def close(self) -> None:
        """See ``types.Reply``."""
        self._reply.close()
        self._held.close()


class Agents:
    """``upstream``: what is asked for them; None until the first is there."""

    def __init__(
        self,
        events: Callable[[], "Events"],
        make: Make,
        registry: "Callable[[], Registry] | None" = None,
        on_change: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """``events``: the log's, asked for when there is something to say. ``registry``: makes that of their tools.

        ``on_change``: called when there are more than the last look has found.
        """
        self._events, self._make, self._registry, self._on_change = events, make, registry, on_change
        self._turn = asyncio.Lock()
        self._settings: Settings | None = None
        self._retry: asyncio.Task[None] | None = None
        self._looked = asyncio.Event()
        self._tools: Registry | None = None
        self.upstream: AgentUpstream | None = None
        self._catalog: Catalog | None = None
        self._watch: asyncio.Task[None] | None = None
        self._taken: str | None = None

    async def start(self, settings: Settings) -> bool:
        """The first look, before anything is served; see ``refresh``."""
        gc.disable()  # what an import makes is kept
        try:
            found = await self.refresh(settings)
            if found:
                gc.freeze()  # without collecting: a hundredth of it is garbage, and finding it takes a fifth of a second
        finally:
            gc.enable()
        return found

    async def refresh(self, settings: Settings) -> bool:
        """Look again. True where there is, or was, any agent to be served. Never raises for what is wrong with one."""
        agents = settings.agents
        self._taken = await signature(settings)  # before the look: what changes meanwhile is seen next time
        if self._catalog is None:
            kind = await asyncio.get_running_loop().run_in_executor(None, _catalog, agents)
            if kind is None:
                return False
            self._catalog = kind(self._events())
        async with self._turn:
            self._settings = settings
            await self._bind(settings)
            await self._catalog.refresh(agents, {model.name for model in settings.models})
            await self._host(self._catalog)
        self._looked.set()
        if self._catalog.waits and (self._retry is None or self._retry.done()):
            work = self._retrying(self._catalog)
            self._retry = asyncio.get_running_loop().create_task(work, context=contextvars.Context())
        return self.upstream is not None

    async def _host(self, catalog: "Catalog") -> None:
        if catalog.ids and self.upstream is None:
            self.upstream = Hosted(await self._make(catalog.find), catalog)

    async def _retrying(self, catalog: "Catalog") -> None:
        """Try again, while there is any, what waits for something that may come; soon again after each look."""
        pause = RETRY_SECONDS
        while catalog.waits:
            self._looked.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._looked.wait()
            if self._looked.is_set():
                pause = RETRY_SECONDS
                continue
            pause = min(pause * 2, RETRY_AT_MOST)
            try:
                async with self._turn:
                    if self._settings is not None:
                        await self._bind(self._settings)
                    more = await catalog.retry()
                    await self._host(catalog)
                if more and self._on_change is not None:
                    await self._on_change()
            except Exception as error:  # noqa: BLE001  whatever it is: it is tried again, and the others go on
                self._events().warning("agents.not_taken_up", error=f"{type(error).__name__}: {error}")

    async def _bind(self, settings: Settings) -> None:
        """From here on, what this task loads finds the tools as they are configured now."""
        if self._registry is None:
            return
        from agw_proxy.tools.registry import REGISTRY  # noqa: PLC0415  few gateways have agents

        if self._tools is None:
            self._tools = self._registry()
        await self._tools.refresh(settings.tools)
        REGISTRY.set(self._tools)

    def attend(self, edge: "Edge") -> None:
        """``edge``: has the clients that ask for agents."""

    async def settle(self, settings: Settings) -> None:
        """After a reload: wait for the processes that run these agents, where it is not this one."""

    async def look(self) -> list[AgentState]:
        """The same as ``states``, of all processes that run these agents."""
        return self.states()

    def states(self) -> list[AgentState]:
        """All that were found, in order of their ids, then what was left out."""
        return self._catalog.states() if self._catalog is not None else []

    def watch(self, settings: Callable[[], Settings], reload: Callable[[], Coroutine[Any, Any, object]]) -> None:
        """From now on, and while the settings in force say so, ``reload`` when files of agents or tools have changed."""
        self._watch = asyncio.get_running_loop().create_task(self._watching(settings, reload))

    async def close(self) -> None:
        """Watch no more. The agents end with their upstream."""
        tasks = [task for task in (self._watch, self._retry) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _watching(
        self, settings: Callable[[], Settings], reload: Callable[[], Coroutine[Any, Any, object]]
    ) -> None:
        """A change is taken up once the files are still: an editor, or a copy, may need several steps."""
        before: str | None = None
        while True:
            now = await signature(settings())
            if now is not None and now == before and now != self._taken:
                self._taken = now  # once, also where the configuration is not accepted
                await asyncio.gather(reload(), return_exceptions=True)  # what was wrong with it is in the log
            before = now
            await asyncio.sleep(WATCH_SECONDS)


def _catalog(settings: AgentSettings) -> "type[Catalog] | None":
    """What holds agents; None where there is no folder for any."""
    if not settings.anywhere:
        return None
    from agw_proxy.sdk.catalog import Catalog  # noqa: PLC0415  few gateways have agents

    return Catalog


async def signature(settings: Settings) -> str | None:
    """Changes with any file below the folders of agents, and beside those of tools; None where nobody watches any."""
    agents = settings.agents.paths if settings.agents.auto_reload else ()
    functions = [tool.python.rpartition(":")[0] for tool in settings.tools if settings.server.tool_auto_reload]
    tools = sorted({Path(file).parent for file in functions if file.endswith(".py")})
    if not agents and not tools:
        return None

    def look() -> str:
        from agw_proxy.sdk.discovery import digest  # noqa: PLC0415  few gateways have agents

        seen = [digest(path, read_bytes=-1) for path in agents]
        seen += [digest(path, inside=lambda _: False, suffixes=(".py",), read_bytes=-1) for path in tools]
        return " ".join(seen)

    return await asyncio.get_running_loop().run_in_executor(None, look)
