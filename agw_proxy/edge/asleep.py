"""Sleep of the whole machine: the monotonic clock stands still meanwhile, and calendars would begin later by as much.

A clock that is set moves nothing: what is compared are two clocks that nobody can set (clock_gettime(2), CLOCK_BOOTTIME).
"""

import time
from collections.abc import Callable

from agw_proxy._hot.limit import Table

NOTED_NS = 1_000_000_000  # less is the time between two readings


def slept_ns() -> int:
    """Nanoseconds since the machine's start in which it slept, about; 0 where the system does not tell."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.clock_gettime_ns(clock) - time.monotonic_ns() if clock is not None else 0


class Asleep:
    """Keeps the calendars of a table right."""

    def __init__(self, table: Table, slept: Callable[[], int] = slept_ns) -> None:
        """``slept``: nanoseconds of sleep, counted from whenever."""
        self._table, self._slept = table, slept
        self._wall, self._before = table.wall_ns, slept()
        self._noted = 0

    def look(self) -> None:
        """To be called now and then, by every worker: only the first one after a sleep finds anything to do."""
        slept = self._slept() - self._before
        if slept - self._noted >= NOTED_NS:
            self._noted = slept
            self._table.awake(self._wall + slept)
