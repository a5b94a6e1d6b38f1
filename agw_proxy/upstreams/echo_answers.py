"""What the built-in model answers: a request's body -> the answer, encoded piece by piece as it is taken. Pure.

Shapes follow the OpenAI API reference (chat completions, completions, embeddings, moderations, models). The same body
gives the same bytes: ids are hashes of it, ``created`` is a constant. Tokens are words, or what stands in for them.
"""

import hashlib
import re
import struct
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from itertools import repeat, zip_longest
from typing import Any, Literal

import msgspec
import orjson

from agw_proxy.errors import GatewayError, InvalidParameter, MethodNotAllowed, MissingParameter, UnknownPath
from agw_proxy.upstreams.echo_calls import called, fitting
from agw_proxy.upstreams.echo_requests import (
    MODEL,
    ChatRequest,
    CompletionRequest,
    Directives,
    EmbeddingRequest,
    ModerationRequest,
    Part,
    Tree,
    inputs,
    read,
)

READY = "agw/echo is ready."
CREATED = 1_700_000_000  # a constant, so that answers can be compared byte for byte
DIMENSIONS = 64
FRAGMENT_CHARACTERS = 16  # of a tool call's arguments, an event each
FILLER = "payload "  # what an answer of a given size says, over and over
FILLER_BLOCK = FILLER * 8_192  # 64 KiB: small beside a socket's buffers, large beside the cost of a piece
MAX_PROMPTS = 64  # each is a choice of its own, times n
MAX_INPUTS = 2_048  # as the public API
MAX_VALUES = 1 << 20  # numbers in one embeddings answer: they are made in one go, and the event loop waits
DONE = b"data: [DONE]\n\n"
KINDS = {403: "permission_error", 408: "timeout", 429: "rate_limit_error", 504: "timeout"}
CATEGORIES = (
    *("harassment", "harassment/threatening", "hate", "hate/threatening", "illicit", "illicit/violent", "self-harm"),
    *("self-harm/instructions", "self-harm/intent", "sexual", "sexual/minors", "violence", "violence/graphic"),
)

# The white space before a word goes with it; what follows the last word goes with that.
_WORD = re.compile(r"\s*+\S++(?:\s++\Z)?")


class Answered(msgspec.Struct):
    """An answer that is still to be sent. ``pieces`` are encoded as they are taken; ``length`` is None for a stream."""

    status: int
    pieces: Iterator[bytes]
    length: int | None
    directives: Directives = Directives()
    allow: str = ""


class Speech(msgspec.Struct, frozen=True):
    """What one choice says. ``pieces`` (text, or JSON ready made) starts anew at each call; ``tokens`` is how many."""

    pieces: Callable[[], Iterator[Any]]
    tokens: int
    finish: Literal["stop", "length", "tool_calls"] = "stop"


class Streamed(msgspec.Struct, frozen=True):
    """How a choice looks in a stream: its member, its first values, what goes around a piece, and its last value."""

    member: str
    openings: Sequence[bytes]
    around: tuple[bytes, bytes]
    ending: bytes


def answer(method: str, path: str, body: object) -> Answered:
    """Answer a call; ``path`` is relative to /v1. Never raises: what cannot be served becomes an error answer."""
    try:
        return _answer(method, path, body)
    except GatewayError as error:
        made = _error(error.status, error.message, error.kind, error.param, error.alias or error.code)
        made.allow = ", ".join(error.allowed) if isinstance(error, MethodNotAllowed) else ""
        return made


def _answer(method: str, path: str, body: object) -> Answered:
    if path == "/models":
        known = "GET"
    elif path in ENDPOINTS:
        known = "POST"
    else:
        raise UnknownPath(f"agw/echo has no '{path[:80]}'. It answers /models, {', '.join(ENDPOINTS)}.")
    if method != known:
        raise MethodNotAllowed(f"{path} is asked with {known}, not {method[:20]}.", allowed=(known,))
    if path == "/models":
        return _json({"object": "list", "data": [_stamped(MODEL, "model") | {"owned_by": "agw"}]})
    decoder, make = ENDPOINTS[path]
    content = body if isinstance(body, bytes) else b""
    request = read(decoder, content)
    directives = request.directives
    if directives.status is None:
        made = make(request, hashlib.blake2b(content, digest_size=12).hexdigest())
    else:
        status = directives.status
        kind = KINDS.get(status, "invalid_request_error" if status < 500 else "api_error")
        code = "rate_limit_exceeded" if status == 429 else "agw_echo_status"
        made = _error(status, f"agw/echo answers {status}, as agw_echo.status asked.", kind, None, code)
    made.directives = directives
    return made


def _chat(request: ChatRequest, identity: str) -> Answered:
    count = request.n or 1
    head = _stamped(f"chatcmpl-{identity}", "chat.completion") | {"model": request.name}
    speech = _steered(request.directives)
    calls = [] if speech else called(request, _last(request))
    identities = [f"{identity}{index}" for index in range(count)]
    if calls:
        speeches = [_calling(calls, one) for one in identities]
        firsts = [{"index": 0} | _tool_call(_call_id(one, 0), calls[0][0], "") for one in identities]
        openings = [orjson.dumps({"role": "assistant", "content": None, "tool_calls": [first]}) for first in firsts]
        streamed = Streamed("delta", openings, (b"", b""), b"{}")
    else:
        speech = speech or _words(
            request.until_stop(_text(request)), request.max_completion_tokens or request.max_tokens
        )
        speeches = [speech] * count
        opening = orjson.dumps({"role": "assistant", "content": "", "refusal": None})
        streamed = Streamed("delta", [opening] * count, (b'{"content":', b"}"), b"{}")
    prompt_tokens = sum(len(message.text.split()) for message in request.messages)
    usage = _usage(prompt_tokens, speeches[0].tokens * count)
    if request.stream:
        head["object"] = "chat.completion.chunk"
        return Answered(200, _events(head, streamed, speeches, usage if request.wants_usage else None), None)
    said = "" if calls or request.directives.bytes else "".join(speeches[0].pieces())
    messages: list[Tree] = [{"role": "assistant", "content": said, "refusal": None}] * count
    if calls:
        whole = [[_tool_call(_call_id(one, at), *call) for at, call in enumerate(calls)] for one in identities]
        messages = [{"role": "assistant", "content": None, "refusal": None, "tool_calls": made} for made in whole]
    choices = [_choice(index, "message", message, speeches[0].finish) for index, message in enumerate(messages)]
    return _json(head | {"choices": choices, "usage": usage}, request.directives.bytes, b'"content":"')


def _completion(request: CompletionRequest, identity: str) -> Answered:
    prompts = inputs("" if request.prompt is None else request.prompt, "prompt", MAX_PROMPTS)
    head = _stamped(f"cmpl-{identity}", "text_completion") | {"model": request.name}
    steered = _steered(request.directives)
    speeches = [
        steered or _words(request.until_stop(prompt), request.max_tokens)
        for prompt in (given if isinstance(given, str) else f"[{len(given)} tokens]" for given in prompts)
        for _ in range(request.n or 1)
    ]
    usage = _usage(_size(prompts), sum(speech.tokens for speech in speeches))
    if request.stream:
        streamed = Streamed("text", (), (b"", b""), b'""')
        return Answered(200, _events(head, streamed, speeches, usage if request.wants_usage else None), None)
    texts = ["" if request.directives.bytes else "".join(speech.pieces()) for speech in speeches]
    choices = [
        _choice(index, "text", text, speech.finish)
        for index, (text, speech) in enumerate(zip(texts, speeches, strict=True))
    ]
    return _json(head | {"choices": choices, "usage": usage}, request.directives.bytes, b'"text":"')


def _embeddings(request: EmbeddingRequest, _: str) -> Answered:
    given = inputs(request.input, "input", MAX_INPUTS)
    dimensions = request.dimensions or DIMENSIONS
    if len(given) * dimensions > MAX_VALUES:
        raise InvalidParameter(f"Expected at most {MAX_VALUES} numbers in all; ask for fewer.", param="dimensions")
    data = []
    for index, item in enumerate(given):
        packed = vector(item, dimensions)
        numbers = struct.unpack(f"<{dimensions}f", packed)
        shown = b64encode(packed).decode() if request.encoding_format == "base64" else numbers
        data.append({"object": "embedding", "index": index, "embedding": shown})
    tokens = _size(given)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return _json({"object": "list", "data": data, "model": request.name, "usage": usage})


def vector(item: str | list[int], dimensions: int) -> bytes:
    """Make the embedding of a text or of token ids: little-endian float32, of length 1, spread by a hash."""
    seed = item if isinstance(item, str) else repr(item)
    digest = hashlib.shake_128(f"{type(item).__name__}:{seed}".encode()).digest(4 * dimensions)
    # Odd numbers around 0, so that the length is never 0.
    numbers = [2 * number - 0xFFFFFFFF for number in struct.unpack(f"<{dimensions}I", digest)]
    length = sum(number * number for number in numbers) ** 0.5
    return struct.pack(f"<{dimensions}f", *(number / length for number in numbers))


def _moderations(request: ModerationRequest, identity: str) -> Answered:
    given = request.input if isinstance(request.input, list) else [request.input]
    if not 1 <= len(given) <= MAX_INPUTS:
        raise InvalidParameter(f"Expected input to have 1 to {MAX_INPUTS} entries, got {len(given)}.", param="input")
    verdict = {
        "flagged": False,
        "categories": dict.fromkeys(CATEGORIES, False),
        "category_scores": dict.fromkeys(CATEGORIES, 0.0),
        "category_applied_input_types": dict.fromkeys(CATEGORIES, ("text",)),
    }
    several = 1 if any(isinstance(item, Part) for item in given) else len(given)  # parts make one input
    return _json({"id": f"modr-{identity}", "model": request.name, "results": [verdict] * several})


ENDPOINTS: dict[str, tuple[msgspec.json.Decoder[Any], Callable[[Any, str], Answered]]] = {
    "/chat/completions": (msgspec.json.Decoder(ChatRequest), _chat),
    "/completions": (msgspec.json.Decoder(CompletionRequest), _completion),
    "/embeddings": (msgspec.json.Decoder(EmbeddingRequest), _embeddings),
    "/moderations": (msgspec.json.Decoder(ModerationRequest), _moderations),
}


def _last(request: ChatRequest) -> tuple[bool, str] | None:
    """Find what is to be answered: whether a tool said it, and the text. None where neither a user nor a tool spoke."""
    for message in reversed(request.messages):
        if message.role in {"user", "tool", "function"}:
            return message.role != "user", message.text
    return None


def _text(request: ChatRequest) -> str:
    """Say what there is to say, in the form asked for."""
    last = _last(request)
    text = READY if last is None else f"Tool result: {last[1]}" if last[0] else last[1]
    form = request.response_format
    if form is None or form.type == "text":
        return text
    if form.type == "json_object":
        return orjson.dumps({"echo": text}).decode()
    if form.json_schema is None:
        raise MissingParameter("response_format.json_schema is required.", param="response_format.json_schema")
    return fitting(form.json_schema.schema, "response_format.json_schema.schema")


def _calling(calls: Sequence[tuple[str, str]], identity: str) -> Speech:
    """Make the calls one after the other, their arguments in fragments; the first has begun with the role."""
    size = FRAGMENT_CHARACTERS

    def pieces() -> Iterator[orjson.Fragment]:
        for at, (name, arguments) in enumerate(calls):
            if at:
                begun = {"index": at} | _tool_call(_call_id(identity, at), name, "")
                yield orjson.Fragment(b'{"tool_calls":[%b]}' % orjson.dumps(begun))
            for start in range(0, len(arguments), size):
                piece = orjson.dumps(arguments[start : start + size])
                yield orjson.Fragment(b'{"tool_calls":[{"index":%d,"function":{"arguments":%b}}]}' % (at, piece))

    return Speech(pieces, sum(-(-len(arguments) // size) for _, arguments in calls), "tool_calls")


def _call_id(identity: str, at: int) -> str:
    return f"call_{identity}_{at}" if at else f"call_{identity}"


def _steered(directives: Directives) -> Speech | None:
    """Say what ``agw_echo`` prescribes."""
    if directives.chunks is not None:
        chunks = directives.chunks
        return Speech(lambda: (f"token {number} " for number in range(1, chunks + 1)), chunks)
    if directives.bytes is not None:
        words, rest = divmod(directives.bytes, len(FILLER))
        last = [FILLER[:rest]] if rest else []
        return Speech(lambda: (word for part in (repeat(FILLER, words), last) for word in part), words + len(last))
    return None


def _words(text: str, limit: int | None) -> Speech:
    """Say a text word by word, at most ``limit`` of them."""
    if text.isspace():
        return Speech(lambda: iter((text,)), 1)
    count = end = 0
    for match in _WORD.finditer(text):
        if count == limit:
            break
        count, end = count + 1, match.end()
    said = text[:end]
    return Speech(
        lambda: (match[0] for match in _WORD.finditer(text, 0, end)), count, "stop" if said == text else "length"
    )


def _events(head: Tree, shape: Streamed, speeches: Sequence[Speech], usage: Tree | None) -> Iterator[bytes]:
    """Encode a stream's events as they are taken; the choices take turns."""
    start = b"data: " + orjson.dumps(head)[:-1] + b',"choices":['
    close = b',"usage":null}\n\n' if usage else b"}\n\n"
    starts = [b'%s{"index":%d,"%s":' % (start, index, shape.member.encode()) for index in range(len(speeches))]
    end = b',"logprobs":null,"finish_reason":null}]' + close
    for begin, opening in zip(starts, shape.openings, strict=False):
        yield begin + opening + end
    before, after = shape.around
    end_piece = after + end
    starts_piece = [begin + before for begin in starts]
    for turn in zip_longest(*(speech.pieces() for speech in speeches)):
        for begin, piece in zip(starts_piece, turn, strict=True):
            if piece is not None:
                yield begin + orjson.dumps(piece) + end_piece
    for begin, speech in zip(starts, speeches, strict=True):
        yield b'%s%s,"logprobs":null,"finish_reason":"%s"}]%s' % (begin, shape.ending, speech.finish.encode(), close)
    if usage:
        yield start + b'],"usage":' + orjson.dumps(usage) + b"}\n\n"
    yield DONE


def _json(tree: Tree, characters: int | None = None, member: bytes = b"") -> Answered:
    """Encode an answer; with ``characters``, the (empty) string members ``member`` are filled as they are sent."""
    body = orjson.dumps(tree)
    if characters is None:
        return Answered(200, iter((body,)), len(body))
    # In a string the quotes would be escaped, so this finds members only.
    parts = body.split(member + b'"')
    return Answered(200, _filled(parts, member, characters), len(body) + characters * (len(parts) - 1))


def _filled(parts: Sequence[bytes], member: bytes, characters: int) -> Iterator[bytes]:
    block = FILLER_BLOCK.encode()
    blocks, rest = divmod(characters, len(block))
    for part in parts[:-1]:
        yield part + member
        yield from repeat(block, blocks)
        yield block[:rest] + b'"'
    yield parts[-1]


def _error(status: int, message: str, kind: str, param: str | None, code: str) -> Answered:
    made = _json({"error": {"message": message, "type": kind, "param": param, "code": code}})
    made.status = status
    return made


def _stamped(identity: str, kind: str) -> Tree:
    return {"id": identity, "object": kind, "created": CREATED}


def _choice(index: int, member: str, value: object, finish: str) -> Tree:
    return {"index": index, member: value, "logprobs": None, "finish_reason": finish}


def _tool_call(identity: str, name: str, arguments: str) -> Tree:
    return {"id": identity, "type": "function", "function": {"name": name, "arguments": arguments}}


def _size(given: Sequence[str | list[int]]) -> int:
    return sum(len(item.split()) if isinstance(item, str) else len(item) for item in given)


def _usage(prompt: int, completion: int) -> Tree:
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": 0},
    }
