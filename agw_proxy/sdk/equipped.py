"""An agent with what its caller brings: tools that end the run, and the form of the answer. The author's agent is not touched."""

import copy
from collections.abc import Sequence
from typing import Any

import orjson
from agents import (
    Agent,
    AgentOutputSchemaBase,
    FunctionTool,
    Handoff,
    ModelSettings,
    OpenAIChatCompletionsModel,
    RunContextWrapper,
    handoff,
)
from agents.exceptions import UserError
from agents.tool_context import ToolContext

from agw_proxy.dialects.base import Format, Tool, Tree
from agw_proxy.errors import InvalidParameter


class Wanted(AgentOutputSchemaBase):
    """JSON as the caller wants it. As of any upstream, what comes is given on without a check: it may have been cut."""

    def __init__(self, form: Format) -> None:
        """``form``: with or without a schema."""
        self._form = form

    def is_plain_text(self) -> bool:
        """See the SDK."""
        return False

    def name(self) -> str:
        """See the SDK."""
        return self._form.name

    def json_schema(self) -> dict[str, Any]:
        """See the SDK."""
        return self._form.schema if self._form.schema is not None else {"type": "object", "additionalProperties": True}

    def is_strict_json_schema(self) -> bool:
        """See the SDK."""
        return bool(self._form.strict)

    def validate_json(self, json_str: str) -> Any:
        """See the SDK."""
        try:
            return orjson.loads(json_str)
        except orjson.JSONDecodeError:
            return json_str


class Equipped:
    """Makes clones of agents, each once: an agent hands over to the clone of another, so that all have what the caller brings."""

    def __init__(self, tools: Sequence[Tool], form: Format | None, settings: Tree) -> None:
        """``settings``: arguments of ModelSettings, which count more than the author's."""
        self._tools = tools
        self._form = form
        self._settings = settings
        self._made: dict[int, Agent[Any]] = {}
        self._own: dict[int, Agent[Any]] = {}

    def clone(self, agent: Agent[Any]) -> Agent[Any]:
        """The agent as it runs for this caller; itself where nothing is brought. Raises InvalidParameter."""
        if not (self._tools or self._form is not None or self._settings):
            return agent
        made = self._made.get(id(agent))
        if made is not None:
            return made
        changes: dict[str, Any] = {"handoffs": [self._handoff(each) for each in agent.handoffs]}
        if self._tools:
            changes["tools"] = [*agent.tools, *(_function(tool) for tool in self._tools)]
        if self._form is not None:
            if agent.output_type is not None and agent.output_type is not str:
                raise InvalidParameter(
                    "The agent's answers have a form of their own: send the request without one.", param="text.format"
                )
            changes["output_type"] = Wanted(self._form)
        if self._settings:
            changes["model_settings"] = self._over(agent.model_settings)
        made = agent.clone(**changes)
        self._made[id(agent)], self._own[id(made)] = made, agent
        return made

    def first(self, agent: Agent[Any], choice: str | None) -> Agent[Any]:
        """The clone that the run begins with. ``choice``: of tools, which nobody after it is bound by. Raises InvalidParameter."""
        made = self.clone(agent)
        if choice is None:
            return made
        begun = made.clone(model_settings=made.model_settings.resolve(ModelSettings(tool_choice=choice)))
        self._made[id(begun)], self._own[id(begun)] = begun, agent
        return begun

    def own(self, agent: Agent[Any]) -> Agent[Any]:
        """The author's agent of a clone."""
        return self._own.get(id(agent), agent)

    def _over(self, settings: ModelSettings) -> ModelSettings:
        """The caller's settings over the author's; of two bounds on tokens the lower one."""
        told = dict(self._settings)
        if settings.max_tokens is not None and "max_tokens" in told:
            told["max_tokens"] = min(settings.max_tokens, told["max_tokens"])
        return settings.resolve(ModelSettings(**told))

    def _handoff(self, target: Agent[Any] | Handoff[Any, Any]) -> Handoff[Any, Any]:
        made = handoff(target) if isinstance(target, Agent) else target
        invoke = made.on_invoke_handoff

        async def invoked(context: RunContextWrapper[Any], arguments: str) -> Any:
            found = await invoke(context, arguments)
            try:
                return self.clone(found) if isinstance(found, Agent) else found
            except (
                InvalidParameter
            ):  # its answers have a form of their own, and the one asked for is this one's no more
                return found

        made = copy.copy(made)
        made.on_invoke_handoff = invoked
        return made


def own_names(agent: Agent[Any]) -> frozenset[str]:
    """What the agent's own tools and handoffs are called, and those of the agents that it knows."""
    names: set[str] = set()
    for each in known(agent):
        names |= {tool.name for tool in each.tools}
        for server in each.mcp_servers:
            names.update(getattr(getattr(server, "line", None), "tools", ()))
        for target in each.handoffs:
            names.add(Handoff.default_tool_name(target) if isinstance(target, Agent) else target.tool_name)
    return frozenset(names)


def known(agent: Agent[Any]) -> list[Agent[Any]]:
    """The agent, and those that it may hand over to, as far as that can be seen before."""
    found: list[Agent[Any]] = []
    seen: set[int] = set()
    left: list[Any] = [agent]
    while left:
        each = left.pop()
        if isinstance(each, Handoff):
            reference = getattr(each, "_agent_ref", None)  # the SDK tells it nowhere else
            each = reference() if reference is not None else None
        if isinstance(each, Agent) and id(each) not in seen:
            seen.add(id(each))
            found.append(each)
            left += each.handoffs
    return found


def reached(agent: Agent[Any]) -> list[Agent[Any]]:
    """The agent, and those that a run of it may come to: by handing over, or as tools."""
    found: dict[int, Agent[Any]] = {}
    left = [agent]
    while left:
        for each in known(left.pop()):
            if id(each) not in found:
                found[id(each)] = each
                inner = (getattr(tool, "_agent_instance", None) for tool in each.tools)  # the SDK tells it nowhere else
                left += [one for one in inner if isinstance(one, Agent)]
    return list(found.values())


def tells_no_usage(agent: Agent[Any]) -> bool:
    """A model of the SDK's class for Chat is among them: it counts nothing of a stream that it was not told to ask this of."""
    return any(
        isinstance(each.model, OpenAIChatCompletionsModel) and each.model_settings.include_usage is None
        for each in known(agent)
    )


async def _never(context: ToolContext[Any], arguments: str) -> Any:  # noqa: ARG001  the SDK's signature
    raise RuntimeError("a caller's tool is not run here")


def _function(tool: Tool) -> FunctionTool:
    """A caller's tool. The run ends at its call as if somebody had to approve it: the agent's own calls beside it are run."""
    try:
        return FunctionTool(
            name=tool.name,
            description=tool.description or "",
            params_json_schema=copy.deepcopy(tool.schema or {}),
            on_invoke_tool=_never,
            strict_json_schema=tool.strict is True,
            needs_approval=True,
        )
    except UserError as error:
        raise InvalidParameter(f"Tool '{tool.name}': {error.message}", param="tools") from None
