"""The built-in model ``agw/echo``: an upstream in this process, for first steps, tests and benchmarks offline."""

import asyncio

from agw_proxy._hot.route import Target
from agw_proxy.config.values import Dialect
from agw_proxy.errors import UpstreamBroken
from agw_proxy.types import Call, RawHeaders
from agw_proxy.upstreams.echo_answers import Answered, answer

READ_BYTES = 16_384  # at least so much is joined in one read where no pace is asked for: a write costs more than a copy


class Echo:
    """The upstream ``agw``. Holds nothing between calls; what it answers is in ``echo_answers``."""

    name: str = "agw"
    dialect: Dialect = "openai"

    async def open(self, target: Target, call: Call) -> "EchoReply":  # noqa: ARG002 - there is one model
        """Answer ``call`` after the delay it asks for. A request that cannot be served gets a reply with status 4xx."""
        answered = answer(call.method, call.path, call.body)
        if call.on_sent is not None:
            call.on_sent()
        if answered.directives.delay_ms:
            await asyncio.sleep(answered.directives.delay_ms / 1000)
        return EchoReply(answered)

    async def close(self) -> None:
        """Nothing is open."""


class EchoReply:
    """A Reply. Events are encoded as they are read; a read that is cancelled loses nothing."""

    connect_ms: float = 0.0
    began_ns: int = 0

    def __init__(self, answered: Answered) -> None:
        """Start with nothing read."""
        self.status: int = answered.status
        self.headers: RawHeaders = _headers(answered)
        self.ended: bool = False
        self._pieces = answered.pieces
        self._next: bytes | None = next(self._pieces, None)  # one ahead, so that ``ended`` is known with the last piece
        self._pace_s = answered.directives.pace_ms / 1000
        self._left = answered.directives.break_after
        self._begun = False
        self._closed = False

    async def read(self, *, progress: bool = True) -> bytes:  # noqa: ARG002 - nothing here is silent
        """Give the next piece, or as many as make READ_BYTES where there is no pace; b"" at the end.

        Raises UpstreamBroken where the request asked for a break, and after ``close`` of a body that had not ended.
        """
        if self._begun and not self.ended:
            await asyncio.sleep(self._pace_s)  # without a pace too: a long stream leaves room for others
        self._begun = True
        if self.ended:
            return b""
        if self._closed:
            raise UpstreamBroken("agw/echo: the reply was closed before its end.")
        if self._left == 0:
            raise UpstreamBroken("agw/echo broke the answer off, as agw_echo.break_after asked.")
        taken: list[bytes] = []
        size = 0
        while self._next is not None and self._left != 0:
            taken.append(self._next)
            size += len(self._next)
            self._next = next(self._pieces, None)
            if self._left is not None:
                self._left -= 1
            if self._pace_s or size >= READ_BYTES:
                break
        self.ended = self._next is None
        return b"".join(taken)

    def close(self) -> None:
        """Drop what was not read."""
        self._closed = True
        self._next = None
        self._pieces = iter(())


def _headers(answered: Answered) -> RawHeaders:
    if answered.length is None:
        return ((b"content-type", b"text/event-stream"),)
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % answered.length)]
    if answered.allow:
        headers.append((b"allow", answered.allow.encode()))
    return headers
