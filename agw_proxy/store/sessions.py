"""Conversations with agents in a database: SQLite for the workers of one machine, PostgreSQL for those of several.

Two tables. A *session* is one conversation of one owner with one agent; its *turns* are what was asked, and what the agent
made of it. Who is in a session says so in its row, for a short while at a time: where a worker dies, others go on soon.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

from agw_proxy.sdk.turns import Place, Turn
from agw_proxy.store.responses_file import Missing, Tables, TooLong

MAX_TURNS = 2000  # of one session
MAX_BYTES = 16 * 1024 * 1024  # of one session, before its last turn
T = TypeVar("T")

SESSIONS = Tables(
    "agw_session",
    """
CREATE TABLE IF NOT EXISTS agw_session (
    n INTEGER PRIMARY KEY, owner TEXT NOT NULL, agent TEXT NOT NULL, name TEXT NOT NULL, made REAL NOT NULL,
    used REAL NOT NULL, due REAL NOT NULL, size INTEGER NOT NULL, turns INTEGER NOT NULL, version INTEGER NOT NULL,
    holder TEXT NOT NULL, until REAL NOT NULL, UNIQUE (owner, agent, name)
);
CREATE INDEX IF NOT EXISTS agw_session_by_due ON agw_session (due);
CREATE TABLE IF NOT EXISTS agw_turn (
    session INTEGER NOT NULL REFERENCES agw_session (n) ON DELETE CASCADE, place INTEGER NOT NULL, asked BLOB NOT NULL,
    made BLOB NOT NULL, mark BLOB NOT NULL, agent TEXT NOT NULL, PRIMARY KEY (session, place)
);
CREATE INDEX IF NOT EXISTS agw_session_by_name ON agw_session (owner, name);
""",
    "agw_session_by_name",
)
_WHERE = "owner = ? AND agent = ? AND name = ?"
_ADD = (
    "INSERT INTO agw_session (owner, agent, name, made, used, due, size, turns, version, holder, until) "
    "VALUES (?, ?, ?, ?, ?, ?, 0, 0, 0, '', 0) ON CONFLICT (owner, agent, name) DO NOTHING"
)
_EXPIRED = f"DELETE FROM agw_session WHERE {_WHERE} AND due <= ? AND until <= ?"  # noqa: S608  our own words
_TAKE = f"UPDATE agw_session SET holder = ?, until = ? WHERE {_WHERE} AND until <= ? RETURNING n, version, size, turns"  # noqa: S608  likewise
_LEAVE = f"UPDATE agw_session SET holder = '', until = 0 WHERE {_WHERE} AND holder = ?"  # noqa: S608  likewise
_LOOK = f"SELECT n, version, size, turns FROM agw_session WHERE {_WHERE} AND due > ?"  # noqa: S608  likewise
_TURNS = "SELECT asked, made, mark, agent FROM agw_turn WHERE session = ? ORDER BY place"
_ADD_TURN = "INSERT INTO agw_turn (session, place, asked, made, mark, agent) VALUES (?, ?, ?, ?, ?, ?)"


class Rows(Protocol):
    """A connection, as far as it is used here; values stand for question marks."""

    def execute(self, sql: str, values: Sequence[Any] = (), /) -> Any:
        """A cursor."""
        ...

    def executemany(self, sql: str, values: Sequence[Sequence[Any]], /) -> Any:
        """The same for each."""
        ...


class Base(Protocol):
    """A database. Both raise StoreAway where it does not answer, and ``Missing`` and ``TooLong`` of the work."""

    async def read(self, work: Callable[[Any], T]) -> T:
        """What ``work`` finds."""
        ...

    async def write(self, work: Callable[[Any], T], size: int) -> T:
        """``work`` in one transaction, which adds so many bytes."""
        ...

    async def close(self) -> None:
        """Do what was asked, then no more."""
        ...


class Busy(Exception):
    """Another run is in the session."""


class Found(NamedTuple):
    """A session as it was read. ``version``: changes with each turn."""

    version: int
    turns: tuple[Turn, ...]


class About(NamedTuple):
    """A session, without its turns. Times in seconds since 1970."""

    agent: str
    name: str
    made: float
    used: float
    due: float
    turns: int
    size: int


class Sessions:
    """Every call is off the loop, and raises StoreAway where the database does not answer."""

    def __init__(self, base: Base, retention: float, clock: Callable[[], float] = time.time) -> None:
        """``retention``: seconds since a session was last used."""
        self._base = base
        self._retention = retention
        self._clock = clock

    # -- runs

    async def begin(self, place: Place, holder: str, seconds: float) -> Found:
        """Go into a session, which is made where there is none, for so long. Raises Busy, TooLong, StoreAway."""

        def work(rows: Rows) -> Found:
            now = self._clock()
            rows.execute(_EXPIRED, (*place, now, now))
            rows.execute(_ADD, (*place, now, now, now + self._retention))
            taken = rows.execute(_TAKE, (holder, now + seconds, *place, now)).fetchall()
            if not taken:
                raise Busy
            return _found(rows, taken[0])

        return await self._base.write(work, 0)

    async def look(self, place: Place) -> Found:
        """A session that others may be in, too; empty where there is none. Raises TooLong, StoreAway."""

        def work(rows: Rows) -> Found:
            found = rows.execute(_LOOK, (*place, self._clock())).fetchone()
            return Found(0, ()) if found is None else _found(rows, found)

        return await self._base.read(work)

    async def keep(self, place: Place, version: int, before: int, turns: Sequence[Turn], holder: str = "") -> bool:
        """Put turns after so many of those before, the rest of which goes. False: it is not as it was read any more.

        ``holder``: who leaves the session with that. Without one, a session that is not there is made.
        """
        size = sum(len(turn.asked) + len(turn.made) for turn in turns)

        def work(rows: Rows) -> bool:
            now = self._clock()
            due = now + self._retention
            if version == 0 and not holder:
                rows.execute(_ADD, (*place, now, now, due))
            row = rows.execute(
                f"UPDATE agw_session SET version = version + 1, used = ?, due = ? WHERE {_WHERE} AND version = ? "  # noqa: S608  our own words
                "RETURNING n",
                (now, due, *place, version),
            ).fetchall()
            if not row:
                return False
            number = row[0][0]
            rows.execute("DELETE FROM agw_turn WHERE session = ? AND place >= ?", (number, before))
            rows.executemany(_ADD_TURN, [(number, before + at, *turn) for at, turn in enumerate(turns)])
            rows.execute(
                "UPDATE agw_session SET (turns, size) = (SELECT count(*), coalesce(sum(length(asked) + length(made)), 0) "
                "FROM agw_turn WHERE session = ?) WHERE n = ?",
                (number, number),
            )
            rows.execute(_LEAVE, (*place, holder))
            return True

        return await self._base.write(work, size)

    async def renew(self, held: Sequence[tuple[Place, str]], seconds: float) -> None:
        """Whoever is in these sessions stays so long from now."""

        def work(rows: Rows) -> None:
            until = self._clock() + seconds
            rows.executemany(
                f"UPDATE agw_session SET until = ? WHERE {_WHERE} AND holder = ?",  # noqa: S608  our own words
                [(until, *place, holder) for place, holder in held],
            )

        await self._base.write(work, 0)

    async def end(self, place: Place, holder: str) -> None:
        """Leave a session; one without a turn goes."""

        def work(rows: Rows) -> None:
            mine = (*place, holder)
            rows.execute(f"DELETE FROM agw_session WHERE {_WHERE} AND holder = ? AND turns = 0", mine)  # noqa: S608  our own words
            rows.execute(_LEAVE, mine)

        await self._base.write(work, 0)

    # -- owners

    async def about(
        self, owner: str, name: str | None = None, after: tuple[str, str] = ("", ""), limit: int = 1000
    ) -> list[About]:
        """The sessions of that name, or all, in order of agent and name. ``after``: such a pair."""

        def work(rows: Rows) -> list[About]:
            found = rows.execute(
                "SELECT agent, name, made, used, due, turns, size FROM agw_session WHERE owner = ? AND due > ? "  # noqa: S608  our own words
                f"AND turns > 0 AND (agent, name) > (?, ?) {'AND name = ?' if name is not None else ''} "
                "ORDER BY agent, name LIMIT ?",
                (owner, self._clock(), *after, *((name,) if name is not None else ()), limit),
            )
            return [About(*row) for row in found.fetchall()]

        return await self._base.read(work)

    async def forget(self, owner: str, name: str) -> None:
        """Delete the sessions of that name. A run that is in one goes on, and is not kept. Raises Missing."""

        def work(rows: Rows) -> int:
            gone = rows.execute("DELETE FROM agw_session WHERE owner = ? AND name = ?", (owner, name))
            return int(gone.rowcount)

        if await self._base.write(work, 0) == 0:
            raise Missing(name)

    async def close(self) -> None:
        """Close the database, after what it was asked."""
        await self._base.close()


def _found(rows: Rows, row: tuple[int, int, int, int]) -> Found:
    number, version, size, turns = row
    if size > MAX_BYTES or turns >= MAX_TURNS:
        raise TooLong
    found = rows.execute(_TURNS, (number,)).fetchall()
    return Found(version, tuple(Turn(*each) for each in found))
