"""Sockets and connections: the compiled lane in front, the full lane behind it, and a drain that keeps its word."""

import asyncio
import socket
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agw_proxy._hot.lane import Downstream, Lane, Policy
from agw_proxy.edge.accounts import Accounts
from agw_proxy.edge.arriving import import_full_lane
from agw_proxy.edge.descriptors import RESERVED_DESCRIPTORS, Descriptors
from agw_proxy.edge.lane import names
from agw_proxy.edge.prompt import Prompt
from agw_proxy.edge.shell import Shell
from agw_proxy.errors import Draining

if TYPE_CHECKING:
    from agw_proxy.edge.full_server import Full

BACKLOG = 1024  # connections that the kernel keeps while the loop is busy
LAST_WORDS_SECONDS = 2.0  # for error events to reach their clients at the end of a drain
IDLE_LOOK_SECONDS = 0.02  # between two looks whether the last exchange has ended, during a drain
FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\nretry-after-ms: 1000\r\n"
    b"Connection: close\r\nContent-Length: %d\r\n\r\n%s"
)
FULL_BODY = b'{"error":{"message":"Too many connections are open. Try again in a moment.","type":"api_error","param":null,"code":"gateway_overloaded"}}'


class Edge:
    """The client side of the gateway."""

    def __init__(
        self,
        accounts: Accounts,
        prompt: Prompt,
        make_full: "Callable[[Edge], Full]",
        *,
        max_connections: int,
        max_header_bytes: int,
        max_held: int,
        head_seconds: float,
        policy: Policy,
        descriptors: Descriptors,
    ) -> None:
        """To be made on the loop that it serves. ``policy``: of the fast lane, until ``swap``.

        ``make_full``: the full lane, called once ``import_full_lane`` has run. ``max_held``: bytes of request bodies.
        """
        self.accounts = accounts
        self.prompt = prompt
        self.max_connections = max(min(max_connections, descriptors.limit - RESERVED_DESCRIPTORS), 1)
        self.descriptors = descriptors
        self.max_header_bytes = max_header_bytes
        self.full: Full | None = None
        """The full lane, from the first request that has needed it."""
        self._make_full = make_full
        self._making: asyncio.Task[Full] | None = None
        self.shell = Shell(self, max_connections=self.max_connections, head_seconds=head_seconds)
        metrics = accounts.metrics
        self.lane = Lane(
            asyncio.get_running_loop(),
            self.shell,
            names(),
            metrics.meter,
            policy,
            max_line=max_header_bytes,
            max_head=max_header_bytes,
            max_held=max_held,
        )
        self.lane.know(metrics.known)
        self._listening: list[asyncio.Server] = []
        self._paths: list[Path] = []
        self._lent: dict[socket.socket, asyncio.Server] = {}

    async def load_full(self) -> "Full":
        """The full lane; importing what it is made of (a twelfth of a second, the first time) is kept off the loop."""
        if self.full is not None:
            return self.full
        if self._making is None:
            self._making = asyncio.get_running_loop().create_task(self._load_full())
        return await asyncio.shield(self._making)

    async def _load_full(self) -> "Full":
        try:
            await asyncio.get_running_loop().run_in_executor(None, import_full_lane)
            self.full = self._make_full(self)
        finally:
            self._making = None  # where it failed, for want of a descriptor perhaps, the next one tries again
        return self.full

    def __call__(self) -> Downstream:
        """One protocol object a connection."""
        return self.lane()

    def say_full(self, downstream: Downstream) -> None:
        """A connection is one too many: an early 503 beats a hang."""
        downstream.write(FULL % (len(FULL_BODY), FULL_BODY))

    async def listen(self, host: str, port: int) -> str:
        """Open the socket; gives the URL. Raises OSError.

        ``host``: an address, or ``unix:/path`` (mode 0600; a socket file that nobody answers on is replaced).
        """
        loop = asyncio.get_running_loop()
        if host.startswith("unix:"):
            path = Path(host.removeprefix("unix:"))
            await asyncio.get_running_loop().run_in_executor(None, clear_socket_file, path)
            self._listening.append(await loop.create_unix_server(self, str(path), backlog=BACKLOG))
            path.chmod(0o600)  # noqa: ASYNC240  once, before anything is served
            self._paths.append(path)
            return host
        server = await loop.create_server(self, host, port, backlog=BACKLOG, reuse_address=True)
        self._listening.append(server)
        bound = server.sockets[0].getsockname()
        shown = f"[{bound[0]}]" if ":" in bound[0] else bound[0]
        return f"http://{shown}:{bound[1]}"

    async def accept_on(self, sock: socket.socket) -> None:
        """Accept on a listening socket that somebody else opened, and keeps: it is duplicated. Raises OSError."""
        if sock in self._lent:
            return
        loop = asyncio.get_running_loop()
        own = sock.dup()
        try:
            if sock.family == socket.AF_UNIX:
                # Its file is the supervisor's to remove, not the first worker's that ends.
                kept: dict[str, Any] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}
                server = await loop.create_unix_server(self, sock=own, backlog=BACKLOG, **kept)
            else:
                server = await loop.create_server(self, sock=own, backlog=BACKLOG)
        except BaseException:
            own.close()
            raise
        if self.accounts.draining:
            server.close()
            return
        self._listening.append(server)
        self._lent[sock] = server

    def leave(self, sock: socket.socket) -> None:
        """Accept no more on it; the connections made there go on."""
        server = self._lent.pop(sock, None)
        if server is not None:
            self._listening.remove(server)
            server.close()

    async def drain(self, seconds: float) -> int:
        """Accept nothing new, let what runs finish for ``seconds``, end the rest with an error; gives how many those were."""
        self.accounts.draining = True
        self.accounts.end_parked()
        for server in self._listening:
            server.close()
        for path in self._paths:
            path.unlink(missing_ok=True)
        self.lane.drain()
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        quiet = 0  # looks in a row: between the lanes an exchange is in neither for a few turns of the loop
        while quiet < 2 and loop.time() < until:
            quiet = 0 if self._busy() else quiet + 1
            await asyncio.sleep(IDLE_LOOK_SECONDS)
        cut = self.lane.end_all()
        if self.shell.arriving:  # they get their error from the full lane
            await asyncio.wait(self.shell.arriving, timeout=LAST_WORDS_SECONDS)
        late = list(self.accounts.active)
        for exchange in late:
            exchange.end(Draining("This gateway is shutting down and could not wait for the end of this answer."))
        await asyncio.gather(self.accounts.idle(LAST_WORDS_SECONDS), self._until_back(LAST_WORDS_SECONDS))
        if self.full is not None:
            await self.full.shutdown(0.5)
        self.lane.close()
        return len(late) + cut

    async def _until_back(self, seconds: float) -> None:
        """Other workers say how what they have been lent has ended."""
        until = asyncio.get_running_loop().time() + seconds
        while self.lane.away and asyncio.get_running_loop().time() < until:  # noqa: ASYNC110  they are other processes
            await asyncio.sleep(IDLE_LOOK_SECONDS)

    def _busy(self) -> bool:
        """Something runs in one of the lanes; the fast one has no event to set on its hot path."""
        lane = self.lane
        return bool(lane.active or lane.away or lane.reading or self.shell.arriving or self.accounts.active)


def clear_socket_file(path: Path) -> None:
    """Remove a socket file of a process that is gone. Raises OSError for a living one and for any other file."""
    if not path.exists():
        return
    if not stat.S_ISSOCK(path.stat().st_mode):
        raise OSError(f"{path} exists and is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
            return
    raise OSError(f"another process listens on {path}")
