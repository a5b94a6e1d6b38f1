"""What an agent is made of, looked at before it is served.

The SDK takes any list of tools, handoffs, servers and guardrails, and fails in each run at what is none: a function that
lacks its ``@function_tool`` above all. Here it is said once, to whoever writes the agent, and no caller comes upon it.
"""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple, get_args, get_origin

from agents import Agent, Handoff, InputGuardrail, OutputGuardrail, Tool
from agents.sandbox import SandboxAgent

from agw_proxy.sdk.equipped import known, reached

TOOLS = tuple(get_origin(kind) or kind for kind in get_args(Tool))
WORDS = 80
"""Characters of a text that is told."""


class Part(NamedTuple):
    """A member of an agent's. ``fits``: what may be in it; ``expected``: that in words."""

    member: str
    fits: Callable[[object], bool]
    expected: str


def is_tool(value: object) -> bool:
    """The SDK can give it to a model."""
    return isinstance(value, TOOLS)


def _is_server(value: object) -> bool:
    return not isinstance(value, type) and callable(getattr(value, "call_tool", None))  # its class would bring MCP


PARTS = (
    Part("tools", is_tool, "tools of the SDK (@function_tool makes one of a function, as_tool() one of an agent)"),
    Part("handoffs", lambda value: isinstance(value, Agent | Handoff), "agents, or what handoff() gives"),
    Part("mcp_servers", _is_server, "MCP servers of agents.mcp"),
    Part("input_guardrails", lambda value: isinstance(value, InputGuardrail), "what @input_guardrail makes"),
    Part("output_guardrails", lambda value: isinstance(value, OutputGuardrail), "what @output_guardrail makes"),
)


def misfit(agent: Agent[Any]) -> str | None:
    """What the agent, or one that a run of it may come to, cannot run with; None: there is nothing of the kind."""
    boxed = next((each for each in known(agent) if isinstance(each, SandboxAgent)), None)
    if boxed is not None:  # as a tool one brings a RunConfig of its own
        return f"'{boxed.name}' is a SandboxAgent, and runs here have no sandbox: expected an agents.Agent"
    for each in reached(agent):
        for part in PARTS:
            for value in getattr(each, part.member):
                if not part.fits(value):
                    return f"{part.member} of '{each.name}': expected {part.expected}; came {told(value)}"
    return None


def told(value: object) -> str:
    """What kind of thing it is, by its name where it has one."""
    if isinstance(value, str):
        return repr(value[:WORDS])
    if inspect.isroutine(value) or isinstance(value, type):
        kind = "the class" if isinstance(value, type) else "the function"
        return f"{kind} {getattr(value, '__name__', '?')}"
    return f"a {type(value).__module__}.{type(value).__qualname__}"
