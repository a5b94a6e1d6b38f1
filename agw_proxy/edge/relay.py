"""Pumps an upstream's answer to the client: bytes as they come, back-pressure both ways, an honest end.

A stream that breaks never looks like one that has finished (invariant 7): the client gets an error event in its own
dialect and the connection ends without the last chunk.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence

from aiohttp import web

from agw_proxy._hot.sse import Document, EventTooLong, Stream
from agw_proxy.edge.exchange import Exchange
from agw_proxy.edge.finishing import Ending, Finisher
from agw_proxy.edge.headers import towards_client
from agw_proxy.edge.heartbeat import STREAM_HEADERS, Heartbeat
from agw_proxy.edge.relayed import Relayed, reset
from agw_proxy.edge.respond import common_headers, error_event, last_words
from agw_proxy.errors import CallerGone, GatewayError, UpstreamBroken, UpstreamError, UpstreamFailed
from agw_proxy.policy.limits import limited
from agw_proxy.types import Usage
from agw_proxy.upstreams.opening import BODILESS, Opened, unframed_json

LAST_CHUNK_SECONDS = (
    0.25  # after [DONE] the upstream's last chunk is nearly here; its connection is worth so long a wait
)


class Pump:
    """One answer on its way."""

    def __init__(
        self,
        request: web.BaseRequest,
        exchange: Exchange,
        opened: Opened,
        *,
        known_end: bool,
        secrets: Sequence[str],
        write_seconds: float,
        finisher: Finisher | None = None,
        heartbeat: Heartbeat,
        pause: Callable[[], Awaitable[None]],
    ) -> None:
        """``heartbeat``: may have begun the answer. ``finisher``: ends the stream where it must. ``pause``: see ``types.Call``.

        ``known_end``: this endpoint's streams have a terminator, so an end without it is a broken stream.
        ``secrets``: taken out of errors within a stream. ``write_seconds``: how long the client may read nothing.
        """
        self._secrets = secrets
        self._write_seconds = write_seconds
        self._finisher = finisher
        self._heartbeat = heartbeat
        self._pause = pause
        self._writing_since = 0.0
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(write_seconds, self._watch)
        self._request = request
        self._exchange = exchange
        self._opened = opened
        self._reply = opened.reply
        self._stream: Stream | None = opened.stream
        self._document = Document()
        self._whole = False
        self._known_end = known_end
        self._response = self._make_response()
        exchange.fail = None  # from now on failures are told here

    async def run(self) -> web.StreamResponse:
        """Send the whole answer. Raises CancelledError when the client goes; the reply is closed in any case."""
        exchange = self._exchange
        exchange.status = self._reply.status
        try:
            return await self._send()
        except asyncio.CancelledError:
            if exchange.complete:
                raise  # a client that closes right after the terminator has got everything
            error = exchange.cancelled()
            exchange.error = error
            if isinstance(error, CallerGone):
                raise
            return await self._break(error)
        except GatewayError as error:  # the upstream's, or what a policy has stopped an agent with
            return await self._break(error)
        except EventTooLong:
            return await self._break(UpstreamBroken("The upstream sent an event over 16 MB."))
        except ConnectionError:
            if not exchange.complete:
                exchange.error = CallerGone("The client closed the connection before the answer was complete.")
            self._response.broken = True
            return self._response
        finally:
            self._timer.cancel()
            self.note_usage()  # who shares the answer may pay for this one from here on
            self._reply.close()

    def _watch(self) -> None:
        """Cut the connection of a client that reads nothing: one coarse timer an answer, none a write."""
        waited = self._loop.time() - self._writing_since if self._writing_since else 0.0
        if waited >= self._write_seconds:
            transport = self._request.transport
            if transport is not None:
                transport.abort()
            return
        self._timer = self._loop.call_later(self._write_seconds - waited, self._watch)

    async def _write(self, chunk: bytes) -> None:
        self._writing_since = self._loop.time()
        await self._response.write(chunk)
        self._writing_since = 0.0

    async def _write_last(self, chunk: bytes) -> None:
        self._writing_since = self._loop.time()
        await self._response.write_eof(chunk)
        self._writing_since = 0.0

    async def _send(self) -> web.StreamResponse:
        response, reply, stream, exchange = self._response, self._reply, self._stream, self._exchange
        chunk = self._opened.first
        self._opened.first = b""
        await response.prepare(self._request)
        if stream is not None:
            return await self._send_stream(chunk, stream)
        document = self._document
        unframed = unframed_json(reply, self._request.method)
        while True:
            document.feed(chunk)
            exchange.bytes_out += len(chunk)
            if reply.ended:
                break
            if chunk:
                await self._write(chunk)
            chunk = await reply.read()
        if unframed and not document.complete:
            raise UpstreamBroken("The upstream's answer was cut: its JSON is not whole.")
        await self._pause()
        self._account()
        await self._write_last(chunk)
        return response

    async def _send_stream(self, chunk: bytes, stream: Stream) -> web.StreamResponse:
        response, reply, exchange = self._response, self._reply, self._exchange
        known = 0
        while True:
            if self._finisher is not None and (reply.ended or stream.error is not None):
                chunk = self._finisher.rest() + chunk
            if reply.ended:
                chunk = await self._end_stream(chunk, stream)
            exchange.saw_content(stream.content)
            if self._finisher is not None and stream.error is None:
                chunk = await self._finisher.push(chunk)
                if self._finisher.finished is not None:
                    return await self._finish(chunk, self._finisher.finished)
                if self._at_end(stream):
                    chunk += self._finisher.rest()
            exchange.bytes_out += len(chunk)
            if stream.error is not None:
                return await self._pass_error_on(chunk, stream.error)
            if self._at_end(stream):
                break
            if chunk:
                await self._write(chunk)
            # Comments and pings keep the connection alive, not the answer: they do not put the silence clock off.
            progress, known = stream.progress > known, stream.progress
            chunk = stream.feed(await self._heartbeat.token(reply.read(progress=progress), stream, self._write))
        self._account()
        if stream.failed:
            exchange.error = UpstreamFailed("The upstream ended its answer as a failed one.")
        await self._write(chunk)
        await self._read_out(stream)
        await self._write_last(b"")
        return response

    async def _finish(self, chunk: bytes, ending: Ending) -> web.StreamResponse:
        """A budget has no more: ``chunk`` ends the stream well-formed, and the upstream is left."""
        exchange = self._exchange
        exchange.bytes_out += len(chunk)
        self.note_usage()
        exchange.end_by(ending)
        self._reply.close()
        exchange.settle()
        exchange.complete = True
        await self._write_last(chunk)
        return self._response

    def _at_end(self, stream: Stream) -> bool:
        return self._reply.ended or stream.done or (self._known_end and stream.finished)

    async def _end_stream(self, chunk: bytes, stream: Stream) -> bytes:
        """The last bytes to send: ``chunk`` and what was held, a last event without its blank line.

        Raises UpstreamBroken for an end before the terminal state; the whole events in ``chunk`` have gone out then,
        and a cut one stays here.
        """
        if chunk and not stream.complete and stream.error is None:
            await self._write(chunk)
            self._exchange.bytes_out += len(chunk)
            chunk = b""
        whole = stream.at_boundary
        rest = stream.finish()
        self._exchange.saw_content(stream.content)
        if self._known_end and not stream.complete and stream.error is None:
            self._whole = whole
            raise UpstreamBroken("The upstream ended its stream without finishing the answer.")
        return chunk + rest

    async def _read_out(self, stream: Stream) -> None:
        """After the terminator: what still comes is passed on, and its connection may serve again."""
        if not self._reply.ended:
            with contextlib.suppress(UpstreamError, TimeoutError, EventTooLong):
                async with asyncio.timeout(LAST_CHUNK_SECONDS):
                    while not self._reply.ended:
                        rest = stream.feed(await self._reply.read())
                        if rest:
                            self._exchange.bytes_out += len(rest)
                            await self._write(rest)

    async def _pass_error_on(self, chunk: bytes, data: bytes) -> web.StreamResponse:
        """The upstream reports an error within its stream: the same data, in the form that every client raises on."""
        return await self._break(
            UpstreamBroken("The upstream reported an error within its stream."),
            last_words(chunk, data, self._secrets, self._exchange.dialect),
        )

    async def _break(self, error: GatewayError, last: bytes | None = None) -> web.StreamResponse:
        """End a broken answer as what it is. ``last``: the bytes that say so; None for an event of our own."""
        exchange, response, stream = self._exchange, self._response, self._stream
        exchange.error = error
        response.broken = True
        if last is None and stream is not None:
            # The cut event that went out before ends here; a reader takes it for bad JSON, which is what it is.
            last = b"" if self._whole or stream.at_boundary else b"\n\n"
            last += error_event(error, exchange.dialect, exchange.request_id)
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            if last and response.prepared:
                await self._write(last)
        if self._request.version < (1, 1):
            reset(self._request)
        return response

    def _account(self) -> None:
        """Everything is known: settle before the last bytes, so that whoever has read them sees it counted."""
        self.note_usage()
        self._exchange.settle()
        self._exchange.complete = True

    def note_usage(self) -> None:
        """Take over what the stream or document has told so far."""
        if self._exchange.ended_by is not None or self._exchange.owes_all:
            return
        source = self._stream if self._stream is not None else self._document
        self._exchange.usage = Usage(source.prompt_tokens, source.completion_tokens, source.cached_tokens)
        self._exchange.finish_reason = source.finish_reason

    def _make_response(self) -> Relayed:
        exchange, reply = self._exchange, self._reply
        exchange.connect_ms = reply.connect_ms
        exchange.head_at = time.monotonic_ns()
        if self._heartbeat.response is not None:
            return self._heartbeat.response
        grant = exchange.grant
        response = Relayed(status=reply.status)
        headers = response.headers
        for name, value in towards_client(reply.headers, limits=grant is None or not limited(grant)):
            headers.add(name, value)
        for name, value in common_headers(exchange):
            headers[name] = value
        if self._stream is not None:
            for name in ("Cache-Control", "X-Accel-Buffering"):
                headers[name] = STREAM_HEADERS[name]
        headers["X-Content-Type-Options"] = "nosniff"
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
