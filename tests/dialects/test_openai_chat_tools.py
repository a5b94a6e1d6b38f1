"""Tools of Chat requests and their choice, both ways."""

from typing import Any

import pytest
from openai.types.chat import ChatCompletion

from agw_proxy.dialects.base import (
    Answer,
    Hosted,
    Message,
    Request,
    Shown,
    Tokens,
    Tool,
    ToolChoice,
    ToolUse,
)
from agw_proxy.dialects.openai_chat_answers import write_answer
from agw_proxy.dialects.openai_chat_requests import write_request
from tests.dialects.chat_published import SCHEMA, TOOLS, asked, written
from tests.dialects.chat_vectors import losses


def test_custom_tools_are_read_and_offered_as_functions() -> None:
    grammar = {"type": "grammar", "grammar": {"syntax": "lark", "definition": 'start: "x"'}}
    request = asked(
        {"role": "assistant", "tool_calls": [{"id": "a", "type": "custom", "custom": {"name": "p", "input": "abc"}}]},
        {"role": "tool", "tool_call_id": "a", "content": "ok"},
        tools=[{"type": "custom", "custom": {"name": "p", "description": "Patches.", "format": grammar}}],
        tool_choice={"type": "custom", "custom": {"name": "p"}},
    )
    flat = {"type": "grammar", "syntax": "lark", "definition": 'start: "x"'}
    assert request.tools == [Tool("p", "Patches.", grammar=flat)]
    assert request.messages[0].blocks == [ToolUse("a", "p", "abc", custom=True)]
    tree, _ = written(request)
    function = tree["tools"][0]["function"]
    assert function["parameters"]["required"] == ["input"]
    assert 'start: "x"' in function["description"]
    assert tree["messages"][0]["tool_calls"][0]["function"]["arguments"] == '{"input":"abc"}'
    assert tree["tool_choice"] == {"type": "function", "function": {"name": "p"}}


@pytest.mark.parametrize(
    ("choice", "wanted"),
    [
        ("auto", ToolChoice("auto")),
        ("none", ToolChoice("none")),
        ("required", ToolChoice("required")),
        ("any", ToolChoice("required")),
        ({"type": "function", "function": {"name": "f"}}, ToolChoice("one", "f")),
        ({"type": "function", "name": "f"}, ToolChoice("one", "f")),
    ],
)
def test_choices_of_tools(choice: Any, wanted: ToolChoice) -> None:
    request = asked(tools=TOOLS, tool_choice=choice)
    assert request.tool_choice == wanted
    tree, _ = written(request)
    assert asked(tools=TOOLS, tool_choice=tree["tool_choice"]).tool_choice == wanted


@pytest.mark.parametrize("mode", ["auto", "required"])
def test_only_allowed_tools_are_offered_since_few_servers_know_that_choice(mode: Any) -> None:
    allowed = {"mode": mode, "tools": [{"type": "function", "function": {"name": "g"}}]}
    request = asked(tools=TOOLS, tool_choice={"type": "allowed_tools", "allowed_tools": allowed})
    assert request.tool_choice == ToolChoice(mode, allowed=["g"])
    tree, dropped = written(request)
    assert (tree["tools"], tree["tool_choice"], dropped) == (TOOLS[1:], mode, [])


def test_allowed_tools_may_be_written_flat() -> None:
    choice = {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}]}
    assert asked(tools=TOOLS, tool_choice=choice).tool_choice == ToolChoice("auto", allowed=["f"])


def test_what_is_said_of_tools_needs_tools() -> None:
    hosted = [Hosted("web_search", "messages", {"type": "web_search_20250305"})]
    request = Request("m", [Message("user", [])], hosted=hosted, tool_choice=ToolChoice("auto"), parallel=False)
    tree, dropped = written(request)
    assert not {"tools", "tool_choice", "parallel_tool_calls"} & set(tree)
    assert dropped == ["hosted_tools"]
    request.tools, request.tool_choice = [Tool("f", schema=SCHEMA)], ToolChoice("one", "web_search")
    tree, dropped = written(request)
    assert "tool_choice" not in tree
    assert tree["parallel_tool_calls"] is False
    assert dropped == ["hosted_tools", "tool_choice"]
    request.tool_choice = ToolChoice("required", allowed=["web_search"])
    assert written(request)[1] == ["hosted_tools", "tool_choice"]
    request.tools = [Tool("f", schema=SCHEMA, cache={"type": "ephemeral"})]
    assert written(request)[1] == ["cache_control", "hosted_tools", "tool_choice"]


def test_a_caller_of_functions_is_told_of_one_function_call() -> None:
    request = asked(functions=[{"name": "f", "parameters": SCHEMA}])
    assert (request.functions, request.parallel, asked(tools=TOOLS).functions) == (True, False, False)
    answer = Answer("a", "far", [ToolUse("a", "f", '{"x":1}'), ToolUse("b", "f", "{}")], "tool", Tokens(1, 1))
    tree = write_answer(answer, Shown("abc123", "m", 1, request=request))
    choice = ChatCompletion.model_validate(tree, strict=True).choices[0]
    assert (choice.finish_reason, choice.message.content, choice.message.tool_calls) == ("function_call", None, None)
    assert choice.message.function_call is not None
    assert (choice.message.function_call.name, choice.message.function_call.arguments) == ("f", '{"x":1}')


def test_a_servers_own_tools_stay_with_their_dialect() -> None:
    tree = {"type": "openrouter:web_search"}
    request = asked(tools=[tree])
    assert request.hosted == [Hosted("openrouter:web_search", "chat", tree)]
    assert write_request(request, losses())["tools"] == [tree]
