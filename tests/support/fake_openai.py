"""The scripted upstream's everyday face: small, deterministic answers in the OpenAI shapes.

Its answer to a chat is always ``ANSWER``; its usage is ``USAGE``, so that a test can tell relayed numbers from
invented ones.
"""

import base64
import struct

from tests.support.behaviours import DONE, answer, event, failure, stream
from tests.support.upstream import Behaviour, Exchange

ANSWER = "Hello from the fake"
USAGE = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
VECTOR = (0.25, -0.5, 0.75)
MODELS = ("gpt-4o-mini", "gpt-4o", "text-embedding-3-small")
STAMP = 1_700_000_000

Tree = dict[str, object]


def tool_call(name: str, arguments: str, identity: str = "call_1") -> Tree:
    """One complete tool call."""
    return {"id": identity, "type": "function", "function": {"name": name, "arguments": arguments}}


def completion(content: str | None = ANSWER, *, calls: list[Tree] | None = None, model: str = "gpt-4o-mini") -> Tree:
    """A whole ``chat.completion``."""
    message: Tree = {"role": "assistant", "content": content, "refusal": None}
    if calls:
        message["tool_calls"] = calls
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if calls else "stop", "logprobs": None}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": STAMP,
        "model": model,
        "choices": [choice],
        "usage": USAGE,
    }


def chunk(delta: Tree, finish: str | None = None, model: str = "gpt-4o-mini") -> bytes:
    """One event of a streamed chat."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return event(
        {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": STAMP, "model": model, "choices": [choice]}
    )


def usage_event(model: str = "gpt-4o-mini") -> bytes:
    """The extra chunk that ``stream_options.include_usage`` asks for."""
    return event(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion.chunk",
            "created": STAMP,
            "model": model,
            "choices": [],
            "usage": USAGE,
        }
    )


def words(text: str = ANSWER, model: str = "gpt-4o-mini") -> list[bytes]:
    """The events of a streamed text up to its finish reason."""
    pieces = text.split(" ")
    texts = [pieces[0], *(" " + piece for piece in pieces[1:])]
    deltas: list[Tree] = [{"role": "assistant", "content": ""}]
    deltas += [{"content": text} for text in texts]
    return [*(chunk(delta, model=model) for delta in deltas), chunk({}, "stop", model)]


def spoken(text: str = ANSWER, *, usage: bool = False) -> list[bytes]:
    """A whole streamed answer."""
    return [*words(text), *([usage_event()] if usage else []), DONE]


def called(name: str, fragments: list[str], identity: str = "call_1") -> list[bytes]:
    """A streamed tool call whose arguments come in fragments."""
    first: Tree = {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"index": 0, **tool_call(name, "", identity)}],
    }
    rest: list[Tree] = [{"tool_calls": [{"index": 0, "function": {"arguments": piece}}]} for piece in fragments]
    return [chunk(first), *(chunk(delta) for delta in rest), chunk({}, "tool_calls"), DONE]


async def openai_like(exchange: Exchange) -> None:
    """Answer by path, as a well-behaved OpenAI-compatible server would."""
    await _choose(exchange)(exchange)


def _choose(exchange: Exchange) -> Behaviour:
    path = exchange.request.path.removeprefix("/v1")
    if path == "/models":
        return answer({"object": "list", "data": [_model(name) for name in MODELS]})
    if path.startswith("/models/"):
        return answer(_model(path.removeprefix("/models/")))
    body = exchange.request.json if exchange.request.body else {}
    model = str(body.get("model"))
    if path == "/chat/completions":
        return _chat(body, model)
    if path == "/completions":
        choice = {"index": 0, "text": ANSWER, "finish_reason": "stop", "logprobs": None}
        return answer(
            {
                "id": "cmpl-1",
                "object": "text_completion",
                "created": STAMP,
                "model": model,
                "choices": [choice],
                "usage": USAGE,
            }
        )
    if path == "/embeddings":
        return _embeddings(body, model)
    if path == "/moderations":
        verdict = {"flagged": False, "categories": {}, "category_scores": {}, "category_applied_input_types": {}}
        return answer({"id": "modr-1", "model": model, "results": [verdict]})
    return failure(404, f"no such path {path}", code="unknown_url")


def _chat(body: Tree, model: str) -> Behaviour:
    if not body.get("stream"):
        return answer(completion(model=model))
    options = body.get("stream_options")
    wanted = isinstance(options, dict) and options.get("include_usage") is True
    return stream([*words(model=model), *([usage_event(model)] if wanted else []), DONE])


def _embeddings(body: Tree, model: str) -> Behaviour:
    vector: object = list(VECTOR)
    if body.get("encoding_format") == "base64":
        vector = base64.b64encode(struct.pack(f"<{len(VECTOR)}f", *VECTOR)).decode()
    texts = body.get("input")
    count = len(texts) if isinstance(texts, list) else 1
    data = [{"object": "embedding", "index": index, "embedding": vector} for index in range(count)]
    return answer({"object": "list", "data": data, "model": model, "usage": {"prompt_tokens": 11, "total_tokens": 11}})


def _model(name: str) -> Tree:
    return {"id": name, "object": "model", "created": STAMP, "owned_by": "fake"}
