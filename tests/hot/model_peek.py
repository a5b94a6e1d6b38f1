"""``peek`` and ``rewrite`` in plain Python over the standard library's json, to hold the compiled ones against."""

import json
from dataclasses import dataclass, field
from typing import Any

LIMITS = ("max_completion_tokens", "max_output_tokens", "max_tokens")
TYPES: dict[str, type] = {
    "model": str,
    "user": str,
    "stream": bool,
    "tools": list,
    "functions": list,
    "fallbacks": list,
    "stream_options": dict,
    **dict.fromkeys(LIMITS, int),
}


class RefusedError(ValueError):
    """The model refuses the text."""


@dataclass
class Seen:
    """The members of ``Peek``."""

    model: str | None = None
    stream: bool = False
    max_tokens: int = -1
    user: str | None = None
    tools: bool = False
    include_usage: bool = False
    escaped: bool = False
    spans: dict[str, tuple[int, int]] = field(default_factory=dict)

    def span(self, name: str) -> tuple[int, int]:
        return self.spans.get(name, (-1, -1))


def _number(text: str) -> float:
    if len(text) > 128:
        raise RefusedError("long number")
    return float(text)


def _integer(text: str) -> int:
    _number(text)
    if text.startswith("-"):
        return min(int(text), -1)  # -0 is no count either
    return int(text)


def _constant(text: str) -> Any:
    raise RefusedError(text)


DECODER = json.JSONDecoder(parse_int=_integer, parse_float=_number, parse_constant=_constant)


def _depth(value: Any) -> int:
    if isinstance(value, dict):
        value = list(value.values())
    return 1 + max(map(_depth, value), default=0) if isinstance(value, list) else 0


def _space(text: str, at: int) -> int:
    return at + len(text[at:]) - len(text[at:].lstrip(" \t\r\n"))


def _name(text: str, at: int) -> tuple[str, int]:
    value, end = DECODER.raw_decode(text, at)
    value.encode()
    return value, end


def _members(text: str, at: int) -> list[tuple[str, Any, int, int, bool]]:
    """(name, value, start, end, name is escaped) of the object that begins at ``at``, which json has accepted."""
    found = []
    at = _space(text, at + 1)
    while text[at] != "}":
        name, after = _name(text, at)
        start = _space(text, _space(text, after) + 1)
        value, end = DECODER.raw_decode(text, start)
        found.append((name, value, start, end, "\\" in text[at:after]))
        at = _space(text, end)
        at = _space(text, at + 1) if text[at] == "," else at
    names = [name for name, *_ in found]
    if len(set(names)) != len(names):
        raise RefusedError("duplicate")
    return found


def peek(body: bytes, max_depth: int = 64) -> Seen:
    """The same as the compiled one; raises ValueError (or RecursionError) where that raises PeekError."""
    text = body.decode()
    top = DECODER.decode(text)
    if not isinstance(top, dict) or _depth(top) > max_depth:
        raise RefusedError("not an object, or deep")
    seen = Seen()
    members = _members(text, _space(text, 0))
    if len(members) > 1024:
        raise RefusedError("members")
    for name, value, start, end, escaped in members:
        seen.spans[name] = (len(text[:start].encode()), len(text[:end].encode()))
        seen.escaped |= escaped
        wanted: Any = TYPES.get(name)
        if value is None or wanted is None:
            continue
        if type(value) is not wanted:
            raise RefusedError(name)
        if name in LIMITS and not 0 <= value < 1 << 63:
            raise RefusedError(name)
        if wanted is str:
            value.encode()
            seen.escaped |= "\\" in text[start:end]
        if name == "stream_options":
            _members(text, start)
            if not isinstance(value.get("include_usage"), bool | None):
                raise RefusedError(name)
    seen.model = top.get("model") or None
    seen.user = top.get("user")
    seen.stream = bool(top.get("stream"))
    seen.max_tokens = next((top[name] for name in LIMITS if top.get(name) is not None), -1)
    seen.tools = bool(top.get("tools") or top.get("functions"))
    seen.include_usage = bool((top.get("stream_options") or {}).get("include_usage"))
    return seen


def rewritten(body: bytes, model: str | None, want_usage: bool) -> Any:
    """What the rewritten body has to mean."""
    top = json.loads(body)
    if model is not None:
        top["model"] = model
    if want_usage:
        top["stream_options"] = {**(top.get("stream_options") or {}), "include_usage": True}
    return top
