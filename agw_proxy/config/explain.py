"""Turns pydantic's errors into problems: where it was written, what was expected, what came, what was probably meant.

The value itself is shown only where it cannot be a secret: of a scalar field that holds none, written as it stands.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import groupby
from operator import itemgetter
from typing import Any

from pydantic import SecretStr, ValidationError
from pydantic_core import ErrorDetails

from agw_proxy.config.environment import nearest
from agw_proxy.config.settings import UNSUPPORTED, UNSUPPORTED_FIELDS
from agw_proxy.config.shape import descend, members
from agw_proxy.config.tree import Node, Problem, locate, problem

SECRETIVE = frozenset({"api_key", "key", "key_sha256", "headers", "base_url", "webhook"})
"""Fields whose values never show beside secret texts: keys, what may hold one, and where people paste one by mistake."""

MAX_SHOWN = 60  # characters
Place = tuple[str | int, ...]
REQUIRED = "is required"
EXPECTED = {
    "missing": REQUIRED,
    "string_type": "expected text",
    "int_type": "expected a whole number",
    "int_parsing": "expected a whole number",
    "int_parsing_size": "expected a smaller number",
    "int_from_float": "expected a whole number",
    "bool_type": "expected true or false",
    "bool_parsing": "expected true or false",
    "float_type": "expected a number",
    "float_parsing": "expected a number",
    "path_type": "expected a path",
    "tuple_type": "expected a list",
    "dict_type": "expected a mapping of names to texts",
    "model_type": "expected fields (a mapping)",
    "model_attributes_type": "expected fields (a mapping)",
}
BOUNDS = {
    "greater_than": ("more than", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than_equal": ("at most", "le"),
}


def explain(error: ValidationError, root: Node) -> list[Problem]:
    """Give one problem for each of pydantic's errors. ``root``: the tree that was validated."""
    found: list[tuple[Place, Problem, str]] = []
    details = error.errors(include_url=False, include_input=False)
    places = [detail["loc"] for detail in details]
    for detail, place in zip(details, places, strict=True):
        nested = any(len(other) > len(place) and other[: len(place)] == place for other in places)
        if detail["type"] in {"too_short", "too_long"} and nested:
            continue  # pydantic counts only the items that are valid, which are fewer for their own errors
        whole = _without_branch(place)
        node, label = locate(root, whole)
        found.append((whole, problem(_message(detail, whole, node), label, node.origin), _came(whole, node)))
    return list(_joined(found))


def _without_branch(place: Place) -> Place:
    """Give the field's place: behind one that takes either of two kinds, pydantic names the kind that did not fit."""
    holder = descend(place[:-1])
    return place[:-1] if holder is not None and holder.kind == "scalar" else place


def _joined(found: Iterable[tuple[Place, Problem, str]]) -> Iterator[Problem]:
    """Make one problem of those of one field that takes either of several kinds."""
    for _, group in groupby(found, key=itemgetter(0)):
        (_, first, came), *others = group
        wanted = [other.message.removesuffix(came).removeprefix("expected ") for _, other, _ in others]
        yield (
            replace(first, message=", or ".join([first.message.removesuffix(came), *wanted]) + came)
            if wanted
            else first
        )


def _message(detail: ErrorDetails, place: Place, node: Node) -> str:
    kind = detail["type"]
    context: dict[str, Any] = detail.get("ctx") or {}
    if kind == "extra_forbidden":
        return _unknown(place)
    if kind == "missing":
        return EXPECTED[kind]
    if kind == "value_error":
        if "not yet supported" in str(context.get("error")):
            return str(context["error"])
        return f"{context.get('error')}{_came(place, node, scalar_only=True)}"
    if kind == "literal_error":
        return f"expected {context.get('expected')}{_came(place, node)}"
    if kind in BOUNDS:
        words, key = BOUNDS[kind]
        return f"expected {words} {context.get(key):g}{_came(place, node)}"
    if kind == "too_short":
        return "expected at least one item"
    if kind == "too_long":
        return f"expected at most {context.get('max_length')} items"
    expected = EXPECTED.get(kind, "is not valid")
    hint = " (put it in quotes)" if kind == "string_type" and isinstance(node.value, int | float) else ""
    return f"{expected}{_came(place, node)}{hint}"


def _unknown(place: Place) -> str:
    """Say that a field is not known, with the nearest one that is, or that a later version will know it."""
    name = str(place[-1])
    holder = descend(place[:-1])
    if name in UNSUPPORTED or (str(place[0]), name) in UNSUPPORTED_FIELDS:
        return "not yet supported in this version"
    known = list(members(holder.model)) if holder is not None and holder.model is not None else []
    near = nearest(name, known)
    return "unknown field" + (f"; did you mean {near}?" if near else f"; expected one of {', '.join(known)}")


def _came(place: Place, node: Node, *, scalar_only: bool = False) -> str:
    """Describe what came: the value where that is safe, else its kind."""
    value = node.value
    shape = descend(place)
    secret = shape is not None and shape.scalar is SecretStr
    if secret or node.resolved or any(step in SECRETIVE for step in place):
        if isinstance(value, str):
            return "" if scalar_only else ", came text (not shown)"
        shown = None
    else:
        shown = _shown(value, place)
    if shown is None and scalar_only:
        return ""
    return f", came {shown or _kind(value)}"


def _shown(value: Any, place: Place) -> str | None:
    shape = descend(place)
    if shape is None or shape.kind != "scalar" or isinstance(value, dict | list):
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    text = "null" if value is None else repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    return "text" if isinstance(value, str) else "a number"
