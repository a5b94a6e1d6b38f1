"""Streams of ``/v1/responses``: the Writer's keep to the grammar, whatever it is given."""

from typing import Any

import httpx2
import openai
import orjson
import pytest
from openai.types.responses import Response, ResponseErrorEvent

from agw_proxy.conformance.frames import events as lines
from agw_proxy.dialects.base import (
    Answer,
    Beat,
    BlockStart,
    BlockStop,
    Citation,
    Event,
    Fault,
    Finish,
    Part,
    Refusal,
    Signature,
    Text,
    Thinking,
    Tokens,
    ToolUse,
    sealed,
)
from agw_proxy.dialects.openai_responses_answers import write_answer
from agw_proxy.dialects.openai_responses_streams import Writer
from tests.dialects.grammar_responses import check
from tests.dialects.responses_streams import CITATION, START, TOKENS, URL, block, frames, raw, shown, written


def test_every_kind_of_block_is_written() -> None:
    events = written(
        START,
        Beat(),
        *block(0, Thinking(), Part("h"), Part("m"), Signature(sealed("messages", "sig"))),
        *block(1, Text(""), Part("On"), Part("e"), Citation(CITATION)),
        *block(2, Text(""), Part("Two", logprobs=[{"token": "Two", "logprob": -0.1, "bytes": None}])),
        *block(3, Refusal(""), Part("No.")),
        *block(4, ToolUse("call_1", "look"), Part('{"q"'), Part(":1}")),
        *block(5, ToolUse("call_2", "ns__find")),
        *block(6, ToolUse("call_3", "patch"), Part('{"input":'), Part('"*** x"}')),
        *block(7, ToolUse("call_4", "patch", custom=True), Part("*** "), Part("y")),
        *block(8, Thinking(signature=sealed("messages", "x"), hidden=True)),
        Finish("tool", TOKENS),
    )
    names = [event["type"].removeprefix("response.") for event in events]
    assert names == [
        "created", "in_progress",
        "output_item.added", "reasoning_summary_part.added", "reasoning_summary_text.delta", "reasoning_summary_text.delta",
        "reasoning_summary_text.done", "reasoning_summary_part.done", "output_item.done",
        "output_item.added",
        "content_part.added", "output_text.delta", "output_text.delta", "output_text.annotation.added", "output_text.done",
        "content_part.done",
        "content_part.added", "output_text.delta", "output_text.done", "content_part.done",
        "content_part.added", "refusal.delta", "refusal.done", "content_part.done",
        "output_item.done",
        "output_item.added", "function_call_arguments.delta", "function_call_arguments.delta", "function_call_arguments.done",
        "output_item.done",
        "output_item.added", "function_call_arguments.delta", "function_call_arguments.done", "output_item.done",
        "output_item.added", "custom_tool_call_input.delta", "custom_tool_call_input.done", "output_item.done",
        "output_item.added", "custom_tool_call_input.delta", "custom_tool_call_input.delta", "custom_tool_call_input.done",
        "output_item.done",
        "output_item.added", "output_item.done",
        "completed",
    ]  # fmt: skip
    final = events[-1]["response"]
    reasoning, message, look, find, packed, plain, hidden = final["output"]
    assert reasoning == {
        "id": "rs_r1_0",
        "type": "reasoning",
        "summary": [{"type": "summary_text", "text": "hm"}],
        "encrypted_content": "agw:messages:sig",
    }
    assert [part.get("text", part.get("refusal")) for part in message["content"]] == ["One", "Two", "No."]
    assert message["content"][0]["annotations"] == [{**URL, "end_index": 3}]
    assert message["content"][1]["logprobs"] == [
        {"token": "Two", "bytes": [84, 119, 111], "logprob": -0.1, "top_logprobs": []}
    ]
    assert (look["call_id"], look["name"], look["arguments"]) == ("call_1", "look", '{"q":1}')
    assert (find["name"], find["namespace"], find["arguments"]) == ("find", "ns", "{}")
    assert (packed["type"], packed["name"], packed["input"]) == ("custom_tool_call", "patch", "*** x")
    assert (plain["type"], plain["name"], plain["input"]) == ("custom_tool_call", "patch", "*** y")
    assert hidden["encrypted_content"] == "agw:messages:x"
    assert final["usage"]["total_tokens"] == 10
    assert final["id"] == "resp_up"
    assert [tool["name"] for tool in final["tools"]] == ["look", "patch", "ns"]


def test_beats_are_comments_until_the_end() -> None:
    writer = Writer(shown())
    assert writer.write(Beat()) == b": ping\n\n"
    assert raw(Beat(), START, Beat()).count(b": ping\n\n") == 2
    writer.write(Fault("x"))
    assert writer.write(Beat()) == b""


@pytest.mark.parametrize(
    ("stop", "last", "status", "item"),
    [
        ("stop", "completed", "completed", "completed"),
        ("length", "incomplete", "incomplete", "incomplete"),
        ("refusal", "incomplete", "incomplete", "incomplete"),
    ],
)
def test_a_cut_item_says_so(stop: Any, last: str, status: str, item: str) -> None:
    events = written(START, *block(0, ToolUse("c", "look"), Part('{"q')), Finish(stop, Tokens()))
    assert events[-1]["type"] == f"response.{last}"
    assert events[-1]["response"]["status"] == status
    assert events[-2]["type"] == "response.output_item.done"
    assert events[-2]["item"]["status"] == item


def test_an_answer_without_blocks_is_whole() -> None:
    assert written(START, Finish("stop", Tokens()))[-1]["response"]["output"] == []


@pytest.mark.parametrize(("stop", "at"), [("stop", 1_700_000_009), ("tool", 1_700_000_009), ("length", None)])
def test_a_whole_answer_says_when_it_was_completed(stop: Any, at: int | None) -> None:
    told = shown()
    told.now, told.clock = 1_700_000_000, lambda: 1_700_000_009.7
    writer = Writer(told)
    data = writer.write(START) + writer.write(Finish(stop, TOKENS, service_tier="flex"))
    (*_, (_, last)) = lines(data.splitlines())
    response = orjson.loads(last)["response"]
    assert (response["completed_at"], response["service_tier"]) == (at, "flex")
    whole = write_answer(Answer("", "m", [Text("x")], stop, TOKENS), told)
    assert whole["completed_at"] == at


def test_a_refusal_in_words_completes() -> None:
    events = written(START, *block(0, Refusal(""), Part("No")), Finish("refusal", Tokens()))
    assert events[-1]["type"] == "response.completed"


def test_signatures_of_words_and_calls_travel_after_them() -> None:
    events = written(
        START,
        *block(0, Text(""), Part("a"), Signature(sealed("gemini", "s0"))),
        *block(1, Text(""), Part("b")),
        *block(2, ToolUse("c", "look", signature=sealed("gemini", "s1")), Part("{}")),
        Finish("tool", Tokens()),
    )
    output = events[-1]["response"]["output"]
    assert [item["type"] for item in output] == ["message", "reasoning", "message", "function_call", "reasoning"]
    assert output[1]["encrypted_content"] == "agw:after:agw:gemini:s0"
    assert output[4]["encrypted_content"] == "agw:after:agw:gemini:s1"


def test_openais_own_signature_goes_with_its_id() -> None:
    seal = sealed("responses", "rs_9:gAAA")
    known, late = (
        written(START, *block(0, Thinking(id=item_id), Part("x"), Signature(seal)), Finish("stop", Tokens()))
        for item_id in ("rs_9", None)
    )
    item = known[-1]["response"]["output"][0]
    assert (item["id"], item["encrypted_content"]) == ("rs_9", "gAAA")
    item = late[-1]["response"]["output"][0]
    assert (item["id"], item["encrypted_content"]) == ("rs_r1_0", seal)


@pytest.mark.parametrize("before", [[], [START], [START, BlockStart(0, Text("")), Part("x")]])
def test_a_fault_ends_the_stream_with_an_error_that_clients_raise(before: list[Event]) -> None:
    stream = raw(*before, Fault("slow down", "rate_limit_error", 429))
    check(frames(stream))
    name, data = frames(stream)[-1]
    assert name == "error"
    assert orjson.loads(data)["error"] == {
        "message": "slow down",
        "type": "rate_limit_error",
        "param": None,
        "code": "rate_limit_exceeded",
    }
    ResponseErrorEvent.model_validate_json(data, strict=True)
    with pytest.raises(openai.APIError, match="slow down"), client(stream) as api:
        list(api.responses.create(model="m", input="x", stream=True))


def client(stream: bytes) -> openai.OpenAI:
    headers = {"content-type": "text/event-stream"}
    transport = httpx2.MockTransport(lambda _: httpx2.Response(200, headers=headers, content=stream))
    return openai.OpenAI(
        api_key="k", base_url="http://x/v1", http_client=httpx2.Client(transport=transport), max_retries=0
    )


def test_the_official_client_gathers_the_stream() -> None:
    stream = raw(
        START,
        *block(0, Thinking(), Part("hm")),
        *block(1, Text(""), Part("He"), Part("llo")),
        *block(2, ToolUse("c", "look"), Part('{"q":1}')),
        Finish("tool", TOKENS),
    )
    with client(stream) as api, api.responses.stream(model="m", input="x") as events:
        for _ in events:
            pass
        final = events.get_final_response()
    assert isinstance(final, Response)
    assert final.output_text == "Hello"
    assert [item.type for item in final.output] == ["reasoning", "message", "function_call"]
    assert final.usage is not None
    assert final.usage.total_tokens == 10


@pytest.mark.parametrize(
    "events",
    [
        [Part("x")],
        [BlockStart(0, Text(""))],
        [Finish("stop", Tokens())],
        [BlockStop()],
        [START, START],
        [START, Part("x")],
        [START, BlockStop()],
        [START, Signature("x")],
        [START, Citation({})],
        [START, BlockStart(1, Text(""))],
        [START, BlockStart(0, Text("")), BlockStart(1, Text(""))],
        [START, *block(0, Text("")), BlockStart(0, Text(""))],
        [START, BlockStart(0, Text("")), Finish("stop", Tokens())],
        [START, BlockStart(0, Refusal("")), Signature("x")],
        [START, BlockStart(0, ToolUse("c", "f")), Citation({})],
        [START, Finish("stop", Tokens()), Finish("stop", Tokens())],
        [START, Finish("stop", Tokens()), Fault("x")],
        [Fault("x"), START],
    ],
)
def test_the_writer_refuses_what_is_against_the_grammar(events: list[Event]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        raw(*events)


def test_the_checker_finds_what_is_broken() -> None:
    good = frames(raw(START, *block(0, Text(""), Part("a"), Part("b")), Finish("stop", Tokens())))
    check(good)
    for at in range(len(good)):
        with pytest.raises(AssertionError):
            check(good[:at] + good[at + 1 :])
    with pytest.raises(AssertionError):
        check([*good, good[-1]])
