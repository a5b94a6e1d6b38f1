"""The listening sockets of several workers, opened by the supervisor and kept by it.

One SO_REUSEPORT socket a worker: the kernel deals new connections out to them by a hash. As the supervisor keeps them,
what waits in the queue of a worker that dies is there for its replacement. A Unix socket cannot be dealt out like that:
all workers accept on one.
"""

import socket
from pathlib import Path

from agw_proxy.edge.server import BACKLOG, clear_socket_file


class Listeners:
    """Sockets that listen. ``url``: what clients are told."""

    def __init__(self, url: str, main: list[socket.socket], admin: list[socket.socket], path: Path | None) -> None:
        """``main``, ``admin``: one for each worker (``admin`` empty: no port of its own). ``path``: of a Unix socket."""
        self.url = url
        self._doors = [tuple(pair) for pair in zip(main, admin, strict=True)] if admin else [(one,) for one in main]
        self._path = path

    def of(self, worker: int) -> tuple[socket.socket, ...]:
        """The main socket of a worker and, where there is one, that of its admin port; none of one that runs agents only."""
        return self._doors[worker] if worker < len(self._doors) else ()

    def alone(self, worker: int) -> tuple[socket.socket, ...]:
        """Those that nobody but this worker accepts on."""
        return self.of(worker)[1:] if self._path is not None else self.of(worker)

    def close(self) -> None:
        """Let go of them, in this process; they listen until the last one has."""
        for doors in self._doors:
            for door in doors:
                door.close()

    def remove(self) -> None:
        """The end of all: a Unix socket's file goes too."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)


def listen(host: str, port: int, admin_port: int | None, workers: int) -> Listeners:
    """Open what ``workers`` of one gateway need. Raises OSError.

    ``host``: an address, or ``unix:/path`` (mode 0600; a socket file that nobody answers on is replaced).
    ``port``, ``admin_port``: 0 takes any free one; the admin port of a Unix socket is on 127.0.0.1.
    """
    opened: list[socket.socket] = []
    try:
        if host.startswith("unix:"):
            path = Path(host.removeprefix("unix:"))
            opened.append(_unix(path))
            main = opened * workers
            url, near = host, "127.0.0.1"
        else:
            path, near = None, host
            main = _tcp(host, port, workers)
            opened += main
            bound = main[0].getsockname()
            url = f"http://{f'[{bound[0]}]' if ':' in bound[0] else bound[0]}:{bound[1]}"
        admin = _tcp(near, admin_port, workers) if admin_port is not None else []
    except BaseException:
        for sock in opened:
            sock.close()
        raise
    return Listeners(url, main, admin, path)


def _unix(path: Path) -> socket.socket:
    clear_socket_file(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(str(path))
        path.chmod(0o600)
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


def _tcp(host: str, port: int, count: int) -> list[socket.socket]:
    if port:
        # With SO_REUSEPORT alone, a second gateway of this user would quietly get a share of the connections.
        with _socket(host) as probe:
            probe.bind((host, port))
    sockets: list[socket.socket] = []
    try:
        for _ in range(count):
            sock = _socket(host)
            sockets.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind((host, port))
            port = sock.getsockname()[1]
        for sock in sockets:
            sock.listen(BACKLOG)
            sock.setblocking(False)
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    return sockets


def _socket(host: str) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    return sock
