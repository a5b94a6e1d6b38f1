"""A scripted upstream that sends exactly the bytes it is told to, at its own pace, and records what it was asked.

Three nouns: an ``Upstream`` listens on loopback in a thread with a loop of its own (so sync and async tests use it
alike and its clock does not depend on theirs); every request becomes an ``Exchange``; a ``Behaviour``
(tests/support/behaviours.py) answers it. ``script`` queues behaviours for the next requests, ``default`` answers all
others.
"""

import asyncio
import contextlib
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import urlsplit

import orjson

HEAD_LIMIT_BYTES = 256 * 1024  # a request head beyond this is a defect of the gateway under test
BODY_LIMIT_BYTES = 64 * 1024 * 1024
SEND_BUFFER_BYTES = 64 * 1024  # small, so that back-pressure is seen where it arises
PATIENCE_SECONDS = 20.0  # how long a test waits for something that must happen

Behaviour = Callable[["Exchange"], Awaitable[None]]


@dataclass
class Recorded:
    """One request as it reached the upstream; times are ``time.monotonic``."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes
    received_at: float
    connection: int
    gone_at: float | None = None
    """When the peer closed the connection while this exchange was still going on."""
    accepted: int = 0
    """Bytes of the answer that the socket has taken."""
    finished: bool = False
    """The behaviour ran to its end."""

    @property
    def path(self) -> str:
        """The target without its query."""
        return urlsplit(self.target).path

    @property
    def json(self) -> dict[str, object]:
        """The body as a JSON object."""
        tree = orjson.loads(self.body)
        assert isinstance(tree, dict)
        return tree

    def values(self, name: str) -> list[str]:
        """All values of a header, in order."""
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def value(self, name: str) -> str | None:
        """The only value of a header, or None."""
        found = self.values(name)
        assert len(found) < 2, f"header {name} came {len(found)} times"
        return found[0] if found else None


class PeerGoneError(Exception):
    """The peer closed the connection while a behaviour was answering."""


class Exchange:
    """What a behaviour sees: the request, and a connection to do anything with."""

    def __init__(self, request: Recorded, writer: asyncio.StreamWriter) -> None:
        self.request = request
        self._writer = writer
        writer.transport.set_write_buffer_limits(0)  # what is drained is taken: `accepted` lags behind nothing
        self._sent = 0
        self.keep_alive = True

    async def send(self, data: bytes) -> None:
        """Write and wait until the socket has room again. Raises PeerGoneError."""
        try:
            self._writer.write(data)
            self._sent += len(data)
            self.note()
            await self._writer.drain()
            self.note()
        except ConnectionError as error:
            raise PeerGoneError from error

    def note(self) -> None:
        """Bring ``request.accepted`` up to date."""
        self.request.accepted = self._sent - self._writer.transport.get_write_buffer_size()

    def end(self) -> None:
        """Close with a FIN after what was sent."""
        self.keep_alive = False
        self._writer.close()

    def reset(self) -> None:
        """Close with an RST; what was sent and not yet read by the peer may be lost."""
        self.keep_alive = False
        connection: socket.socket = self._writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()


@dataclass
class _Inbox:
    """Bytes of one connection, read all the time so that the peer's FIN is seen in every phase."""

    data: bytearray = field(default_factory=bytearray)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    eof: bool = False

    async def until(self, marker: bytes) -> bytes | None:
        """Everything up to and with ``marker``, or None when the peer has closed."""
        while (at := self.data.find(marker)) < 0:
            if self.eof or len(self.data) > HEAD_LIMIT_BYTES:
                return None
            await self._more()
        return self._cut(at + len(marker))

    async def exactly(self, size: int) -> bytes | None:
        """``size`` bytes, or None when the peer closed before."""
        while len(self.data) < size:
            if self.eof or size > BODY_LIMIT_BYTES:
                return None
            await self._more()
        return self._cut(size)

    def _cut(self, size: int) -> bytes:
        piece = bytes(self.data[:size])
        del self.data[:size]
        return piece

    async def _more(self) -> None:
        self.arrived.clear()
        await self.arrived.wait()


class Upstream:
    """``with Upstream() as up``: listening at ``up.url``; everything it has seen is in ``up.requests``."""

    def __init__(self, default: Behaviour | None = None) -> None:
        if default is None:
            from tests.support.fake_openai import openai_like

            default = openai_like
        self.default: Behaviour = default
        self._usual: Behaviour = default
        self.requests: list[Recorded] = []
        self.closed: dict[int, float] = {}
        """Connection number -> when its peer closed it."""
        self.failures: list[BaseException] = []
        """What went wrong inside behaviours: a test bench that hides its own defects proves nothing."""
        self.url = ""
        self.port = 0
        self._queue: deque[Behaviour] = deque()
        self._changed = threading.Condition()
        self._connections = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._run, name="upstream", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(PATIENCE_SECONDS), "the scripted upstream did not start"
        return self

    def __exit__(self, *_: object) -> None:
        assert self._loop is not None
        assert self._stop is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(PATIENCE_SECONDS)
        assert not self._thread.is_alive(), "the scripted upstream did not stop"
        assert not self.failures, self.failures

    def script(self, *behaviours: Behaviour) -> None:
        """Answer the next requests with these, one each."""
        self._queue.extend(behaviours)

    def reset(self) -> None:
        """Forget requests, script and a changed default: a fresh start for the next test on a shared upstream."""
        with self._changed:
            self._queue.clear()
            self.requests = []
            self.default = self._usual

    @property
    def pending(self) -> int:
        """Scripted behaviours that no request has used yet."""
        return len(self._queue)

    @property
    def last(self) -> Recorded:
        """The newest request."""
        return self.requests[-1]

    def wait(self, count: int = 1, seconds: float = PATIENCE_SECONDS) -> list[Recorded]:
        """The requests, once there are at least ``count``."""
        with self._changed:
            arrived = self._changed.wait_for(lambda: len(self.requests) >= count, seconds)
            assert arrived, f"{len(self.requests)} of {count} requests reached the upstream in {seconds} s"
            return list(self.requests)

    def wait_gone(self, request: Recorded, seconds: float = PATIENCE_SECONDS) -> float:
        """When the peer left this exchange."""
        with self._changed:
            assert self._changed.wait_for(lambda: request.gone_at is not None, seconds), "the upstream request went on"
        assert request.gone_at is not None
        return request.gone_at

    def wait_finished(self, request: Recorded, seconds: float = PATIENCE_SECONDS) -> None:
        """Returns when the behaviour has sent all it had."""
        with self._changed:
            assert self._changed.wait_for(lambda: request.finished, seconds), "the answer was not taken in full"

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0, limit=HEAD_LIMIT_BYTES)
        self.port = server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._ready.set()
        await self._stop.wait()
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._connections += 1
        number = self._connections
        writer.transport.set_write_buffer_limits(high=SEND_BUFFER_BYTES)
        inbox = _Inbox()
        pump = asyncio.create_task(self._pump(reader, inbox, number))
        try:
            while await self._exchange(inbox, writer, number, pump):
                pass
        finally:
            pump.cancel()
            self._tasks.discard(task)
            with contextlib.suppress(ConnectionError):
                writer.close()

    async def _pump(self, reader: asyncio.StreamReader, inbox: _Inbox, number: int) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                inbox.data += data
                inbox.arrived.set()
        self.closed[number] = time.monotonic()
        inbox.eof = True
        inbox.arrived.set()

    async def _exchange(
        self, inbox: _Inbox, writer: asyncio.StreamWriter, number: int, pump: asyncio.Task[None]
    ) -> bool:
        """Read and answer one request; True when the connection can take another."""
        request = await _read_request(inbox, number)
        if request is None:
            return False
        if request.path.endswith("/models") and request.values("x-request-id") == ["models-list"]:
            behaviour = self._usual  # asked by the gateway on its own behalf, at a time that no test chooses
        else:
            behaviour = self._queue.popleft() if self._queue else self.default
            with self._changed:
                self.requests.append(request)
                self._changed.notify_all()
        exchange = Exchange(request, writer)
        answering = asyncio.ensure_future(_call(behaviour, exchange))
        try:
            await asyncio.wait({answering, pump}, return_when=asyncio.FIRST_COMPLETED)
            if not answering.done():
                with self._changed:
                    request.gone_at = self.closed[number]
                    self._changed.notify_all()
                return False
            self._judge(answering, request, number)
        finally:
            exchange.note()
            answering.cancel()
            await asyncio.gather(answering, return_exceptions=True)
        return exchange.keep_alive and not inbox.eof

    def _judge(self, answering: asyncio.Future[None], request: Recorded, number: int) -> None:
        error = answering.exception()
        with self._changed:
            if isinstance(error, PeerGoneError):
                request.gone_at = self.closed.get(number, time.monotonic())
            elif error is not None:
                self.failures.append(error)
            else:
                request.finished = True
            self._changed.notify_all()


async def _call(behaviour: Behaviour, exchange: Exchange) -> None:
    await behaviour(exchange)


async def _read_request(inbox: _Inbox, number: int) -> Recorded | None:
    head = await inbox.until(b"\r\n\r\n")
    if head is None:
        return None
    start, *lines = head[:-4].decode("latin-1").split("\r\n")
    method, target, _ = start.split(" ")
    headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    by_name = {name.lower(): value for name, value in headers}
    body: bytes | None
    if "chunked" in by_name.get("transfer-encoding", "").lower():
        body = await _read_chunks(inbox)
    else:
        body = await inbox.exactly(int(by_name.get("content-length", "0")))
    if body is None:
        return None
    return Recorded(method, target, headers, body, time.monotonic(), number)


async def _read_chunks(inbox: _Inbox) -> bytes | None:
    body = bytearray()
    while True:
        line = await inbox.until(b"\r\n")
        if line is None:
            return None
        size = int(line.split(b";")[0], 16)
        piece = await inbox.exactly(size + 2)
        if piece is None:
            return None
        if size == 0:
            return bytes(body)
        body += piece[:-2]


@contextlib.contextmanager
def unreachable() -> Iterator[str]:
    """The URL of a port that refuses connections for as long as the block runs (bound, never listening)."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"
