"""An upstream that forgives nothing: it reads every byte by RFC 9112 with code of its own, and says what was odd.

Each request is expected to carry ``x-vector: <eight digits>``, by which a test finds what became of its bytes, and by
which ``answers`` chooses what comes back. Whatever a gateway should never send is an ``Oddity``; what it began and
never ended is in ``cut``.
"""

import asyncio
import contextlib
import json
import re
import socket
import struct
import threading
from dataclasses import dataclass, field
from typing import Literal, Self

import orjson

from tests.support.behaviours import head_bytes
from tests.support.fake_openai import completion, spoken

PATIENCE_SECONDS = 20.0
HEAD_BYTES = 64 * 1024  # a head beyond this is no request of a gateway with bounds
BODY_BYTES = 16 * 1024 * 1024
SHOWN_BYTES = 400  # of the bytes in a complaint

TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # RFC 9110 section 5.6.2
REQUEST_LINE = re.compile(rb"(?P<method>" + TOKEN + rb") (?P<target>/[!-\"$-~]*) HTTP/1\.1")
FIELD = re.compile(
    rb"(?P<name>" + TOKEN + rb"):[ \t]*(?P<value>(?:[!-~\x80-\xff](?:[\t -~\x80-\xff]*[!-~\x80-\xff])?)?)[ \t]*"
)
CHUNK_SIZE = re.compile(rb"[0-9A-Fa-f]{1,15}")
MARK = re.compile(rb"\r\nx-vector:[ \t]*(\d{8})\r\n", re.IGNORECASE)
DOTS = re.compile(rb"/(?:\.|%2e){1,2}(?:/|\?|$)", re.IGNORECASE)

ONCE = frozenset(
    {b"host", b"content-length", b"transfer-encoding", b"content-type", b"authorization", b"connection", b"x-vector"}
)
NEVER = frozenset(
    {
        b"te", b"trailer", b"upgrade", b"keep-alive", b"proxy-connection", b"proxy-authorization", b"expect",
        b"http2-settings", b"cookie", b"x-agw-key",
    }
)  # fmt: skip
"""Meant for one connection, or for the gateway."""

WHOLE = orjson.dumps(completion())
STREAM = b"".join(spoken())


class OddError(Exception):
    """These bytes are no request that a careful sender would write."""


@dataclass(frozen=True)
class Seen:
    """One well-formed request."""

    mark: str
    """Its ``x-vector``; "" where it has none."""
    method: bytes
    target: bytes
    fields: list[tuple[bytes, bytes]]
    body: bytes
    size: int
    """Of the whole request in bytes."""
    connection: int = 0

    def values(self, name: bytes) -> list[bytes]:
        """All values of a field, in order; ``name`` in lower case."""
        return [value for key, value in self.fields if key.lower() == name]


@dataclass(frozen=True)
class Oddity:
    """What was wrong, and with whose bytes."""

    mark: str
    complaint: str


@dataclass(frozen=True)
class Reaction:
    """What comes back for a request: these bytes, in one write or byte by byte, and then an end."""

    data: bytes
    end: Literal["keep", "fin", "rst", "hang"] = "keep"
    bytewise: bool = False


def read_request(data: bytes, host: bytes) -> Seen | None:
    """The request at the start of ``data``; None while it is not whole. Raises OddError."""
    end = data.find(b"\r\n\r\n")
    head = data if end < 0 else data[: end + 4]
    _check_ends(head)
    if end < 0:
        if len(data) > HEAD_BYTES:
            raise OddError("the head does not end")
        return None
    start, *lines = head[:-4].split(b"\r\n")
    line = REQUEST_LINE.fullmatch(start)
    if line is None:
        raise OddError("the request line is malformed")
    if DOTS.search(line["target"]):
        raise OddError("the target has dot segments")
    fields: list[tuple[bytes, bytes]] = []
    for text in lines:
        found = FIELD.fullmatch(text)
        if found is None:
            raise OddError(f"malformed field line {text[:80]!r}")
        fields.append((found["name"], found["value"]))
    mark = MARK.search(head)
    seen = Seen(mark[1].decode() if mark else "", line["method"], line["target"], fields, b"", end + 4)
    _check_fields(seen, host)
    body = _read_body(data[end + 4 :], seen)
    if body is None:
        return None
    content, size = body
    if seen.values(b"content-type")[:1] == [b"application/json"]:
        _check_json(content)
    return Seen(seen.mark, seen.method, seen.target, fields, content, end + 4 + size)


def _check_ends(head: bytes) -> None:
    plain = head.replace(b"\r\n", b"").removesuffix(b"\r")
    if b"\r" in plain or b"\n" in plain:
        raise OddError("a bare CR or LF")


def _check_fields(seen: Seen, host: bytes) -> None:
    names = [name.lower() for name, _ in seen.fields]
    for name in ONCE:
        if names.count(name) > 1:
            raise OddError(f"{name.decode()} came more than once")
    for name in NEVER.intersection(names):
        raise OddError(f"{name.decode()} was sent on")
    if seen.values(b"host") != [host]:
        raise OddError(f"Host is {seen.values(b'host')} and not {host!r}")
    if not set(seen.values(b"connection")) <= {b"keep-alive", b"close"}:
        raise OddError(f"Connection is {seen.values(b'connection')}")
    if not set(seen.values(b"content-encoding")) <= {b"identity"}:
        raise OddError("a coded body, which the gateway cannot have read")
    coding, length = seen.values(b"transfer-encoding"), seen.values(b"content-length")
    if coding and (length or coding != [b"chunked"]):
        raise OddError(f"framed by Transfer-Encoding {coding} and Content-Length {length}")
    if length and not (length[0].isdigit() and length[0] == b"%d" % int(length[0])):
        raise OddError(f"Content-Length is {length[0]!r}")
    if seen.method == b"POST" and not coding and not length:
        raise OddError("a POST without framing")


def _read_body(data: bytes, seen: Seen) -> tuple[bytes, int] | None:
    """Content and size on the wire; None while it is not whole."""
    if not seen.values(b"transfer-encoding"):
        length = int((seen.values(b"content-length") or [b"0"])[0])
        if length > BODY_BYTES:
            raise OddError("the body is beyond all bounds")
        return (data[:length], length) if len(data) >= length else None
    at, content = 0, b""
    while True:
        line_end = data.find(b"\r\n", at)
        if line_end < 0:
            return None
        if CHUNK_SIZE.fullmatch(data[at:line_end]) is None:
            raise OddError(f"malformed chunk size {data[at:line_end][:80]!r}")
        size = int(data[at:line_end], 16)
        at = line_end + 2 + size + 2
        if len(data) < at:
            return None
        if data[at - 2 : at] != b"\r\n":
            raise OddError("a chunk does not end in CR LF, or there is a trailer")
        if size == 0:
            return content, at
        content += data[line_end + 2 : at - 2]


def _check_json(content: bytes) -> None:
    def once(pairs: list[tuple[str, object]]) -> dict[str, object]:
        made = dict(pairs)
        if len(made) < len(pairs):
            raise OddError("the JSON body has a key twice")
        return made

    try:
        json.loads(content, object_pairs_hook=once)
    except ValueError:
        raise OddError("the body is no JSON") from None


@dataclass
class StrictUpstream:
    """``with StrictUpstream(secrets) as up``: listening at ``up.url``. ``secrets``: bytes that must never come here."""

    secrets: tuple[bytes, ...] = ()
    answers: dict[str, Reaction] = field(default_factory=dict)
    """Reactions by mark; everybody else gets a good answer."""
    seen: list[Seen] = field(default_factory=list)
    oddities: list[Oddity] = field(default_factory=list)
    cut: list[Oddity] = field(default_factory=list)
    """Requests that the peer began and left."""
    closed: set[int] = field(default_factory=set)
    """Connections that are over, by number."""
    url: str = ""
    _by_mark: dict[str, list[Seen]] = field(default_factory=dict)
    _host: bytes = b""
    _connections: int = 0
    _ready: threading.Event = field(default_factory=threading.Event)
    _loop: asyncio.AbstractEventLoop | None = None
    _stop: asyncio.Event | None = None
    _thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="strict", daemon=True)
        self._thread.start()
        assert self._ready.wait(PATIENCE_SECONDS), "the strict upstream did not start"
        return self

    def __exit__(self, *_: object) -> None:
        assert self._loop is not None
        assert self._stop is not None
        assert self._thread is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(PATIENCE_SECONDS)
        assert not self._thread.is_alive(), "the strict upstream did not stop"

    def by_mark(self, mark: str) -> list[Seen]:
        """The requests of one vector."""
        return self._by_mark.get(mark, [])

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        tasks: set[asyncio.Task[None]] = set()

        def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._connections += 1
            task = asyncio.ensure_future(self._talk(reader, writer, self._connections))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        server = await asyncio.start_server(connected, "127.0.0.1", 0, backlog=1024)
        port = server.sockets[0].getsockname()[1]
        self._host = b"127.0.0.1:%d" % port
        self.url = f"http://127.0.0.1:{port}"
        self._ready.set()
        await self._stop.wait()
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        try:
            with contextlib.suppress(ConnectionError):
                while (seen := await self._receive(reader, number)) is not None:
                    if not await self._react(seen, reader, writer):
                        return
        finally:
            writer.close()
            self.closed.add(number)

    async def _receive(self, reader: asyncio.StreamReader, number: int) -> Seen | None:
        """The next request; None where the peer has left, or has written what nobody should."""
        data = b""
        try:
            while (found := read_request(data, self._host)) is None:
                more = await reader.read(65536)
                if not more:
                    if data:
                        self.cut.append(self._oddity(data, "cut"))
                    return None
                data += more
            if len(data) > found.size:
                raise OddError("bytes behind the request, before its answer")
            if any(secret in data for secret in self.secrets):
                raise OddError("a secret of the client's was sent on")
        except OddError as error:
            self.oddities.append(self._oddity(data, str(error)))
            return None
        seen = Seen(found.mark, found.method, found.target, found.fields, found.body, found.size, number)
        if seen.values(b"x-request-id") != [b"models-list"]:  # what the gateway asks on its own behalf
            self.seen.append(seen)
            self._by_mark.setdefault(seen.mark, []).append(seen)
        return seen

    @staticmethod
    def _oddity(data: bytes, complaint: str) -> Oddity:
        mark = MARK.search(data)
        return Oddity(mark[1].decode() if mark else "", f"{complaint}: {data[:SHOWN_BYTES]!r}")

    async def _react(self, seen: Seen, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer; True when the connection waits for another request."""
        reaction = self.answers.get(seen.mark) or usual(seen)
        pieces = [reaction.data]
        if reaction.bytewise:
            pieces = [reaction.data[at : at + 1] for at in range(len(reaction.data))]
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            if reaction.bytewise:
                await asyncio.sleep(0)
        if reaction.end == "hang":
            if await reader.read(1):
                self.oddities.append(Oddity(seen.mark, "more bytes on a connection whose answer has not ended"))
        elif reaction.end == "rst":
            connection: socket.socket = writer.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        return reaction.end == "keep"


def usual(seen: Seen) -> Reaction:
    """A good answer to a chat, whole or as a stream; to anything else a small JSON object."""
    streamed = b'"stream":true' in seen.body.replace(b" ", b"")
    if not seen.target.startswith(b"/v1/chat/completions"):
        kind, body = "application/json", b'{"object":"thing"}'
    else:
        kind, body = ("text/event-stream", STREAM) if streamed else ("application/json", WHOLE)
    head = head_bytes(200, [("content-type", kind), ("content-length", str(len(body)))])
    return Reaction(head if seen.method == b"HEAD" else head + body)
