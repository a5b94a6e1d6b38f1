"""Google's own schemas (Gemini API reference, ``Schema``: a part of OpenAPI 3.0) as JSON Schema, which all others speak."""

from agw_proxy.dialects.base import Malformed, Tree
from agw_proxy.dialects.gemini_names import camel

DEPTH = 64
"""Levels: Google takes fewer; a bound, so that no tree can exhaust the stack."""
_COUNTS = frozenset({"minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties"})
_NUMBERS = frozenset({"minimum", "maximum"})
_MAPS = {"properties": "properties", "defs": "$defs", "$defs": "$defs"}
_BRANCHES = frozenset({"items", "additionalProperties"})
_OTHER_NAMES = {"ref": "$ref", "example": "examples"}
_SILENT = frozenset({"propertyOrdering", "nullable", "type"})


def json_schema(schema: object, path: str, depth: int = 0) -> Tree:
    """The same schema in the words of JSON Schema. Raises Malformed."""
    if not isinstance(schema, dict):
        raise Malformed(f"'{path}' has to be an object.", path)
    if depth == DEPTH:
        raise Malformed(f"'{path}' is deeper than {DEPTH} levels.", path)
    made: Tree = {}
    tree = camel(schema)
    kind = tree.get("type")
    if isinstance(kind, str) and kind.lower() != "type_unspecified":
        made["type"] = kind.lower()
    elif isinstance(kind, list):
        made["type"] = [each.lower() if isinstance(each, str) else each for each in kind]
    for name, value in tree.items():
        if name in _SILENT or value is None:
            continue
        if name in _MAPS:
            made[_MAPS[name]] = _map(value, f"{path}.{name}", depth)
        elif name in _BRANCHES and not isinstance(value, bool):
            made[name] = json_schema(value, f"{path}.{name}", depth + 1)
        elif name == "anyOf":
            made[name] = _list(value, f"{path}.{name}", depth)
        elif name == "example":
            made["examples"] = [value]
        else:
            made[_OTHER_NAMES.get(name, name)] = _number(name, value)
    return _nullable(made) if tree.get("nullable") is True else made


def _map(value: object, path: str, depth: int) -> Tree:
    if not isinstance(value, dict):
        raise Malformed(f"'{path}' has to be an object.", path)
    return {name: json_schema(each, f"{path}.{name}", depth + 1) for name, each in value.items()}


def _list(value: object, path: str, depth: int) -> list[Tree]:
    if not isinstance(value, list):
        raise Malformed(f"'{path}' has to be a list.", path)
    return [json_schema(each, f"{path}[{at}]", depth + 1) for at, each in enumerate(value)]


def _number(name: str, value: object) -> object:
    """Bounds are 64-bit numbers in protocol buffers, which JSON may write as strings."""
    if isinstance(value, str) and (name in _COUNTS or name in _NUMBERS):
        try:
            return int(value) if name in _COUNTS else float(value)
        except ValueError:
            return value
    return value


def _nullable(schema: Tree) -> Tree:
    kind = schema.get("type")
    if isinstance(kind, str):
        schema["type"] = [kind, "null"]
        if isinstance(schema.get("enum"), list) and None not in schema["enum"]:
            schema["enum"] = [*schema["enum"], None]
        return schema
    if isinstance(schema.get("anyOf"), list):
        schema["anyOf"] = [*schema["anyOf"], {"type": "null"}]
        return schema
    return {"anyOf": [schema, {"type": "null"}]} if schema else schema
