"""Heads and chunked bodies of HTTP/1.1, read strictly (RFC 9112, RFC 9110): the readers for tests, fuzzers and tools.

The gateway itself calls them through their C contract (``http1.pxd``), which says more.
"""

from typing import Literal, final

@final
class ParsedRequest:
    """A request's head. What was read (all but verdict, reason, scanned and size) holds for "take" and "hand_over"."""

    @property
    def verdict(self) -> Literal["more", "take", "hand_over", "refuse"]: ...
    @property
    def reason(self) -> str:
        """A word for why it is not "take", as in logs and metrics; empty for "take" and "more"."""
    @property
    def detail(self) -> str:
        """The reason for the caller: what was expected and what came."""
    @property
    def status(self) -> int:
        """The HTTP status to refuse with, 0 where nothing is refused."""
    @property
    def scanned(self) -> int:
        """For "more": what to pass as ``scanned`` together with these bytes and the ones behind them."""
    @property
    def size(self) -> int:
        """Bytes of the head with its empty line; for "refuse", how many bytes come before the fault."""
    @property
    def method(self) -> bytes: ...
    @property
    def target(self) -> bytes: ...
    @property
    def path(self) -> bytes:
        """The target up to its question mark."""
    @property
    def minor(self) -> int:
        """1 for HTTP/1.1, 0 for HTTP/1.0."""
    @property
    def content_length(self) -> int:
        """In bytes; -1 where none came."""
    @property
    def chunked(self) -> bool: ...
    @property
    def has_body(self) -> bool: ...
    @property
    def close(self) -> bool:
        """The connection ends after this exchange."""
    @property
    def expect(self) -> bool:
        """``Expect: 100-continue`` came."""
    @property
    def known(self) -> tuple[int, int, int, int]:
        """Index in ``fields`` of Host, Content-Type, Content-Encoding and Connection (its first); -1: none."""
    @property
    def fields(self) -> tuple[tuple[bytes, bytes], ...]:
        """Names as written and values without the white space around them, in order."""

@final
class ParsedResponse:
    """A response's head; as ``ParsedRequest``, but that nothing is handed over."""

    @property
    def verdict(self) -> Literal["more", "take", "refuse"]: ...
    @property
    def reason(self) -> str: ...
    @property
    def detail(self) -> str: ...
    @property
    def scanned(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def status(self) -> int:
        """From 100 to 599."""
    @property
    def minor(self) -> int: ...
    @property
    def content_length(self) -> int: ...
    @property
    def chunked(self) -> bool:
        """Without it and without a length the body ends with the connection, where the status allows a body at all."""
    @property
    def close(self) -> bool: ...
    @property
    def known(self) -> tuple[int, int]:
        """Index in ``fields`` of the first Content-Type and the first Connection; -1: none."""
    @property
    def fields(self) -> tuple[tuple[bytes, bytes], ...]: ...

def parse_request_head(data: bytes, max_line: int = 8192, max_head: int = 32768, *, scanned: int = 0) -> ParsedRequest:
    """Read a request's head from its first byte on; bytes behind it are not looked at.

    ``max_line`` bounds the request line and each field line, without their ends, and ``max_head`` all of it, in bytes.
    ``scanned``: 0, or what the last answer said. Raises ValueError for bounds that are not positive (or 2^31 and more),
    and for ``scanned`` outside ``data``.
    """

def parse_response_head(
    data: bytes, max_line: int = 8192, max_head: int = 32768, *, scanned: int = 0
) -> ParsedResponse:
    """Read a response's head; as ``parse_request_head``."""

def list_has_token(value: bytes, wanted: bytes) -> bool:
    """Whether the comma-separated value holds this token in any case (RFC 9110 section 5.6.1); ``wanted`` in lower case."""

@final
class ChunkDecoder:
    """Follows one chunked body (RFC 9112 section 7.1), fed in any chunking."""

    @property
    def ended(self) -> bool:
        """The last chunk, its trailer and the empty line have come."""
    @property
    def broken(self) -> bool:
        """This is not chunked coding as it is accepted here; nothing more is read."""
    @property
    def rest(self) -> bytes:
        """What came behind the end."""
    def __init__(self) -> None: ...
    def feed(self, data: bytes) -> bytes:
        """The body's data in these bytes."""
