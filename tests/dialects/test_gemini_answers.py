"""Answers and errors of the Gemini API: read, and written so that Google's SDKs take them."""

from base64 import b64decode
from itertools import pairwise
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agw_proxy.dialects.base import (
    Answer,
    Fault,
    Image,
    Malformed,
    Refusal,
    Shown,
    Text,
    Thinking,
    Tokens,
    ToolUse,
    sealed,
)
from agw_proxy.dialects.gemini_answers import (
    read_answer,
    read_fault,
    write_answer,
    write_fault,
)
from tests.dialects.schema_gemini import conforms

SHOWN = Shown("agw-1", "fast", 1_700_000_000)


def whole(*parts: Any, reason: Any = "STOP", **members: Any) -> Any:
    candidate = {"content": {"role": "model", "parts": list(parts)}, "finishReason": reason, "index": 0}
    return {"candidates": [candidate], "modelVersion": "gemini-2.5-flash", "responseId": "r1", **members}


def written(*blocks: Any, stop: Any = "stop", tokens: Any = None, name: Any = "r1") -> Any:
    tree = write_answer(Answer(name, "gemini-2.5-flash", list(blocks), stop, tokens or Tokens()), SHOWN)
    conforms(tree, "Response")
    return tree


def found_in(tree: Any) -> Any:
    return read_answer(tree)


def test_a_whole_answer_is_read() -> None:
    answer = found_in(
        whole(
            {"text": "Let me ", "thought": True},
            {"text": "see", "thought": True},
            {"text": "It "},
            {"text": "is", "thoughtSignature": "c2ln"},
            {"text": " so"},
            {"functionCall": {"name": "f", "args": {"x": 1}, "id": "a"}, "thoughtSignature": "c2lo"},
            {"executableCode": {"code": "1"}},
            {"inlineData": {"mimeType": "image/png", "data": "AAAA"}},
            usageMetadata={
                "promptTokenCount": 10,
                "cachedContentTokenCount": 4,
                "toolUsePromptTokenCount": 2,
                "candidatesTokenCount": 5,
                "thoughtsTokenCount": 3,
                "totalTokenCount": 20,
            },
        )
    )
    assert answer == Answer(
        id="r1",
        model="gemini-2.5-flash",
        blocks=[
            Thinking("Let me see"),
            Text("It is", signature=sealed("gemini", "c2ln")),
            Text(" so"),
            ToolUse("a", "f", '{"x":1}', signature=sealed("gemini", "c2lo")),
            Image(data="AAAA", media_type="image/png"),
        ],
        stop="tool",
        tokens=Tokens(input=12, output=8, cached=4, reasoning=3),
    )


def test_calls_without_ids_get_ids_of_the_answer() -> None:
    calls = [{"functionCall": {"name": "f", "args": {"x": 1}}}, {"functionCall": {"name": "f", "args": {"x": 1}}}]
    ids = [block.id for block in found_in(whole(*calls)).blocks]
    assert ids == ["call_agw_r1_0", "call_agw_r1_1"]
    nameless = [
        found_in({**whole(each), "responseId": None}).blocks[0].id
        for each in (calls[0], {"functionCall": {"name": "f"}})
    ]
    assert len(set(nameless)) == 2
    long = found_in({**whole(*calls), "responseId": "a/b" * 50}).blocks[1].id
    assert len(long) <= 64
    assert "/" not in long


def test_a_signature_without_words_is_of_the_words_before_it() -> None:
    blocks = found_in(whole({"text": "so"}, {"text": "", "thoughtSignature": "c2ln"})).blocks
    assert blocks == [Text("so", signature=sealed("gemini", "c2ln"))]


@pytest.mark.parametrize(
    ("reason", "stop"),
    [
        ("STOP", "stop"), ("MAX_TOKENS", "length"), ("SAFETY", "refusal"), ("RECITATION", "refusal"), ("SPII", "refusal"),
        ("PROHIBITED_CONTENT", "refusal"), ("BLOCKLIST", "refusal"), ("A_NEW_ONE", "stop"), (None, "stop"),
    ],
)  # fmt: skip
def test_reasons_to_stop_are_read(reason: Any, stop: Any) -> None:
    assert found_in(whole({"text": "x"}, reason=reason)).stop == stop


def test_a_blocked_prompt_is_a_refusal() -> None:
    answer = found_in({"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 3}})
    assert answer.blocks == [Refusal("The prompt was blocked by the provider: SAFETY.")]
    assert (answer.stop, answer.tokens) == ("refusal", Tokens(input=3, output=0))
    told = found_in({"prompt_feedback": {"block_reason": "OTHER", "block_reason_message": "No."}})
    assert told.blocks == [Refusal("No.")]


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        (None, Tokens()),
        ({}, Tokens()),
        ({"promptTokenCount": 5}, Tokens(input=5, output=0)),
        ({"candidatesTokenCount": 5}, Tokens(output=5)),
        ({"promptTokenCount": "5", "thoughtsTokenCount": 2}, Tokens(input=5, output=2, reasoning=2)),
    ],
)
def test_usage_is_read(usage: Any, tokens: Any) -> None:
    assert found_in(whole({"text": "x"}, usageMetadata=usage)).tokens == tokens


def test_pages_and_probabilities_are_read() -> None:
    tree = whole({"text": "Paris"})
    tree["candidates"][0] |= {
        "groundingMetadata": {
            "groundingChunks": [{"web": {"uri": "https://a.org", "title": "A"}}, {"web": {"uri": "https://b.org"}}, {"maps": {}}],
            "groundingSupports": [{"segment": {"endIndex": 5, "text": "Paris"}, "groundingChunkIndices": [0, 9, "x"]}, None],
        },
        "logprobsResult": {
            "chosenCandidates": [{"token": "Par", "logProbability": -0.5}, {"token": "is"}],
            "topCandidates": [{"candidates": [{"token": "Par", "logProbability": -0.5}, {"token": "Lon", "logProbability": -2}]}],
        },
    }  # fmt: skip
    text = found_in(tree).blocks[0]
    assert text.citations == [
        {"type": "web_search_result_location", "url": "https://a.org", "title": "A", "cited_text": "Paris", "encrypted_index": ""},
        {"type": "web_search_result_location", "url": "https://b.org", "title": "", "cited_text": "", "encrypted_index": ""},
    ]  # fmt: skip
    assert text.logprobs == [
        {"token": "Par", "logprob": -0.5, "bytes": [80, 97, 114], "top_logprobs": [
            {"token": "Par", "logprob": -0.5, "bytes": [80, 97, 114]}, {"token": "Lon", "logprob": -2, "bytes": [76, 111, 110]},
        ]},
        {"token": "is", "logprob": 0.0, "bytes": [105, 115], "top_logprobs": []},
    ]  # fmt: skip
    again = written(text)["candidates"][0]
    found = again["logprobsResult"]
    assert found["chosenCandidates"] == [
        {"token": "Par", "logProbability": -0.5},
        {"token": "is", "logProbability": 0.0},
    ]
    assert [len(each.get("candidates", ())) for each in found["topCandidates"]] == [2, 0]
    assert again["groundingMetadata"] == {
        "groundingChunks": [{"web": {"uri": "https://a.org", "title": "A"}}, {"web": {"uri": "https://b.org", "title": ""}}],
        "groundingSupports": [{"segment": {"startIndex": 0, "endIndex": 5}, "groundingChunkIndices": [0, 1]}],
    }  # fmt: skip


@pytest.mark.parametrize(
    "tree",
    [
        {},
        {"candidates": []},
        {"candidates": {}},
        {"candidates": [1]},
        {"candidates": [{"content": {"parts": {}}}]},
        {"candidates": [{"content": {"parts": [{"text": 5}]}}]},
        {"candidates": [{"content": [], "finishReason": "STOP"}]},
        whole({"text": "x"}, usageMetadata={"promptTokenCount": "many"}),
        whole({"text": "x"}, reason="MALFORMED_FUNCTION_CALL"),
        {"promptFeedback": {}},
    ],
)
def test_what_is_no_answer_is_malformed(tree: Any) -> None:
    with pytest.raises(Malformed):
        found_in(tree)


def test_an_answer_is_written_for_googles_sdks() -> None:
    tree = written(
        Thinking("hm", sealed("messages", "ErUB")),
        Text("so", signature=sealed("gemini", "c2ln")),
        ToolUse("toolu_1", "f", '{"x":1}'),
        Refusal("no"),
        Image(data="AAAA"),
        stop="tool",
        tokens=Tokens(input=10, output=8, cached=4, reasoning=3),
        name="msg_1",
    )
    thought, *others = tree["candidates"][0]["content"]["parts"]
    assert b64decode(thought.pop("thoughtSignature")) == b"agw:messages:ErUB"
    assert thought == {"text": "hm", "thought": True}
    assert others == [
        {"text": "so", "thoughtSignature": "c2ln"},
        {"functionCall": {"id": "toolu_1", "name": "f", "args": {"x": 1}}},
        {"text": "no"},
        {"inlineData": {"mimeType": "image/png", "data": "AAAA"}},
    ]
    assert tree["usageMetadata"] == {
        "promptTokenCount": 10, "cachedContentTokenCount": 4, "candidatesTokenCount": 5, "thoughtsTokenCount": 3,
        "totalTokenCount": 18,
    }  # fmt: skip
    assert (tree["modelVersion"], tree["responseId"], tree["candidates"][0]["finishReason"]) == (
        "fast",
        "msg_1",
        "STOP",
    )


def test_an_answer_without_anything_still_has_a_part() -> None:
    tree = written(name="")
    assert tree["candidates"][0]["content"]["parts"] == [{"text": ""}]
    assert tree["responseId"] == "agw-1"
    assert "usageMetadata" not in tree


@pytest.mark.parametrize(
    ("stop", "reason"),
    [
        ("stop", "STOP"),
        ("length", "MAX_TOKENS"),
        ("tool", "STOP"),
        ("refusal", "SAFETY"),
        ("sequence", "STOP"),
        ("pause", "STOP"),
    ],
)
def test_reasons_to_stop_are_written(stop: Any, reason: Any) -> None:
    assert written(Text("x"), stop=stop)["candidates"][0]["finishReason"] == reason


def error(code: Any = 429, status: Any = "RESOURCE_EXHAUSTED", details: Any = None, message: Any = "Slow down") -> Any:
    return orjson.dumps({"error": {"code": code, "message": message, "status": status, "details": details or []}})


QUOTA = {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{"quotaId": "RequestsPerDayPerModel"}]}


@pytest.mark.parametrize(
    ("status", "body", "fault"),
    [
        (429, error(), Fault("Slow down", "rate_limit_error", 429)),
        (429, error(details=[QUOTA]), Fault("Slow down", "rate_limit_error", 429, "insufficient_quota")),
        (
            400,
            error(400, "INVALID_ARGUMENT", [{"reason": "API_KEY_INVALID"}]),
            Fault("Slow down", "authentication_error", 400),
        ),
        (503, error(503, "UNAVAILABLE"), Fault("Slow down", "overloaded_error", 503)),
        (0, b"[" + error() + b"]", Fault("Slow down", "rate_limit_error", 429)),
        (404, b'{"error": "gone"}', Fault("gone", "not_found_error", 404)),
        (502, b"<html>", Fault("The upstream answered 502 Bad Gateway.", "overloaded_error", 502)),
        (500, b"oops", Fault("oops", "api_error", 500)),
        (418, b'{"error": {"details": 5}}', Fault("The upstream answered 418 I'm a Teapot.", "invalid_request_error", 418)),
        (0, b"", Fault("The upstream reported an error without a message.", "api_error")),
    ],
)  # fmt: skip
def test_errors_are_read(status: Any, body: Any, fault: Any) -> None:
    assert read_fault(status, body) == fault


@pytest.mark.parametrize(
    ("fault", "code", "status"),
    [
        (Fault("m", "rate_limit_error", 429), 429, "RESOURCE_EXHAUSTED"),
        (Fault("m", "overloaded_error", 529), 529, "UNAVAILABLE"),
        (Fault("m", "overloaded_error"), 503, "UNAVAILABLE"),
        (Fault("m", "insufficient_quota"), 429, "RESOURCE_EXHAUSTED"),
        (Fault("m", "invalid_request_error", 422), 422, "INVALID_ARGUMENT"),
        (Fault("m", "server_error"), 500, "INTERNAL"),
        (Fault("m", "x", 599), 599, "INTERNAL"),
    ],
)
def test_errors_are_written(fault: Any, code: Any, status: Any) -> None:
    tree = write_fault(fault, "req_1")
    conforms(tree, "ErrorBody")
    assert tree["error"] == {
        "code": code,
        "message": "m",
        "status": status,
        "details": [{"@type": "type.googleapis.com/google.rpc.RequestInfo", "requestId": "req_1"}],
    }
    assert "details" not in write_fault(fault, "")["error"]


def test_an_errors_place_is_told() -> None:
    details = write_fault(Fault("m", "invalid_request_error", 400, param="messages[0]"), "")["error"]["details"]
    assert details[0]["fieldViolations"] == [{"field": "messages[0]", "description": "m"}]


words = st.text(min_size=1, max_size=20)
blocks = st.one_of(
    st.builds(Text, words, signature=st.sampled_from([None, "agw:gemini:c2ln"])),
    st.builds(Thinking, words, signature=st.sampled_from([None, "agw:gemini:c2ln", "agw:messages:+/ErUB==", "agw:responses:gAAA_-"])),
    st.builds(ToolUse, st.sampled_from(["a", "toolu_b"]), words, st.sampled_from(['{"x":1}', "{}"])),
)  # fmt: skip


def apart(found: Any) -> bool:
    """Neighbours that reading would put together are none."""
    return all(
        type(one) is not type(other) or isinstance(one, ToolUse) or one.signature is not None
        for one, other in pairwise(found)
    )


@given(
    st.lists(blocks, min_size=1, max_size=5).filter(apart),
    st.sampled_from(["stop", "length", "refusal"]),
    st.builds(
        lambda rest, said, thought, cached: Tokens(rest + cached, said + thought, cached, 0, thought),
        *[st.integers(0, 999)] * 4,
    ),
)
def test_what_is_written_is_read_again_as_it_was(found: Any, stop: Any, tokens: Any) -> None:
    called = any(isinstance(block, ToolUse) for block in found)
    answer = Answer("r1", "fast", found, "tool" if called and stop == "stop" else stop, tokens)
    tree = write_answer(answer, SHOWN)
    conforms(tree, "Response")
    assert found_in(orjson.loads(orjson.dumps(tree))) == answer


junk = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([
        "candidates", "content", "parts", "text", "functionCall", "args", "name", "finishReason", "usageMetadata", "index",
        "promptTokenCount", "promptFeedback", "blockReason", "groundingMetadata", "groundingChunks", "groundingSupports",
        "web", "uri", "groundingChunkIndices", "logprobsResult", "chosenCandidates", "topCandidates", "token", "error",
    ]), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@given(junk, junk)
def test_bad_manners_are_malformed_and_never_another_exception(tree: Any, part: Any) -> None:
    for each in (
        tree,
        whole(part),
        {"candidates": [tree]},
        {"candidates": [{"groundingMetadata": part, "logprobsResult": tree}]},
    ):
        if not isinstance(each, dict):
            continue
        try:
            write_answer(found_in(each), SHOWN)
        except Malformed:
            continue
    read_fault(500, orjson.dumps(tree))
