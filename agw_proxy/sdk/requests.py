"""What a caller asks of an agent: a Responses request, read into the SDK's input, the caller's tools, and settings.

OpenAI API reference, Responses, "Create a model response". The caller's words are the truth: nothing of a conversation is
looked up here. Where a gateway keeps conversations, they stand in ``input`` already.
"""

from collections.abc import Sequence

import msgspec
import orjson

from agw_proxy.dialects import custom_tools
from agw_proxy.dialects import openai_responses_kept as kept
from agw_proxy.dialects.base import Format, Malformed, Request, Tool, Tree, Untranslatable
from agw_proxy.dialects.openai_responses_requests import effort_of, read_request
from agw_proxy.dialects.openai_responses_tools import flat_name
from agw_proxy.errors import InvalidJSON, InvalidParameter

CALLS = frozenset({"function_call", "custom_tool_call"})
UNKEPT = ("previous_response_id", "conversation")
LOST = ("prompt", "max_tool_calls", "truncation", "context_management")
"""Members that mean something to one model call only, and not to a run of several."""


class Asked(msgspec.Struct):
    """A request to an agent."""

    request: Request
    items: list[Tree]
    """The SDK's input: Responses items, none with an id of ours."""
    tools: list[Tool]
    """The caller's, all as functions, by the names that the agent's model is told."""
    names: dict[str, str]
    """Those names, and what the caller calls the tools."""
    dropped: tuple[str, ...] = ()
    """What the request loses."""

    @property
    def format(self) -> Format | None:
        """JSON that the answer has to be."""
        return self.request.format


def read(body: bytes, taken: frozenset[str] = frozenset()) -> Asked:
    """Read a request. ``taken``: names of the agent's own tools, which no tool of the caller's gets.

    Raises InvalidJSON, InvalidParameter.
    """
    try:
        tree = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidJSON(f"The body is no JSON: {error}") from None
    if not isinstance(tree, dict):
        raise InvalidJSON("The body has to be a JSON object.")
    for name in UNKEPT:
        if tree.get(name) is not None:
            raise InvalidParameter(
                f"Nothing is kept here that '{name}' could name: send the whole conversation in 'input'.", param=name
            )
    try:
        request = read_request(tree)
        items = kept.portable(kept.sent(tree.get("input")))
    except (Malformed, Untranslatable) as error:
        raise InvalidParameter(error.message, param=error.param) from None
    for at, item in enumerate(items):
        if kept.reference_of(item) is not None:
            raise InvalidParameter("Nothing is kept here that an item could refer to.", param=f"input[{at}]")
    names = _named(request.tools, taken)
    mine = {own: told for told, own in names.items()}
    offered = _offered(request)
    instructions = tree.get("instructions")
    if instructions:
        items.insert(0, {"type": "message", "role": "system", "content": instructions})
    return Asked(
        request=request,
        items=[_as_function(item, mine) for item in items],
        tools=[_as_told(tool, mine) for tool in offered],
        names={mine[tool.name]: tool.name for tool in offered},
        dropped=_dropped(request),
    )


def _offered(request: Request) -> list[Tool]:
    """Those of the caller's tools that may be called at all."""
    choice = request.tool_choice
    if choice is not None and choice.mode == "none":
        return []
    if choice is None or choice.allowed is None:
        return request.tools
    return [tool for tool in request.tools if tool.name in choice.allowed]


def _named(tools: Sequence[Tool], taken: frozenset[str]) -> dict[str, str]:
    """A name for each of the caller's tools that nobody else has."""
    used = set(taken)
    names: dict[str, str] = {}
    for tool in tools:
        told, number = tool.name, 2
        while told in used:
            told, number = f"{tool.name}_{number}", number + 1
        used.add(told)
        names[told] = tool.name
    return names


def _as_told(tool: Tool, mine: dict[str, str]) -> Tool:
    """The tool as a function, under the name that the model is told."""
    return msgspec.structs.replace(custom_tools.wrapped(tool), name=mine[tool.name])


def _as_function(item: Tree, mine: dict[str, str]) -> Tree:
    """A call in the history as the model would make it now, and its result likewise."""
    kind = item.get("type")
    if kind == "custom_tool_call_output":
        return {**item, "type": "function_call_output"}
    if kind not in CALLS:
        return item
    namespace, name = item.get("namespace"), str(item.get("name"))
    own = name if not isinstance(namespace, str) else flat_name(namespace, name)
    made = {key: value for key, value in item.items() if key not in {"namespace", "input"}}
    if kind == "custom_tool_call":
        made["arguments"] = custom_tools.arguments_of(str(item.get("input", "")))
    return {**made, "type": "function_call", "name": mine.get(own, own)}


def _dropped(request: Request) -> tuple[str, ...]:
    lost = [f"tools.{hosted.kind}" for hosted in request.hosted]
    lost += [name for name in LOST if request.extra.get(name) is not None]
    if request.logprobs is not None:
        lost.append("logprobs")
    return tuple(dict.fromkeys(lost))


def settings_of(request: Request) -> Tree:
    """What the caller has said of how the model is to work, as arguments of the SDK's ModelSettings."""
    made: Tree = {}
    if request.temperature is not None:
        made["temperature"] = request.temperature
    if request.top_p is not None:
        made["top_p"] = request.top_p
    if request.max_tokens is not None:
        made["max_tokens"] = request.max_tokens
    if request.parallel is not None and request.tools:
        made["parallel_tool_calls"] = request.parallel
    if request.verbosity in {"low", "medium", "high"}:
        made["verbosity"] = request.verbosity
    if request.reasoning is not None:
        reasoning: Tree = {}
        effort = effort_of(request.reasoning)
        if effort is not None:
            reasoning["effort"] = effort
        if request.reasoning.summary in {"auto", "concise", "detailed"}:
            reasoning["summary"] = request.reasoning.summary
        if reasoning:
            made["reasoning"] = reasoning
    return made


def choice_of(request: Request, names: dict[str, str]) -> str | None:
    """``auto``, ``required`` or the name of a tool, as the SDK wants it; None: nothing was said of the caller's own tools."""
    choice = request.tool_choice
    if choice is None or not names or choice.mode == "none":
        return None
    if choice.mode == "one":
        return next((told for told, own in names.items() if own == choice.name), None)
    return choice.mode
