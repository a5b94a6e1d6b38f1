from collections.abc import Iterator
from typing import Any

import anthropic
import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agw_proxy.dialects.anthropic_messages_answers import read_answer
from agw_proxy.dialects.anthropic_messages_streams import Reader, Writer
from agw_proxy.dialects.base import (
    Audio,
    Beat,
    Block,
    BlockStart,
    BlockStop,
    Citation,
    Event,
    Fault,
    Finish,
    Part,
    Refusal,
    Signature,
    Start,
    Text,
    Thinking,
    Tokens,
    ToolUse,
)
from tests.dialects.grammar_messages import check, frames
from tests.dialects.messages_stream import EVENTS, SHOWN, WHOLE, trees, write
from tests.dialects.test_anthropic_messages_answers import CITED


def test_a_whole_stream_is_written() -> None:
    written = trees(*EVENTS)
    assert [tree["type"] for tree in written if tree["type"] != "ping"] == [
        tree["type"] for tree in WHOLE if tree["type"] != "ping" and tree.get("delta", {}).get("partial_json") != ""
    ]
    assert [tree for tree in written if tree["type"].startswith("content")] == [
        tree for tree in WHOLE
        if tree["type"].startswith("content") and tree.get("delta", {}).get("partial_json") != ""
    ]  # fmt: skip
    assert written[0]["message"]["model"] == "fast"
    assert written[0]["message"]["usage"]["input_tokens"] == 5
    assert written[-2]["usage"] == {
        "input_tokens": 5, "cache_creation_input_tokens": 7, "cache_read_input_tokens": 11, "output_tokens": 13,
    }  # fmt: skip


def test_the_count_of_tokens_never_falls() -> None:
    written = trees(Start("x", "m", tokens=Tokens(5, 40)), Finish("stop", Tokens(5, 9)))
    assert [written[0]["message"]["usage"]["output_tokens"], written[-2]["usage"]["output_tokens"]] == [40, 40]


def test_blocks_with_nothing_in_them_are_not_written() -> None:
    empty: list[Event] = []
    blocks: list[Block] = [Text(""), Thinking(), Refusal(""), Thinking(hidden=True)]
    for index, block in enumerate(blocks):
        empty += [BlockStart(index, block), Part(""), BlockStop()]
    written = trees(Start("x", "m"), *empty, BlockStart(4, Text("")), Part("a"), BlockStop(), Finish("stop", Tokens()))
    assert [tree["index"] for tree in written if "index" in tree] == [0, 0, 0]
    assert written[0]["message"]["id"] == "msg_a1"
    assert "input_tokens" not in written[-2]["usage"]


def test_what_is_foreign_gets_the_form_of_this_api() -> None:
    written = trees(
        Start("x", "m"),
        BlockStart(0, Thinking(hidden=True)),
        Signature("agw:responses:enc"),
        BlockStop(),
        BlockStart(1, Thinking()),
        Part("t"),
        Signature("agw:chat:s"),
        BlockStop(),
        BlockStart(2, Refusal("")),
        Part("No."),
        BlockStop(),
        BlockStart(3, ToolUse("", "f", signature="agw:gemini:S")),
        BlockStop(),
        BlockStart(4, ToolUse("c", "patch", custom=True)),
        Part("*** "),
        Part("Begin"),
        BlockStop(),
        Finish("stop", Tokens(3, 4, reasoning=2)),
    )
    assert [tree["content_block"] for tree in written if tree["type"] == "content_block_start"] == [
        {"type": "redacted_thinking", "data": "agw:responses:enc"},
        {"type": "thinking", "thinking": "", "signature": ""},
        {"type": "text", "text": ""},
        {"type": "redacted_thinking", "data": "agw:gemini:S"},
        {"type": "tool_use", "id": "toolu_a1_4", "name": "f", "input": {}},
        {"type": "tool_use", "id": "c", "name": "patch", "input": {}},
    ]
    deltas = [tree["delta"] for tree in written if tree["type"] == "content_block_delta"]
    assert deltas[1] == {"type": "signature_delta", "signature": "agw:chat:s"}
    assert deltas[-1] == {"type": "input_json_delta", "partial_json": '{"input":"*** Begin"}'}
    assert written[-2]["delta"]["stop_reason"] == "tool_use"
    assert written[-2]["usage"]["output_tokens_details"] == {"thinking_tokens": 2}


def test_signs_of_life() -> None:
    writer = Writer(SHOWN)
    assert writer.write(Beat()) == b": ping\n\n"
    writer.write(Start("", ""))
    assert frames(writer.write(Beat())) == [("ping", b'{"type":"ping"}')]
    writer.write(Finish("stop", Tokens()))
    assert writer.write(Beat()) == b""


@pytest.mark.parametrize("before", [0, 1, 3, 4, len(EVENTS) - 1])
def test_a_fault_ends_the_stream_at_any_point(before: int) -> None:
    written = trees(*EVENTS[:before], Fault("Too much.", "overloaded_error"))
    assert written[-1] == {
        "type": "error", "error": {"type": "overloaded_error", "message": "Too much."}, "request_id": "a1",
    }  # fmt: skip


BEGUN = [Start("", "")]
OPEN = [*BEGUN, BlockStart(0, Text(""))]
OVER: list[Event] = [*BEGUN, Finish("stop", Tokens())]


@pytest.mark.parametrize(
    "events",
    [
        [Part("x")],
        [BlockStart(0, Text(""))],
        [Finish("stop", Tokens())],
        [*BEGUN, Start("", "")],
        [*BEGUN, Part("x")],
        [*BEGUN, BlockStop()],
        [*BEGUN, Signature("x")],
        [*BEGUN, BlockStart(1, Text(""))],
        [*BEGUN, BlockStart(0, Audio("aGk=", "wav"))],
        [*OPEN, BlockStart(1, Text(""))],
        [*OPEN, Finish("stop", Tokens())],
        [*OPEN, BlockStop(), BlockStart(0, Text(""))],
        [*BEGUN, BlockStart(0, Thinking()), Citation({})],
        [*OVER, Finish("stop", Tokens())],
        [*OVER, Part("x")],
        [*OVER, Fault("x")],
        [Fault("x"), Start("", "")],
    ],
)
def test_events_against_the_grammar_are_refused(events: list[Event]) -> None:
    writer = Writer(SHOWN)
    for event in events[:-1]:
        writer.write(event)
    with pytest.raises(ValueError):
        writer.write(events[-1])


WORDS = st.text(alphabet='a"\\\né\u2028', max_size=4)


BLOCKS: list[Block] = [Text(""), Thinking(), Refusal(""), ToolUse("t", "f"), ToolUse("u", "g", custom=True)]


@st.composite
def streams(draw: st.DrawFn) -> list[Event]:
    events: list[Event] = [Start(draw(st.sampled_from(["", "msg_1", "chatcmpl-1"])), "m")]
    for index in range(draw(st.integers(0, 4))):
        block = draw(st.sampled_from(BLOCKS))
        events.append(BlockStart(index, block))
        whole = '{"a":1}' if isinstance(block, ToolUse) else "".join(draw(st.lists(WORDS)))
        cut = draw(st.integers(0, len(whole)))
        events += [Part(whole[:cut]), Part(whole[cut:])]
        if isinstance(block, Thinking):
            events += draw(st.sampled_from([[], [Signature("agw:messages:s")], [Signature("agw:chat:s")]]))
        events.append(BlockStop())
    return [*events, Finish(draw(st.sampled_from(["stop", "length", "tool"])), Tokens(9, 8, 7, 1))]


@given(streams())
def test_what_is_written_is_read_back_alike(events: list[Event]) -> None:
    reader = Reader()
    found = frames(write(*events))
    check(found)
    back = [event for name, data in found for event in reader.read(name, data)]
    words = [event.text for event in events if isinstance(event, Part)]
    custom = any(
        isinstance(event, BlockStart) and isinstance(event.block, ToolUse) and event.block.custom for event in events
    )
    assert custom or "".join(words) == "".join(event.text for event in back if isinstance(event, Part))
    assert isinstance(back[-1], Finish)
    assert back[-1].tokens == Tokens(9, 8, 7, 1)
    check(frames(write(*back)))


# -- the official client


class _Stream(httpx2.SyncByteStream):
    def __init__(self, data: bytes) -> None:
        self._data = data

    def __iter__(self) -> Iterator[bytes]:
        for start in range(0, len(self._data), 7):
            yield self._data[start : start + 7]


@pytest.fixture
def served() -> Iterator[tuple[anthropic.Anthropic, dict[str, bytes]]]:
    """The official client, and where to put what it is answered."""
    put: dict[str, bytes] = {}

    def answer(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, stream=_Stream(put["answer"]))

    with anthropic.Anthropic(
        api_key="k",
        base_url="http://x.test",
        max_retries=0,
        http_client=httpx2.Client(transport=httpx2.MockTransport(answer)),
    ) as client:
        yield client, put


ASKED: Any = {"model": "fast", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}


def test_the_official_client_gathers_the_whole_message(served: tuple[anthropic.Anthropic, dict[str, bytes]]) -> None:
    client, put = served
    put["answer"] = write(*EVENTS)
    with client.messages.stream(**ASKED) as stream:
        message = stream.get_final_message()
    read = read_answer(message.model_dump(mode="json"))
    assert [type(block) for block in read.blocks] == [Thinking, Thinking, Text, ToolUse]
    assert read.blocks[2] == Text("Yes.", [CITED])
    assert read.blocks[3] == ToolUse("toolu_1", "see", '{"x":1}')
    assert (read.stop, read.tokens) == ("tool", Tokens(23, 13, 11, 7))


@pytest.mark.parametrize("before", [0, 3])
def test_the_official_client_raises_on_a_fault(
    served: tuple[anthropic.Anthropic, dict[str, bytes]], before: int
) -> None:
    client, put = served
    put["answer"] = write(*EVENTS[:before], Fault("Too much.", "overloaded_error"))
    with pytest.raises(anthropic.APIStatusError, match="Too much"), client.messages.stream(**ASKED) as stream:
        stream.until_done()
