"""References in values: ``${NAME}``, ``${NAME:-default}``, ``${file:/path}``, and ``$$`` for a dollar sign.

A name that is not set or empty is an error that names it; under an upstream with ``optional: true`` the upstream is
left out instead. An empty result means *not given*: the field falls back to its default. Values from the environment
are literal (a password may hold any character), except one that is a single reference as a whole.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from agw_proxy.config.sources import Variable, read_text
from agw_proxy.config.tree import ConfigError, Node, Origin, Problem, problem

MAX_SECRET_BYTES = 64 * 1024  # a chain of certificates fits; a log file by mistake does not
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
WHOLE = re.compile(r"\$\{[^{}]*\}")
TRUE = frozenset({"1", "on", "t", "true", "y", "yes"})  # what pydantic reads as true
LATER = ("vault", "aws")


class UnresolvedError(Exception):
    """A reference that gives no value. ``missing``: what it points to is not there (otherwise it is malformed)."""

    def __init__(self, message: str, *, missing: bool) -> None:
        """``message``: what was expected, without the text of the value."""
        super().__init__(message)
        self.message = message
        self.missing = missing


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What references may point to. ``folders``: a file's name as shown -> its folder, for relative ``${file:}``."""

    variables: Mapping[str, Variable]
    folders: Mapping[str, Path]
    cwd: Path


@dataclass(slots=True)
class Resolution:
    """What filling in the references came to. ``left_out``: the optional upstreams without their secrets."""

    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    left_out: list[Node] = field(default_factory=list)


def _pieces(text: str) -> Iterator[tuple[bool, str]]:
    """Split into (is a reference, text); ``$$`` is undone. UnresolvedError on an opening ``${`` without its end."""
    at = 0
    while (dollar := text.find("$", at)) >= 0:
        yield False, text[at:dollar]
        following = text[dollar + 1 : dollar + 2]
        if following == "$":
            yield False, "$"
            at = dollar + 2
        elif following == "{":
            depth, end = 1, dollar + 2
            while end < len(text) and depth:
                depth += {"{": 1, "}": -1}.get(text[end], 0)
                end += 1
            if depth:
                raise UnresolvedError("a reference ${ without its closing }; write $$ for a dollar sign", missing=False)
            yield True, text[dollar + 2 : end - 1]
            at = end
        else:
            yield False, "$"
            at = dollar + 1
    yield False, text[at:]


def interpolate(text: str, around: Surroundings, folder: Path, depth: int = 0) -> str:
    """Fill in references of ``text``; relative files lie in ``folder``; UnresolvedError where one gives no value."""
    return "".join(_value(piece, around, folder, depth) if reference else piece for reference, piece in _pieces(text))


def _value(reference: str, around: Surroundings, folder: Path, depth: int) -> str:
    if reference.startswith("file:"):
        return _file(reference.removeprefix("file:"), folder)
    name, has_default, default = reference.partition(":-")
    scheme = name.partition(":")[0]
    if scheme in LATER and ":" in name:
        raise UnresolvedError(f"references to {scheme}: are not yet supported in this version", missing=False)
    if NAME.fullmatch(name) is None:
        raise UnresolvedError(
            "expected ${NAME}, ${NAME:-default} or ${file:/path}; write $$ for a dollar sign", missing=False
        )
    found = around.variables.get(name)
    if found is not None and found.value:
        return found.value
    if has_default:
        if depth >= 4:
            raise UnresolvedError("defaults within defaults are nested too deeply", missing=False)
        return interpolate(default, around, folder, depth + 1)
    state = "empty" if found is not None else "not set"
    raise UnresolvedError(
        f"the environment name {name} is {state}; set it, or give a default: ${{{name}:-...}}", missing=True
    )


def _file(name: str, folder: Path) -> str:
    path = folder / Path(name)
    if not name:
        raise UnresolvedError("expected ${file:/path}", missing=False)
    try:
        text = read_text(path, name if name.isprintable() else ascii(name), Origin(), MAX_SECRET_BYTES)
    except ConfigError as error:
        raise UnresolvedError(error.problems[0].message, missing=True) from None
    return text[:-2] if text.endswith("\r\n") else text.removesuffix("\n")


def references(node: Node) -> set[str]:
    """Give every environment name that the tree refers to, defaults included."""
    if isinstance(node.value, dict):
        return set().union(*(references(item) for item in node.value.values()))
    if isinstance(node.value, list):
        return set().union(*(references(item) for item in node.value))
    return names_in(node.value) if isinstance(node.value, str) else set()


def names_in(text: str) -> set[str]:
    """Give every environment name that a text refers to, also one that is no valid value."""
    return {found[1] for found in re.finditer(r"(?<!\$)\$\{([A-Za-z_][A-Za-z0-9_]*)(?=\}|:-)", text)}


def resolve(root: Node, around: Surroundings) -> Resolution:
    """Fill in every reference of the tree, in place; take out optional upstreams whose references give no value."""
    out = Resolution()
    sections = root.value
    upstreams = sections.get("upstreams")
    if upstreams is not None and isinstance(upstreams.value, list):
        kept = []
        for index, item in enumerate(upstreams.value):
            name = item.text("name") or str(index)
            filler = _Filler(around, optional=_is_true(item.get("optional"), around))
            filler.fill(item, ("upstreams", name))
            out.problems += filler.problems
            if filler.missing:
                out.left_out.append(item)
                out.notes.append(f"the optional upstream {name} is left out: {filler.missing[0]}")
            else:
                kept.append(item)
        upstreams.value = kept
    filler = _Filler(around, optional=False)
    for name, section in sections.items():
        if section is not upstreams:
            filler.fill(section, (name,))
    out.problems += filler.problems
    return out


def _is_true(node: Node | None, around: Surroundings) -> bool:
    if node is None or not isinstance(node.value, str):
        return node is not None and node.value is True
    try:
        return interpolate(node.value, around, around.cwd).lower() in TRUE
    except UnresolvedError:
        return False


class _Filler:
    """Fills in the references below one node. ``missing``: what is not there, where ``optional`` permits that."""

    def __init__(self, around: Surroundings, *, optional: bool) -> None:
        self.around = around
        self.optional = optional
        self.problems: list[Problem] = []
        self.missing: list[str] = []

    def fill(self, node: Node, path: tuple[str, ...]) -> None:
        if isinstance(node.value, dict):
            for key in list(node.value):
                child = node.value[key]
                self.fill(child, (*path, key))
                if child.resolved and child.value == "":
                    del node.value[key]
        elif isinstance(node.value, list):
            for index, child in enumerate(node.value):
                self.fill(child, (*path, child.text("name") or str(index)))
        elif isinstance(node.value, str) and "$" in node.value:
            self.text(node, path)

    def text(self, node: Node, path: tuple[str, ...]) -> None:
        literal = node.origin.variable is not None
        if literal and WHOLE.fullmatch(node.value) is None:
            return
        folder = self.around.cwd if literal else self.around.folders.get(node.origin.file or "", self.around.cwd)
        node.resolved = node.resolved or "${" in node.value
        try:
            node.value = interpolate(node.value, self.around, folder)
        except UnresolvedError as error:
            if self.optional and error.missing:
                self.missing.append(error.message.partition(";")[0])
            else:
                label = ".".join(step if step.isprintable() else ascii(step) for step in path)
                self.problems.append(problem(error.message, label, node.origin))
            node.value = None
            node.resolved = True
