"""Spans: what took how long within one trace (W3C Trace Context). Pure; where they go once they have ended is a Sink's.

A span is made by a ``Tracer`` for a request, and by ``Span.child`` for all that happens below it. Whether a trace is
recorded is decided once, at its first span: by the caller where it says so, else by the sampled share of trace ids, so
that all gateways of one trace decide alike.
"""

import re
import secrets
import time
from contextvars import ContextVar
from typing import Literal, Protocol

Kind = Literal["internal", "server", "client"]
Value = str | bool | int | float | tuple[str, ...]
PARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})")
"""``traceparent`` (Trace Context section 3.2): the trace, the span, the flags."""
SAMPLED = 1
"""Of the flags."""
HALF = 1 << 64
"""Ids are drawn evenly: the lower half of one says whether it is among the share that is sampled."""


class Sink(Protocol):
    """Where recorded spans go. Only ``close`` may block; nothing raises."""

    def ended(self, span: "Span") -> None:
        """One has ended: it does not change any more."""
        ...

    def entered(self, span: "Span") -> None:
        """What is done from now on, in this context, belongs to it; also to one that is not recorded."""
        ...

    def close(self) -> None:
        """No more will end. What is on its way gets a moment."""
        ...


class Span:
    """One. ``recorded`` False: it only says where in a trace one is, and so do those below it."""

    __slots__ = (
        "_monotonic", "above", "attributes", "began_ns", "ended_ns", "error", "kind", "name", "over", "parent_id",
        "recorded", "sink", "span_id", "trace_id",
    )  # fmt: skip

    def __init__(
        self, sink: Sink, name: str, kind: Kind, trace_id: str, parent_id: str | None, *, recorded: bool
    ) -> None:
        """It begins now. ``trace_id``: 32, ``parent_id``: 16 hexadecimal digits."""
        self.sink = sink
        self.name = name
        self.kind: Kind = kind
        self.trace_id = trace_id
        self.parent_id = parent_id
        self.span_id = secrets.token_hex(8)
        self.recorded = recorded
        self.attributes: dict[str, Value] = {}
        self.error: str | None = None
        """What has gone wrong, in a word of a small set (``error.type``)."""
        self.began_ns = time.time_ns()
        """Since 1970."""
        self.ended_ns = 0
        self._monotonic = time.monotonic_ns()
        self.over = False
        """It has ended."""
        self.above: Span | None = None
        """The one that it was begun below, where that is of this process."""

    @property
    def traceparent(self) -> str:
        """The header for whoever is asked within this span."""
        return f"00-{self.trace_id}-{self.span_id}-{int(self.recorded):02x}"

    def child(self, name: str, kind: Kind = "internal") -> "Span":
        """One below it, that begins now."""
        made = Span(self.sink, name, kind, self.trace_id, self.span_id, recorded=self.recorded)
        made.above = self
        return made

    def under_way(self, below: "Span") -> "Span | None":
        """The lowest that has not ended, of this one and those above it, where that is below ``below``; else None."""
        found: Span | None = self
        while found is not None and found.over:
            found = found.above
        each = found
        while each is not None and each is not below:
            each = each.above
        return found if each is not None and found is not below else None

    def end(self, error: str | None = None, nanoseconds: int | None = None) -> None:
        """It is over: the first time only. ``nanoseconds``: since when it was under way, where that is not its making."""
        if self.over:
            return
        self.over = True
        spent = time.monotonic_ns() - self._monotonic
        self.ended_ns = self.began_ns + spent
        if nanoseconds is not None:
            self.began_ns = self.ended_ns - nanoseconds
        self.error = error or self.error
        if self.recorded:
            self.sink.ended(self)


CURRENT: ContextVar[Span | None] = ContextVar("agw_span", default=None)
"""What is under way here; None where nothing is traced."""


def enter(span: Span) -> None:
    """From now on, in this context, it is what is under way."""
    CURRENT.set(span)
    span.sink.entered(span)


class Tracer:
    """Begins traces, or goes on with those of callers."""

    def __init__(self, sink: Sink, sample: float = 1.0, *, content: bool = False) -> None:
        """``sample``: the share, 0 to 1, of the traces that no caller has begun. ``content``: spans may tell messages."""
        self.content = content
        self._sink = sink
        self._below = round(sample * HALF)
        self.close = sink.close

    def within(self, traceparent: str | None) -> Span | None:
        """A span that another process has under way, to be entered here and ended there; None where it has none."""
        found = PARENT.fullmatch(traceparent or "")
        if found is None:
            return None
        span = Span(self._sink, "", "internal", found[1], None, recorded=bool(int(found[3], 16) & SAMPLED))
        span.span_id = found[2]
        return span

    def begin(self, name: str, kind: Kind, traceparent: str | None) -> Span:
        """The first span here. ``traceparent``: the caller's header; a malformed one is none."""
        found = PARENT.fullmatch(traceparent or "")
        if found is not None:
            recorded = bool(int(found[3], 16) & SAMPLED)
            return Span(self._sink, name, kind, found[1], found[2], recorded=recorded)
        trace_id = secrets.token_hex(16)
        recorded = int(trace_id[16:], 16) < self._below
        return Span(self._sink, name, kind, trace_id, None, recorded=recorded)
