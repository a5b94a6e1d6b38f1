"""A client over a bare socket that plays the steps of a vector and reads what comes back as strictly as RFC 9112 has it.

``converse`` gives a ``Talk``: the final answers, the interim ones, how it ended and what was wrong with the bytes. Whether
a connection is open is found out by using it: a probe goes over it, and its answer carries the probe's own id.
"""

import asyncio
import contextlib
import re
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.e2e.corpus.vector import Drip, HalfClose, Interim, Step, Wait

PATIENCE_SECONDS = 8.0  # for a whole conversation; what takes longer hangs
STATUS_LINE = re.compile(rb"HTTP/1\.(?P<minor>[01]) (?P<status>[1-5]\d\d) (?P<reason>[\t -~\x80-\xff]*)")
FIELD = re.compile(rb"(?P<name>[!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(?P<value>[\t -~\x80-\xff]*?)[ \t]*")
BODILESS = frozenset({204, 304})
PROBE = b"GET /health HTTP/1.1\r\nHost: a\r\nx-request-id: %s\r\n\r\n"


class MalformedError(Exception):
    """What the gateway sent is not HTTP/1.1."""


@dataclass
class Answer:
    """One answer, final or interim. ``complete``: its body ended as its framing says."""

    minor: int
    status: int
    fields: list[tuple[str, str]]
    body: bytes = b""
    complete: bool = True
    by_close: bool = False
    """The end of its body is the end of the connection."""

    def values(self, name: str) -> list[str]:
        """All values of a field, in order; ``name`` in lower case."""
        return [value for key, value in self.fields if key.lower() == name]

    @property
    def tokens(self) -> set[str]:
        """The options of its Connection field."""
        return {token.strip().lower() for value in self.values("connection") for token in value.split(",")}

    @property
    def closes(self) -> bool:
        """It says that nothing comes after it."""
        return self.by_close or "close" in self.tokens or (self.minor == 0 and "keep-alive" not in self.tokens)


@dataclass
class Talk:
    """What came back."""

    answers: list[Answer] = field(default_factory=list)
    interim: list[int] = field(default_factory=list)
    closing: str = "hang"
    """``open``, ``closed``, ``left`` (by us) or ``hang`` (neither an answer nor an end in time)."""
    announced: bool = False
    """The last answer said that the connection would close."""
    faults: list[str] = field(default_factory=list)

    @property
    def end(self) -> str:
        """Statuses and closing, as vectors write them."""
        return " ".join([*(str(answer.status) for answer in self.answers), self.closing])


def read_answer(data: bytes, *, to_head: bool, ended: bool) -> tuple[Answer, int] | None:
    """The answer at the start of ``data`` and its size; None while it is not whole. Raises MalformedError.

    ``ended``: nothing more comes, so that what is there is the answer, complete or not.
    """
    end = data.find(b"\r\n\r\n")
    head = data[: end + 2] if end >= 0 else data
    if re.search(rb"\r(?!\n)|(?<!\r)\n", head.removesuffix(b"\r")):
        raise MalformedError("a bare CR or LF in the head")
    if end < 0:
        if ended:
            raise MalformedError(f"half a head: {data[:200]!r}")
        return None
    start, *lines = head[:-2].split(b"\r\n")
    line = STATUS_LINE.fullmatch(start)
    if line is None:
        raise MalformedError(f"malformed status line {start[:200]!r}")
    fields: list[tuple[str, str]] = []
    for text in lines:
        found = FIELD.fullmatch(text)
        if found is None:
            raise MalformedError(f"malformed field line {text[:200]!r}")
        fields.append((found["name"].decode(), found["value"].decode("latin-1")))
    answer = Answer(int(line["minor"]), int(line["status"]), fields)
    size = _read_body(answer, data[end + 4 :], to_head=to_head, ended=ended)
    return None if size is None else (answer, end + 4 + size)


def _read_body(answer: Answer, data: bytes, *, to_head: bool, ended: bool) -> int | None:
    codings, lengths = answer.values("transfer-encoding"), answer.values("content-length")
    if len(lengths) > 1 or (codings and (lengths or codings != ["chunked"] or answer.minor == 0)):
        raise MalformedError(f"framed by Transfer-Encoding {codings} and Content-Length {lengths}")
    if lengths and not (lengths[0].isascii() and lengths[0].isdigit()):
        raise MalformedError(f"Content-Length is {lengths[0]!r}")
    if to_head or answer.status < 200 or answer.status in BODILESS:
        if answer.status in BODILESS - {304} and (lengths or codings):
            raise MalformedError(f"framing in a {answer.status}")
        return 0
    if codings:
        return _read_chunks(answer, data, ended=ended)
    if lengths:
        length = int(lengths[0])
        if len(data) < length and not ended:
            return None
        answer.body, answer.complete = data[:length], len(data) >= length
        return len(answer.body)
    answer.body, answer.by_close = data, True
    return len(data) if ended else None


def _read_chunks(answer: Answer, data: bytes, *, ended: bool) -> int | None:
    at, pieces = 0, []
    while (line_end := data.find(b"\r\n", at)) >= 0:
        text = data[at:line_end]
        if re.fullmatch(rb"[0-9A-Fa-f]{1,15}", text) is None:
            raise MalformedError(f"malformed chunk size {text[:80]!r}")
        size = int(text, 16)
        next_at = line_end + 2 + size + 2
        pieces.append(data[line_end + 2 : line_end + 2 + size])
        if len(data) < next_at:
            break
        if data[next_at - 2 : next_at] != b"\r\n":
            raise MalformedError("a chunk does not end in CR LF")
        at = next_at
        if size == 0:
            answer.body = b"".join(pieces)
            return at
    if not ended:
        return None
    answer.body, answer.complete = b"".join(pieces), False
    return len(data)


class Line:
    """One conversation."""

    def __init__(self, connection: socket.socket, *, most: int, heads: frozenset[int], probe_id: str) -> None:
        """``most``: final answers to expect; ``heads``: which of them are to HEAD."""
        self._loop = asyncio.get_running_loop()
        self._socket = connection
        self._most = most
        self._heads = heads
        self._probe_id = probe_id
        self._data = b""
        self._ended = False
        self._shut = False  # our own FIN is out
        self._reader: asyncio.Future[None] | None = None
        self._moved = asyncio.Event()  # an interim or final answer has come, or the end
        self.talk = Talk()

    async def play(self, steps: Sequence[Step]) -> None:
        """Take the steps while reading; the result is in ``talk``."""
        sender = asyncio.ensure_future(self._send(steps))
        reader = asyncio.ensure_future(self._read_all(sender, endless=any(isinstance(step, Drip) for step in steps)))
        self._reader = reader
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await asyncio.wait({reader})
            if reader.cancelled():
                self.talk.closing = "left"
            else:
                reader.result()
        except TimeoutError:
            if self._data:
                self.talk.faults.append(f"half an answer: {self._data[:200]!r}")
        except MalformedError as error:
            self.talk.faults.append(str(error))
        finally:
            sender.cancel()
            reader.cancel()
            await asyncio.gather(sender, reader, return_exceptions=True)

    async def _read_all(self, sender: "asyncio.Future[None]", *, endless: bool) -> None:
        talk = self.talk
        while len(talk.answers) < max(self._most, 1):
            answer = await self._next()
            if answer is None:
                talk.closing = "closed"
                return
            talk.answers.append(answer)
            self._moved.set()
            if answer.closes:
                await self._expect_end()
                return
        if endless:
            sender.cancel()  # it would drip into the probe
        with contextlib.suppress(asyncio.CancelledError):
            await sender
        if self._shut:
            await self._expect_end(announced=False)
            return
        await self._probe()

    async def _expect_end(self, *, announced: bool = True) -> None:
        """After the last answer nothing but the end may come."""
        while not self._ended:
            await self._fill()
        if self._data:
            self.talk.faults.append(f"bytes behind the last answer: {self._data[:200]!r}")
        self.talk.announced = announced
        self.talk.closing = "closed"

    async def _probe(self) -> None:
        talk = self.talk
        with contextlib.suppress(OSError):
            await self._loop.sock_sendall(self._socket, PROBE % self._probe_id.encode())
        while (answer := await self._next()) is not None:
            if answer.values("x-request-id") == [self._probe_id] and answer.status == 200:
                talk.closing = "open"
                return
            talk.answers.append(answer)
        talk.closing = "closed"

    async def _next(self) -> Answer | None:
        """The next final answer, or None at the end."""
        talk = self.talk
        while True:
            to_head = len(talk.answers) in self._heads
            found = read_answer(self._data, to_head=to_head, ended=self._ended) if self._data else None
            if found is not None:
                answer, size = found
                self._data = self._data[size:]
                if answer.status >= 200:
                    return answer
                talk.interim.append(answer.status)
                self._moved.set()
            elif self._ended:
                return None
            else:
                await self._fill()

    async def _fill(self) -> None:
        try:
            data = await self._loop.sock_recv(self._socket, 262_144)
        except OSError:
            data = b""
        self._data += data
        if not data:
            self._ended = True
            self._moved.set()

    async def _send(self, steps: Sequence[Step]) -> None:
        """What the other side no longer takes is no fault: its answer tells."""
        with contextlib.suppress(OSError):
            for step in steps:
                await self._take(step)

    async def _take(self, step: Step) -> None:
        if isinstance(step, bytes):
            await self._loop.sock_sendall(self._socket, step)
        elif isinstance(step, Wait):
            await asyncio.sleep(step.seconds)
        elif isinstance(step, Drip):
            while not self._ended:
                await self._loop.sock_sendall(self._socket, step.data)
                await asyncio.sleep(step.seconds)
        elif isinstance(step, Interim):
            while step.status not in self.talk.interim and not self.talk.answers and not self._ended:
                self._moved.clear()
                await self._moved.wait()
        elif isinstance(step, HalfClose):
            self._shut = True
            self._socket.shutdown(socket.SHUT_WR)
        else:
            if step.reset:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            if self._reader is not None:
                self._reader.cancel()  # whoever plays us closes the socket then


async def connect(port: int) -> socket.socket:
    """A connection that sends what it is given at once."""
    connection = socket.socket()
    connection.setblocking(False)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", port))
    except BaseException:
        connection.close()
        raise
    return connection


async def converse(
    port: int, steps: Sequence[Step], *, most: int, heads: frozenset[int] = frozenset(), probe_id: str = "probe"
) -> Talk:
    """Play ``steps`` on a connection of their own and read up to ``most`` answers and the end."""
    connection = await connect(port)
    try:
        line = Line(connection, most=most, heads=heads, probe_id=probe_id)
        await line.play(steps)
        return line.talk
    finally:
        connection.close()
