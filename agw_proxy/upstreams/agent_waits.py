"""Who has a place at which agent, and who waits for one: runs that would wait for each other are refused at once.

A run waits for those that it has caused. Where agents ask each other, some of those may be in line for places that come
free only after they have ended themselves; such a line ends by its time-out alone.
"""

from collections.abc import Iterator

from agw_proxy.errors import UpstreamQueueFull
from agw_proxy.sdk.entry import Run
from agw_proxy.upstreams.queue import Places


class Waits:
    """Of the agents of one process. Used on one loop."""

    def __init__(self) -> None:
        self._held: dict[str, list[Run]] = {}
        self._waiting: list[Run] = []

    async def place(self, places: Places, run: Run) -> int:
        """Take a place of its agent's for the run, until ``leave``; gives the nanoseconds that it took. Raises UpstreamQueueFull.

        One that a run of the same agent waits for, directly or through other agents, takes a free place or none: places
        that such runs hold come free only after it. One that could get a place only after itself is refused, too.
        """
        waited = 0
        if not places.take():
            self._check(places, run)
            self._waiting.append(run)
            try:
                waited = await places.wait()
            finally:
                _remove(self._waiting, run)
        self._held.setdefault(run.agent, []).append(run)
        return waited

    def leave(self, places: Places, run: Run) -> None:
        """The run has ended, and gives its place back."""
        held = self._held[run.agent]
        _remove(held, run)
        if not held:
            del self._held[run.agent]
        places.give()

    def _check(self, places: Places, run: Run) -> None:
        """Raises UpstreamQueueFull where to wait could be to wait for ever."""
        if run.waits_for(run.agent):
            raise UpstreamQueueFull(
                f"The agent '{run.agent}' is asked by a run of its own, and all its places are taken (concurrent: "
                f"{places.bound}): to wait for one could be to wait for itself. Give it more places, or let it not ask itself."
            )
        if run.within is not None and self._is_stuck(run):
            raise UpstreamQueueFull(
                f"The agent '{run.agent}' is asked by the agent '{run.within.agent}', and all its places (concurrent: "
                f"{places.bound}) are taken by runs that wait for that one in turn. Give both more places, or let "
                "them not ask each other."
            )

    def _is_stuck(self, run: Run) -> bool:
        """Whoever has a place comes to an end, unless he waits for somebody who waits. What does so for each other is left."""
        waiting = [*self._waiting, run]
        while True:
            delayed = {id(above) for each in waiting for above in _above(each)}
            stuck = [each for each in waiting if self._all_in(each.agent, delayed)]
            if len(stuck) == len(waiting):
                return stuck != []
            if not any(each is run for each in stuck):
                return False
            waiting = stuck

    def _all_in(self, agent: str, delayed: set[int]) -> bool:
        """None of those who have a place there ends before somebody else does."""
        held = self._held.get(agent)
        return held is not None and all(id(each) in delayed for each in held)


def _above(run: Run) -> Iterator[Run]:
    """Those that wait for it."""
    above = run.within
    while above is not None:
        yield above
        above = above.within


def _remove(runs: list[Run], run: Run) -> None:
    """That one: others may be equal."""
    del runs[next(at for at, each in enumerate(runs) if each is run)]
