"""Streams of ``/v1/responses``: what the Reader makes of upstreams."""

import json
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agw_proxy.dialects.base import (
    Beat,
    Block,
    BlockStart,
    Citation,
    Event,
    Fault,
    Finish,
    Part,
    Refusal,
    Signature,
    Text,
    Thinking,
    ToolUse,
    sealed,
)
from agw_proxy.dialects.openai_responses_streams import Reader, Writer
from tests.dialects.grammar_responses import check
from tests.dialects.responses_streams import (
    CITATION,
    START,
    TOKENS,
    URL,
    USAGE,
    block,
    completed,
    created,
    ev,
    frames,
    raw,
    read,
    shown,
    up,
)


def test_a_whole_stream_is_read() -> None:
    item = {"type": "function_call", "id": "fc_1", "call_id": "c", "name": "f", "arguments": ""}
    assert read(
        created(),
        ev("in_progress", response={}),
        ev("output_item.added", output_index=0, item={"type": "reasoning", "id": "rs_1", "summary": []}),
        ev("reasoning_summary_part.added", output_index=0, item_id="rs_1", summary_index=0),
        ev("reasoning_summary_text.delta", output_index=0, item_id="rs_1", summary_index=0, delta="a"),
        ev("reasoning_summary_text.done", output_index=0, item_id="rs_1", summary_index=0, text="a"),
        ev("reasoning_summary_text.delta", output_index=0, item_id="rs_1", summary_index=1, delta="b"),
        ev("output_item.done", output_index=0, item={"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "g"}),
        ev("output_item.added", output_index=1, item={"type": "message", "id": "msg_1", "content": []}),
        ev("content_part.added", output_index=1, item_id="msg_1", content_index=0, part={"type": "output_text", "text": ""}),
        ev("output_text.delta", output_index=1, item_id="msg_1", content_index=0, delta="He", logprobs=[]),
        ev("output_text.delta", output_index=1, item_id="msg_1", content_index=0, delta="y",
           logprobs=[{"token": "y", "logprob": -1.0, "bytes": [121], "top_logprobs": []}]),
        ev("output_text.annotation.added", output_index=1, item_id="msg_1", content_index=0, annotation=URL),
        ev("output_text.done", output_index=1, item_id="msg_1", content_index=0, text="Hey"),
        ev("content_part.done", output_index=1, item_id="msg_1", content_index=0,
           part={"type": "output_text", "text": "Hey", "annotations": [URL]}),
        ev("content_part.added", output_index=1, item_id="msg_1", content_index=1, part={"type": "refusal", "refusal": ""}),
        ev("refusal.delta", output_index=1, item_id="msg_1", content_index=1, delta="No"),
        ev("output_item.done", output_index=1, item={"type": "message", "id": "msg_1", "content": [
            {"type": "output_text", "text": "Hey"}, {"type": "refusal", "refusal": "No"}]}),
        ev("output_item.added", output_index=2, item=item),
        ev("function_call_arguments.delta", output_index=2, item_id="fc_1", delta="{"),
        ev("function_call_arguments.delta", output_index=2, item_id="fc_1", delta="}"),
        ev("function_call_arguments.done", output_index=2, item_id="fc_1", arguments="{}"),
        ev("output_item.done", output_index=2, item={**item, "arguments": "{}"}),
        ev("something.new", what=1),
        completed({"type": "reasoning", "id": "rs_1", "summary": []}, {"type": "message", "id": "msg_1", "content": []}, item),
    ) == [
        START,
        *block(0, Thinking(id="rs_1"), Part("a"), Part("\n\n"), Part("b"), Signature("agw:responses:rs_1:g")),
        *block(1, Text(""), Part("He"), Part("y", [{"token": "y", "logprob": -1.0, "bytes": [121], "top_logprobs": []}]),
               Citation(CITATION)),
        *block(2, Refusal(""), Part("No")),
        *block(3, ToolUse("c", "f"), Part("{"), Part("}")),
        Finish("tool", TOKENS),
    ]  # fmt: skip


def test_what_was_not_streamed_is_taken_from_the_whole_items() -> None:
    items: list[dict[str, Any]] = [
        {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "a"}]},
        {"type": "reasoning", "id": "rs_2", "summary": [], "encrypted_content": "g"},
        {"type": "reasoning", "id": "rs_3", "summary": []},
        {"type": "message", "id": "m", "content": [{"type": "output_text", "text": "x", "annotations": [URL]}]},
        {"type": "web_search_call", "id": "ws"},
        {"type": "custom_tool_call", "id": "ctc", "call_id": "c", "name": "patch", "input": "y"},
    ]
    expected = [
        START,
        *block(0, Thinking(id="rs_1"), Part("a")),
        *block(1, Thinking(signature="agw:responses:rs_2:g", hidden=True, id="rs_2")),
        *block(2, Text(""), Part("x"), Citation(CITATION)),
        *block(3, ToolUse("c", "patch", custom=True), Part("y")),
        Finish("tool", TOKENS),
    ]
    done = [ev("output_item.done", output_index=at, item=item) for at, item in enumerate(items)]
    assert read(created(), *done, completed(*items)) == expected
    assert read(created(), completed(*items)) == expected


def test_an_end_that_leaves_items_out_and_renames_the_rest_repeats_nothing() -> None:
    words = {"type": "message", "content": [{"type": "output_text", "text": "ab"}]}
    assert read(
        created(),
        ev("reasoning_text.delta", output_index=0, item_id="rs_1", content_index=0, delta="hm"),
        ev("output_text.delta", output_index=1, item_id="msg_1", content_index=0, delta="ab"),
        completed({**words, "id": "msg_2"}),
    ) == [START, *block(0, Thinking(id="rs_1"), Part("hm")), *block(1, Text(""), Part("ab")), Finish("stop", TOKENS)]


def test_arguments_of_a_call_that_is_never_named_are_not_lost_in_silence() -> None:
    assert isinstance(read(ev("function_call_arguments.delta", item_id="fc_1", delta="{}"), completed())[-1], Fault)


def test_deltas_without_indices_or_announcements_are_understood() -> None:
    assert read(
        created(),
        ev("output_text.delta", item_id="m", delta="a"),
        ev("output_text.delta", item_id="m", delta="b"),
        ev("output_item.done", item={"type": "message", "id": "m", "content": [{"type": "output_text", "text": "ab"}]}),
        completed({"type": "message", "id": "other", "content": [{"type": "output_text", "text": "ab"}]}),
    ) == [START, *block(0, Text(""), Part("a"), Part("b")), Finish("stop", TOKENS)]
    assert read(
        ev("output_text.delta", delta="a"),
        ev("output_text.delta", delta="b"),
        completed(),
    )[1:] == [*block(0, Text(""), Part("a"), Part("b")), Finish("stop", TOKENS)]


def test_llama_cpps_streams_are_understood_and_told_as_they_come() -> None:
    """Without indices, calls without an id, and all that is done at the end."""
    calls = [{"type": "function_call", "call_id": f"fc_{name}", "name": name, "arguments": "{}"} for name in "ab"]
    message = {"type": "message", "id": "msg_1", "content": [{"type": "output_text", "text": "x", "annotations": []}]}
    thought = {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "t"}],
               "encrypted_content": ""}  # fmt: skip
    live = [
        created(),
        ev("output_item.added", item={"type": "reasoning", "id": "rs_1", "summary": []}),
        ev("reasoning_text.delta", item_id="rs_1", delta="t"),
        ev("output_item.added", item={**message, "content": []}),
        ev("content_part.added", item_id="msg_1", part={"type": "output_text", "text": ""}),
        ev("output_text.delta", item_id="msg_1", delta="x"),
        ev("output_item.added", item={**calls[0], "arguments": ""}),
        ev("function_call_arguments.delta", item_id="fc_a", delta="{}"),
        ev("output_item.added", item={**calls[1], "arguments": ""}),
        ev("function_call_arguments.delta", item_id="fc_b", delta="{}"),
    ]
    items: list[dict[str, Any]] = [thought, message, *calls]
    done = [
        ev("output_text.done", item_id="msg_1", text="x"),
        ev("content_part.done", item_id="msg_1", part={"type": "output_text", "text": "x"}),
        *(ev("output_item.done", item=item) for item in items),
    ]
    first = [
        START,
        *block(0, Thinking(id="rs_1"), Part("t")),
        *block(1, Text(""), Part("x")),
        *block(2, ToolUse("fc_a", "a"), Part("{}")),
    ]
    assert read(*live)[: len(first) - 1] == first[:-1]
    assert read(*live, *done, completed(*items)) == [
        *first,
        *block(3, ToolUse("fc_b", "b"), Part("{}")),
        Finish("tool", TOKENS),
    ]


def test_a_signature_that_comes_late_is_kept() -> None:
    events = read(
        created(),
        ev("reasoning_summary_text.delta", item_id="rs_1", delta="t"),
        ev("output_item.added", item={"type": "message", "id": "m"}),
        ev("output_text.delta", item_id="m", delta="x"),
        ev("reasoning_summary_text.delta", item_id="rs_1", delta="u"),
        ev("output_text.delta", item_id="m", delta="y"),
        ev("output_item.done", item={"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "g"}),
        completed(),
    )
    assert events[1:-1] == [
        *block(0, Thinking(id="rs_1"), Part("t")),
        *block(1, Text(""), Part("x")),
        *block(2, Thinking(id="rs_1"), Part("u")),
        *block(3, Text(""), Part("y")),
        *block(4, Thinking(signature="agw:responses:rs_1:g", hidden=True, id="rs_1")),
    ]


def test_changing_item_ids_do_not_matter_where_there_are_indices() -> None:
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
    assert read(
        created(),
        ev("output_item.added", output_index=0, item={**call, "id": "1", "arguments": ""}),
        ev("function_call_arguments.delta", output_index=0, item_id="2", delta="{}"),
        ev("output_item.done", output_index=0, item={**call, "id": "3"}),
        completed({**call, "id": "4"}),
    )[1:] == [*block(0, ToolUse("c", "f"), Part("{}")), Finish("tool", TOKENS)]


def test_a_name_may_come_late() -> None:
    assert read(
        created(),
        ev("output_item.added", output_index=0, item={"type": "function_call", "id": "f"}),
        ev("function_call_arguments.delta", output_index=0, item_id="f", delta="{"),
        ev("function_call_arguments.delta", output_index=0, item_id="f", delta="}"),
        ev(
            "output_item.done",
            output_index=0,
            item={"type": "function_call", "id": "f", "name": "f", "arguments": "{}"},
        ),
        completed(),
    )[1:] == [*block(0, ToolUse("f", "f"), Part("{}")), Finish("tool", TOKENS)]


def test_items_that_overlap_are_told_one_after_the_other() -> None:
    call = {"type": "function_call", "call_id": "a", "name": "f", "arguments": ""}
    events = read(
        created(),
        ev("output_item.added", output_index=0, item=call),
        ev("output_item.added", output_index=1, item={**call, "call_id": "b"}),
        ev("function_call_arguments.delta", output_index=1, delta="1"),
        ev("function_call_arguments.delta", output_index=0, delta="2"),
        ev("output_item.done", output_index=1, item={**call, "call_id": "b", "arguments": "1"}),
        ev("function_call_arguments.delta", output_index=0, delta="3"),
        ev("output_item.done", output_index=0, item={**call, "arguments": "23"}),
        completed(),
    )
    assert events[1:] == [
        *block(0, ToolUse("a", "f"), Part("2"), Part("3")),
        *block(1, ToolUse("b", "f"), Part("1")),
        Finish("tool", TOKENS),
    ]


def test_thoughts_are_told_once() -> None:
    events = read(
        created(),
        ev("reasoning_text.delta", output_index=0, item_id="rs", content_index=0, delta="raw"),
        ev("reasoning_summary_text.delta", output_index=0, item_id="rs", summary_index=0, delta="short"),
        completed(),
    )
    assert events[1:-1] == block(0, Thinking(id="rs"), Part("raw"))


@pytest.mark.parametrize(
    ("tree", "fault"),
    [
        ({"type": "error", "message": "boom", "code": "server_error", "param": None}, Fault("boom", code="server_error")),
        ({"type": "error", "error": {"type": "server_error", "message": "boom"}}, Fault("boom", "server_error")),
        ({"error": {"message": "boom", "code": 500}}, Fault("boom")),
        (ev("failed", response={"error": {"code": "rate_limit_exceeded", "message": "slow"}}), Fault("slow", code="rate_limit_exceeded")),
        (ev("failed", response={"error": None}), Fault("The upstream has ended the response before its end.")),
        (ev("cancelled"), Fault("The upstream has ended the response before its end.")),
    ],
)  # fmt: skip
def test_errors_are_faults_and_nothing_follows(tree: dict[str, Any], fault: Fault) -> None:
    reader = Reader()
    assert reader.read("", orjson.dumps(tree)) == [fault]
    assert reader.read("response.created", orjson.dumps(created())) == []
    assert reader.end() == []
    assert Reader().read("error", orjson.dumps(tree)) == [fault]


@pytest.mark.parametrize(
    "data",
    [
        b"nonsense",
        b"[1]",
        b"{",
        orjson.dumps(ev("output_text.delta", delta=3)),
        orjson.dumps(ev("output_item.added")),
        orjson.dumps(ev("output_item.done", item={"type": "function_call"})),
        orjson.dumps(ev("completed")),
        orjson.dumps(ev("completed", response={"output": 3})),
        orjson.dumps(ev("created", response=[])),
    ],
)
def test_what_cannot_be_read_is_a_fault(data: bytes) -> None:
    (fault,) = Reader().read("", data)
    assert isinstance(fault, Fault)
    assert fault.message


def test_an_incomplete_answer_need_not_say_it_twice() -> None:
    whole = {"type": "response.incomplete", "response": {"usage": USAGE}}
    assert read(created(), whole) == [START, Finish("length", TOKENS)]


def test_a_cut_stream_has_no_finish() -> None:
    events = read(created(), ev("output_text.delta", output_index=0, delta="a"))
    assert events[:3] == [START, BlockStart(0, Text("")), Part("a")]
    assert [type(event) for event in events[3:]] == [Fault]


def test_what_is_told_twice_is_no_sign_of_life() -> None:
    def read(name: str) -> list[Event]:
        return reader.read(name, orjson.dumps({"type": name, "output_index": 0, "item_id": "m", "content_index": 0}))

    reader = Reader()
    assert [read(f"response.{name}") for name in ("content_part.added", "output_text.done", "reasoning_text.done")] == [
        []
    ] * 3
    assert read("response.web_search_call.searching") == [Beat()]


def test_the_end_is_the_end() -> None:
    reader = Reader()
    reader.read("", orjson.dumps(completed()))
    assert reader.read("", b"[DONE]") == []
    assert reader.end() == []


TREES = st.recursive(
    st.none() | st.integers(-2, 3) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["type", "content", "text", "id", "call_id", "name", "arguments", "summary", "annotations", "output"]),
            inner | st.sampled_from(["message", "output_text", "function_call", "reasoning", "url_citation"]),
            max_size=5,
        )
    ),
    max_leaves=5,
)  # fmt: skip
KINDS = [f"response.{name}" for name in (
    "created", "output_item.added", "output_item.done", "content_part.done", "output_text.delta", "refusal.delta",
    "output_text.annotation.added", "reasoning_summary_text.delta", "reasoning_text.delta", "function_call_arguments.delta",
    "custom_tool_call_input.delta", "completed", "incomplete", "failed", "new",
)]  # fmt: skip
ANY = st.fixed_dictionaries(
    {"type": st.sampled_from(KINDS)},
    optional={
        "item": TREES | st.fixed_dictionaries(
            {"type": st.sampled_from(["message", "function_call", "reasoning", "custom_tool_call"])},
            optional={"id": st.sampled_from("ab"), "name": st.just("f"), "call_id": st.sampled_from("cd"), "content": TREES,
                      "summary": TREES, "encrypted_content": st.just("g"), "arguments": st.just("{}"), "input": TREES},
        ),
        "part": TREES, "response": TREES, "annotation": TREES, "logprobs": TREES, "error": TREES,
        "delta": st.sampled_from(["", "x", "yz"]) | TREES,
        "output_index": st.integers(0, 2) | TREES, "content_index": st.integers(0, 2) | TREES,
        "summary_index": st.integers(0, 2), "item_id": st.sampled_from("ab") | TREES,
    },
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.lists(ANY, max_size=12), st.booleans())
def test_whatever_comes_makes_a_grammatical_stream(trees: list[dict[str, Any]], finished: bool) -> None:
    reader, writer = Reader(), Writer(shown())
    stream = b""
    for name, data in up(*trees, *([completed()] if finished else [])):
        for event in reader.read(name, data):
            stream += writer.write(event)
    for event in reader.end():
        stream += writer.write(event)
    check(frames(stream))


WORDS = st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=5), max_size=4)
SEALS = st.none() | st.sampled_from([sealed("messages", "s"), sealed("gemini", "t")])


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([Text(""), Refusal(""), Thinking(), ToolUse("c", "look"), ToolUse("c", "ns__find", namespace="ns")]),
            WORDS,
            SEALS,
        ),
        max_size=5,
    ),
    st.sampled_from(["stop", "length", "tool"]),
)  # fmt: skip
def test_what_is_written_is_read_again(blocks: list[tuple[Block, list[str], str | None]], stop: Any) -> None:
    events: list[Event] = [START]
    expected: list[tuple[type[Block], str, str | None]] = []
    for index, (begun, words, seal) in enumerate(blocks):
        signed = [Signature(seal)] if seal is not None and isinstance(begun, Thinking) else []
        events += block(index, begun, *map(Part, words), *signed)
        text = "".join(words) or ("{}" if isinstance(begun, ToolUse) else "")
        if text or signed:
            expected.append((type(begun), text, seal if signed else None))
    made = frames(raw(*events, Finish(stop, TOKENS)))
    check(made)
    back = read(*(json.loads(data) for _, data in made))
    found: list[tuple[type[Block], str, str | None]] = []
    for event in back:
        if isinstance(event, BlockStart):
            signature = event.block.signature if isinstance(event.block, Thinking) else None
            found.append((type(event.block), "", signature))
        elif isinstance(event, Part):
            found[-1] = (found[-1][0], found[-1][1] + event.text, found[-1][2])
        elif isinstance(event, Signature):
            found[-1] = (found[-1][0], found[-1][1], event.signature)
    assert found == expected
    assert isinstance(back[-1], Finish)
    assert back[-1].tokens == TOKENS
    assert (back[-1].stop == "length") == (stop == "length")
