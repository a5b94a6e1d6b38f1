"""A plain HTTP/1.1 client over one socket that hides nothing: header list, chunk framing, how the body ended."""

import contextlib
import socket
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import urlsplit

import orjson

PATIENCE_SECONDS = 20.0


@dataclass
class Reply:
    """An answer. ``complete``: the body ended as its framing says (a close-delimited one never proves that)."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes = b""
    complete: bool = False
    informational: list[int] = field(default_factory=list)

    def values(self, name: str) -> list[str]:
        """All values of a header, in order."""
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def value(self, name: str) -> str | None:
        """The only value of a header, or None."""
        found = self.values(name)
        assert len(found) < 2, f"header {name} came {len(found)} times"
        return found[0] if found else None

    @property
    def request_id(self) -> str:
        """The exchange's name in the log."""
        value = self.value("x-request-id")
        assert value, "the answer has no x-request-id"
        return value

    @property
    def json(self) -> dict[str, object]:
        """The body as a JSON object."""
        tree = orjson.loads(self.body)
        assert isinstance(tree, dict)
        return tree

    @property
    def error(self) -> dict[str, object]:
        """The ``error`` member of the body."""
        tree = self.json["error"]
        assert isinstance(tree, dict)
        return tree


class Connection:
    """One connection to the gateway: ``send``, then ``head`` and ``pieces`` (or ``reply`` for all of it)."""

    def __init__(self, url: str, *, receive_buffer: int = 0) -> None:
        """``receive_buffer``: bytes the kernel keeps for us, small to be a slow reader (0: the system's choice)."""
        parts = urlsplit(url)
        assert parts.hostname is not None
        self.host = parts.netloc
        self.socket = socket.socket(socket.AF_INET6 if ":" in parts.hostname else socket.AF_INET)
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(PATIENCE_SECONDS)
        try:
            self.socket.connect((parts.hostname, parts.port or 80))
        except OSError:
            self.socket.close()
            raise
        self._buffer = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave with a FIN."""
        self.socket.close()

    def reset(self) -> None:
        """Leave with an RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def send(self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None) -> None:
        """Write one request; ``body`` is bytes, text or a JSON tree; Host and Content-Length are added unless given."""
        content = b"" if body is None else body if isinstance(body, bytes) else orjson.dumps(body)
        fields = {"host": self.host}
        if body is not None:
            fields |= {"content-type": "application/json", "content-length": str(len(content))}
        fields |= {name.lower(): value for name, value in (headers or {}).items()}
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items() if value != "")]
        self.socket.sendall(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + content)

    def head(self) -> Reply:
        """The next response head; 1xx are collected on the way."""
        passed: list[int] = []
        while True:
            raw = self._until(b"\r\n\r\n")
            start, *lines = raw[:-4].decode("latin-1").split("\r\n")
            status = int(start.split(" ", 2)[1])
            if status >= 200:
                break
            passed.append(status)
        headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
        return Reply(status, headers, informational=passed)

    def pieces(self, reply: Reply, method: str = "POST") -> Iterator[bytes]:
        """The body as it comes; sets ``reply.complete``; ends without it where the connection does."""
        if method == "HEAD" or reply.status in {204, 304}:
            reply.complete = True
            return
        if (reply.value("transfer-encoding") or "").lower() == "chunked":
            yield from self._chunks(reply)
            return
        length = reply.value("content-length")
        left = int(length) if length is not None else -1
        while left:
            piece = self._some()
            if not piece:
                return
            if left > 0:
                piece, self._buffer = piece[:left], piece[left:] + self._buffer
                left -= len(piece)
            yield piece
        reply.complete = True

    def upto(self, reply: Reply, words: bytes = b"", method: str = "POST") -> bytes:
        """The body as far as the piece with which ``words`` are whole; its first piece at least.

        Raises EOFError where it ends before. (``next`` on its pieces would raise StopIteration, which no future can
        take: whoever waits for the thread that it leaves would wait for ever.)
        """
        seen = b""
        for piece in self.pieces(reply, method):
            seen += piece
            if words in seen:
                return seen
        raise EOFError(f"the body ended before {words!r} came: {seen!r}")

    def reply(self, method: str = "POST") -> Reply:
        """Head and body."""
        reply = self.head()
        reply.body = b"".join(self.pieces(reply, method))
        return reply

    def _chunks(self, reply: Reply) -> Iterator[bytes]:
        try:
            while size := int(self._until(b"\r\n").split(b";")[0], 16):
                yield self._exactly(size)
                self._exactly(2)
            self._until(b"\r\n")
        except EOFError:
            return
        reply.complete = True

    def _until(self, marker: bytes) -> bytes:
        while marker not in self._buffer:
            self._fill()
        line, _, self._buffer = self._buffer.partition(marker)
        return line + marker

    def _exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._fill()
        piece, self._buffer = self._buffer[:size], self._buffer[size:]
        return piece

    def _fill(self) -> None:
        data = self._receive()
        if not data:
            raise EOFError("the gateway closed the connection")
        self._buffer += data

    def _some(self) -> bytes:
        if self._buffer:
            data, self._buffer = self._buffer, b""
            return data
        return self._receive()

    def _receive(self) -> bytes:
        with contextlib.suppress(ConnectionResetError):
            return self.socket.recv(65536)
        return b""


def bearer(key: str) -> dict[str, str]:
    """The header that carries a gateway key."""
    return {"authorization": f"Bearer {key}"}


def request(url: str, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None) -> Reply:
    """One request on a connection of its own."""
    with Connection(url) as connection:
        connection.send(method, path, body, headers)
        return connection.reply(method)
