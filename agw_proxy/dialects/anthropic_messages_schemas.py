"""JSON Schemas as Anthropic takes them: for a tool's arguments any, but an object at the top; for structured output a subset.

Anthropic documentation, "Structured outputs", JSON Schema limitations: objects must say ``additionalProperties: false``;
bounds of numbers, strings and lists are refused. What is refused moves into the description, where the model still reads it.
"""

from typing import Any

import orjson

from agw_proxy.dialects.base import Tree, Untranslatable

MAX_DEPTH = 64  # of a schema; what is deeper is no schema of arguments but an attack on the stack
_FORMATS = frozenset({"date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"})
_KEPT = frozenset({"type", "enum", "const", "title", "description", "$ref", "default", "required"})
_BRANCHES = ("anyOf", "allOf", "oneOf")


def arguments_schema(schema: Tree | None) -> tuple[Tree, str]:
    """A tool's ``input_schema``, and words to add to its description.

    Alternatives at the top, which are refused there, become the union of their properties, and words.
    """
    found = dict(schema or {})
    found["type"] = "object"
    found.setdefault("properties", {})
    alternatives = {name: found.pop(name) for name in _BRANCHES if name in found}
    if not alternatives:
        return found, ""
    properties = dict(found["properties"]) if isinstance(found["properties"], dict) else {}
    for choices in alternatives.values():
        for choice in choices if isinstance(choices, list) else []:
            given = choice.get("properties") if isinstance(choice, dict) else None
            if isinstance(given, dict):
                properties = {**given, **properties}
    found["properties"] = properties
    return found, f"The arguments must also match: {_told(alternatives, 'tools')}"


def strict_schema(schema: Tree, where: str, depth: int = 0) -> Tree:
    """The schema in the subset for structured output. Raises Untranslatable where it is too deep."""
    if depth > MAX_DEPTH:
        raise Untranslatable(f"The schema is nested deeper than {MAX_DEPTH} levels.", where)
    made: Tree = {}
    told: Tree = {}
    for name, value in schema.items():
        if name in _KEPT:
            made[name] = value
        elif name in {"properties", "$defs", "definitions"} and isinstance(value, dict):
            made[name] = {key: _inner(inner, where, depth) for key, inner in value.items()}
        elif name == "items":
            made[name] = _inner(value, where, depth)
        elif name in _BRANCHES and isinstance(value, list):
            made["anyOf" if name == "oneOf" else name] = [_inner(inner, where, depth) for inner in value]
        elif (name == "format" and isinstance(value, str) and value in _FORMATS) or (
            name == "minItems" and value in (0, 1)
        ):
            made[name] = value
        elif name not in {"additionalProperties", "$schema", "$id"}:
            told[name] = value
    if _is_object(made.get("type")) or "properties" in made:
        made["additionalProperties"] = False
    if told:
        words = f"Must match: {_told(told, where)}"
        described = made.get("description")
        made["description"] = f"{described}\n{words}" if isinstance(described, str) else words
    return made


def is_open(schema: Any, depth: int = 0) -> bool:
    """Some object in it has members of any name (a map): in the subset it could only be an empty one."""
    if isinstance(schema, list):
        return any(is_open(each, depth + 1) for each in schema)
    if not isinstance(schema, dict) or depth > MAX_DEPTH:
        return False
    more = schema.get("additionalProperties")
    if schema.get("patternProperties") or (isinstance(more, dict) and more):
        return True
    if _is_object(schema.get("type")) and more is not False and not schema.keys() & {"properties", "$ref", *_BRANCHES}:
        return True
    named = [schema[name] for name in ("properties", "$defs", "definitions") if isinstance(schema.get(name), dict)]
    inner = [value for members in named for value in members.values()]
    return is_open([*inner, *(schema.get(name) for name in ("items", *_BRANCHES))], depth)


def _is_object(kind: Any) -> bool:
    return kind == "object" or (isinstance(kind, list) and "object" in kind)


def _told(tree: Tree, where: str) -> str:
    try:
        return orjson.dumps(tree).decode()
    except orjson.JSONEncodeError:
        raise Untranslatable("The schema is nested too deeply.", where) from None


def _inner(value: Any, where: str, depth: int) -> Any:
    return strict_schema(value, where, depth + 1) if isinstance(value, dict) else value
