"""Asks an upstream through one pooled aiohttp session: bytes in and bytes out, deadlines by phase.

A running answer is watched by one coarse timer, not by one a read: ``read`` only stores the time.
"""

import asyncio
import contextlib
import functools
import os
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextvars import ContextVar
from types import SimpleNamespace
from typing import Any

import aiohttp
from aiohttp import hdrs
from aiohttp.abc import AbstractResolver, ResolveResult
from multidict import CIMultiDict
from yarl import URL

from agw_proxy.config.resilience import Timeouts
from agw_proxy.errors import (
    OutOfDescriptors,
    UpstreamBroken,
    UpstreamError,
    UpstreamInvalid,
    UpstreamReset,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from agw_proxy.types import Call, RawHeaders
from agw_proxy.upstreams import trust as words
from agw_proxy.upstreams import websocket
from agw_proxy.upstreams.names import Names
from agw_proxy.upstreams.strict import MAX_HEAD_LINE_BYTES, Connection
from agw_proxy.upstreams.trust import system_trust

SLICE_BYTES = 65536  # a large body is handed to the socket in slices, so that it never blocks the loop
READ_BUFFER_BYTES = 65536  # above twice this an answer's socket is no longer read: the bound of a slow reader's memory
IDLE_SECONDS = 30.0  # shorter than what servers commonly allow an idle connection
TLS_SECONDS: ContextVar[float] = ContextVar("tls_seconds")  # of the try that this task makes
SKIPPED = frozenset({hdrs.USER_AGENT, hdrs.ACCEPT, hdrs.ACCEPT_ENCODING, hdrs.CONTENT_TYPE})


class HttpReply:
    """An answer whose head is here. ``read`` gives its body in the upstream's own portions."""

    __slots__ = (
        "_broken",
        "_deadline",
        "_idle",
        "_last",
        "_loop",
        "_name",
        "_response",
        "_timer",
        "_waiting",
        "began_ns",
        "connect_ms",
        "ended",
        "headers",
        "on_close",
        "status",
    )

    def __init__(
        self, response: aiohttp.ClientResponse, name: str, connect_ms: float, idle: float, deadline: float
    ) -> None:
        """``idle``: longest silence in seconds; ``deadline``: end of the whole exchange in loop time."""
        self.status = response.status
        self.headers: RawHeaders = response.raw_headers
        self.connect_ms = connect_ms
        self.began_ns = 0
        self.ended = False
        self.on_close: Callable[[], None] | None = None
        """Called once, by the first ``close``."""
        self._response = response
        self._name = name
        self._idle = idle
        self._deadline = deadline
        self._broken: UpstreamError | None = None
        self._waiting = False
        self._loop = asyncio.get_running_loop()
        self._last = self._loop.time()
        self._timer: asyncio.TimerHandle | None = self._loop.call_at(min(self._last + idle, deadline), self._watch)

    async def read(self, *, progress: bool = True) -> bytes:
        """See ``types.Reply``."""
        content = self._response.content
        if progress:
            self._last = self._loop.time()
        self._waiting = True
        try:
            chunk = await content.readany()
        except (aiohttp.ClientError, ConnectionError, TimeoutError) as error:
            if self._broken is not None:
                raise self._broken from None
            raise UpstreamBroken(f"The answer of upstream '{self._name}' broke off ({reason(error)}).") from None
        finally:
            self._waiting = False
        if self._broken is not None:
            raise self._broken
        if content.at_eof():
            self.ended = True
        return chunk

    def close(self) -> None:
        """See ``types.Reply``."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.ended:
            self._response.release()
        else:
            self._response.close()
        on_close, self.on_close = self.on_close, None
        if on_close is not None:
            on_close()

    def _watch(self) -> None:
        now = self._loop.time()
        if now >= self._deadline:
            what = "took longer than its total time-out"
        elif self._waiting and self._last + self._idle <= now:
            what = f"was silent for {self._idle:g} s"
        else:
            # Nobody waiting for the upstream (a slow client) is no silence of the upstream's.
            if not self._waiting:
                self._last = now
            self._timer = self._loop.call_at(min(self._last + self._idle, self._deadline), self._watch)
            return
        self._timer = None
        self._broken = UpstreamTimeout(f"The answer of upstream '{self._name}' {what}.")
        self._response.content.set_exception(self._broken)
        self._response.close()


class Resolver(AbstractResolver):
    """aiohttp's, on the threads of the loop, with one look-up of a name at a time."""

    def __init__(self) -> None:
        plain = aiohttp.ThreadedResolver()
        self._names = Names(
            lambda host, port: plain.resolve(host, port, socket.AF_UNSPEC), asyncio.get_running_loop().time
        )

    async def resolve(
        self,
        host: str,
        port: int = 0,
        family: socket.AddressFamily = socket.AF_UNSPEC,  # noqa: ARG002  addresses of all families are wanted
    ) -> list[ResolveResult]:
        """See ``AbstractResolver``."""
        return await self._names.find(host, port)

    async def close(self) -> None:
        """See ``AbstractResolver``."""


class Connector(aiohttp.TCPConnector):
    """aiohttp's, with a deadline of its own for the TLS handshake: that of the try for which it connects."""

    async def _wrap_create_connection(self, *args: Any, **kwargs: Any) -> Any:
        """See ``aiohttp.TCPConnector``; held by the contract test."""
        if kwargs.get("ssl"):
            kwargs["ssl_handshake_timeout"] = TLS_SECONDS.get()
        return await super()._wrap_create_connection(*args, **kwargs)


class Client:
    """The session of one upstream, made at its first call: an upstream that nobody uses costs nothing."""

    def __init__(
        self,
        name: str,
        base: str,
        root: str,
        timeouts: Timeouts,
        headers: Sequence[tuple[str, str]],
        *,
        passthrough: bool,
        trust: ssl.SSLContext | None,
    ) -> None:
        """``base``: the URL before a call's path, ``root``: before a raw one's. ``headers``: on every request. ``trust``: None for the system's.

        ``passthrough``: the caller's own provider credentials go along.
        """
        self.name = name
        self._base, self._root = base, root
        self._timeouts = timeouts
        self._own_headers = headers
        self._passthrough = passthrough
        self._trust = trust
        self._session: aiohttp.ClientSession | None = None

    async def open(self, call: Call) -> HttpReply | websocket.Socket:
        """See ``types.Upstream``."""
        loop = asyncio.get_running_loop()
        timeouts = call.timeouts or self._timeouts
        deadline = loop.time() + timeouts.total
        times = SimpleNamespace(connect_ms=0.0, begun=0.0, sent=True, on_head=None)
        url = f"{self._root if call.raw else self._base}{call.path}" + (f"?{call.query}" if call.query else "")
        TLS_SECONDS.set(min(timeouts.tls or timeouts.connect, timeouts.connect))
        body = call.body
        headers = self._headers(call)
        if call.upgrade is not None:
            headers.update(websocket.offer(call.upgrade))
        if isinstance(body, bytes) and len(body) > SLICE_BYTES:
            headers["Content-Length"] = str(len(body))
        try:
            async with asyncio.timeout_at(deadline) as clock:

                def restart(seconds: float) -> None:
                    # Out of the clock's time the answer is here already, and the rest of the request still goes out.
                    with contextlib.suppress(RuntimeError):
                        clock.reschedule(min(loop.time() + seconds, deadline))

                def begun() -> None:
                    times.sent = False
                    restart(timeouts.write)

                def sent() -> None:
                    times.sent = True
                    restart(timeouts.first_byte)
                    if call.on_sent is not None:
                        call.on_sent()

                if isinstance(body, bytes) and len(body) > SLICE_BYTES:
                    data: bytes | AsyncIterator[bytes] | None = _then(slices(body), begun, sent)
                elif body is None or isinstance(body, bytes):
                    data = body
                    times.on_head = sent  # with the head goes all of it
                else:
                    data = _then(body, None, sent)
                response = await (await self._open_session()).request(
                    call.method,
                    URL(url, encoded=True),
                    data=data,
                    headers=headers,
                    allow_redirects=False,
                    timeout=aiohttp.ClientTimeout(total=None, connect=timeouts.connect),
                    trace_request_ctx=times,
                )
        except aiohttp.ConnectionTimeoutError:
            late = UpstreamUnreachable(f"No connection to upstream '{self.name}' within {timeouts.connect:g} s.")
            late.out_of_time = True
            raise late from None
        except TimeoutError:
            if not times.sent:
                raise UpstreamTimeout(
                    f"Upstream '{self.name}' did not take the request within {timeouts.write:g} s."
                ) from None
            raise UpstreamTimeout(f"Upstream '{self.name}' did not answer within {timeouts.first_byte:g} s.") from None
        except (aiohttp.ClientConnectorError, aiohttp.ClientConnectorDNSError, aiohttp.ClientSSLError) as error:
            if words.out_of_descriptors(error):
                raise OutOfDescriptors(words.NO_DESCRIPTOR.format(self.name)) from None
            if isinstance(getattr(error, "os_error", None), ConnectionAbortedError):  # what the loop makes of it
                late = UpstreamUnreachable(
                    f"No TLS connection to upstream '{self.name}' within {TLS_SECONDS.get():g} s."
                )
                late.out_of_time = True
                raise late from None
            raise UpstreamUnreachable(f"No connection to upstream '{self.name}': {reason(error)}.") from None
        except UnicodeError as error:
            raise UpstreamUnreachable(f"No connection to upstream '{self.name}': {reason(error)}.") from None
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, ConnectionError):
            raise UpstreamReset(f"Upstream '{self.name}' closed the connection before it answered.") from None
        except aiohttp.ClientError as error:
            raise UpstreamInvalid(f"Upstream '{self.name}' sent no valid HTTP answer ({reason(error)}).") from None
        finally:
            times.on_head = None  # it holds the call, and is held by what it holds
        if response.status == 101 and call.upgrade is not None:
            return websocket.switched(response, self.name, headers, call.upgrade, times.connect_ms)
        if response.status < 200:
            response.close()
            raise UpstreamInvalid(
                f"Upstream '{self.name}' switched protocols ({response.status}), which nobody asked for."
            )
        if 300 <= response.status < 400 and response.status != 304:
            response.close()
            raise UpstreamInvalid(
                f"Upstream '{self.name}' answered with a redirect ({response.status}), which is not followed."
            )
        idle = timeouts.between_bytes
        if response.content_type == "text/event-stream":
            idle = timeouts.between_tokens or idle
        return HttpReply(response, self.name, times.connect_ms, idle, deadline)

    async def close(self) -> None:
        """Close its connections."""
        if self._session is not None:
            await self._session.close()

    def _headers(self, call: Call) -> CIMultiDict[str]:
        spelt: dict[str, str] = {}  # aiohttp would keep only the last of a header that comes in two spellings
        own = call.own_credentials or () if self._passthrough else ()
        headers = CIMultiDict((spelt.setdefault(name.lower(), name), value) for name, value in (*call.headers, *own))
        if call.credential is not None:
            headers[call.credential[0]] = call.credential[1]
        for name, value in self._own_headers:
            headers[name] = value
        headers["Accept-Encoding"] = "identity"  # usage and the end of the answer are read from its bytes
        headers["x-request-id"] = call.request_id
        return headers

    async def _open_session(self) -> aiohttp.ClientSession:
        context: ssl.SSLContext | bool = self._trust or True
        if self._session is None and self._trust is None and self._base.startswith("https:"):
            context = await asyncio.get_running_loop().run_in_executor(None, system_trust)
        if self._session is None:
            trace = aiohttp.TraceConfig()
            trace.on_connection_create_start.append(_connect_begins)
            trace.on_connection_create_end.append(_connect_ends)
            trace.on_request_headers_sent.append(_head_sent)
            connector = Connector(
                limit=0,  # the limits and gates of the gateway decide how many requests run
                keepalive_timeout=IDLE_SECONDS,
                ssl=context,
                resolver=Resolver(),
                use_dns_cache=False,  # a name is looked up, off the loop, for each new connection: an outage may be a move
            )
            made = functools.partial(Connection, loop=asyncio.get_running_loop())
            connector._factory = made  # type: ignore[assignment]  # noqa: SLF001  a subclass; held by the contract test
            self._session = aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None, connect=self._timeouts.connect),
                auto_decompress=False,
                skip_auto_headers=SKIPPED,
                read_bufsize=READ_BUFFER_BYTES,
                max_line_size=MAX_HEAD_LINE_BYTES,
                max_field_size=MAX_HEAD_LINE_BYTES,
                trace_configs=[trace],
            )
        return self._session


async def slices(body: bytes) -> AsyncIterator[bytes]:
    """A body in portions of at most SLICE_BYTES."""
    for start in range(0, len(body), SLICE_BYTES):
        yield body[start : start + SLICE_BYTES]


async def _then(
    body: AsyncIterator[bytes], begun: Callable[[], None] | None, sent: Callable[[], None]
) -> AsyncIterator[bytes]:
    """The same body; ``begun`` is called before its first portion and ``sent`` behind its last: new clocks start there.

    A body that comes from the client in portions has the client's clock instead of ``begun``.
    """
    if begun is not None:
        begun()
    async for portion in body:
        yield portion
    sent()


def reason(error: BaseException) -> str:
    """A short cause without addresses or texts of foreign origin."""
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "its name was not found"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return "its certificate was not accepted"
    if isinstance(error, aiohttp.ClientSSLError):
        return "TLS failed"
    if isinstance(error, aiohttp.ClientConnectorError):
        return os.strerror(error.os_error.errno).lower() if error.os_error.errno else "not reachable"
    if isinstance(error, aiohttp.ClientPayloadError):
        return "its framing was cut or wrong"
    return words.reason(error)


async def _connect_begins(_session: object, context: SimpleNamespace, _params: object) -> None:
    context.trace_request_ctx.begun = time.monotonic()  # the loop's own clock ticks in milliseconds


async def _connect_ends(_session: object, context: SimpleNamespace, _params: object) -> None:
    times = context.trace_request_ctx
    times.connect_ms = (time.monotonic() - times.begun) * 1000.0


async def _head_sent(_session: object, context: SimpleNamespace, _params: object) -> None:
    on_head = context.trace_request_ctx.on_head
    if on_head is not None:
        on_head()
