"""Runs the gateway inside the test: its own loop in debug mode, real sockets, every log line at hand.

Clients are the plain ones of tests/support, in threads, so that nothing here shares the loop with the gateway but the
gateway. Code of ours that blocks the loop while requests are served raises BlockingError, which answers 500.
"""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import orjson
import yaml
from blockbuster import blockbuster_ctx

from agw_proxy.app import Gateway
from agw_proxy.config.loader import Loaded, load
from agw_proxy.observe.log import Log, LogWriter
from tests.support.client import Connection, Reply, bearer, request
from tests.support.gateway import APP_KEY, Tree, chat_body

PATIENCE_SECONDS = 20.0
T = TypeVar("T")


class Lines(LogWriter):
    """Keeps the lines instead of writing them: they are there as soon as they are made."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []

    def put(self, line: bytes, count: int = 1) -> None:
        lines = line.split(b"\n")
        assert len(lines) == count
        self.lines += lines

    def close(self, seconds: float = 0.0) -> None:
        """Nothing waits to be written."""

    def trees(self, event: str) -> list[Tree]:
        """The JSON lines of one event, in order."""
        trees: list[Tree] = [orjson.loads(line) for line in self.lines]
        return [tree for tree in trees if tree["event"] == event]


class Running:
    """A gateway that serves."""

    def __init__(self, gateway: Gateway, url: str, log: Lines, file: Path, task: "asyncio.Task[None]") -> None:
        self.gateway = gateway
        self.url = url
        self.log = log
        self.file = file
        self.task = task

    def connect(self) -> Connection:
        """A connection of one's own, for use in threads."""
        return Connection(self.url)

    async def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        key: str | None = APP_KEY,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """One request on a connection of its own."""
        sent = {**({} if key is None else bearer(key)), **(headers or {})}
        return await asyncio.to_thread(request, self.url, method, path, body, sent)

    async def chat(
        self, *, key: str | None = APP_KEY, headers: Mapping[str, str] | None = None, **members: object
    ) -> Reply:
        """A chat request."""
        return await self.ask("POST", "/v1/chat/completions", chat_body(**members), key=key, headers=headers)

    async def send(self, data: bytes) -> Reply:
        """The first answer to these bytes; then the client leaves."""

        def talk() -> Reply:
            with self.connect() as connection:
                connection.socket.sendall(data)
                return connection.reply()

        return await asyncio.to_thread(talk)

    async def raw(self, data: bytes, *, more: bytes = b"") -> bytes:
        """Everything that comes back for these bytes until the gateway closes; ``more`` follows the first answer."""

        def talk() -> bytes:
            with self.connect() as connection:
                connection.socket.sendall(data)
                answer = connection.socket.recv(65536)
                if more:
                    connection.socket.sendall(more)
                while piece := connection.socket.recv(65536):
                    answer += piece
            return answer

        return await asyncio.to_thread(talk)

    def receipts(self) -> list[Tree]:
        """All canonical lines so far."""
        return self.log.trees("request")

    async def receipt(self, count: int = 1) -> Tree:
        """The newest canonical line, once there are ``count`` and nothing is in flight; there must not be more."""
        await self.until(lambda: len(self.receipts()) >= count and not self.gateway.active)
        assert len(self.receipts()) == count, self.receipts()
        return self.receipts()[-1]

    async def until(self, probe: Callable[[], T], seconds: float = PATIENCE_SECONDS) -> T:
        """The first true value of ``probe``."""
        async with asyncio.timeout(seconds):
            while not (value := probe()):
                await asyncio.sleep(0.002)
        return value

    async def stop(self) -> None:
        """SIGTERM, and wait for the end."""
        os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self.task


@contextmanager
def never_blocking() -> Iterator[None]:
    """Code of ours that blocks the loop meanwhile has BlockingError.

    Not where compiled lines are traced: who measures them looks for their source, the first time, in the midst of our
    calls. The same tests run on the release build, too.
    """
    if "AGW_HOT_LIB" in os.environ:
        yield
        return
    with blockbuster_ctx("agw_proxy") as watched:
        watched.functions["threading.Lock.acquire"].can_block_in("coverage/collector.py", {"lock_data"})
        yield


@asynccontextmanager
async def serving(config: Tree, folder: Path, environ: Mapping[str, str] | None = None) -> AsyncIterator[Running]:
    """Serve ``config`` from a file in ``folder``; stopped as operators stop it."""
    asyncio.get_running_loop().set_debug(True)
    file = folder / "gateway.yaml"
    write(file, config)
    surroundings = {"XDG_STATE_HOME": str(folder / "state"), **(environ or {})}  # nothing of it goes into a home

    def read() -> Loaded:
        return load(file, surroundings, folder)

    log = Lines()
    gateway = Gateway(read(), read, Log(log), surroundings)
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(gateway.serve(lambda _, url: ready.set_result(url)))
    either: set[asyncio.Future[Any]] = {ready, task}
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        ready.cancel()
        await task
    running = Running(gateway, ready.result(), log, file, task)
    try:
        with never_blocking():
            yield running
    finally:
        if not task.done():
            await running.stop()
    assert not log.trees("gateway.defect"), "the gateway had a defect (or blocked the loop)"


def write(file: Path, config: Tree) -> None:
    """(Re)place a configuration file."""
    file.write_text(yaml.safe_dump(config, sort_keys=False))
    file.chmod(0o600)


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
