"""Pumps an upstream's answer to the client: bytes as they come, back-pressure both ways, an honest end.

A stream that breaks never looks like one that has finished (invariant 7): the client gets an error event in its own
dialect and the connection ends without the last chunk.
"""

import asyncio
import contextlib
import socket
import struct
import time

from aiohttp import web

from agw_proxy._hot.sse import Document, EventTooLong, Stream
from agw_proxy.edge.exchange import Exchange
from agw_proxy.edge.headers import towards_client
from agw_proxy.edge.respond import common_headers, error_event
from agw_proxy.errors import CallerGone, GatewayError, UpstreamBroken, UpstreamError
from agw_proxy.types import Usage
from agw_proxy.upstreams.attempts import Opened

LAST_CHUNK_SECONDS = (
    0.25  # after [DONE] the upstream's last chunk is nearly here; its connection is worth so long a wait
)
LINGER = struct.pack("ii", 1, 0)
BODILESS = frozenset({204, 304})


class Relayed(web.StreamResponse):
    """A response that can end broken: without the last chunk, and by a reset where the end of the body is the close."""

    broken = False

    async def write_eof(self, data: bytes = b"") -> None:
        """See ``web.StreamResponse``."""
        if self.broken:
            raise ConnectionResetError("the stream broke and must not look finished")
        await super().write_eof(data)


class Pump:
    """One answer on its way."""

    def __init__(self, request: web.BaseRequest, exchange: Exchange, opened: Opened, *, known_end: bool) -> None:
        """``known_end``: this endpoint's streams have a terminator, so an end without it is a broken stream."""
        self._request = request
        self._exchange = exchange
        self._opened = opened
        self._reply = opened.reply
        self._stream: Stream | None = opened.stream
        self._document = Document() if opened.stream is None else None
        self._known_end = known_end
        self._response = self._make_response()

    async def run(self) -> web.StreamResponse:
        """Send the whole answer. Raises CancelledError when the client goes; the reply is closed in any case."""
        exchange = self._exchange
        exchange.status = self._reply.status
        try:
            return await self._send()
        except asyncio.CancelledError:
            error = exchange.cancelled()
            exchange.error = error
            if isinstance(error, CallerGone):
                raise
            return await self._break(error)
        except (UpstreamError, EventTooLong) as error:
            broken = (
                error if isinstance(error, UpstreamError) else UpstreamBroken("The upstream sent an event over 16 MB.")
            )
            exchange.error = broken
            return await self._break(broken)
        except ConnectionError:
            exchange.error = CallerGone("The client closed the connection before the answer was complete.")
            self._response.broken = True
            return self._response
        finally:
            self._reply.close()

    async def _send(self) -> web.StreamResponse:
        response, reply, exchange = self._response, self._reply, self._exchange
        chunk = self._opened.first
        self._opened.first = b""
        if self._document is not None:
            self._document.feed(chunk)
        await response.prepare(self._request)
        while True:
            self._observe()
            if self._at_end():
                break
            if chunk:
                exchange.bytes_out += len(chunk)
                await response.write(chunk)
            chunk = await reply.read()
            if self._stream is not None:
                chunk = self._stream.feed(chunk)
                if self._reply.ended:
                    chunk += self._stream.finish()
            elif self._document is not None:
                self._document.feed(chunk)
        self._check_end(chunk)
        exchange.bytes_out += len(chunk)
        self._account()
        await response.write_eof(chunk)
        await self._last_chunk()
        return response

    def _at_end(self) -> bool:
        return self._reply.ended or (self._stream is not None and self._stream.done)

    def _check_end(self, chunk: bytes) -> None:
        """A clean end before the terminal state is a broken stream; an upstream's own error event is its end."""
        stream = self._stream
        if stream is None:
            return
        if stream.error is not None and not stream.done:
            self._exchange.bytes_out += len(chunk)
            raise _Ended(chunk)
        if self._known_end and not stream.complete:
            raise _Ended(chunk, UpstreamBroken("The upstream ended its stream without finishing the answer."))

    async def _last_chunk(self) -> None:
        """Read on for the end of the upstream's body, so that its connection can serve again."""
        if not self._reply.ended:
            with contextlib.suppress(UpstreamError, TimeoutError):
                async with asyncio.timeout(LAST_CHUNK_SECONDS):
                    while not self._reply.ended:
                        await self._reply.read()

    async def _break(self, error: GatewayError) -> web.StreamResponse:
        """End a broken answer as what it is."""
        exchange, response = self._exchange, self._response
        response.broken = True
        if isinstance(error, _Ended):
            exchange.error = error.cause or UpstreamBroken("The upstream reported an error within its stream.")
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            if isinstance(error, _Ended) and error.chunk:
                await response.write(error.chunk)
            told = isinstance(error, _Ended) and error.cause is None
            if self._stream is not None and self._stream.at_boundary and response.prepared and not told:
                final = exchange.error or error
                await response.write(error_event(final, exchange.dialect, exchange.request_id))
        if self._request.version < (1, 1):
            self._reset()
        return response

    def _reset(self) -> None:
        """A close-delimited client learns of the break only by a reset: no lingering for the socket's close."""
        transport = self._request.transport
        found = transport.get_extra_info("socket") if transport is not None else None
        if found is not None:
            with contextlib.suppress(OSError):
                found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER)

    def _observe(self) -> None:
        if self._stream is not None:
            self._exchange.saw_content(self._stream.content)

    def _account(self) -> None:
        self.note_usage()
        self._exchange.settle()

    def note_usage(self) -> None:
        """Take over what the stream or document has told so far."""
        source = self._stream if self._stream is not None else self._document
        if source is not None:
            self._exchange.usage = Usage(source.prompt_tokens, source.completion_tokens, source.cached_tokens)
            self._exchange.finish_reason = source.finish_reason

    def _make_response(self) -> Relayed:
        exchange, reply = self._exchange, self._reply
        exchange.connect_ms = reply.connect_ms
        exchange.head_at = time.monotonic_ns()
        grant = exchange.grant
        limited = grant is not None and (grant.requests_limit >= 0 or grant.tokens_limit >= 0)
        response = Relayed(status=reply.status)
        headers = response.headers
        for name, value in towards_client(reply.headers, limits=not limited):
            headers.add(name, value)
        for name, value in common_headers(exchange):
            headers[name] = value
        if self._stream is not None:
            headers["Cache-Control"] = "no-cache"
            headers["X-Accel-Buffering"] = "no"
        length = next((value for name, value in reply.headers if name.lower() == b"content-length"), None)
        if reply.status in BODILESS or self._request.method == "HEAD":
            pass
        elif length is not None and self._stream is None and length.isdigit():
            response.content_length = int(length)
        elif self._request.version >= (1, 1):
            response.enable_chunked_encoding()
        else:
            response.force_close()
        return response


class _Ended(UpstreamError):
    """The upstream's body ended cleanly, its stream did not. ``chunk``: its last bytes; ``cause``: None if it told the client itself."""

    def __init__(self, chunk: bytes, cause: UpstreamError | None = None) -> None:
        super().__init__("the stream ended early")
        self.chunk = chunk
        self.cause = cause
