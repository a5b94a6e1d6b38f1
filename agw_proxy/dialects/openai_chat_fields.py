"""Members of trees that strangers have written: each is of the type that the API reference names, absent, or Malformed.

``null`` counts as absent everywhere, as OpenAI's own server has it. ``at`` is the path of the tree itself, ``""`` for the
whole body, as the ``param`` of OpenAI's errors spells it: ``messages[2].content``.
"""

from typing import Any

import orjson

from agw_proxy.dialects.base import Malformed, Tree

SHOWN_CHARS = 40  # of a wrong value in an error: enough to find it, too little to leak a prompt


MAX_WHOLE = 2.0**63
"""Of a float that is taken for an integer: beyond it nobody could write it again."""


def path(at: str, name: str | int) -> str:
    """The path of a member, or of an item, of what stands at ``at``."""
    if isinstance(name, int):
        return f"{at}[{name}]"
    return f"{at}.{name}" if at else name


def refuse(at: str, wanted: str, found: Any) -> Malformed:
    """What to raise where ``found`` is not what was ``wanted``."""
    shown = "null" if found is None else f"{found!r:.{SHOWN_CHARS}}"
    return Malformed(f"{at or 'The body'}: {wanted} was expected, and {shown} came.", at or None)


def tree_of(value: Any, at: str) -> Tree:
    """A JSON object."""
    if not isinstance(value, dict):
        raise refuse(at, "an object", value)
    return value


def list_of(value: Any, at: str) -> list[Any]:
    """A JSON array."""
    if not isinstance(value, list):
        raise refuse(at, "an array", value)
    return value


def text(tree: Tree, name: str, at: str = "") -> str | None:
    """A string, or None where there is none."""
    value = tree.get(name)
    if value is None or isinstance(value, str):
        return value
    raise refuse(path(at, name), "a string", value)


def needed(tree: Tree, name: str, at: str = "") -> str:
    """A string that has to be there; it may be empty."""
    value = tree.get(name)
    if isinstance(value, str):
        return value
    raise refuse(path(at, name), "a string", value)


def named(tree: Tree, at: str = "") -> str:
    """The member ``name``, which must not be empty."""
    value = tree.get("name")
    if isinstance(value, str) and value:
        return value
    raise refuse(path(at, "name"), "a name", value)


def whole(tree: Tree, name: str, at: str = "", least: int | None = None) -> int | None:
    """An integer, or None. A float that is whole is one (JSON knows no difference)."""
    value = tree.get(name)
    if value is None:
        return None
    if isinstance(value, float) and value.is_integer() and abs(value) < MAX_WHOLE:
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise refuse(path(at, name), "an integer", value)
    if least is not None and value < least:
        raise refuse(path(at, name), f"an integer of at least {least}", value)
    return value


def number(tree: Tree, name: str, at: str = "") -> float | None:
    """A number, or None."""
    value = tree.get(name)
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        return value
    raise refuse(path(at, name), "a number", value)


def flag(tree: Tree, name: str, at: str = "") -> bool | None:
    """True, False, or None."""
    value = tree.get(name)
    if value is None or isinstance(value, bool):
        return value
    raise refuse(path(at, name), "true or false", value)


def child(tree: Tree, name: str, at: str = "") -> Tree | None:
    """An object, or None."""
    value = tree.get(name)
    return None if value is None else tree_of(value, path(at, name))


def items(tree: Tree, name: str, at: str = "") -> list[Any]:
    """An array; empty where there is none."""
    value = tree.get(name)
    return [] if value is None else list_of(value, path(at, name))


def json_of(value: Any, at: str) -> str:
    """JSON text of a tree. Raises Malformed for one that is nested too deeply to be written again."""
    try:
        return orjson.dumps(value).decode()
    except TypeError:
        raise Malformed(f"{at} is nested too deeply.", at) from None


def count(value: Any) -> int:
    """A number of tokens in an upstream's usage: 0 for whatever is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
