"""The words that all grammars share: frames, faults, what was told, and members that have to be there."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

Tree = dict[str, Any]
Frame = tuple[str, bytes]
"""Name ("" where the event has none) and data of one server-sent event."""

SHOWN_CHARACTERS = 160  # of what came, in a fault
_NAMES = {dict: "an object", list: "a list", str: "a string", int: "a whole number", bool: "true or false"}


class Fault(NamedTuple):
    """The first thing in a stream that is against its grammar.

    ``number``: of the event, from 1; one more than there are where the end is missing. ``name``: of the event; its kind
    where the dialect's events have no names.
    """

    number: int
    name: str
    expected: str
    came: str

    def __str__(self) -> str:
        """Say it in one line."""
        return f"event {self.number} ({self.name}): expected {self.expected}, got {self.came}"


class Broken(Exception):
    """Something is not as its dialect has it."""

    def __init__(self, expected: str, came: object) -> None:
        """``came``: a text as it is to be read, anything else as JSON."""
        self.expected = expected
        self.came = came if isinstance(came, str) else shown(came)
        super().__init__(f"expected {expected}, got {self.came}")


@dataclass
class Call:
    """A tool call: ``arguments`` is the JSON text of an object, unless it is ``free`` (of a custom tool)."""

    id: str
    name: str
    arguments: str = ""
    free: bool = False


@dataclass
class Told:
    """What an answer says. ``usage``: tokens in and out, None where nothing is told.

    ``stop``: why it ended, in the dialect's word. ``turn``: the answer as the next request's history has it (of answers
    in one piece). ``failure``: the message of the error that ended a stream.
    """

    text: str = ""
    calls: list[Call] = field(default_factory=list)
    stop: str = ""
    usage: tuple[int, int] | None = None
    turn: Any = None
    failure: str | None = None


class Grammar(Protocol):
    """An automaton over the events of one stream."""

    told: Told
    over: bool
    due: str
    """What has to come before the stream may end."""

    def step(self, name: str, data: bytes) -> None:
        """Take the next event. Raises Broken."""
        ...


class Reader:
    """Reads the streams of one dialect by its grammar."""

    def __init__(self, begin: Callable[[], Grammar], kind: str) -> None:
        """``begin``: the grammar before the first event. ``kind``: what an event without a name is called."""
        self._begin, self._kind = begin, kind

    def check(self, frames: Sequence[Frame]) -> Fault | None:
        """Give the first fault of a whole stream; None where there is none. A stream may also end in an error event."""
        return self.follow(frames)[1]

    def follow(self, frames: Sequence[Frame]) -> tuple[Told, Fault | None]:
        """Likewise, with what was told until there (in Chat, by the first choice)."""
        grammar = self._begin()
        return grammar.told, self._walk(grammar, frames)

    def _walk(self, grammar: Grammar, frames: Sequence[Frame]) -> Fault | None:
        for number, (name, data) in enumerate(frames, 1):
            try:
                if grammar.over:
                    raise Broken("nothing after the end of the stream", shown_data(data))
                grammar.step(name, data)
            except Broken as broken:
                return Fault(number, name or self._kind, broken.expected, broken.came)
        if not grammar.over:
            return Fault(len(frames) + 1, "end of the stream", grammar.due, "nothing more")
        return None


def parsed(data: bytes) -> Tree:
    """The JSON object in an event. Raises Broken."""
    try:
        tree = json.loads(data)
    except (ValueError, RecursionError):
        tree = None
    if not isinstance(tree, dict):
        raise Broken("a JSON object", shown_data(data))
    return tree


def member(tree: Tree, name: str, kind: type, where: str = "") -> Any:
    """The member ``name``, of type ``kind``. ``where``: the path to ``tree``, with its dot. Raises Broken."""
    value = tree.get(name)
    if isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return value
    came = f"{shown(value)}" if name in tree else "no such member"
    raise Broken(f"`{where}{name}` to be {_NAMES[kind]}", came)


def named(tree: Tree, name: str, where: str = "") -> str:
    """A member that is a string and not empty. Raises Broken."""
    value: str = member(tree, name, str, where)
    if not value:
        raise Broken(f"`{where}{name}` not to be empty", value or '""')
    return value


def same(value: object, expected: object, what: str) -> None:
    """Raise Broken unless both are equal."""
    if value != expected:
        raise Broken(f"{what} {shown(expected)}", "nothing of that name" if value is None else shown(value))


def tokens(tree: Tree, *names: str) -> tuple[int, ...]:
    """Counts that have to be there, from 0. Raises Broken."""
    found = tuple(member(tree, name, int, "usage.") for name in names)
    for name, count in zip(names, found, strict=True):
        if count < 0:
            raise Broken(f"`usage.{name}` from 0", count)
    return found


def usage_of(value: object, sent_name: str, made_name: str) -> tuple[int, int] | None:
    """Tokens in and out of a ``usage`` of OpenAI's, whose total is at least their sum; None: nothing is told. Raises Broken."""
    if value is None:
        return None
    if not isinstance(value, dict):
        raise Broken("`usage` to be an object or null", value)
    sent, made, total = tokens(value, sent_name, made_name, "total_tokens")
    if total < sent + made:
        raise Broken("`usage.total_tokens` to be at least its two parts", value)
    return sent, made


def whole_arguments(call: Call) -> None:
    """Raise Broken unless a call's arguments are an object in JSON."""
    try:
        found = json.loads(call.arguments)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        came = shown(call.arguments) if call.arguments else "none"
        raise Broken(f"the arguments of the call of `{call.name}` to be a whole JSON object by now", came)


def shown(value: object) -> str:
    """A value as JSON, cut."""
    return _cut(json.dumps(value, ensure_ascii=False, default=str))


def shown_data(data: bytes) -> str:
    """An event's data, cut, in printable characters."""
    text = data[: 2 * SHOWN_CHARACTERS].decode("utf-8", "replace")
    return _cut("".join(character if character.isprintable() else " " for character in text) or "no data")


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[: SHOWN_CHARACTERS - 3]}..."
