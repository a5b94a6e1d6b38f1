"""Members of a tree that came from outside, each of the type that the Messages API says, or Malformed with the path to it.

``where``: path of the tree itself (``messages[0]``), empty at the top. A member that is null counts as absent.
"""

from typing import Any

from agw_proxy.dialects.base import Malformed, Tree


def path(where: str, name: str) -> str:
    """The path of a member."""
    return f"{where}.{name}" if where else name


def required(value: Any, where: str, name: str) -> Any:
    """The value of a member that must be there."""
    if value is None:
        raise Malformed(f"'{path(where, name)}' is missing.", path(where, name))
    return value


def wrong(where: str, name: str, expected: str) -> Malformed:
    """What is raised for a member of another type."""
    return Malformed(f"'{path(where, name)}' has to be {expected}.", path(where, name))


def words(tree: Tree, name: str, where: str) -> str | None:
    """A string."""
    value = tree.get(name)
    if value is None or isinstance(value, str):
        return value
    raise wrong(where, name, "a string")


def needed_words(tree: Tree, name: str, where: str) -> str:
    """A string that must be there."""
    value: str = required(words(tree, name, where), where, name)
    return value


def whole(tree: Tree, name: str, where: str, least: int = 0) -> int | None:
    """An integer, ``least`` or above."""
    value = tree.get(name)
    if value is None:
        return None
    if type(value) is int and value >= least:
        return value
    raise wrong(where, name, f"a whole number, {least} or above")


def share(tree: Tree, name: str, where: str) -> float | None:
    """A number from 0 to 1."""
    value = tree.get(name)
    if value is None:
        return None
    if type(value) in (int, float) and 0 <= value <= 1:
        return float(value)
    raise wrong(where, name, "a number from 0 to 1")


def flag(tree: Tree, name: str, where: str) -> bool | None:
    """True or false."""
    value = tree.get(name)
    if value is None or isinstance(value, bool):
        return value
    raise wrong(where, name, "true or false")


def branch(tree: Tree, name: str, where: str) -> Tree | None:
    """An object."""
    value = tree.get(name)
    if value is None or isinstance(value, dict):
        return value
    raise wrong(where, name, "an object")


def needed_branch(tree: Tree, name: str, where: str) -> Tree:
    """An object that must be there."""
    value: Tree = required(branch(tree, name, where), where, name)
    return value


def items(tree: Tree, name: str, where: str) -> list[Any] | None:
    """A list."""
    value = tree.get(name)
    if value is None or isinstance(value, list):
        return value
    raise wrong(where, name, "a list")


def each_branch(values: list[Any], where: str) -> list[tuple[str, Tree]]:
    """Objects of a list at ``where``, with their paths."""
    found = []
    for position, value in enumerate(values):
        here = f"{where}[{position}]"
        if not isinstance(value, dict):
            raise Malformed(f"'{here}' has to be an object.", here)
        found.append((here, value))
    return found


def rest(tree: Tree, known: frozenset[str], prefix: str, extra: Tree) -> None:
    """Note members that are named nowhere here in ``extra``, as ``prefix.name``: no dialect carries them. Empty ones say nothing."""
    for name, value in tree.items():
        if name not in known and value not in (None, "", [], {}):
            extra.setdefault(f"{prefix}.{name}" if prefix else name, value)
