"""Tools and their choice, as Responses has them (OpenAI API reference, Responses, ``tools`` and ``tool_choice``).

A ``namespace`` holds functions of its own, and calls of them name it beside the function. No other dialect knows that: in a
Request such a tool is called ``namespace__name`` everywhere, and ``Tool.namespace`` says which part is the namespace.
"""

import hashlib
from collections.abc import Iterable, Mapping

from agw_proxy.dialects import members
from agw_proxy.dialects.base import Hosted, Losses, Malformed, Request, Tool, ToolChoice, Tree

NAME_LENGTH = 64
"""Longest name of a function that all providers take."""
DIGEST_LENGTH = 8
"""Hexadecimal digits that stand for what is cut off a namespace."""
KNOWN = frozenset({"type", "name", "description", "parameters", "strict", "format"})


def flat_name(namespace: str, name: str) -> str:
    """One name for both. What would be too long keeps the function's name whole, and the namespace's beginning."""
    flat = f"{namespace}__{name}"
    if len(flat) <= NAME_LENGTH:
        return flat
    mark = _mark(namespace)
    return namespace[: max(0, NAME_LENGTH - len(mark) - len(name))] + mark + name


def inner_name(namespace: str, flat: str) -> str:
    """The function's own name; ``flat`` itself where it is not of this namespace."""
    if flat.startswith(f"{namespace}__"):
        return flat[len(namespace) + 2 :]
    before, mark, name = flat.partition(_mark(namespace))
    return name if mark and namespace.startswith(before) else flat


def _mark(namespace: str) -> str:
    return f"_{hashlib.sha256(namespace.encode()).hexdigest()[:DIGEST_LENGTH]}__"


def read_tools(tools: list[Tree], path: str, into: Request) -> None:
    """Add them to a request. What only Responses knows of them is left in ``extra``."""
    for at, tree in enumerate(tools):
        where = f"{path}[{at}]"
        kind = members.wanted(tree, "type", where)
        if kind in {"function", "custom"}:
            into.tools.append(_tool(tree, where, None, into))
        elif kind == "namespace":
            namespace = members.wanted(tree, "name", where)
            described = members.text(tree, "description", where)
            if described:
                into.extra.setdefault("namespace_descriptions", {})[namespace] = described
            for inner, each in enumerate(members.branches(tree, "tools", where)):
                into.tools.append(_tool(each, f"{where}.tools[{inner}]", namespace, into))
        else:
            into.hosted.append(Hosted(kind, "responses", tree))


def _tool(tree: Tree, where: str, namespace: str | None, into: Request) -> Tool:
    name = members.wanted(tree, "name", where)
    if not name:
        raise Malformed(f"'{where}.name' is empty.", f"{where}.name")
    for odd in tree.keys() - KNOWN:
        into.extra[f"tools.{odd}"] = True
    kind = members.wanted(tree, "type", where)
    if kind not in {"function", "custom"}:
        raise Malformed(f"'{where}.type' has to be function or custom.", f"{where}.type")
    schema = None
    if kind == "function":
        schema = members.branch(tree, "parameters", where)
        if schema is None:
            schema = {"type": "object", "properties": {}}
    return Tool(
        name=name if namespace is None else flat_name(namespace, name),
        description=members.text(tree, "description", where),
        schema=schema,
        strict=members.flag(tree, "strict", where) if kind == "function" else None,
        namespace=namespace,
        grammar=members.branch(tree, "format", where) if kind == "custom" else None,
    )


def write_tools(request: Request) -> list[Tree]:
    """The functions and custom tools; those of one namespace together, where its first one stands."""
    described = request.extra.get("namespace_descriptions")
    made: list[Tree] = []
    spaces: dict[str, list[Tree]] = {}
    for tool in request.tools:
        if tool.namespace is None:
            made.append(_tree(tool, tool.name))
            continue
        if tool.namespace not in spaces:
            spaces[tool.namespace] = []
            words = described.get(tool.namespace) if isinstance(described, dict) else None
            made.append(
                {
                    "type": "namespace",
                    "name": tool.namespace,
                    "description": words if isinstance(words, str) else f"Tools of {tool.namespace}.",
                    "tools": spaces[tool.namespace],
                }
            )
        spaces[tool.namespace].append(_tree(tool, inner_name(tool.namespace, tool.name)))
    return made


def _tree(tool: Tool, name: str) -> Tree:
    if tool.schema is None:
        made: Tree = {"type": "custom", "name": name}
        if tool.grammar is not None:
            made["format"] = tool.grammar
    else:
        # Left out, OpenAI would hold a schema to the rules of strict mode, and refuse most: other dialects mean "not strict".
        made = {"type": "function", "name": name, "parameters": _parameters(tool.schema), "strict": bool(tool.strict)}
    if tool.description is not None:
        made["description"] = tool.description
    return made


def _parameters(schema: Tree) -> Tree:
    """The API refuses a schema that does not say of itself that it is an object's."""
    return schema if "type" in schema else {"type": "object", "properties": {}, **schema}


def write_hosted(hosted: list[Hosted], losses: Losses) -> list[Tree]:
    """The tools that OpenAI runs itself; those of other providers are lost."""
    made: list[Tree] = []
    for each in hosted:
        if each.spoken == "responses":
            made.append(each.tree)
        else:
            losses.of("hosted_tools")
    return made


def read_choice(tree: object, into: Request) -> None:
    """``tool_choice`` in all its forms. A hosted tool that has to be called is left in ``extra``."""
    if tree is None:
        return
    if isinstance(tree, str) and tree in {"auto", "none", "required"}:
        into.tool_choice = ToolChoice(tree)  # type: ignore[arg-type]
        return
    if not isinstance(tree, dict):
        raise Malformed("'tool_choice' has to be auto, none, required, or an object.", "tool_choice")
    kind = members.wanted(tree, "type", "tool_choice")
    if kind in {"function", "custom"}:
        name = members.wanted(tree, "name", "tool_choice")
        into.tool_choice = ToolChoice("one", _names(into.tools).get(name, name))
    elif kind == "allowed_tools":
        mode = members.wanted(tree, "mode", "tool_choice")
        if mode not in {"auto", "required"}:
            raise Malformed("'tool_choice.mode' has to be auto or required.", "tool_choice.mode")
        listed = members.branches(tree, "tools", "tool_choice")
        names = [
            members.wanted(each, "name", f"tool_choice.tools[{at}]")
            for at, each in enumerate(listed)
            if each.get("type") in ("function", "custom")  # of unknown type: a set would have to hash it
        ]
        if len(names) < len(listed):
            into.extra["tool_choice.tools"] = True
        known = _names(into.tools)
        allowed = [known.get(name, name) for name in names]
        into.tool_choice = ToolChoice("required" if mode == "required" else "auto", allowed=allowed)
    else:
        into.extra["tool_choice"] = tree


def _names(tools: Iterable[Tool]) -> dict[str, str]:
    """The names of tools in the Request, by what a choice may call them: these, or without the namespace."""
    inner: dict[str, str] = {}
    for tool in tools:
        if tool.namespace is not None:
            inner.setdefault(inner_name(tool.namespace, tool.name), tool.name)
    return inner | {tool.name: tool.name for tool in tools}


def write_choice(choice: ToolChoice, tools: list[Tool]) -> str | Tree:
    """``tool_choice`` for tools that are written too."""
    known = {tool.name: tool for tool in reversed(tools)}  # of two with one name the first
    if choice.mode == "one":
        return _named(choice.name or "", known)
    if choice.allowed is not None and choice.mode != "none":
        return {
            "type": "allowed_tools",
            "mode": choice.mode,
            "tools": [_named(name, known) for name in choice.allowed],
        }
    return choice.mode


def _named(name: str, known: Mapping[str, Tool]) -> Tree:
    tool = known.get(name)
    if tool is None:
        return {"type": "function", "name": name}
    shown = name if tool.namespace is None else inner_name(tool.namespace, name)
    return {"type": "custom" if tool.schema is None else "function", "name": shown}
