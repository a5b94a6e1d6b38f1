"""Uploads and downloads are streamed: whatever their size, what the gateway holds of them is bounded (invariant 6)."""

import contextlib
import hashlib
import threading
import time
from collections.abc import Iterator
from typing import Self

import pytest

from tests.support.client import Connection, bearer
from tests.support.gateway import APP_KEY, Gateway, configuration, provider
from tests.support.hoard import Hoard, blocks

MB = 1 << 20
BODY_BYTES = 100 * MB
HELD_BYTES = 16 * MB  # of memory, for a body of 100 MB that nobody takes
LOOK_SECONDS = 0.05
STILL_LOOKS = 10  # so often no byte has moved: everything on the way is full
PATIENCE_SECONDS = 60.0


@pytest.fixture
def far() -> Iterator[Hoard]:
    with Hoard(BODY_BYTES) as running:
        yield running


@pytest.fixture
def gateway(far: Hoard) -> Iterator[Gateway]:
    config = configuration(provider(far.url))
    config["server"] |= {"max_body_mb": 128, "body_seconds": 60, "write_seconds": 60}
    config["timeouts"] = {"connect": "5s", "first_byte": "60s", "between_bytes": "60s", "write": "60s", "total": "120s"}
    with Gateway(config) as running:
        yield running


class Upload(threading.Thread):
    """Sends a body as fast as it is taken."""

    def __init__(self, connection: Connection, *, chunked: bool) -> None:
        super().__init__(daemon=True)
        self.taken = 0
        self.digest = hashlib.sha256()
        self._socket, self._chunked = connection.socket, chunked

    def run(self) -> None:
        for block in blocks(BODY_BYTES):
            self.digest.update(block)
            self._socket.sendall(b"%x\r\n%s\r\n" % (len(block), block) if self._chunked else block)
            self.taken += len(block)
        if self._chunked:
            self._socket.sendall(b"0\r\n\r\n")


class Watch:
    """The largest resident memory of the gateway, looked at until the block ends."""

    def __init__(self, gateway: Gateway) -> None:
        self.begun = self.peak = gateway.rss_bytes
        self._gateway = gateway
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(LOOK_SECONDS / 5):
            with contextlib.suppress(AssertionError, OSError):
                self.peak = max(self.peak, self._gateway.rss_bytes)

    @property
    def grown(self) -> int:
        return self.peak - self.begun


def still(count: "Upload | Hoard", name: str) -> int:
    """The count, once it has not moved for a while."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    seen, looks = -1, 0
    while looks < STILL_LOOKS or seen <= 0:
        assert time.monotonic() < deadline, f"{seen} bytes"
        time.sleep(LOOK_SECONDS)
        now = int(getattr(count, name))
        looks = looks + 1 if now == seen else 0
        seen = now
    return seen


def warm(gateway: Gateway) -> None:
    """What the full lane takes for itself is taken."""
    for path in ("/v1/batches", "/v1/no-such-file"):
        gateway.post(path, b"x")


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/v1/files", "multipart/form-data; boundary=x"),
        ("/v1/images/edits", "multipart/form-data; boundary=x"),
        ("/v1/audio/transcriptions", "multipart/form-data; boundary=x"),
        ("/v1/batches", "application/json"),
        ("/passthrough/fake/uploads", "application/octet-stream"),
    ],
)
def test_an_upload_to_a_slow_upstream_is_never_held(
    gateway: Gateway, far: Hoard, path: str, kind: str, *, chunked: bool
) -> None:
    far.go.set()
    warm(gateway)
    far.go.clear()
    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {BODY_BYTES}"
    with gateway.connect() as connection, Watch(gateway) as watch:
        connection.socket.settimeout(PATIENCE_SECONDS)
        head = f"POST {path} HTTP/1.1\r\nHost: {connection.host}\r\nContent-Type: {kind}\r\n{framing}\r\n"
        connection.socket.sendall(f"{head}Authorization: Bearer {APP_KEY}\r\n\r\n".encode())
        upload = Upload(connection, chunked=chunked)
        upload.start()
        assert still(upload, "taken") < BODY_BYTES // 2  # the rest waits; the kernel's buffers grow to some 20 MB
        assert watch.grown < HELD_BYTES
        far.go.set()
        assert connection.reply().status == 200
        upload.join(PATIENCE_SECONDS)
    assert far.received == BODY_BYTES
    assert far.digest.digest() == upload.digest.digest()
    assert watch.grown < HELD_BYTES
    assert (b"chunked" in far.head.lower()) is chunked


@pytest.mark.parametrize("path", ["/v1/files/x/content", "/passthrough/fake/audio/x"])
def test_a_download_by_a_slow_client_is_never_held(gateway: Gateway, far: Hoard, path: str) -> None:
    far.go.set()
    warm(gateway)
    digest = hashlib.sha256()
    with Connection(gateway.url, receive_buffer=65536) as connection, Watch(gateway) as watch:
        connection.socket.settimeout(PATIENCE_SECONDS)
        connection.send("GET", path, None, bearer(APP_KEY))
        reply = connection.head()
        assert reply.status == 200
        assert still(far, "sent") < BODY_BYTES // 2
        size = 0
        for piece in connection.pieces(reply):
            digest.update(piece)
            size += len(piece)
    assert (size, reply.complete) == (BODY_BYTES, True)
    assert digest.digest() == hashlib.sha256(b"".join(blocks(BODY_BYTES))).digest()
    assert watch.grown < HELD_BYTES
