"""Tells the log that a file on this machine cannot be used, and that it can again.

Nobody's answer depends on what is kept in such a file; but who has configured it should learn that nothing is.
"""

import errno
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from agw_proxy.store.base import Says
from agw_proxy.store.threads import Threads

QUIET_SECONDS = 60.0  # one that comes and goes is told once in so long, not with every request
BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
T = TypeVar("T")


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

    async def watch(
        self, threads: Threads, work: Callable[[], T], missed: T, busy: tuple[type[Exception], ...] = ()
    ) -> T:
        """What ``work`` gives, in a thread; ``missed`` where the place cannot be used, which is told.

        ``busy``: the errors of a library that only say that another process holds the file.
        """
        heard: list[str | None] = []

        def attempt() -> T:
            try:
                done = work()
            except busy:
                return missed
            except (OSError, ValueError, sqlite3.Error) as error:
                heard.extend(why(error))
                return missed
            heard.append(None)
            return done

        found = await threads.do(attempt, missed)
        for error in heard:
            self.heard(error)
        return found

    def heard(self, error: str | None) -> None:
        """What came of one use: None, that it was as it should be."""
        if self._say is None or self._broken == (error is not None):
            return
        if error is None:
            self._broken = False
            self._say.info("store.usable_again", path=self._path)
        elif self._clock() >= self._due:
            self._broken = True
            self._due = self._clock() + QUIET_SECONDS
            self._say.warning("store.not_usable", path=self._path, error=error)
