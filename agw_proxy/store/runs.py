"""Runs in the background in one SQLite file, for all workers of a machine: their states, and their events in portions.

A process holds the byte of its own number in a file beside it, by a lock that the kernel takes back when the process
ends, however it does. So everybody can tell a run that is under way from one whose process has gone.
"""

import fcntl
import os
import secrets
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from agw_proxy.store.responses_file import File, Full, Missing, StoreAway, Tables

ENDLESS = 9e15  # when a run is due that has not ended
LOOK_SECONDS = 1.0  # between two looks for runs whose process has gone
RUNS = Tables(
    "run",
    """
CREATE TABLE IF NOT EXISTS run (
    n INTEGER PRIMARY KEY AUTOINCREMENT, seed TEXT NOT NULL UNIQUE, owner TEXT NOT NULL, key TEXT NOT NULL,
    model TEXT NOT NULL, status TEXT NOT NULL, made INTEGER NOT NULL, begun INTEGER, ended INTEGER, holder INTEGER NOT NULL,
    last INTEGER NOT NULL, head BLOB NOT NULL, error BLOB, due REAL NOT NULL, size INTEGER NOT NULL,
    wish INTEGER NOT NULL DEFAULT 0, once BLOB, asked BLOB
);
CREATE INDEX IF NOT EXISTS run_by_owner ON run (owner, n);
CREATE INDEX IF NOT EXISTS run_under_way ON run (holder) WHERE ended IS NULL;
CREATE INDEX IF NOT EXISTS run_once ON run (once) WHERE once IS NOT NULL;
CREATE TABLE IF NOT EXISTS part (
    run INTEGER NOT NULL REFERENCES run (n) ON DELETE CASCADE, last INTEGER NOT NULL, body BLOB NOT NULL,
    PRIMARY KEY (run, last)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS run_by_due ON run (due);
""",
    "run_by_due",
    spare="ended IS NOT NULL",
)
_COLUMNS = "n, seed, owner, key, model, status, made, begun, ended, holder, last, head, error"
_FIND = f"SELECT {_COLUMNS} FROM run WHERE seed = ? AND (?2 IS NULL OR owner = ?2) AND due > ?"  # noqa: S608  our own words
_UPDATE = """
UPDATE run SET status = ?, last = max(last, ?), size = size + ?, head = coalesce(?, head), error = coalesce(?, error),
    begun = coalesce(begun, ?), ended = coalesce(ended, ?), due = coalesce(?, due) WHERE seed = ? AND ended IS NULL
"""
_PART = "INSERT OR IGNORE INTO part (run, last, body) SELECT n, ?, ? FROM run WHERE seed = ?"
_BEFORE = "SELECT seed, asked FROM run WHERE once = ? AND due > ?"
Kept = tuple[int, str, str, str, str, str, int, int | None, int | None, int, int, bytes, bytes | None]
"""A row, in the order of ``api.runs.Row``."""
Obituary = Callable[[Kept, int], tuple[bytes, bytes, bytes]]
"""Of a run whose process has gone, at a time: its last event, its head and its error."""


class Begun(NamedTuple):
    """A run that begins. ``body``: its first events, the last of which is number ``last``."""

    seed: str
    owner: str
    key: str
    model: str
    head: bytes
    last: int
    body: bytes
    once: "Once | None" = None


class Once(NamedTuple):
    """What says that a run is to be begun once: digests of its owner's word for it, and of what it is asked for."""

    word: bytes
    asked: bytes


class Said(NamedTuple):
    """What a run has come to. ``body``: its newest events up to number ``last``; None: nothing new of that kind."""

    seed: str
    status: str
    last: int
    body: bytes
    head: bytes | None = None
    error: bytes | None = None
    begun: int | None = None
    ended: int | None = None


class Listed(NamedTuple):
    """Which runs; see ``api.runs.RunsWanted``."""

    limit: int
    ascending: bool
    after: str | None
    status: str | None
    model: str | None


class Runs:
    """One in a process, since its number is the process's. Every call is off the loop, and raises StoreAway where the file does not answer.

    ``owner`` None stands for whoever may see all.
    """

    def __init__(
        self, path: Path, max_bytes: int, retention: float, obituary: Obituary, clock: Callable[[], float] = time.time
    ) -> None:
        """See ``File``. ``retention``: seconds since a run has ended."""
        self.holder = secrets.randbelow(2**62) + 1
        """The number of this process."""
        self._retention = retention
        self._obituary = obituary
        self._clock = clock
        self._lock_path = path.with_name(f"{path.name}.lock")
        self._lock: int | None = None
        self._looked = 0.0
        self._file = File(path, max_bytes, clock, RUNS)

    async def begin(self, run: Begun) -> tuple[str, bytes] | None:
        """Keep a run that this process has. Where it has been begun before: the seed of that one, and what that was asked for."""
        await self._look()  # what nobody runs any more may make room

        def work(file: sqlite3.Connection) -> tuple[str, bytes] | None:
            once = run.once or Once(b"", b"")
            if run.once is not None:
                before: tuple[str, bytes] | None = file.execute(_BEFORE, (once.word, self._clock())).fetchone()
                if before is not None:
                    return before
            self._hold()
            now = int(self._clock())
            row = (
                run.seed, run.owner, run.key, run.model, "queued", now, self.holder, run.last, run.head, ENDLESS,
                len(run.head) + len(run.body), once.word or None, once.asked or None,
            )  # fmt: skip
            file.execute(
                "INSERT INTO run (seed, owner, key, model, status, made, holder, last, head, due, size, once, asked) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                row,
            )
            file.execute(_PART, (run.last, run.body, run.seed))
            return None

        return await self._file.write(work, len(run.head) + len(run.body))

    async def say(self, said: Sequence[Said]) -> None:
        """Add to runs of this process; those that have gone stay away.

        Where runs under way have filled the file, those that end make room by their own events, of which the last is kept.
        May be called again with the same where it could not be done.
        """
        try:
            await self._write(said)
        except Full:
            over = [each for each in said if each.ended is not None]
            if not over:
                raise
            await self._file.write(lambda file: self._shed(file, [each.seed for each in over]), 0)
            await self._write(over)
            if len(over) < len(said):
                raise StoreAway from None

    async def _write(self, said: Sequence[Said]) -> None:
        def work(file: sqlite3.Connection) -> None:
            for each in said:
                self._say(file, each)

        await self._file.write(work, max(len(each.body) + len(each.head or b"") for each in said))

    async def find(self, owner: str | None, seed: str) -> Kept:
        """A run as it is now. Raises Missing."""
        await self._look()
        return await self._file.read(lambda file: self._found(file, owner, seed))

    async def events(self, seed: str, after: int, most_bytes: int) -> tuple[list[tuple[int, bytes]], bool]:
        """Portions of events, each with the number of its last, which have some behind ``after``; whether the run has ended.

        At most ``most_bytes``, but one portion. Raises Missing.
        """
        await self._look()

        def work(file: sqlite3.Connection) -> tuple[list[tuple[int, bytes]], bool]:
            row = self._found(file, None, seed)
            found: list[tuple[int, bytes]] = []
            size = 0
            for last, body in file.execute(
                "SELECT last, body FROM part WHERE run = ? AND last > ? ORDER BY last", (row[0], after)
            ):
                size += len(body)
                if found and size > most_bytes:
                    return found, False
                found.append((last, body))
            return found, row[8] is not None

        return await self._file.read(work)

    async def page(self, owner: str | None, wanted: Listed) -> tuple[list[Kept], bool]:
        """Runs in the order in which they were made, and whether there are more. Raises Missing of ``after``."""
        await self._look()

        def work(file: sqlite3.Connection) -> tuple[list[Kept], bool]:
            order, compared = ("ASC", ">") if wanted.ascending else ("DESC", "<")
            after = self._found(file, owner, wanted.after)[0] if wanted.after is not None else None
            rows = file.execute(
                f"SELECT {_COLUMNS} FROM run WHERE (?1 IS NULL OR owner = ?1) AND (?2 IS NULL OR n {compared} ?2) "  # noqa: S608  our own words
                f"AND (?3 IS NULL OR status = ?3) AND (?4 IS NULL OR model = ?4) AND due > ?5 ORDER BY n {order} LIMIT ?6",
                (owner, after, wanted.status, wanted.model, self._clock(), wanted.limit + 1),
            ).fetchall()
            return rows[: wanted.limit], len(rows) > wanted.limit

        return await self._file.read(work)

    async def wish(self, seed: str) -> None:
        """Have the process that runs it cancel it."""
        await self._file.write(
            lambda file: file.execute("UPDATE run SET wish = 1 WHERE seed = ? AND ended IS NULL", (seed,)), 0
        )

    async def going_on(self) -> set[str]:
        """Runs of this process that are to go on: nobody has wished them cancelled, or deleted them."""
        found = await self._file.read(
            lambda file: file.execute(
                "SELECT seed FROM run WHERE holder = ? AND ended IS NULL AND wish = 0", (self.holder,)
            ).fetchall()
        )
        return {seed for (seed,) in found}

    async def forget(self, owner: str | None, seed: str) -> None:
        """Delete a run with its events. Raises Missing."""

        def work(file: sqlite3.Connection) -> None:
            file.execute("DELETE FROM run WHERE n = ?", (self._found(file, owner, seed)[0],))

        await self._file.write(work, 0)

    async def close(self) -> None:
        """Close the file, after what it was asked, and let go of the number."""
        await self._file.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    # -- on the thread

    def _found(self, file: sqlite3.Connection, owner: str | None, seed: str) -> Kept:
        row: Kept | None = file.execute(_FIND, (seed, owner, self._clock())).fetchone()
        if row is None:
            raise Missing(seed)
        return row

    def _say(self, file: sqlite3.Connection, said: Said) -> None:
        due = said.ended + self._retention if said.ended is not None else None
        size = len(said.body) + len(said.head or b"")
        changed = file.execute(
            _UPDATE, (said.status, said.last, size, said.head, said.error, said.begun, said.ended, due, said.seed)
        ).rowcount
        if changed and said.body:
            file.execute(_PART, (said.last, said.body, said.seed))

    async def _look(self) -> None:
        """Now and then: tell the end of runs whose process has gone."""
        now = time.monotonic()
        if self._looked and now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        if await self._file.read(self._lost):
            try:
                await self._file.write(self._bury, 0)
            except Full:
                await self._file.write(lambda file: self._shed(file, [row[1] for row in self._left(file)]), 0)
                await self._file.write(self._bury, 0)

    def _lost(self, file: sqlite3.Connection) -> list[int]:
        """Numbers of processes that have gone and left runs."""
        rows = file.execute("SELECT DISTINCT holder FROM run WHERE ended IS NULL AND holder <> ?", (self.holder,))
        return [holder for (holder,) in rows.fetchall() if not self._alive(holder)]

    def _left(self, file: sqlite3.Connection) -> list[Kept]:
        """Their runs."""
        found: list[Kept] = []
        for holder in self._lost(file):
            found += file.execute(
                f"SELECT {_COLUMNS} FROM run WHERE holder = ? AND ended IS NULL",  # noqa: S608  our own words
                (holder,),
            ).fetchall()
        return found

    def _bury(self, file: sqlite3.Connection) -> None:
        now = int(self._clock())
        for row in self._left(file):
            event, head, error = self._obituary(row, now)
            self._say(file, Said(row[1], "failed", row[10] + 1, event, head, error, None, now))

    def _shed(self, file: sqlite3.Connection, seeds: Sequence[str]) -> None:
        """Forget the events of these runs that have not ended, so that their ends can be told."""
        for seed in seeds:
            file.execute("DELETE FROM part WHERE run = (SELECT n FROM run WHERE seed = ? AND ended IS NULL)", (seed,))

    def _descriptor(self) -> int:
        """Opened once: closing any descriptor of the file would let go of this process's number."""
        if self._lock is None:
            self._lock = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        return self._lock

    def _hold(self) -> None:
        fcntl.lockf(self._descriptor(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, self.holder)

    def _alive(self, holder: int) -> bool:
        try:
            fcntl.lockf(self._descriptor(), fcntl.LOCK_SH | fcntl.LOCK_NB, 1, holder)
        except OSError:
            return True
        with suppress(OSError):
            fcntl.lockf(self._descriptor(), fcntl.LOCK_UN, 1, holder)
        return False
