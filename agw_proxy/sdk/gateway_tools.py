"""``gateway_tool("NAME")``: a tool of the gateway's as a tool of an agent's, under the policy of the gateway.

The caller's key has to allow it, limits per tool hold, each call has its bound of time and is told to the log and the
metrics. A model is not shown what the key of its run's caller may not use.
"""

import re
from typing import Any

from agents import Agent, FunctionTool, RunContextWrapper
from agents.tool_context import ToolContext

from agw_proxy.sdk.entry import CURRENT, Run, at_home
from agw_proxy.sdk.equipped import reached
from agw_proxy.sdk.hooks import about
from agw_proxy.tools.registry import REGISTRY, Asker, Refused, Registry, Spec

NOT_OF_NAMES = re.compile(r"[^A-Za-z0-9_-]")
"""What models take no names with."""
UNBOUND = Spec("A tool of the gateway's, which is not here.", {"type": "object", "additionalProperties": True})


class GatewayTool(FunctionTool):
    """A tool of the SDK's over one of the gateway's."""

    registry: Registry | None = None
    asked_as: str = ""
    told: Spec | None = None
    """What its agent's models are told, as it was when the agent was made."""

    @property
    def outdated(self) -> bool:
        """The gateway's tool is not what this one was made of any more."""
        return self.registry is not None and self.registry.spec(self.asked_as) != self.told


def gateway_tool(name: str, *, called: str | None = None, description: str | None = None) -> GatewayTool:
    """The gateway's tool of that name (``tools`` in its configuration), for ``Agent(tools=[...])``.

    ``called``, ``description``: what models are told instead; without, its name with ``_`` for what they take in none.
    What cannot be given (arguments that do not fit, a limit, a time-out, a failure) is told to the model in words.

    Raises LookupError, where a gateway loads the agent, if it has no such tool. Outside of one there is nothing that could
    be called: the tool can be made, so that an agent's module can be imported, and each call of it says so.
    """
    registry = REGISTRY.get()
    spec = UNBOUND if registry is None else registry.spec(name)
    if registry is not None and spec is None:
        why = registry.failed.get(name)
        there = ", ".join(registry.names) or "none"
        raise LookupError(
            f"the gateway has no tool '{name}'; there are: {there}" if why is None else f"'{name}': {why}"
        )
    told = spec or UNBOUND

    async def invoke(_: ToolContext[object], arguments: str) -> str:
        if registry is None:
            return f"There is no gateway here, and so no tool '{name}'."
        try:
            return await at_home(registry.call(name, arguments, _asker(CURRENT.get())))
        except Refused as refused:
            return str(refused)

    def enabled(_: RunContextWrapper[object], __: object) -> bool:
        run = CURRENT.get()
        return registry is None or registry.allows(name, run.principal if run is not None else None)

    made = GatewayTool(
        name=called or NOT_OF_NAMES.sub("_", name),
        description=description if description is not None else told.description,
        params_json_schema=dict(told.schema),
        on_invoke_tool=invoke,
        strict_json_schema=False,
        is_enabled=enabled,
    )
    made.registry, made.asked_as, made.told = registry, name, spec
    return made


def given(agent: Agent[Any]) -> list[GatewayTool]:
    """Those that the agent has, or one that a run of it may come to."""
    return [tool for each in reached(agent) for tool in each.tools if isinstance(tool, GatewayTool)]


def _asker(run: Run | None) -> Asker:
    if run is None:
        return Asker()
    return Asker(run.principal, run.user, run.channel, run.session, about(run))
