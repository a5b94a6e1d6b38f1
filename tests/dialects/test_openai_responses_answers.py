"""Whole answers of ``/v1/responses``, and errors; the official client's models have to take every answer as it is."""

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.responses import Response
from pydantic import TypeAdapter

from agw_proxy.dialects.base import (
    Answer,
    Block,
    Format,
    Hosted,
    Image,
    Message,
    Reasoning,
    Refusal,
    Request,
    Shown,
    Stop,
    Text,
    Thinking,
    Tokens,
    Tool,
    ToolChoice,
    ToolUse,
    sealed,
)
from agw_proxy.dialects.openai_responses_answers import read_answer, write_answer

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


def test_all_that_an_answer_holds_is_written() -> None:
    tree = written(
        answer(
            Thinking("hm", signature=sealed("messages", "sig")),
            Text("One.", citations=[CITATION], logprobs=LOGPROBS),
            Refusal("No."),
            ToolUse("call_1", "look", '{"q":1}'),
            Text("Two."),
            Image(data="aGk=", media_type="image/png"),
            stop="tool",
        ),
        asked(tools=[Tool("look", schema={})]),
    )
    assert tree["output"] == [
        {
            "id": "rs_r1_0",
            "type": "reasoning",
            "summary": [{"type": "summary_text", "text": "hm"}],
            "encrypted_content": "agw:messages:sig",
        },
        {
            "id": "msg_r1_1",
            "type": "message",
            "role": "assistant",
            "status": "completed",
            "content": [
                {
                    "type": "output_text",
                    "text": "One.",
                    "annotations": [
                        {"type": "url_citation", "url": "https://x/y", "title": "Y", "start_index": 0, "end_index": 4}
                    ],
                    "logprobs": [
                        {
                            "token": "é",
                            "bytes": [195, 169],
                            "logprob": -0.5,
                            "top_logprobs": [{"token": "e", "bytes": [101], "logprob": -1.0}],
                        }
                    ],
                },
                {"type": "refusal", "refusal": "No."},
            ],
        },
        {
            "id": "fc_r1_2",
            "type": "function_call",
            "status": "completed",
            "call_id": "call_1",
            "name": "look",
            "arguments": '{"q":1}',
        },
        {
            "id": "msg_r1_3",
            "type": "message",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": "Two.", "annotations": [], "logprobs": []}],
        },
        {"id": "ig_r1_4", "type": "image_generation_call", "status": "completed", "result": "aGk="},
    ]
    assert (tree["id"], tree["model"], tree["created_at"], tree["status"]) == (
        "resp_r1",
        "asked",
        1_700_000_000,
        "completed",
    )
    assert tree["usage"] == {
        "input_tokens": 10,
        "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 1},
        "output_tokens": 5,
        "output_tokens_details": {"reasoning_tokens": 2},
        "total_tokens": 15,
    }


def test_the_request_is_repeated() -> None:
    request = asked(
        tools=[
            Tool("look", "d", {"type": "object"}, strict=True),
            Tool("patch"),
            Tool("ns__find", schema={}, namespace="ns"),
        ],
        hosted=[
            Hosted("web_search", "responses", {"type": "web_search"}),
            Hosted("web_search_20250305", "messages", {"type": "web_search_20250305"}),
        ],
        tool_choice=ToolChoice("one", "ns__find"),
        parallel=False,
        max_tokens=99,
        temperature=0.2,
        top_p=0.9,
        reasoning=Reasoning("low", summary="concise"),
        format=Format({"type": "object"}, "shape", "d", strict=True),
        verbosity="low",
        user="u",
        metadata={"a": "b"},
        service_tier="flex",
        store=True,
        logprobs=2,
        extra={"previous_response_id": "resp_0", "truncation": "auto", "max_tool_calls": 3, "conversation": "conv_1"},
    )
    request.messages = [Message("system", [Text("Be brief.")])]
    tree = written(answer(Text("x")), request)
    assert {name: tree[name] for name in tree if name not in {"output", "usage", "id", "object", "created_at"}} == {
        "status": "completed",
        "background": False,
        "completed_at": None,
        "conversation": {"id": "conv_1"},
        "error": None,
        "incomplete_details": None,
        "instructions": "Be brief.",
        "max_output_tokens": 99,
        "max_tool_calls": 3,
        "metadata": {"a": "b"},
        "model": "asked",
        "parallel_tool_calls": False,
        "previous_response_id": "resp_0",
        "prompt_cache_key": None,
        "reasoning": {"effort": "low", "summary": "concise"},
        "safety_identifier": None,
        "service_tier": "flex",
        "store": True,
        "temperature": 0.2,
        "text": {
            "format": {
                "type": "json_schema",
                "name": "shape",
                "schema": {"type": "object"},
                "description": "d",
                "strict": True,
            },
            "verbosity": "low",
        },
        "tool_choice": {"type": "function", "name": "find"},
        "tools": [
            {"type": "function", "name": "look", "parameters": {"type": "object"}, "strict": True, "description": "d"},
            {"type": "custom", "name": "patch"},
            {
                "type": "namespace",
                "name": "ns",
                "description": "Tools of ns.",
                "tools": [
                    {
                        "type": "function",
                        "name": "find",
                        "parameters": {"type": "object", "properties": {}},
                        "strict": False,
                    }
                ],
            },
            {"type": "web_search"},
        ],
        "top_logprobs": 2,
        "top_p": 0.9,
        "truncation": "auto",
        "user": "u",
    }


def test_calls_are_named_as_the_tools_were() -> None:
    request = asked(tools=[Tool("patch"), Tool("ns__find", schema={}, namespace="ns")])
    tree = written(
        answer(
            ToolUse("a", "patch", '{"input": "*** x"}'),
            ToolUse("b", "patch", "*** y", custom=True),
            ToolUse("c", "ns__find", ""),
        ),
        request,
    )
    assert [{**item, "id": ""} for item in tree["output"]] == [
        {
            "id": "",
            "type": "custom_tool_call",
            "status": "completed",
            "call_id": "a",
            "name": "patch",
            "input": "*** x",
        },
        {
            "id": "",
            "type": "custom_tool_call",
            "status": "completed",
            "call_id": "b",
            "name": "patch",
            "input": "*** y",
        },
        {
            "id": "",
            "type": "function_call",
            "status": "completed",
            "call_id": "c",
            "name": "find",
            "namespace": "ns",
            "arguments": "{}",
        },
    ]


@pytest.mark.parametrize(
    ("stop", "blocks", "status", "reason"),
    [
        ("stop", [Text("x")], "completed", None),
        ("sequence", [Text("x")], "completed", None),
        ("pause", [Text("x")], "completed", None),
        ("length", [Text("x")], "incomplete", "max_output_tokens"),
        ("refusal", [Text("x")], "incomplete", "content_filter"),
        ("refusal", [Refusal("x")], "completed", None),
    ],
)
def test_why_it_ended(stop: Stop, blocks: list[Block], status: str, reason: str | None) -> None:
    tree = written(answer(*blocks, stop=stop))
    assert tree["status"] == status
    assert (tree["incomplete_details"] or {}).get("reason") == reason
    assert tree["output"][-1]["status"] == status


def test_unknown_usage_is_zero() -> None:
    assert written(answer(tokens=Tokens()))["usage"]["total_tokens"] == 0


def test_openais_own_signature_is_opened_and_others_stay_sealed() -> None:
    tree = written(
        answer(
            Thinking("a", signature=sealed("responses", "rs_7:gAAA")),
            Thinking(signature=sealed("messages", "x"), hidden=True),
            Text("t", signature=sealed("gemini", "s1")),
            Text("u"),
            ToolUse("c", "f", "{}", signature=sealed("gemini", "s2")),
        )
    )
    own, hidden, text, first, more, call, second = tree["output"]
    assert (own["id"], own["encrypted_content"]) == ("rs_7", "gAAA")
    assert (hidden["summary"], hidden["encrypted_content"]) == ([], "agw:messages:x")
    assert (text["type"], more["type"], call["type"]) == ("message", "message", "function_call")
    assert (first["encrypted_content"], second["encrypted_content"]) == (
        "agw:after:agw:gemini:s1",
        "agw:after:agw:gemini:s2",
    )


WORDS = st.text(st.characters(codec="utf-8"), max_size=12)
SEALS = st.none() | st.builds(
    sealed, st.sampled_from(["messages", "gemini", "chat"]), st.from_regex(r"[a-z=]{1,9}", fullmatch=True)
)
BLOCKS = st.lists(
    st.builds(Text, WORDS, citations=st.sampled_from([[], [CITATION]]), signature=SEALS)
    | st.builds(Refusal, WORDS)
    | st.builds(Thinking, WORDS.filter(bool), signature=SEALS)
    | st.builds(
        ToolUse,
        id=st.from_regex(r"call_[a-z]{3}", fullmatch=True),
        name=st.sampled_from(["look", "patch", "ns__find", "unknown"]),
        arguments=st.just('{"a":1}'),
        signature=SEALS,
    ),
    max_size=6,
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(BLOCKS, st.sampled_from(["stop", "tool", "length", "refusal"]), st.integers(0, 99), st.integers(0, 99))
def test_an_answer_comes_back(blocks: list[Block], stop: Stop, given_: int, made: int) -> None:
    request = asked(tools=[Tool("look", schema={}), Tool("ns__find", schema={}, namespace="ns")])
    tree = written(answer(*blocks, stop=stop, tokens=Tokens(given_, made, reasoning=made)), request)
    back = read_answer(tree)
    for block in blocks:
        if isinstance(block, ToolUse) and block.name == "ns__find":
            block.namespace = "ns"
    for block in back.blocks:
        if isinstance(block, Thinking):
            block.id = None
    assert back.blocks == blocks
    assert back.tokens == Tokens(given_, made, reasoning=made)
    assert (back.stop == "length") == (stop == "length")
