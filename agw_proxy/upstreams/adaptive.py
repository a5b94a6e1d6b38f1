"""How many requests an upstream should have at once, learnt from how fast it answers.

Theory of operation. Requests are judged in rounds: a round is full when SAMPLES of those that *began* after the last
change have been answered, so that no change is judged by what came before it. What a round says is the gradient: how
much longer than at rest (times a tolerance) the answers took. The bound moves by it, and up by a small queue of its
square root, as long as the places are used at all.

Latency at rest is what is seen while the upstream has little to do. Where it always has much to do, every PROBE_ROUNDS
the bound goes down, for one round, to where there should be no queue left; what is seen then is latency at rest. So a
queue of our own making is never taken for the upstream's own pace, and an upstream that has become slower is not
starved for ever.

What tells of overload (429, 503, a time-out) halves the bound; other failures take a tenth. Once a round trip: those
that began before the last such cut say nothing new.
"""

import math
from typing import Protocol

from agw_proxy._hot.circuit import BAD
from agw_proxy.config.resilience import Adaptive
from agw_proxy.errors import GatewayError, UpstreamError, UpstreamTimeout
from agw_proxy.upstreams.failures import verdict

SAMPLES = 10  # answers in a round, at least
ROUND_NS = 50_000_000  # how long a round lasts, at least
PROBE_ROUNDS = 25  # busy rounds until latency at rest is measured again
LEAST_GRADIENT = 0.5
STEP = 0.5  # of the way to what a round calls for
RISE = 0.1  # of the way that latency at rest goes up at a time; down it goes half of it
CUT_OVERLOADED, CUT_FAILED = 0.5, 0.9
OVERLOADED = frozenset({429, 503, 529})


class Sized(Protocol):
    """What has places."""

    @property
    def taken(self) -> int:
        """How many of them are taken."""
        ...

    def resize(self, most: int) -> None:
        """So many of them from now on."""
        ...


class Follower:
    """Moves the places at one upstream, in one process. Times are monotonic nanoseconds."""

    def __init__(self, settings: Adaptive, most: int, places: Sized) -> None:
        """``most``: never more places, whatever the settings allow. ``places``: resized at once, and whenever that changes."""
        self.settings = settings
        self._most = min(settings.max, most)
        self._least = min(settings.min, self._most)
        self._places = places
        self._limit = float(min(max(settings.start, self._least), self._most))
        self._rest_ns = 0.0
        self._changed_ns = self._cut_ns = 0
        self._begun_ns = self._count = self._peak = self._busy_rounds = 0
        self._sum_ns = 0.0
        self._before: float | None = None
        self._resize()

    @property
    def limit(self) -> int:
        """Places now."""
        return max(int(self._limit), 1)

    def answered(self, now_ns: int, latency_ns: int) -> None:
        """A request was answered, ``latency_ns`` after it went out."""
        self._peak = max(self._peak, self._places.taken)
        if now_ns - latency_ns < self._changed_ns:
            return
        if not self._count:
            self._begun_ns = now_ns
        self._count += 1
        self._sum_ns += latency_ns
        if self._count >= SAMPLES and now_ns - self._begun_ns >= ROUND_NS:
            self._judge(now_ns, self._sum_ns / self._count)

    def failed(self, now_ns: int, began_ns: int, error: GatewayError | None) -> None:
        """A request that went out at ``began_ns`` has failed so."""
        if not isinstance(error, UpstreamError) or began_ns < self._cut_ns:
            return
        if isinstance(error, UpstreamTimeout) or error.status in OVERLOADED:
            factor = CUT_OVERLOADED
        elif verdict(error) == BAD:
            factor = CUT_FAILED
        else:
            return
        self._cut_ns = now_ns
        self._before = None
        self._move(now_ns, self._limit * factor)

    def _judge(self, now_ns: int, mean_ns: float) -> None:
        if self._before is not None:  # the round of a probe: this is latency at rest
            self._rest_ns += (mean_ns - self._rest_ns) / 2
            limit, self._before = self._before, None
            self._move(now_ns, limit)
            return
        busy = self._peak * 2 > self.limit
        if not self._rest_ns:
            self._rest_ns = mean_ns
        elif mean_ns < self._rest_ns:
            self._rest_ns += (mean_ns - self._rest_ns) / 2
        elif not busy or self.limit <= self._least:
            self._rest_ns += (mean_ns - self._rest_ns) * RISE
        gradient = min(max(self.settings.tolerance * self._rest_ns / mean_ns, LEAST_GRADIENT), 1.0) if mean_ns else 1.0
        wanted = self._limit * gradient + (math.sqrt(self._limit) if busy else 0.0)
        self._busy_rounds += busy
        limit = self._limit + (wanted - self._limit) * STEP
        if self._busy_rounds >= PROBE_ROUNDS and limit > self._least:
            self._busy_rounds = 0
            self._before = limit
            limit = (limit - math.sqrt(limit)) / self.settings.tolerance / 2  # half of what it can do, if all is right
        self._move(now_ns, limit)

    def _move(self, now_ns: int, limit: float) -> None:
        self._limit = min(max(limit, self._least), self._most)
        self._changed_ns = now_ns
        self._count = self._peak = 0
        self._sum_ns = 0.0
        self._resize()

    def _resize(self) -> None:
        self._places.resize(self.limit)
