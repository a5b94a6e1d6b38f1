"""Values in one SQLite file, for all workers of a machine: the ``Store`` of what needs no library and no server."""

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from agw_proxy.store.base import Says
from agw_proxy.store.threads import Threads
from agw_proxy.store.trouble import Trouble

WAIT_SECONDS = 0.25  # for another process's write
MAX_WAITING = 2048  # looks and marks of a burst: who is not told whether its request has run runs it
AGAIN_SECONDS = 0.005
PURGE_EVERY = 64  # writes, until what has expired is deleted
PAGE_BYTES = 4096
SCHEMA = "CREATE TABLE IF NOT EXISTS kept (name TEXT PRIMARY KEY, due REAL NOT NULL, value BLOB NOT NULL) WITHOUT ROWID"
BY_DUE = "CREATE INDEX IF NOT EXISTS kept_by_due ON kept (due)"
REPLACE = "INSERT OR REPLACE INTO kept VALUES (?, ?, ?)"
FORGET_OLDEST = (
    "DELETE FROM kept WHERE due <= (SELECT due FROM kept ORDER BY due LIMIT 1 OFFSET (SELECT count(*) / 8 FROM kept))"
)
T = TypeVar("T")


class FileStore:
    """See ``store.base.Store``. Expiry is by wall clock. A full file keeps nothing new, or ``oldest_goes``; one thread has the file open."""

    def __init__(
        self,
        path: Path,
        max_bytes: int,
        clock: Callable[[], float] = time.time,
        *,
        oldest_goes: bool = False,
        say: Says | None = None,
    ) -> None:
        """``path`` is made where it is missing, for its owner only. ``clock``: seconds since 1970.

        ``oldest_goes``: a full file forgets what expires first, to make room for ``set``. ``say``: hears when the file
        cannot be used.
        """
        self._path = path
        self._max_pages = max(max_bytes // PAGE_BYTES, 8)
        self._clock = clock
        self._oldest_goes = oldest_goes
        self._threads = Threads(1, "agw-file", MAX_WAITING)
        self._trouble = Trouble(path, say)
        self._opened: sqlite3.Connection | None = None
        self._writes = 0

    async def get(self, key: str) -> bytes | None:
        """See ``Store``."""

        def work(file: sqlite3.Connection) -> bytes | None:
            row = file.execute("SELECT value FROM kept WHERE name = ? AND due > ?", (key, self._clock())).fetchone()
            return bytes(row[0]) if row is not None else None

        return await self._do(work, None)

    async def set(self, key: str, value: bytes, ttl: float) -> bool:
        """See ``Store``."""

        def work(file: sqlite3.Connection) -> bool:
            self._purge(file)
            row = (key, self._clock() + ttl, value)
            try:
                file.execute(REPLACE, row)
            except sqlite3.OperationalError as error:
                if not self._oldest_goes or error.sqlite_errorcode != sqlite3.SQLITE_FULL:
                    raise
                file.execute(FORGET_OLDEST)
                file.execute(REPLACE, row)
            return True

        return await self._do(work, False)

    async def add(self, key: str, value: bytes, ttl: float) -> bool | None:
        """See ``Store``."""

        def work(file: sqlite3.Connection) -> bool | None:
            self._purge(file)
            now = self._clock()
            done = file.execute(
                "INSERT INTO kept VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE SET due = excluded.due, value = excluded.value WHERE due <= ?",
                (key, now + ttl, value, now),
            )
            return done.rowcount > 0

        return await self._do(work, None)

    async def remove(self, key: str) -> None:
        """See ``Store``."""
        await self._do(lambda file: file.execute("DELETE FROM kept WHERE name = ?", (key,)).rowcount, 0)

    async def close(self) -> None:
        """Close the file, after what it was asked."""

        def work() -> None:
            if self._opened is not None:
                self._opened.close()
                self._opened = None

        await self._threads.do(work, None)
        self._threads.close()

    async def _do(self, work: Callable[[sqlite3.Connection], T], missed: T) -> T:
        def attempt() -> T:
            if self._opened is None:
                self._opened = self._open()
            return work(self._opened)

        return await self._trouble.watch(self._threads, attempt, missed)

    def _open(self) -> sqlite3.Connection:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path.touch(mode=0o600)
        until = time.monotonic() + WAIT_SECONDS
        while True:
            file = sqlite3.connect(self._path, timeout=WAIT_SECONDS, isolation_level=None)
            try:
                self._make(file)
            except sqlite3.Error as error:
                file.close()
                # Another worker makes the same file: SQLite does not wait where it changes how a file is written.
                if not isinstance(error, sqlite3.OperationalError) or time.monotonic() >= until:
                    raise
                time.sleep(AGAIN_SECONDS)
            else:
                return file

    def _make(self, file: sqlite3.Connection) -> None:
        file.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        file.execute("PRAGMA journal_mode = WAL")
        file.execute("PRAGMA synchronous = OFF")  # what a power cut takes, nobody waits for any more
        file.execute(f"PRAGMA max_page_count = {self._max_pages}")
        file.execute(SCHEMA)
        if self._oldest_goes:
            file.execute(BY_DUE)

    def _purge(self, file: sqlite3.Connection) -> None:
        if self._writes % PURGE_EVERY == 0:
            file.execute("DELETE FROM kept WHERE due <= ?", (self._clock(),))
        self._writes += 1
