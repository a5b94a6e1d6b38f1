from typing import Any

import orjson
import pytest

from agw_proxy.dialects.base import (
    Format,
    Hosted,
    Reasoning,
    Request,
    Text,
    Thinking,
    Tool,
    ToolChoice,
    ToolResult,
    ToolUse,
    Tree,
    Untranslatable,
)
from tests.dialects.messages_requests import MIDDLE, NEW, OLD, model, talk, user, written


def test_calls_without_their_tools_bring_them_along() -> None:
    tree = written(talk(user(Text("a")), model(ToolUse("1", "f")), user(ToolResult("1", []))))
    assert tree["tools"] == [{"name": "f", "input_schema": {"type": "object"}}]
    assert tree["tool_choice"] == {"type": "none"}


@pytest.mark.parametrize(
    ("choice", "parallel", "expected"),
    [
        (None, None, None),
        (None, True, None),
        (None, False, {"type": "auto", "disable_parallel_tool_use": True}),
        (ToolChoice("required"), False, {"type": "any", "disable_parallel_tool_use": True}),
        (ToolChoice("one", "f"), None, {"type": "tool", "name": "f"}),
        (ToolChoice("none"), False, {"type": "none"}),
        (ToolChoice("auto", allowed=["g"]), None, {"type": "auto"}),
    ],
)
def test_choices_of_tools(choice: ToolChoice | None, parallel: bool | None, expected: Tree | None) -> None:
    tools = [Tool("f", schema={}), Tool("g", schema={})]
    tree = written(talk(user(Text("a")), tools=tools, tool_choice=choice, parallel=parallel))
    assert tree.get("tool_choice") == expected
    offered = [tool["name"] for tool in tree["tools"]]
    assert offered == (choice.allowed if choice is not None and choice.allowed else ["f", "g"])


def test_a_choice_of_tools_that_are_not_there_is_told() -> None:
    choice = ToolChoice("auto", allowed=["zzz"])
    tree = written(talk(user(Text("a")), tools=[Tool("f", schema={})], tool_choice=choice), "allowed_tools")
    assert [tool["name"] for tool in tree["tools"]] == ["f"]


def test_a_custom_tool_is_offered_and_called_as_a_function() -> None:
    tool = Tool("patch", "Patches.", grammar={"type": "grammar", "syntax": "lark", "definition": "start: X"})
    call = ToolUse("1", "patch", "*** Begin", custom=True)
    tree = written(talk(user(Text("a")), model(call), user(ToolResult("1", [])), tools=[tool]))
    assert tree["tools"][0]["input_schema"]["required"] == ["input"]
    assert "start: X" in tree["tools"][0]["description"]
    assert tree["messages"][1]["content"][0]["input"] == {"input": "*** Begin"}


def test_strict_schemas_say_only_what_the_api_takes() -> None:
    schema = {
        "type": "object",
        "properties": {
            "n": {"type": "integer", "minimum": 1, "description": "How many."},
            "l": {
                "type": "array",
                "items": {"oneOf": [{"type": "object", "properties": {}}, {"type": "null"}]},
                "maxItems": 2,
            },
            "d": {"type": "string", "format": "date"},
        },
        "required": ["n"],
    }
    tree = written(talk(user(Text("a")), tools=[Tool("f", schema=schema, strict=True)]))
    made = tree["tools"][0]["input_schema"]
    assert made["additionalProperties"] is False
    assert made["properties"] == {
        "n": {"type": "integer", "description": 'How many.\nMust match: {"minimum":1}'},
        "l": {
            "type": "array",
            "items": {"anyOf": [{"type": "object", "properties": {}, "additionalProperties": False}, {"type": "null"}]},
            "description": 'Must match: {"maxItems":2}',
        },
        "d": {"type": "string", "format": "date"},
    }
    assert "minimum" in schema["properties"]["n"], "the caller's own tree has changed"  # type: ignore[index]
    loose = written(talk(user(Text("a")), tools=[Tool("f", schema=schema)]))
    assert loose["tools"][0]["input_schema"] == schema
    old = talk(user(Text("a")), tools=[Tool("f", schema=schema, strict=True)], model="claude-3-7-sonnet-20250219")
    assert "strict" not in written(old, "strict_tools")["tools"][0]


def test_alternatives_at_the_top_of_a_schema_become_properties_and_words() -> None:
    schema = {"anyOf": [{"properties": {"a": {}}, "required": ["a"]}, {"properties": {"b": {}}}, 7]}
    tool = written(talk(user(Text("a")), tools=[Tool("f", "Does.", schema)]))["tools"][0]
    assert tool["input_schema"] == {"type": "object", "properties": {"a": {}, "b": {}}}
    assert tool["description"].startswith("Does.\n\nThe arguments must also match: ")


def test_a_schema_without_a_floor_is_refused() -> None:
    deep: dict[str, Any] = {"type": "string"}
    for _ in range(100):
        deep = {"type": "object", "properties": {"x": deep}}
    with pytest.raises(Untranslatable):
        written(talk(user(Text("a")), tools=[Tool("f", schema=deep, strict=True)]))


@pytest.mark.parametrize("name", ["", "a.b", "x" * 129])
def test_names_of_tools_that_the_api_does_not_take_are_refused(name: str) -> None:
    with pytest.raises(Untranslatable) as caught:
        written(talk(user(Text("a")), tools=[Tool(name, schema={})]))
    assert caught.value.param == "tools[0].name"


# -- how much to think


def asking(*, model: str = OLD, **members: Any) -> Request:
    return talk(user(Text("a")), model=model, **members)


@pytest.mark.parametrize(
    ("reasoning", "max_tokens", "expected"),
    [
        (None, None, (None, 8192)),
        (Reasoning(summary="auto"), None, (None, 8192)),
        (Reasoning(effort="high"), None, ({"type": "enabled", "budget_tokens": 16384}, 8192 + 16384)),
        (Reasoning(effort="high"), 9000, ({"type": "enabled", "budget_tokens": 4500}, 9000)),
        (Reasoning(effort="minimal"), 9000, ({"type": "enabled", "budget_tokens": 1024}, 9000)),
        (Reasoning(enabled=True), None, ({"type": "enabled", "budget_tokens": 8192}, 16384)),
        (Reasoning(effort="low", budget=5000, enabled=True), 5001, ({"type": "enabled", "budget_tokens": 5000}, 5001)),
        (Reasoning(effort="low", budget=9000), 5001, ({"type": "enabled", "budget_tokens": 5000}, 5001)),
        (Reasoning(effort="none"), 10, ({"type": "disabled"}, 10)),
        (Reasoning(effort="high", enabled=False), 10, ({"type": "disabled"}, 10)),
    ],
)
def test_older_models_are_given_a_budget(reasoning: Reasoning | None, max_tokens: int | None, expected: Any) -> None:
    tree = written(asking(reasoning=reasoning, max_tokens=max_tokens))
    assert (tree.get("thinking"), tree["max_tokens"]) == expected


@pytest.mark.parametrize(
    ("reasoning", "model", "thinking", "effort"),
    [
        (Reasoning(effort="minimal"), NEW, {"type": "adaptive"}, "low"),
        (Reasoning(effort="xhigh", summary="auto"), NEW, {"type": "adaptive", "display": "summarized"}, "xhigh"),
        (Reasoning(effort="xhigh"), MIDDLE, {"type": "adaptive"}, "high"),
        (Reasoning(budget=16384), NEW, {"type": "adaptive"}, "high"),
        (Reasoning(enabled=True, adaptive=True), NEW, {"type": "adaptive"}, None),
        (Reasoning(effort="none"), NEW, {"type": "disabled"}, None),
    ],
)
def test_newer_models_are_told_an_effort(reasoning: Reasoning, model: str, thinking: Tree, effort: str | None) -> None:
    tree = written(asking(reasoning=reasoning, model=model))
    assert tree["thinking"] == thinking
    assert tree.get("output_config") == (None if effort is None else {"effort": effort})


def test_thinking_is_left_out_where_it_would_be_refused() -> None:
    high, tools = Reasoning(effort="high"), [Tool("f", schema={})]
    refused = [
        asking(reasoning=high, tools=tools, tool_choice=ToolChoice("required")),
        asking(reasoning=high, tools=tools, tool_choice=ToolChoice("one", "f"), model=NEW),
        asking(reasoning=high, max_tokens=2000),
        talk(user(Text("a")), model(Text("So")), reasoning=high),
    ]
    for request in refused:
        tree = written(request, "reasoning")
        assert "thinking" not in tree
        assert "output_config" not in tree


def test_a_chain_of_calls_without_its_thought_is_gone_on_with_without_thinking() -> None:
    thought = Thinking("t", "agw:messages:s")
    chain = [user(Text("a")), model(ToolUse("1", "f")), user(ToolResult("1", []))]
    signed = [user(Text("a")), model(thought, ToolUse("1", "f")), user(ToolResult("1", []))]
    more = [model(ToolUse("2", "f")), user(ToolResult("2", []))]
    members: Any = {"tools": [Tool("f", schema={})], "reasoning": Reasoning(effort="high")}
    off = written(talk(*chain, **members), "reasoning")
    assert "thinking" not in off
    assert off["max_tokens"] == 8192
    assert "thinking" not in written(talk(*chain, *more, **members), "reasoning")
    assert "thinking" in written(talk(*signed, **members))
    assert "thinking" in written(talk(*signed, *more, **members))
    assert "thinking" in written(talk(*chain, model(Text("b")), user(Text("c")), **members))
    assert "thinking" in written(talk(*chain, model=NEW, **members))
    foreign = model(Thinking("t", "agw:chat:s"), ToolUse("1", "f"))
    lost = talk(user(Text("a")), foreign, user(ToolResult("1", [])), **members)
    assert "thinking" not in written(lost, "reasoning", "foreign_reasoning")


# -- tuning


@pytest.mark.parametrize(
    ("members", "lost", "expected"),
    [
        ({"temperature": 0.3, "top_k": 5}, [], {"temperature": 0.3, "top_k": 5}),
        ({"temperature": 1.7}, ["temperature"], {"temperature": 1}),
        ({"temperature": 0.5, "top_p": 0.9}, ["top_p"], {"temperature": 0.5}),
        ({"temperature": 0.5, "top_p": 1}, [], {"temperature": 0.5}),
        ({"top_p": 0.9}, [], {"top_p": 0.9}),
        ({"temperature": 0, "top_p": 0.5, "top_k": 1, "model": NEW}, ["temperature", "top_k", "top_p"], {}),
        ({"temperature": 0, "top_k": 1, "reasoning": Reasoning(effort="low")}, ["temperature", "top_k"], {}),
        ({"temperature": 1, "reasoning": Reasoning(effort="low")}, [], {"temperature": 1}),
        ({"top_p": 0.5, "reasoning": Reasoning(effort="low")}, ["top_p"], {}),
        ({"stop": ["\n", "END"]}, ["stop"], {"stop_sequences": ["END"]}),
        ({"user": "u"}, [], {"metadata": {"user_id": "u"}}),
        ({"user": "u" * 257, "metadata": {"a": "b"}}, ["metadata", "user"], {}),
        ({"service_tier": "auto"}, [], {"service_tier": "auto"}),
        ({"service_tier": "flex"}, ["service_tier"], {}),
        ({"seed": 1, "verbosity": "low", "store": True, "logprobs": 0}, ["logprobs", "seed", "store", "verbosity"], {}),
        ({"presence_penalty": 1, "frequency_penalty": 1}, ["frequency_penalty", "presence_penalty"], {}),
        ({"logit_bias": {"1": 1}, "store": False, "presence_penalty": 0.0}, ["logit_bias"], {}),
        ({"hosted": [Hosted("web_search", "responses", {})]}, ["hosted_tools"], {}),
        ({"extra": {"prediction": {}}}, ["prediction"], {}),
        ({"extra": {"thinking.between_tools": True}}, [], {"thinking": {"type": "between_tools"}}),
    ],
)
def test_what_tunes_an_answer_is_sent_or_told(members: Any, lost: list[str], expected: Tree) -> None:
    tree = written(asking(**members), *lost)
    basics = {"model", "max_tokens", "messages", *({"thinking"} if "reasoning" in members else set())}
    assert {name: value for name, value in tree.items() if name not in basics} == expected


def test_several_choices_are_refused() -> None:
    with pytest.raises(Untranslatable) as caught:
        written(asking(n=2))
    assert caught.value.param == "n"


def test_structured_output() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    made = written(asking(format=Format(schema, description="An a.")))["output_config"]["format"]
    assert made["type"] == "json_schema"
    assert made["schema"] == {**schema, "additionalProperties": False, "description": "An a."}
    both = written(asking(format=Format(schema), reasoning=Reasoning(effort="low"), model=NEW))
    assert both["output_config"].keys() == {"effort", "format"}
    written(asking(format=Format()), "json_object")
    written(asking(format=Format(schema), model="claude-3-5-haiku-20241022"), "json_schema")
    written(talk(user(Text("a")), model(Text("{")), format=Format(schema)), "json_schema")


@pytest.mark.parametrize(
    "inner",
    [
        {"type": "object", "additionalProperties": {"type": "integer"}},
        {"type": "object", "additionalProperties": True},
        {"type": "object"},
        {"type": ["object", "null"], "additionalProperties": True},
        {"type": "array", "items": {"type": "object", "properties": {}, "patternProperties": {"^x": {}}}},
        {"anyOf": [{"type": "null"}, {"type": "object"}]},
    ],
)
def test_a_schema_with_a_map_is_told_in_words(inner: Tree) -> None:
    schema = {"type": "object", "properties": {"a": inner}, "required": ["a"]}
    tree = written(asking(format=Format(schema)), "json_schema")
    assert "output_config" not in tree
    assert orjson.dumps(schema).decode() in tree["system"][-1]["text"]
    tool = written(talk(user(Text("a")), tools=[Tool("f", schema=schema, strict=True)]), "strict_tools")["tools"][0]
    assert tool == {"name": "f", "input_schema": schema}


@pytest.mark.parametrize(
    "inner",
    [
        {"type": "object", "additionalProperties": False},
        {"type": ["object", "null"], "properties": {"b": {}}},
        {"type": "object", "properties": {"b": {}}, "additionalProperties": True},
        {"type": "object", "anyOf": [{"properties": {"b": {}}}]},
    ],
)
def test_a_schema_that_names_its_members_is_structured_output(inner: Tree) -> None:
    tree = written(asking(format=Format({"type": "object", "properties": {"a": inner}})))
    assert tree["output_config"]["format"]["type"] == "json_schema"
