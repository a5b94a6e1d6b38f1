"""``Stream`` and ``Document`` in plain Python: one pass over the whole text, with the standard library's json."""

import json
import re
from dataclasses import dataclass, field
from typing import Any

LAST = {"message_stop", "response.completed", "response.failed", "response.incomplete"}
MAX_CHOICES = 64
COUNTING = {"usage", "message", "response"}
LINE = re.compile(rb"([^\r\n]*)(\r\n|\r|\n|\Z)")


@dataclass
class Followed:
    """The attributes of ``Stream`` after the end of the body, and all that it passed on."""

    out: bytes = b""
    events: int = 0
    content: int = 0
    pings: int = 0
    done: bool = False
    finished: bool = False
    failed: bool = False
    complete: bool = False
    finish_reason: str | None = None
    error: bytes | None = None
    prompt_tokens: int = -1
    completion_tokens: int = -1
    cached_tokens: int = -1
    begun: set[int] = field(default_factory=set, compare=False)
    ended: set[int] = field(default_factory=set, compare=False)


MOST = 10**15  # tokens; a number above it is none


def parse(data: bytes) -> Any:
    """The JSON value, or None."""
    try:
        return json.loads(data.decode("utf-8", "replace"), strict=False)
    except (ValueError, RecursionError):
        return None


def _count(tree: Any, *path: str) -> int:
    for name in path:
        tree = tree.get(name) if isinstance(tree, dict) else None
    return tree if type(tree) is int and 0 <= tree <= MOST else -1


def tokens(usage: dict[str, Any]) -> tuple[int, int, int]:
    """Prompt, completion and cached, -1 each where it is not told."""
    prompt = _count(usage, "prompt_tokens")
    if prompt < 0 <= _count(usage, "input_tokens"):
        names = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
        prompt = sum(max(_count(usage, name), 0) for name in names)
    details = [_count(usage, name, "cached_tokens") for name in ("prompt_tokens_details", "input_tokens_details")]
    cached = max(_first(details), *(_count(usage, name) for name in ("prompt_cache_hit_tokens", "cached_tokens")))
    completion = _first([_count(usage, name) for name in ("completion_tokens", "output_tokens")])
    return prompt, completion + _beside(usage), _first([cached, _count(usage, "cache_read_input_tokens")])


def _first(counts: list[int]) -> int:
    return next((one for one in counts if one >= 0), -1)


def _beside(usage: dict[str, Any]) -> int:
    """Thoughts that are no part of the answer's tokens."""
    made, total = _count(usage, "completion_tokens"), _count(usage, "total_tokens")
    thought = _count(usage, "completion_tokens_details", "reasoning_tokens")
    if made < 0 or thought <= 0:
        return 0
    beside = thought > made if total <= 0 else total == max(_count(usage, "prompt_tokens"), 0) + made + thought
    return thought if beside else 0


def _member(tree: Any, name: str) -> Any:
    return tree.get(name) if isinstance(tree, dict) else None


def read(tree: Any, into: Followed, kind: str | None = None) -> None:
    """What one JSON object says. ``kind``: of the event; None for a document."""
    usages = [tree[name] if name == "usage" else _member(tree[name], "usage") for name in tree if name in COUNTING]
    for usage in [usage for usage in usages if isinstance(usage, dict)][-1:]:
        prompt, completion, cached = tokens(usage)
        if kind == "message_delta":
            prompt, cached = max(prompt, into.prompt_tokens), max(cached, into.cached_tokens)
            completion = completion if completion >= 0 else into.completion_tokens
        into.prompt_tokens, into.completion_tokens, into.cached_tokens = prompt, completion, cached
    last = kind in LAST if kind is not None else tree.get("object") == "response"
    statuses = [tree.get("status"), _member(tree.get("response"), "status")] if last else []
    for reason in (*statuses, tree.get("stop_reason"), _member(tree.get("delta"), "stop_reason")):
        if isinstance(reason, str) and reason:
            into.finish_reason = shortened(reason)
    content = kind == "content_block_delta" or (
        kind is not None and kind.startswith("response.") and kind.endswith(".delta") and len(kind) > 15
    )
    choices = tree.get("choices")
    for choice in choices if isinstance(choices, list) else []:
        if not isinstance(choice, dict):
            continue
        index = max(_count(choice, "index"), 0)
        into.begun |= {index} if index < MAX_CHOICES else set()
        reason = choice.get("finish_reason")
        if isinstance(reason, str) and reason:
            into.finish_reason = shortened(reason)
            into.ended |= {index} & into.begun
        delta = choice.get("delta")
        texts = [choice.get("text")]
        if isinstance(delta, dict):
            texts += [delta.get(name) for name in ("content", "reasoning_content", "reasoning", "refusal")]
            content |= any(isinstance(delta.get(name), list) and delta[name] for name in ("tool_calls", "images"))
            content |= any(isinstance(delta.get(name), dict) for name in ("function_call", "audio"))
        content |= any(isinstance(text, str) and text for text in texts)
    into.content += content
    into.pings += kind in {"ping", "keepalive"}
    into.finished |= kind in LAST
    into.failed |= kind == "response.failed"
    into.complete = into.done or into.finished or (bool(into.begun) and into.begun == into.ended)


def shortened(reason: str) -> str:
    """What is kept of it."""
    return reason.encode()[:64].decode("utf-8", "ignore")


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
        into.done = into.complete = True
        into.out += raw
        return
    parsed = parse(joined)
    tree = parsed if isinstance(parsed, dict) else {}
    told = tree.get("type")
    error = kind == b"error" or tree.get("error") is not None or told == "error"
    usage_only = tree.get("choices") == [] and tree.get("usage") is not None and not error
    if isinstance(parsed, dict):
        name = told.encode("utf-8", "replace") if isinstance(told, str) and told else kind
        read(tree, into, name.decode("utf-8", "replace") if len(name) < 64 else "too long to be known")
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
