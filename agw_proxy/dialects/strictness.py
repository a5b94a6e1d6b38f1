"""Schemas that OpenAI would refuse to hold an answer, or a tool's arguments, to: there they are asked for without that promise.

OpenAI API guide, "Structured outputs": every member of an object is required, and no others are allowed. Anthropic's form
knows members that may be left out.
"""

from typing import Any

import msgspec

from agw_proxy.dialects.base import Format, Losses, Request, Spoken, Tool, Tree

TARGETS: frozenset[Spoken] = frozenset({"chat", "responses"})
_NAMED = ("properties", "$defs", "definitions")
_LISTED = ("anyOf", "oneOf", "allOf", "prefixItems")


def loosened(request: Request, target: Spoken, losses: Losses) -> Request:
    """The request as OpenAI takes it; itself where there is nothing to be done."""
    if target not in TARGETS:
        return request
    form, tools = request.format, request.tools
    if form is not None and _asks_too_much(form):
        losses.of("json_schema")
        form = msgspec.structs.replace(form, strict=False)
    if any(_asks_too_much(tool) for tool in tools):
        losses.of("strict_tools")
        tools = [msgspec.structs.replace(tool, strict=False) if _asks_too_much(tool) else tool for tool in tools]
    if form is request.format and tools is request.tools:
        return request
    return msgspec.structs.replace(request, format=form, tools=tools)


def _asks_too_much(asked: Format | Tool) -> bool:
    return asked.strict is True and not _fits(asked.schema)


def _fits(schema: Any) -> bool:
    """All objects in it name what they have. One that is nested too deeply to be looked at does not."""
    try:
        return _whole(schema)
    except RecursionError:
        return False


def _whole(schema: Any) -> bool:
    if not isinstance(schema, dict):
        return True
    if _is_object(schema) and not _is_closed(schema):
        return False
    inner: list[Any] = [schema.get("items")]
    for name in _NAMED:
        found = schema.get(name)
        inner += found.values() if isinstance(found, dict) else ()
    for name in _LISTED:
        found = schema.get(name)
        inner += found if isinstance(found, list) else ()
    return all(_whole(each) for each in inner)


def _is_object(schema: Tree) -> bool:
    kind = schema.get("type")
    return kind == "object" or (isinstance(kind, list) and "object" in kind) or "properties" in schema


def _is_closed(schema: Tree) -> bool:
    properties, required = schema.get("properties"), schema.get("required")
    names = list(properties) if isinstance(properties, dict) else []
    needed = required if isinstance(required, list) else []
    return schema.get("additionalProperties") is False and all(name in needed for name in names)
