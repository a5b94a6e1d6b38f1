"""Tells the log that a file on this machine cannot be used, and that it can again.

Nobody's answer depends on what is kept in such a file; but who has configured it should learn that nothing is.
"""

import errno
import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from agw_proxy.store.base import Says

QUIET_SECONDS = 60.0  # one that comes and goes is told once in so long, not with every request
BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})


def why(error: BaseException) -> list[str]:
    """What is wrong with the file, in words; nothing where another process only held it for too long."""
    if isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", 0) & 0xFF in BUSY:
        return []
    if isinstance(error, OSError) and error.errno is not None:
        return [f"{errno.errorcode.get(error.errno, error.errno)}: {error.strerror}"]
    return [f"{type(error).__name__}: {error}"]


class Trouble:
    """With one file, or one folder of files. To be called on the loop."""

    def __init__(self, path: Path, say: Says | None, clock: Callable[[], float] = time.monotonic) -> None:
        """``say``: the log; None: nobody is told. ``clock``: seconds."""
        self._path = str(path)
        self._say = say
        self._clock = clock
        self._broken = False
        self._due = clock()

    def heard(self, uses: Sequence[str | None]) -> None:
        """What came of it each time: None, that it was as it should be."""
        for error in uses:
            self._hear(error)

    def _hear(self, error: str | None) -> None:
        if self._say is None or self._broken == (error is not None):
            return
        if error is None:
            self._broken = False
            self._say.info("store.usable_again", path=self._path)
        elif self._clock() >= self._due:
            self._broken = True
            self._due = self._clock() + QUIET_SECONDS
            self._say.warning("store.not_usable", path=self._path, error=error)
