"""Requests to ``/v1/responses``: what is read out of them, and that what is written is what OpenAI's own client would send."""

import base64
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agw_proxy.dialects.base import (
    Audio,
    File,
    Format,
    Hosted,
    Image,
    Losses,
    Malformed,
    Message,
    Reasoning,
    Refusal,
    Request,
    Text,
    Thinking,
    Tool,
    ToolChoice,
    ToolResult,
    ToolUse,
    Untranslatable,
)
from agw_proxy.dialects.features import decide
from agw_proxy.dialects.openai_responses_requests import read_request, write_request
from tests.dialects.responses_schema import check_request

ODD_IDS: tuple[object, ...] = ("", 5, [], {"id": "resp_1"}, False)
ODD_TALKS: tuple[object, ...] = ("", 5, [], {}, {"id": 5}, {"id": ""})

PNG = base64.b64encode(b"\x89PNG").decode()
LOOKUP = {"type": "object", "properties": {"q": {"type": "string"}}}


def read(**members: Any) -> Request:
    return read_request({"model": "m", "input": "hi", **members})


def written(request: Request) -> tuple[dict[str, Any], list[str]]:
    losses = Losses("responses", decide)
    tree = write_request(request, losses)
    check_request(tree)
    return tree, losses.dropped


def asked(*messages: Message, **members: Any) -> Request:
    return Request(model="m", messages=list(messages), **members)


def test_a_string_is_the_users_message() -> None:
    assert read(instructions="Be brief.").messages == [
        Message("system", [Text("Be brief.")]),
        Message("user", [Text("hi")]),
    ]


def test_what_one_turn_has_made_is_one_message() -> None:
    made = read(
        input=[
            {"role": "developer", "content": "rules"},
            {"role": "user", "content": [{"type": "input_text", "text": "weather?"}]},
            {
                "type": "reasoning",
                "id": "rs_1",
                "summary": [{"type": "summary_text", "text": "one"}, {"type": "summary_text", "text": "two"}],
                "encrypted_content": "gAAA",
            },
            {
                "type": "message",
                "id": "msg_1",
                "role": "assistant",
                "status": "completed",
                "content": [
                    {"type": "output_text", "text": "Let me see.", "annotations": []},
                    {"type": "refusal", "refusal": "no"},
                ],
            },
            {"type": "function_call", "call_id": "a", "name": "look", "arguments": '{"q":1}'},
            {"type": "custom_tool_call", "call_id": "b", "name": "patch", "input": "*** x"},
            {"type": "function_call_output", "call_id": "a", "output": "sunny"},
            {
                "type": "custom_tool_call_output",
                "call_id": "b",
                "output": [{"type": "input_text", "text": "ok"}, {"type": "input_image", "image_url": "https://x/y"}],
            },
            {"role": "user", "content": "thanks"},
        ]
    )
    assert made.messages == [
        Message("system", [Text("rules")]),
        Message("user", [Text("weather?")]),
        Message(
            "assistant",
            [
                Thinking("one\n\ntwo", signature="agw:responses:rs_1:gAAA", id="rs_1"),
                Text("Let me see."),
                Refusal("no"),
                ToolUse("a", "look", '{"q":1}'),
                ToolUse("b", "patch", "*** x", custom=True),
            ],
        ),
        Message(
            "user",
            [
                ToolResult("a", [Text("sunny")]),
                ToolResult("b", [Text("ok"), Image(url="https://x/y")], custom=True),
            ],
        ),
        Message("user", [Text("thanks")]),
    ]


def test_media_are_read() -> None:
    parts = [
        {"type": "input_image", "image_url": f"data:image/png;base64,{PNG}", "detail": "high"},
        {"type": "input_image", "file_id": "file-1"},
        {"type": "input_file", "filename": "a.txt", "file_data": PNG},
        {"type": "input_file", "filename": "a.pdf", "file_data": f"data:application/pdf;base64,{PNG}"},
        {"type": "input_file", "file_url": "https://x/a.pdf"},
        {"type": "input_file", "file_id": "file-2"},
        {"type": "input_audio", "input_audio": {"data": PNG, "format": "wav"}},
    ]
    assert read(input=[{"role": "user", "content": parts}]).messages[0].blocks == [
        Image(data=PNG, media_type="image/png", detail="high"),
        Image(file_id="file-1"),
        File(data=PNG, media_type="text/plain", name="a.txt"),
        File(data=PNG, media_type="application/pdf", name="a.pdf"),
        File(url="https://x/a.pdf"),
        File(file_id="file-2"),
        Audio(PNG, "wav"),
    ]


def test_tools_of_all_kinds_are_read() -> None:
    made = read(
        tools=[
            {"type": "function", "name": "look", "description": "d", "parameters": LOOKUP, "strict": True},
            {"type": "function", "name": "bare", "parameters": None, "defer_loading": True},
            {"type": "custom", "name": "patch", "format": {"type": "grammar", "syntax": "lark", "definition": "x"}},
            {
                "type": "namespace",
                "name": "mcp__docs",
                "description": "Docs.",
                "tools": [{"type": "function", "name": "find", "parameters": LOOKUP}],
            },
            {"type": "web_search"},
        ],
        parallel_tool_calls=False,
    )
    assert made.tools == [
        Tool("look", "d", LOOKUP, strict=True),
        Tool("bare", None, {"type": "object", "properties": {}}),
        Tool("patch", grammar={"type": "grammar", "syntax": "lark", "definition": "x"}),
        Tool("mcp__docs__find", None, LOOKUP, namespace="mcp__docs"),
    ]
    assert made.hosted == [Hosted("web_search", "responses", {"type": "web_search"})]
    assert made.extra == {"tools.defer_loading": True, "namespace_descriptions": {"mcp__docs": "Docs."}}
    assert made.parallel is False


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("auto", ToolChoice("auto")),
        ("none", ToolChoice("none")),
        ("required", ToolChoice("required")),
        ({"type": "function", "name": "look"}, ToolChoice("one", "look")),
        ({"type": "function", "name": "find"}, ToolChoice("one", "ns__find")),
        ({"type": "custom", "name": "patch"}, ToolChoice("one", "patch")),
        (
            {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "look"}]},
            ToolChoice("required", allowed=["look"]),
        ),
    ],
)
def test_choices_come_and_go(choice: object, expected: ToolChoice) -> None:
    tools = [
        {"type": "function", "name": "look", "parameters": LOOKUP, "strict": False},
        {"type": "custom", "name": "patch"},
        {
            "type": "namespace",
            "name": "ns",
            "description": "n",
            "tools": [{"type": "function", "name": "find", "parameters": LOOKUP, "strict": False}],
        },
    ]
    made = read(tools=tools, tool_choice=choice)
    assert made.tool_choice == expected
    tree, dropped = written(made)
    assert tree["tool_choice"] == choice
    assert tree["tools"] == tools
    assert dropped == []


def test_a_hosted_tool_may_have_to_be_called() -> None:
    made = read(tools=[{"type": "file_search", "vector_store_ids": ["v"]}], tool_choice={"type": "file_search"})
    assert made.extra == {"tool_choice": {"type": "file_search"}}
    assert written(made)[0]["tool_choice"] == {"type": "file_search"}


def test_members_are_read() -> None:
    made = read(
        max_output_tokens=100,
        temperature=0.5,
        top_p=1,
        stream=True,
        store=False,
        metadata={"a": "b"},
        service_tier="flex",
        user="u",
        safety_identifier="s",
        top_logprobs=3,
        include=["reasoning.encrypted_content", "message.output_text.logprobs", "web_search_call.results"],
        reasoning={"effort": "high", "summary": "auto", "context": "auto"},
        text={"verbosity": "low", "format": {"type": "json_schema", "name": "n", "schema": LOOKUP, "strict": True}},
        truncation="auto",
        prompt_cache_key="k",
        previous_response_id="resp_1",
        stream_options={"include_obfuscation": False},
        whatever=1,
        conversation=None,
    )
    assert (made.max_tokens, made.temperature, made.top_p, made.stream, made.store) == (100, 0.5, 1, True, False)
    assert (made.metadata, made.service_tier, made.user, made.logprobs) == ({"a": "b"}, "flex", "u", 3)
    assert made.reasoning == Reasoning("high", summary="auto")
    assert made.format == Format(LOOKUP, "n", None, True)
    assert made.verbosity == "low"
    assert made.extra == {
        "safety_identifier": "s",
        "include": ["web_search_call.results"],
        "reasoning.context": True,
        "truncation": "auto",
        "prompt_cache_key": "k",
        "previous_response_id": "resp_1",
        "whatever": 1,
    }
    tree, dropped = written(made)
    assert dropped == ["whatever", "reasoning.context"]
    assert tree["include"] == ["web_search_call.results", "message.output_text.logprobs", "reasoning.encrypted_content"]
    assert tree["previous_response_id"] == "resp_1"


def test_no_reasoning_is_said_in_one_word() -> None:
    made = read(reasoning={"effort": "none"})
    assert made.reasoning is not None
    assert made.reasoning.enabled is False
    tree, _ = written(made)
    assert tree["reasoning"] == {"effort": "none"}
    assert "include" not in tree


def test_items_of_hosted_tools_are_told_and_their_tools_are_kept() -> None:
    made = read(
        input=[
            {"role": "user", "content": "x"},
            {"type": "local_shell_call", "id": "1", "call_id": "c", "action": {}, "status": "completed"},
            {
                "type": "additional_tools",
                "role": "developer",
                "tools": [{"type": "function", "name": "late", "parameters": LOOKUP, "strict": False}],
            },
        ]
    )
    assert made.extra == {"input.local_shell_call": True}
    assert [tool.name for tool in made.tools] == ["late"]
    assert written(made)[1] == ["input.local_shell_call"]


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"model": None}, "model"),
        ({"model": ""}, "model"),
        ({"model": 3}, "model"),
        ({"input": None}, "input"),
        ({"input": 3}, "input"),
        ({"input": ["x"]}, "input[0]"),
        ({"input": [{"role": "robot", "content": "x"}]}, "input[0].role"),
        ({"input": [{"role": "user"}]}, "input[0].content"),
        ({"input": [{"role": "user", "content": [{"type": "input_text"}]}]}, "input[0].content[0].text"),
        ({"input": [{"role": "user", "content": [{"type": "video"}]}]}, "input[0].content[0].type"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input[0].content[0]"),
        ({"input": [{"role": "user", "content": [{"type": "input_file"}]}]}, "input[0].content[0]"),
        (
            {
                "input": [
                    {
                        "role": "user",
                        "content": [{"type": "input_audio", "input_audio": {"data": "!", "format": "wav"}}],
                    }
                ]
            },
            "input[0].content[0].input_audio.data",
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "data:x,y"}]}]},
            "input[0].content[0].image_url",
        ),
        ({"input": [{"type": "function_call", "name": "x", "arguments": "{}"}]}, "input[0].call_id"),
        ({"input": [{"type": "function_call", "call_id": "x", "name": "x", "arguments": {}}]}, "input[0].arguments"),
        ({"input": [{"type": "function_call_output", "call_id": "x"}]}, "input[0].output"),
        (
            {
                "input": [
                    {"type": "function_call_output", "call_id": "x", "output": [{"type": "refusal", "refusal": "x"}]}
                ]
            },
            "input[0].output",
        ),
        ({"input": [{"type": "reasoning", "summary": [{"text": 1}]}]}, "input[0].summary[0].text"),
        ({"instructions": ["x"]}, "instructions"),
        ({"tools": {}}, "tools"),
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"tools": [{"type": "function", "name": ""}]}, "tools[0].name"),
        ({"tools": [{"type": "function", "name": "x", "parameters": []}]}, "tools[0].parameters"),
        (
            {"tools": [{"type": "namespace", "name": "x", "tools": [{"type": [], "name": "x"}]}]},
            "tools[0].tools[0].type",
        ),
        (
            {"tools": [{"type": "namespace", "name": "x", "tools": [{"type": "y", "name": "x"}]}]},
            "tools[0].tools[0].type",
        ),
        ({"tool_choice": "sometimes"}, "tool_choice"),
        ({"tool_choice": {"type": "allowed_tools", "mode": "none"}}, "tool_choice.mode"),
        ({"tool_choice": {"type": "function"}}, "tool_choice.name"),
        ({"max_output_tokens": "1"}, "max_output_tokens"),
        ({"max_output_tokens": True}, "max_output_tokens"),
        ({"max_output_tokens": 1e300}, "max_output_tokens"),
        ({"temperature": "1"}, "temperature"),
        ({"stream": 1}, "stream"),
        ({"include": "x"}, "include"),
        ({"include": [1]}, "include[0]"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type"),
        ({"text": {"format": {"type": "json_schema"}}}, "text.format.schema"),
        ({"reasoning": "high"}, "reasoning"),
        *[({"previous_response_id": found}, "previous_response_id") for found in ODD_IDS],
        *[({"conversation": found}, "conversation") for found in ODD_TALKS],
    ],
)
def test_what_is_malformed_is_named(members: dict[str, Any], param: str) -> None:
    with pytest.raises(Malformed) as caught:
        read(**members)
    assert caught.value.param == param
    assert param in caught.value.message or "data" in caught.value.message


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"background": True}, "background"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0]"),
        ({"input": [{"id": "msg_1"}]}, "input[0]"),
        ({"input": [{"type": "compaction", "encrypted_content": "x"}]}, "input[0]"),
    ],
)
def test_what_only_the_provider_keeps_is_refused(members: dict[str, Any], param: str) -> None:
    with pytest.raises(Untranslatable) as caught:
        read(**members)
    assert caught.value.param == param


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "role", "content", "text", "id", "name", "tools", "summary", "format", "output"]),
            inner | st.sampled_from(["message", "function", "function_call", "reasoning", "input_text", "user"]),
            max_size=4,
        )
    ),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(
            ["input", "tools", "tool_choice", "text", "reasoning", "include", "metadata", "stream_options", "truncation",
             "prompt_cache_retention", "background", "conversation", "user", "top_logprobs"]
        ),
        JSON,
    )
)  # fmt: skip
def test_bad_manners_are_malformed_and_nothing_else(members: dict[str, Any]) -> None:
    try:
        made = read(**members)
        write_request(made, Losses("responses", decide))
    except (Malformed, Untranslatable):
        return
