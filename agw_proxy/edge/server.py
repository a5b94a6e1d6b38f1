"""Sockets and connections: aiohttp's server with our errors, our bounds and a drain that keeps its word."""

import asyncio
import contextlib
import resource
import select
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import cast

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.web_protocol import RequestHandler

from agw_proxy.edge.handler import Handler
from agw_proxy.errors import Draining, GatewayError, HeadTooLarge, InternalError, InvalidHTTP

BACKLOG = 1024  # connections that the kernel keeps while the loop is busy
RESERVED_DESCRIPTORS = 64  # for logs, listening sockets, resolvers; the rest is shared by clients and upstreams
LAST_WORDS_SECONDS = 2.0  # for error events to reach their clients at the end of a drain
HANGUP_SECONDS = 0.05  # half of the 100 ms within which a client's leaving is acted on
HUNG_UP = getattr(select, "POLLRDHUP", 0) | select.POLLHUP | select.POLLERR
FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\nretry-after-ms: 1000\r\n"
    b"Connection: close\r\nContent-Length: %d\r\n\r\n%s"
)
FULL_BODY = b'{"error":{"message":"Too many connections are open. Try again in a moment.","type":"api_error","param":null,"code":"gateway_overloaded"}}'


class Connection(RequestHandler):
    """aiohttp's connection, which answers bad HTTP in the caller's dialect and accounts for it."""

    __slots__ = ("_hangup", "edge")

    def __init__(self, manager: "Edge", edge: "Edge", **options: object) -> None:
        super().__init__(manager, loop=asyncio.get_running_loop(), **options)  # type: ignore[arg-type]  # aiohttp's own keyword arguments
        self.edge = edge
        self._hangup: asyncio.TimerHandle | None = None

    def _pause_transport_reading(self) -> None:
        """A socket that nobody reads does not tell that its client has gone: ask the kernel meanwhile."""
        super()._pause_transport_reading()
        if self._hangup is None and self.transport is not None:
            self._hangup = self._loop.call_later(HANGUP_SECONDS, self._look_for_hangup)

    def _resume_transport_reading(self) -> None:
        super()._resume_transport_reading()
        self._stop_looking()

    def _look_for_hangup(self) -> None:
        transport = self.transport
        if transport is None:
            return
        poll = select.poll()
        poll.register(transport.get_extra_info("socket").fileno(), HUNG_UP)
        if poll.poll(0):
            transport.abort()  # a client that has closed its side counts as gone
        else:
            self._hangup = self._loop.call_later(HANGUP_SECONDS, self._look_for_hangup)

    def _stop_looking(self) -> None:
        if self._hangup is not None:
            self._hangup.cancel()
            self._hangup = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Refuse at once what is over the bound: an early 503 beats a hang."""
        super().connection_made(transport)
        self.edge.opened()
        if self.edge.open > self.edge.max_connections:
            self.edge.refused()
            cast("asyncio.Transport", transport).write(FULL % (len(FULL_BODY), FULL_BODY))
            self.force_close()

    @property
    def waits(self) -> bool:
        """No request is under way here."""
        return not self._request_in_progress and not self._messages

    def connection_lost(self, exc: BaseException | None) -> None:
        """Count it out."""
        self._stop_looking()
        super().connection_lost(exc)
        self.edge.closed()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002  likewise; it quotes the caller's bytes
    ) -> web.StreamResponse:
        """What aiohttp's parser refuses (and, as a last resort, what escaped the handler): one Receipt, one JSON error."""
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun; nothing more can be said")
        handler = self.edge.handler
        exchange = handler.begin(request)
        exchange.endpoint = "invalid"
        error: GatewayError = InternalError("The gateway failed; its log has the details under this request id.")
        if isinstance(exc, LineTooLong):
            error = HeadTooLarge(
                f"A line of the request's head is longer than {self.max_line_size // 1024} KiB (server.max_header_kb)."
            )
        elif status == 400:
            error = InvalidHTTP(
                "The request is not valid HTTP/1.1 (RFC 9112): its request line, a header field or its framing is malformed."
            )
        response = handler.refuse(exchange, request, error)
        response.force_close()
        handler.finish(exchange)
        return response


class Edge(web.Server):
    """The client side of the gateway."""

    def __init__(
        self,
        handler: Handler,
        *,
        max_connections: int,
        max_header_bytes: int,
        keepalive_seconds: float,
        counted: Callable[[int], None],
        dropped: Callable[[str], None],
    ) -> None:
        """``counted`` is told of connections that come (1) and go (-1), ``dropped`` of what is refused unheard."""
        super().__init__(handler, handler_cancellation=True)
        self.handler = handler
        self.max_connections = min(max_connections, descriptors() - RESERVED_DESCRIPTORS)
        self.open = 0
        self._counted = counted
        self._dropped = dropped
        self._options: dict[str, object] = {
            "keepalive_timeout": keepalive_seconds,
            "access_log": None,
            "auto_decompress": False,
            "max_line_size": max_header_bytes,
            "max_field_size": max_header_bytes,
            "lingering_time": 1.0,
        }
        self._listening: list[asyncio.Server] = []
        self._paths: list[Path] = []

    def __call__(self) -> Connection:
        """One protocol object a connection."""
        return Connection(self, self, **self._options)

    def opened(self) -> None:
        """A client has connected."""
        self.open += 1
        self._counted(1)

    def closed(self) -> None:
        """A client's connection has ended."""
        self.open -= 1
        self._counted(-1)

    def refused(self) -> None:
        """A connection was over the bound."""
        self._dropped("connection")

    async def listen(self, host: str, port: int) -> str:
        """Open the socket; gives the URL. Raises OSError.

        ``host``: an address, or ``unix:/path`` (mode 0600; a socket file that nobody answers on is replaced).
        """
        loop = asyncio.get_running_loop()
        if host.startswith("unix:"):
            path = Path(host.removeprefix("unix:"))
            await asyncio.get_running_loop().run_in_executor(None, _clear, path)
            self._listening.append(await loop.create_unix_server(self, str(path), backlog=BACKLOG))
            path.chmod(0o600)  # noqa: ASYNC240  once, before anything is served
            self._paths.append(path)
            return host
        server = await loop.create_server(self, host, port, backlog=BACKLOG, reuse_address=True)
        self._listening.append(server)
        bound = server.sockets[0].getsockname()
        shown = f"[{bound[0]}]" if ":" in bound[0] else bound[0]
        return f"http://{shown}:{bound[1]}"

    async def drain(self, seconds: float) -> int:
        """Accept nothing new, let what runs finish for ``seconds``, end the rest with an error; gives how many those were."""
        self.handler.draining = True
        for server in self._listening:
            server.close()
        for path in self._paths:
            path.unlink(missing_ok=True)
        for connection in self.connections:
            if isinstance(connection, Connection) and connection.waits:
                connection.close()  # the others close with the answer that they are at
        await self.handler.idle(seconds)
        late = list(self.handler.active)
        for exchange in late:
            exchange.end(Draining("This gateway is shutting down and could not wait for the end of this answer."))
        await self.handler.idle(LAST_WORDS_SECONDS)
        await self.shutdown(0.5)
        return len(late)


def _clear(path: Path) -> None:
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


def descriptors() -> int:
    """Raise the soft limit of open files to the hard one and give it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    return soft if soft != resource.RLIM_INFINITY else 1 << 20
