"""``Stream`` and ``Document`` in plain Python: one pass over the whole text, with the standard library's json."""

import json
import re
from dataclasses import dataclass
from typing import Any

LINE = re.compile(rb"([^\r\n]*)(\r\n|\r|\n|\Z)")


@dataclass
class Followed:
    """The attributes of ``Stream`` after the end of the body, and all that it passed on."""

    out: bytes = b""
    events: int = 0
    content: int = 0
    done: bool = False
    finish_reason: str | None = None
    error: bytes | None = None
    prompt_tokens: int = -1
    completion_tokens: int = -1
    cached_tokens: int = -1


def parse(data: bytes) -> Any:
    """The JSON value, or None."""
    try:
        return json.loads(data.decode("utf-8", "replace"), strict=False)
    except (ValueError, RecursionError):
        return None


def _count(tree: Any, *path: str) -> int:
    for name in path:
        tree = tree.get(name) if isinstance(tree, dict) else None
    return tree if type(tree) is int and 0 <= tree < 1 << 63 else -1


def read(tree: Any, into: Followed) -> None:
    """Usage and finish reason of one JSON object."""
    usage = tree.get("usage")
    if isinstance(usage, dict):
        for attribute, old, new in (
            ("prompt_tokens", ("prompt_tokens",), ("input_tokens",)),
            ("completion_tokens", ("completion_tokens",), ("output_tokens",)),
            ("cached_tokens", ("prompt_tokens_details", "cached_tokens"), ("input_tokens_details", "cached_tokens")),
        ):
            first = _count(usage, *old)
            setattr(into, attribute, first if first >= 0 else _count(usage, *new))
    choices = tree.get("choices")
    content = False
    for choice in choices if isinstance(choices, list) else []:
        if not isinstance(choice, dict):
            continue
        reason = choice.get("finish_reason")
        if isinstance(reason, str) and reason:
            into.finish_reason = reason.encode()[:64].decode("utf-8", "ignore")
        delta = choice.get("delta")
        texts = [choice.get("text")]
        if isinstance(delta, dict):
            texts += [delta.get("content"), delta.get("reasoning_content")]
            content |= isinstance(delta.get("tool_calls"), list) and bool(delta["tool_calls"])
        content |= any(isinstance(text, str) and text for text in texts)
    into.content += content


def _event(raw: bytes, lines: list[bytes], strip: bool, short: bool, into: Followed) -> None:
    data: list[bytes] = []
    kind = b""
    fields = 0
    for line in lines:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        fields += bool(name)
        if name == b"data":
            data.append(value)
        elif name == b"event":
            kind = value
    if not data:
        into.out += b"" if fields and short else raw
        return
    joined = b"\n".join(data)
    if joined.strip(b" \t") == b"[DONE]":
        into.done = True
        into.out += raw
        return
    tree = parse(joined)
    tree = tree if isinstance(tree, dict) else {}
    error = kind == b"error" or tree.get("error") is not None
    usage_only = tree.get("choices") == [] and tree.get("usage") is not None and not error
    read(tree, into)
    if error and into.error is None:
        into.error = joined[:65536]
    if usage_only and strip and short:
        return
    into.events += 1
    into.out += raw


def follow(body: bytes, *, strip_usage: bool = False, max_hold_bytes: int = 65536) -> Followed:
    """Everything about one stream."""
    into = Followed()
    lines: list[bytes] = []
    start = 0
    for match in LINE.finditer(body):
        line, end = match.groups()
        if match.start() == 0:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if line:
            lines.append(line)
        if not line and end:
            # The line feed of the last CRLF may come in a later chunk: it does not count against the bound.
            short = match.end() - start - (end == b"\r\n") <= max_hold_bytes
            _event(body[start : match.end()], lines, strip_usage, short, into)
            start = match.end()
            lines = []
    if start < len(body):
        _event(body[start:], lines, strip_usage, len(body) - start <= max_hold_bytes, into)
    return into
