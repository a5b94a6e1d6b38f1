"""An answer that is kept: what of it, whether it is good enough, and how it is read again as an upstream's would be."""

import re

import msgspec
import orjson

from agw_proxy._hot.route import Target
from agw_proxy._hot.sse import Document, Stream
from agw_proxy.errors import GatewayError, UpstreamBroken, UpstreamFailed
from agw_proxy.types import RawHeaders, Usage
from agw_proxy.upstreams.opening import Opened, content_type

PIECE_BYTES = 65536  # of a kept answer, given out at once
OVERHEAD_BYTES = 512  # of an entry beside its bytes: objects, digest, place in a table
CUT_SHORT = frozenset({"length", "max_tokens", "max_output_tokens", "incomplete", "model_context_window_exceeded"})
NOT_GOOD = CUT_SHORT | {"content_filter", "error", "failed", "cancelled", "in_progress", "queued", "pause_turn"}
"""Finish reasons of answers that another try would make better."""
ONE_NOT_GOOD = re.compile(
    rb'_reason"\s*:\s*"(?:%s)"' % b"|".join(word.encode() for word in sorted(NOT_GOOD))
    + rb'|(?:finish|block)Reason"\s*:\s*"(?!(?:STOP|FINISH_REASON_UNSPECIFIED)")'
)
"""Of several choices one is not good: ``Stream`` and ``Document`` tell only how the last one ended.

Google has many words for an answer that is not good, and one for a good one.
"""
HEADERS_KEPT = frozenset(
    {
        b"content-type",
        b"content-encoding",
        b"content-language",
        b"content-disposition",
        b"openai-version",
        b"openai-model",
    }
)
"""Of an upstream's headers; the others belong to one exchange."""


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """An answer as it was relayed."""

    made: float
    """Seconds since 1970."""
    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes
    stream: bool
    dropped: tuple[str, ...] = ()
    """What the request had lost when it was translated for the upstream."""

    @property
    def size(self) -> int:
        """What it counts for where bytes are bounded."""
        return len(self.body) + sum(len(name) + len(value) for name, value in self.headers) + OVERHEAD_BYTES

    def encode(self) -> bytes:
        """For a store outside of this process."""
        return ENCODER.encode(self)


ENCODER = msgspec.msgpack.Encoder()
DECODER = msgspec.msgpack.Decoder(Entry)


def decode(data: bytes) -> Entry | None:
    """What ``Entry.encode`` gave; None for anything else (another version wrote it, or somebody meddled)."""
    try:
        return DECODER.decode(data)
    except msgspec.MsgspecError:
        return None


class Replay:
    """Gives a kept answer as an upstream's (``types.Reply``)."""

    connect_ms = 0.0
    began_ns = 0

    def __init__(self, entry: Entry) -> None:
        self.status = entry.status
        self.headers: RawHeaders = entry.headers
        if not entry.stream:
            self.headers = (*entry.headers, (b"content-length", b"%d" % len(entry.body)))
        self._body = entry.body
        self._at = 0

    @property
    def ended(self) -> bool:
        """See ``types.Reply``."""
        return self._at >= len(self._body)

    async def read(self, *, progress: bool = True) -> bytes:
        """See ``types.Reply``."""
        del progress
        if self._at == 0 and len(self._body) <= PIECE_BYTES:
            self._at = len(self._body)
            return self._body
        piece = self._body[self._at : self._at + PIECE_BYTES]
        self._at += len(piece)
        return piece

    def close(self) -> None:
        """See ``types.Reply``."""


def replayed(entry: Entry, target: Target) -> Opened:
    """``target``: who could have answered."""
    return Opened(Replay(entry), target, Stream() if entry.stream else None, b"", dropped=entry.dropped)


class Recording:
    """Listens to an answer on its way, and knows at its end whether it may be kept."""

    def __init__(self, opened: Opened, *, known_end: bool, most: int, picky: bool = True) -> None:
        """``known_end``: its streams have a last event. ``most``: bytes of a body that may be kept.

        ``picky``: only good answers are kept, see ``NOT_GOOD``; else all that are whole.
        """
        reply = opened.reply
        names = {name.lower() for name, _ in reply.headers}
        self._reply = reply
        self._lost = opened.dropped
        self._picky = picky
        self._headers = tuple((name, value) for name, value in reply.headers if name.lower() in HEADERS_KEPT)
        self._stream = Stream(strip_usage=opened.strips) if opened.stream is not None else None
        coded = b"content-encoding" in names
        self._json = content_type(reply) == b"application/json" and not coded
        self._document = Document()
        self._known_end = known_end
        self._most = most
        self._pieces: list[bytes] | None = [] if reply.status == 200 and not (picky and coded) else None
        self._size = self._seen = 0

    @property
    def terminal(self) -> bool:
        """Nothing of the answer is missing, although its end has not come."""
        return self._stream is not None and self._known_end and (self._stream.done or self._stream.finished)

    @property
    def usage(self) -> Usage:
        """What the answer has told of it so far."""
        source = self._stream if self._stream is not None else self._document
        return Usage(source.prompt_tokens, source.completion_tokens, source.cached_tokens)

    @property
    def progress(self) -> int:
        """Grows with every chunk that brings the answer further (``Stream.progress``); by bytes where it is no stream."""
        return self._stream.progress if self._stream is not None else self._seen

    def feed(self, chunk: bytes) -> None:
        """The next bytes, as the upstream sent them. Raises EventTooLong."""
        self._seen += len(chunk)
        if self._stream is not None:
            chunk = self._stream.feed(chunk)
        elif self._json:
            self._document.feed(chunk)
        self._add(chunk)

    def end(self, now: float) -> Entry | None:
        """All of it was there. None where it is not worth keeping. ``now``: seconds since 1970."""
        if self._stream is not None:
            self._add(self._stream.finish())
        if self._pieces is None:
            return None
        # A copy, also of a single piece: it may take many times its size, since it was written in room to spare.
        body = b"".join((*self._pieces, b""))
        good = self._good_stream(self._stream) if self._stream is not None else self._good_document(body)
        good = good and not (self._picky and ONE_NOT_GOOD.search(body))
        if not good:
            return None
        return Entry(now, self._reply.status, self._headers, body, self._stream is not None, self._lost)

    def fault(self) -> GatewayError | None:
        """What was wrong with it, as far as it has come; None for nothing, or nothing that its bytes tell."""
        stream = self._stream
        if stream is None:
            cut = self._json and self._reply.ended and not self._document.complete
            return UpstreamBroken("The upstream's answer was cut: its JSON is not whole.") if cut else None
        if stream.error is not None:
            return UpstreamBroken("The upstream reported an error within its stream.")
        if stream.failed:
            return UpstreamFailed("The upstream ended its answer as a failed one.")
        if self._known_end and self._reply.ended and not stream.complete:
            return UpstreamBroken("The upstream ended its stream without finishing the answer.")
        return None

    def _add(self, passed: bytes) -> None:
        self._size += len(passed)
        if self._pieces is not None and passed:
            if self._size > self._most:
                self._pieces = None
            else:
                self._pieces.append(passed)

    def _good_stream(self, stream: Stream) -> bool:
        if stream.error is not None or stream.failed:
            return False
        if not self._picky:
            return stream.complete or not self._known_end
        return self._known_end and stream.complete and stream.finish_reason not in NOT_GOOD

    def _good_document(self, body: bytes) -> bool:
        if not self._picky:
            return self._document.complete or not self._json
        if not self._json or not self._document.complete or self._document.finish_reason in NOT_GOOD:
            return False
        return b'"error"' not in body or not _reports_error(body)


def _reports_error(body: bytes) -> bool:
    try:
        tree = orjson.loads(body)
    except orjson.JSONDecodeError:
        return True
    return not isinstance(tree, dict) or tree.get("error") is not None
