"""A file of what is kept: how it is made, asked, bounded and swept. What stands in it, ``responses`` and ``sessions`` say.

SQLite, for all workers of a machine; one thread has it open, and nothing here is done on the loop.
"""

import contextlib
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

from agw_proxy.store.threads import Threads

WAIT_SECONDS = 1.0  # for another process's write
REST_SECONDS = 1.0  # after a failure, in which nothing is asked: who waits in line need not wait for the same again
AGAIN_SECONDS = 0.005
SWEEP_SECONDS = 60.0  # between two looks for what has expired
SWEPT_AT_ONCE = (
    256  # things, so that nobody waits long for a file that has not been used for weeks; the next one goes on
)
MAX_WAITING = 1024  # pieces of work
PAGE_BYTES = 4096
LARGEST_SHARE = 4  # one thing may take this part of the file: no single one drives all others out
EVICTIONS = 64  # for one that comes
EVICTED_BYTES = 16 * 1024 * 1024  # at once, so that other workers never wait long; one more thing than that
EVICTED_AT_ONCE = 256  # things, likewise
T = TypeVar("T")


class Tables(NamedTuple):
    """What stands in a file. ``things``: the table whose rows have ``n``, an ``owner``, a ``size`` and when they are ``due``.

    ``schema``: makes all tables; ``last``: what it makes last, by its name. ``spare``: which things may go to make room.
    """

    things: str
    schema: str
    last: str
    spare: str = "true"


RESPONSES = Tables(
    "thing",
    """
CREATE TABLE IF NOT EXISTS thing (
    n INTEGER PRIMARY KEY, owner TEXT NOT NULL, id TEXT NOT NULL, kind INTEGER NOT NULL, made INTEGER NOT NULL,
    due REAL NOT NULL, size INTEGER NOT NULL, before TEXT, upto INTEGER NOT NULL, head BLOB NOT NULL, UNIQUE (owner, id)
);
CREATE INDEX IF NOT EXISTS thing_by_due ON thing (due);
CREATE TABLE IF NOT EXISTS item (
    n INTEGER PRIMARY KEY, thing INTEGER NOT NULL REFERENCES thing (n) ON DELETE CASCADE, place INTEGER NOT NULL,
    answered INTEGER NOT NULL, id TEXT NOT NULL, body BLOB NOT NULL, UNIQUE (thing, place)
);
CREATE INDEX IF NOT EXISTS item_by_id ON item (id);
""",
    "item_by_id",
)


class StoreAway(Exception):
    """The file cannot be read or written now, or too much is waiting for it."""


class Full(StoreAway):
    """No more is taken, and nothing that is there may go."""


class Missing(Exception):
    """Nothing of that id is kept for that owner."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what


class TooLong(Exception):
    """A chain has more turns, or more bytes, than may be put back."""


class File:
    """Raises StoreAway where it does not answer, and what the work raises of ``Missing`` and ``TooLong``."""

    def __init__(self, path: Path, max_bytes: int, clock: Callable[[], float], tables: Tables = RESPONSES) -> None:
        """``path`` is made where it is missing, for its owner only. ``clock``: seconds since 1970."""
        self._path = path
        self._tables = tables
        self._max_bytes = max_bytes
        self._clock = clock
        self._threads = Threads(1, "agw-store", MAX_WAITING)
        self._opened: sqlite3.Connection | None = None
        self._rests_until = 0.0
        self._swept = 0.0

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """What ``work`` finds."""
        return await self._attempt(work)

    async def write(self, work: Callable[[sqlite3.Connection], T], size: int) -> T:
        """``work`` in one transaction; where the file is full, the oldest of whoever has the most makes room for ``size`` bytes."""

        def within(file: sqlite3.Connection) -> T:
            if size > self._max_bytes // LARGEST_SHARE:
                raise StoreAway
            for _ in range(EVICTIONS):
                try:
                    return _transaction(file, work)
                except sqlite3.OperationalError as error:
                    if error.sqlite_errorcode != sqlite3.SQLITE_FULL:
                        raise
                _transaction(file, self._evict)
            raise StoreAway

        return await self._attempt(within)

    async def _attempt(self, work: Callable[[sqlite3.Connection], T]) -> T:
        def attempt() -> T | StoreAway | Missing | TooLong:
            if time.monotonic() < self._rests_until:
                return StoreAway()
            try:
                if self._opened is None:
                    self._opened = self._open()
                self._sweep(self._opened)
                return work(self._opened)
            except (Missing, TooLong, StoreAway) as error:
                return error
            except (OSError, sqlite3.Error):
                self._rests_until = time.monotonic() + REST_SECONDS
                if self._opened is not None:  # it may have been taken away under us
                    self._opened.close()
                    self._opened = None
                return StoreAway()

        away: T | StoreAway | Missing | TooLong = StoreAway()
        found = await self._threads.do(attempt, away)
        if isinstance(found, StoreAway | Missing | TooLong):
            raise found
        return found

    def _sweep(self, file: sqlite3.Connection) -> None:
        """Delete what has expired, now and then; where another process writes, the next time."""
        now = time.monotonic()
        if now - self._swept >= SWEEP_SECONDS or not self._swept:
            self._swept = now
            with contextlib.suppress(sqlite3.OperationalError):
                if file.execute(_of(self._tables, _SWEEP), (self._clock(), SWEPT_AT_ONCE)).rowcount >= SWEPT_AT_ONCE:
                    self._swept = 0.0

    def _evict(self, file: sqlite3.Connection) -> None:
        """What is due first of whoever has the most, in parts. Raises Full where nothing may go."""
        largest = file.execute(_of(self._tables, _LARGEST)).fetchone()
        if largest is None:
            raise Full
        file.execute(_of(self._tables, _EVICT), (largest[0], EVICTED_AT_ONCE, EVICTED_BYTES))

    def _open(self) -> sqlite3.Connection:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path.touch(mode=0o600)
        until = time.monotonic() + WAIT_SECONDS
        while True:
            file = sqlite3.connect(self._path, timeout=WAIT_SECONDS, isolation_level=None)
            try:
                file.execute(f"PRAGMA page_size = {PAGE_BYTES}")
                file.execute("PRAGMA journal_mode = WAL")
                file.execute("PRAGMA synchronous = NORMAL")
                file.execute("PRAGMA foreign_keys = ON")
                file.execute("PRAGMA secure_delete = ON")  # what is deleted is not to be found in the file
                file.execute(f"PRAGMA max_page_count = {max(self._max_bytes // PAGE_BYTES, 16)}")
                if not file.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (self._tables.last,)).fetchone():
                    file.executescript(f"BEGIN IMMEDIATE; {self._tables.schema} COMMIT;")
            except sqlite3.Error as error:
                file.close()
                # Another worker makes the same file: SQLite does not wait where it changes how a file is written.
                if not isinstance(error, sqlite3.OperationalError) or time.monotonic() >= until:
                    raise
                time.sleep(AGAIN_SECONDS)
            else:
                return file

    async def close(self) -> None:
        """Close the file, after what it was asked."""

        def work() -> None:
            if self._opened is not None:
                self._opened.close()
                self._opened = None

        await self._threads.do(work, None)
        self._threads.close()


def _transaction(file: sqlite3.Connection, work: Callable[[sqlite3.Connection], T]) -> T:
    file.execute("BEGIN IMMEDIATE")
    try:
        made = work(file)
        file.execute("COMMIT")
    except BaseException:
        if file.in_transaction:
            file.execute("ROLLBACK")
        raise
    return made


_SWEEP = "DELETE FROM thing WHERE n IN (SELECT n FROM thing WHERE due <= ? LIMIT ?)"
_LARGEST = "SELECT owner FROM thing WHERE spare GROUP BY owner ORDER BY sum(size) DESC LIMIT 1"
_EVICT = """
DELETE FROM thing WHERE n IN (
    SELECT n FROM (
        SELECT n, sum(size) OVER (ORDER BY due, n) - size AS before
        FROM (SELECT n, size, due FROM thing WHERE spare AND owner = ? ORDER BY due, n LIMIT ?)
    ) WHERE before < ?
)
"""


def _of(tables: Tables, statement: str) -> str:
    """A statement for these tables: its words ``thing`` and ``spare`` are put in."""
    return statement.replace("spare", tables.spare).replace("thing", tables.things)
