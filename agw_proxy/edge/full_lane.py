"""The full lane of a connection: aiohttp's protocol object, driven one framed request at a time.

The transport's protocol is always the compiled ``Downstream``. aiohttp gets a stand-in for the transport, exactly the
bytes of one request, and is left alone until that is answered; then the connection is the lane's again.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_exceptions import LineTooLong
from aiohttp.web_protocol import RequestHandler

from agw_proxy._hot.lane import Downstream
from agw_proxy.edge.exchange import Behind, Carried, Exchange, Within
from agw_proxy.edge.hangup import HANGUP_SECONDS, hung_up
from agw_proxy.edge.respond import refuse_unparsed
from agw_proxy.errors import GatewayError, HeadTooLarge, InternalError, InvalidHTTP

if TYPE_CHECKING:
    from agw_proxy.edge.full_server import Full

WITHIN: "web.RequestKey[Within]" = web.RequestKey("within", Within)
"""Of a request that a run makes."""
BEHIND: "web.RequestKey[Behind]" = web.RequestKey("behind", Behind)
"""Of a request that is a run in the background."""


class Facade(asyncio.Transport):
    """The transport as aiohttp sees it: what it writes and wants goes through the Downstream."""

    def __init__(self, downstream: Downstream, transport: asyncio.Transport) -> None:
        super().__init__()
        self._downstream = downstream
        self._transport = transport

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """See ``asyncio.WriteTransport``."""
        self._downstream.write(data if type(data) is bytes else bytes(data))

    def is_closing(self) -> bool:
        """See ``asyncio.BaseTransport``."""
        return self._transport.is_closing()

    def close(self) -> None:
        """See ``asyncio.BaseTransport``."""
        self._downstream.close()

    def abort(self) -> None:
        """See ``asyncio.WriteTransport``."""
        self._downstream.abort()

    def pause_reading(self) -> None:
        """See ``asyncio.ReadTransport``."""
        self._downstream.hold_reading(True)

    def resume_reading(self) -> None:
        """See ``asyncio.ReadTransport``."""
        self._downstream.hold_reading(False)

    def get_write_buffer_size(self) -> int:
        """See ``asyncio.WriteTransport``."""
        return self._transport.get_write_buffer_size()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """See ``asyncio.BaseTransport``."""
        return self._transport.get_extra_info(name, default)


class Asked(web.BaseRequest):
    """A request that came by a Downstream."""

    @property
    def keep_alive(self) -> bool:
        """Whether another one may follow, as the answer's head tells it."""
        protocol = self.protocol
        return super().keep_alive and not (isinstance(protocol, Connection) and protocol.downstream.closes)


class Said(web.StreamResponse):
    """The answer has been written already; the connection ends."""

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:  # noqa: ARG002  aiohttp's call
        """See ``web.StreamResponse``."""
        raise ConnectionResetError("said already")


class Connection(RequestHandler):
    """aiohttp's connection, which answers bad HTTP in the caller's dialect and gives the connection back."""

    __slots__ = ("_begun", "_carried", "_expected", "_hangup", "_misframed", "downstream", "exchange", "full")

    def __init__(self, full: "Full", downstream: Downstream, **options: object) -> None:
        super().__init__(full, loop=asyncio.get_running_loop(), **options)  # type: ignore[arg-type]  # aiohttp's own keyword arguments
        self.full = full
        self.downstream = downstream
        self._carried: Carried | None = None
        self._expected = self._begun = False
        self._hangup: asyncio.TimerHandle | None = None
        self._misframed = False
        self.exchange: Exchange | None = None
        """The one under way."""

    def begin(self, exchange: Exchange) -> Carried | None:
        """The request that was expected begins. Gives what the fast lane did for it: once."""
        self.exchange = exchange
        exchange.lane_reason = self.downstream.reason
        return self.take_carried()

    def take_carried(self) -> Carried | None:
        """What the fast lane did for the request that begins now: once."""
        carried, self._carried = self._carried, None
        self._expected = False
        return carried

    def expect(self, carried: Carried | None) -> None:
        """A request comes next. ``carried``: what the fast lane has done for it already."""
        self._carried = carried
        self._begun = carried is not None and carried.beaten > 0
        self._expected = True

    def body_broken(self) -> None:
        """The body's framing is wrong: whoever reads it, or will, hears of it."""
        self._misframed = True
        if self._current_request is not None:
            _spoil(self._current_request)

    async def _handle_request(
        self,
        request: web.BaseRequest,
        start_time: float | None,
        request_handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
    ) -> tuple[web.StreamResponse, bool]:
        """See ``RequestHandler``; between its message and this call nobody can be told that its body is wrong."""
        await self.full.handler.pace.piece()
        if self._misframed:
            _spoil(request)
        return await super()._handle_request(request, start_time, request_handler)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """See ``RequestHandler``; a connection that is kept goes back to the lane."""
        resp, reset = await super().finish_response(request, resp, start_time)
        self.exchange = None
        if not reset and resp.keep_alive and not self._close and not self._force_close:
            self._loop.call_soon(self._give_back)
        return resp, reset

    def _give_back(self) -> None:
        if self.transport is not None and not self._close and not self._force_close:
            self.downstream.answered()

    def _process_keepalive(self) -> None:
        """Idle connections are the lane's to close."""
        self._keepalive_handle = None

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
        if hung_up(transport):
            transport.abort()  # a client that has closed its side counts as gone
        else:
            self._hangup = self._loop.call_later(HANGUP_SECONDS, self._look_for_hangup)

    def _stop_looking(self) -> None:
        if self._hangup is not None:
            self._hangup.cancel()
            self._hangup = None

    def connection_lost(self, exc: BaseException | None) -> None:
        """See ``RequestHandler``; a request that nobody has begun to look at ends here, and gives back what it took."""
        self._stop_looking()
        if self._expected:
            self.full.left(self.downstream, self.take_carried())
        super().connection_lost(exc)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002  likewise; it quotes the caller's bytes
    ) -> web.StreamResponse:
        """What aiohttp's parser refuses (and, as a last resort, what escaped the handler): one Receipt, one JSON error."""
        if request.writer.output_size > 0 or self._begun:
            raise ConnectionError("the answer has begun; nothing more can be said")
        exchange = self.full.handler.begin(request)
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
        self.downstream.write(refuse_unparsed(exchange, error))
        self.full.accounts.finish(exchange)
        return Said()


def _spoil(request: web.BaseRequest) -> None:
    """Whoever reads the body from now on hears that its framing is wrong."""
    if not request.content.is_eof():
        request.content.set_exception(web.RequestPayloadError("the framing of the body is wrong"))
