"""Puts two dialects together: a request into the target's form, and its answer, stream or error back into the caller's."""

from types import ModuleType
from typing import NamedTuple

import msgspec
import orjson

from agw_proxy.config.presets import Quirks
from agw_proxy.config.values import Form, Spoken
from agw_proxy.dialects import (
    anthropic_messages_answers,
    anthropic_messages_requests,
    anthropic_messages_streams,
    gemini_answers,
    gemini_requests,
    gemini_streams,
    openai_chat_answers,
    openai_chat_requests,
    openai_chat_streams,
    openai_completions,
    openai_responses_answers,
    openai_responses_requests,
    openai_responses_streams,
    tool_names,
)
from agw_proxy.dialects.base import Answer, Losses, Malformed, Reader, Request, Shown, Tree, Untranslatable, Writer
from agw_proxy.dialects.boxed import Opening, boxed, boxes, opened
from agw_proxy.dialects.features import decide
from agw_proxy.dialects.halves import Halves
from agw_proxy.dialects.json_words import worded
from agw_proxy.dialects.strictness import loosened


class _Parts(NamedTuple):
    requests: ModuleType
    answers: ModuleType
    streams: ModuleType


_PARTS: dict[Form, _Parts] = {
    "chat": _Parts(openai_chat_requests, openai_chat_answers, openai_chat_streams),
    "responses": _Parts(openai_responses_requests, openai_responses_answers, openai_responses_streams),
    "messages": _Parts(anthropic_messages_requests, anthropic_messages_answers, anthropic_messages_streams),
    "gemini": _Parts(gemini_requests, gemini_answers, gemini_streams),
    "completions": _Parts(openai_completions, openai_completions, openai_completions),  # a caller's form only
}


class Written(NamedTuple):
    """A request in the target's form. ``dropped``: what it has lost on the way."""

    body: bytes
    dropped: tuple[str, ...]


def read_request(form: Form, body: bytes) -> Request:
    """Read a caller's request; one in Google's form has model, stream and counts in front. Raises Malformed, Untranslatable."""
    tree = orjson.loads(body)
    if not isinstance(tree, dict):
        raise Malformed("The request is not a JSON object.")
    if form == "gemini":
        model, stream = str(tree.pop("model", "")), tree.pop("stream", False) is True
        tree.pop("max_tokens", None)
        tree.pop("n", None)
        return gemini_requests.read_request(tree, model, stream)
    found: Request = _PARTS[form].requests.read_request(tree)
    return found


def write_request(request: Request, target: Spoken, model: str, quirks: Quirks, *, ask_usage: bool = True) -> Written:
    """Write it for a target that calls the model ``model``. Raises Untranslatable."""
    losses = Losses(target, decide)
    asked = boxed(tool_names.renamed(msgspec.structs.replace(request, model=model), target), target)
    asked = worded(asked, target, losses, schemas=quirks.schemas)
    asked = loosened(asked, target, losses)
    if target == "chat":
        tree = openai_chat_requests.write_request(
            asked,
            losses,
            max_tokens_name=quirks.max_tokens,
            reasoning_name=quirks.reasoning,
            id_letters=quirks.id_letters,
        )
        if not (quirks.asks_usage and ask_usage):
            tree.pop("stream_options", None)
    else:
        tree = _PARTS[target].requests.write_request(asked, losses)
    for name in quirks.omits:
        if tree.pop(name, None) is not None and name != "stream_options" and name not in losses.dropped:
            losses.dropped.append(name)
    return Written(_dumped(tree), tuple(losses.dropped))


def _dumped(tree: Tree) -> bytes:
    try:
        return orjson.dumps(tree)
    except orjson.JSONEncodeError:
        raise Untranslatable("The request is nested too deeply to be translated.") from None


def read_answer(spoken: Spoken, body: bytes, shown: Shown) -> Answer:
    """A whole answer of an upstream that speaks ``spoken``. Raises Malformed."""
    try:
        tree = Halves().loads(body)
    except orjson.JSONDecodeError:
        raise Malformed("The answer is no JSON.") from None
    if not isinstance(tree, dict):
        raise Malformed("The answer is not a JSON object.")
    if spoken == "responses" and not isinstance(tree.get("output"), list):
        raise Malformed("The answer has no output.")  # it would read as one that says nothing
    found: Answer = _PARTS[spoken].answers.read_answer(tree)
    if boxes(shown.request, spoken):
        found = opened(found)
    return tool_names.restored(found, tool_names.own_names(shown.request, spoken))


def answer(spoken: Spoken, form: Form, body: bytes, shown: Shown) -> bytes:
    """The same for a caller who speaks ``form``. Raises Malformed."""
    made: Tree = _PARTS[form].answers.write_answer(read_answer(spoken, body, shown), shown)
    return orjson.dumps(made)


def fault(spoken: Spoken, form: Form, status: int, body: bytes, request_id: str) -> bytes:
    """An error answer likewise; of any bytes."""
    made: Tree = _PARTS[form].answers.write_fault(_PARTS[spoken].answers.read_fault(status, body), request_id)
    return orjson.dumps(made)


def reader(spoken: Spoken, request: Request | None = None) -> Reader:
    """What reads a stream of an upstream. ``request``: what it answers, by which its tools are called."""
    made: Reader = _PARTS[spoken].streams.Reader()
    if boxes(request, spoken):
        made = Opening(made)
    names = tool_names.own_names(request, spoken)
    return tool_names.Restoring(made, names) if names else made


def writer(form: Form, shown: Shown) -> Writer:
    """What writes a stream to a caller."""
    made: Writer = _PARTS[form].streams.Writer(shown)
    return made
