"""One piece of the full lane's work in a turn of the loop, while the fast lane has something to do.

A request of the full lane is several tenths of a millisecond of Python, in a few pieces with nothing to wait for between them.
Where several come at once (answers of agents, say), they would hold up every relay for as long as all of them take; so each
piece has a turn of its own, and relays are served between two. Where many relays come in a turn, as many pieces have the next
one as take about as long: neither lane starves. Nothing is waited for where no relay has come for a while.
"""

import asyncio
import time
from collections import deque

from agw_proxy._hot.lane import Lane

LULL_SECONDS = 0.05
"""So long after its last request the fast lane counts as idle."""
RELAYS = 12
"""That cost about as much as one piece."""


class Pace:
    """Of one edge. Used on its loop."""

    def __init__(self, lane: Lane) -> None:
        """``lane``: whose relays are to be served in between."""
        self._lane = lane
        self._begun = self._seen = 0
        self._busy_until = 0.0
        self._taken = False
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def piece(self) -> None:
        """Call it before each piece of work: it comes back in a turn of the loop that no other piece has had yet."""
        if not self._taken:
            if self._relays():
                self._take(asyncio.get_running_loop())
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((time.monotonic_ns(), turn))
        await turn

    def late_ns(self) -> int:
        """For how long the next piece has waited."""
        return time.monotonic_ns() - self._waiting[0][0] if self._waiting else 0

    def _relays(self) -> bool:
        """The fast lane has something to do, or had a moment ago."""
        lane = self._lane
        now = time.monotonic()
        if lane.active or lane.begun != self._begun:
            self._begun = lane.begun
            self._busy_until = now + LULL_SECONDS
        return now < self._busy_until

    def _take(self, loop: asyncio.AbstractEventLoop) -> None:
        """Now no other piece has this turn."""
        self._taken = True
        self._seen = self._lane.begun
        loop.call_soon(self._next, loop)

    def _next(self, loop: asyncio.AbstractEventLoop) -> None:
        """Another turn, once all that came for relays meanwhile has been served: whoever waited longest goes on."""
        left = 1 + (self._lane.begun - self._seen) // RELAYS
        self._taken = False
        while self._waiting and left:
            _, turn = self._waiting.popleft()
            if not turn.done():  # else its request was cancelled
                turn.set_result(None)
                left -= 1
                self._taken = True
        if self._taken:
            self._take(loop)
