"""The events of a run on their way to one reader: those that are kept, then those that come, at whichever worker it runs."""

import asyncio
import math

from aiohttp import web

from agw_proxy.config.settings import Server
from agw_proxy.edge.background import Desk
from agw_proxy.edge.behind import Later
from agw_proxy.edge.exchange import Exchange
from agw_proxy.edge.heartbeat import STREAM_HEADERS
from agw_proxy.edge.pings import COMMENT
from agw_proxy.edge.relayed import Relayed, reset
from agw_proxy.edge.respond import common_headers, error_event
from agw_proxy.errors import CallerGone, GatewayError, NotKept, StoreUnavailable
from agw_proxy.store.responses_file import Missing, StoreAway

LOOK_SECONDS = 0.25  # between two looks at a run of another worker
READ_BYTES = 1024 * 1024  # of events at a time
ID = b"id: "
END = b"\n\n"


class Following(Later):
    """One reader of one run."""

    def __init__(
        self, desk: Desk, exchange: Exchange, request: web.BaseRequest, seed: str, after: int, server: Server
    ) -> None:
        """``after``: the number of the event before the first that is wanted."""
        super().__init__()
        self._desk, self._exchange, self._request = desk, exchange, request
        self._seed, self._after = seed, after
        self._write_seconds, self._ping_seconds = server.write_seconds, server.ping_seconds or math.inf
        self._response = Relayed(headers=STREAM_HEADERS)
        self._wrote = asyncio.get_running_loop().time()

    async def follow(self) -> web.StreamResponse:
        """See ``Later``: until the run has ended. Raises StoreUnavailable, NotKept where it is deleted meanwhile, CallerGone."""
        exchange, response = self._exchange, self._response
        for name, value in common_headers(exchange):
            response.headers[name] = value
        exchange.status = response.status
        if self._request.version >= (1, 1):
            response.enable_chunked_encoding()
        else:
            response.force_close()
        exchange.fail = self._fail
        await response.prepare(self._request)
        try:
            while self._request.method != "HEAD" and await self._more():
                pass
        except StoreAway:
            raise StoreUnavailable("The events cannot be read now. Go on behind the last that came.") from None
        except Missing:
            raise NotKept("The run has been deleted.") from None
        except ConnectionError:
            raise CallerGone("The client closed the connection before the run had ended.") from None
        exchange.fail, exchange.complete = None, True
        await response.write_eof()
        return response

    async def _more(self) -> bool:
        """Write what there is, or wait for it; False: that was all."""
        live = self._desk.live(self._seed)
        news = live.news if live is not None else None  # before the look: what comes during it is not missed
        portions, over = await self._desk.store.events(self._seed, self._after, READ_BYTES)
        for last, body in portions:
            await self._write(behind(body, self._after))
            self._after = last
        if over:
            return False
        if not portions:
            await self._wait(news)
        return True

    async def _wait(self, news: asyncio.Event | None) -> None:
        """Until there may be more."""
        if news is None:
            await asyncio.sleep(LOOK_SECONDS)
        else:
            try:
                async with asyncio.timeout(self._ping_seconds if self._ping_seconds < math.inf else None):
                    await news.wait()
            except TimeoutError:
                pass
            else:
                return
        if asyncio.get_running_loop().time() - self._wrote >= self._ping_seconds:
            await self._write(COMMENT)

    async def _write(self, data: bytes) -> None:
        """Raises ConnectionResetError for a reader that takes nothing."""
        self._exchange.bytes_out += len(data)
        try:
            async with asyncio.timeout(self._write_seconds):
                await self._response.write(data)
        except TimeoutError:
            transport = self._request.transport
            if transport is not None:
                transport.abort()
            raise ConnectionResetError("the client reads nothing") from None
        self._wrote = asyncio.get_running_loop().time()

    def _fail(self, error: GatewayError) -> web.StreamResponse:
        """The answer, which ends as a broken stream: no status can tell of ``error`` any more."""
        self._exchange.fail = None
        self._response.broken = True
        if self._request.version < (1, 1):
            reset(self._request)
        self._response.last_words = error_event(error, self._exchange.dialect, self._exchange.request_id)
        return self._response


def behind(body: bytes, after: int) -> bytes:
    """Of a portion of events those with a higher number. Each ends at the first empty line: its data is JSON in one line."""
    at = 0
    while at < len(body):
        number = int(body[at + len(ID) : body.index(b"\n", at)])
        if number > after:
            return body[at:]
        at = body.index(END, at) + len(END)
    return b""
