"""Chat streams: what real servers send becomes a grammatical sequence, and any such sequence a stream that SDKs read."""

import json

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agw_proxy.dialects.base import (
    BlockStart,
    BlockStop,
    Citation,
    Event,
    Fault,
    Finish,
    Part,
    Refusal,
    Request,
    Shown,
    Signature,
    Start,
    Text,
    Thinking,
    Tokens,
    Tool,
    ToolUse,
    sealed,
)
from agw_proxy.dialects.openai_chat_streams import Reader
from tests.dialects.chat_vectors import SHOWN, call, chosen, chunk, read, usage_chunk, write
from tests.dialects.grammar_chat import check

START = Start("up-1", "up-model", 1_600_000_000)
STOP = BlockStop()


# -- reading


def test_words_become_one_block() -> None:
    events = read(
        chunk({"role": "assistant", "content": ""}),
        chunk({"content": "Hel"}),
        chunk({"content": "lo"}),
        chunk(reason="stop"),
        usage_chunk(3, 2),
    )
    assert events == [START, BlockStart(0, Text("")), Part("Hel"), Part("lo"), STOP, Finish("stop", Tokens(3, 2))]


def test_usage_may_come_in_the_chunk_with_the_finish_reason_and_done_may_be_missing() -> None:
    usage = {"prompt_tokens": 5, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": 4}}
    events = read(chunk({"content": "x"}), chunk(reason="length", usage=usage), done=False)
    assert events[-1] == Finish("length", Tokens(5, 7, 4))


def test_a_stream_that_was_cut_has_no_finish() -> None:
    events = read(chunk({"content": "x"}), usage_chunk(1, 1), done=False)
    assert events == [START, BlockStart(0, Text("")), Part("x")]


def test_done_alone_is_a_fault_and_done_without_a_reason_is_an_end() -> None:
    assert isinstance(read()[0], Fault)
    assert read(chunk({"content": "x"}))[-1] == Finish("stop", Tokens())


def test_done_amid_the_arguments_of_a_call_is_no_end() -> None:
    assert isinstance(read(chunk(call(0, "a", "f", '{"x":')))[-1], Fault)
    assert isinstance(read(chunk(call(0, "a", "f", '{"x":1}')))[-1], Finish)
    assert isinstance(read(chunk(call(0, "a", "f", '{"x":')), chunk(reason="length"))[-1], Finish)


def spoken(message: object, reason: str | None = None, **members: object) -> bytes:
    return orjson.dumps({"choices": [{"index": 0, "message": message, "finish_reason": reason, **members}]})


@pytest.mark.parametrize("delta", [{}, {"delta": None}])
def test_a_message_in_place_of_a_delta_is_read(delta: dict[str, None]) -> None:
    pieces = spoken({"role": "assistant", "content": "a"}, **delta), spoken({"content": "b"}, "stop", **delta)
    assert read(*pieces)[1:-1] == [BlockStart(0, Text("")), Part("a"), Part("b"), STOP]
    whole = {"content": None, "tool_calls": [{"id": i, "function": {"name": "f", "arguments": "{}"}} for i in "ab"]}
    begun = [event.block for event in read(spoken(whole, "tool_calls", **delta)) if isinstance(event, BlockStart)]
    assert begun == [ToolUse("a", "f"), ToolUse("b", "f")]


def test_a_message_behind_the_deltas_says_nothing_new() -> None:
    events = read(chunk({"role": "assistant"}), chunk({"content": "ab"}), spoken({"content": "ab"}, "stop"))
    assert events[1:-1] == [BlockStart(0, Text("")), Part("ab"), STOP]


def test_a_message_behind_a_sign_of_life_among_messages_is_read() -> None:
    assert read(spoken({"content": "a"}), spoken(None), spoken({"content": "b"}, "stop"))[1:-1] == [
        BlockStart(0, Text("")), Part("a"), Part("b"), STOP,
    ]  # fmt: skip


def test_nothing_comes_after_the_end() -> None:
    reader = Reader()
    for data in (chunk({"content": "x"}, "stop"), b"[DONE]"):
        reader.read("", data)
    assert reader.read("", chunk({"content": "y"})) == []
    assert reader.end() == []


def test_thoughts_under_two_names_are_read_once() -> None:
    events = read(chunk({"reasoning": "hm", "reasoning_content": "hm"}), chunk({"content": "x"}), chunk(reason="stop"))
    assert events[1:4] == [BlockStart(0, Thinking()), Part("hm"), STOP]


def test_signatures_and_secrets_among_reasoning_details_are_sealed() -> None:
    first = {"type": "reasoning.text", "text": "hm", "index": 0}
    second = {"type": "reasoning.text", "text": "", "signature": "SIG", "index": 0}
    secret = {"type": "reasoning.encrypted", "data": "XYZ", "index": 1}
    events = read(
        chunk({"reasoning": "hm", "reasoning_details": [first]}),
        chunk({"reasoning_details": [second]}),
        chunk({"reasoning_details": [secret]}),
        chunk({"content": "x"}, "stop"),
    )
    assert events[1:8] == [
        BlockStart(0, Thinking()), Part("hm"), Signature(sealed("chat", "SIG")), STOP,
        BlockStart(1, Thinking(hidden=True)), Signature(sealed("chat", "XYZ")), STOP,
    ]  # fmt: skip
    check(write(events))


def test_words_that_stand_only_in_the_details_are_read() -> None:
    events = read(chunk({"reasoning_details": [1, {"type": "reasoning.text", "text": "hm"}]}), chunk(reason="stop"))
    assert events[1:4] == [BlockStart(0, Thinking()), Part("hm"), STOP]


def test_parts_without_words_are_not_written() -> None:
    events: list[Event] = [START, BlockStart(0, Text("")), Part(""), STOP, Finish("stop", Tokens())]
    assert chosen(write(events), "content") == [""]


def test_content_in_parts_holds_thoughts_and_words() -> None:
    thought = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}
    events = read(
        chunk({"content": [thought]}), chunk({"content": [{"type": "text", "text": "x"}]}), chunk(reason="stop")
    )
    assert [event.text for event in events if isinstance(event, Part)] == ["hm", "x"]


def test_a_refusal_and_a_filter_end_the_same_way() -> None:
    refused = read(chunk({"refusal": "No."}), chunk(reason="stop"))
    assert BlockStart(0, Refusal("")) in refused
    filtered = read(chunk({"content": "x"}), chunk(reason="content_filter"))
    assert [refused[-1], filtered[-1]] == [Finish("refusal", Tokens())] * 2
    reasons = [data for events in (refused, filtered) for _, data in write(events) if b'"delta":{}' in data]
    assert [json.loads(data)["choices"][0]["finish_reason"] for data in reasons] == ["stop", "content_filter"]


def test_annotations_become_citations() -> None:
    source = {
        "type": "url_citation",
        "url_citation": {"url": "https://a.b/c", "title": "T", "start_index": 0, "end_index": 1},
    }
    events = read(chunk({"content": "x"}), chunk({"annotations": [source]}), chunk(reason="stop"))
    (cited,) = [event.citation for event in events if isinstance(event, Citation)]
    assert (cited["type"], cited["url"], cited["title"]) == ("web_search_result_location", "https://a.b/c", "T")
    assert chosen(write(events), "annotations") == [[source]]


def test_a_stop_sequence_is_told() -> None:
    ending = orjson.dumps({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "stop_reason": "END"}]})
    assert read(chunk({"content": "x"}), ending)[-1] == Finish("sequence", Tokens(), "END")


@pytest.mark.parametrize(
    ("name", "data", "message", "status"),
    [
        ("", b'{"error":{"message":"Slow down","type":"rate_limit_error","code":429}}', "Slow down", 429),
        ("error", b'{"error":{"message":"Slow down"}}', "Slow down", 0),
        ("error", b'{"message":"Slow down"}', "Slow down", 0),
        ("", b'{"error":"Slow down"}', "Slow down", 0),
        ("", b'{"object":"error","message":"Slow down"}', "Slow down", 0),
        ("", b'{"choices":[{"index":0,"error":{"message":"Slow down"},"delta":{}}]}', "Slow down", 0),
    ],
)
def test_errors_are_faults_at_any_point(name: str, data: bytes, message: str, status: int) -> None:
    reader = Reader()
    events = [*reader.read("", chunk({"content": "x"})), *reader.read(name, data)]
    fault = events[-1]
    assert isinstance(fault, Fault)
    assert (fault.message, fault.status) == (message, status)
    assert reader.read("", b"[DONE]") + reader.end() == []
    frames = write(events)
    check(frames)
    assert frames[-1][0] == "error"
    assert json.loads(frames[-1][1])["error"]["message"] == message


def test_a_stream_that_its_server_has_given_up_is_broken() -> None:
    for done in (True, False):
        events = read(chunk({"content": "x"}), chunk(reason="error"), done=done)
        assert isinstance(events[-1], Fault)
        assert "error" in events[-1].message
        check(write(events))


@pytest.mark.parametrize("data", [b"{", b"[]", b"1", b'"x"', b"\xff", b'{"choices":[1]}', b'{"choices":[{"index":1}]}'])
def test_what_cannot_be_read_is_a_fault(data: bytes) -> None:
    assert isinstance(Reader().read("", data)[-1], Fault)


# -- writing


def test_the_usage_chunk_is_for_those_who_have_asked() -> None:
    events = read(chunk({"content": "x"}), chunk(reason="stop"), usage_chunk(3, 2))
    asked, unasked = write(events), write(events, Shown("abc123", "asked-for", 1))
    check(asked)
    check(unasked)
    assert json.loads(asked[-2][1])["usage"]["total_tokens"] == 5
    assert not any(b"usage" in data for _, data in unasked)
    assert b'"usage"' not in write(read(chunk({"content": "x"}, "stop")))[-1][1]


def test_the_service_tier_is_told_when_it_is_known() -> None:
    events: list[Event] = [Start("a", "m", service_tier="standard"), Finish("stop", Tokens(), service_tier="priority")]
    frames = write(events)
    check(frames)
    told = [orjson.loads(data).get("service_tier") for _, data in frames if data != b"[DONE]"]
    assert told == ["default", "priority"]
    late = write([START, Finish("stop", Tokens(), service_tier="flex")])
    assert [orjson.loads(data).get("service_tier") for _, data in late if data != b"[DONE]"] == [None, "flex"]


def test_the_service_tier_is_read() -> None:
    first = {**orjson.loads(chunk({"content": "x"})), "service_tier": "default"}
    last = {**orjson.loads(chunk(reason="stop")), "service_tier": {"odd": 1}}
    events = read(orjson.dumps(first), orjson.dumps(last))
    assert isinstance(events[0], Start)
    assert isinstance(events[-1], Finish)
    assert (events[0].service_tier, events[-1].service_tier) == ("default", "default")


def test_the_caller_sees_the_model_that_it_has_asked_for() -> None:
    events: list[Event] = [Start("", "up-model"), Finish("stop", Tokens())]
    tree = json.loads(write(events)[0][1])
    assert (tree["id"], tree["model"], tree["created"]) == ("chatcmpl-abc123", "asked-for", SHOWN.now)


def test_a_foreign_signature_travels_sealed_with_its_thought() -> None:
    seal = sealed("messages", "SIG")
    events: list[Event] = [
        START, BlockStart(0, Thinking()), Part("h"), Part("m"), Signature(seal), STOP,
        BlockStart(1, Thinking(hidden=True)), Signature(sealed("messages", "XYZ")), STOP, Finish("stop", Tokens()),
    ]  # fmt: skip
    frames = write(events)
    check(frames)
    assert chosen(frames, "reasoning_content") == ["h", "m"]
    assert chosen(frames, "reasoning_details") == [
        [{"type": "reasoning.text", "text": "hm", "signature": seal, "index": 0}],
        [{"type": "reasoning.encrypted", "data": sealed("messages", "XYZ"), "index": 1}],
    ]


def test_a_call_of_nothing_has_an_empty_object() -> None:
    events: list[Event] = [START, BlockStart(0, ToolUse("a", "f")), STOP, Finish("tool", Tokens())]
    frames = write(events)
    check(frames)
    assert "".join(one["function"]["arguments"] for (one,) in chosen(frames, "tool_calls")) == "{}"


def test_a_caller_of_the_first_form_is_told_of_one_function_call() -> None:
    request = Request("m", [], tools=[Tool("f", schema={})], functions=True)
    events: list[Event] = [
        START, BlockStart(0, ToolUse("a", "f", signature="s")), Part('{"x":'), Part("1}"), STOP,
        BlockStart(1, ToolUse("b", "f")), Part("{}"), STOP, Finish("tool", Tokens()),
    ]  # fmt: skip
    frames = write(events, Shown("abc123", "m", 1, request=request))
    calls = chosen(frames, "function_call")
    assert [call.get("name") for call in calls] == ["f", None, None]
    assert "".join(call["arguments"] for call in calls) == '{"x":1}'
    assert chosen(frames, "tool_calls") == []
    assert b'"finish_reason":"function_call"' in frames[-2][1]


@pytest.mark.parametrize(("custom", "pieces"), [(True, ["ab", "c"]), (False, ['{"input":', '"abc"}'])])
def test_a_callers_custom_tool_is_called_with_plain_input(custom: bool, pieces: list[str]) -> None:
    request = Request("m", [], tools=[Tool("patch")])
    shown = Shown("abc123", "asked-for", 1, request=request)
    events: list[Event] = [START, BlockStart(0, ToolUse("a", "patch", custom=custom)), *map(Part, pieces), STOP, Finish("tool", Tokens())]  # fmt: skip
    frames = write(events, shown)
    check(frames)
    assert chosen(frames, "tool_calls") == [
        [{"index": 0, "id": "a", "type": "custom", "custom": {"name": "patch", "input": "abc"}}]
    ]


def test_logprobs_are_carried() -> None:
    probs = {"content": [{"token": "x", "logprob": -0.5, "bytes": [120], "top_logprobs": []}], "refusal": None}
    data = orjson.dumps({"id": "up-1", "choices": [{"index": 0, "delta": {"content": "x"}, "logprobs": probs}]})
    frames = write(read(data, chunk(reason="stop")))
    assert [json.loads(each)["choices"][0]["logprobs"] for _, each in frames[1:2]] == [probs]


# -- the checker itself

GOOD = write(
    read(chunk({"content": "x"}), chunk(call(0, "a", "f", "{}")), chunk(reason="tool_calls"), usage_chunk(1, 1))
)


def test_the_checker_takes_a_good_stream() -> None:
    check(GOOD)


@pytest.mark.parametrize("position", [at for at in range(len(GOOD)) if at not in {1, 3}])  # words may say a thing twice
def test_the_checker_sees_an_event_that_is_twice_there(position: int) -> None:
    with pytest.raises(AssertionError, match="event"):
        check([*GOOD[: position + 1], *GOOD[position:]])


@pytest.mark.parametrize("position", [0, 2, len(GOOD) - 3, len(GOOD) - 1])
def test_the_checker_sees_an_event_that_is_missing(position: int) -> None:
    with pytest.raises(AssertionError):
        check(GOOD[:position] + GOOD[position + 1 :])


# -- properties

pieces = st.sampled_from(["", "{", "}", "{}", '{"a":1}', '{"a":', "1}", " ", "x"])
calls = st.builds(
    call,
    st.sampled_from([None, 0, 1, 2]),
    st.sampled_from([None, "", "a", "b"]),
    st.sampled_from([None, "", "f", "g"]),
    pieces,
)
deltas = st.one_of(
    st.builds(lambda word: {"content": word}, st.sampled_from(["", "w", "é\n"])),
    st.builds(lambda word: {"reasoning_content": word}, st.sampled_from(["", "t"])),
    st.builds(lambda word: {"refusal": word}, st.just("r")),
    st.just(
        {
            "reasoning_details": [
                {"type": "reasoning.text", "signature": "S"},
                {"type": "reasoning.encrypted", "data": "D"},
            ]
        }
    ),
    st.just({"function_call": {"name": "f", "arguments": "{}"}}),
    calls,
)
reasons = st.sampled_from([None, None, None, None, "stop", "tool_calls", "length", "content_filter", "odd"])
streams = st.lists(st.one_of(st.builds(chunk, deltas, reasons), st.just(usage_chunk(2, 3))), max_size=14)
anything = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from(["", "x", "function", "reasoning.text"]),
    lambda inner: st.lists(inner, max_size=2)
    | st.dictionaries(
        st.sampled_from(["content", "tool_calls", "function", "index", "id", "name", "arguments", "reasoning_details", "type", "text",
                         "choices", "delta", "error", "usage", "finish_reason", "extra_content", "google", "logprobs", "annotations"]),
        inner, max_size=4,
    ),
    max_leaves=8,
)  # fmt: skip


@given(streams, st.booleans())
def test_any_chunks_become_a_stream_that_is_well_formed_or_cut(chunks: list[bytes], done: bool) -> None:
    events = read(*chunks, done=done)
    frames = write(events)
    if events and isinstance(events[-1], Finish | Fault):
        check([*frames])
    else:
        assert not any(isinstance(event, Finish | Fault) for event in events)
        assert b"[DONE]" not in [data for _, data in frames]


@given(streams)
def test_no_word_is_lost(chunks: list[bytes]) -> None:
    events = read(*chunks)
    if isinstance(events[-1], Fault):
        return
    wanted = "".join(
        choice["delta"].get("content", "")
        for data in chunks
        for choice in json.loads(data)["choices"]
        if choice["delta"]
    )
    assert "".join(chosen(write(events), "content")) == wanted


@given(st.lists(st.builds(chunk, anything) | st.builds(orjson.dumps, anything), max_size=4))
def test_no_json_whatever_makes_a_reader_raise(chunks: list[bytes]) -> None:
    events = read(*chunks)
    assert isinstance(events[-1], Finish | Fault)
    check(write(events))
