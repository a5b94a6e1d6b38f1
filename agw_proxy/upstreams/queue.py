"""Places at an upstream (``max_concurrent``) and the queue for them (``queue``): first come, first served, with two bounds.

A place belongs to one attempt from before it connects until its answer has ended. Whoever takes one gives it back
exactly once. Each process counts its own.
"""

import asyncio
import math
import time
from collections import deque
from typing import Protocol, Self

from agw_proxy.config.resilience import Adaptive
from agw_proxy.errors import UpstreamError, UpstreamQueueFull
from agw_proxy.upstreams.adaptive import Follower


class Told(Protocol):
    """Who hears of the queue: the metrics."""

    def queued(self, upstream: str, step: int) -> None:
        """One more waits (1), or one fewer (-1)."""
        ...

    def waited(self, upstream: str, nanoseconds: int) -> None:
        """A place was waited for so long."""
        ...

    def turned_away(self, upstream: str, why: str) -> None:
        """There was no place: ``full`` or ``late``."""
        ...

    def adapted(self, upstream: str, places: int) -> None:
        """There are so many places now."""
        ...


class Crowd:
    """Who has a place at one upstream and who waits for one, whatever the bounds were when they came."""

    __slots__ = ("most", "taken", "version", "waiting")

    def __init__(self, most: int) -> None:
        self.most = most
        self.version = 0
        """Of the bounds in force."""
        self.taken = 0
        self.waiting: deque[asyncio.Future[None]] = deque()

    def serve(self) -> None:
        """Give what is free to those who have waited longest."""
        while self.waiting and self.taken < self.most:
            first = self.waiting.popleft()
            if not first.done():  # one that was cancelled has yet to run
                self.taken += 1
                first.set_result(None)


class Places:
    """The places at one upstream, within bounds. Used on one loop, but for its making."""

    def __init__(
        self,
        upstream: str,
        *,
        most: int,
        size: int,
        wait: float,
        told: Told | None = None,
        before: "Places | None" = None,
    ) -> None:
        """``most``: places; ``size``: how many may wait for one, each for ``wait`` seconds at most.

        ``before``: with other bounds. Who has a place there has one here; these bounds are in force from their first use.
        """
        self.most = self.bound = most
        self.size = size
        self.wait_seconds = wait
        self._upstream = upstream
        self._told = told
        self.crowd: Crowd = before.crowd if before is not None else Crowd(most)
        self.version: int = before.version + 1 if before is not None else 0
        self.follower: Follower | None = None
        """What moves ``most``; None: nothing does."""

    @property
    def taken(self) -> int:
        """How many have a place."""
        return self.crowd.taken

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self.crowd.waiting)

    def like(self, *, most: int, size: int, wait: float, adaptive: Adaptive | None = None) -> bool:
        """These are its bounds."""
        follows = self.follower.settings if self.follower is not None else None
        return (self.bound, self.size, self.wait_seconds, follows) == (most, size, wait, adaptive)

    def follow(self, settings: Adaptive) -> Self:
        """Let the number of places follow what the upstream can do; never over what it is now."""
        self.follower = Follower(settings, self.most, self)
        return self

    def resize(self, most: int) -> None:
        """So many places from now on. Who has one keeps it; who waits gets what is new."""
        self.most = most
        if self.crowd.version == self.version:  # these bounds are in force; others know nothing of it
            self.crowd.most = most
            self.crowd.serve()
        if self._told is not None:
            self._told.adapted(self._upstream, most)

    def take(self) -> bool:
        """Take a place if one is free; never past somebody who waits."""
        crowd = self.crowd
        if crowd.version < self.version:
            crowd.version, crowd.most = self.version, self.most
            crowd.serve()
        if crowd.taken >= crowd.most or crowd.waiting:
            return False
        crowd.taken += 1
        return True

    def give(self) -> None:
        """Give a place back: it goes to whoever has waited longest."""
        self.crowd.taken -= 1
        self.crowd.serve()

    def answered(self, began_ns: int) -> None:
        """The beginning of an answer is here to what was asked then."""
        if self.follower is not None:
            now = time.monotonic_ns()
            self.follower.answered(now, now - began_ns)

    def refused(self, began_ns: int, error: UpstreamError) -> None:
        """What was asked then has failed so."""
        if self.follower is not None:
            self.follower.failed(time.monotonic_ns(), began_ns, error)

    async def wait(self) -> int:
        """Take a place, in turn; gives the nanoseconds that it took. Raises UpstreamQueueFull.

        A cancellation gives the turn, or the place that has just come, to the next.
        """
        if self.take():
            return 0
        if self.waiting >= self.size:
            raise self._no_place("full", f"{self.size} requests wait for one already" if self.size else "none may wait")
        begun = time.monotonic_ns()
        turn = asyncio.get_running_loop().create_future()
        self.crowd.waiting.append(turn)
        self._tell(1)
        try:
            async with asyncio.timeout(self.wait_seconds):
                await turn
        except TimeoutError:
            if not self._left(turn):
                raise self._no_place("late", f"none came free within {self.wait_seconds:g} s") from None
            # The place came in the same turn of the loop as the deadline: it is ours.
        except BaseException:
            if self._left(turn):
                self.give()
            raise
        finally:
            self._tell(-1)
        spent = time.monotonic_ns() - begun
        if self._told is not None:
            self._told.waited(self._upstream, spent)
        return spent

    def _left(self, turn: "asyncio.Future[None]") -> bool:
        """Out of the queue; whether the place had come already."""
        if turn.done() and not turn.cancelled():
            return True
        if turn in self.crowd.waiting:
            self.crowd.waiting.remove(turn)
        return False

    def _no_place(self, why: str, words: str) -> UpstreamQueueFull:
        if self._told is not None:
            self._told.turned_away(self._upstream, why)
        return UpstreamQueueFull(
            f"All {self.most} places at upstream '{self._upstream}' are taken, and {words}. Try again.",
            retry_after_ms=min(math.ceil(max(self.wait_seconds, 1.0)), 30) * 1000,
        )

    def _tell(self, step: int) -> None:
        if self._told is not None:
            self._told.queued(self._upstream, step)
