"""Heartbeats: a stream's client that waits for the first token hears every few seconds that somebody is there.

Proxies, and clients of their own accord, cut connections on which nothing comes. While an upstream thinks, comments go
out (of Anthropic's form: ``ping`` events), which every client passes over. The first one is the beginning of the answer:
its status is 200 from then on, and what fails later is told within the stream. Nothing of an upstream's has gone out
by then, so that other tries and other upstreams stay allowed.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from aiohttp import web

from agw_proxy._hot.sse import Stream
from agw_proxy.config.values import Form
from agw_proxy.edge.exchange import Carried, Exchange
from agw_proxy.edge.pings import PINGS
from agw_proxy.edge.relayed import Continued, Relayed
from agw_proxy.edge.respond import common_headers, error_event
from agw_proxy.errors import GatewayError, UpstreamInvalid
from agw_proxy.upstreams.opening import Opened

T = TypeVar("T")
SILENT: "web.RequestKey[bool]" = web.RequestKey("silent", bool)
"""Of a request whose client needs no heartbeats: its connection has some of its own."""
Write = Callable[[bytes], Awaitable[None]]

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
STREAM_HEADERS = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",
    "X-Content-Type-Options": "nosniff",
}


class Heartbeat:
    """Of one exchange. ``response``: the answer, once a heartbeat has begun it."""

    def __init__(self, request: web.BaseRequest, exchange: Exchange, form: Form | None, seconds: float) -> None:
        """``form``: of the caller. ``seconds``: between two beats; 0 for none.

        HTTP/1.0 gets none: it could not tell a stream that has failed from one that is over.
        """
        self._request, self._exchange = request, exchange
        self._ping = PINGS.get(form) if form is not None and exchange.stream else None
        told = seconds > 0 and request.version >= (1, 1) and request.get(SILENT) is None
        self._seconds = seconds if told and self._ping is not None else 0.0
        self._since = time.monotonic_ns()
        self._first = self._seconds
        self.response: Relayed | None = None
        carried = exchange.carried
        if carried is not None and carried.beaten:
            self.response = begun(exchange)
            self._first = max(self._seconds - (self._since - carried.beaten) / 1e9, 0.0)

    async def opened(self, answer: Awaitable[Opened]) -> Opened:
        """The upstream's answer. Raises what it does, and UpstreamInvalid for one that does not go on from a heartbeat."""
        found: list[Opened] = []

        async def kept() -> Opened:
            found.append(await answer)
            return found[0]

        try:
            opened = await self.during(kept(), self._begin)
        except BaseException:
            for unwanted in found:  # it came, and the last heartbeat was cut short
                unwanted.abandon()
            raise
        if self.response is not None and (opened.stream is None or opened.reply.status != 200):
            opened.abandon()
            raise UpstreamInvalid("The upstream was asked for a stream, and answered with none.")
        if self.response is not None:  # such a mark is one at a stream's beginning alone
            opened.first = opened.first.removeprefix(BYTE_ORDER_MARK)
        return opened

    async def token(self, chunk: Awaitable[bytes], stream: Stream, write: Write) -> bytes:
        """The next bytes of an answer under way. ``write`` passes heartbeats on, between its events alone."""
        if stream.content:
            return await chunk

        async def beat(ping: bytes) -> None:
            if stream.at_boundary:
                await write(ping)

        return await self.during(chunk, beat)

    async def during(self, work: Awaitable[T], beat: Write) -> T:
        """Await ``work``, with heartbeats by ``beat`` after each time without it."""
        ping = self._ping
        if ping is None or not self._seconds:
            return await work
        loop, over = asyncio.get_running_loop(), asyncio.Event()
        beating: list[asyncio.Task[None]] = []

        async def go_on() -> None:
            with contextlib.suppress(ConnectionError):  # of the client's end whoever waits for the answer hears
                while not over.is_set():
                    await beat(ping)
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(self._seconds):
                            await over.wait()

        def late() -> None:
            beating.append(loop.create_task(go_on()))

        wait, self._first = self._first, self._seconds
        timer = loop.call_later(wait, late)
        try:
            return await work
        finally:
            timer.cancel()
            over.set()
            for task in beating:  # never two writers at once
                await task

    async def _begin(self, ping: bytes) -> None:
        response = self.response
        if response is None:
            exchange = self._exchange
            response = self.response = Relayed(headers=STREAM_HEADERS)
            waited = time.monotonic_ns() - self._since
            exchange.waited += waited  # for the upstream: it is no time of the gateway's
            for name, value in common_headers(exchange):
                response.headers[name] = value
            exchange.waited -= waited  # told again, with the rest of it, by who waits
            exchange.head_at = 0
            begin(exchange, response)
        await response.prepare(self._request)
        await response.write(ping)


def go_on(exchange: Exchange, carried: Carried) -> None:
    """Carry on where the fast lane stopped: also with an answer that its heartbeats have begun."""
    exchange.carry_on(carried)
    if carried.beaten:
        begun(exchange)


def begun(exchange: Exchange) -> Relayed:
    """The rest of an answer that the fast lane has begun. Not a word of it has gone out yet, so that another may replace it."""
    response = Continued(headers=STREAM_HEADERS)
    begin(exchange, response)
    return response


def begin(exchange: Exchange, response: Relayed) -> None:
    """``response`` is the answer from now on: no status can tell of an error any more, it ends as a broken stream."""

    def fail(error: GatewayError) -> web.StreamResponse:
        exchange.fail = None
        response.broken = True
        response.last_words = error_event(error, exchange.dialect, exchange.request_id)
        return response

    exchange.status = response.status
    exchange.fail = fail
    response.enable_chunked_encoding()
