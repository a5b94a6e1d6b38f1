"""When a worker has more than it can do: new requests get 503 until it has less. Probes and admin endpoints go on.

Three bounds, none of them set by default: requests at once (exact), how late the loop is (smoothed) and memory (looked
at twice a second). The latter two end below where they began, so that they do not flap; and memory never keeps out the
only request: a process that gives nothing back to the system would refuse for ever.
"""

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from agw_proxy.config.settings import Settings
from agw_proxy.edge.descriptors import Descriptors
from agw_proxy.errors import Overloaded
from agw_proxy.observe.log import Log
from agw_proxy.observe.metrics import Metrics

LOOK_SECONDS = 0.5  # between two looks at memory and descriptors
TICK_SECONDS = 0.05  # between two looks at the loop's lateness
SMOOTH = 0.3  # the share of the newest tick in the lateness
LESS_LATE = 0.5  # of the bound, below which requests are taken again
LESS_MEMORY = 0.95  # likewise
RETRY_AFTER_MS = 1000
PAGE_BYTES = os.sysconf("SC_PAGESIZE")


class Busy(Protocol):
    """A fast lane: counts its requests, and gives those to the full lane that are to be refused."""

    active: int
    shedding: bool
    max_requests: int
    others: int


class Overload:
    """Of one process. ``shedding``: why new requests are refused, but for their number; None: they are not."""

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        log: Log,
        descriptors: Descriptors,
        beside: Callable[[], None] = lambda: None,
        *,
        resident: Callable[[], int] | None = None,
    ) -> None:
        """``beside``: called with each look. ``resident``: bytes of memory in use, -1 where that is not known; None: as the system says."""
        self._beside = beside
        self.shedding: str | None = None
        self._running = 0  # requests that the full lane relays
        self._lanes: list[Busy] = []
        self._waits: list[Callable[[], int]] = []
        self.late_ns = 0.0
        self.memory_bytes = -1
        self._metrics = metrics
        self._log = log
        self.descriptors = descriptors
        self._memory = Memory() if resident is None else None
        self._resident = resident if resident is not None else self._read_memory
        self._timer: asyncio.TimerHandle | None = None
        self._due_ns = 0
        self._next_look_ns = 0
        self.take_up(settings)

    def take_up(self, settings: Settings) -> None:
        """Go by these bounds from now on."""
        self.max_requests = settings.server.max_requests
        self._max_late = settings.server.max_loop_lag
        self._max_memory = settings.memory_limit_mb
        self._tell_lanes()
        if self._max_late is None and self.shedding == "lag":
            self._turn(None)
        if self._max_memory is None and self.shedding == "memory":
            self._turn(None)

    # -- requests

    @property
    def requests(self) -> int:
        """How many are relayed at the moment, by both lanes."""
        return self._running + sum(lane.active for lane in self._lanes)

    def join(self, lane: Busy) -> None:
        """Count what this lane runs, and have it refuse what is too much."""
        self._lanes.append(lane)
        self._tell_lanes()

    def watch(self, waits: Callable[[], int]) -> None:
        """Work that waits for a turn of the loop is late, too. ``waits``: for how many nanoseconds it has."""
        self._waits.append(waits)

    def entered(self) -> None:
        """The full lane relays one more."""
        self._count(1)

    def left(self) -> None:
        """It has ended."""
        self._count(-1)

    def _count(self, step: int) -> None:
        self._running += step
        for lane in self._lanes:
            lane.others = self._running

    def _tell_lanes(self) -> None:
        for lane in self._lanes:
            lane.shedding, lane.max_requests, lane.others = bool(self.shedding), self.max_requests or 0, self._running

    @property
    def refuses(self) -> str | None:
        """Why the next request would be refused, whatever their number; None: it would not."""
        return None if self.shedding == "memory" and not self.requests else self.shedding

    def why(self) -> str | None:
        """Why one more request cannot be taken, ``requests``, ``lag`` or ``memory``; None: it can."""
        if self.max_requests is not None and self.requests >= self.max_requests:
            return "requests"
        return self.refuses

    def check(self) -> None:
        """Refuse one more request where it cannot be taken. Raises Overloaded."""
        cause = self.why()
        if cause is not None:
            self._metrics.shed(cause)
            raise Overloaded(f"{self._words(cause)} Try again.", retry_after_ms=RETRY_AFTER_MS)

    def _words(self, cause: str) -> str:
        if cause == "requests":
            return f"This gateway serves {self.max_requests} requests at once (server.max_requests), and they are under way."
        if cause == "lag":
            return "This gateway is behind with its work (server.max_loop_lag)."
        return f"This gateway uses more memory than it may ({self._max_memory} MiB, memory_limit_mb)."

    # -- looking

    def start(self) -> None:
        """Look from now on; on the loop."""
        self._schedule()

    def close(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._memory is not None:
            self._memory.close()

    def _schedule(self) -> None:
        seconds = TICK_SECONDS if self._max_late is not None else LOOK_SECONDS
        self._due_ns = time.monotonic_ns() + int(seconds * 1e9)
        self._timer = asyncio.get_running_loop().call_later(seconds, self._tick)

    def _tick(self) -> None:
        now = time.monotonic_ns()
        self.look(now, max(now - self._due_ns, 0))
        self._schedule()

    def look(self, now_ns: int, late_ns: int) -> None:
        """Judge anew. ``late_ns``: by how much this call comes too late."""
        self._metrics.loop_late(late_ns)
        late_ns = max([late_ns, *(waits() for waits in self._waits)])
        self.late_ns += SMOOTH * (late_ns - self.late_ns)
        if now_ns >= self._next_look_ns:
            self._next_look_ns = now_ns + int(LOOK_SECONDS * 1e9)
            self._beside()
            self.memory_bytes = self._resident()
            self._metrics.process(self.memory_bytes, self.descriptors.open(), self.descriptors.limit)
        cause = "memory" if self._too_large() else "lag" if self._too_late() else None
        if cause != self.shedding:
            self._turn(cause)

    def _too_late(self) -> bool:
        if self._max_late is None:
            return False
        return self.late_ns > self._max_late * 1e9 * (LESS_LATE if self.shedding == "lag" else 1.0)

    def _too_large(self) -> bool:
        if self._max_memory is None or self.memory_bytes < 0:
            return False
        return self.memory_bytes > (self._max_memory << 20) * (LESS_MEMORY if self.shedding == "memory" else 1.0)

    def _turn(self, cause: str | None) -> None:
        before, self.shedding = self.shedding, cause
        self._tell_lanes()
        self._metrics.shedding(before, -1)
        self._metrics.shedding(cause, 1)
        if cause is not None:
            self._log.events.warning(
                "overload.begun",
                cause=cause,
                late_ms=round(self.late_ns / 1e6, 1),
                memory_mb=self.memory_bytes >> 20,
                requests=self.requests,
            )
        else:
            self._log.events.info("overload.ended", cause=before)

    def _read_memory(self) -> int:
        return self._memory.resident() if self._memory is not None else -1


class Memory:
    """What this process has in memory, as the system counts it; its file stays open, so that it can always be asked."""

    def __init__(self) -> None:
        self._file: int | None = None
        self._missing = False

    def resident(self) -> int:
        """Bytes; -1 where the system does not tell."""
        if self._file is None:
            if self._missing:
                return -1
            try:
                self._file = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
            except OSError:  # no Linux
                self._missing = True
                return -1
        fields: Sequence[bytes] = os.pread(self._file, 256, 0).split()
        return int(fields[1]) * PAGE_BYTES

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
