"""A look into a JSON request body without building objects: what policy needs, and the spans needed to rewrite it."""

class PeekError(ValueError):
    """The body is not acceptable JSON or a member has the wrong type.

    The message says what was expected, what came, and where.
    """

    param: str | None
    """Name of the member at fault (``stream_options.include_usage`` for that one), None for the text as a whole."""
    offset: int
    """Byte offset of the fault."""
    def __init__(self, message: str, param: str | None, offset: int) -> None: ...

class Peek:
    """Read-only.

    Spans are byte offsets (start inclusive, end exclusive) of JSON values, quotes included; -1 where absent. A
    member that is ``null`` counts as absent, but its span is there, so that ``rewrite`` can replace it.
    """

    @property
    def model(self) -> str | None:
        """None where absent, null or empty."""
    @property
    def model_start(self) -> int: ...
    @property
    def model_end(self) -> int: ...
    @property
    def stream(self) -> bool: ...
    @property
    def max_tokens(self) -> int:
        """max_completion_tokens, max_output_tokens or max_tokens (the first that is there and not null), or -1."""
    @property
    def user(self) -> str | None: ...
    @property
    def tools(self) -> bool:
        """There is a non-empty array ``tools`` (or ``functions``)."""
    @property
    def include_usage(self) -> bool:
        """stream_options.include_usage is true."""
    @property
    def stream_options_start(self) -> int: ...
    @property
    def stream_options_end(self) -> int: ...
    @property
    def fallbacks_name(self) -> int:
        """Where the member ``fallbacks``, which is the gateway's own, begins: at its name's quote."""
    @property
    def fallbacks_start(self) -> int:
        """Of its value, an array (or null)."""
    @property
    def fallbacks_end(self) -> int: ...
    @property
    def escaped(self) -> bool:
        """A top-level key, the model's name or the user has an escape: legal, but not for the fast lane."""

def peek(body: bytes, max_depth: int = 64) -> Peek:
    """Validate the whole text and read the members above. Raises PeekError.

    RFC 8259, narrowed: one object, UTF-8 without a byte order mark, no NaN or Infinity, no duplicate key at the top
    level or in ``stream_options`` (however it is spelt), at most ``max_depth`` (1 to 1024, else ValueError) containers
    inside one another, 1,024 members at the top level (with those of ``stream_options``) and 128 characters a number.
    Keys that are compared, the model and the user spell whole characters (no lone surrogates).
    """

def rewrite(body: bytes, seen: Peek, model: str | None, want_usage: bool) -> bytes:
    """The same bytes with the model's name replaced (None: kept) and, where wanted, usage asked for.

    That is, ``stream_options.include_usage`` is true then. Nothing else changes; returns ``body`` itself if nothing
    does. Members that are absent are appended. Raises ValueError where ``seen`` was not read from a body of this
    length, or ``model`` has a lone surrogate.
    """
