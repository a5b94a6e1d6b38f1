"""The grammar of a Messages stream, as a checker that every test of a stream can run.

Anthropic API reference, "Streaming Messages"; each event also has to be what the official SDK's models say, with nothing that
they do not name.
"""

from typing import Any

import orjson
from anthropic.types import RawMessageStreamEvent
from anthropic.types.shared import ErrorResponse
from pydantic import TypeAdapter, ValidationError

_EVENTS: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)
_ERRORS: TypeAdapter[Any] = TypeAdapter(ErrorResponse)
_DELTAS = {
    "text": {"text_delta", "citations_delta"},
    "thinking": {"thinking_delta", "signature_delta"},
    "tool_use": {"input_json_delta"},
    "redacted_thinking": set(),
}
USAGE = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens", "output_tokens")


def frames(stream: bytes) -> list[tuple[str, bytes]]:
    """The events of a stream's bytes, comments left out."""
    found = []
    assert stream == b"" or stream.endswith(b"\n\n"), "the last event is not whole"
    for text in stream.split(b"\n\n"):
        if text == b"" or text.startswith(b":"):
            continue
        lines = text.split(b"\n")
        assert len(lines) == 2, f"not an event line and a data line: {text!r}"
        assert lines[0].startswith(b"event: "), f"no event line: {text!r}"
        assert lines[1].startswith(b"data: "), f"no data line: {text!r}"
        found.append((lines[0][7:].decode(), lines[1][6:]))
    return found


def check(frames: list[tuple[str, bytes]]) -> None:
    """Raise AssertionError that names the first broken event. A stream may end in ``error``, or in ``message_stop``."""
    state = _State()
    for position, (name, data) in enumerate(frames):
        here = f"event {position} ({name})"
        tree = orjson.loads(data)
        assert tree.get("type") == name, f"{here}: its type is {tree.get('type')}"
        assert not state.over, f"{here}: comes after the end"
        try:
            _step(state, name, tree)
        except (AssertionError, ValidationError, KeyError) as error:
            raise AssertionError(f"{here}: {error}: {data!r}") from error
    assert state.over, "the stream has no end"


class _State:
    def __init__(self) -> None:
        self.begun = self.reasoned = self.over = False
        self.index = 0
        self.block: str | None = None
        self.json = ""
        self.usage: dict[str, int] = {}
        self.called = False


def _step(state: _State, name: str, tree: Any) -> None:
    if name == "ping":
        assert tree == {"type": "ping"}
        assert state.begun, "before message_start"
        return
    if name == "error":
        _ERRORS.validate_python(tree, extra="forbid")
        assert isinstance(tree["request_id"], str)
        state.over = True
        return
    _EVENTS.validate_python(tree, strict=True, extra="forbid")
    if name == "message_start":
        assert not state.begun, "a second one"
        message = tree["message"]
        assert message["content"] == []
        assert message["stop_reason"] is None
        state.begun = True
        _cumulate(state, message["usage"])
        assert set(USAGE) <= state.usage.keys()
        return
    assert state.begun, "before message_start"
    if name == "content_block_start":
        assert not state.reasoned, "after message_delta"
        assert state.block is None, "while another is open"
        assert tree["index"] == state.index, f"index {state.index} was due"
        state.block, state.json = tree["content_block"]["type"], ""
        if state.block == "tool_use":
            state.called = True
            assert tree["content_block"]["input"] == {}
            assert tree["content_block"]["id"], "a call without an id"
    elif name == "content_block_delta":
        assert tree["index"] == state.index, f"block {state.index} was due"
        assert state.block is not None, "no block is open"
        kind = tree["delta"]["type"]
        assert kind in _DELTAS[state.block], f"not for a block of {state.block}"
        state.json += tree["delta"].get("partial_json", "")
    elif name == "content_block_stop":
        assert state.block is not None, "no block is open"
        assert tree["index"] == state.index, f"block {state.index} was due"
        state.block = None
        state.index += 1
    elif name == "message_delta":
        assert state.block is None, "a block is still open"
        assert not state.reasoned, "a second one"
        assert tree["delta"]["stop_reason"] is not None
        assert (tree["delta"]["stop_reason"] == "stop_sequence") or tree["delta"]["stop_sequence"] is None
        _cumulate(state, tree["usage"])
        state.reasoned = True
    else:
        assert name == "message_stop"
        assert state.reasoned, "before message_delta"
        state.over = True


def _cumulate(state: _State, usage: dict[str, Any]) -> None:
    for name in USAGE:
        if usage.get(name) is not None:
            assert usage[name] >= 0, f"{name} is below zero"
            # Before the end, an upstream of another dialect knows no counts: 0 is its "not yet".
            assert usage[name] >= state.usage.get(name, 0) or name != "output_tokens", f"{name} shrinks"
            state.usage[name] = usage[name]
