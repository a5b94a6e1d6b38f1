"""The stream of an upstream that speaks the Messages API, read.

Anthropic API reference, "Streaming Messages": ``message_start``; for each block ``content_block_start``, its
``content_block_delta`` events, ``content_block_stop``; ``message_delta`` with the reason and the *cumulative* usage;
``message_stop``. ``ping`` anywhere, ``error`` instead of the rest.
"""

from typing import Any

import orjson

from agw_proxy.dialects.anthropic_messages_answers import (
    STOPS,
    explanation_of,
    fault_of,
    read_usage,
)
from agw_proxy.dialects.anthropic_messages_blocks import own_signature
from agw_proxy.dialects.base import (
    Beat,
    Block,
    BlockStart,
    BlockStop,
    Citation,
    Event,
    Fault,
    Finish,
    Part,
    Refusal,
    Signature,
    Start,
    Text,
    Thinking,
    Tokens,
    ToolUse,
    Tree,
)
from agw_proxy.dialects.halves import Halves

MAX_BLOCKS = 4096  # of one answer; an upstream that opens more is out of its mind, and would fill the memory
_CUT = Fault("The upstream's stream ended before its answer was whole.", "api_error")


_WORDS = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "partial_json"}
_OF = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "tool_use"}


class _Unreadable(Exception):
    """What came cannot be a stream of this API."""


class _Pending:
    """A block of the upstream: what is known of it and not yet told."""

    __slots__ = ("citations", "given", "index", "kind", "signature", "stopped", "waiting")

    def __init__(self, index: int, kind: str) -> None:
        self.index = index
        self.kind = kind
        self.signature = ""
        self.given = ""
        """A call's whole input, where it came with the start."""
        self.stopped = False
        self.waiting: list[Event] = []
        """Its events so far, while another block is open."""


class Reader:
    """Reads one upstream stream; see ``base.Reader``.

    Blocks that overlap are put one after the other. Server tools' blocks are passed over. A stream is whole with
    ``message_stop``, or when it ends after a ``stop_reason``.
    """

    def __init__(self) -> None:
        self._json = Halves()
        self._started = False
        self._over = False
        self._tokens = Tokens()
        self._reason: str | None = None
        self._sequence: str | None = None
        self._tier: str | None = None
        self._declined = ""
        self._called = False
        self._told = 0
        self._blocks: dict[int, _Pending | None] = {}
        """By the upstream's index; None: passed over."""
        self._queue: list[_Pending] = []
        """Blocks that are not yet told to their end; the first one is open."""

    def read(self, name: str, data: bytes) -> list[Event]:
        """The events of one server-sent event."""
        if self._over:
            return []
        try:
            tree: Any = self._json.loads(data)
        except orjson.JSONDecodeError:
            tree = None
        if not isinstance(tree, dict):
            return (
                []
                if data == b"[DONE]"
                else self._fail(Fault("The upstream sent an event that is no JSON object.", "api_error"))
            )
        kind = tree.get("type") or name
        try:
            if kind == "content_block_delta":
                return self._delta(tree)
            if kind == "content_block_start":
                return self._start_block(tree)
            if kind == "content_block_stop":
                return self._stop_block(tree)
            if kind == "message_start":
                return self._start(tree)
            if kind == "message_delta":
                return self._message_delta(tree)
            if kind == "message_stop":
                return self._finish()
        except _Unreadable as error:
            return self._fail(Fault(f"The upstream sent what cannot be read: {error}", "api_error"))
        if kind == "error" or name == "error":
            return self._fail(fault_of(tree, 0))
        return [Beat()] if kind == "ping" else []

    def end(self) -> list[Event]:
        """The stream has ended: nothing more, a Finish if only ``message_stop`` is missing, else a Fault."""
        if self._over:
            return []
        return self._finish() if self._reason is not None else self._fail(_CUT)

    def _fail(self, fault: Fault) -> list[Event]:
        self._over = True
        return [fault]

    def _start(self, tree: Tree) -> list[Event]:
        if self._started:
            return []
        self._started = True
        message = tree.get("message")
        if not isinstance(message, dict):
            message = {}
        usage = message.get("usage")
        if isinstance(usage, dict):
            self._tokens = read_usage(usage, self._tokens)
            self._tier = _string(usage, "service_tier") or None
        known = self._tokens if self._tokens.input >= 0 else None
        return [Start(_string(message, "id"), _string(message, "model"), tokens=known, service_tier=self._tier)]

    def _begun(self) -> list[Event]:
        return [] if self._started else self._start({})

    def _index(self, tree: Tree, missing: int) -> int:
        index = tree.get("index")
        if index is None:
            return missing
        if type(index) is not int:
            raise _Unreadable("an index that is no number.")
        return index

    def _open_index(self) -> int:
        return self._queue[0].index if self._queue else max(self._blocks, default=-1) + 1

    def _start_block(self, tree: Tree) -> list[Event]:
        index = self._index(tree, max(self._blocks, default=-1) + 1)
        given = tree.get("content_block")
        if not isinstance(given, dict) or not _string(given, "type"):
            raise _Unreadable("a content_block_start without its block, or the block's type.")
        if index in self._blocks:
            return []
        return self._begun() + self._open(index, _string(given, "type"), given)

    def _open(self, index: int, kind: str, given: Tree) -> list[Event]:
        if len(self._blocks) >= MAX_BLOCKS:
            raise _Unreadable("too many blocks.")
        pending = _Pending(index, kind)
        block: Block
        first = ""
        if kind == "text":
            block, first = Text(""), _string(given, "text")
        elif kind == "tool_use":
            block = ToolUse(_string(given, "id"), _string(given, "name"))
            if not (block.id and block.name):
                raise _Unreadable("a call without an id or a name.")
            self._called = True
            whole = given.get("input")
            pending.given = _json(whole) if whole and isinstance(whole, dict) else ""
        elif kind == "thinking":
            block, first = Thinking(), _string(given, "thinking")
            pending.signature = _string(given, "signature")
        elif kind == "redacted_thinking":
            block = Thinking(signature=own_signature(_string(given, "data")), hidden=True)
        else:
            self._blocks[index] = None
            return []
        self._blocks[index] = pending
        self._queue.append(pending)
        events = self._tell(pending, BlockStart(-1, block))
        if first:
            events += self._tell(pending, Part(first))
        return events

    def _tell(self, pending: _Pending, event: Event) -> list[Event]:
        """The event now, if its block is the open one; else it waits."""
        if pending is not self._queue[0]:
            pending.waiting.append(event)
            return []
        if type(event) is BlockStart:
            event.index = self._told
            self._told += 1
        return [event]

    def _delta(self, tree: Tree) -> list[Event]:
        delta = tree.get("delta")
        if not isinstance(delta, dict):
            raise _Unreadable("a content_block_delta without its delta.")
        kind = _string(delta, "type")
        index = tree.get("index")
        if type(index) is not int:
            index = self._index(tree, self._open_index())
        events: list[Event] = []
        if index not in self._blocks:
            opened = {"text_delta": "text", "citations_delta": "text", "thinking_delta": "thinking"}.get(kind)
            if opened is None:
                raise _Unreadable("a part of a block that has not begun.")
            events = self._begun() + self._open(index, opened, {})
        pending = self._blocks[index]
        if pending is None:
            return events
        if pending.stopped:
            raise _Unreadable("a part of a block that has ended.")
        if kind in _WORDS:
            text = delta.get(_WORDS[kind])
            if not isinstance(text, str):
                if text is not None:
                    raise _Unreadable("words that are no string.")
                return events
            if _OF[kind] != pending.kind:
                raise _Unreadable("a part of another kind than its block.")
            if not text:
                return events
            pending.given = ""
            if not events and not pending.waiting and pending is self._queue[0]:
                return [Part(text)]
            return events + self._tell(pending, Part(text))
        if kind == "signature_delta" and pending.kind == "thinking":
            pending.signature += _string(delta, "signature")
        elif kind == "citations_delta" and pending.kind == "text" and isinstance(delta.get("citation"), dict):
            events += self._tell(pending, Citation(delta["citation"]))
        elif not kind:
            raise _Unreadable("a part without its type.")
        return events

    def _stop_block(self, tree: Tree) -> list[Event]:
        pending = self._blocks.get(self._index(tree, self._open_index()))
        return [] if pending is None or pending.stopped else self._close(pending)

    def _close(self, pending: _Pending) -> list[Event]:
        """The block is whole: what was kept back of it, its end, and blocks that waited for that."""
        events: list[Event] = []
        if pending.given:
            events += self._tell(pending, Part(pending.given))
        signature = own_signature(pending.signature)
        if signature is not None:
            events += self._tell(pending, Signature(signature))
        pending.stopped = True
        events += self._tell(pending, BlockStop())
        if pending is self._queue[0]:
            events += self._advance()
        return events

    def _advance(self) -> list[Event]:
        """The first of the queue has been told to its end: the next ones, as far as they have come."""
        events: list[Event] = []
        while self._queue:
            self._queue.pop(0)
            if not self._queue:
                break
            following = self._queue[0]
            waited, following.waiting = following.waiting, []
            for event in waited:
                events += self._tell(following, event)
            if not following.stopped:
                break
        return events

    def _message_delta(self, tree: Tree) -> list[Event]:
        delta, usage = tree.get("delta"), tree.get("usage")
        if isinstance(usage, dict):
            self._tokens = read_usage(usage, self._tokens)
        if isinstance(delta, dict):
            self._reason = _string(delta, "stop_reason") or self._reason
            self._sequence = _string(delta, "stop_sequence") or self._sequence
            self._declined = explanation_of(delta) or self._declined
        return self._begun()

    def _finish(self) -> list[Event]:
        events = self._begun()
        for pending in list(self._queue):
            if not pending.stopped:
                events += self._close(pending)
        self._over = True
        stop = STOPS.get(self._reason or "", "tool" if self._called else "stop")
        if stop == "refusal" and self._declined:
            events += (BlockStart(self._told, Refusal("")), Part(self._declined), BlockStop())
        return [*events, Finish(stop, self._tokens, self._sequence, self._tier)]


def _json(tree: Tree) -> str:
    try:
        return orjson.dumps(tree).decode()
    except orjson.JSONEncodeError:
        raise _Unreadable("a call that is nested too deeply.") from None


def _string(tree: Tree, name: str) -> str:
    """A string; empty where there is none, or something else."""
    value = tree.get(name)
    return value if isinstance(value, str) else ""
