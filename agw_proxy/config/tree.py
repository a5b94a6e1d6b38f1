"""Trees of configuration values that remember where each came from, how two merge, and what is wrong with them."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value was written: a line of a file, an environment name, or both (a name set in ``.env``)."""

    file: str | None = None
    line: int | None = None
    variable: str | None = None

    def __str__(self) -> str:
        """Give the place as a person would look it up, e.g. ``gateway.yaml:12`` or ``environment GATEWAY_ENV``."""
        place = f"{self.file}:{self.line}" if self.file and self.line else self.file or ""
        if self.variable is None:
            return place
        return f"environment {self.variable} ({place})" if place else f"environment {self.variable}"


@dataclass(slots=True)
class Node:
    """One value: ``dict[str, Node]``, ``list[Node]`` or a scalar (None, bool, int, float, str).

    ``resolved``: the text came out of a reference, so that it must not be shown in a message.
    """

    value: Any
    origin: Origin = field(default_factory=Origin)
    resolved: bool = False

    def get(self, key: str) -> "Node | None":
        """Give the member ``key`` of a mapping; None for anything else."""
        return self.value.get(key) if isinstance(self.value, dict) else None

    def items(self, key: str) -> "list[Node]":
        """Give the list under ``key``; empty where there is none, so that a wrong type is left to the validation."""
        child = self.get(key)
        return child.value if child is not None and isinstance(child.value, list) else []

    def text(self, key: str) -> str | None:
        """Give the string under ``key``, or None."""
        child = self.get(key)
        return child.value if child is not None and isinstance(child.value, str) else None


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing to put right. ``message`` says what was expected and what came, never the value of a secret."""

    message: str
    path: str = ""
    file: str | None = None
    line: int | None = None
    variable: str | None = None

    def __str__(self) -> str:
        """Give ``place: path: message``, without the parts that are not known."""
        return ": ".join(
            part for part in (str(Origin(self.file, self.line, self.variable)), self.path, self.message) if part
        )


class ConfigError(Exception):
    """The configuration cannot be served. ``problems`` holds all there is to put right, in the order of the files."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        """``problems``: at least one."""
        self.problems = tuple(problems)
        super().__init__(self.problems)

    def __str__(self) -> str:
        """List every problem, one a line."""
        count = len(self.problems)
        head = "the configuration has a problem:" if count == 1 else f"the configuration has {count} problems:"
        return "\n".join([head, *(f"  {problem}" for problem in self.problems)])


def problem(message: str, path: str = "", origin: Origin | None = None) -> Problem:
    """Make a problem at ``origin``."""
    where = origin or Origin()
    return Problem(message, path, where.file, where.line, where.variable)


def from_plain(value: Any, origin: Origin) -> Node:
    """Make a tree of one origin from Python values (as JSON gives them)."""
    if isinstance(value, dict):
        return Node({str(key): from_plain(item, origin) for key, item in value.items()}, origin)
    if isinstance(value, list | tuple):
        return Node([from_plain(item, origin) for item in value], origin)
    return Node(value, origin)


def plain(node: Node) -> Any:
    """Give the tree as Python values, which is what the settings validate."""
    if isinstance(node.value, dict):
        return {key: plain(item) for key, item in node.value.items()}
    if isinstance(node.value, list):
        return [plain(item) for item in node.value]
    return node.value


def _names(items: Iterable[Node]) -> list[tuple[str, int]] | None:
    """Key each item by (name, how often the name came before); None where an item has no name.

    The count keeps two items of one name apart, so that a merge does not hide the duplicate.
    """
    seen: Counter[str] = Counter()
    keys = []
    for item in items:
        name = item.text("name")
        if name is None:
            return None
        keys.append((name, seen[name]))
        seen[name] += 1
    return keys


def merge(base: Node, over: Node) -> Node:
    """Lay ``over`` on ``base`` and give a new tree; neither is changed.

    Mappings merge key by key. Two lists whose items all have a ``name`` merge by it, the new ones at the end. All else
    is replaced, also by null and by an empty list (which is how an overlay clears a list).
    """
    if isinstance(base.value, dict) and isinstance(over.value, dict):
        members = dict(base.value)
        for key, item in over.value.items():
            members[key] = merge(members[key], item) if key in members else item
        return Node(members, over.origin)
    if isinstance(base.value, list) and isinstance(over.value, list) and base.value and over.value:
        old, new = _names(base.value), _names(over.value)
        if old is not None and new is not None:
            items = dict(zip(old, base.value, strict=True))
            for name, item in zip(new, over.value, strict=True):
                items[name] = merge(items[name], item) if name in items else item
            return Node(list(items.values()), over.origin)
    return over


def locate(root: Node, path: Path) -> tuple[Node, str]:
    """Give the deepest node on ``path`` and the path in dotted form, with list items by their name if they have one."""
    node: Node | None = root
    last = root
    parts = []
    for step in path:
        child: Node | None = None
        label = str(step)
        if node is not None and isinstance(node.value, dict):
            child = node.value.get(step)
        elif node is not None and isinstance(node.value, list) and isinstance(step, int) and step < len(node.value):
            child = node.value[step]
            name = child.get("name")
            # A name out of a reference could be a secret in the wrong place.
            label = name.value if name is not None and isinstance(name.value, str) and not name.resolved else label
        parts.append(label if label.isprintable() else ascii(label))
        node = child
        last = child or last
    return last, ".".join(parts)
