"""A second attempt for an answer that is late: when it starts, how many there may be, and that the loser ends at once."""

import asyncio
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Sequence
from typing import Literal, Protocol, TypeVar

from agw_proxy.config.resilience import Hedge
from agw_proxy.errors import UpstreamError

MIN_SAMPLES = 20  # of first bytes, before their 95th percentile means anything
MAX_SAMPLES = 512  # then all counts are halved: what was long ago weighs less and less
FLOOR = 1.0  # the second attempts that a route may always have, however few its requests were
# Upper bounds in seconds, each a fifth above the one before: the percentile is off by no more than that.
BOUNDS = tuple(0.001 * 1.2**step for step in range(70))

Outcome = Literal["won", "lost", "failed", "denied"]
"""Of a second attempt: it answered first, the first one did, neither did; or the budget was spent and there was none."""


class BothFailed(Exception):
    """Neither of two attempts was good; ``first``: how the first one ended."""

    def __init__(self, first: BaseException) -> None:
        super().__init__()
        self.first = first


class Closable(Protocol):
    """What an attempt gives."""

    def abandon(self) -> None:
        """Nobody wants it: close it at once."""
        ...


T = TypeVar("T", bound=Closable)


class Latencies:
    """What the first bytes of a route took lately: a histogram that forgets."""

    __slots__ = ("_counts", "_total")

    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS) + 1)
        self._total = 0

    def note(self, seconds: float) -> None:
        """One more."""
        self._counts[bisect_left(BOUNDS, seconds)] += 1
        self._total += 1
        if self._total >= MAX_SAMPLES:
            self._counts = [count // 2 for count in self._counts]
            self._total = sum(self._counts)

    def p95(self) -> float | None:
        """Seconds that 95 of 100 stay under, or None while too few are known."""
        if self._total < MIN_SAMPLES:
            return None
        rank, found = 0.95 * self._total, 0
        for bound, count in zip(BOUNDS, self._counts, strict=False):
            found += count
            if found >= rank:
                return bound
        return BOUNDS[-1]


class Hedging:
    """Of one virtual model, in this process."""

    def __init__(self, settings: Hedge) -> None:
        """``settings``: when a second attempt starts, and what share of the requests may have one."""
        self.settings = settings
        self.latencies = Latencies()
        self._requests = 0.0
        self._hedged = 0.0

    def after(self) -> float | None:
        """Seconds after which the answer to a request that begins now is late; None: not known yet. Counts the request."""
        self._requests += 1
        if self._requests >= MAX_SAMPLES:
            self._requests, self._hedged = self._requests / 2, self._hedged / 2
        after = self.settings.after
        return self.latencies.p95() if after == "p95" else after

    def may(self) -> bool:
        """Take one second attempt out of the budget, or say no."""
        if self.settings.budget <= 0 or self._hedged + 1 > max(FLOOR, self.settings.budget * self._requests):
            return False
        self._hedged += 1
        return True


async def race(
    first: Callable[[], Awaitable[T]],
    second: Callable[[], Awaitable[T]],
    after: float,
    may: Callable[[], bool],
    lost: Callable[[int], None],
) -> tuple[T, Outcome | None]:
    """The first good answer of two attempts, the second of which starts ``after`` seconds if ``may`` says so.

    The other one is cancelled and has ended when this returns; ``lost(0 or 1)`` tells which. The outcome is None where no
    second attempt was due. Raises what the first attempt does, or BothFailed; whoever is cancelled here cancels
    both.
    """
    racing = [asyncio.ensure_future(first())]
    try:
        await asyncio.wait(racing, timeout=after)
        if racing[0].done():
            return racing[0].result(), None
        if not may():
            return await racing[0], "denied"
        racing.append(asyncio.ensure_future(second()))
        pending = set(racing)
        while pending:
            _, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            winner = next((task for task in racing if task.done() and task.exception() is None), None)
            if winner is not None:
                await _end([task for task in racing if task is not winner])
                loser = 1 - racing.index(winner)
                if not isinstance(_error(racing[loser]), UpstreamError):  # one that failed has told so itself
                    lost(loser)
                return winner.result(), "won" if winner is racing[1] else "lost"
        raise BothFailed(racing[0].exception() or AssertionError())
    except asyncio.CancelledError:
        await _end(racing)
        raise


def _error(task: "asyncio.Future[T]") -> BaseException | None:
    return None if task.cancelled() else task.exception()


async def _end(tasks: "Sequence[asyncio.Future[T]]") -> None:
    """Cancel them, wait until they are gone, and close what one of them brought in the same moment."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for task in tasks:
        if not task.cancelled() and task.exception() is None:
            task.result().abandon()
