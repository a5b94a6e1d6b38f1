"""Puts what a Chat stream says side by side (words, thoughts, several tool calls by index) into one block after the other.

Theory of operation: a *lane* is a block to be. One lane is live: what comes for it goes out at once. Words may be ended at any
time; a tool call only when its arguments are a whole JSON object, since more of them may come behind another call's. Until
then the others wait, in the order in which they came. A call waits also for its name and its id.
"""

import orjson

from agw_proxy.dialects.base import (
    BlockStart,
    BlockStop,
    Event,
    Image,
    Malformed,
    Part,
    Refusal,
    Signature,
    Streamed,
    Text,
    Thinking,
    ToolUse,
)
from agw_proxy.dialects.openai_chat_answers import made_id

MAX_BLOCKS = 4096
"""Of one answer: no model makes as many, and each costs memory here."""
MAX_LOOKS = 64
"""How often a call's arguments are looked at: each look costs their length, and one that has not been whole by then waits."""


class Lane:
    """A block to be. ``held``: what has come for it while another was live. ``pieces``: of a call's arguments."""

    __slots__ = ("block", "checked", "closed", "held", "looks", "pieces", "whole")

    def __init__(self, block: Streamed) -> None:
        self.block = block
        self.held: list[Event] = []
        self.pieces: list[str] = []
        self.closed = False
        self.whole = not isinstance(block, ToolUse)
        self.checked = True
        self.looks = 0

    def speaks(self, kind: type) -> bool:
        """Whether words of this kind belong here."""
        return type(self.block) is kind and not (isinstance(self.block, Thinking) and self.block.hidden)

    def names(self) -> tuple[str, str]:
        """(id, name) of a tool call, as far as they are known."""
        return (self.block.id, self.block.name) if isinstance(self.block, ToolUse) else ("", "")

    def name(self, identity: str, name: str) -> None:
        """What a tool call is called; what is known already stays."""
        if isinstance(self.block, ToolUse) and not self.may_open():
            self.block.id, self.block.name = self.block.id or identity, self.block.name or name

    def is_function(self) -> bool:
        """Whether it is a tool call whose arguments are JSON."""
        return isinstance(self.block, ToolUse) and not self.block.custom

    def may_open(self) -> bool:
        """Whether all is known that its first event says."""
        return not isinstance(self.block, ToolUse) or bool(self.block.id and self.block.name)

    def may_close(self) -> bool:
        """Whether no more of it can come. The arguments are only looked at where they may just have become whole."""
        if not self.checked and self.looks < MAX_LOOKS:
            self.checked = True
            self.looks += 1
            self.whole = _is_object("".join(self.pieces))
        return self.whole

    def add(self, piece: str) -> None:
        """More of a tool's arguments."""
        self.pieces.append(piece)
        self.whole = False
        self.checked = not piece.rstrip().endswith("}")


def _is_object(words: str) -> bool:
    try:
        return isinstance(orjson.loads(words), dict)
    except orjson.JSONDecodeError:
        return False


class Order:
    """All lanes of one stream. Methods append the events that are due to ``out``."""

    __slots__ = ("_identity", "_live", "_next", "_waiting", "called", "refused")

    def __init__(self) -> None:
        self._live: Lane | None = None
        self._waiting: list[Lane] = []
        self._next = 0
        self._identity = ""
        self.called = False
        self.refused = False

    def begin(self, identity: str) -> None:
        """``identity``: of the answer; ids of calls that have none are made of it."""
        self._identity = identity

    @property
    def begun(self) -> bool:
        """Whether anything has been said."""
        return self._next > 0 or bool(self._waiting)

    @property
    def amid_call(self) -> bool:
        """Whether the arguments of a call have begun, and are not whole."""
        lanes = self._waiting if self._live is None else (self._live, *self._waiting)
        return any(lane.pieces and not _is_object("".join(lane.pieces)) for lane in lanes if lane.is_function())

    def is_live(self, kind: type) -> bool:
        """Whether words of this kind can go out at once."""
        return self._live is not None and self._live.speaks(kind)

    def words(self, kind: type[Text | Thinking | Refusal], event: Part | Signature, out: list[Event]) -> None:
        """More of the answer's text, thoughts or refusal."""
        live = self._live
        if live is not None and live.speaks(kind):
            out.append(event)
            return
        lane = next((lane for lane in self._waiting if lane.speaks(kind)), None)
        if lane is None:
            lane = self._enter(Lane(kind(text="")))
            self.refused = self.refused or kind is Refusal
        lane.held.append(event)
        self._advance(out)

    def secret(self, signature: str, out: list[Event]) -> None:
        """A thought that cannot be read."""
        lane = self._enter(Lane(Thinking(hidden=True)))
        lane.held.append(Signature(signature))
        self._advance(out)

    def picture(self, image: Image, out: list[Event]) -> None:
        """A picture, which is there as a whole."""
        self._enter(Lane(image))
        self._advance(out)

    def call(self, custom: bool) -> Lane:
        """A new tool call, of which nothing is known yet."""
        self.called = True
        return self._enter(Lane(ToolUse(id="", name="", custom=custom)))

    def more(self, lane: Lane, piece: str, signature: str | None, out: list[Event]) -> None:
        """More of a tool call, whose id and name the caller has set as far as they are known. Raises Malformed after its end."""
        if lane.closed:
            if piece.strip():
                raise Malformed("More of a tool call came after its end.")
            return
        events = out if lane is self._live else lane.held
        if piece:
            lane.add(piece)
            events.append(Part(piece))
        if signature is not None:
            events.append(Signature(signature))
        if self._waiting:
            self._advance(out)

    def settle(self, out: list[Event]) -> None:
        """The answer is whole: end what is open, and give out what waits. Raises Malformed for a call without a name."""
        self._close(out)
        for position, lane in enumerate(self._waiting):
            block = lane.block
            if isinstance(block, ToolUse):
                if not block.name:
                    raise Malformed("A tool call without a name came.")
                block.id = block.id or made_id(self._identity, self._next + position, block.name, "".join(lane.pieces))
        while self._waiting:
            self._open(out)
            self._close(out)

    def _enter(self, lane: Lane) -> Lane:
        if self._next + len(self._waiting) >= MAX_BLOCKS:
            raise Malformed(f"The answer has more than {MAX_BLOCKS} blocks.")
        self._waiting.append(lane)
        return lane

    def _advance(self, out: list[Event]) -> None:
        """Go on to the next lanes while the live one is whole."""
        while self._waiting and self._waiting[0].may_open():
            if self._live is not None and not self._live.may_close():
                return
            self._close(out)
            self._open(out)

    def _open(self, out: list[Event]) -> None:
        lane = self._waiting.pop(0)
        self._live = lane
        if isinstance(lane.block, ToolUse):  # with its signature, which some dialects have to say before the call
            for event in lane.held:
                lane.block.signature = event.signature if isinstance(event, Signature) else lane.block.signature
            lane.held = [event for event in lane.held if not isinstance(event, Signature)]
        out.append(BlockStart(self._next, lane.block))
        self._next += 1
        pieces = [event.text for event in lane.held if isinstance(event, Part)]
        if lane.pieces and len(pieces) > 1:
            out.append(Part("".join(pieces)))
            out += [event for event in lane.held if not isinstance(event, Part)]
        else:
            out += lane.held
        lane.held = []

    def _close(self, out: list[Event]) -> None:
        if self._live is not None:
            self._live.closed = True
            self._live = None
            out.append(BlockStop())
