"""Reading answers in passing: event boundaries, usage and finish reason out of a stream (or a JSON answer)."""

class EventTooLong(ValueError):
    """One event is longer than the bound."""

class Stream:
    """Follows one ``text/event-stream`` (WHATWG HTML 9.2), fed in any chunking.

    It reads what OpenAI's Chat Completions and Responses and Anthropic's Messages say, each by its own names. The type
    of an event is the top-level ``type`` of its data, or where there is none its field ``event``.

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
        """Events that carry a piece of the answer.

        Of a chat, those with a non-empty ``content``, ``refusal``, ``reasoning_content`` or ``reasoning`` string in a
        delta (or ``text`` beside it), a non-empty ``tool_calls`` array, or a ``function_call`` or ``audio`` object;
        else by the type: ``content_block_delta``, and ``response.*.delta``.
        """
    @property
    def pings(self) -> int:
        """Events of the type ``ping`` or ``keepalive``, counted in ``events`` as well."""
    @property
    def progress(self) -> int:
        """Grows where the answer does: not by comments, pings, and events without data.

        An unfinished event counts in every chunk with more of its data, once that is longer than a ping's.
        """
    @property
    def done(self) -> bool:
        """``data: [DONE]`` was seen."""
    @property
    def finished(self) -> bool:
        """The last event of a message or response was seen.

        That is ``message_stop``, or ``response.completed``, ``response.incomplete`` or ``response.failed``.
        """
    @property
    def failed(self) -> bool:
        """It was ``response.failed``: the upstream gave up, and said so."""
    @property
    def finish_reason(self) -> str | None:
        """Why the answer has ended, at most 64 bytes of it.

        The last ``choices[].finish_reason``, ``stop_reason`` of a message, or ``status`` of a response that was neither
        null nor empty.
        """
    @property
    def error(self) -> bytes | None:
        """The data of the first error event, at most 64 KiB of it.

        An error event has the type ``error`` in its data or its field, or a top-level ``error`` that is not null.
        """
    @property
    def prompt_tokens(self) -> int:
        """With the next two, from the last ``usage`` object at the top or in ``message`` or ``response``; else -1.

        It counts what Anthropic reports apart, the tokens read from and written to a cache. A ``message_delta`` adds to
        what was told before.
        """
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
        """A terminal state was reached: a clean end now is one.

        That is ``done``, ``finished``, or the finish_reason of each of a chat's choices that has begun.
        """

class Document:
    """Follows one JSON answer, fed in any chunking, in constant memory.

    Never raises: what it cannot follow is not ``complete``.
    """

    @property
    def prompt_tokens(self) -> int:
        """With the next two, from the ``usage`` object as for ``Stream``, as far as it was seen; -1 where it was not."""
    @property
    def completion_tokens(self) -> int: ...
    @property
    def cached_tokens(self) -> int: ...
    @property
    def finish_reason(self) -> str | None:
        """As for ``Stream``; a ``status`` only of a response."""
    @property
    def complete(self) -> bool:
        """The top-level object or array was closed, and only white space followed (a cut answer was not)."""
    def __init__(self) -> None: ...
    def feed(self, chunk: bytes) -> None: ...
