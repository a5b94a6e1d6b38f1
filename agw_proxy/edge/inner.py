"""A run's own model calls: requests like any client's, made in this process and answered without a socket.

Each one passes ``Handler`` as a request of the run's caller (``Within``), so that the same code decides on it: what the
key may use, budgets, routes, retries, fallbacks, translation, one Receipt. What is different is in few places: whose it
is needs no key (``authentication``), it takes no second place among requests (``policy.limits.within_runs``), is never
refused for a drain or for overload, since its run is under way, and gets no kept answer that it has not asked for.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, cast

import msgspec
from aiohttp import EMPTY_PAYLOAD, StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpVersion11, RawRequestMessage
from aiohttp.web_protocol import RequestHandler
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from agw_proxy.edge.asking import SESSION
from agw_proxy.edge.exchange import Within
from agw_proxy.edge.full_lane import WITHIN
from agw_proxy.edge.headers import CREDENTIALS, HOP_BY_HOP
from agw_proxy.edge.heartbeat import SILENT
from agw_proxy.errors import UpstreamBroken, UpstreamUnreachable
from agw_proxy.policy.limits import within_runs
from agw_proxy.sdk.entry import SERVING
from agw_proxy.spans import CURRENT
from agw_proxy.types import Principal, RawHeaders

if TYPE_CHECKING:
    from agw_proxy.edge.full_server import Full
    from agw_proxy.edge.handler import Handler
    from agw_proxy.sdk.entry import Run

MAX_HELD_BYTES = 65_536  # of an answer that its run has not read: then no more is taken from the upstream
MAX_KNOWN = 256  # principals whose rules within runs are kept
NOT_TAKEN = (
    HOP_BY_HOP | CREDENTIALS | {"x-agw-key", "host", "content-length", "expect", "x-request-id", "accept-encoding"}
)
"""Headers of a run's request that mean nothing here: there is no connection, and whose it is, is known."""
ABOVE: ContextVar[tuple["Run", ...]] = ContextVar("agw_runs_above", default=())
"""The runs that the present one is within, the outermost first."""


class Inner:
    """All runs' calls of one worker (``sdk.entry.ModelCalls``)."""

    def __init__(self, full: Callable[[], Awaitable["Full"]]) -> None:
        """``full``: the full lane, which serves them (``Edge.load_full``); it is made when something first needs it.

        To be made on the loop that serves.
        """
        self._full = full
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._within: dict[int, tuple[Principal, Principal]] = {}

    @property
    def active(self) -> int:
        """Calls that have not ended."""
        return len(self._tasks)

    async def open(self, run: "Run", method: str, path: str, headers: Sequence[tuple[str, str]], body: bytes) -> "Wire":
        """See ``ModelCalls``. Raises UpstreamUnreachable on another loop than the gateway's."""
        if asyncio.get_running_loop() is not self._loop:
            raise UpstreamUnreachable(
                "Models are asked from the gateway's own event loop: let the tool be an async one."
            )
        handler = (await self._full()).handler
        wire = Wire()
        before = SERVING.set(True)  # from here on it is not the agent's code
        try:
            task = self._loop.create_task(self._serve(handler, wire, run, (method, path, headers, body)))
        finally:
            SERVING.reset(before)
        wire.task = task
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            await wire.begun()
        except BaseException:
            wire.close()
            raise
        return wire

    async def _serve(
        self, handler: "Handler", wire: "Wire", run: "Run", asked: tuple[str, str, Sequence[tuple[str, str]], bytes]
    ) -> None:
        """One call, in a task of its own: what ends it ends nothing else of the run."""
        above = ABOVE.get()
        ABOVE.set((*above, run))
        within = Within((*above, run)[0].request_id, run.agent, self._principal(run.principal), len(above) + 1)
        within.session = SESSION.get()
        within.spent = 0 < run.most_cost <= run.cost
        try:
            request = _request(wire, run, *asked)
            request[WITHIN] = within
            response = await handler(request)
            await response.prepare(request)
            await response.write_eof()
        except asyncio.CancelledError:
            wire.fail("The call was ended before its answer was complete.")
            raise
        except ConnectionError:  # the handler's way to end an answer that must not look whole
            wire.fail("The answer broke off.")
        except Exception:  # noqa: BLE001  a defect, of which the handler has told the log
            wire.fail("The gateway failed within an answer.")
        finally:
            wire.end()
            _charge(within, (*above, run))

    def _principal(self, principal: Principal | None) -> Principal | None:
        """The same, with the limits that hold within runs."""
        if principal is None:
            return None
        found = self._within.get(id(principal))
        if found is None:
            if len(self._within) >= MAX_KNOWN:
                self._within.clear()  # after reloads, most of them are of the past
            limits = within_runs(principal.limits)
            found = principal, msgspec.structs.replace(principal, limits=limits)
            self._within[id(principal)] = found
        return found[1]


class Wire(AbstractStreamWriter):
    """Between the handler, which writes an answer, and its run, which reads it (``types.Reply``)."""

    connect_ms: float = 0.0
    began_ns: int = 0

    def __init__(self) -> None:
        self.status = 0
        self.headers: RawHeaders = ()
        self.task: asyncio.Task[None] | None = None
        self._held = bytearray()
        self._over = False
        self._broken: str | None = None
        self._came = asyncio.Event()
        self._went = asyncio.Event()

    # -- the run's side

    async def begun(self) -> None:
        """Wait for the head. Raises UpstreamBroken where none will come."""
        while not self.status:
            if self._over:
                raise UpstreamBroken(self._broken or "The call was ended before its answer began.")
            await self._wait(self._came)

    @property
    def ended(self) -> bool:
        """See ``types.Reply``."""
        return self._over and not self._held and self._broken is None

    async def read(self, *, progress: bool = True) -> bytes:
        """See ``types.Reply``: all that has come since the last time."""
        del progress  # the handler has the clocks
        while not self._held and not self._over:
            await self._wait(self._came)
        if self._held:
            data = bytes(self._held)
            self._held.clear()
            self._went.set()
            return data
        if self._broken is not None:
            raise UpstreamBroken(self._broken)
        return b""

    def close(self) -> None:
        """See ``types.Reply``: a call that has not ended is cancelled."""
        if not self._over:
            self.fail("The reply was closed before its end.")
        self._held.clear()
        if self.task is not None:
            self.task.cancel()

    # -- the handler's side

    def fail(self, why: str) -> None:
        """There is no more, and what came is not all."""
        self._broken = self._broken or why
        self.end()

    def end(self) -> None:
        """No more will be written."""
        self._over = True
        self._came.set()
        self._went.set()

    async def write_headers(self, status_line: str, headers: "CIMultiDict[str]") -> None:
        """See ``AbstractStreamWriter``."""
        self.headers = tuple(
            (name.lower().encode("utf-8", "surrogateescape"), value.encode("utf-8", "surrogateescape"))
            for name, value in headers.items()
            if name.lower() not in HOP_BY_HOP
        )
        self.status = int(status_line.split(" ", 2)[1])
        self._came.set()

    async def write(self, chunk: bytes | bytearray | memoryview) -> None:
        """See ``AbstractStreamWriter``. Waits while too much is unread."""
        while len(self._held) >= MAX_HELD_BYTES and not self._over:
            await self._wait(self._went)
        if self._over:
            raise ConnectionResetError("the run reads no more")
        self.output_size += len(chunk)
        self._held += chunk
        self._came.set()

    async def write_eof(self, chunk: bytes = b"") -> None:
        """See ``AbstractStreamWriter``."""
        if chunk:
            await self.write(chunk)
        self.end()

    async def drain(self) -> None:
        """See ``AbstractStreamWriter``; each write waits by itself."""

    def enable_compression(self, encoding: str = "deflate", strategy: int | None = None) -> None:
        """See ``AbstractStreamWriter``; nothing is compressed within a process."""

    def enable_chunking(self) -> None:
        """See ``AbstractStreamWriter``; there is no framing."""

    def send_headers(self) -> None:
        """See ``AbstractStreamWriter``; they have been taken over already."""

    @staticmethod
    async def _wait(event: asyncio.Event) -> None:
        event.clear()
        await event.wait()


class _Nowhere(BaseProtocol):
    """In a connection's place: there is none."""

    ssl_context = peername = sockname = None


def _request(
    wire: Wire, run: "Run", method: str, path: str, headers: Sequence[tuple[str, str]], body: bytes
) -> web.BaseRequest:
    """The request as aiohttp would have read it. To be made in the task that serves it."""
    sent: CIMultiDict[str] = CIMultiDict(
        (name, value)
        for name, value in headers
        if (lower := name.lower()) not in NOT_TAKEN and not lower.startswith("proxy-")
    )
    for name, told in (("x-user-id", run.user), ("x-channel-id", run.channel), ("x-session-id", run.session)):
        if told is not None:
            sent[name] = told
    if "traceparent" not in sent:
        if (span := CURRENT.get()) is not None:
            sent["traceparent"] = span.traceparent
        elif run.trace is not None:
            sent["traceparent"] = f"00-{run.trace}-{secrets.token_hex(8)}-01"
    if body or method in {"POST", "PUT", "PATCH"}:
        sent["Content-Length"] = str(len(body))
    return in_process(wire, method, path, sent, body)


def in_process(
    writer: AbstractStreamWriter, method: str, path: str, sent: "CIMultiDict[str]", body: bytes
) -> web.BaseRequest:
    """A request without a connection. ``sent``: its headers. To be made in the task that serves it."""
    raw = tuple(
        (name.encode("utf-8", "surrogateescape"), value.encode("utf-8", "surrogateescape"))
        for name, value in sent.items()
    )
    message = RawRequestMessage(
        method, path, HttpVersion11, CIMultiDictProxy(sent), raw, should_close=False, compression=None, upgrade=False,
        chunked=False, url=URL(path, encoded=True),
    )  # fmt: skip
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    if task is None:
        raise RuntimeError("a call is served in a task")
    nowhere = _Nowhere(loop)
    content: StreamReader = EMPTY_PAYLOAD
    if body:
        content = StreamReader(nowhere, len(body) + 1, loop=loop)
        content.feed_data(body)
        content.feed_eof()
    made = web.BaseRequest(message, content, cast("RequestHandler", nowhere), writer, task, loop)
    made[SILENT] = True
    return made


def _charge(within: Within, runs: Sequence["Run"]) -> None:
    """What the call has come to is spent by its run, and by those that it is within."""
    cost = within.exchange.charged()[2] if within.exchange is not None else 0
    within.exchange = None  # each has the other: a circle that the collector would find much later
    for run in runs:
        run.cost += max(cost, 0)
