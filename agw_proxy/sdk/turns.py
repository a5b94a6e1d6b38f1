"""A conversation with an agent as it is kept: turn by turn, with what the agent has done itself, which no caller has seen.

A caller may send what is new, or all that was said so far: the caller's history is the truth. What is kept is looked up by
what the caller knows of it, and gives back the agent's own calls, their results and its thoughts; nothing is said twice.
"""

import hashlib
import logging
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

import orjson

from agw_proxy.dialects import openai_responses_kept as kept
from agw_proxy.dialects.base import BlockStart, BlockStop, Event, Part, Refusal, Text, ToolUse, Tree
from agw_proxy.sdk.carried import spelt

UNANSWERED = "The caller has not answered this call."
"""Stands for a result that never came: models take no call without one."""
FOR_ONE_TURN = frozenset({"system", "developer"})
"""Roles of what is said to the agent anew each time."""


log = logging.getLogger("agw_proxy.sdk")


class Turn(NamedTuple):
    """``asked``: the caller's items; ``made``: all of the run's, both as JSON lists. ``agent``: who had the conversation then.

    ``mark``: what the caller knows of it.
    """

    asked: bytes
    made: bytes
    mark: bytes
    agent: str = ""


class Place(NamedTuple):
    """Where a conversation is kept: whose it is, with which agent, and its name."""

    owner: str
    agent: str
    name: str


def place_of(key: str, agent: str, session: str) -> Place:
    """Of a session that a caller has named. ``key``: the name of the caller's.

    Names that callers choose are guessed easily: not even the keys of one team share them.
    """
    return Place(f"key:{key}", agent, session)


def thread_of(owner: str, agent: str, root: str) -> Place:
    """Of a conversation of the Responses store. ``owner``: whose that is; ``root``: what it began with."""
    return Place(f"responses of {owner}", agent, root)


class Book(Protocol):
    """One conversation, read for one run."""

    @property
    def turns(self) -> Sequence[Turn]:
        """So far."""
        ...

    async def keep(self, before: int, turns: Sequence[Turn]) -> None:
        """It goes on with ``turns`` after so many of those before, and others may go on from there.

        Never raises: an answer is not lost with its memory.
        """
        ...

    async def leave(self) -> None:
        """The run has failed: others may go on from here before anybody hears of it."""
        ...

    def end(self) -> None:
        """The run has ended, however."""
        ...


class Books(Protocol):
    """Where conversations are kept."""

    async def open(self, place: Place, *, alone: bool, begins: bool) -> Book | None:
        """The conversation of that place, made where there is none; None: nothing is kept.

        ``alone``: no other run goes on from it meanwhile; ``begins``: it is new, nothing has to be looked up.
        Raises SessionBusy, BodyTooLarge, StoreUnavailable.
        """
        ...

    async def close(self) -> None:
        """No run is left."""
        ...


class Said(NamedTuple):
    """A turn as a caller's history tells it."""

    asked: list[Tree]
    answered: list[Tree]

    @property
    def mark(self) -> bytes:
        """See ``Turn``."""
        words = "".join(kept.words_of(item.get("content")) for item in self.answered if item.get("role") == "assistant")
        return mark_of(self.asked, words, [str(item.get("call_id")) for item in self.answered if is_call(item)])


class Talk:
    """A request within its conversation. ``past``: all that comes before, ``fresh``: what is asked now, as the SDK's input.

    ``agent``: the name of who is to go on, where a result of a call comes; else None.
    """

    def __init__(self, book: Book, items: Sequence[Tree], *, whole: bool, always: bool) -> None:
        """``items``: the request's. ``whole``: they are all that was said, however little that is.

        ``always``: it is kept even where the caller knows all of it.
        """
        system, before, self.fresh = taken_apart(items)
        turns = book.turns
        self._book = book
        self._before = _common(turns, before) if whole or before else len(turns)
        self._told = before[self._before :] if whole or before else []
        told = [item for said in self._told for item in (*said.asked, *said.answered)]
        held = turns[: self._before]
        self.past = [*system, *_whole(held, [*told, *self.fresh]), *told]
        answers = bool(self.fresh) and self.fresh[0].get("type") == "function_call_output"
        self.agent = held[-1].agent or None if held and answers and not self._told else None
        self._heard = Heard()
        self._kept = bool(held)
        self._always = always

    def hear(self, events: Iterable[Event]) -> None:
        """What the caller is told."""
        self._heard.hear(events)

    async def keep(self, made: Sequence[Tree], agent: str) -> None:
        """The run has ended well. ``made``: its items; ``agent``: the name of who has the conversation now."""
        heard, made = self._heard, portable(made)
        hidden = any(not (item.get("role") == "assistant" or item.get("call_id") in heard.calls) for item in made)
        if not (self._always or hidden or self._kept):
            return
        mark = mark_of(self.fresh, heard.words, heard.calls)
        try:
            turns = [Turn(orjson.dumps(s.asked), orjson.dumps(portable(s.answered)), s.mark) for s in self._told]
            turns.append(Turn(orjson.dumps(self.fresh), orjson.dumps(made), mark, agent))
        except TypeError:  # a tool has given what is no JSON
            log.warning("a turn of agent '%s' cannot be kept: it is no JSON", agent, exc_info=True)
            return
        await self._book.keep(self._before, turns)

    @property
    def told(self) -> list[Tree]:
        """What the caller has been told so far, as items: all that there is of an answer that was cut."""
        words = self._heard.words
        return [{"type": "message", "role": "assistant", "content": words}] if words else []

    async def leave(self) -> None:
        """See ``Book``."""
        await self._book.leave()

    def end(self) -> None:
        """See ``Book``."""
        self._book.end()


class Heard:
    """What a caller is told of a run: its words, and the calls of the caller's own tools."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._listens = False
        self.calls: list[str] = []

    @property
    def words(self) -> str:
        """Refusals are words, thoughts are not."""
        return "".join(self._texts)

    def hear(self, events: Iterable[Event]) -> None:
        """The next events."""
        for event in events:
            if isinstance(event, BlockStart):
                self._listens = isinstance(event.block, Text | Refusal)
                if isinstance(event.block, ToolUse):
                    self.calls.append(event.block.id)
            elif isinstance(event, BlockStop):
                self._listens = False
            elif isinstance(event, Part) and self._listens:
                self._texts.append(event.text)


def taken_apart(items: Sequence[Tree]) -> tuple[list[Tree], list[Said], list[Tree]]:
    """What is said for this turn only, the turns before, and what is asked now."""
    system = [item for item in items if item.get("role") in FOR_ONE_TURN]
    turns: list[Said] = []
    for item in items:
        if item.get("role") in FOR_ONE_TURN:
            continue
        own = _is_models(item)
        if not turns or (turns[-1].answered and not own):
            turns.append(Said([], []))
        (turns[-1].answered if own else turns[-1].asked).append(item)
    last = turns.pop() if turns else Said([], [])
    return system, turns, [*last.asked, *last.answered]


def has_past(items: Sequence[Tree]) -> bool:
    """A model has answered before."""
    return any(_is_models(item) for item in items)


def portable(items: Sequence[Tree]) -> list[Tree]:
    """A run's items as any later model takes them: by no id of a provider's, and thoughts only where they can be read again."""
    made: list[Tree] = []
    for item in items:
        if item.get("type") == "reasoning":
            made += [item] if item.get("encrypted_content") else []
        else:
            made += kept.portable([item])
    return made


def mark_of(asked: Sequence[Tree], words: str, calls: Sequence[str]) -> bytes:
    """The same for the same turn, however its words are cut into parts and spaced."""
    told = [[spelt(item) for item in asked], "".join(words.split()), list(calls)]
    return hashlib.sha256(orjson.dumps(told, option=orjson.OPT_SORT_KEYS)).digest()


def is_call(item: Tree) -> bool:
    """A call that needs a result."""
    return item.get("type") == "function_call"


def _is_models(item: Tree) -> bool:
    """Made by a model, where a caller's history has it."""
    if "role" in item:
        return item.get("role") == "assistant"
    return not str(item.get("type")).endswith(("_output", "_response"))


def _common(turns: Sequence[Turn], said: Sequence[Said]) -> int:
    """How many turns the caller's history begins with."""
    pairs = zip(turns, said, strict=False)
    return next((at for at, (turn, each) in enumerate(pairs) if turn.mark != each.mark), min(len(turns), len(said)))


def _whole(turns: Sequence[Turn], later: Sequence[Tree]) -> list[Tree]:
    """All items of these turns, each call with a result. ``later``: what comes after them."""
    items = [(orjson.loads(turn.asked), orjson.loads(turn.made)) for turn in turns]
    given = {item.get("call_id") for pair in items for part in pair for item in part if "output" in item}
    given |= {item.get("call_id") for item in later if "output" in item}
    made: list[Tree] = []
    for asked, answered in items:
        made += [*asked, *answered]
        for item in answered:
            if is_call(item) and item.get("call_id") not in given:
                made.append({"type": "function_call_output", "call_id": item["call_id"], "output": UNANSWERED})
    return made
