from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agw_proxy.dialects.anthropic_messages_streams import Reader
from agw_proxy.dialects.base import (
    Beat,
    BlockStart,
    BlockStop,
    Fault,
    Finish,
    Part,
    Refusal,
    Start,
    Text,
    Tokens,
    ToolUse,
)
from tests.dialects.messages_stream import (
    EVENTS,
    MESSAGE_STOP,
    WHOLE,
    begin,
    delta,
    message_delta,
    message_start,
    read,
    stop,
)


def test_a_whole_stream_is_read() -> None:
    assert read(*WHOLE) == EVENTS


def test_why_the_model_declines_comes_at_the_end() -> None:
    details = {"type": "refusal", "category": None, "explanation": "I cannot."}
    begun = [message_start(), begin(0, "text", text=""), delta(0, "text_delta", text="Well"), stop(0)]
    end = {"type": "message_delta", "delta": {"stop_reason": "refusal", "stop_details": details}, "usage": {}}
    words = [BlockStart(0, Text("")), Part("Well"), BlockStop()]
    declined = [BlockStart(1, Refusal("")), Part("I cannot."), BlockStop()]
    found = read(*begun, end, MESSAGE_STOP)
    assert found[1:-1] == [*words, *declined]
    assert isinstance(found[-1], Finish)
    assert found[-1].stop == "refusal"
    assert read(*begun, message_delta("refusal"), MESSAGE_STOP)[1:-1] == words


def test_nothing_comes_after_the_end() -> None:
    reader = Reader()
    assert [event for tree in WHOLE for event in reader.read("", orjson.dumps(tree))] == EVENTS
    assert reader.end() == []
    assert reader.read("error", b'{"type":"error"}') == []


@pytest.mark.parametrize("length", range(len(WHOLE) - 2))
def test_a_stream_that_was_cut_has_no_finish(length: int) -> None:
    found = read(*WHOLE[:length])
    assert isinstance(found[-1], Fault)
    assert not any(isinstance(event, Finish) for event in found)


def test_only_the_last_event_may_be_missing() -> None:
    assert read(*WHOLE[:-1]) == EVENTS


def test_blocks_that_overlap_are_put_one_after_the_other() -> None:
    found = read(
        message_start(),
        begin(0, "text", text=""),
        begin(1, "tool_use", id="t", name="f", input={}),
        delta(1, "input_json_delta", partial_json="{"),
        delta(0, "text_delta", text="a"),
        begin(2, "tool_use", id="u", name="g", input={}),
        delta(1, "input_json_delta", partial_json="}"),
        stop(1),
        delta(2, "input_json_delta", partial_json="[]"),
        delta(0, "text_delta", text="b"),
        stop(0),
        message_delta("tool_use"),
        MESSAGE_STOP,
    )
    assert found[1:-1] == [
        BlockStart(0, Text("")), Part("a"), Part("b"), BlockStop(),
        BlockStart(1, ToolUse("t", "f")), Part("{"), Part("}"), BlockStop(),
        BlockStart(2, ToolUse("u", "g")), Part("[]"), BlockStop(),
    ]  # fmt: skip


def test_what_well_meaning_upstreams_leave_out_is_found() -> None:
    found = read(
        {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "a"}},
        {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "b"}},
        {
            "type": "content_block_start",
            "content_block": {"type": "tool_use", "id": "t", "name": "f", "input": {"x": 1}},
        },
        {"type": "content_block_stop"},
        {"type": "content_block_stop"},
        MESSAGE_STOP,
    )
    assert found == [
        Start("", ""), BlockStart(0, Text("")), Part("a"), Part("b"), BlockStop(),
        BlockStart(1, ToolUse("t", "f")), Part('{"x":1}'), BlockStop(), Finish("tool", Tokens()),
    ]  # fmt: skip


def test_an_input_is_not_told_twice() -> None:
    call = begin(0, "tool_use", id="t", name="f", input={"x": 1})
    part = delta(0, "input_json_delta", partial_json='{"x": 1}')
    parts = [event for event in read(message_start(), call, part, MESSAGE_STOP) if isinstance(event, Part)]
    assert parts == [Part('{"x": 1}')]


def test_blocks_of_server_tools_are_passed_over() -> None:
    found = read(
        message_start(),
        begin(0, "server_tool_use", id="s", name="web_search", input={}),
        delta(0, "input_json_delta", partial_json="{}"),
        stop(0),
        begin(1, "text", text="first"),
        stop(1),
        message_delta(),
        MESSAGE_STOP,
        {"type": "content_block_start"},
    )
    assert found[1:-1] == [BlockStart(0, Text("")), Part("first"), BlockStop()]


def test_doubled_events_are_taken_once() -> None:
    twice = [tree for tree in WHOLE for _ in range(1 if tree["type"] == "content_block_delta" else 2)]
    found = [event for event in read(*twice) if not isinstance(event, Beat)]
    assert found == [event for event in EVENTS if not isinstance(event, Beat)]


def test_usage_is_cumulative() -> None:
    late = message_delta("max_tokens", input_tokens=40, cache_read_input_tokens=2, output_tokens=9)
    found = read(
        message_start(input_tokens=0, output_tokens=0),
        late,
        message_delta("max_tokens", output_tokens=12),
        MESSAGE_STOP,
    )
    assert found[-1] == Finish("length", Tokens(42, 12, 2, 0))
    none = read({"type": "message_start", "message": {"id": "m"}}, message_delta(output_tokens=3), MESSAGE_STOP)
    assert none == [Start("m", ""), Finish("stop", Tokens(-1, 3))]


@pytest.mark.parametrize(
    ("trees", "kind"),
    [
        ([{"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}], "overloaded_error"),
        ([{"type": "error"}], "api_error"),
        ([delta(0, "input_json_delta", partial_json="{")], "api_error"),
        ([begin(0, "text", text=""), stop(0), delta(0, "text_delta", text="x")], "api_error"),
        ([begin(0, "text", text=""), delta(0, "thinking_delta", thinking="x")], "api_error"),
        ([begin(0, "text", text=""), delta(0, "text_delta", text=7)], "api_error"),
        ([{"type": "content_block_start", "index": 0}], "api_error"),
        ([{"type": "content_block_delta", "index": 0}], "api_error"),
        ([{"type": "content_block_start", "index": "0", "content_block": {}}], "api_error"),
        ([begin(0, "tool_use", id="t", input={})], "api_error"),
        ([begin(0, "tool_use", name="f", input={})], "api_error"),
        ([begin(number, "text", text="") for number in range(4097)], "api_error"),
    ],
)
def test_errors_and_what_cannot_be_read_are_faults(trees: list[Any], kind: str) -> None:
    found = read(message_start(), *trees)
    assert isinstance(found[-1], Fault)
    assert found[-1].kind == kind


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'"x"', b"\xff", b"null"])
def test_what_is_no_json_object_is_a_fault(data: bytes) -> None:
    reader = Reader()
    assert isinstance(reader.read("content_block_delta", data)[0], Fault)
    assert reader.end() == []


def test_foreign_habits_are_passed_over() -> None:
    reader = Reader()
    assert reader.read("", b"[DONE]") == []
    assert reader.read("of_tomorrow", b"{}") == []


KINDS = [
    "message_start",
    "content_block_start",
    "content_block_delta",
    "content_block_stop",
    "message_delta",
    "message_stop",
]
LEAF = (
    st.none()
    | st.integers(-1, 3)
    | st.sampled_from(["", "text", "tool_use", "thinking", "text_delta", "thinking_delta"])
)
NAMES = st.sampled_from(
    ["type", "text", "index", "delta", "content_block", "usage", "message", "input_tokens", "input"]
)
ODD = st.dictionaries(
    NAMES, st.recursive(LEAF, lambda inner: st.dictionaries(NAMES, inner) | st.lists(inner)), max_size=4
)
GOOD = st.sampled_from(WHOLE)


@given(st.lists(GOOD | st.builds(lambda kind, tree: {**tree, "type": kind}, st.sampled_from(KINDS), ODD), max_size=15))
def test_whatever_comes_the_events_keep_to_the_grammar(stream: list[Any]) -> None:
    read(*stream)


@pytest.mark.parametrize("kind", ["", None, 1])
def test_a_part_without_a_type_is_not_passed_over(kind: object) -> None:
    part = {"type": "content_block_delta", "index": 0, "delta": {"type": kind, "partial_json": "{}"}}
    found = read(message_start(), begin(0, "tool_use", id="a", name="f", input={}), part)
    assert isinstance(found[-1], Fault)


@pytest.mark.parametrize("kind", ["", None, 1])
def test_a_block_without_a_type_is_not_passed_over(kind: object) -> None:
    block = {"type": kind, "id": "a", "name": "f", "input": {}}
    found = read(message_start(), {"type": "content_block_start", "index": 0, "content_block": block})
    assert isinstance(found[-1], Fault)
