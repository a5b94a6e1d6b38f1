from typing import Any

import orjson
import pytest
from anthropic.types import Message as SdkMessage
from anthropic.types.shared import ErrorResponse
from hypothesis import given
from hypothesis import strategies as st

from agw_proxy.dialects.anthropic_messages_answers import (
    read_answer,
    read_fault,
    write_answer,
    write_fault,
)
from agw_proxy.dialects.base import (
    Answer,
    Fault,
    Malformed,
    Refusal,
    Shown,
    Stop,
    Text,
    Thinking,
    Tokens,
    ToolUse,
    Tree,
)

SHOWN = Shown("a1", "fast", 1)
CITED = {
    "type": "char_location", "cited_text": "w", "document_index": 0, "document_title": None, "file_id": None,
    "start_char_index": 0, "end_char_index": 1,
}  # fmt: skip
WHOLE: dict[str, Any] = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "fast",
    "content": [
        {"type": "thinking", "thinking": "hm", "signature": "c2ln"},
        {"type": "redacted_thinking", "data": "ZGF0YQ"},
        {"type": "text", "text": "Yes.", "citations": [CITED]},
        {"type": "tool_use", "id": "toolu_1", "name": "see", "input": {"x": [1, None, "é"]}},
    ],
    "stop_reason": "tool_use",
    "stop_sequence": None,
    "usage": {
        "input_tokens": 5,
        "cache_creation_input_tokens": 7,
        "cache_read_input_tokens": 11,
        "output_tokens": 13,
        "output_tokens_details": {"thinking_tokens": 3},
        "service_tier": "standard",
    },
}


def shown(answer: Answer) -> Tree:
    """As a client sees it, accepted by the official SDK."""
    tree = write_answer(answer, SHOWN)
    SdkMessage.model_validate(tree, strict=True, extra="forbid")
    return tree


def answer(*blocks: Any, stop: Stop = "stop", **members: Any) -> Answer:
    return Answer("x-1", "model-9", list(blocks), stop, members.pop("tokens", Tokens(3, 4)), **members)


def test_a_whole_answer_comes_back_as_it_was() -> None:
    assert shown(read_answer(WHOLE)) == WHOLE


def test_an_answer_is_read_into_its_places() -> None:
    read = read_answer(WHOLE)
    assert read.tokens == Tokens(23, 13, 11, 7, 3)
    assert read.blocks == [
        Thinking("hm", "agw:messages:c2ln"),
        Thinking(signature="agw:messages:ZGF0YQ", hidden=True),
        Text("Yes.", [CITED]),
        ToolUse("toolu_1", "see", '{"x":[1,null,"é"]}'),
    ]
    assert (read.stop, read.service_tier) == ("tool", "standard")


@pytest.mark.parametrize(
    ("reason", "stop", "back"),
    [
        ("end_turn", "stop", "end_turn"),
        ("max_tokens", "length", "max_tokens"),
        ("model_context_window_exceeded", "length", "max_tokens"),
        ("stop_sequence", "sequence", "stop_sequence"),
        ("tool_use", "tool", "tool_use"),
        ("refusal", "refusal", "refusal"),
        ("pause_turn", "pause", "pause_turn"),
        ("of_tomorrow", "stop", "end_turn"),
        (None, "stop", "end_turn"),
    ],
)
def test_reasons_to_stop(reason: str | None, stop: str, back: str) -> None:
    read = read_answer({**WHOLE, "content": [], "stop_reason": reason, "stop_sequence": "END"})
    assert read.stop == stop
    written = shown(read)
    assert (written["stop_reason"], written["stop_sequence"]) == (back, "END" if stop == "sequence" else None)


def test_why_the_model_declines_is_said() -> None:
    details: Any = {"type": "refusal", "category": "bio", "explanation": "I cannot."}
    declined = {**WHOLE, "content": [], "stop_reason": "refusal", "stop_details": details}
    assert read_answer(declined).blocks == [Refusal("I cannot.")]
    for told in ({"stop_details": {**details, "explanation": None}}, {"stop_details": None}, {"stop_details": ["x"]}):
        assert read_answer({**declined, **told}).blocks == []
    assert read_answer({**declined, "stop_reason": "end_turn"}).blocks == []


def test_calls_make_the_reason_tool_use() -> None:
    assert shown(answer(ToolUse("1", "f", "{}")))["stop_reason"] == "tool_use"
    assert shown(answer(ToolUse("1", "f", "{}"), stop="length"))["stop_reason"] == "max_tokens"


def test_what_is_foreign_gets_the_form_of_this_api() -> None:
    tree = shown(
        answer(
            Thinking("t"),
            Thinking("", "agw:responses:enc", hidden=True),
            Thinking("", None),
            Thinking("", None, hidden=True),
            Text(""),
            Refusal("No."),
            ToolUse("", "f", "not JSON"),
            ToolUse("c", "patch", "*** Begin", custom=True),
            ToolUse("g", "f", "", signature="agw:gemini:S"),
            tokens=Tokens(),
            service_tier="flex",
        )
    )
    assert tree["id"] == "msg_a1"
    assert tree["model"] == "fast"
    assert tree["content"] == [
        {"type": "thinking", "thinking": "t", "signature": ""},
        {"type": "redacted_thinking", "data": "agw:responses:enc"},
        {"type": "text", "text": "No."},
        {"type": "tool_use", "id": "toolu_a1_3", "name": "f", "input": {"_raw": "not JSON"}},
        {"type": "tool_use", "id": "c", "name": "patch", "input": {"input": "*** Begin"}},
        {"type": "redacted_thinking", "data": "agw:gemini:S"},
        {"type": "tool_use", "id": "g", "name": "f", "input": {}},
    ]
    assert tree["usage"] == {
        "input_tokens": 0, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 0,
    }  # fmt: skip


def test_blocks_of_server_tools_are_left_out() -> None:
    search = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}
    assert read_answer({**WHOLE, "content": [search, WHOLE["content"][2]]}).blocks == [Text("Yes.", [CITED])]


BROKEN = st.recursive(
    st.none() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["type", "text", "input"]), inner),
    max_leaves=6,
)


@given(st.sampled_from(sorted(WHOLE)), BROKEN)
def test_whatever_an_upstream_answers_is_read_or_malformed(name: str, value: Any) -> None:
    try:
        read = read_answer({**WHOLE, name: value})
    except Malformed:
        return
    shown(read)


@pytest.mark.parametrize(
    "content", [None, "text", [1], [{"type": "text", "text": 1}], [{"type": "tool_use", "id": "x"}]]
)
def test_answers_without_good_content_are_malformed(content: Any) -> None:
    with pytest.raises(Malformed) as caught:
        read_answer({**WHOLE, "content": content})
    assert (caught.value.param or "").startswith("content")


# -- errors

STATUSES = {
    400: "invalid_request_error", 401: "authentication_error", 402: "billing_error", 403: "permission_error",
    404: "not_found_error", 413: "request_too_large", 422: "invalid_request_error", 429: "rate_limit_error",
    500: "api_error", 502: "api_error", 503: "overloaded_error", 504: "timeout_error", 529: "overloaded_error",
}  # fmt: skip


@pytest.mark.parametrize(("status", "kind"), STATUSES.items())
def test_errors_are_named_by_their_status(status: int, kind: str) -> None:
    tree = write_fault(Fault("It is so.", "whatever", status), "req_1")
    assert tree == {"type": "error", "error": {"type": kind, "message": "It is so."}, "request_id": "req_1"}
    if kind != "request_too_large":  # of the API's reference, not of its SDK
        ErrorResponse.model_validate(tree, strict=True, extra="forbid")


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fault("m", "overloaded_error"), "overloaded_error"),
        (Fault("m", "invalid_request_error"), "invalid_request_error"),
        (Fault("m", "server_error"), "api_error"),
        (Fault("m", "requests", code="rate_limit_exceeded"), "rate_limit_error"),
        (Fault("m", "insufficient_quota"), "billing_error"),
        (Fault("m", "zzz"), "api_error"),
    ],
)
def test_errors_without_a_status_are_named_by_their_own_word(fault: Fault, kind: str) -> None:
    assert write_fault(fault, "r")["error"]["type"] == kind


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (
            b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"},"request_id":"r"}',
            Fault("Overloaded", "overloaded_error", 529),
        ),
        (b'{"error":"no"}', Fault("no", "overloaded_error", 529)),
        (b'{"message":"no"}', Fault("no", "overloaded_error", 529)),
        (b'{"error":{"message":7}}', Fault("The upstream failed (overloaded_error).", "overloaded_error", 529)),
        (b"[]", Fault("[]", "overloaded_error", 529)),
        (b"<html>\xff", Fault("<html>�", "overloaded_error", 529)),
        (b"", Fault("The upstream answered 529.", "overloaded_error", 529)),
    ],
)
def test_error_answers_of_any_form_are_read(body: bytes, fault: Fault) -> None:
    assert read_fault(529, body) == fault


def test_a_page_of_html_is_cut() -> None:
    assert len(read_fault(502, b"x" * 100_000).message) == 2000


def test_an_error_of_this_api_comes_back_as_it_was() -> None:
    tree = {"type": "error", "error": {"type": "not_found_error", "message": "model: x"}, "request_id": "r"}
    assert write_fault(read_fault(404, orjson.dumps(tree)), "r") == tree
