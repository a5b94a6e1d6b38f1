"""Clones of an author's agents with what a caller brings."""

from typing import Any

import pytest
from agents import Agent, FunctionTool, Handoff, ModelSettings, RunContextWrapper, function_tool, handoff
from pydantic import BaseModel

from agw_proxy.dialects.base import Format, Tool
from agw_proxy.errors import InvalidParameter
from agw_proxy.sdk.equipped import Equipped, Wanted, own_names

MAIL = Tool("mail", "Sends", {"type": "object", "properties": {"to": {"type": "string"}}, "required": ["to"]})


@function_tool
def look() -> str:
    return ""


class Shape(BaseModel):
    number: int


async def test_agents_that_know_each_other_are_cloned_once() -> None:
    one, other = Agent[Any](name="one", tools=[look]), Agent[Any](name="other")
    one.handoffs, other.handoffs = [other], [handoff(one, tool_name_override="back")]
    equipped = Equipped([MAIL], None, {})
    first = equipped.first(one, "required")
    assert [tool.name for tool in first.tools] == ["look", "mail"]
    (over,) = first.handoffs
    assert isinstance(over, Handoff)
    second = await over.on_invoke_handoff(RunContextWrapper(None), "")
    assert [tool.name for tool in second.tools] == ["mail"]
    (back,) = second.handoffs
    again = await back.on_invoke_handoff(RunContextWrapper(None), "")
    assert (again.name, again.model_settings.tool_choice) == ("one", None)
    assert equipped.own(first) is equipped.own(again) is one
    assert equipped.own(second) is other
    assert (len(one.tools), one.handoffs, first.model_settings.tool_choice) == (1, [other], "required")


def test_nothing_brought_is_nothing_changed() -> None:
    agent = Agent[Any](name="one")
    assert Equipped([], None, {}).first(agent, None) is agent


def test_the_lower_bound_of_tokens_counts() -> None:
    agent = Agent[Any](name="one", model_settings=ModelSettings(max_tokens=100, temperature=0.2))
    made = Equipped([], None, {"max_tokens": 500, "top_p": 0.3}).clone(agent).model_settings
    assert (made.max_tokens, made.temperature, made.top_p) == (100, 0.2, 0.3)
    assert Equipped([], None, {"max_tokens": 50}).clone(agent).model_settings.max_tokens == 50


async def test_an_agent_with_a_form_of_its_own_can_be_handed_over_to() -> None:
    shaped = Agent[Any](name="shaped", output_type=Shape)
    equipped = Equipped([], Format(), {})
    with pytest.raises(InvalidParameter):
        equipped.clone(shaped)
    (over,) = equipped.clone(Agent[Any](name="one", handoffs=[shaped])).handoffs
    assert isinstance(over, Handoff)
    assert await over.on_invoke_handoff(RunContextWrapper(None), "") is shaped


def test_json_as_the_caller_wants_it_is_given_on_as_it_is() -> None:
    wanted = Wanted(Format({"type": "object"}, "thing", strict=True))
    assert (wanted.name(), wanted.json_schema(), wanted.is_strict_json_schema()) == ("thing", {"type": "object"}, True)
    assert (wanted.validate_json('{"a":1}'), wanted.validate_json('{"a"')) == ({"a": 1}, '{"a"')
    assert Wanted(Format()).json_schema()["type"] == "object"
    assert not wanted.is_plain_text()


def test_names_of_all_agents_that_can_be_reached() -> None:
    deep = Agent[Any](name="Deep One", tools=[look])
    other = Agent[Any](name="other", handoffs=[handoff(deep, tool_name_override="dive")])
    first = Agent[Any](name="first", handoffs=[other])
    deep.handoffs = [first]
    assert own_names(first) == {"look", "dive", "transfer_to_other", "transfer_to_first"}


async def test_a_callers_tool_is_as_strict_as_it_says_and_never_run() -> None:
    open_schema = {"type": "object", "properties": {}, "additionalProperties": {"type": "string"}}
    with pytest.raises(InvalidParameter, match="'loose'"):
        Equipped([Tool("loose", schema=open_schema, strict=True)], None, {}).clone(Agent[Any](name="one"))
    (tool,) = Equipped([Tool("loose", schema=open_schema)], None, {}).clone(Agent[Any](name="one")).tools
    assert isinstance(tool, FunctionTool)
    assert tool.params_json_schema == open_schema
    context: Any = None
    with pytest.raises(RuntimeError):
        await tool.on_invoke_tool(context, "{}")
