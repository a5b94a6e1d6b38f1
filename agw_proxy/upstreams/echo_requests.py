"""What the built-in model reads of a request: the shapes, their bounds, and the errors that name what is wrong.

Members that are not named here are passed over, as a real model's server does with what it does not know.
"""

import re
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from agw_proxy.errors import InvalidJSON, InvalidParameter, MissingParameter

MODEL = "agw/echo"
OWN_NAME = "echo"  # as a route spells it for this upstream
MAX_MESSAGE_CHARACTERS = 300  # an error quotes the request only so far

_PLACE = re.compile(r"(?P<what>.*?)(?: - at `\$\.?(?P<where>.*)`)?", re.DOTALL)
_MISSING = re.compile(r"missing required field `([^`]*)`")

Tree = dict[str, Any]
ModelName = Annotated[str, msgspec.Meta(max_length=256)]  # as long as a route's name can be; it stands in every event
FunctionName = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
Choices = Annotated[int, msgspec.Meta(ge=1, le=8)]
Positive = Annotated[int, msgspec.Meta(ge=1)]


class Directives(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The request member ``agw_echo``, which steers the answer; for tests and benchmarks.

    ``delay_ms``: before the first byte. ``pace_ms``: between the pieces of the body (the events of a stream; a JSON
    answer is one piece unless ``bytes`` is given). ``status``: answer this error. ``break_after``: the body breaks
    after so many pieces, as if the upstream had died.
    For chat and completions, one at a time, before tools, formats and ``max_tokens``: ``chunks``: say "token 1 token 2
    ..." in exactly so many content events of each choice. ``bytes``: say so many characters.
    """

    delay_ms: Annotated[int, msgspec.Meta(ge=0, le=60_000)] = 0
    pace_ms: Annotated[int, msgspec.Meta(ge=0, le=10_000)] = 0
    chunks: Annotated[int, msgspec.Meta(ge=1, le=100_000)] | None = None
    bytes: Annotated[int, msgspec.Meta(ge=1, le=64 << 20)] | None = None
    status: Annotated[int, msgspec.Meta(ge=400, le=599)] | None = None
    break_after: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] | None = None

    def __post_init__(self) -> None:
        """Refuse what contradicts itself."""
        if self.chunks is not None and self.bytes is not None:
            raise ValueError("Expected `chunks` or `bytes`, got both")


class Request(msgspec.Struct):
    """What all endpoints read."""

    model: ModelName | None = None
    agw_echo: Directives | None = None

    @property
    def name(self) -> str:
        """The model's name, as it is answered."""
        return self.model if self.model and self.model != OWN_NAME else MODEL

    @property
    def directives(self) -> Directives:
        """How to answer; as usual where nothing is said."""
        return self.agw_echo or Directives()


class StreamOptions(msgspec.Struct):
    """``stream_options``."""

    include_usage: bool | None = None


class Generation(Request):
    """What chat and completions have in common."""

    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Choices | None = None
    max_tokens: Positive | None = None
    stop: str | list[str] | None = None

    def until_stop(self, text: str) -> str:
        """What is said before the first of the sequences that end an answer."""
        sequences = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return text[: min((at for stop in sequences if stop and (at := text.find(stop)) >= 0), default=len(text))]

    @property
    def wants_usage(self) -> bool:
        """A stream is to end with an event that tells the usage."""
        return bool(self.stream_options and self.stream_options.include_usage)


class Part(msgspec.Struct):
    """A part of a message's content."""

    type: str = "text"
    text: str | None = None


class Message(msgspec.Struct):
    """One turn. Parts are joined by a space; those that are no text are described by their type."""

    role: str
    content: str | list[Part] | None = None

    @property
    def text(self) -> str:
        """What the message says."""
        if isinstance(self.content, list):
            return " ".join((part.text or "") if part.type == "text" else f"[{part.type}]" for part in self.content)
        return self.content or ""


class Function(msgspec.Struct):
    """A function that may be called, or was chosen."""

    name: FunctionName
    parameters: Tree | None = None


class Tool(msgspec.Struct):
    """A tool; those that are no function are passed over."""

    type: str = "function"
    function: Function | None = None


class Allowed(msgspec.Struct):
    """The tools that may be called, or of which one has to be."""

    mode: Literal["auto", "required"]
    tools: list[Tool]


class ToolChoice(msgspec.Struct):
    """The tool that has to be called, or a choice of them."""

    type: Literal["function", "allowed_tools"]
    function: Function | None = None
    allowed_tools: Allowed | None = None

    def __post_init__(self) -> None:
        """Refuse what does not say which."""
        if getattr(self, self.type) is None:
            raise ValueError(f"Object missing required field `{self.type}`")


class JSONSchema(msgspec.Struct):
    """``response_format.json_schema``."""

    schema: Tree | None = None


class ResponseFormat(msgspec.Struct):
    """The form that the answer's text has to have."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JSONSchema | None = None


class ChatRequest(Generation, kw_only=True):
    """POST /chat/completions."""

    messages: list[Message]
    max_completion_tokens: Positive | None = None
    tools: list[Tool] | None = None
    tool_choice: Literal["none", "auto", "required"] | ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None


class CompletionRequest(Generation):
    """POST /completions."""

    prompt: str | list[str | int | list[int]] | None = None


class EmbeddingRequest(Request, kw_only=True):
    """POST /embeddings."""

    input: str | list[str | int | list[int]]
    dimensions: Annotated[int, msgspec.Meta(ge=1, le=4_096)] | None = None
    encoding_format: Literal["float", "base64"] | None = None


class ModerationRequest(Request, kw_only=True):
    """POST /moderations."""

    input: str | list[str | Part]


R = TypeVar("R", bound=Request)


def read(decoder: msgspec.json.Decoder[R], body: bytes) -> R:
    """Decode a body. Raises InvalidJSON, MissingParameter and InvalidParameter (the member's path in ``param``)."""
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        match = _PLACE.fullmatch(str(error))
        where = (match["where"] or "") if match else ""
        what = (match["what"] if match else str(error))[:MAX_MESSAGE_CHARACTERS]
        missing = _MISSING.search(what)
        if missing:
            param = f"{where}.{missing[1]}".lstrip(".")
            raise MissingParameter(f"{param} is required, and is not there.", param=param) from None
        raise InvalidParameter(f"{where or 'the body'}: {what}.", param=where or None) from None
    except (msgspec.DecodeError, RecursionError):
        raise InvalidJSON(
            "Expected a JSON object in UTF-8, without halves of surrogate pairs and not nested too deeply."
        ) from None


def inputs(given: str | list[str | int | list[int]], param: str, most: int) -> list[str | list[int]]:
    """Sort out what a prompt or an input may be: texts, or lists of token ids (a list of integers is one input).

    Raises InvalidParameter for none, more than ``most``, or a mixture.
    """
    if isinstance(given, str):
        return [given]
    texts = [item for item in given if isinstance(item, str)]
    lists = [item for item in given if isinstance(item, list)]
    tokens = [item for item in given if isinstance(item, int)]
    if not given or len(given) not in {len(texts), len(lists), len(tokens)}:
        raise InvalidParameter(
            f"Expected {param} to be a string or a non-empty list: of strings, of integers or of lists of integers.",
            param=param,
        )
    if tokens:
        return [tokens]
    if len(given) > most:
        raise InvalidParameter(f"Expected {param} to have at most {most} entries, got {len(given)}.", param=param)
    return [*texts, *lists]
