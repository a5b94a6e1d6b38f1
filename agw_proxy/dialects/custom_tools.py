"""Custom tools, which take free text instead of JSON, for dialects that only know functions.

Only OpenAI's own models know them (OpenAI API reference, Responses and Chat, ``tools`` of type ``custom``). Everywhere
else such a tool is offered as a function with one string; what the model calls it with is unpacked again on the way back.
"""

import msgspec
import orjson

from agw_proxy.dialects.base import Tool, Tree

INPUT_SCHEMA: Tree = {"type": "object", "properties": {"input": {"type": "string"}}, "required": ["input"]}


def wrapped(tool: Tool) -> Tool:
    """The tool as a function; a function is given back as it is. A grammar is appended to the description, for the model to read."""
    if tool.schema is not None:
        return tool
    return msgspec.structs.replace(tool, schema=INPUT_SCHEMA, description=_described(tool), strict=None, grammar=None)


def arguments_of(text: str) -> str:
    """The arguments, JSON text, of a call with this input."""
    return orjson.dumps({"input": text}).decode()


def input_of(arguments: str) -> str:
    """The input of a call whose arguments came as JSON text. What is not in that form is taken for the input itself."""
    try:
        tree = orjson.loads(arguments)
    except orjson.JSONDecodeError:
        return arguments
    if isinstance(tree, dict) and isinstance(tree.get("input"), str):
        return str(tree["input"])
    return "" if tree == {} else arguments


def _described(tool: Tool) -> str | None:
    """The description with the grammar, which may be written flat (Responses) or nested (Chat)."""
    grammar = tool.grammar or {}
    nested = grammar.get("grammar")
    if isinstance(nested, dict):
        grammar = nested
    definition, syntax = grammar.get("definition"), grammar.get("syntax")
    if not isinstance(definition, str):
        return tool.description
    kind = syntax if isinstance(syntax, str) else "the following"
    told = f"The input has to match this grammar ({kind}):\n{definition}"
    return f"{tool.description}\n\n{told}" if tool.description else told
