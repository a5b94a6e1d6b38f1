"""What the workers of one gateway share: memory made before the first of them.

There are limits, metrics, circuits and ticks in it. Each worker writes only what is its own there (or changes it by
compare-and-swap, as limits and circuits do), so nothing is locked, and a worker that is killed leaves nothing behind
that another one waits for. All of it is anonymous, but for the limits where there are budgets: those are kept in a file
(``kept.py``), for what was spent outlives the gateway.
"""

import mmap
import secrets

from agw_proxy._hot.circuit import Board
from agw_proxy._hot.limit import Table
from agw_proxy._hot.meter import Meter
from agw_proxy.observe.metrics import FAMILIES

LINE_BYTES = 64  # a worker's tick has a cache line of its own
WORDS = LINE_BYTES // 8
TICK, VERSION, BURIED, FAILING = range(4)  # the words of a worker's line


class Shared:
    """The memory, and views of it for the process that asks.

    Made in the supervisor; its workers inherit it by the fork. Freed with the last process that has it.
    """

    def __init__(self, workers: int, limits: mmap.mmap | None = None) -> None:
        """``workers``: how many there are, each with a number from 0. ``limits``: memory for them that is kept."""
        self.workers = workers
        self.run = secrets.token_hex(8)
        """Names this start of the gateway, which its counts in the memory belong to."""
        self._limits = mmap.mmap(-1, Table.size()) if limits is None else limits
        self._metrics = mmap.mmap(-1, Meter.size(FAMILIES, workers))
        self._circuits = mmap.mmap(-1, Board.size())
        self._ticks = memoryview(mmap.mmap(-1, workers * LINE_BYTES)).cast("q")

    def table(self, worker: int) -> Table:
        """The buckets and gates of all, for a process that decides as ``worker``."""
        return Table(self._limits, worker=worker)

    def board(self, worker: int) -> Board:
        """The circuits of all targets, for a process that asks them as ``worker``."""
        return Board(self._circuits, worker=worker)

    def meter(self, worker: int) -> Meter:
        """The metrics of all, for a process that counts as ``worker``."""
        return Meter(FAMILIES, self._metrics, worker=worker, workers=self.workers)

    def tick(self, worker: int, now_ns: int) -> None:
        """The worker's loop turns: ``now_ns`` on the monotonic clock, which is one for all processes."""
        self._ticks[worker * WORDS + TICK] = (
            now_ns  # one aligned word with one writer: a reader sees the old or the new one
        )

    def ticked_ns(self, worker: int) -> int:
        """When it last turned."""
        return self._ticks[worker * WORDS + TICK]

    def stand(self, worker: int, version: int) -> None:
        """It serves, and has taken up (or refused) the configuration of that version; 0: it does not serve."""
        self._ticks[worker * WORDS + VERSION] = version

    def stands(self, worker: int) -> tuple[int, int]:
        """The version of ``stand``, and how many have been that worker before: both are the same while nothing has changed."""
        return self._ticks[worker * WORDS + VERSION], self._ticks[worker * WORDS + BURIED]

    def fail(self, worker: int, *, failing: bool) -> None:
        """It ends again and again before it serves (the supervisor's to say): nobody is to wait for it."""
        self._ticks[worker * WORDS + FAILING] = int(failing)

    def fails(self, worker: int) -> bool:
        """See ``fail``."""
        return bool(self._ticks[worker * WORDS + FAILING])

    def bury(self, worker: int) -> int:
        """Take back what a dead worker held, before its replacement starts; gives how many concurrency slots that were."""
        self.stand(worker, 0)
        self._ticks[worker * WORDS + BURIED] += 1
        self.meter(worker).forget_gauges(worker)
        self.board(worker).reclaim(worker)
        return self.table(worker).reclaim(worker)
