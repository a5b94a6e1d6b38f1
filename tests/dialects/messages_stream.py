"""One whole stream of the Messages API, as it stands on the wire and as events, and what reads and writes such."""

from typing import Any

import orjson

from agw_proxy.dialects.anthropic_messages_streams import Reader, Writer
from agw_proxy.dialects.base import (
    Beat,
    BlockStart,
    BlockStop,
    Citation,
    Event,
    Finish,
    Part,
    Shown,
    Signature,
    Start,
    Text,
    Thinking,
    Tokens,
    ToolUse,
)
from tests.dialects.grammar_messages import check, frames
from tests.dialects.test_anthropic_messages_answers import CITED

SHOWN = Shown("a1", "fast", 1)


def message_start(**usage: int) -> dict[str, Any]:
    return {
        "type": "message_start",
        "message": {"id": "msg_1", "model": "claude", "usage": usage or {"input_tokens": 5}},
    }


def begin(index: int, kind: str, **members: Any) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": {"type": kind, **members}}


def delta(index: int, kind: str, **members: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": {"type": kind, **members}}


def stop(index: int) -> dict[str, Any]:
    return {"type": "content_block_stop", "index": index}


def message_delta(reason: str = "end_turn", **usage: int) -> dict[str, Any]:
    return {"type": "message_delta", "delta": {"stop_reason": reason}, "usage": usage or {"output_tokens": 9}}


MESSAGE_STOP = {"type": "message_stop"}
WHOLE = [
    message_start(input_tokens=5, cache_read_input_tokens=11, cache_creation_input_tokens=7, output_tokens=1),
    {"type": "ping"},
    begin(0, "thinking", thinking="", signature=""),
    delta(0, "thinking_delta", thinking="hm"),
    delta(0, "signature_delta", signature="c2ln"),
    stop(0),
    begin(1, "redacted_thinking", data="ZGF0YQ"),
    stop(1),
    begin(2, "text", text=""),
    delta(2, "text_delta", text="Ye"),
    delta(2, "text_delta", text="s."),
    delta(2, "citations_delta", citation=CITED),
    stop(2),
    begin(3, "tool_use", id="toolu_1", name="see", input={}),
    delta(3, "input_json_delta", partial_json=""),
    delta(3, "input_json_delta", partial_json='{"x":'),
    delta(3, "input_json_delta", partial_json="1}"),
    stop(3),
    message_delta("tool_use", output_tokens=13),
    MESSAGE_STOP,
]
EVENTS: list[Event] = [
    Start("msg_1", "claude", tokens=Tokens(23, 1, 11, 7)),
    Beat(),
    BlockStart(0, Thinking()),
    Part("hm"),
    Signature("agw:messages:c2ln"),
    BlockStop(),
    BlockStart(1, Thinking(signature="agw:messages:ZGF0YQ", hidden=True)),
    BlockStop(),
    BlockStart(2, Text("")),
    Part("Ye"),
    Part("s."),
    Citation(CITED),
    BlockStop(),
    BlockStart(3, ToolUse("toolu_1", "see")),
    Part('{"x":'),
    Part("1}"),
    BlockStop(),
    Finish("tool", Tokens(23, 13, 11, 7)),
]


def read(*trees: Any, end: bool = True) -> list[Event]:
    """All events of a stream; each writer of this dialect takes them."""
    reader = Reader()
    found = [event for tree in trees for event in reader.read(tree.get("type", ""), orjson.dumps(tree))]
    found += reader.end() if end else []
    if end:
        check(frames(write(*found)))
    return found


def write(*events: Event) -> bytes:
    writer = Writer(SHOWN)
    return b"".join(writer.write(event) for event in events)


def trees(*events: Event) -> list[Any]:
    found = frames(write(*events))
    check(found)
    return [orjson.loads(data) for _, data in found]
