"""Brings what the meter has counted into the file of usage, every few seconds, on a thread of its own in one process.

No request waits for it. While the file cannot be written the meter goes on counting, and all of it comes in later; a
process that is killed has lost what came after the last time.
"""

import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

from agw_proxy._hot.meter import Sample
from agw_proxy.store.usage import Book, Counts, UsageFile, differences, page
from agw_proxy.types import UsagePage, UsageWanted

EVERY_SECONDS = 2.0
LAST_SECONDS = 5.0  # for the last time, at the end


class Recorder:
    """Reads in every process, writes in the one that calls ``start``; and in each at its end."""

    def __init__(
        self,
        path: Path,
        run: str,
        collect: Callable[[], list[Sample]],
        teams: Callable[[], Mapping[str, str]],
        *,
        tell: Callable[[str | None], None] = lambda trouble: None,  # noqa: ARG005  told by name
        now: Callable[[], float] = time.time,
    ) -> None:
        """``collect``: the samples of the meter's usage family. ``teams``: by key, as configured now.

        ``run``: see ``UsageFile``. ``tell`` hears, on the thread, why it could not be written each time, and None once
        it can be again.
        """
        self._file = UsageFile(path, run)
        self._collect, self._teams, self._tell, self._now = collect, teams, tell, now
        self._days = 0
        self._written: Mapping[Book, Counts] | None = None
        self._pruned = ""
        self._troubled = False
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, days: int) -> None:
        """Write from now on; keep ``days`` of it."""
        self._days = days
        self._thread = threading.Thread(target=self._run, name="agw-usage", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Write for the last time, and end; waits for it, for a while.

        Who has not written so far does it, too: the process that writes for all may have ended before this one.
        """
        self._stop.set()
        if self._thread is not None:
            self._thread.join(LAST_SECONDS)
        else:
            self.write()

    def read(self, wanted: UsageWanted) -> UsagePage:
        """What was used, with what is not written yet. It waits for the disk."""
        trouble = None
        rows: list[tuple[tuple[str, ...], Counts]] = []
        total: Counts = ()
        marks: Mapping[Book, Counts] = {}
        try:
            rows, total, marks = self._file.read(wanted)
        except _failures() as error:
            trouble = str(error)
        found = page(wanted, rows, total or (0,) * 7, differences(self._totals(), marks), self._today(), self._teams())
        return found if trouble is None else UsagePage(found.rows, found.total, found.more, trouble)

    def write(self) -> bool:
        """Bring the file up to date; whether it is. It waits for the disk."""
        try:
            self._write()
        except _failures() as error:
            self._troubled = True
            self._tell(str(error))
            return False
        if self._troubled:
            self._troubled = False
            self._tell(None)
        return True

    def _write(self) -> None:
        totals = self._totals()
        if self._written is None:
            self._written = self._file.marks()  # a worker before this one may have written
        if not differences(totals, self._written):
            return
        today = self._today()
        self._file.add(today, totals, self._teams())
        self._written = totals
        if self._days and self._pruned != today:
            first = datetime.fromtimestamp(self._now(), UTC).date() - timedelta(days=self._days - 1)
            self._file.prune(first.isoformat())
            self._pruned = today

    def _run(self) -> None:
        while not self._stop.wait(EVERY_SECONDS):
            self.write()
        self.write()

    def _totals(self) -> dict[Book, Counts]:
        return {
            (sample.labels[0], sample.labels[1], sample.labels[2]): sample.buckets
            for sample in self._collect()
            if any(sample.buckets)
        }

    def _today(self) -> str:
        return datetime.fromtimestamp(self._now(), UTC).date().isoformat()


def _failures() -> tuple[type[Exception], ...]:
    """What a file and SQLite may raise; looked at once something was raised."""
    import sqlite3  # noqa: PLC0415  not before there is something to write or read

    return OSError, sqlite3.Error
