"""Chat chunks, requests and answers that the tests of this dialect begin with."""

import json
from typing import Any

import orjson

from agw_proxy.dialects.base import BlockStart, Event, Losses, Part, Shown, ToolUse
from agw_proxy.dialects.features import decide
from agw_proxy.dialects.openai_chat_streams import Reader, Writer
from agw_proxy.dialects.sse import Events
from tests.dialects.grammar_chat import check

SHOWN = Shown(id="abc123", model="asked-for", now=1_700_000_000, include_usage=True)
PIXEL = "iVBORw0KGgo="


def chunk(delta: Any = None, reason: str | None = None, **members: Any) -> bytes:
    """One chunk of an upstream."""
    choice = {"index": 0, "delta": {} if delta is None else delta, "finish_reason": reason}
    head = {"id": "up-1", "object": "chat.completion.chunk", "created": 1_600_000_000, "model": "up-model"}
    return orjson.dumps({**head, "choices": [choice], **members})


def usage_chunk(prompt: int, completion: int) -> bytes:
    usage = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    return orjson.dumps({"id": "up-1", "choices": [], "usage": usage})


def call(
    index: int | None = 0, identity: str | None = None, name: str | None = None, arguments: str | None = None
) -> Any:
    """A delta with a piece of one tool call; what is None is not there."""
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    tree: dict[str, Any] = {"function": function}
    if index is not None:
        tree["index"] = index
    if identity is not None:
        tree |= {"id": identity, "type": "function"}
    return {"tool_calls": [tree]}


def read(*chunks: bytes, done: bool = True) -> list[Event]:
    """All events of a stream."""
    reader = Reader()
    events = [event for data in chunks for event in reader.read("", data)]
    if done:
        events += reader.read("", b"[DONE]")
    return events + reader.end()


def write(events: list[Event], shown: Shown = SHOWN) -> list[tuple[str, bytes]]:
    """The frames that they make."""
    writer = Writer(shown)
    return Events().feed(b"".join(writer.write(event) for event in events))


def losses() -> Losses:
    return Losses("chat", decide)


def chosen(frames: list[tuple[str, bytes]], member: str) -> list[Any]:
    """What the deltas say under one name."""
    trees = [json.loads(data) for _, data in frames if data != b"[DONE]"]
    deltas = [choice["delta"] for tree in trees for choice in tree.get("choices", [])]
    return [delta[member] for delta in deltas if member in delta]


def uses(events: list[Event]) -> list[tuple[str, str, str]]:
    """(id, name, arguments) of the tool calls in a sequence, which must be grammatical."""
    check(write(events))
    found: list[tuple[str, str, str]] = []
    for event in events:
        if isinstance(event, BlockStart) and isinstance(event.block, ToolUse):
            found.append((event.block.id, event.block.name, ""))
        elif isinstance(event, Part) and found:
            found[-1] = (*found[-1][:2], found[-1][2] + event.text)
    return found
