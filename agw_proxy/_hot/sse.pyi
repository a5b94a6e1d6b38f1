"""Reading answers in passing: event boundaries, usage and finish reason out of a stream (or a JSON answer)."""

class EventTooLong(ValueError):
    """One event is longer than the bound."""

class Stream:
    """Follows one ``text/event-stream`` (WHATWG HTML 9.2) in the OpenAI chat/completions shape, fed in any chunking.

    What an event says counts when the event has ended and its data is one whole JSON object. Everything is passed on
    untouched, but for two kinds of events, neither longer than ``max_hold_bytes``: those with fields and no data (only
    ``id:``, ``retry:`` or ``event:``: clients take them for an empty JSON text), and with ``strip_usage`` the usage
    event. Comments alone and blank lines pass.
    """

    @property
    def events(self) -> int:
        """Events with data so far ([DONE] and a stripped usage event not counted)."""
    @property
    def content(self) -> int:
        """Events whose choices carry something.

        That is a non-empty ``delta.content``, ``delta.reasoning_content`` or ``text`` string, or a non-empty
        ``delta.tool_calls`` array. Other members (a refusal, content in parts) are not looked at.
        """
    @property
    def done(self) -> bool:
        """``data: [DONE]`` was seen."""
    @property
    def finish_reason(self) -> str | None:
        """The last ``choices[].finish_reason`` that was neither null nor empty, at most 64 bytes of it."""
    @property
    def error(self) -> bytes | None:
        """The data of the first error event, at most 64 KiB of it.

        An error event has the type ``error``, or a top-level ``error`` that is not null.
        """
    @property
    def prompt_tokens(self) -> int:
        """With the next two, from the last top-level ``usage`` object (also under its Responses names); else -1."""
    @property
    def completion_tokens(self) -> int: ...
    @property
    def cached_tokens(self) -> int: ...
    @property
    def at_boundary(self) -> bool:
        """Everything returned so far ends between two events."""
    def __init__(
        self, *, strip_usage: bool = False, max_event_bytes: int = 16777216, max_hold_bytes: int = 65536
    ) -> None:
        """``strip_usage``: leave out the event with an empty ``choices`` and ``usage`` (nobody but us asked for it).

        An event that also reports an error stays. Raises ValueError where ``max_event_bytes`` is not positive or
        ``max_hold_bytes`` negative.
        """
    def feed(self, chunk: bytes) -> bytes:
        """Bytes to pass on now: whole events.

        The rest of an unfinished event is held up to ``max_hold_bytes``, then passed on as it comes. Returns ``chunk``
        itself where possible. Raises EventTooLong (what came before in the same chunk is not returned), and ValueError
        after that or after ``finish``.
        """
    def finish(self) -> bytes:
        """At the end of the body: what was held. A last event without its blank line is counted as an event."""
    @property
    def complete(self) -> bool:
        """A terminal state was reached ([DONE], or a finish_reason): a clean end now is a finished stream."""

class Document:
    """Follows one JSON answer, fed in any chunking, in constant memory.

    Never raises: what it cannot follow is not ``complete``.
    """

    @property
    def prompt_tokens(self) -> int:
        """With the next two, from the top-level ``usage`` object as far as it was seen; -1 where it was not."""
    @property
    def completion_tokens(self) -> int: ...
    @property
    def cached_tokens(self) -> int: ...
    @property
    def finish_reason(self) -> str | None:
        """As for ``Stream``."""
    @property
    def complete(self) -> bool:
        """The top-level object or array was closed, and only white space followed (a cut answer was not)."""
    def __init__(self) -> None: ...
    def feed(self, chunk: bytes) -> None: ...
