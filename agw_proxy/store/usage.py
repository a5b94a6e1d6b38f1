"""Usage by day, key, team, model and upstream, in one SQLite file; never touched on a request's way.

The meter counts, and only goes up. What of it is in the file already stands there too (``mark``, by run: one start of
the gateway), and both change in one transaction, so that nothing is written twice or left out, whoever is killed when.
"""

import contextlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from agw_proxy.types import UsagePage, UsageWanted

if TYPE_CHECKING:
    import sqlite3

Book = tuple[str, str, str]
"""Key, model, upstream."""
Counts = tuple[int, ...]
"""One number a column of COUNTED."""

COUNTED = ("requests", "errors", "input", "cached", "output", "cost", "unpriced")
NONE: Counts = (0,) * len(COUNTED)
BUSY_SECONDS = 2.0  # another process of ours is writing
MOST = 10**15  # of anything in one go: sums of it fit 64 bits for longer than the file lives
MARK_SECONDS = 30 * 86400  # how long the marks of a run outlive its last word
VERSION = 1  # of the tables, as the file says (PRAGMA user_version); 0: there are none yet
SCHEMA = f"""
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS usage (
    day TEXT, key TEXT, team TEXT, model TEXT, upstream TEXT, {", ".join(f"{name} INTEGER" for name in COUNTED)},
    PRIMARY KEY (day, key, team, model, upstream)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS mark (
    run TEXT, key TEXT, model TEXT, upstream TEXT, {", ".join(f"{name} INTEGER" for name in COUNTED)}, at INTEGER,
    PRIMARY KEY (run, key, model, upstream)
) WITHOUT ROWID;
PRAGMA user_version = {VERSION};
COMMIT;
"""
_PLACES = ", ".join("?" * len(COUNTED))
_ADD = (
    f"INSERT INTO usage VALUES (?, ?, ?, ?, ?, {_PLACES}) ON CONFLICT DO UPDATE SET "  # noqa: S608  our own names
    + ", ".join(f"{name} = {name} + excluded.{name}" for name in COUNTED)
)
_MARK = f"INSERT OR REPLACE INTO mark VALUES (?, ?, ?, ?, {_PLACES}, ?)"  # noqa: S608  likewise
_MARKS = f"SELECT key, model, upstream, {', '.join(COUNTED)} FROM mark WHERE run = ?"  # noqa: S608  likewise


class UsageFile:
    """The file. Every call opens it anew, on whatever thread; all of them raise OSError or sqlite3.Error."""

    def __init__(self, path: Path, run: str) -> None:
        """``run``: names this start of the gateway, in all of its processes. Nothing is touched yet."""
        self.path = path
        self.run = run

    def add(self, day: str, totals: Mapping[Book, Counts], teams: Mapping[str, str]) -> None:
        """Add what ``totals``, all that this run has counted, has more than the marks; ``teams`` by key."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(self.path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
        now = int(time.time())
        with self._open() as connection:
            connection.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; ")
            if not _made(connection):
                connection.executescript(SCHEMA)
            connection.execute("BEGIN IMMEDIATE")
            marks = self._marks(connection)
            for book, counts in differences(totals, marks).items():
                key, model, upstream = book
                # Another process may have counted a little later, and written first: a mark never goes back.
                mark = map(max, totals[book], marks.get(book, NONE))
                connection.execute(_ADD, (day, key, teams.get(key, ""), model, upstream, *counts))
                connection.execute(_MARK, (self.run, *book, *mark, now))
            connection.execute("COMMIT")

    def prune(self, before: str) -> None:
        """Forget the days before ``before``, and runs that have been silent for long."""
        with self._open() as connection:
            connection.execute("DELETE FROM usage WHERE day < ?", (before,))
            late = int(time.time()) - MARK_SECONDS
            connection.execute("DELETE FROM mark WHERE at < ? AND run <> ?", (late, self.run))

    def marks(self) -> dict[Book, Counts]:
        """How much of this run is in the file."""
        if not self.path.exists():
            return {}
        with self._open() as connection:
            return self._marks(connection) if _made(connection) else {}

    def read(
        self, wanted: UsageWanted
    ) -> "tuple[list[tuple[Book | tuple[str, ...], Counts]], Counts, dict[Book, Counts]]":
        """Rows as they are wanted (one more than its limit where there are more), their sum, and the marks: at one moment."""
        if not self.path.exists():
            return [], NONE, {}
        where, values = _conditions(wanted)
        sums = ", ".join(f"SUM({name})" for name in COUNTED)
        names = ", ".join(wanted.group)
        later = f" AND ({names}) > ({', '.join('?' * len(wanted.group))})" if wanted.after else ""
        each = f"SELECT {names}, {sums} FROM usage WHERE {where}{later} GROUP BY {names} ORDER BY {names} LIMIT ?"  # noqa: S608  names of a closed set
        whole = f"SELECT {sums} FROM usage WHERE {where}"  # noqa: S608  likewise
        count = len(wanted.group)
        with self._open() as connection:
            connection.execute("BEGIN")
            if not _made(connection):
                return [], NONE, {}
            found = connection.execute(each, (*values, *(wanted.after or ()), wanted.limit + 1)).fetchall()
            total = connection.execute(whole, values).fetchone()
            marks = self._marks(connection)
            connection.execute("COMMIT")
        return [(row[:count], row[count:]) for row in found], tuple(part or 0 for part in total), marks

    def _marks(self, connection: "sqlite3.Connection") -> dict[Book, Counts]:
        return {(row[0], row[1], row[2]): row[3:] for row in connection.execute(_MARKS, (self.run,))}

    @contextlib.contextmanager
    def _open(self) -> "Iterator[sqlite3.Connection]":
        import sqlite3  # noqa: PLC0415  not before there is something to write or read

        with contextlib.closing(sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None)) as connection:
            yield connection


def _made(connection: "sqlite3.Connection") -> bool:
    """The tables are there. Raises OSError where another version of the gateway has made them."""
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if version not in {0, VERSION}:
        raise OSError(f"the file of usage has tables of version {version}; this gateway knows version {VERSION}")
    return version == VERSION


def differences(totals: Mapping[Book, Counts], marks: Mapping[Book, Counts]) -> dict[Book, Counts]:
    """What is counted and not marked, where there is any."""
    found: dict[Book, Counts] = {}
    for book, counts in totals.items():
        more = tuple(min(max(now - then, 0), MOST) for now, then in zip(counts, marks.get(book, NONE), strict=True))
        if any(more):
            found[book] = more
    return found


def page(
    wanted: UsageWanted,
    rows: Sequence[tuple[tuple[str, ...], Counts]],
    total: Counts,
    pending: Mapping[Book, Counts],
    day: str,
    teams: Mapping[str, str],
) -> UsagePage:
    """The rows of the file together with what is not in it yet, which counts as of ``day``."""
    merged = dict(rows)
    for (key, model, upstream), counts in pending.items():
        told = {"day": day, "key": key, "team": teams.get(key, ""), "model": model, "upstream": upstream}
        if not _meant(wanted, told):
            continue
        total = _sum(total, counts)
        group = tuple(told[name] for name in wanted.group)
        if wanted.after is None or group > wanted.after:
            merged[group] = _sum(merged.get(group, NONE), counts)
    ordered = sorted(merged.items())
    return UsagePage(rows=tuple(ordered[: wanted.limit]), total=total, more=len(ordered) > wanted.limit)


def _sum(one: Counts, other: Counts) -> Counts:
    return tuple(a + b for a, b in zip(one, other, strict=True))


def _conditions(wanted: UsageWanted) -> tuple[str, list[str]]:
    """As SQL, with its values."""
    terms, values = ["day >= ?", "day <= ?"], [wanted.since, wanted.until]
    for name, value in wanted.only.items():
        terms.append(f"{name} = ?")
        values.append(value)
    return " AND ".join(terms), values


def _meant(wanted: UsageWanted, told: Mapping[str, str]) -> bool:
    return wanted.since <= told["day"] <= wanted.until and all(
        told[name] == value for name, value in wanted.only.items()
    )
