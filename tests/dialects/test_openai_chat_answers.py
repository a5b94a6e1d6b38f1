"""Whole Chat answers and errors: what real servers send is read, and what is written is OpenAI's own object."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion

from agw_proxy.dialects.base import (
    Answer,
    Block,
    Fault,
    Image,
    Malformed,
    Refusal,
    Request,
    Shown,
    Text,
    Thinking,
    Tokens,
    Tool,
    ToolUse,
    Tree,
    sealed,
)
from agw_proxy.dialects.openai_chat_answers import read_answer, read_fault, write_answer, write_fault
from agw_proxy.dialects.openai_chat_streams import Reader
from tests.dialects.chat_vectors import PIXEL, SHOWN


def answered(message: Tree, reason: Any = "stop", **members: Any) -> Tree:
    """An upstream's answer. ``members``: of the choice where OpenAI has them there, else of the whole."""
    choice: Tree = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": reason}
    for name in ("logprobs", "stop_reason"):
        if name in members:
            choice[name] = members.pop(name)
    head = {"id": "up-1", "object": "chat.completion", "created": 1_600_000_000, "model": "up-model"}
    return {**head, "choices": [choice], **members}


def shown(*blocks: Block, stop: Any = "stop", **members: Any) -> Tree:
    """What a caller gets, checked by the official model."""
    return official(write_answer(Answer("up-1", "up-model", list(blocks), stop, Tokens(3, 2), **members), SHOWN))


def official(tree: Tree) -> Tree:
    ChatCompletion.model_validate(tree, strict=True)
    assert set(tree) <= set(ChatCompletion.model_fields)
    return tree


def use(identity: str | None = "a", name: str = "f", arguments: Any = "{}") -> Tree:
    tree: Tree = {"type": "function", "function": {"name": name, "arguments": arguments}}
    return tree if identity is None else {"id": identity, **tree}


# -- reading


def test_a_plain_answer() -> None:
    usage = {
        "prompt_tokens": 10, "completion_tokens": 7, "total_tokens": 17,
        "prompt_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 2}, "completion_tokens_details": {"reasoning_tokens": 5},
    }  # fmt: skip
    assert read_answer(answered({"content": "Hi"}, usage=usage, service_tier="flex")) == Answer(
        "up-1", "up-model", [Text("Hi")], "stop", Tokens(10, 7, 4, 2, 5), 1_600_000_000, service_tier="flex"
    )


@pytest.mark.parametrize(
    ("message", "reason", "stop"),
    [
        ({"content": "x"}, "stop", "stop"),
        ({"content": "x"}, "length", "length"),
        ({"content": "x"}, "content_filter", "refusal"),
        ({"content": "x"}, "eos", "stop"),
        ({"content": "x"}, None, "stop"),
        ({"content": "x"}, 5, "stop"),
        ({"content": "x"}, "tool_calls", "stop"),
        ({"refusal": "no"}, "stop", "refusal"),
        ({"tool_calls": [use()]}, "tool_calls", "tool"),
        ({"tool_calls": [use()]}, "stop", "tool"),
        ({"tool_calls": [use()]}, "length", "length"),
        ({"function_call": {"name": "f", "arguments": "{}"}}, "function_call", "tool"),
    ],
)
def test_why_it_ended(message: Tree, reason: Any, stop: str) -> None:
    assert read_answer(answered(message, reason)).stop == stop


@pytest.mark.parametrize("reason", ["error", "abort", "insufficient_system_resource"])
def test_an_answer_that_its_server_has_given_up_is_none(reason: str) -> None:
    with pytest.raises(Malformed, match=reason):
        read_answer(answered({"content": "x"}, reason))


def test_a_stop_sequence_is_told() -> None:
    answer = read_answer(answered({"content": "x"}, stop_reason="END"))
    assert (answer.stop, answer.stop_sequence) == ("sequence", "END")


def test_blocks_in_their_order() -> None:
    message = {
        "content": "x",
        "refusal": "no",
        "reasoning_content": "hm",
        "reasoning": "hm",
        "tool_calls": [use(), use("b", "g", '{"x":1}')],
    }
    assert read_answer(answered(message)).blocks == [
        Thinking("hm"), Text("x"), Refusal("no"), ToolUse("a", "f", "{}"), ToolUse("b", "g", '{"x":1}')
    ]  # fmt: skip


def test_content_in_parts_and_pictures() -> None:
    parts = [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "x"}]
    pictures = [{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}]
    blocks = read_answer(answered({"content": parts, "images": pictures})).blocks
    assert blocks == [Thinking("hm"), Text("x"), Image(data=PIXEL, media_type="image/png")]
    assert shown(*blocks)["choices"][0]["message"]["images"] == pictures
    linked = {"type": "image_url", "image_url": {"url": "https://a.b/c.png"}}
    assert read_answer(answered({"images": [linked]})).blocks == [Image(url="https://a.b/c.png")]
    with pytest.raises(Malformed):
        read_answer(answered({"images": [{"type": "image_url"}]}))


def test_odd_parts_of_content_are_passed_over() -> None:
    parts = [
        {"type": "thinking", "thinking": [1, {"text": 2}, {"text": "hm"}]},
        {"thinking": "so"},
        {"type": "reference"},
    ]
    assert read_answer(answered({"content": parts})).blocks == [Thinking("hm"), Thinking("so")]


def test_calls_without_ids_get_one_that_stays_the_same() -> None:
    tree = answered({"tool_calls": [use(None), use(""), use(None, "f", {"x": 1})]})
    blocks = [block for block in read_answer(tree).blocks if isinstance(block, ToolUse)]
    assert len({block.id for block in blocks} - {""}) == 3
    assert blocks == read_answer(tree).blocks
    assert blocks[2].arguments == '{"x":1}'


def test_annotations_cut_the_text() -> None:
    def note(url: str, start: int, end: int) -> Tree:
        return {
            "type": "url_citation",
            "url_citation": {"url": url, "title": "T", "start_index": start, "end_index": end},
        }

    notes = [
        note("https://b", 4, 6),
        note("https://a", 0, 2),
        note("https://c", 4, 6),
        {"type": "odd"},
        note("https://d", 90, 91),
    ]
    blocks = read_answer(answered({"content": "abcdefgh", "annotations": notes})).blocks
    texts = [block for block in blocks if isinstance(block, Text)]
    assert [(block.text, [each["url"] for each in block.citations]) for block in texts] == [
        ("ab", ["https://a"]), ("cd", []), ("ef", ["https://b", "https://c", "https://d"]), ("gh", [])
    ]  # fmt: skip
    message = shown(*blocks)["choices"][0]["message"]
    assert message["content"] == "abcdefgh"
    assert message["annotations"] == [notes[1], notes[0], notes[2], note("https://d", 4, 6)]


def test_a_source_without_a_url_is_not_shown() -> None:
    source = {"type": "char_location", "document_index": 0, "document_title": "T"}
    assert shown(Text("x", citations=[source]))["choices"][0]["message"]["annotations"] == []


@pytest.mark.parametrize(
    ("total", "tokens"),
    [
        (17, Tokens(10, 7, reasoning=5)),
        (None, Tokens(10, 7, reasoning=5)),  # there cannot be more of them than of all
        (12, Tokens(10, 2, reasoning=2)),
    ],
)
def test_thoughts_counted_beside_the_answer_are_counted_in(total: int | None, tokens: Tokens) -> None:
    usage = {
        "prompt_tokens": 10,
        "completion_tokens": 2,
        "total_tokens": total,
        "completion_tokens_details": {"reasoning_tokens": 5},
    }
    assert read_answer(answered({"content": "x"}, usage=usage)).tokens == tokens


def test_cached_tokens_may_stand_anywhere() -> None:
    for more in ({"cached_tokens": 4}, {"prompt_cache_hit_tokens": 4}, {"prompt_tokens_details": {"cached_tokens": 4}}):
        usage = {"prompt_tokens": 10, "completion_tokens": 2, **more}
        assert read_answer(answered({"content": "x"}, usage=usage)).tokens == Tokens(10, 2, cached=4)


@pytest.mark.parametrize("usage", [None, {}, [], {"prompt_tokens": "5"}])
def test_usage_may_be_unknown(usage: Any) -> None:
    answer = read_answer(answered({"content": "x"}, usage=usage))
    assert answer.tokens == Tokens()
    assert "usage" not in official(write_answer(answer, SHOWN))


@pytest.mark.parametrize(
    ("tree", "param"),
    [
        ({}, "choices"),
        ({"choices": []}, "choices"),
        ({"choices": [{}, {}]}, "choices"),
        ({"choices": [1]}, "choices[0]"),
        ({"choices": [{}]}, "choices[0].message"),
        (answered({"content": 1}), "choices[0].message.content"),
        (answered({"tool_calls": [1]}), "choices[0].message.tool_calls[0]"),
        (answered({"tool_calls": [{"id": "a", "function": {}}]}), "choices[0].message.tool_calls[0].function.name"),
        ({"error": {"message": "Slow down"}}, None),
    ],
)
def test_what_is_no_answer_is_malformed(tree: Tree, param: str | None) -> None:
    with pytest.raises(Malformed) as caught:
        read_answer(tree)
    assert caught.value.param == param


# -- writing


def test_the_object_of_the_reference() -> None:
    assert shown(Text("Hi"), service_tier="standard") == {
        "id": "up-1",
        "object": "chat.completion",
        "created": SHOWN.now,
        "model": "asked-for",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hi", "refusal": None, "annotations": []},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 3,
            "completion_tokens": 2,
            "total_tokens": 5,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": 0, "audio_tokens": 0, "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0,
            },
        },
        "service_tier": "default",
    }  # fmt: skip
    assert "service_tier" not in shown(Text("Hi"), service_tier="batch")


@pytest.mark.parametrize(
    ("blocks", "stop", "reason"),
    [
        ([Text("x")], "length", "length"),
        ([Text("x")], "sequence", "stop"),
        ([Text("x")], "pause", "stop"),
        ([Text("x")], "refusal", "content_filter"),
        ([Refusal("no")], "refusal", "stop"),
        ([ToolUse("a", "f", "{}")], "tool", "tool_calls"),
    ],
)
def test_reasons(blocks: list[Block], stop: Any, reason: str) -> None:
    assert shown(*blocks, stop=stop)["choices"][0]["finish_reason"] == reason


def test_calls_have_no_content_and_always_arguments() -> None:
    message = shown(ToolUse("a", "f"), ToolUse("b", "p", "abc", custom=True), stop="tool")["choices"][0]["message"]
    assert message["content"] is None
    assert message["tool_calls"] == [use(), {"id": "b", "type": "custom", "custom": {"name": "p", "input": "abc"}}]


def test_an_empty_answer_has_empty_content() -> None:
    assert shown()["choices"][0]["message"]["content"] == ""
    assert shown(Refusal("no"))["choices"][0]["message"] == {
        "role": "assistant", "content": None, "refusal": "no", "annotations": [],
    }  # fmt: skip


def test_a_callers_custom_tool_is_called_with_plain_input() -> None:
    asked = Shown("abc123", "m", 1, request=Request("m", [], tools=[Tool("p")]))
    answer = Answer("", "u", [ToolUse("b", "p", '{"input":"abc"}')], "tool", Tokens())
    tree = official(write_answer(answer, asked))
    assert tree["id"] == "chatcmpl-abc123"
    assert tree["choices"][0]["message"]["tool_calls"][0]["custom"] == {"name": "p", "input": "abc"}


def test_thoughts_and_signatures_of_others_travel_sealed() -> None:
    seal = sealed("messages", "SIG")
    message = shown(Thinking("hm", seal), Thinking(signature=seal, hidden=True), Thinking("so"), Text("x"))["choices"][
        0
    ]["message"]
    assert message["reasoning_content"] == "hmso"
    assert message["reasoning_details"] == [
        {"type": "reasoning.text", "text": "hm", "signature": seal, "index": 0},
        {"type": "reasoning.encrypted", "data": seal, "index": 1},
    ]


def test_logprobs_are_carried() -> None:
    probs = {"content": [{"token": "x", "logprob": -0.5, "bytes": [120], "top_logprobs": []}], "refusal": None}
    answer = read_answer(answered({"content": "x"}, logprobs=probs))
    assert official(write_answer(answer, SHOWN))["choices"][0]["logprobs"] == probs
    assert read_answer(answered({"content": "x"}, logprobs={"content": [1]})).blocks == [Text("x")]


# -- errors


@pytest.mark.parametrize(
    ("status", "body", "wanted"),
    [
        (429, b'{"error":{"message":"Slow","type":"tokens","code":"rate_limit_exceeded","param":null}}', Fault("Slow", "tokens", 429, "rate_limit_exceeded")),
        (400, b'{"error":{"message":"Bad","type":"invalid_request_error","param":"n"}}', Fault("Bad", "invalid_request_error", 400, param="n")),
        (500, b'{"error":"Out of memory"}', Fault("Out of memory", "api_error", 500)),
        (404, b'[{"error":{"code":404,"message":"None","status":"NOT_FOUND"}}]', Fault("None", "not_found_error", 404)),
        (401, b'{"message":"Unauthorized"}', Fault("Unauthorized", "authentication_error", 401)),
        (422, b'{"detail":[{"loc":["body"]}]}', Fault('[{"loc":["body"]}]', "invalid_request_error", 422)),
        (400, b'{"object":"error","message":"Bad","type":"BadRequestError","code":40001}', Fault("Bad", "BadRequestError", 400, "40001")),
        (502, b"<html>", Fault("The upstream answered with status 502.", "api_error", 502)),
        (418, b"", Fault("The upstream answered with status 418.", "invalid_request_error", 418)),
        (400, b"[]", Fault("The upstream answered with status 400.", "invalid_request_error", 400)),
        (400, b"{}", Fault("{}", "invalid_request_error", 400)),
    ],
)  # fmt: skip
def test_errors_of_all_servers(status: int, body: bytes, wanted: Fault) -> None:
    assert read_fault(status, body) == wanted


def test_what_is_nested_too_deeply_is_malformed() -> None:
    deep: Any = {}
    for _ in range(400):
        deep = {"x": deep}
    with pytest.raises(Malformed):
        read_answer(answered({"tool_calls": [use("a", "f", deep)]}))
    with pytest.raises(Malformed):
        read_answer(answered({"reasoning_details": [{"type": "reasoning.encrypted", "data": "x", "y": deep}]}))
    nested = b'{"x":' * 400 + b"1" + b"}" * 400
    assert read_fault(400, b'{"error":' + nested + b"}") == Fault(
        "The upstream answered with status 400.", "invalid_request_error", 400
    )
    start = b'{"choices":[{"delta":{"tool_calls":[{"id":"a","function":{"name":"f","arguments":'
    assert isinstance(Reader().read("", start + nested + b"}}]}}]}")[-1], Fault)
    assert isinstance(Reader().read("", b'{"error":' + nested + b"}")[-1], Fault)


def test_an_errors_words_are_bounded() -> None:
    assert len(read_fault(400, json.dumps({"error": {"message": "x" * 9000}}).encode()).message) == 4000


def test_errors_are_written_as_openai_has_them() -> None:
    assert write_fault(Fault("Slow", "rate_limit_error", 429), "req_1") == {
        "error": {"message": "Slow", "type": "rate_limit_error", "param": None, "code": "rate_limit_exceeded"}
    }
    assert write_fault(Fault("Bad", status=400, code="c", param="p"), "req_1") == {
        "error": {"message": "Bad", "type": "invalid_request_error", "param": "p", "code": "c"}
    }
    assert write_fault(Fault("?"), "req_1")["error"]["type"] == "api_error"


# -- properties

signatures = st.sampled_from([None, sealed("chat", "S"), sealed("messages", "S")])
answers = st.builds(
    lambda thoughts, words, calls, stop: Answer("up-1", SHOWN.model, [*thoughts, *words, *calls], "tool" if calls else stop, Tokens(5, 4, 3, 2, 1), 9),
    st.lists(st.builds(Thinking, st.just("hm"), signatures), max_size=1),
    st.lists(st.builds(Text, st.text(min_size=1, max_size=5)), max_size=1),
    st.lists(st.builds(ToolUse, st.sampled_from("ab"), st.just("f"), st.just("{}"), st.booleans(), signature=signatures), max_size=2),
    st.sampled_from(["stop", "length", "refusal"]),
)  # fmt: skip


@given(answers)
def test_a_round_trip_changes_nothing(answer: Answer) -> None:
    assert read_answer(official(write_answer(answer, SHOWN))) == answer


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from(["", "x", "stop", "reasoning.text", "data:x"]),
    lambda inner: st.lists(inner, max_size=2)
    | st.dictionaries(st.sampled_from(["content", "refusal", "tool_calls", "function", "name", "arguments", "id", "reasoning_details", "type",
                                       "text", "annotations", "url_citation", "url", "images", "image_url", "thinking"]), inner, max_size=4),
    max_leaves=8,
)  # fmt: skip
MEMBERS = st.sampled_from(["usage", "logprobs", "stop_reason", "id", "created", "model", "service_tier", "error"])


@given(anything, anything, st.dictionaries(MEMBERS, anything, max_size=2))
def test_no_tree_whatever_raises_anything_but_malformed(message: Any, reason: Any, members: Tree) -> None:
    tree = answered(message if isinstance(message, dict) else {"content": message}, reason, **members)
    try:
        answer = read_answer(tree)
    except Malformed:
        return
    assert msgspec.convert(msgspec.to_builtins(answer), Answer) == answer, "a member is not of its type"
    official(write_answer(answer, SHOWN))


@given(st.integers(300, 599), st.binary(max_size=20) | anything.map(lambda tree: json.dumps({"error": tree}).encode()))
def test_no_bytes_whatever_break_the_reader_of_errors(status: int, body: bytes) -> None:
    fault = read_fault(status, body)
    assert fault.message
    assert fault.status == status
