"""A PostgreSQL database, asked from a few threads as the SQLite files are: the same work, in the same words.

psycopg 3, in its blocking form: what is asked here is small, seldom, and never on the loop. PostgreSQL's manual, chapters
"Database Connection Control Functions" and "Client Connection Defaults".
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from agw_proxy.store.responses_file import Missing, StoreAway, Tables, TooLong
from agw_proxy.store.threads import Threads

THREADS = 2
MAX_WAITING = 1024  # pieces of work
ANSWER_SECONDS = 10.0  # for one, with its wait for a thread
STATEMENT_SECONDS = 5.0
REST_SECONDS = 1.0  # after a failure, in which nothing is asked
SWEEP_SECONDS = 60.0  # between two looks for what has expired
DEFAULTS = {"connect_timeout": "3", "keepalives_idle": "30", "tcp_user_timeout": "8000", "application_name": "agw"}
LOCK = 0x61677773
"""Of the making of tables: two that make the same ones at once would fail."""
_TYPES = (
    ("INTEGER PRIMARY KEY", "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY"),
    ("INTEGER", "BIGINT"),
    ("BLOB", "BYTEA"),
    ("REAL", "DOUBLE PRECISION"),
)  # SQLite's names, in this order
T = TypeVar("T")

log = logging.getLogger("agw_proxy.store")


class Postgres:
    """Raises StoreAway where it does not answer, and what the work raises of ``Missing`` and ``TooLong``."""

    def __init__(self, url: str, tables: Tables, clock: Callable[[], float] = time.time) -> None:
        """``url``: as libpq takes it; what it leaves out of time-outs is ours. ``clock``: seconds since 1970."""
        self._url = url
        self._tables = tables
        self._clock = clock
        self._threads = Threads(THREADS, "agw-postgres", MAX_WAITING)
        self._own = threading.local()
        self._all: set[_Connection] = set()
        self._rests_until = 0.0
        self._swept = 0.0

    async def read(self, work: Callable[[Any], T]) -> T:
        """What ``work`` finds."""
        return await self._attempt(work)

    async def write(self, work: Callable[[Any], T], size: int) -> T:  # noqa: ARG002  the database has bounds of its own
        """``work`` in one transaction."""

        def within(rows: "_Connection") -> T:
            with rows.connection.transaction():
                return work(rows)

        return await self._attempt(within)

    async def close(self) -> None:
        """Close the connections, after what they were asked."""
        self._threads.close()
        while self._all:
            await asyncio.get_running_loop().run_in_executor(None, self._all.pop().connection.close)

    async def _attempt(self, work: Callable[["_Connection"], T]) -> T:
        def attempt() -> T | StoreAway | Missing | TooLong:
            if time.monotonic() < self._rests_until:
                return StoreAway()
            try:
                return self._ask(work)
            except (Missing, TooLong) as error:
                return error
            except (OSError, psycopg.Error) as error:
                if not isinstance(error, psycopg.DataError):  # that it does not take what was asked harms nobody else
                    self._rests_until = time.monotonic() + REST_SECONDS
                # Its words may quote the URL.
                log.warning("PostgreSQL does not answer: %s %s", type(error).__name__, getattr(error, "sqlstate", ""))
                return StoreAway()

        away: T | StoreAway | Missing | TooLong = StoreAway()
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                found = await self._threads.do(attempt, away)
        except TimeoutError:
            raise StoreAway from None
        if isinstance(found, StoreAway | Missing | TooLong):
            raise found
        return found

    def _ask(self, work: Callable[["_Connection"], T]) -> T:
        """Once more where the connection was an old one: a server that was started anew has closed it."""
        old: _Connection | None = getattr(self._own, "rows", None)
        if old is not None:
            try:
                self._sweep(old)
                return work(old)
            except psycopg.OperationalError:
                if not old.connection.closed:
                    raise
                self._all.discard(old)
                self._own.rows = None
        rows = self._own.rows = self._open()
        self._sweep(rows)
        return work(rows)

    def _open(self) -> "_Connection":
        told: dict[str, Any] = {**DEFAULTS, **conninfo_to_dict(self._url)}
        connection = psycopg.connect(make_conninfo(**told), autocommit=True)
        try:
            connection.execute(f"SET statement_timeout = {int(STATEMENT_SECONDS * 1000)}".encode())
            rows = _Connection(connection)
            if rows.execute("SELECT to_regclass(?)", (self._tables.last,)).fetchone()[0] is None:
                with connection.transaction():
                    rows.execute("SELECT pg_advisory_xact_lock(?)", (LOCK,))
                    connection.execute(_translated(self._tables.schema).encode())
        except BaseException:
            connection.close()
            raise
        self._all.add(rows)
        return rows

    def _sweep(self, rows: "_Connection") -> None:
        """Delete what has expired, now and then."""
        now = time.monotonic()
        if now - self._swept >= SWEEP_SECONDS or not self._swept:
            self._swept = now
            rows.execute(f"DELETE FROM {self._tables.things} WHERE due <= ?", (self._clock(),))  # noqa: S608  our own word


class _Connection:
    """``sqlite3.Connection``'s two methods."""

    def __init__(self, connection: "psycopg.Connection[Any]") -> None:
        self.connection = connection

    def execute(self, sql: str, values: Sequence[Any] = ()) -> Any:
        """A cursor."""
        return self.connection.execute(sql.replace("?", "%s").encode(), values)

    def executemany(self, sql: str, values: Sequence[Sequence[Any]]) -> Any:
        """The same for each."""
        cursor = self.connection.cursor()
        cursor.executemany(sql.replace("?", "%s").encode(), values)
        return cursor


def _translated(schema: str) -> str:
    """SQLite's names of types -> PostgreSQL's."""
    for own, theirs in _TYPES:
        schema = schema.replace(own, theirs)
    return schema
