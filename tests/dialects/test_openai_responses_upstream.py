"""What upstreams answer on ``/v1/responses``: whole answers, and errors of every kind."""

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.responses import Response
from pydantic import TypeAdapter

from agw_proxy.dialects import openai_responses_streams
from agw_proxy.dialects.base import (
    Answer,
    Beat,
    Block,
    BlockStart,
    BlockStop,
    Fault,
    Image,
    Malformed,
    Request,
    Shown,
    Stop,
    Text,
    Thinking,
    Tokens,
    ToolUse,
)
from agw_proxy.dialects.openai_responses_answers import read_answer, read_fault, write_answer, write_fault

RESPONSE: TypeAdapter[Response] = TypeAdapter(Response)
CITATION = {
    "type": "web_search_result_location",
    "url": "https://x/y",
    "title": "Y",
    "cited_text": "",
    "encrypted_index": "",
}
LOGPROBS = [
    {"token": "é", "logprob": -0.5, "bytes": None, "top_logprobs": [{"token": "e", "logprob": -1.0, "bytes": [101]}]}
]


def asked(**members: Any) -> Request:
    return Request(model="asked", messages=[], **members)


def shown(request: Request | None = None) -> Shown:
    return Shown(id="r1", model="asked", now=1_700_000_000, request=request)


def answer(*blocks: Block, stop: Stop = "stop", tokens: Tokens | None = None) -> Answer:
    return Answer("up_1", "upstream", list(blocks), stop, tokens or Tokens(10, 5, cached=4, written=1, reasoning=2))


def written(made: Answer, request: Request | None = None) -> dict[str, Any]:
    tree = orjson.loads(orjson.dumps(write_answer(made, shown(request))))
    RESPONSE.validate_json(orjson.dumps(tree), strict=True)
    return dict(tree)


def response(*output: dict[str, Any], **members: Any) -> dict[str, Any]:
    return {"id": "resp_1", "object": "response", "model": "m", "created_at": 1.0, "output": list(output), **members}


def message(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"type": "message", "id": "msg_1", "role": "assistant", "content": list(parts)}


def test_an_answer_is_read() -> None:
    made = read_answer(
        response(
            {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAA"},
            {"type": "web_search_call", "id": "ws_1", "status": "completed"},
            message({"type": "output_text", "text": "x", "annotations": [{"type": "url_citation", "url": "https://x/y", "title": "Y"}]}),
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}", "namespace": "ns"},
            status="completed",
            service_tier="default",
            usage={
                "input_tokens": 7,
                "output_tokens": 3,
                "input_tokens_details": {"cached_tokens": 2},
                "output_tokens_details": {"reasoning_tokens": 1},
            },
        )
    )  # fmt: skip
    assert made == Answer(
        "resp_1",
        "m",
        [
            Thinking(signature="agw:responses:rs_1:gAAA", hidden=True, id="rs_1"),
            Text("x", citations=[CITATION]),
            ToolUse("c", "ns__f", "{}", namespace="ns"),
        ],
        "tool",
        Tokens(7, 3, cached=2, reasoning=1),
        created=1,
        service_tier="default",
    )


def test_a_picture_is_read_whole_and_out_of_a_stream() -> None:
    item = {
        "type": "image_generation_call",
        "id": "ig_1",
        "status": "completed",
        "result": "aGk=",
        "output_format": "webp",
    }
    unmade = {"type": "image_generation_call", "id": "ig_2", "status": "failed", "result": None}
    whole = response(item, unmade, status="completed")
    found = Image(data="aGk=", media_type="image/webp")
    assert read_answer(whole).blocks == [found]
    reader = openai_responses_streams.Reader()
    events = [
        {"type": "response.output_item.added", "output_index": 0, "item": {**item, "status": "in_progress", "result": None}},
        {"type": "response.image_generation_call.partial_image", "output_index": 0, "partial_image_b64": "aG"},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": whole},
    ]  # fmt: skip
    read = [event for tree in events for event in reader.read("", orjson.dumps(tree)) if not isinstance(event, Beat)]
    assert read[1:-1] == [BlockStart(0, found), BlockStop()]


def test_an_answer_has_a_bound_on_its_items(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_responses_streams, "MAX_ITEMS", 2)
    reader = openai_responses_streams.Reader()
    item = {"type": "function_call", "id": "fc", "call_id": "c", "name": "f", "arguments": ""}
    added = orjson.dumps({"type": "response.output_item.added", "item": item})
    first, second, third = (reader.read("", added) for _ in range(3))
    assert not any(isinstance(event, Fault) for event in first + second)
    assert [type(event) for event in third] == [Fault]


def test_a_thought_of_which_nothing_is_told_is_none() -> None:
    assert read_answer(response({"type": "reasoning", "id": "rs_1", "summary": []})).blocks == []


@pytest.mark.parametrize(
    ("members", "stop"),
    [
        ({}, "stop"),
        ({"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}, "length"),
        ({"status": "incomplete", "incomplete_details": {"reason": "content_filter"}}, "refusal"),
        ({"status": "incomplete", "incomplete_details": None}, "length"),
        ({"output": [message({"type": "refusal", "refusal": "no"})]}, "refusal"),
    ],
)
def test_why_it_ended_is_read(members: dict[str, Any], stop: Stop) -> None:
    assert read_answer({**response(), **members}).stop == stop


@pytest.mark.parametrize(
    "tree",
    [
        response(status="failed", error={"code": "server_error", "message": "boom"}),
        response(status="in_progress"),
        response("x"),  # type: ignore[arg-type]
        response({"id": "no type"}),
        response(message({"type": "output_text"})),
        response(message({"type": "video"})),
        response({"type": "function_call", "name": "f", "arguments": "{}"}),
        {**response(), "output": {}},
        {**response(), "id": 3},
    ],
)
def test_what_is_no_whole_answer_is_malformed(tree: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        read_answer(tree)


TREES = st.recursive(
    st.none() | st.integers(-5, 5) | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "content", "text", "id", "call_id", "name", "arguments", "summary", "error", "annotations",
                             "message", "logprobs", "reason", "code"]),
            inner | st.sampled_from(["message", "output_text", "function_call", "reasoning", "url_citation"]),
            max_size=4,
        )
    ),
    max_leaves=8,
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(
            ["id", "status", "output", "usage", "incomplete_details", "created_at", "error", "message", "detail"]
        ),
        TREES,
    )
)
def test_bad_manners_are_malformed_and_nothing_else(tree: dict[str, Any]) -> None:
    assert isinstance(read_fault(500, orjson.dumps(tree)), Fault)
    try:
        read_answer(tree)
    except Malformed:
        return


# -- errors


@pytest.mark.parametrize(
    ("status", "body", "fault"),
    [
        (
            429,
            b'{"error":{"message":"slow","type":"tokens","param":null,"code":"rate_limit_exceeded"}}',
            Fault("slow", "tokens", 429, "rate_limit_exceeded"),
        ),
        (
            400,
            b'{"error":{"message":"bad","code":400,"param":"input"}}',
            Fault("bad", "invalid_request_error", 400, None, "input"),
        ),
        (500, b'{"error":"boom"}', Fault("boom", "", 500)),
        (422, b'{"detail":"no"}', Fault("no", "invalid_request_error", 422)),
        (502, b"<html>bad gateway</html>", Fault("<html>bad gateway</html>", "", 502)),
        (504, b"", Fault("The upstream answered 504.", "timeout", 504)),
        (500, b"[1]", Fault("The upstream failed.", "", 500)),
    ],
)
def test_errors_are_read(status: int, body: bytes, fault: Fault) -> None:
    assert read_fault(status, body) == fault


def test_errors_are_bounded() -> None:
    assert len(read_fault(500, b"x" * 100_000).message) == 2_000
    assert len(read_fault(500, orjson.dumps({"error": {"message": "x" * 100_000}})).message) == 2_000


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault("m", "t", 400, "c", "p"), {"message": "m", "type": "t", "param": "p", "code": "c"}),
        (
            Fault("m", status=401),
            {"message": "m", "type": "authentication_error", "param": None, "code": "invalid_api_key"},
        ),
        (
            Fault("m", "not_found_error", 404),
            {"message": "m", "type": "not_found_error", "param": None, "code": "model_not_found"},
        ),
        (Fault("m", status=418), {"message": "m", "type": "invalid_request_error", "param": None, "code": None}),
        (Fault("m"), {"message": "m", "type": "api_error", "param": None, "code": None}),
    ],
)
def test_errors_are_written(fault: Fault, error: dict[str, Any]) -> None:
    assert write_fault(fault, "req_1") == {"error": error}
