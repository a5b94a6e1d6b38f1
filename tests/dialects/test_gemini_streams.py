"""Streams of the Gemini API: read into grammatical events, whatever comes, and written whole and in order."""

from base64 import b64decode
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agw_proxy.dialects.base import (
    Audio,
    Beat,
    BlockStart,
    BlockStop,
    Citation,
    Fault,
    Finish,
    Part,
    Refusal,
    Shown,
    Signature,
    Start,
    Text,
    Thinking,
    Tokens,
    ToolUse,
    sealed,
)
from agw_proxy.dialects.gemini_streams import Reader, Writer
from tests.dialects.grammar_gemini import check, frames_of

SHOWN = Shown("agw-1", "fast", 1_700_000_000)
USAGE = {"promptTokenCount": 10, "candidatesTokenCount": 5, "thoughtsTokenCount": 3, "totalTokenCount": 18}
TOKENS = Tokens(input=10, output=8, reasoning=3)
START = Start("r1", "gemini-2.5-flash")


def chunk(*parts: Any, reason: Any = None, usage: Any = None, **candidate: Any) -> Any:
    tree = {"candidates": [{"content": {"role": "model", "parts": list(parts)}, "index": 0, **candidate}]}
    if reason:
        tree["candidates"][0]["finishReason"] = reason
    if usage:
        tree["usageMetadata"] = usage
    return tree | {"modelVersion": "gemini-2.5-flash", "responseId": "r1"}


def read(*chunks: Any, end: Any = True) -> Any:
    reader = Reader()
    events = [
        event for each in chunks for event in reader.read("", each if isinstance(each, bytes) else orjson.dumps(each))
    ]
    if end:
        events += reader.end()
    return events


def write(*events: Any) -> bytes:
    writer = Writer(SHOWN)
    return b"".join(writer.write(event) for event in events)


def trees(*events: Any) -> Any:
    frames = frames_of(write(*events))
    check(frames)
    return [orjson.loads(data) for _, data in frames]


# -- reading


def test_a_whole_stream_is_read() -> None:
    assert read(
        chunk({"text": "hm", "thought": True}, usage={"promptTokenCount": 10}),
        chunk({"text": "It "}),
        chunk({"text": ""}),
        chunk({"text": "is"}, {"text": "", "thoughtSignature": "c2ln"}),
        chunk({"functionCall": {"name": "f", "args": {"x": 1}}, "thoughtSignature": "c2lo"}, {"functionCall": {"name": "g", "id": "b"}}),
        chunk({"text": ""}, reason="STOP", usage=USAGE),
    ) == [
        Start("r1", "gemini-2.5-flash", tokens=Tokens(input=10, output=0)),
        BlockStart(0, Thinking()), Part("hm"), BlockStop(),
        BlockStart(1, Text("")), Part("It "), Part("is"), Signature(sealed("gemini", "c2ln")), BlockStop(),
        BlockStart(2, ToolUse("call_agw_r1_0", "f", signature=sealed("gemini", "c2lo"))), Part('{"x":1}'), BlockStop(),
        BlockStart(3, ToolUse("b", "g")), Part("{}"), BlockStop(),
        Finish("tool", TOKENS),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "chunks",
    [
        [chunk({"text": "a"}), chunk({"text": "b"}, reason="STOP", usage=USAGE)],
        [chunk({"text": "a"}), chunk({"text": "b"}, reason="STOP"), {"usageMetadata": USAGE}],
        [chunk({"text": "a"}, reason="STOP", usage={"promptTokenCount": 1}), chunk({"text": "b"}, reason="STOP", usage=USAGE)],
        [chunk({"text": "a"}), chunk({"text": "b"}), {"candidates": [{"finishReason": "STOP"}], "usageMetadata": USAGE}],
        [chunk({"text": "a"}), b"", chunk({"text": "b"}, reason="STOP", usage=USAGE), b"[DONE]"],
        [chunk({"text": "a"}), {**chunk({"text": "x"}), "candidates": [{"index": 1}]}, chunk({"text": "b"}, reason="STOP", usage=USAGE)],
        [chunk({"text": "a"}), {"candidates": None, "error": None}, chunk({"text": "b"}, {}, {"codeExecutionResult": {}}, reason="STOP", usage=USAGE)],
    ],
)  # fmt: skip
def test_streams_of_all_manners_are_read_alike(chunks: Any) -> None:
    events = read(*chunks)
    assert events[1:] == [BlockStart(0, Text("")), Part("a"), Part("b"), BlockStop(), Finish("stop", TOKENS)]


def test_no_finish_is_made_up_for_a_stream_that_was_cut() -> None:
    cut = [START, BlockStart(0, Text("")), Part("a")]
    assert read(chunk({"text": "a"})) == cut
    assert read(chunk({"text": "a"}, reason="FINISH_REASON_UNSPECIFIED")) == cut
    assert read() == []


def test_each_number_of_the_usage_is_the_last_that_was_said() -> None:
    last = {"candidatesTokenCount": 5, "thoughtsTokenCount": 3}
    assert (
        read(chunk({"text": "a"}, usage={"promptTokenCount": 10}), chunk(reason="STOP", usage=last))[-1].tokens
        == TOKENS
    )
    assert read(chunk(usage=USAGE), chunk(reason="STOP", usage={"trafficType": "ON_DEMAND"}))[-1].tokens == TOKENS


def test_usage_may_be_absent() -> None:
    assert read(chunk({"text": "a"}, reason="MAX_TOKENS"))[-1] == Finish("length", Tokens())


def test_a_blocked_prompt_is_one_refusal_however_often_it_is_said() -> None:
    blocked = {"promptFeedback": {"blockReason": "SAFETY"}}
    assert read(blocked, blocked)[1:] == read(blocked)[1:]


def test_a_blocked_prompt_is_a_refusal() -> None:
    assert read({"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 3}}) == [
        Start("", "", tokens=Tokens(input=3, output=0)),
        BlockStart(0, Refusal("")),
        Part("The prompt was blocked by the provider: SAFETY."),
        BlockStop(),
        Finish("refusal", Tokens(input=3, output=0)),
    ]


def test_words_after_a_signature_are_another_block() -> None:
    events = read(chunk({"text": "a", "thoughtSignature": "c2ln"}, {"text": "b"}, reason="STOP"))
    assert [event for event in events if isinstance(event, BlockStart)] == [
        BlockStart(0, Text("")),
        BlockStart(1, Text("")),
    ]


def test_a_signature_that_belongs_to_no_words_makes_no_block() -> None:
    assert read(chunk({"text": "", "thoughtSignature": "c2ln"}, reason="STOP")) == [START, Finish("stop", Tokens())]


def test_pages_and_probabilities_are_read() -> None:
    page = {"groundingChunks": [{"web": {"uri": "https://a.org", "title": "A"}}]}
    logprobs = {"chosenCandidates": [{"token": "a", "logProbability": -1.5}]}
    events = read(
        chunk({"text": "a"}, logprobsResult=logprobs),
        chunk({"text": "b"}, groundingMetadata=page),
        chunk(reason="STOP", groundingMetadata=page),
    )
    assert events[2] == Part("a", [{"token": "a", "logprob": -1.5, "bytes": [97], "top_logprobs": []}])
    cited = [event.citation for event in events if isinstance(event, Citation)]
    assert cited == [
        {
            "type": "web_search_result_location",
            "url": "https://a.org",
            "title": "A",
            "cited_text": "",
            "encrypted_index": "",
        }
    ]


@pytest.mark.parametrize(
    ("data", "kind", "status"),
    [
        (b'{"error":{"code":429,"message":"slow","status":"RESOURCE_EXHAUSTED"}}', "rate_limit_error", 429),
        (b'[{"error":{"code":503,"message":"slow","status":"UNAVAILABLE"}}]', "overloaded_error", 503),
        (orjson.dumps(chunk(reason="MALFORMED_FUNCTION_CALL", finishMessage="bad")), "api_error", 0),
        (b"{", "api_error", 0),
        (b"5", "api_error", 0),
        (b'{"candidates":5}', "api_error", 0),
        (b'{"candidates":[{"content":{"parts":[{"text":5}]}}]}', "api_error", 0),
        (b'{"candidates":[{"content":{"parts":[{"functionCall":{}}]}}]}', "api_error", 0),
        (b'{"candidates":[{"finishReason":5}]}', "api_error", 0),
    ],
)
def test_errors_end_the_stream(data: Any, kind: Any, status: Any) -> None:
    reader = Reader()
    reader.read("", orjson.dumps(chunk({"text": "a"})))
    fault: Any = reader.read("", data)[-1]
    assert (type(fault), fault.kind, fault.status) == (Fault, kind, status)
    assert reader.read("", orjson.dumps(chunk({"text": "b"}, reason="STOP"))) == []
    assert reader.end() == []


def test_an_event_called_error_is_one() -> None:
    assert isinstance(Reader().read("error", b"{}")[-1], Fault)


def test_usage_of_bad_manners_is_an_error_at_the_end() -> None:
    events = read(chunk({"text": "a"}), chunk(reason="STOP", usage={"promptTokenCount": "many"}))
    assert isinstance(events[-1], Fault)


# -- writing


def test_a_whole_stream_is_written() -> None:
    found = trees(
        Beat(),
        Start("msg_1", "claude"),
        BlockStart(0, Thinking()), Part("hm"), Signature(sealed("messages", "ErUB")), BlockStop(),
        BlockStart(1, Text("")), Part("It "), Beat(), Part(""), Part("is"), BlockStop(),
        BlockStart(2, ToolUse("toolu_1", "f")), Part('{"x"'), Signature(sealed("gemini", "c2ln")), Part(":1}"), BlockStop(),
        BlockStart(3, ToolUse("call_agw_9_0", "g")), BlockStop(),
        Finish("tool", Tokens(10, 8, 4, 0, 3)),
    )  # fmt: skip
    parts = [tree["candidates"][0]["content"]["parts"][0] for tree in found]
    assert b64decode(parts[1].pop("thoughtSignature")) == b"agw:messages:ErUB"
    assert parts == [
        {"text": "hm", "thought": True},
        {"text": "", "thought": True},
        {"text": "It "},
        {"text": "is"},
        {"functionCall": {"id": "toolu_1", "name": "f", "args": {"x": 1}}, "thoughtSignature": "c2ln"},
        {"functionCall": {"name": "g", "args": {}}},
        {"text": ""},
    ]
    assert found[-1]["candidates"][0]["finishReason"] == "STOP"
    assert found[-1]["usageMetadata"] == {
        "promptTokenCount": 10, "cachedContentTokenCount": 4, "candidatesTokenCount": 5, "thoughtsTokenCount": 3,
        "totalTokenCount": 18,
    }  # fmt: skip
    assert {(tree["modelVersion"], tree["responseId"]) for tree in found} == {("fast", "msg_1")}


def test_blocks_that_begin_with_words_lose_none() -> None:
    first = BlockStart(0, Text("a", signature=sealed("gemini", "c2ln")))
    call = BlockStart(1, ToolUse("a", "f", '{"x":', signature=sealed("gemini", "c2lo")))
    found = trees(Start("", "m"), first, BlockStop(), call, Part("1}"), BlockStop(), Finish("tool", Tokens()))
    parts = [tree["candidates"][0]["content"]["parts"][0] for tree in found]
    assert parts[:2] == [{"text": "a"}, {"text": "", "thoughtSignature": "c2ln"}]
    assert parts[2]["functionCall"]["args"] == {"x": 1}
    assert parts[2]["thoughtSignature"] == "c2lo"
    assert call.block == ToolUse("a", "f", '{"x":', signature=sealed("gemini", "c2lo"))
    assert found[0]["responseId"] == "agw-1"


def test_pages_stand_in_the_last_chunk_with_the_bytes_of_their_text() -> None:
    page = {"type": "web_search_result_location", "url": "https://a.org", "title": "A"}
    found = trees(
        Start("", "m"),
        BlockStart(0, Text("")), Part("Ä"), BlockStop(),
        BlockStart(1, Text("")), Part("b"), Citation(page), Citation(page), Citation({"type": "char_location"}), BlockStop(),
        Finish("stop", Tokens()),
    )  # fmt: skip
    assert found[-1]["candidates"][0]["groundingMetadata"] == {
        "groundingChunks": [{"web": {"uri": "https://a.org", "title": "A"}}],
        "groundingSupports": [{"segment": {"startIndex": 2, "endIndex": 3}, "groundingChunkIndices": [0]}],
    }


def test_probabilities_go_with_their_words() -> None:
    logprobs = [{"token": "a", "logprob": -1.5, "bytes": [97], "top_logprobs": [{"token": "b", "logprob": -2.0}]}]
    found = trees(Start("", "m"), BlockStart(0, Text("")), Part("a", logprobs), BlockStop(), Finish("stop", Tokens()))
    assert found[0]["candidates"][0]["logprobsResult"] == {
        "chosenCandidates": [{"token": "a", "logProbability": -1.5}],
        "topCandidates": [{"candidates": [{"token": "b", "logProbability": -2.0}]}],
    }


@pytest.mark.parametrize(
    "before", [[], [Start("", "m")], [Start("", "m"), BlockStart(0, ToolUse("a", "f")), Part("{")]]
)
def test_an_error_is_the_last_thing_and_has_no_event_line(before: Any) -> None:
    written = write(*before, Fault("slow", "overloaded_error"))
    check(frames_of(written))
    assert written.startswith(b'data: {"error":{"code":503,"message":"slow","status":"UNAVAILABLE"')
    assert b"agw-1" in written


OPEN = [Start("", "m"), BlockStart(0, Text(""))]


@pytest.mark.parametrize(
    "events",
    [
        [Part("a")],
        [BlockStart(0, Text(""))],
        [BlockStop()],
        [Finish("stop", Tokens())],
        [Start("", "m"), Start("", "m")],
        [Start("", "m"), Part("a")],
        [Start("", "m"), Signature("a")],
        [Start("", "m"), BlockStop()],
        [Start("", "m"), BlockStart(1, Text(""))],
        [Start("", "m"), BlockStart(0, Audio("aGk=", "wav"))],
        [Start("", "m"), BlockStart(0, Thinking()), Citation({})],
        [*OPEN, BlockStart(1, Text(""))],
        [*OPEN, Finish("stop", Tokens())],
        [*OPEN, BlockStop(), BlockStart(0, Text(""))],
        [*OPEN, BlockStop(), Finish("stop", Tokens()), Finish("stop", Tokens())],
        [Start("", "m"), Finish("stop", Tokens()), Part("a")],
        [Start("", "m"), Fault("x"), Finish("stop", Tokens())],
        [Start("", "m"), Fault("x"), Fault("x")],
    ],
)
def test_events_against_the_grammar_are_refused(events: Any) -> None:
    writer = Writer(SHOWN)
    for event in events[:-1]:
        writer.write(event)
    with pytest.raises(ValueError):
        writer.write(events[-1])


# -- properties


def grammatical(events: Any) -> bool:
    """Assert the grammar of ``base``; True where the stream is whole."""
    expected, inside, over = 0, False, False
    for at, event in enumerate(events):
        assert not over, f"{event} after the end"
        assert isinstance(event, Start) == (at == 0) or (at == 0 and isinstance(event, Fault)), f"{event} at {at}"
        if isinstance(event, BlockStart):
            assert (inside, event.index) == (False, expected), event
            inside, expected = True, expected + 1
        elif isinstance(event, Part | Signature | Citation | BlockStop):
            assert inside, event
            inside = not isinstance(event, BlockStop)
        elif isinstance(event, Finish):
            assert not inside
        over = isinstance(event, Finish | Fault)
    return over and isinstance(events[-1], Finish)


words = st.text(max_size=8)
signatures = st.fixed_dictionaries({}, optional={"thoughtSignature": st.sampled_from(["c2ln", "c2lo"])})
parts = st.one_of(
    st.builds(lambda said, signed: {"text": said} | signed, words, signatures),
    st.builds(lambda said, signed: {"text": said, "thought": True} | signed, words, signatures),
    st.builds(
        lambda name, args, signed: {"functionCall": {"name": name, "args": args}} | signed,
        st.sampled_from(["f", "g"]), st.dictionaries(words, st.integers(0, 9), max_size=2), signatures,
    ),
    st.just({"executableCode": {"code": "1"}}),
)  # fmt: skip


@given(st.lists(st.lists(parts, max_size=3), max_size=6), st.sampled_from(["STOP", "MAX_TOKENS", "SAFETY", None]))
def test_what_is_read_is_grammatical_and_what_is_written_of_it_reads_the_same(chunks: Any, reason: Any) -> None:
    events = read(*[chunk(*each) for each in chunks], *([chunk(reason=reason, usage=USAGE)] if reason else []))
    assert grammatical(events) == (reason is not None)
    if reason is None:
        return
    said = [each["text"] for found in chunks for each in found if "text" in each and not each.get("thought")]
    frames = frames_of(write(*events))
    check(frames)
    again = read(*[data for _, data in frames])
    for kind in (Part, Signature, BlockStart):
        assert [event for event in again if isinstance(event, kind)] == [
            event for event in events if isinstance(event, kind)
        ]
    assert again[-1] == events[-1]
    texts, inside = [], False
    for event in events:
        inside = isinstance(event.block, Text) if isinstance(event, BlockStart) else inside
        if isinstance(event, Part) and inside:
            texts.append(event.text)
    assert "".join(texts) == "".join(said)


junk = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([
        "candidates", "content", "parts", "text", "functionCall", "args", "name", "finishReason", "usageMetadata", "index",
        "promptTokenCount", "promptFeedback", "blockReason", "groundingMetadata", "logprobsResult", "error", "responseId",
        "thought", "thoughtSignature", "inlineData", "modelVersion",
    ]), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@given(
    st.lists(
        junk.map(orjson.dumps) | st.binary(max_size=9) | parts.map(lambda part: orjson.dumps(chunk(part))), max_size=6
    )
)
def test_whatever_comes_is_read_into_the_grammar(chunks: Any) -> None:
    events = read(*chunks)
    grammatical(events)
    written = write(*events)
    if events and isinstance(events[-1], Finish | Fault):
        check(frames_of(written))


def test_a_call_of_nothing_is_a_fault() -> None:
    assert isinstance(read(chunk({"functionCall": {"name": "", "args": {}}}, reason="STOP"))[-1], Fault)


def test_counts_below_zero_are_none() -> None:
    usage = {"promptTokenCount": 10, "candidatesTokenCount": 5, "cachedContentTokenCount": -1}
    assert read(chunk({"text": "x"}, reason="STOP", usage=usage))[-1] == Finish("stop", Tokens(10, 5))
