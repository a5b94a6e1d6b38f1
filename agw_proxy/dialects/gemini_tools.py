"""``tools`` and ``toolConfig`` of the Gemini API (reference, ``Tool``, ``ToolConfig``), into a Request and out of it."""

from agw_proxy.dialects import members
from agw_proxy.dialects.base import Hosted, Losses, Malformed, Request, Tool, ToolChoice, Tree
from agw_proxy.dialects.custom_tools import wrapped
from agw_proxy.dialects.gemini_names import branch, several
from agw_proxy.dialects.gemini_schemas import json_schema

_NO_ARGUMENTS: Tree = {"type": "object", "properties": {}}
_DECLARED = frozenset({"name", "description", "parameters", "parametersJsonSchema", "response", "responseJsonSchema"})


def read_tools(tree: Tree, request: Request) -> None:
    """Enter the request's tools, and which of them may or must be called. Raises Malformed."""
    for at, tool in enumerate(several(tree, "tools")):
        path = f"tools[{at}]"
        for declared, each in enumerate(several(tool, "functionDeclarations", path)):
            request.tools.append(_read_tool(each, f"{path}.functionDeclarations[{declared}]", request))
        for name, value in tool.items():
            if name != "functionDeclarations" and value is not None:
                request.hosted.append(Hosted(name, "gemini", {name: value}))
    config = branch(tree, "toolConfig")
    if config is None:
        return
    calling = branch(config, "functionCallingConfig", "toolConfig")
    if calling is not None:
        request.tool_choice = _read_choice(calling, request)
    for name, value in config.items():
        if name != "functionCallingConfig" and value is not None:
            request.extra[name] = value


def _read_tool(declared: Tree, path: str, request: Request) -> Tool:
    schema = members.branch(declared, "parametersJsonSchema", path)
    if schema is None:
        own = declared.get("parameters")
        schema = json_schema(own, f"{path}.parameters") if own is not None else dict(_NO_ARGUMENTS)
    for name, value in declared.items():
        if name not in _DECLARED:
            request.extra.setdefault(name, value)
    return Tool(members.wanted(declared, "name", path), members.text(declared, "description", path), schema)


def _read_choice(calling: Tree, request: Request) -> ToolChoice | None:
    path = "toolConfig.functionCallingConfig"
    mode = (members.text(calling, "mode", path) or "MODE_UNSPECIFIED").upper()
    allowed = list(members.words(calling, "allowedFunctionNames", path)) or None
    if mode == "ANY":
        if allowed is not None and len(allowed) == 1:
            return ToolChoice("one", allowed[0])
        return ToolChoice("required", allowed=allowed)
    if mode == "NONE":
        return ToolChoice("none")
    if mode == "VALIDATED":
        for tool in request.tools:
            tool.strict = True
        return ToolChoice("auto", allowed=allowed)
    if mode in {"AUTO", "MODE_UNSPECIFIED"}:
        return ToolChoice("auto") if mode == "AUTO" else None
    raise Malformed(f"'{path}.mode' has to be AUTO, ANY, NONE or VALIDATED.", f"{path}.mode")


def write_tools(request: Request, losses: Losses) -> tuple[list[Tree], Tree]:
    """``tools`` and ``toolConfig``; empty: there are none. Raises Untranslatable."""
    choice = request.tool_choice
    offered = request.tools
    if choice is not None and choice.mode == "auto" and choice.allowed is not None:
        # Google takes names with ANY only; what is not declared cannot be called either.
        allowed = frozenset(choice.allowed)
        offered = [tool for tool in offered if tool.name in allowed]
    tools: list[Tree] = []
    if offered:
        tools.append({"functionDeclarations": [_write_tool(tool, losses) for tool in offered]})
    for hosted in request.hosted:
        if hosted.spoken == "gemini":
            tools.append(dict(hosted.tree))
        else:
            losses.of("hosted_tools")
    if request.parallel is False:
        losses.of("parallel_tool_calls")
    config: Tree = {}
    if choice is not None and offered:
        config["functionCallingConfig"] = _write_choice(choice)
    return tools, config


def _write_tool(tool: Tool, losses: Losses) -> Tree:
    if tool.strict:
        losses.of("strict_tools")
    if tool.cache is not None:
        losses.of("cache_control")
    tool = wrapped(tool)
    made: Tree = {"name": tool.name}
    if tool.description:
        made["description"] = tool.description
    made["parametersJsonSchema"] = tool.schema or _NO_ARGUMENTS
    return made


def _write_choice(choice: ToolChoice) -> Tree:
    if choice.mode == "one":
        return {"mode": "ANY", "allowedFunctionNames": [choice.name]} if choice.name else {"mode": "ANY"}
    if choice.mode == "required":
        return {"mode": "ANY", "allowedFunctionNames": choice.allowed} if choice.allowed else {"mode": "ANY"}
    return {"mode": "NONE" if choice.mode == "none" else "AUTO"}
