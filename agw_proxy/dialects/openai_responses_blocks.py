"""Blocks of a stream in the order in which they began, told one after the other, whatever way the upstream mixes them."""

from collections import deque

import orjson

from agw_proxy.dialects.base import Block, BlockStart, BlockStop, Event, Malformed, Part, Refusal, ToolUse


class Told:
    """A block, and what of it waits until the blocks before it are whole.

    ``cited``: how many citations it has had. ``said``: its words, while it is open.
    """

    __slots__ = ("block", "cited", "open", "said", "waiting")

    def __init__(self, block: Block) -> None:
        """``block``: as far as it is known at its beginning."""
        self.block = block
        self.cited = 0
        self.open = True
        self.said: list[str] = []
        self.waiting: list[Event] = []


class Blocks:
    """The queue: its first block is told as it comes. Memory is bounded by what the upstream sends of one answer."""

    def __init__(self) -> None:
        """``calls``, ``refused``: whether a call, or words of refusal, were among the blocks."""
        self.calls = False
        self.refused = False
        self._index = 0
        self._queue: deque[Told] = deque()

    def begin(self, block: Block, out: list[Event]) -> Told:
        """A new block, behind the calls that are open. Words and thoughts are whole then: some servers say so only at the end."""
        for other in tuple(self._queue):
            if other.open and not isinstance(other.block, ToolUse):
                self.close(other, out)
        told = Told(block)
        self.calls |= isinstance(block, ToolUse)
        self.refused |= isinstance(block, Refusal)
        self._queue.append(told)
        if len(self._queue) == 1:
            self._show(told, out)
        return told

    def say(self, told: Told, event: Event, out: list[Event]) -> None:
        """Something of an open block."""
        if type(event) is Part:
            told.said.append(event.text)
        (out if self._queue[0] is told else told.waiting).append(event)

    def complete(self, told: Told, whole: str, out: list[Event]) -> None:
        """Say what of ``whole``, all the words of an open block, has not come in pieces. Raises Malformed."""
        said = "".join(told.said)
        if whole.startswith(said):
            if len(whole) > len(said):
                self.say(told, Part(whole[len(said) :]), out)
        elif isinstance(told.block, ToolUse) and not told.block.custom and not _is_json(said) and _is_json(whole):
            raise Malformed("The pieces of a tool call's arguments are not what it came to.", "item.arguments")

    def close(self, told: Told, out: list[Event]) -> None:
        """A block is whole; those behind it that are whole too follow."""
        told.open = False
        told.said = []
        while self._queue and not self._queue[0].open:
            out.append(BlockStop())
            self._queue.popleft()
            if self._queue:
                self._show(self._queue[0], out)

    def _show(self, told: Told, out: list[Event]) -> None:
        out.append(BlockStart(self._index, told.block))
        self._index += 1
        out += told.waiting
        told.waiting = []


def _is_json(words: str) -> bool:
    try:
        orjson.loads(words)
    except orjson.JSONDecodeError:
        return False
    return True
