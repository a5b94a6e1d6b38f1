"""Several tool calls side by side in a Chat stream: each comes out whole, one after the other, and early where it can."""

import itertools

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agw_proxy.config.presets import Quirks
from agw_proxy.dialects import openai_chat_order, translate
from agw_proxy.dialects.base import (
    BlockStart,
    BlockStop,
    Fault,
    Finish,
    Part,
    Shown,
    Signature,
    Tokens,
    ToolUse,
    sealed,
)
from agw_proxy.dialects.openai_chat_streams import Reader
from tests.dialects.chat_vectors import call, chosen, chunk, read, uses, write
from tests.dialects.grammar_chat import check

STOP = BlockStop()


def test_calls_one_after_the_other_go_out_at_once() -> None:
    reader = Reader()
    reader.read("", chunk(call(0, "a", "f", "")))
    assert reader.read("", chunk(call(0, arguments='{"x"'))) == [Part('{"x"')]
    reader.read("", chunk(call(0, arguments=":1}")))
    assert reader.read("", chunk(call(1, "b", "g", "{"))) == [STOP, BlockStart(1, ToolUse("b", "g")), Part("{")]


def test_interleaved_calls_are_put_in_order() -> None:
    events = read(
        chunk(call(0, "a", "f", "")), chunk(call(1, "b", "g", "")), chunk(call(0, arguments='{"x":')),
        chunk(call(1, arguments='{"y":')), chunk({"content": "aside"}), chunk(call(0, arguments="1}")),
        chunk(call(1, arguments="2}")), chunk(reason="tool_calls"),
    )  # fmt: skip
    assert uses([event for event in events if event != Part("aside")])[:2] == [
        ("a", "f", '{"x":1}'),
        ("b", "g", '{"y":2}'),
    ]
    assert Part("aside") in events


def test_an_object_within_the_arguments_does_not_end_them() -> None:
    events = read(
        chunk(call(0, "a", "f", '{"x":{}')), chunk(call(1, "b", "g", "{}")), chunk(call(0, arguments="}")),
        chunk(reason="tool_calls"),
    )  # fmt: skip
    assert uses(events) == [("a", "f", '{"x":{}}'), ("b", "g", "{}")]


def test_ids_and_names_may_come_later() -> None:
    events = read(
        chunk(call(0, arguments="{")),
        chunk(call(0, name="f")),
        chunk(call(0, "a", arguments="}")),
        chunk(reason="stop"),
    )
    assert uses(events) == [("a", "f", "{}")]
    assert events[-1] == Finish("tool", Tokens())


def test_calls_without_ids_get_their_own() -> None:
    events = read(chunk(call(0, None, "f", "{}")), chunk(call(0, None, "f", '{"x":1}')), chunk(reason="stop"))
    first, second = uses(events)
    assert first[1:] == ("f", "{}")
    assert second[1:] == ("f", '{"x":1}')
    assert len({first[0], second[0], ""}) == 3
    assert first[0].replace("_", "").isalnum()


def test_calls_with_one_index_and_ids_of_their_own_are_several() -> None:
    events = read(chunk(call(0, "a", "f", "{}")), chunk(call(0, "b", "f", "{}")), chunk(reason="stop"))
    assert [use[0] for use in uses(events)] == ["a", "b"]


def test_calls_without_an_index_go_by_their_ids_or_with_the_last() -> None:
    events = read(
        chunk(call(None, "a", "f", "{}")), chunk(call(None, "b", "g", "{")), chunk(call(None, arguments='"x":1')),
        chunk(call(None, "b", arguments="}")), chunk(reason="tool_calls"),
    )  # fmt: skip
    assert uses(events) == [("a", "f", "{}"), ("b", "g", '{"x":1}')]


def test_arguments_behind_the_end_of_a_call_are_a_fault() -> None:
    events = read(chunk(call(0, "a", "f", "{}")), chunk(call(1, "b", "g", "{")), chunk(call(0, arguments="x")))
    assert isinstance(events[-1], Fault)


def test_blank_arguments_behind_the_end_of_a_call_mean_nothing() -> None:
    events = read(
        chunk(call(0, "a", "f", "{}")),
        chunk(call(1, "b", "g", "{}")),
        chunk(call(0, arguments="\n")),
        chunk(reason="stop"),
    )
    assert uses(events) == [("a", "f", "{}"), ("b", "g", "{}")]


def test_an_answer_has_a_bound_on_its_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_chat_order, "MAX_BLOCKS", 2)
    chunks = [chunk(call(position, str(position), "f", "{}")) for position in range(3)]
    assert [isinstance(read(*chunks[:most])[-1], Fault) for most in (2, 3)] == [False, True]


def test_arguments_are_looked_at_a_bounded_number_of_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_chat_order, "MAX_LOOKS", 1)
    events = read(
        chunk(call(0, "a", "f", '{"x":{}')), chunk(call(1, "b", "g", "{}")), chunk(call(0, arguments="}")),
        chunk(call(1, arguments=" ")), chunk(reason="stop"),
    )  # fmt: skip
    assert uses(events) == [("a", "f", '{"x":{}}'), ("b", "g", "{} ")]


def test_a_call_without_a_name_is_a_fault() -> None:
    assert isinstance(read(chunk(call(0, "a", None, "{}")), chunk(reason="tool_calls"))[-1], Fault)
    assert isinstance(read(chunk(reason="stop"), chunk(call(0, "a", None, "{}")), done=False)[-1], Fault)


def test_the_old_function_call_is_a_tool_call() -> None:
    events = read(
        chunk({"function_call": {"name": "f", "arguments": ""}}), chunk({"function_call": {"arguments": "{}"}}),
        chunk(reason="function_call"),
    )  # fmt: skip
    assert [use[1:] for use in uses(events)] == [("f", "{}")]
    assert events[-1] == Finish("tool", Tokens())


def test_googles_signature_belongs_to_its_call() -> None:
    delta = call(0, "a", "f", "{}")
    delta["tool_calls"][0]["extra_content"] = {"google": {"thought_signature": "SIG"}}
    events = read(chunk(delta), chunk(reason="tool_calls"))
    signed = BlockStart(0, ToolUse("a", "f", signature=sealed("chat", "SIG")))
    assert signed in events
    frames = write(events)
    check(frames)
    assert chosen(frames, "tool_calls")[-1][0]["extra_content"] == {"google": {"thought_signature": "SIG"}}
    late = {"tool_calls": [{"index": 0, "extra_content": {"google": {"thought_signature": "SIG"}}}]}
    assert Signature(sealed("chat", "SIG")) in read(
        chunk(call(0, "a", "f", "{")), chunk(late), chunk(reason="tool_calls")
    )


def test_googles_signature_comes_back_with_its_call_from_a_client_of_messages() -> None:
    delta = call(0, "a", "f", "{}")
    extra = {"google": {"thought_signature": "SIG"}}
    delta["tool_calls"][0]["extra_content"] = extra
    shown = Shown("r1", "m", 1)
    writer = translate.writer("messages", shown)
    stream = b"".join(writer.write(event) for event in read(chunk(delta), chunk(reason="tool_calls")))
    starts = [
        orjson.loads(line[6:])
        for line in stream.splitlines()
        if line.startswith(b'data: {"type":"content_block_start"')
    ]
    streamed = [start["content_block"] for start in starts]
    body = {"choices": [{"message": {"role": "assistant", **delta}, "finish_reason": "tool_calls"}]}
    whole = orjson.loads(translate.answer("chat", "messages", orjson.dumps(body), shown))["content"]
    assert streamed == whole
    for turn in (whole, whole[:1]):  # a turn that was cut has its carrier alone
        messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": turn}]
        asked = translate.read_request("messages", orjson.dumps({"model": "m", "max_tokens": 9, "messages": messages}))
        written = orjson.loads(translate.write_request(asked, "chat", "gemini-3", Quirks()).body)["messages"]
        uses = [use for message in written for use in message.get("tool_calls", ())]
        assert [use["extra_content"] for use in uses] == [extra] * (len(turn) - 1)
        assert not any("reasoning_details" in message for message in written)


@given(st.permutations(range(6)))
def test_however_two_calls_interleave_both_come_whole(order: list[int]) -> None:
    """Pieces 0-2 are the first call's, 3-5 the second's; each call's own pieces keep their order."""
    owners = [0 if each < 3 else 1 for each in order]
    texts = [iter(['{"x":{', '"y":1}', "}"]), iter(["{", '"z":', "{}}"])]
    heads = [chunk(call(0, "a", "f", "")), chunk(call(1, "b", "g", ""))]
    body = [chunk(call(owner, arguments=next(texts[owner]))) for owner in owners]
    events = read(*itertools.chain(heads, body), chunk(reason="tool_calls"))
    assert uses(events) == [("a", "f", '{"x":{"y":1}}'), ("b", "g", '{"z":{}}')]
