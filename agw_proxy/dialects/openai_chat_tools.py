"""Tools and their choice in Chat requests, both ways (OpenAI API reference, Chat, ``tools``, ``tool_choice``, ``functions``)."""

from typing import Any

from agw_proxy.dialects.base import Hosted, Losses, Malformed, Request, Tool, ToolChoice, Tree
from agw_proxy.dialects.custom_tools import wrapped
from agw_proxy.dialects.openai_chat_fields import (
    child,
    flag,
    items,
    list_of,
    named,
    needed,
    path,
    refuse,
    text,
    tree_of,
)
from agw_proxy.dialects.openai_chat_parts import cache_of

WORDS = {"auto": "auto", "none": "none", "required": "required", "any": "required"}
"""Choices without a name; ``any`` is Mistral's word."""


def read_tools(tree: Tree, into: Request) -> None:
    """``tools``, ``functions`` and what is said of their use, into the request. Raises Malformed."""
    for index, one in enumerate(items(tree, "tools")):
        at = path("tools", index)
        tool = tree_of(one, at)
        kind = needed(tool, "type", at)
        if kind == "function":
            where = path(at, "function")
            read = _function(tree_of(tool.get("function"), where), where)
            read.cache = cache_of(tool)
            into.tools.append(read)
        elif kind == "custom":
            into.tools.append(_custom(tree_of(tool.get("custom"), path(at, "custom")), path(at, "custom")))
        else:
            into.hosted.append(Hosted(kind, "chat", tool))
    for index, one in enumerate(items(tree, "functions")):
        at = path("functions", index)
        into.tools.append(_function(tree_of(one, at), at))
    into.tool_choice = _choice(tree.get("tool_choice"), "tool_choice")
    if into.tool_choice is None and tree.get("function_call") is not None:
        into.tool_choice = _legacy_choice(tree["function_call"])
    into.parallel = flag(tree, "parallel_tool_calls")
    if tree.get("functions") and not tree.get("tools"):
        into.functions, into.parallel = True, False


def _function(tree: Tree, at: str) -> Tool:
    schema = child(tree, "parameters", at)
    return Tool(
        name=named(tree, at),
        description=text(tree, "description", at),
        # Left out, they mean a function that takes nothing.
        schema={"type": "object", "properties": {}} if schema is None else schema,
        strict=flag(tree, "strict", at),
    )


def _custom(tree: Tree, at: str) -> Tool:
    """The grammar as Responses has it, without Chat's second level."""
    form = child(tree, "format", at)
    inner = form.get("grammar") if form is not None else None
    if isinstance(inner, dict):
        form = {"type": "grammar", **inner}
    return Tool(name=named(tree, at), description=text(tree, "description", at), grammar=form)


def _choice(value: Any, at: str) -> ToolChoice | None:
    if value is None:
        return None
    if isinstance(value, str):
        if value not in WORDS:
            raise refuse(at, "auto, none, required or an object", value)
        return ToolChoice(WORDS[value])  # type: ignore[arg-type]
    tree = tree_of(value, at)
    kind = needed(tree, "type", at)
    if kind == "allowed_tools":
        return _allowed(tree, at)
    if kind in {"function", "custom"}:
        return ToolChoice("one", _named(tree, kind, at))
    raise refuse(path(at, "type"), "function, custom or allowed_tools", kind)


def _named(tree: Tree, kind: str, at: str) -> str:
    """The name one level down; some clients write it flat, as Responses has it."""
    inner = child(tree, kind, at)
    return named(tree, at) if inner is None else named(inner, path(at, kind))


def _allowed(tree: Tree, at: str) -> ToolChoice:
    inner = child(tree, "allowed_tools", at)
    if inner is None:
        inner = tree
    else:
        at = path(at, "allowed_tools")
    mode = inner.get("mode", "auto")
    if mode not in ("auto", "required"):
        raise refuse(path(at, "mode"), "auto or required", mode)
    where = path(at, "tools")
    names = []
    for index, one in enumerate(list_of(inner.get("tools"), where)):
        tool = tree_of(one, path(where, index))
        kind = tool.get("type")
        names.append(_named(tool, "custom" if kind == "custom" else "function", path(where, index)))
    if not names:
        raise Malformed("At least one tool has to be allowed.", where)
    return ToolChoice(mode, allowed=names)


def _legacy_choice(value: Any) -> ToolChoice:
    if value in ("auto", "none"):
        return ToolChoice(value)
    if isinstance(value, str):
        raise refuse("function_call", "auto, none or an object", value)
    return ToolChoice("one", named(tree_of(value, "function_call"), "function_call"))


def write_tools(request: Request, tree: Tree, losses: Losses) -> None:
    """The members ``tools``, ``tool_choice`` and ``parallel_tool_calls``, which are refused where there are no tools."""
    offered = _offered(request)
    tools = [_write_tool(tool, losses) for tool in offered]
    for hosted in request.hosted:
        if hosted.spoken == "chat":
            tools.append(hosted.tree)
        else:
            losses.of("hosted_tools")
    if not tools:
        return
    tree["tools"] = tools
    if request.parallel is not None:
        tree["parallel_tool_calls"] = request.parallel
    if request.tool_choice is not None:
        chosen = _write_choice(request.tool_choice, {tool.name for tool in request.tools})
        if chosen is None:
            losses.of("tool_choice")
        else:
            tree["tool_choice"] = chosen


def _offered(request: Request) -> list[Tool]:
    """The tools; only the allowed ones, where there are any of these. Hardly a server but OpenAI's knows that choice itself."""
    choice = request.tool_choice
    if choice is None or choice.allowed is None or choice.mode == "none":
        return request.tools
    allowed = set(choice.allowed)
    return [tool for tool in request.tools if tool.name in allowed] or request.tools


def _write_tool(tool: Tool, losses: Losses) -> Tree:
    """Every tool as a function: hardly a server of this dialect knows custom ones."""
    if tool.cache is not None:
        losses.of("cache_control")
    tool = wrapped(tool)
    function: Tree = {"name": tool.name, "parameters": tool.schema}
    if tool.description:
        function["description"] = tool.description
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def _write_choice(choice: ToolChoice, known: set[str]) -> str | Tree | None:
    """None where it names only tools that are not there (those that another provider runs itself)."""
    if choice.mode == "one":
        return {"type": "function", "function": {"name": choice.name}} if choice.name in known else None
    if choice.allowed is None or choice.mode == "none" or not known.isdisjoint(choice.allowed):
        return choice.mode
    return None
