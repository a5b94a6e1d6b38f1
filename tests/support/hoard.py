"""An upstream that takes and gives large bodies at its own pace, and counts: for tests of what is held on the way."""

import contextlib
import hashlib
import socket
import threading
from collections.abc import Iterator
from typing import BinaryIO, Self

BLOCK = b"0123456789abcdef" * 4096
SMALL_BUFFER_BYTES = 65536
PATIENCE_SECONDS = 60.0


class Hoard:
    """``with Hoard() as far``: a POST's body waits in the socket until ``go``; a GET is answered with ``size`` bytes at once."""

    def __init__(self, size: int = 0) -> None:
        self.go = threading.Event()
        self.size = size
        self.head = b""
        """Of the newest request."""
        self.received = self.sent = 0
        self.digest = hashlib.sha256()
        """Of the bytes of the newest request's body."""
        self.failure: BaseException | None = None
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER_BYTES)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL_BUFFER_BYTES)
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen()
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.go.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(PATIENCE_SECONDS)
        assert self.failure is None, self.failure

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, connection.makefile("rb") as reader:
                connection.settimeout(PATIENCE_SECONDS)
                try:
                    self._answer(connection, reader)
                except (OSError, ValueError) as error:
                    self.failure = error

    def _answer(self, connection: socket.socket, reader: BinaryIO) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            line = reader.readline()
            if not line:
                return
            head += line
        if b"/models " in head:  # asked by the gateway on its own behalf
            connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            return
        self.head, self.digest, self.received = head, hashlib.sha256(), 0
        if head.startswith(b"GET"):
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n")
            connection.sendall(b"Content-Length: %d\r\nConnection: close\r\n\r\n" % self.size)
            for block in blocks(self.size):
                connection.sendall(block)
                self.sent += len(block)
            return
        self.go.wait(PATIENCE_SECONDS)
        for piece in _body(head, reader):
            self.digest.update(piece)
            self.received += len(piece)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n")
        connection.sendall(b"Content-Type: application/json\r\n\r\n{}")


def blocks(size: int) -> Iterator[bytes]:
    """``size`` bytes in all."""
    while size > 0:
        yield BLOCK[:size]
        size -= len(BLOCK)


def _body(head: bytes, reader: BinaryIO) -> Iterator[bytes]:
    fields = {
        name.strip().lower(): value.strip()
        for name, _, value in (line.partition(b":") for line in head.split(b"\r\n")[1:])
    }
    if fields.get(b"transfer-encoding") == b"chunked":
        while size := int(reader.readline().split(b";")[0], 16):
            yield from _exactly(reader, size)
            reader.readline()
        reader.readline()
    else:
        yield from _exactly(reader, int(fields[b"content-length"]))


def _exactly(reader: BinaryIO, size: int) -> Iterator[bytes]:
    while size:
        piece = reader.read(min(size, len(BLOCK)))
        if not piece:
            raise ValueError("the body was cut")
        size -= len(piece)
        yield piece
