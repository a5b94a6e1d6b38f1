"""A request, an answer and a stream in nobody's dialect: what the dialects' own modules read into, and write out of.

Each dialect has three modules: ``NAME_requests``, ``NAME_answers`` and ``NAME_streams``. They are pure: no I/O, no clock,
no randomness; ids come from the ids they are given. What one dialect says and another cannot is never lost in silence:
``Losses`` knows for each feature and target whether it is dropped (and told in ``x-agw-dropped``) or refused.
"""

from collections.abc import Callable
from typing import Any, Literal, Protocol

import msgspec

Spoken = Literal["chat", "responses", "messages", "gemini"]
"""The four wire forms. ``chat`` and ``responses`` are OpenAI's two."""
Tree = dict[str, Any]
Role = Literal["system", "user", "assistant"]
Stop = Literal["stop", "length", "tool", "refusal", "sequence", "pause"]
"""Why an answer ended: by itself, at a bound, to call tools, refused (also by a filter), at a stop sequence, to go on later."""

SEAL = "agw:"


class Text(msgspec.Struct, tag=True):
    """Words. ``citations``: as the Messages API has them. ``logprobs``: as Chat has them. ``cache``: Anthropic's cache_control."""

    text: str
    citations: list[Tree] = []
    logprobs: list[Tree] | None = None
    cache: Tree | None = None
    signature: str | None = None
    """Gemini's thought signature on it, see ``Thinking``."""


class Image(msgspec.Struct, tag=True):
    """A picture: ``url`` (never ``data:``), or base64 ``data`` with ``media_type``, or a provider's ``file_id``."""

    url: str | None = None
    data: str | None = None
    media_type: str | None = None
    file_id: str | None = None
    detail: str | None = None
    cache: Tree | None = None


class File(msgspec.Struct, tag=True):
    """A document: ``url``, base64 ``data`` with ``media_type``, plain ``text``, or a provider's ``file_id``."""

    url: str | None = None
    data: str | None = None
    text: str | None = None
    media_type: str | None = None
    file_id: str | None = None
    name: str | None = None
    citations: bool | None = None
    cache: Tree | None = None


class Audio(msgspec.Struct, tag=True):
    """Sound: base64 ``data`` in ``format`` (wav, mp3 ...)."""

    data: str
    format: str


class ToolUse(msgspec.Struct, tag=True):
    """A call of a tool by the model. ``arguments``: JSON text as the model wrote it, or a custom tool's plain input."""

    id: str
    name: str
    arguments: str = ""
    custom: bool = False
    namespace: str | None = None
    """Of a tool that came in a Responses ``namespace``."""
    signature: str | None = None
    """Gemini's thought signature on it, see ``Thinking``."""
    cache: Tree | None = None


class ToolResult(msgspec.Struct, tag=True):
    """What a tool gave. Stands in a user message. ``id``: of the ToolUse; ``name``: where the dialect says it."""

    id: str
    content: "list[Text | Image | File]"
    failed: bool = False
    custom: bool = False
    name: str | None = None
    cache: Tree | None = None


class Thinking(msgspec.Struct, tag=True):
    """Reasoning. ``signature``: what its provider wants back unchanged with it: see ``sealed`` and ``unsealed``.

    ``hidden``: only the signature is there (Anthropic's redacted_thinking, OpenAI's encrypted_content without summary).
    """

    text: str = ""
    signature: str | None = None
    hidden: bool = False
    id: str | None = None

    def is_empty(self) -> bool:
        """Nothing is told of it."""
        return not self.text and self.signature is None


class Refusal(msgspec.Struct, tag=True):
    """Words by which the model declines."""

    text: str


Block = Text | Image | File | Audio | ToolUse | ToolResult | Thinking | Refusal


class Message(msgspec.Struct):
    """One turn. System messages may stand anywhere; tool results stand in user messages, before any other block."""

    role: Role
    blocks: list[Block]
    name: str | None = None


class Tool(msgspec.Struct):
    """A function that the caller offers. ``schema``: JSON Schema of its arguments; None: a custom (free text) tool."""

    name: str
    description: str | None = None
    schema: Tree | None = None
    strict: bool | None = None
    namespace: str | None = None
    grammar: Tree | None = None
    """A custom tool's ``format``."""
    cache: Tree | None = None


class Hosted(msgspec.Struct):
    """A tool that the provider runs itself (web search ...), as it came; ``kind``: its type in its own dialect."""

    kind: str
    spoken: Spoken
    tree: Tree


class ToolChoice(msgspec.Struct):
    """``mode`` one: the tool called ``name``. ``allowed``: only these (with auto or required); None: all."""

    mode: Literal["auto", "none", "required", "one"]
    name: str | None = None
    allowed: list[str] | None = None


class Format(msgspec.Struct):
    """JSON that the answer has to be; ``schema`` None: any object."""

    schema: Tree | None = None
    name: str = "answer"
    description: str | None = None
    strict: bool | None = None


class Reasoning(msgspec.Struct):
    """How much to think. ``effort``: none, minimal, low, medium, high, xhigh, max; ``budget``: tokens; either may be unknown.

    ``summary``: Responses' word, or "auto" where a dialect asks to see thoughts; None: not to be shown.
    """

    effort: str | None = None
    budget: int | None = None
    summary: str | None = None
    enabled: bool | None = None
    """None: left to the model. False: off. ``effort`` and ``budget`` mean nothing then."""
    adaptive: bool = False


class Request(msgspec.Struct):
    """What is asked for. None: the caller has not said. ``extra``: members of the caller's dialect that are named nowhere here."""

    model: str
    messages: list[Message]
    tools: list[Tool] = []
    hosted: list[Hosted] = []
    tool_choice: ToolChoice | None = None
    functions: bool = False
    """Chat: the tools came in its first form, ``functions``, whose callers are told of one call, as ``function_call``."""
    parallel: bool | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop: list[str] = []
    stream: bool = False
    include_usage: bool = False
    """Chat: the stream ends with a usage chunk."""
    n: int = 1
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: Tree | None = None
    logprobs: int | None = None
    """Chat's top_logprobs; 0: of the chosen tokens only. None: none are asked for."""
    reasoning: Reasoning | None = None
    format: Format | None = None
    verbosity: str | None = None
    user: str | None = None
    metadata: Tree | None = None
    service_tier: str | None = None
    store: bool | None = None
    extra: Tree = {}


class Tokens(msgspec.Struct):
    """Usage. ``input`` counts all of the prompt, cached tokens too (as OpenAI does); -1: not known.

    ``cached``: read from the provider's cache; ``written``: into it; ``reasoning``: of ``output``.
    """

    input: int = -1
    output: int = -1
    cached: int = 0
    written: int = 0
    reasoning: int = 0

    @property
    def given(self) -> int:
        """Of the prompt, as far as is known: what a cache has given or taken is part of it."""
        return max(self.input, self.cached + self.written)


class Answer(msgspec.Struct):
    """A whole answer. ``created``: seconds since 1970, 0 where the dialect does not say."""

    id: str
    model: str
    blocks: list[Block]
    stop: Stop
    tokens: Tokens
    created: int = 0
    stop_sequence: str | None = None
    service_tier: str | None = None


# -- a stream, event by event.
# Grammar: Start, then blocks one after the other (BlockStart, its parts, BlockStop; never two open, never one opened
# again; indices 0, 1, 2 ... without a gap), then Finish; or Fault at any point, after which there is nothing. Beats anywhere.


class Start(msgspec.Struct, tag=True):
    """The first event."""

    id: str
    model: str
    created: int = 0
    tokens: Tokens | None = None
    service_tier: str | None = None
    """As far as it is known by now, see ``Answer``."""


class BlockStart(msgspec.Struct, tag=True):
    """``block``: Text, Thinking, ToolUse or Refusal, as far as it is known at its beginning: without its content.

    An Image is there as a whole, and has no parts.
    """

    index: int
    block: Block


class Part(msgspec.Struct, tag=True):
    """More of the open block: words, or a piece of a tool's arguments."""

    text: str
    logprobs: list[Tree] | None = None


class Signature(msgspec.Struct, tag=True):
    """The open block's signature (see ``Thinking``)."""

    signature: str


class Citation(msgspec.Struct, tag=True):
    """Something that the open text cites, as the Messages API has it."""

    citation: Tree


class BlockStop(msgspec.Struct, tag=True):
    """The open block is whole."""


class Finish(msgspec.Struct, tag=True):
    """The last event of a whole answer."""

    stop: Stop
    tokens: Tokens
    stop_sequence: str | None = None
    service_tier: str | None = None


class Fault(msgspec.Struct, tag=True):
    """An error: of an answer with a bad status, or within a stream (``status`` 0 where only the words are known).

    ``kind``: OpenAI's or Anthropic's word for it (invalid_request_error, rate_limit_error, overloaded_error ...).
    """

    message: str
    kind: str = ""
    status: int = 0
    code: str | None = None
    param: str | None = None


class Beat(msgspec.Struct, tag=True):
    """A sign of life that says nothing."""


Streamed = Text | Image | ToolUse | Thinking | Refusal
"""Blocks that a stream may have."""
Event = Start | BlockStart | Part | Signature | Citation | BlockStop | Finish | Fault | Beat


class Reader(Protocol):
    """Reads one upstream stream. Fed whole server-sent events; makes events that keep to the grammar, whatever comes."""

    def read(self, name: str, data: bytes) -> list[Event]:
        """``name``: of the ``event:`` line, or empty. Bad JSON, or what cannot be read, is a Fault."""
        ...

    def end(self) -> list[Event]:
        """The stream has ended. Empty where all was there; else nothing that looks like an end: no Finish is made up."""
        ...


class Writer(Protocol):
    """Writes one stream to a client, as bytes of whole server-sent events. Cannot be made to write an ill-formed sequence."""

    def write(self, event: Event) -> bytes:
        """May be empty. Events against the grammar raise ValueError: they are defects of a Reader."""
        ...


class Shown(msgspec.Struct):
    """What a writer of answers or streams needs to know of the request that it answers.

    ``id``: unique, of letters, digits, ``-`` and ``_``; ids that the upstream does not give are made of it.
    ``model``: the name that the caller has asked for. ``now``: seconds since 1970.
    """

    id: str
    model: str
    now: int
    include_usage: bool = False
    request: Request | None = None
    """For dialects whose answers repeat parts of it (Responses)."""
    told: Tree = {}
    """Members of a Response that the request does not tell, since a store has taken them out of it."""
    clock: Callable[[], float] | None = None
    """Gives the time of the answer's end, as ``now``; None: nobody is told of it."""


class Untranslatable(Exception):
    """The request asks for what the target's dialect cannot say. ``param``: where in the request, in the caller's words."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param


class Unthreadable(Untranslatable):
    """The request wants its provider to hold the conversation. Its clients send all of it to who cannot."""


class Malformed(Exception):
    """A request, or an upstream's answer, that is not of its dialect. ``param``: where, as ``messages[2].content``."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param


class Losses:
    """What a request loses on its way to a target. ``of(feature)`` decides by the table in ``features``."""

    def __init__(self, target: Spoken, decide: Callable[[str, Spoken], str]) -> None:
        """``decide``: gives ``carried``, ``dropped`` or ``refused``."""
        self.target = target
        self.dropped: list[str] = []
        self._told: set[str] = set()
        self._decide = decide

    def of(self, feature: str, param: str | None = None) -> None:
        """The request has it, and the target cannot say it. Raises Untranslatable where that must not be passed over."""
        if self._decide(feature, self.target) == "refused":
            raise Untranslatable(f"The model's upstream cannot be asked for this: {feature}.", param or feature)
        if feature not in self._told:
            self._told.add(feature)
            self.dropped.append(feature)


def sealed(spoken: Spoken, signature: str) -> str:
    """A signature of ``spoken``'s provider, as it travels in another dialect."""
    return f"{SEAL}{spoken}:{signature}"


def unsealed(signature: str, own: Spoken) -> tuple[Spoken, str]:
    """Whose a signature is that came in dialect ``own``, and what it is there."""
    if signature.startswith(SEAL):
        name, _, rest = signature[len(SEAL) :].partition(":")
        for spoken in ("chat", "responses", "messages", "gemini"):
            if name == spoken:
                return spoken, rest
    return own, signature
