"""What becomes of a request on its way to an agent."""

from typing import Any

import orjson
import pytest

from agw_proxy.errors import InvalidJSON, InvalidParameter
from agw_proxy.sdk.requests import Asked, choice_of, read, settings_of

MAIL: dict[str, Any] = {"type": "function", "name": "mail", "parameters": {"type": "object", "properties": {}}}
LIST: dict[str, Any] = {"type": "function", "name": "list", "parameters": {"type": "object", "properties": {}}}


def asked(taken: frozenset[str] = frozenset(), **members: Any) -> Asked:
    return read(orjson.dumps({"model": "m", "input": "Hi", **members}), taken)


@pytest.mark.parametrize("body", [b"{", b"[]", b'"x"'])
def test_a_body_that_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidJSON):
        read(body)


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, None),
        ({"background": True}, "background"),
        ({"input": None}, "input"),
        ({"input": 5}, "input"),
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
    ],
)
def test_what_cannot_be_served_is_refused_and_named(members: dict[str, Any], param: str | None) -> None:
    with pytest.raises(InvalidParameter) as caught:
        asked(**members)
    assert param is None or caught.value.param == param


def test_the_callers_instructions_come_first_and_ids_of_ours_go() -> None:
    history = [
        {
            "type": "message",
            "role": "user",
            "content": [{"type": "input_image", "image_url": "data:image/png;base64,AAAA"}],
        },
        {"type": "message", "id": "msg_1", "role": "assistant", "content": [{"type": "output_text", "text": "A cat."}]},
        {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "Hm."}]},
    ]
    assert asked(input=history, instructions="Be brief.").items == [
        {"type": "message", "role": "system", "content": "Be brief."},
        history[0],
        {"type": "message", "role": "assistant", "content": "A cat."},
    ]


def test_an_answer_in_the_history_may_be_a_plain_text() -> None:
    history = [
        {"role": "user", "content": "Hi"},
        {"type": "message", "role": "assistant", "content": "Hello."},
        {"role": "assistant", "content": "Well?"},
    ]
    assert [item["content"] for item in asked(input=history).items] == ["Hi", "Hello.", "Well?"]


def test_free_text_and_namespaced_tools_are_functions_for_the_agent() -> None:
    tools = [
        {"type": "custom", "name": "sql"},
        {"type": "namespace", "name": "fs", "description": "Files", "tools": [LIST]},
    ]
    history = [
        {"type": "custom_tool_call", "call_id": "a", "name": "sql", "input": "select 1"},
        {"type": "custom_tool_call_output", "call_id": "a", "output": "1"},
        {"type": "function_call", "call_id": "b", "name": "list", "namespace": "fs", "arguments": "{}"},
    ]
    made = asked(frozenset({"sql"}), tools=tools, input=history)
    assert made.names == {"sql_2": "sql", "fs__list": "fs__list"}
    assert [tool.schema is not None for tool in made.tools] == [True, True]
    assert made.items == [
        {"type": "function_call", "call_id": "a", "name": "sql_2", "arguments": '{"input":"select 1"}'},
        {"type": "function_call_output", "call_id": "a", "output": "1"},
        {"type": "function_call", "call_id": "b", "name": "fs__list", "arguments": "{}"},
    ]


@pytest.mark.parametrize(
    ("choice", "offered", "told"),
    [
        ("auto", ["mail", "list"], "auto"),
        ("required", ["mail", "list"], "required"),
        ("none", [], None),
        ({"type": "function", "name": "mail"}, ["mail", "list"], "mail"),
        (
            {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "list"}]},
            ["list"],
            "required",
        ),
    ],
)
def test_a_choice_of_tools_is_one_of_the_callers_own(choice: Any, offered: list[str], told: str | None) -> None:
    made = asked(tools=[MAIL, LIST], tool_choice=choice)
    assert [tool.name for tool in made.tools] == offered
    assert list(made.names) == offered
    assert choice_of(made.request, made.names) == told


def test_settings_are_the_callers() -> None:
    made = asked(
        temperature=0.1,
        top_p=0.9,
        max_output_tokens=99,
        reasoning={"effort": "low", "summary": "auto"},
        text={"verbosity": "low"},
        parallel_tool_calls=False,
        tools=[MAIL],
    )
    assert settings_of(made.request) == {
        "temperature": 0.1,
        "top_p": 0.9,
        "max_tokens": 99,
        "reasoning": {"effort": "low", "summary": "auto"},
        "verbosity": "low",
        "parallel_tool_calls": False,
    }
    assert settings_of(asked(parallel_tool_calls=False).request) == {}


def test_what_an_agent_cannot_have_is_told() -> None:
    made = asked(tools=[{"type": "web_search"}], truncation="auto", top_logprobs=2)
    assert made.dropped == ("tools.web_search", "truncation", "logprobs")
