"""Lays ``GATEWAY_*`` names over the tree: nesting by ``__``, list items by name, and the special names of the contract.

``GATEWAY_UPSTREAMS__openai__API_KEY`` is ``upstreams`` -> the item named ``openai`` -> ``api_key``. A name that leads
nowhere is an error with the nearest one that does.
"""

import difflib
import re
from collections.abc import Collection, Mapping
from typing import Any

from agw_proxy.config import wellknown
from agw_proxy.config.settings import UNSUPPORTED, UNSUPPORTED_FIELDS, Settings
from agw_proxy.config.shape import ROOT, Shape, descend, members
from agw_proxy.config.sources import Variable
from agw_proxy.config.tree import Node, Origin, Problem, from_plain, merge, problem

PREFIX = "GATEWAY_"
SECTION_FILES: dict[str, tuple[str, ...]] = {
    "GATEWAY_UPSTREAM_CONFIG": ("upstreams", "models"),
    "GATEWAY_SECURITY_CONFIG": ("keys", "limits", "teams", "budgets", "sessions"),
    "GATEWAY_TOOL_CONFIG": ("tools",),
    "GATEWAY_AGENT_CONFIG": ("agents",),
}
"""Environment name of a section file -> the sections that it may hold."""

LOCATORS = ("GATEWAY_CONFIG", "GATEWAY_ENV", *SECTION_FILES)
"""Names that say where the files are; they set no field."""

ALIASES: dict[str, tuple[str, str]] = {
    "GATEWAY_AGENT_DISCOVERY_PATH": ("agents", "paths"),
    "GATEWAY_AGENT_DISCOVERY_ALLOWLIST": ("agents", "allow"),
    "GATEWAY_AGENT_DISCOVERY_DENYLIST": ("agents", "deny"),
    "GATEWAY_AGENT_AUTO_RELOAD": ("agents", "auto_reload"),
    "GATEWAY_UPSTREAM_AUTO_RELOAD": ("server", "upstream_auto_reload"),
    "GATEWAY_TOOL_AUTO_RELOAD": ("server", "tool_auto_reload"),
    "GATEWAY_LOG_LEVEL": ("log", "level"),
    "GATEWAY_PROMETHEUS_ENABLED": ("metrics", "prometheus"),
}
"""Names of the contract beside the prefix rule -> the field that each sets."""

# What Kubernetes puts into every pod of a namespace that has a service called "gateway".
SERVICE_LINK = re.compile(r"GATEWAY_(SERVICE_(HOST|PORT)(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)")


class _UnknownError(Exception):
    """A path that leads nowhere. ``message`` says why; ``near``: what it may have meant."""

    def __init__(self, message: str, near: str | None = None) -> None:
        super().__init__(message)
        self.message = message if near is None else f"{message}; did you mean {near}?"


def nearest(name: str, known: Collection[str]) -> str | None:
    """Give the known name that is most like ``name`` (case aside), or None where none is."""
    folded = {candidate.lower(): candidate for candidate in known}
    found = difflib.get_close_matches(name.lower(), folded, n=1, cutoff=0.6)
    return folded[found[0]] if found else None


def static_names() -> list[str]:
    """Every ``GATEWAY_*`` name that does not depend on the name of an item."""
    names = [*LOCATORS, *ALIASES]
    for section, shape in members(Settings).items():
        names.append(f"{PREFIX}{section.upper()}")
        if shape.kind == "section" and shape.model is not None:
            names += [f"{PREFIX}{section.upper()}__{field.upper()}" for field in members(shape.model)]
    return names


def overlay(root: Node, variables: Mapping[str, Variable], referenced: Collection[str]) -> list[Problem]:
    """Set every ``GATEWAY_*`` name in the tree, in place, and give what is wrong with them.

    ``referenced``: names that the files use in ``${...}``; those may be called as they like. Empty values count as not
    set.
    """
    problems = []
    taken: dict[tuple[str, ...], str] = {}
    # Whole sections before their parts, so that the order of the environment does not matter.
    for name in sorted(variables, key=lambda name: (name.count("__"), name)):
        upper = name.upper()
        if not upper.startswith(PREFIX) or upper in LOCATORS or name in referenced:
            continue
        variable = variables[name]
        path: tuple[str, ...] = ALIASES.get(upper) or tuple(name[len(PREFIX) :].split("__"))
        folded = tuple(step.lower() for step in path)
        if folded in taken and variable.value:
            problems.append(
                problem(f"sets the same value as {taken[folded]}; keep one of them", origin=variable.origin)
            )
            continue
        try:
            _place(root, path, variable, name)
        except _UnknownError as error:
            problems.append(problem(error.message, origin=variable.origin))
        else:
            if variable.value:
                taken[folded] = name
    return problems


def _place(root: Node, path: tuple[str, ...], variable: Variable, name: str) -> None:
    if path[0].lower() in UNSUPPORTED:
        raise _UnknownError(f"{path[0].lower()} is not yet supported in this version")
    if not variable.value:
        if descend(tuple(step.lower() for step in path)) is not None:
            return
        root = Node({})  # only to find out what is wrong with the name
    holder, shape = root, ROOT
    for index in range(len(path)):
        key, shape = _step(shape, holder, path, index, name)
        if index == len(path) - 1:
            _store(holder, key, _decode(variable, shape))
        else:
            holder = _enter(holder, key, shape, variable.origin)


def _step(shape: Shape, holder: Node, path: tuple[str, ...], index: int, name: str) -> tuple[str | int, Shape]:
    """Find where one part of the name leads from ``holder``: a member's key or a list's index, and the shape there."""
    step = path[index]
    done = "__".join([PREFIX + path[0], *path[1:index]]) if index else ""
    if shape.kind == "section" and shape.model is not None:
        known = members(shape.model)
        key = step.lower()
        if key in known:
            return key, known[key]
        if (path[0].lower(), key) in UNSUPPORTED_FIELDS or key in UNSUPPORTED:
            raise _UnknownError(f"{key} is not yet supported in this version")
        if not index:
            if SERVICE_LINK.fullmatch(name.upper()):
                raise _UnknownError(
                    "unknown name; it looks like a Kubernetes service link: set enableServiceLinks: false"
                )
            raise _UnknownError("unknown name", nearest(name, static_names()))
        near = nearest(key, known)
        raise _UnknownError("unknown name", f"{done}__{near.upper()}" if near else None)
    if shape.kind == "items":
        return _item(shape, step, holder), Shape("section", shape.model)
    if shape.kind == "texts":
        if not step.isdigit() or not step.isascii() or not 0 <= int(step[:6]) <= len(_list(holder)):
            raise _UnknownError(f"expected the index of an item, 0 to {len(_list(holder))}, after {done}")
        return int(step), Shape("scalar", literal=True)
    if shape.kind == "mapping" and step:
        return step, Shape("scalar", literal=True)
    raise _UnknownError(f"{done} holds one value and has no parts")


def _list(node: Node) -> list[Node]:
    return node.value if isinstance(node.value, list) else []


def _fold(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "_", name.lower())


def _item(shape: Shape, step: str, holder: Node) -> str | int:
    """Find a list's item: by its exact name, by the name as far as environment names can write it, or by index.

    Gives the index, or the name where the item is to be made.
    """
    items = _list(holder)
    names = [item.text("name") or "" for item in items]
    if shape.named:
        if step in names:
            return names.index(step)
        alike = [index for index, name in enumerate(names) if name and _fold(name) == _fold(step)]
        if len(alike) > 1:
            raise _UnknownError(
                f"several items could be meant: {', '.join(names[index] for index in alike)}; use the exact name"
            )
        if alike:
            return alike[0]
    if step.isdigit() and step.isascii():
        if int(step[:6]) > len(items):
            raise _UnknownError(f"there are {len(items)} items; the next index is {len(items)}")
        return int(step)
    if not shape.named or not step:
        raise _UnknownError("expected the index of an item, from 0")
    return step


def _enter(holder: Node, key: str | int, shape: Shape, origin: Origin) -> Node:
    """Go to the child at ``key``, making what is not there yet."""
    child: Node | None = None
    if isinstance(holder.value, dict):
        child = holder.value.get(key)
    elif isinstance(key, int) and key < len(holder.value):
        child = holder.value[key]
    if child is not None and isinstance(child.value, dict | list):
        return child
    if child is not None and child.value is not None:
        raise _UnknownError(f"sets a part of what is one value at {child.origin}")
    made = Node([] if shape.kind in {"items", "texts"} else {}, origin)
    if isinstance(holder.value, dict) or child is not None:
        holder.value[key] = made
    else:
        if isinstance(key, str):
            made.value = _new_item(key, shape, origin)
        holder.value.append(made)
    return made


def _new_item(name: str, shape: Shape, origin: Origin) -> dict[str, Node]:
    """Begin an item that only the environment names; a well-known upstream brings its address along."""
    fields: dict[str, Any] = {"name": name}
    if shape.model is not None and "base_url" in members(shape.model):
        fields = {"name": name.lower(), **wellknown.preset(name.lower())}
    return {key: from_plain(value, origin) for key, value in fields.items()}


def _store(holder: Node, key: str | int, value: Node) -> None:
    if isinstance(holder.value, dict):
        old = holder.value.get(key)
        holder.value[key] = value if old is None else merge(old, value)
    elif isinstance(holder.value, list):
        if isinstance(key, int) and key < len(holder.value):
            holder.value[key] = merge(holder.value[key], value)
        elif isinstance(key, str) and isinstance(value.value, dict):
            value.value.setdefault("name", Node(key, value.origin))
            holder.value.append(value)
        else:
            holder.value.append(value)


def _decode(variable: Variable, shape: Shape) -> Node:
    """Read a value as its field wants it: lists as JSON or separated by commas, mappings as JSON, scalars as text."""
    text, origin = variable.value, variable.origin
    stripped = text.strip()
    if shape.kind == "texts" and not stripped.startswith("["):
        return Node([Node(part.strip(), origin) for part in text.split(",") if part.strip()], origin)
    if shape.kind == "scalar":
        nothing = shape.optional and not shape.literal and stripped.lower() == "null"
        return Node(None if nothing else text, origin)
    return from_plain(_json(text, "a list" if shape.kind in {"texts", "items"} else "an object"), origin)


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("duplicate")
    return members


def _not_a_number(_text: str) -> Any:
    raise ValueError("not JSON")


def _json(text: str, wanted: str) -> Any:
    import json  # noqa: PLC0415  few configurations need it

    try:
        value = json.loads(text, object_pairs_hook=_refuse_duplicates, parse_constant=_not_a_number)
    except (ValueError, RecursionError):
        raise _UnknownError(f"expected {wanted} as JSON (each key once)") from None
    if not isinstance(value, list if wanted == "a list" else dict):
        raise _UnknownError(f"expected {wanted} as JSON")
    if _depth(value) > 16:
        raise _UnknownError("the JSON is nested too deeply")
    return value


def _depth(value: Any, so_far: int = 0) -> int:
    if so_far > 16 or not isinstance(value, list | dict):
        return so_far
    return max(
        (_depth(item, so_far + 1) for item in (value.values() if isinstance(value, dict) else value)),
        default=so_far + 1,
    )
