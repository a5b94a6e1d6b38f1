"""Reads request bodies: whole within a bound and a deadline, or passed through in portions."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable

from aiohttp import web

from agw_proxy._hot.lane import Lane
from agw_proxy.edge.exchange import Bounds, Exchange
from agw_proxy.errors import (
    BodyTooLarge,
    CallerError,
    GatewayError,
    InvalidHTTP,
    Overloaded,
    RequestTimeout,
    UnsupportedMediaType,
)


class Bodies:
    """All request bodies in memory, under one bound (invariant 6)."""

    def __init__(self, bounds: Bounds, lane: Lane, pause: Callable[[], Awaitable[None]]) -> None:
        """``lane``: the fast one, which counts its bodies under the same bound. ``pause``: see ``types.Call``."""
        self.bounds = bounds
        self._pause = pause
        self._lane = lane

    @property
    def held(self) -> int:
        """Bytes in memory, of both lanes."""
        return self._lane.held

    @held.setter
    def held(self, size: int) -> None:
        self._lane.held = size

    async def read(self, request: web.BaseRequest, exchange: Exchange) -> bytes:
        """The whole body. The caller gives its length back to ``free`` when it is done with it.

        Raises BodyTooLarge, RequestTimeout, Overloaded, CallerError for a body that breaks off.
        """
        self.check_length(request)
        await _continue(request)
        begun = time.monotonic_ns()
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self.bounds.body_seconds):
                while chunk := await request.content.readany():
                    size += len(chunk)
                    self.held += len(chunk)
                    if size > self.bounds.max_body_bytes:
                        raise self._too_large()
                    if self.held > self.bounds.max_bodies_bytes:
                        raise _crowded()
                    parts.append(chunk)
            await self._pause()
        except BaseException as error:
            self.held -= size
            if isinstance(error, TimeoutError):
                raise RequestTimeout(
                    f"The request body did not arrive within {self.bounds.body_seconds:g} s."
                ) from None
            if isinstance(error, web.RequestPayloadError):
                raise _misframed() from None
            raise
        finally:
            exchange.waited += time.monotonic_ns() - begun
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def swap(self, size: int, other: int) -> int:
        """A body of ``other`` bytes is held in place of one of ``size``; gives ``other``. Raises Overloaded, and nothing has changed."""
        if self.held - size + other > self.bounds.max_bodies_bytes:
            raise _crowded()
        self.held += other - size
        return other

    def free(self, size: int) -> None:
        """A body of ``size`` bytes is no longer held."""
        self.held -= size

    async def stream(self, request: web.BaseRequest, exchange: Exchange) -> AsyncIterator[bytes]:
        """The body in the portions in which it comes (uploads).

        Raises BodyTooLarge beyond the bound and InvalidHTTP for wrong framing. The upstream's client hides what its
        body raised, so the error also stands in ``exchange.body_error``.
        """
        size = 0
        try:
            await _continue(request)
            while True:
                async with asyncio.timeout(self.bounds.body_seconds):
                    chunk = await request.content.readany()
                if not chunk:
                    break
                size += len(chunk)
                if size > self.bounds.max_body_bytes:
                    raise self._too_large()
                yield chunk
        except GatewayError as error:
            exchange.body_error = error
            raise
        except web.RequestPayloadError:
            exchange.body_error = _misframed()
            raise exchange.body_error from None
        except TimeoutError:
            exchange.body_error = RequestTimeout(
                f"No more of the request body came for {self.bounds.body_seconds:g} s."
            )
            raise exchange.body_error from None

    def check_length(self, request: web.BaseRequest) -> None:
        """Raises BodyTooLarge for a body that says so itself."""
        length = request.content_length
        if length is not None and length > self.bounds.max_body_bytes:
            raise self._too_large()

    def _too_large(self) -> BodyTooLarge:
        return BodyTooLarge(
            f"The request body is larger than the {self.bounds.max_body_bytes // 1048576} MiB that this gateway accepts (server.max_body_mb)."
        )


def _misframed() -> InvalidHTTP:
    return InvalidHTTP("The request body's framing is wrong (RFC 9112 section 7.1).")


async def _continue(request: web.BaseRequest) -> None:
    """Let a client that waits for it go on (RFC 9110 section 10.1.1)."""
    expected = request.headers.get("Expect")
    if expected is None or request.version < (1, 1):  # RFC 9110 section 10.1.1
        return
    if expected.lower() != "100-continue":
        raise CallerError(f"The expectation {expected[:40]!r} is not known; the only one is 100-continue.")
    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    request.writer.output_size = 0  # an interim response is not the response's first byte


def check_json(request: web.BaseRequest) -> None:
    """Raises UnsupportedMediaType for a body that is neither JSON nor untyped, or compressed."""
    kind = request.headers.get("Content-Type")
    if kind is not None:
        media = kind.split(";", 1)[0].strip().lower()
        if media != "application/json" and not (media.startswith("application/") and media.endswith("+json")):
            raise UnsupportedMediaType(f"The Content-Type must be application/json; {media[:60]!r} came.")
    for value in request.headers.getall("Content-Encoding", ()):
        coding = value.strip().lower()
        if coding not in {"identity", ""}:
            raise UnsupportedMediaType(
                f"The Content-Encoding {coding[:40]!r} is not accepted; send the JSON uncompressed."
            )


def _crowded() -> Overloaded:
    return Overloaded("Too many request bodies are in memory at once. Try again in a moment.", retry_after_ms=1000)
