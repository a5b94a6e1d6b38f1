"""What an agent cannot run with is found before anybody asks it."""

from typing import Any

import pytest
from agents import Agent, GuardrailFunctionOutput, WebSearchTool, function_tool, handoff, input_guardrail
from agents.mcp import MCPServerStdio
from agents.sandbox import SandboxAgent

from agw_proxy.sdk.parts import misfit


def look(city: str) -> str:
    return city


@input_guardrail
async def never(*_: object) -> GuardrailFunctionOutput:
    return GuardrailFunctionOutput(None, tripwire_triggered=False)


OTHER: Agent[Any] = Agent(name="Other")


def test_all_that_the_sdk_takes_is_taken() -> None:
    server = MCPServerStdio({"command": "true"})
    tools: list[Any] = [function_tool(look), WebSearchTool(), OTHER.as_tool("ask", "Ask.")]
    agent = Agent(
        name="a", tools=tools, handoffs=[OTHER, handoff(OTHER)], mcp_servers=[server], input_guardrails=[never]
    )
    assert misfit(agent) is None


@pytest.mark.parametrize(
    ("member", "value", "words"),
    [
        ("tools", look, r"tools of 'a': expected tools of the SDK \(@function_tool .*; came the function look"),
        ("tools", WebSearchTool, "came the class WebSearchTool"),
        ("tools", OTHER, r"as_tool\(\) one of an agent\); came a agents.agent.Agent"),
        ("handoffs", "billing", "handoffs of 'a': expected agents, .*; came 'billing'"),
        ("mcp_servers", {"command": "x"}, "mcp_servers of 'a': expected MCP servers .*; came a builtins.dict"),
        ("mcp_servers", MCPServerStdio, "came the class MCPServerStdio"),
        ("input_guardrails", look, "expected what @input_guardrail makes; came the function look"),
        ("output_guardrails", never, "expected what @output_guardrail makes; came a agents.guardrail.InputGuardrail"),
    ],
)
def test_what_cannot_be_run_is_named(member: str, value: Any, words: str) -> None:
    members: dict[str, Any] = {member: [value]}
    wrong = Agent(name="a", **members)
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(misfit(wrong))
    assert misfit(Agent(name="outer", handoffs=[wrong])) == misfit(wrong), "one that it leads to is looked at, too"


def test_one_that_wants_a_sandbox_is_refused_but_for_one_that_is_a_tool() -> None:
    boxed: Any = SandboxAgent(name="boxed")
    for agent in (boxed, Agent(name="outer", handoffs=[boxed]), Agent(name="outer", handoffs=[handoff(boxed)])):
        assert "'boxed' is a SandboxAgent" in str(misfit(agent))
    assert misfit(Agent(name="outer", tools=[boxed.as_tool("ask", "Ask.")])) is None
