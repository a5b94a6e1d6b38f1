"""Responses and conversations in one SQLite file, for all workers of a machine.

Two tables. A *thing* is a response or a conversation, of one owner; its *items* are the messages, calls, results and thoughts
that it was asked with or has answered, or that a conversation holds. What a response goes on from is not copied: it names
the response before it, or its conversation and how much of that there was.
"""

import secrets
import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import orjson

from agw_proxy.store.responses_file import File, Missing, TooLong

RESPONSE, CONVERSATION = 0, 1
RENEW_SECONDS = 86400.0
RENEWED_BEFORE = 8  # parts of the retention, of which one may pass before what is in use is written anew
MAX_TURNS = 2000  # of one chain
MAX_NAMED = 2000  # items that a request refers to one by one
_THING = "SELECT n, kind, made, before, upto, head FROM thing WHERE owner = ? AND id = ? AND due > ?"
_ADD = "INSERT INTO thing (owner, id, kind, made, due, size, before, upto, head) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
_ADD_ITEM = "INSERT INTO item (thing, place, answered, id, body) VALUES (?, ?, ?, ?, ?)"


class Item(NamedTuple):
    """``body``: the item as JSON, with that id in it."""

    id: str
    body: bytes
    answered: bool = False
    """The model's, in answer."""


class Thing(NamedTuple):
    """A response or a conversation, without its items. ``made``: seconds since 1970.

    ``upto``: of a conversation, the place of its last item so far; of a response, see ``Turn``.
    """

    n: int
    kind: int
    made: int
    before: str | None
    upto: int
    head: bytes


class Past(NamedTuple):
    """What a request goes on from. ``chain``: the numbers of what it is made of; ``upto``: see ``Turn``.

    ``root``: the id of the response, or of the conversation, that all of it began with.
    """

    items: tuple[bytes, ...] = ()
    chain: tuple[int, ...] = ()
    upto: int = -1
    named: tuple[bytes | None, ...] = ()
    """The items that it refers to one by one, in order; None for those that are not kept."""
    root: str = ""


class Turn(NamedTuple):
    """A response to be kept. ``before``: the response or the conversation that it goes on from.

    ``upto``: the place of the last item of that conversation that it has seen; -1: none, or no conversation.
    """

    id: str
    before: str | None
    upto: int
    head: bytes
    items: Sequence[Item]


class Page(NamedTuple):
    """Items in the order that was asked for."""

    items: tuple[Item, ...]
    more: bool


class Wanted(NamedTuple):
    """Which part of a list. ``after``: the id of the item before."""

    limit: int
    ascending: bool
    after: str | None


class Responses:
    """Every call is off the loop, and raises StoreAway where the file does not answer."""

    def __init__(self, path: Path, max_bytes: int, retention: float, clock: Callable[[], float] = time.time) -> None:
        """See ``File``. ``retention``: seconds."""
        self.retention = retention
        self._clock = clock
        self._file = File(path, max_bytes, clock)

    # -- responses

    async def past(
        self, owner: str, previous: str | None, conversation: str | None, named: Sequence[str], max_bytes: int
    ) -> Past:
        """What a request refers to. Raises Missing for what it goes on from and is not kept, StoreAway.

        Raises TooLong over ``max_bytes`` (an item counts as often as it is named) and over MAX_TURNS or MAX_NAMED.
        """
        if len(named) > MAX_NAMED:
            raise TooLong

        def work(file: sqlite3.Connection) -> Past:
            chain: list[tuple[Thing, int]] = []
            upto, root = -1, conversation or ""
            if previous is not None:
                chain, root = self._chain(file, owner, previous)
            elif conversation is not None:
                thing = self._thing(file, owner, conversation, CONVERSATION)
                upto = thing.upto
                chain = [(thing, upto)]
            items: list[bytes] = []
            size = 0
            for thing, most in chain:
                for (body,) in file.execute(
                    "SELECT body FROM item WHERE thing = ? AND place <= ? ORDER BY place", (thing.n, most)
                ):
                    size += len(body)
                    if size > max_bytes:
                        raise TooLong
                    items.append(body)
            found: list[bytes | None] = []
            for each in named:
                found.append(self._found(file, owner, each))
                size += len(found[-1] or b"")
                if size > max_bytes:
                    raise TooLong
            return Past(tuple(items), tuple(thing.n for thing, _ in chain), upto, tuple(found), root)

        return await self._file.read(work)

    async def keep(
        self,
        owner: str,
        turn: Turn,
        chain: Sequence[int],
        conversation: str | None,
        *,
        listed: bool = True,
        once: bool = False,
    ) -> None:
        """Keep a response in place of one of the same id, and what it goes on from for as long.

        ``conversation``: it gets the response's items, too; one that is gone gets none. ``listed``: False keeps nothing
        but that. ``once``: several may have got this very answer, of whom the first one keeps it. Raises StoreAway.
        """

        def work(file: sqlite3.Connection) -> None:
            now = self._clock()
            if once and self._has(file, owner, turn, None if listed else conversation):
                return
            if listed:
                file.execute("DELETE FROM thing WHERE owner = ? AND id = ?", (owner, turn.id))
                number = self._add(file, owner, RESPONSE, turn.id, turn.before, turn.upto, turn.head)
                self._append(file, number, 0, turn.items)
            if conversation is not None:
                found = file.execute(_THING, (owner, conversation, now)).fetchone()
                if found is not None:
                    self._extend(file, Thing(*found), turn.items)
            due = now + self.retention
            late = due - min(RENEW_SECONDS, self.retention / RENEWED_BEFORE)
            stale = [(due, number, late) for number in chain]
            file.executemany("UPDATE thing SET due = ? WHERE n = ? AND due < ?", stale)

        await self._file.write(work, len(turn.head) + sum(len(item.body) for item in turn.items))

    async def response(self, owner: str, what: str) -> tuple[bytes, list[bytes]]:
        """A response without its items, and the items that it answered with. Raises Missing, StoreAway."""

        def work(file: sqlite3.Connection) -> tuple[bytes, list[bytes]]:
            thing = self._thing(file, owner, what, RESPONSE)
            rows = file.execute("SELECT body FROM item WHERE thing = ? AND answered ORDER BY place", (thing.n,))
            return thing.head, [row[0] for row in rows]

        return await self._file.read(work)

    async def asked_with(self, owner: str, what: str, wanted: Wanted) -> Page:
        """Items that a response was asked with, those before it included. Raises Missing (also of ``after``), TooLong, StoreAway."""

        def work(file: sqlite3.Connection) -> Page:
            chain, _ = self._chain(file, owner, what)
            numbers: list[tuple[int, str]] = []
            for thing, most in chain:
                own = "" if thing is not chain[-1][0] else "AND NOT answered"
                numbers += file.execute(
                    f"SELECT n, id FROM item WHERE thing = ? AND place <= ? {own} ORDER BY place",  # noqa: S608  our own words
                    (thing.n, most),
                ).fetchall()
            return _page(file, numbers, wanted)

        return await self._file.read(work)

    # -- conversations

    async def begin(self, owner: str, what: str, head: bytes, items: Sequence[Item]) -> int:
        """Make a conversation; gives when it was made. Raises StoreAway."""

        def work(file: sqlite3.Connection) -> int:
            number = self._add(file, owner, CONVERSATION, what, None, len(items) - 1, head)
            self._append(file, number, 0, _distinct(file, number, items))
            return int(self._clock())

        return await self._file.write(work, len(head) + sum(len(item.body) for item in items))

    async def conversation(self, owner: str, what: str, head: bytes | None = None) -> Thing:
        """A conversation; ``head`` takes the place of what it had. Raises Missing, StoreAway."""

        def work(file: sqlite3.Connection) -> Thing:
            thing = self._thing(file, owner, what, CONVERSATION)
            if head is not None:
                file.execute("UPDATE thing SET head = ? WHERE n = ?", (head, thing.n))
            return thing if head is None else thing._replace(head=head)

        return await (self._file.read(work) if head is None else self._file.write(work, len(head)))

    async def extend(self, owner: str, what: str, items: Sequence[Item]) -> list[Item]:
        """Put items at a conversation's end; gives them as they stand there. Raises Missing, StoreAway."""

        def work(file: sqlite3.Connection) -> list[Item]:
            thing = self._thing(file, owner, what, CONVERSATION)
            return self._extend(file, thing, items)

        return await self._file.write(work, sum(len(item.body) for item in items))

    async def held(self, owner: str, what: str, wanted: Wanted) -> Page:
        """Items of a conversation. Raises Missing (also of ``after``), StoreAway."""

        def work(file: sqlite3.Connection) -> Page:
            thing = self._thing(file, owner, what, CONVERSATION)
            rows = file.execute("SELECT n, id FROM item WHERE thing = ? ORDER BY place", (thing.n,)).fetchall()
            return _page(file, rows, wanted)

        return await self._file.read(work)

    async def item(self, owner: str, conversation: str, what: str, *, remove: bool = False) -> bytes:
        """One of them, which ``remove`` takes out. Raises Missing, StoreAway."""

        def work(file: sqlite3.Connection) -> bytes:
            thing = self._thing(file, owner, conversation, CONVERSATION)
            found = self._item(file, owner, thing.n, what)
            if remove:
                file.execute("DELETE FROM item WHERE thing = ? AND id = ?", (thing.n, what))
                file.execute("UPDATE thing SET size = size - ? WHERE n = ?", (len(found.body), thing.n))
            return found.body

        return await (self._file.write(work, 0) if remove else self._file.read(work))

    # -- both

    async def forget(self, owner: str, what: str, kind: int) -> None:
        """Delete a response or a conversation with its items. Raises Missing, StoreAway."""

        def work(file: sqlite3.Connection) -> None:
            thing = self._thing(file, owner, what, kind)
            file.execute("DELETE FROM thing WHERE n = ?", (thing.n,))

        await self._file.write(work, 0)

    async def knows(self, owner: str, what: str) -> bool:
        """Whether it is kept. Raises StoreAway."""
        return await self._file.read(
            lambda file: file.execute(_THING, (owner, what, self._clock())).fetchone() is not None
        )

    async def root(self, owner: str, what: str) -> str:
        """The id of the response, or the conversation, that a response goes back to; its own where it is a conversation, or not kept.

        Raises StoreAway.
        """
        try:
            return await self._file.read(lambda file: self._chain(file, owner, what)[1])
        except (Missing, TooLong):
            return what

    async def close(self) -> None:
        """Close the file, after what it was asked."""
        await self._file.close()

    # -- on the thread

    def _thing(self, file: sqlite3.Connection, owner: str, what: str, kind: int) -> Thing:
        row = file.execute(_THING, (owner, what, self._clock())).fetchone()
        if row is None or row[1] != kind:
            raise Missing(what)
        return Thing(*row)

    def _has(self, file: sqlite3.Connection, owner: str, turn: Turn, conversation: str | None) -> bool:
        """An answer is kept; ``conversation``: its items are there."""
        thing = file.execute(_THING, (owner, conversation or turn.id, self._clock())).fetchone()
        if thing is None or conversation is None:
            return thing is not None
        said = next((item.id for item in turn.items if item.answered), None)
        return file.execute("SELECT 1 FROM item WHERE thing = ? AND id = ?", (thing[0], said)).fetchone() is not None

    def _found(self, file: sqlite3.Connection, owner: str, what: str) -> bytes | None:
        try:
            return self._item(file, owner, None, what).body
        except Missing:
            return None

    def _item(self, file: sqlite3.Connection, owner: str, thing: int | None, what: str) -> Item:
        row = file.execute(
            "SELECT item.id, item.body FROM item JOIN thing ON thing.n = item.thing WHERE item.id = ? AND thing.owner = ? "
            "AND thing.due > ? AND (?4 IS NULL OR thing.n = ?4) ORDER BY item.n DESC LIMIT 1",
            (what, owner, self._clock(), thing),
        ).fetchone()
        if row is None:
            raise Missing(what)
        return Item(row[0], row[1])

    def _chain(self, file: sqlite3.Connection, owner: str, what: str) -> tuple[list[tuple[Thing, int]], str]:
        """What a response and all before it are made of, the oldest first, each with the place of its last item that counts.

        And the id of that oldest one.
        """
        root = what
        chain: list[tuple[Thing, int]] = []
        seen: set[str] = set()
        at: str | None = what
        while at is not None:
            if at in seen:
                raise Missing(at)
            seen.add(at)
            root = at
            if len(seen) > MAX_TURNS:
                raise TooLong
            thing = self._thing(file, owner, at, RESPONSE)
            chain.append((thing, _last(file, thing.n)))
            if thing.upto >= 0 and thing.before is not None:
                chain.append((self._thing(file, owner, thing.before, CONVERSATION), thing.upto))
                root = thing.before
                break
            at = thing.before
        chain.reverse()
        return chain, root

    def _add(
        self, file: sqlite3.Connection, owner: str, kind: int, what: str, before: str | None, upto: int, head: bytes
    ) -> int:
        now = self._clock()
        row = (owner, what, kind, int(now), now + self.retention, len(head), before, upto, head)
        return file.execute(_ADD, row).lastrowid or 0

    def _extend(self, file: sqlite3.Connection, thing: Thing, items: Sequence[Item]) -> list[Item]:
        """At a conversation's end. A place is never given twice, so that what was seen of it once can be told later."""
        made = _distinct(file, thing.n, items)
        self._append(file, thing.n, thing.upto + 1, made)
        later = (thing.upto + len(items), self._clock() + self.retention, thing.n)
        file.execute("UPDATE thing SET upto = ?, due = ? WHERE n = ?", later)
        return made

    def _append(self, file: sqlite3.Connection, thing: int, place: int, items: Sequence[Item]) -> None:
        rows = [(thing, place + at, item.answered, item.id, item.body) for at, item in enumerate(items)]
        file.executemany(_ADD_ITEM, rows)
        file.execute("UPDATE thing SET size = size + ? WHERE n = ?", (sum(len(item.body) for item in items), thing))


def _distinct(file: sqlite3.Connection, conversation: int, items: Sequence[Item]) -> list[Item]:
    """The same, none with an id that another one of the conversation has: by ids they are paged, shown and deleted.

    Some upstreams call all that they make the same.
    """
    known = "SELECT 1 FROM item WHERE thing = ? AND id = ?"
    taken = {item.id for item in items if file.execute(known, (conversation, item.id)).fetchone() is not None}
    made: list[Item] = []
    for item in items:
        if item.id in taken:
            fresh = f"{item.id}_{secrets.token_hex(10)}"
            made.append(item._replace(id=fresh, body=orjson.dumps({**orjson.loads(item.body), "id": fresh})))
        else:
            taken.add(item.id)
            made.append(item)
    return made


def _last(file: sqlite3.Connection, thing: int) -> int:
    """The place of a thing's last item; -1 where it has none."""
    place = file.execute("SELECT max(place) FROM item WHERE thing = ?", (thing,)).fetchone()[0]
    return -1 if place is None else int(place)


def _page(file: sqlite3.Connection, items: Sequence[tuple[int, str]], wanted: Wanted) -> Page:
    """``items``: numbers and ids of all, the oldest first. One that was put there twice is shown once, else no page would end."""
    once: dict[str, tuple[int, str]] = {}
    for item in items:
        once.setdefault(item[1], item)
    ordered = list(once.values())[:: 1 if wanted.ascending else -1]
    start = 0
    if wanted.after is not None:
        start = next((at + 1 for at, item in enumerate(ordered) if item[1] == wanted.after), -1)
        if start < 0:
            raise Missing(wanted.after)
    shown = ordered[start : start + wanted.limit]
    bodies = [file.execute("SELECT body FROM item WHERE n = ?", (number,)).fetchone()[0] for number, _ in shown]
    found = tuple(Item(item[1], body) for item, body in zip(shown, bodies, strict=True))
    return Page(found, start + wanted.limit < len(ordered))
