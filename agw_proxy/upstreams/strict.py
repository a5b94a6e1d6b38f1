"""aiohttp's client connection behind the lane's own reader of heads and framing: both lanes believe the same answers.

aiohttp alone takes a chunk size that overflows, a control character in a header, or a second status line for something
else than what it is; such an answer could look finished and be wrong.
"""

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.helpers import _EXC_SENTINEL

from agw_proxy._hot.http1 import ChunkDecoder, parse_response_head

MAX_HEAD_LINE_BYTES = 32768  # an upstream's header line
MAX_HEAD_BYTES = 131072
BODILESS = frozenset({204, 304})  # RFC 9110 sections 15.3.5 and 15.4.5


class Connection(ResponseHandler):
    """Feeds aiohttp what is one well-formed answer, and tells the reader of a body when it is not."""

    _skips_body = False
    _head: bytes | None = b""
    """Of an answer whose head is not whole; None behind it."""
    _chunks: ChunkDecoder | None = None
    _left = -1
    """Bytes of a body with a length; -1: it ends with the connection."""
    _ended = False

    def set_response_params(self, *, skip_payload: bool = False, **options: object) -> None:
        """See ``ResponseHandler``: a request goes out, its answer comes next."""
        self._skips_body = skip_payload
        self._head, self._chunks, self._left, self._ended = b"", None, -1, False
        super().set_response_params(skip_payload=skip_payload, **options)  # type: ignore[arg-type]  # aiohttp's own keyword arguments

    def data_received(self, data: bytes) -> None:
        """See ``ResponseHandler``."""
        if not data:
            super().data_received(data)  # aiohttp's own way to go on with what it has
            return
        if self._ended:
            self.close()  # bytes that nobody has asked for: the next answer could not be told from them
            return
        wrong, surplus = self._judge(data)
        if wrong is not None:
            self.set_exception(aiohttp.ClientPayloadError(wrong))
            self.force_close()
            self.close()
            return
        if surplus:
            self.force_close()
            data = data[: len(data) - surplus]
        if data:
            super().data_received(data)

    def set_exception(self, exc: BaseException, exc_cause: BaseException = _EXC_SENTINEL) -> None:
        """See ``ResponseHandler``; a reader of the body hears of it too, instead of being left waiting."""
        super().set_exception(exc, exc_cause)
        payload = self._payload
        if payload is not None and not payload.is_eof():
            payload.set_exception(aiohttp.ClientPayloadError("the framing of the body is wrong"))

    def _judge(self, data: bytes) -> tuple[str | None, int]:
        """What is wrong with these bytes, and how many of them lie behind the answer's end."""
        if self._head is None:
            return self._judge_body(data)
        self._head += data
        while True:
            head = parse_response_head(self._head, MAX_HEAD_LINE_BYTES, MAX_HEAD_BYTES)
            if head.verdict == "more":
                return None, 0
            if head.verdict == "refuse":
                return head.detail, 0
            rest = self._head[head.size :]
            if head.status >= 200 or head.status == 101:
                break
            self._head = rest
        self._head = None
        if head.status == 101:
            self.force_close()  # whatever it has switched to, no further request goes out on it
        if self._skips_body or head.status in BODILESS or head.status == 101:
            self._ended = head.status != 101
            return None, len(rest) if self._ended else 0
        if head.chunked:
            self._chunks = ChunkDecoder()
        else:
            self._left = head.content_length
        return self._judge_body(rest)

    def _judge_body(self, data: bytes) -> tuple[str | None, int]:
        if self._chunks is not None:
            self._chunks.feed(data)
            if self._chunks.broken:
                return "the framing of the body is wrong", 0
            self._ended = self._chunks.ended
            return None, len(self._chunks.rest)
        if self._left < 0:
            return None, 0
        surplus = max(len(data) - self._left, 0)
        self._left -= len(data) - surplus
        self._ended = self._left == 0
        return None, surplus
