"""The MCP servers that agents declare: connected before the first run, made anew when they are lost, closed with their agents.

Each server belongs to one task, its *Line*'s, which alone connects and closes it: a client of MCP holds cancel scopes that
must be left by the task that entered them. What the agent's runs ask is a *Held* in the server's place, which waits for
the line, bounds each call, and notices when the server has gone.
"""

import asyncio
import contextvars
import inspect
import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar

import anyio
from agents import Agent, RunContextWrapper
from agents.exceptions import UserError
from agents.mcp import MCPServer

from agw_proxy import spans
from agw_proxy.sdk.entry import CURRENT, Unconnected, at_home
from agw_proxy.sdk.equipped import reached

CALL_SECONDS = 120.0
"""Of one call, where its author has set no bound."""
CLEANUP_SECONDS = 15.0
"""For a server to end; a child process gets a few seconds to go by itself, then it is killed."""
CLOSE_SECONDS = CLEANUP_SECONDS + 5.0
"""Then nobody waits for one any more that does not end."""
PAUSE_SECONDS = 2.0
"""After an attempt to connect that has failed: until then runs are told of that one."""
GONE = re.compile("connection closed|session", re.IGNORECASE)
PING_SECONDS = 3.0
"""For the server to answer a ping after a call that was not answered in time: then it was the call that was slow."""
PING_PAUSE_SECONDS = 0.05
"""Until it is asked again, where its client has waited less than that."""
GONE_CODES = frozenset({-32000, -32600})
"""Of JSON-RPC errors which say, in the words of GONE, that the other side knows nothing of this connection any more."""
LATE_CODE = -32001
BROKEN = (ConnectionError, EOFError, anyio.ClosedResourceError, anyio.BrokenResourceError, anyio.EndOfStream)
SECRET_PARTS = re.compile(r"(https?://)(?:[^/@\s'\"]*@)?([^?#\s'\"]*)[^\s'\"]*")
"""Of an address: who asks, and the query."""
T = TypeVar("T")

log = logging.getLogger("agw_proxy.sdk")


class Line:
    """One server and the task that it belongs to. Used on one loop."""

    def __init__(self, server: MCPServer, seconds: float) -> None:
        """``seconds``: to connect, and to list its tools. The task begins at once, and connects."""
        self._server: Any = server  # the SDK says nothing of what its coroutines give
        self._seconds = seconds
        self.loop = asyncio.get_running_loop()
        self.name = shown(server.name)
        self.tools: tuple[str, ...] = ()
        """What its tools are called, as far as that is known."""
        self.number = 0
        """Of the connection that there is; 0 before the first."""
        self._connected = False
        self._connecting = False
        self._given_up: str | None = None
        self._closing = False
        self._failed: Unconnected | None = None
        self._failed_at = 0.0
        self._asked, self._over = asyncio.Event(), asyncio.Event()
        self._outcome = self._attempt()
        # Not in the context of whoever has it loaded: it outlives that request, and its trace.
        self._task = self.loop.create_task(self._own(), name=f"mcp {self.name}", context=contextvars.Context())

    async def ready(self) -> int:
        """Wait until it is connected, and give the connection's number. Raises Unconnected."""
        if self._connected:
            return self.number
        if self._closing:
            raise Unconnected(f"MCP server '{self.name}' is not used any more")
        if self._outcome.done():
            if self._failed is not None and time.monotonic() < self._failed_at + PAUSE_SECONDS:
                raise self._failed
            self._outcome = self._attempt()
        await asyncio.shield(self._outcome)
        return self.number

    def lost(self, number: int) -> None:
        """The connection of that number is of no use any more; whoever needs one gets a new one."""
        if self._connected and number == self.number:
            self._connected = False
            self._over.set()

    def listed(self, tools: Sequence[Any]) -> None:
        """These are its tools now: some have them only later. Not where a filter needs to know the run."""
        if not self._depends:
            self.tools = tuple(tool.name for tool in tools)

    async def close(self) -> None:
        """End it, and wait until nothing of it is left. May be called again."""
        if not self._closing:
            self._closing = True
            self._connected = False
            self._over.set()
            self._asked.set()
            self._give_up("its connection was given up")
        _, left = await asyncio.wait([self._task], timeout=CLOSE_SECONDS)
        if left:
            log.error("MCP server '%s' has not ended %g s after it was told to", self.name, CLOSE_SECONDS)

    def _give_up(self, why: str) -> None:
        """Connect no longer. Cancels once only: a second time would interrupt a client that ends its server just then."""
        if self._connecting and self._given_up is None:
            self._given_up = why
            self._task.cancel()

    def _attempt(self) -> asyncio.Future[None]:
        self._asked.set()
        outcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        outcome.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody may wait for it
        return outcome

    async def _own(self) -> None:
        """The task: connects when it is asked to, closes what is lost, until it is told to end."""
        try:
            while not self._closing:
                self._asked.clear()
                await self._connection()
                if _cancelled():
                    return
                await self._asked.wait()
        finally:
            self._closing = True
            self._fail(f"MCP server '{self.name}' is not used any more")

    async def _connection(self) -> None:
        """One connection, from its beginning to its end."""
        self._over.clear()
        self._connecting, self._given_up = True, None
        late = f"it did not answer within {self._seconds:g} s"
        clock = asyncio.get_running_loop().call_later(self._seconds, self._give_up, late)
        try:
            await self._server.connect()
            self._forget()
            if not self._depends:  # asked for them, it shows that it works
                self.listed(await self._server.list_tools())
        except (Exception, asyncio.CancelledError, SystemExit) as error:  # noqa: BLE001  it may fail in any way
            self._fail(f"MCP server '{self.name}' cannot be reached: {self._given_up or words(error)}")
        else:
            self._connecting = False
            self._succeed()
            await self._until_over()
        finally:
            clock.cancel()
            self._connecting = self._connected = False
            self._go_on()
            await self._cleanup()

    def _go_on(self) -> None:
        """What has cancelled the task was its own, and is over."""
        task = asyncio.current_task()
        if self._given_up is not None and task is not None:
            task.uncancel()

    @property
    def _depends(self) -> bool:
        """Which tools there are is for a filter to say, of each run."""
        return callable(getattr(self._server, "tool_filter", None))

    def _forget(self) -> None:
        """What a server had before it was lost says nothing of the one that is there now."""
        invalidate = getattr(self._server, "invalidate_tools_cache", None)
        if invalidate is not None:
            invalidate()

    async def _until_over(self) -> None:
        """Until somebody says so, or the client cancels what it runs in, as some do when their server goes."""
        try:
            await asyncio.sleep(0)  # what was cancelled while it connected hears of it here, not when it cleans up
            await self._over.wait()
        except asyncio.CancelledError:
            self._connected = False

    async def _cleanup(self) -> None:
        try:
            async with asyncio.timeout(CLEANUP_SECONDS):
                await self._server.cleanup()
        except (Exception, asyncio.CancelledError, SystemExit) as error:  # noqa: BLE001  it is gone all the same
            log.warning("MCP server '%s' did not end as it should: %s", self.name, words(error))

    def _succeed(self) -> None:
        self.number += 1
        if self.number > 1:
            log.warning("MCP server '%s' was lost, and is connected again", self.name)
        self._failed = None
        self._connected = not self._closing
        if not self._outcome.done():
            self._outcome.set_result(None)

    def _fail(self, told: str) -> None:
        self._failed, self._failed_at = Unconnected(told), time.monotonic()
        if self.number and not self._closing:
            log.warning("%s", told)
        if not self._outcome.done():
            self._outcome.set_exception(self._failed)


class Held(MCPServer):
    """A server as its agent's runs ask it. What its author has set on the server holds: it is looked up there."""

    def __init__(self, server: MCPServer, line: Line) -> None:
        """``line``: the server's. Nothing of the base class is set, so that ``__getattr__`` finds the server's."""
        self._server = server
        self.line = line
        own = getattr(server, "client_session_timeout_seconds", None)
        self._seconds = max(own or 0.0, CALL_SECONDS)
        self._takes_meta = "meta" in inspect.signature(server.call_tool).parameters

    def __getattr__(self, name: str) -> Any:
        return getattr(self._server, name)

    @property
    def name(self) -> str:
        """See the SDK."""
        return self._server.name

    @property
    def cached_tools(self) -> Any:
        """See the SDK."""
        return self._server.cached_tools

    async def connect(self) -> None:
        """Wait until it is connected: an author's own ``connect`` does no harm. Raises Unconnected."""
        await self._there(self.line.ready())

    async def cleanup(self) -> None:
        """Nothing: it is closed with its agent."""

    async def list_tools(self, run_context: RunContextWrapper[Any] | None = None, agent: Any = None) -> list[Any]:
        """See the SDK. Raises Unconnected, TimeoutError, and what the server's raises."""
        tools = await self._asked(lambda: self._server.list_tools(run_context, agent))
        self.line.listed(tools)
        return tools

    async def call_tool(
        self, tool_name: str, arguments: dict[str, Any] | None, meta: dict[str, Any] | None = None
    ) -> Any:
        """See the SDK; the run's trace goes along. Sent again only where the server has said that it did not take it."""
        traceparent = _traceparent() if self._takes_meta else None
        if traceparent is not None:
            meta = {"traceparent": traceparent, **(meta or {})}
        asked = (lambda: self._server.call_tool(tool_name, arguments, meta=meta)) if meta else (
            lambda: self._server.call_tool(tool_name, arguments)
        )  # fmt: skip
        return await self._asked(asked, repeatable=False)

    async def list_prompts(self) -> Any:
        """See the SDK."""
        return await self._asked(self._server.list_prompts)

    async def get_prompt(self, name: str, arguments: dict[str, Any] | None = None) -> Any:
        """See the SDK."""
        return await self._asked(lambda: self._server.get_prompt(name, arguments))

    async def list_resources(self, cursor: str | None = None) -> Any:
        """See the SDK."""
        return await self._asked(lambda: self._server.list_resources(cursor))

    async def list_resource_templates(self, cursor: str | None = None) -> Any:
        """See the SDK."""
        return await self._asked(lambda: self._server.list_resource_templates(cursor))

    async def read_resource(self, uri: str) -> Any:
        """See the SDK."""
        return await self._asked(lambda: self._server.read_resource(uri))

    async def _asked(self, ask: Callable[[], Awaitable[T]], *, repeatable: bool = True) -> T:
        return await self._there(self._answer(ask, repeatable))

    async def _there(self, work: Coroutine[Any, Any, T]) -> T:
        """Do it on the loop that the server is connected on. A run may be on another: a test's, or one of a thread of its author's."""
        if self.line.loop.is_closed():
            work.close()
            raise Unconnected(f"MCP server '{self.line.name}' is not used any more")
        return await at_home(work, self.line.loop)

    async def _answer(self, ask: Callable[[], Awaitable[T]], repeatable: bool) -> T:
        number = await self.line.ready()
        try:
            return await self._bounded(ask)
        except Exception as error:
            if not (is_lost(error) or (is_late(error) and not await self._lives())):
                raise
            self.line.lost(number)
            if not repeatable and not _refused(error):
                raise
        await self.line.ready()
        return await self._bounded(ask)

    async def _lives(self) -> bool:
        """Whether it answers at all; True where that cannot be asked."""
        ping = getattr(getattr(self._server, "session", None), "send_ping", None)
        if ping is None:
            return True
        try:
            async with asyncio.timeout(PING_SECONDS):
                while (answered := await _answered(ping)) is None:  # noqa: ASYNC110  it is the server that is waited for
                    await asyncio.sleep(PING_PAUSE_SECONDS)
        except TimeoutError:
            answered = False
        if not answered:
            log.warning("MCP server '%s' answers nothing any more, and is begun anew", self.line.name)
        return bool(answered)

    async def _bounded(self, ask: Callable[[], Awaitable[T]]) -> T:
        async with asyncio.timeout(self._seconds):
            return await ask()


class Servers:
    """Those of one version of an agent."""

    def __init__(self, lines: Sequence[Line] = ()) -> None:
        """``lines``: to be closed together."""
        self._lines = lines

    async def close(self) -> None:
        """End them all, and wait for it. May be called again."""
        await asyncio.gather(*(line.close() for line in self._lines))


async def connect(agent: Agent[Any], seconds: float) -> Servers:
    """Connect all that the agent and those that it leads to declare, each within ``seconds``; its runs ask a Held from now on.

    Raises Unconnected where one cannot be; none is left connected then. What an author has connected himself is his.
    """
    found = reached(agent)
    wanted = {id(server): server for each in found for server in each.mcp_servers if not _is_connected(server)}
    lines: dict[int, Line] = {}
    try:
        for name, server in wanted.items():
            lines[name] = Line(server, seconds)
        await asyncio.gather(*(line.ready() for line in lines.values()))
    except BaseException:
        await asyncio.shield(Servers(tuple(lines.values())).close())
        raise
    held = {name: Held(server, lines[name]) for name, server in wanted.items()}
    for each in found:
        if each.mcp_servers:
            each.mcp_servers = [held.get(id(server), server) for server in each.mcp_servers]
    return Servers(tuple(lines.values()))


def _traceparent() -> str | None:
    """For whoever is asked here: below what is under way; where nothing is traced here, in the trace of the run's caller."""
    span, run = spans.CURRENT.get(), CURRENT.get()
    if span is not None:
        return span.traceparent
    return f"00-{run.trace}-{secrets.token_hex(8)}-01" if run is not None and run.trace is not None else None


def is_lost(error: BaseException) -> bool:
    """It says that the connection is of no use any more."""
    if isinstance(error, BROKEN):
        return True
    if isinstance(error, UserError):
        return "not initialized" in str(error) or "Connection lost" in str(error)
    return _said(error, GONE_CODES)


def is_late(error: BaseException) -> bool:
    """It says that no answer came in time: by the bound of a call, or by the client's own for a request."""
    told = getattr(error, "error", None)
    return isinstance(error, TimeoutError) or getattr(told, "code", None) == LATE_CODE


async def _answered(ping: Callable[[], Awaitable[object]]) -> bool | None:
    """Whether something came, be it that it knows no ping; None where the client's own bound may be too short for that."""
    try:
        await ping()
    except Exception as error:  # noqa: BLE001  as said
        return None if is_late(error) else not is_lost(error)
    return True


def _refused(error: BaseException) -> bool:
    """The server knew nothing of the session: what was asked was not done."""
    return _said(error, frozenset({-32600}))


def _said(error: BaseException, codes: frozenset[int]) -> bool:
    told = getattr(error, "error", None)
    return getattr(told, "code", None) in codes and GONE.search(str(getattr(told, "message", ""))) is not None


def _is_connected(server: MCPServer) -> bool:
    return isinstance(server, Held) or getattr(server, "session", None) is not None


def _cancelled() -> bool:
    """The task was asked to end, by somebody who is not its own client."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def words(error: BaseException) -> str:
    """What went wrong, without what addresses hold of secrets. Of a group its first."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    told = shown(str(error)) or "it gave no reason"
    return told if isinstance(error, UserError) else f"{type(error).__name__}: {told}"


def shown(text: str) -> str:
    """The text with its addresses cut to what may be told."""
    return SECRET_PARTS.sub(r"\1\2", text)
