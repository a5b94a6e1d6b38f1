"""Anthropic Messages (API reference, "Streaming Messages")."""

import json

from agw_proxy.conformance.base import (
    Broken,
    Call,
    Reader,
    Told,
    Tree,
    member,
    named,
    parsed,
    same,
    tokens,
    whole_arguments,
)

DELTAS = {
    "text": ("text_delta", "citations_delta"),
    "thinking": ("thinking_delta", "signature_delta"),
    "tool_use": ("input_json_delta",),
    "redacted_thinking": (),
}
"""Which deltas a block takes; kinds that are not here (of server tools) take any."""
CONTENT = {"text_delta": "text", "thinking_delta": "thinking", "signature_delta": "signature"}
CACHED = ("cache_read_input_tokens", "cache_creation_input_tokens")


def whole(tree: Tree) -> Told:
    """Read a message. Raises Broken."""
    _is_message(tree, "")
    told = Told()
    for at, block in enumerate(member(tree, "content", list)):
        where = f"content[{at}]."
        if not isinstance(block, dict):
            raise Broken(f"`content[{at}]` to be an object", block)
        kind = named(block, "type", where)
        if kind == "text":
            told.text += member(block, "text", str, where)
        elif kind == "tool_use":
            call = Call(named(block, "id", where), named(block, "name", where))
            call.arguments = json.dumps(member(block, "input", dict, where))
            told.calls.append(call)
    told.stop = named(tree, "stop_reason")
    _calls_fit(told)
    told.usage = _usage(member(tree, "usage", dict))
    told.turn = tree["content"]
    return told


class _Events:
    due = "message_start"

    def __init__(self) -> None:
        self.told = Told()
        self.over = False
        self._begun = self._reasoned = False
        self._index = 0
        self._block: str | None = None
        self._usage: Tree = {}

    def step(self, name: str, data: bytes) -> None:
        tree = parsed(data)
        same(tree.get("type"), name, "`type` to be the event's name,")
        if name == "ping":
            return
        if name == "error":
            error = member(tree, "error", dict)
            named(error, "type", "error.")
            self.told.failure = named(error, "message", "error.")
            self.over = True
            return
        if not self._begun and name != "message_start":
            raise Broken("message_start first", name)
        take = {
            "message_start": self._start,
            "content_block_start": self._block_start,
            "content_block_delta": self._block_delta,
            "content_block_stop": self._block_stop,
            "message_delta": self._delta,
            "message_stop": self._stop,
        }.get(name)
        if take is None:
            raise Broken("an event of the Messages API", name or "an event without a name")
        take(tree)

    def _start(self, tree: Tree) -> None:
        if self._begun:
            raise Broken("one message_start", "a second one")
        message = member(tree, "message", dict)
        _is_message(message, "message.")
        same(message.get("content"), [], "`message.content` to be")
        if message.get("stop_reason") is not None:
            raise Broken("`message.stop_reason` to be null", message["stop_reason"])
        self._usage = member(message, "usage", dict, "message.")
        _usage(self._usage)
        self._begun = True
        self.due = "message_delta"

    def _block_start(self, tree: Tree) -> None:
        if self._reasoned:
            raise Broken("message_stop after message_delta", "a new block")
        if self._block is not None:
            raise Broken(f"content_block_stop of block {self._index} before another begins", "content_block_start")
        same(tree.get("index"), self._index, "`index`")
        block = member(tree, "content_block", dict)
        kind = named(block, "type", "content_block.")
        if kind == "tool_use":
            call = Call(named(block, "id", "content_block."), named(block, "name", "content_block."))
            same(block.get("input"), {}, "`content_block.input` to be")
            self.told.calls.append(call)
        self._block = kind
        self.due = f"content_block_stop of block {self._index}"

    def _block_delta(self, tree: Tree) -> None:
        self._open(tree, "content_block_delta")
        delta = member(tree, "delta", dict)
        kind = named(delta, "type", "delta.")
        allowed = DELTAS.get(self._block or "")
        if allowed is not None and kind not in allowed:
            raise Broken(f"a delta for a block of {self._block}: {' or '.join(allowed) or 'none'}", kind)
        if kind in CONTENT:
            text = member(delta, CONTENT[kind], str, "delta.")
            self.told.text += text if kind == "text_delta" else ""
        elif kind == "input_json_delta":
            text = member(delta, "partial_json", str, "delta.")
            if self._block == "tool_use":
                self.told.calls[-1].arguments += text

    def _block_stop(self, tree: Tree) -> None:
        self._open(tree, "content_block_stop")
        if self._block == "tool_use":
            call = self.told.calls[-1]
            call.arguments = call.arguments or "{}"  # a call without arguments needs no delta
            whole_arguments(call)
        self._block = None
        self._index += 1
        self.due = "message_delta"

    def _open(self, tree: Tree, name: str) -> None:
        if self._block is None:
            raise Broken("content_block_start before it, as no block is open", name)
        same(tree.get("index"), self._index, "`index`")

    def _delta(self, tree: Tree) -> None:
        if self._block is not None:
            raise Broken(f"content_block_stop of block {self._index} before it", "message_delta")
        delta = member(tree, "delta", dict)
        usage = member(tree, "usage", dict)
        before = self._usage.get("output_tokens", 0)
        merged = {**self._usage, **{name: count for name, count in usage.items() if count is not None}}
        tokens(usage, "output_tokens")
        if usage["output_tokens"] < before:
            raise Broken(f"`usage.output_tokens` to be cumulative, so at least {before}", usage["output_tokens"])
        self._usage = merged
        self.told.usage = _usage(merged)
        if delta.get("stop_reason") is None and not self._reasoned:
            raise Broken("`delta.stop_reason` to be a string", delta)
        self.told.stop = str(delta.get("stop_reason") or self.told.stop)
        _calls_fit(self.told)
        self._reasoned = True
        self.due = "message_stop"

    def _stop(self, _: Tree) -> None:
        if not self._reasoned:
            raise Broken(f"{self.due} before the end", "message_stop")
        self.over = True


def _is_message(tree: Tree, where: str) -> None:
    same(tree.get("type"), "message", f"`{where}type` to be")
    same(tree.get("role"), "assistant", f"`{where}role` to be")
    named(tree, "id", where)
    named(tree, "model", where)


def _calls_fit(told: Told) -> None:
    if told.stop == "tool_use" and not told.calls:
        raise Broken("a block of tool_use before `stop_reason` says tool_use", "none")


def _usage(usage: Tree) -> tuple[int, int]:
    """Give tokens in (with those of the cache) and out."""
    sent, made = tokens(usage, "input_tokens", "output_tokens")
    return sent + sum(usage.get(name) or 0 for name in CACHED), made


_READER = Reader(_Events, "no name")
check, follow = _READER.check, _READER.follow
