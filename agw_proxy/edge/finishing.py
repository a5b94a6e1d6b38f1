"""Ends a stream well-formed before its upstream does, where a budget has no more for it.

Whole events pass one by one; each is read for what is open (choices, items, content blocks), so that the end closes
exactly that. To the caller's SDK it is an answer that was cut at its longest length; the last event says why in a
member ``agw`` of its own.
"""

from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
import orjson

from agw_proxy._hot.limit import Rule

STEP_TOKENS = 256  # as the reservation's first step
BYTES_PER_TOKEN = 4  # of an event's text, which may be of several tokens
BOUNDARIES = (b"\r\n\r\n", b"\n\n", b"\r\r")
Tree = dict[str, Any]


class Ending(msgspec.Struct, frozen=True):
    """Why it ends, and what had come by then."""

    rule: str
    reason: str
    """``budget``, or ``limit`` where another rule in money refuses."""
    prompt_tokens: int
    completion_tokens: int


class Finisher:
    """One stream. ``finished`` is set once it was ended here."""

    def __init__(
        self,
        endpoint: str,
        more: Callable[[int], Coroutine[None, None, Rule | None]],
        *,
        prompt_tokens: int,
        reason: Callable[[Rule], str],
        usage_wanted: bool,
    ) -> None:
        """``more`` reserves so many tokens more, or gives the rule that refuses. ``usage_wanted``: by the caller."""
        self._book = BOOKS[endpoint](usage_wanted)
        self._more = more
        self._reason = reason
        self._prompt = prompt_tokens
        self._held = b""
        self._reserved = STEP_TOKENS
        self.tokens = 0
        self.finished: Ending | None = None

    async def push(self, chunk: bytes) -> bytes:
        """What may go out of what has come: whole events, and after the last one that is paid for the end."""
        data = self._held + chunk
        at = 0
        while not self._book.closed:
            end = boundary(data, at)
            if end < 0:
                break
            event = data[at:end]
            at = end
            self.tokens += self._read(event)
            if self.tokens >= self._reserved and not self._book.closed:
                rule = await self._more(STEP_TOKENS)
                if rule is not None:
                    ending = Ending(rule.name, self._reason(rule), self._prompt, self.tokens)
                    self.finished = ending
                    return data[:at] + self._book.end(ending)
                self._reserved += STEP_TOKENS
        if self._book.closed:
            at = len(data)
        self._held = data[at:]
        return data[:at]

    def _read(self, event: bytes) -> int:
        try:
            return self._book.read(event)
        except (AttributeError, TypeError, ValueError):
            return 1  # an event of no form that we know: the client's to make something of

    def rest(self) -> bytes:
        """What is held of an event that has not ended; the stream has."""
        held, self._held = self._held, b""
        return held


def boundary(data: bytes, at: int) -> int:
    """Where the event at ``at`` ends, behind its blank line; -1 where it has not."""
    ends = [found + len(mark) for mark in BOUNDARIES if (found := data.find(mark, at)) >= 0]
    return min(ends, default=-1)


def data_of(event: bytes) -> Tree | None:
    """The JSON object of an event; None for all others (comments, ``[DONE]``)."""
    lines = [line[5:].lstrip(b" ") for line in event.splitlines() if line.startswith(b"data:")]
    try:
        tree = orjson.loads(b"\n".join(lines))
    except orjson.JSONDecodeError:
        return None
    return tree if isinstance(tree, dict) else None


def written(tree: Tree, name: str | None = None) -> bytes:
    """An event."""
    head = b"" if name is None else b"event: " + name.encode() + b"\n"
    return head + b"data: " + orjson.dumps(tree) + b"\n\n"


def told(ending: Ending) -> Tree:
    """What a machine may read of the reason."""
    return {"reason": ending.reason, "rule": ending.rule}


def tokens_in(text: object) -> int:
    """Of a piece of an answer: at least one where there is any text."""
    return (
        max(len(text.encode("utf-8", "surrogatepass")) // BYTES_PER_TOKEN, 1) if isinstance(text, str) and text else 0
    )


class Chat:
    """Chat completions, and the older text completions."""

    def __init__(self, usage_wanted: bool) -> None:
        self.closed = False
        self._usage_wanted = usage_wanted
        self._last: Tree = {}
        self._open: set[int] = set()
        self._seen: set[int] = set()

    def read(self, event: bytes) -> int:
        """Take an event in; how many tokens it brings."""
        tree = data_of(event)
        if tree is None:
            self.closed = self.closed or b"[DONE]" in event
            return 0
        self._last = {name: tree[name] for name in ("id", "object", "created", "model") if name in tree}
        tokens = 0
        for choice in tree.get("choices") or ():
            index = choice.get("index", 0)
            self._seen.add(index)
            self._open.add(index)
            if choice.get("finish_reason"):
                self._open.discard(index)
            tokens += tokens_in(choice.get("text")) + _delta_tokens(choice.get("delta"))
        self.closed = bool(self._seen) and not self._open
        return tokens

    def end(self, ending: Ending) -> bytes:
        """The rest of the stream."""
        old = self._last.get("object") == "text_completion"
        part: Tree = {"text": "", "logprobs": None} if old else {"delta": {}}
        choices = [{"index": index, **part, "finish_reason": "length"} for index in sorted(self._open)]
        out = written({**self._last, "choices": choices, "agw": told(ending)})
        if self._usage_wanted:
            used = {"prompt_tokens": ending.prompt_tokens, "completion_tokens": ending.completion_tokens}
            usage = {**used, "total_tokens": ending.prompt_tokens + ending.completion_tokens}
            out += written({**self._last, "choices": [], "usage": usage})
        return out + b"data: [DONE]\n\n"


def _delta_tokens(delta: object) -> int:
    if not isinstance(delta, dict):
        return 0
    tokens = sum(tokens_in(delta.get(name)) for name in ("content", "refusal", "reasoning_content", "reasoning"))
    for call in delta.get("tool_calls") or ():
        function = call.get("function") if isinstance(call, dict) else None
        if isinstance(function, dict):
            tokens += tokens_in(function.get("name")) + tokens_in(function.get("arguments"))
    return tokens


class Messages:
    """Anthropic's Messages."""

    def __init__(self, usage_wanted: bool) -> None:  # noqa: ARG002  it is always told
        self.closed = False
        self._open: set[int] = set()
        self._usage: Tree = {}

    def read(self, event: bytes) -> int:
        """Take an event in; how many tokens it brings."""
        tree = data_of(event) or {}
        kind = tree.get("type")
        if kind == "message_start":
            self._usage = dict((tree.get("message") or {}).get("usage") or {})
        elif kind == "content_block_start":
            self._open.add(tree.get("index", 0))
        elif kind == "content_block_stop":
            self._open.discard(tree.get("index", 0))
        elif kind in {"message_delta", "message_stop", "error"}:
            self.closed = True
        elif kind == "content_block_delta":
            delta = tree.get("delta") or {}
            return sum(tokens_in(delta.get(name)) for name in ("text", "thinking", "partial_json"))
        return 0

    def end(self, ending: Ending) -> bytes:
        """The rest of the stream."""
        out = b"".join(
            written({"type": "content_block_stop", "index": index}, "content_block_stop")
            for index in sorted(self._open)
        )
        last = {
            "type": "message_delta",
            "delta": {"stop_reason": "max_tokens", "stop_sequence": None},
            "usage": {**self._usage, "output_tokens": ending.completion_tokens},
            "agw": told(ending),
        }
        return out + written(last, "message_delta") + written({"type": "message_stop"}, "message_stop")


class Responses:
    """OpenAI's Responses: the items that are open are closed as incomplete, with what came of them."""

    def __init__(self, usage_wanted: bool) -> None:  # noqa: ARG002  it is always told
        self.closed = False
        self._response: Tree = {}
        self._items: dict[int, Tree] = {}
        self._open: set[int] = set()
        self._parts: dict[tuple[int, int], Tree] = {}
        self._number = -1

    def read(self, event: bytes) -> int:
        """Take an event in; how many tokens it brings."""
        tree = data_of(event) or {}
        kind = str(tree.get("type", ""))
        self._number = max(self._number, int(tree.get("sequence_number", self._number + 1)))
        at = int(tree.get("output_index", 0))
        place = (at, int(tree.get("content_index", 0)))
        delta = tree.get("delta")
        if kind in {"response.created", "response.in_progress"}:
            self._response = tree.get("response") or self._response
        elif kind in {"response.completed", "response.incomplete", "response.failed", "error"}:
            self.closed = True
        elif kind == "response.output_item.added":
            self._items[at] = dict(tree.get("item") or {})
            self._open.add(at)
        elif kind == "response.output_item.done":
            self._items[at] = dict(tree.get("item") or {})
            self._open.discard(at)
            self._parts = {key: part for key, part in self._parts.items() if key[0] != at}
        elif kind == "response.content_part.added":
            self._parts[place] = dict(tree.get("part") or {})
        elif kind == "response.output_text.delta":
            part = self._parts.setdefault(place, {"type": "output_text", "text": "", "annotations": []})
            part["text"] = str(part.get("text", "")) + str(delta)
        elif kind == "response.content_part.done":
            self._parts[place] = {**dict(tree.get("part") or {}), "_done": True}
        elif kind == "response.function_call_arguments.delta":
            item = self._items.setdefault(at, {"type": "function_call", "arguments": ""})
            item["arguments"] = str(item.get("arguments", "")) + str(delta)
        return tokens_in(delta) if kind.endswith(".delta") else 0

    def end(self, ending: Ending) -> bytes:
        """The rest of the stream."""
        out = b"".join(self._close(at) for at in sorted(self._open))
        usage = {
            "input_tokens": ending.prompt_tokens,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": ending.completion_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": ending.prompt_tokens + ending.completion_tokens,
        }
        response = {
            **self._response,
            "status": "incomplete",
            "incomplete_details": {"reason": "max_output_tokens"},
            "output": [self._items[at] for at in sorted(self._items)],
            "usage": usage,
            "agw": told(ending),
        }
        return out + self._event("response.incomplete", {"response": response})

    def _close(self, at: int) -> bytes:
        item = self._items[at]
        identity = {"item_id": item.get("id", ""), "output_index": at}
        out = b""
        parts = [(key[1], part) for key, part in sorted(self._parts.items()) if key[0] == at]
        for index, part in parts:
            if part.pop("_done", False):
                continue
            place = {**identity, "content_index": index}
            if part.get("type") == "output_text":
                text = {**place, "text": part.get("text", ""), "logprobs": []}
                out += self._event("response.output_text.done", text)
            out += self._event("response.content_part.done", {**place, "part": part})
        if parts and item.get("type") == "message":
            item["content"] = [part for _, part in parts]
        elif item.get("type") == "function_call":
            arguments = {**identity, "arguments": item.get("arguments", ""), "name": item.get("name", "")}
            out += self._event("response.function_call_arguments.done", arguments)
        item["status"] = "incomplete"
        return out + self._event("response.output_item.done", {"output_index": at, "item": item})

    def _event(self, kind: str, members: Tree) -> bytes:
        self._number += 1
        return written({"type": kind, "sequence_number": self._number, **members}, kind)


class Gemini:
    """Google's: each event is an answer of its own, so that the end is one more."""

    def __init__(self, usage_wanted: bool) -> None:  # noqa: ARG002  it is always told
        self.closed = False
        self._last: Tree = {}

    def read(self, event: bytes) -> int:
        """Take an event in; how many tokens it brings."""
        tree = data_of(event) or {}
        self._last = {name: tree[name] for name in ("responseId", "modelVersion") if name in tree}
        self.closed = "error" in tree
        tokens = 0
        for candidate in tree.get("candidates") or ():
            self.closed = self.closed or bool(candidate.get("finishReason"))
            for part in (candidate.get("content") or {}).get("parts") or ():
                call = part.get("functionCall")
                tokens += tokens_in(part.get("text")) + (tokens_in(orjson.dumps(call).decode()) if call else 0)
        return tokens

    def end(self, ending: Ending) -> bytes:
        """The rest of the stream."""
        parts = {"role": "model", "parts": [{"text": ""}]}
        used = {
            "promptTokenCount": ending.prompt_tokens,
            "candidatesTokenCount": ending.completion_tokens,
            "totalTokenCount": ending.prompt_tokens + ending.completion_tokens,
        }
        last = {"candidates": [{"content": parts, "finishReason": "MAX_TOKENS", "index": 0}], "usageMetadata": used}
        return written({**last, **self._last, "agw": told(ending)})


BOOKS: dict[str, Callable[[bool], Chat | Messages | Responses | Gemini]] = {
    "chat_completions": Chat,
    "completions": Chat,
    "messages": Messages,
    "responses": Responses,
    "gemini": Gemini,
}
"""By endpoint: those whose streams can be ended."""
