"""An httpx2 transport that leads into the gateway itself: what an OpenAI client sends through it never meets a socket.

``AsyncOpenAI(base_url=BASE_URL, api_key="none", http_client=httpx2.AsyncClient(transport=Transport(calls)))`` works within
a run as a client of the gateway does, with the run's caller in place of a key. Each request belongs to the run that is
under way where it is made (``entry.CURRENT``).
"""

import asyncio
from collections.abc import AsyncIterator

import httpx2
import orjson

from agw_proxy.errors import GatewayError
from agw_proxy.sdk.entry import CURRENT, HOME, ModelCalls, at_home
from agw_proxy.types import Reply

BASE_URL = "http://gateway.invalid/v1"
"""Of a client over this transport; a name that leads nowhere else (RFC 6761 section 6.4)."""
NO_RUN = (
    "There is no run of an agent here, so nobody whom this request could be charged to. The gateway's own client works "
    "within a run only: in tools, guardrails, hooks and dynamic instructions."
)
BROKEN_OFF = "The run that this request belongs to was cancelled, or has failed: its caller pays for nothing more."


class Transport(httpx2.AsyncBaseTransport):
    """One for all runs. Holds nothing between requests."""

    def __init__(self, calls: ModelCalls) -> None:
        self._calls = calls

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """One request of the run under way. Outside of runs, and after one was broken off, it is refused with 400.

        Raises ReadTimeout where the client's own time-out for reading is over, RemoteProtocolError where no answer comes.
        """
        body = await request.aread()
        run = CURRENT.get()
        if run is None:
            return _refusal(NO_RUN, "no_run")
        if run.broken_off:
            return _refusal(BROKEN_OFF, "run_ended")
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers.raw]
        path = request.url.raw_path.decode("ascii")
        seconds = _patience(request)
        try:
            async with asyncio.timeout(seconds):
                reply = await at_home(self._calls.open(run, request.method, path, headers, body))
        except TimeoutError:
            raise _late(seconds) from None
        except GatewayError as error:
            raise httpx2.RemoteProtocolError(error.message) from None
        return httpx2.Response(reply.status, headers=list(reply.headers), stream=_Stream(reply, seconds))


class _Stream(httpx2.AsyncByteStream):
    """An answer's body, as it comes."""

    def __init__(self, reply: Reply, seconds: float | None) -> None:
        self._reply = reply
        self._seconds = seconds
        self._loop = HOME.get() or asyncio.get_running_loop()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while not self._reply.ended:
            try:
                async with asyncio.timeout(self._seconds):
                    chunk = await at_home(self._reply.read(), self._loop)
            except TimeoutError:
                raise _late(self._seconds) from None
            except GatewayError as error:
                raise httpx2.RemoteProtocolError(error.message) from None
            if chunk:
                yield chunk

    async def aclose(self) -> None:
        """An answer that is not read to its end is ended upstream as well."""
        if asyncio.get_running_loop() is self._loop:
            self._reply.close()
        else:
            self._loop.call_soon_threadsafe(self._reply.close)

    def __del__(self) -> None:
        """One that somebody has begun to read and forgotten ends, too: else it would keep its place upstream."""
        if not self._reply.ended and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._reply.close)


def _patience(request: httpx2.Request) -> float | None:
    """How long the client waits for a piece of an answer; None: as long as it takes."""
    told = request.extensions.get("timeout")
    seconds = told.get("read") if isinstance(told, dict) else None
    return float(seconds) if isinstance(seconds, int | float) else None


def _late(seconds: float | None) -> httpx2.ReadTimeout:
    return httpx2.ReadTimeout(f"Nothing came for {seconds:g} s." if seconds is not None else "Nothing came in time.")


def _refusal(message: str, code: str) -> httpx2.Response:
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
    headers = {"content-type": "application/json", "x-should-retry": "false"}
    return httpx2.Response(400, headers=headers, content=orjson.dumps({"error": error}))
