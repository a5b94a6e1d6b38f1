"""The order of one exchange's attempts: each target once in the plan's order, then those that may be asked again. No I/O.

Whose turn it is, after what wait, and out of which budget. The budget is an upstream's, shared by all exchanges: the
first time that an exchange comes to an upstream is live traffic, every further time is a retry and needs
``Vitals.may_retry``. So an upstream that is down gets no more than its share above the requests that come to it, and
a fall-back to an upstream that is well is never refused. Times are seconds of the loop's clock.
"""

import time
from collections.abc import Callable, Sequence

import msgspec

from agw_proxy._hot.route import Target
from agw_proxy.config.resilience import Retries
from agw_proxy.errors import UpstreamError
from agw_proxy.types import Call
from agw_proxy.upstreams import backoff
from agw_proxy.upstreams.failures import again
from agw_proxy.upstreams.service import Service
from agw_proxy.upstreams.ways import Way


class Turn(msgspec.Struct, eq=False):
    """A target that is still to be asked, once or again."""

    target: Target
    service: Service
    retries: Retries
    made: int = 0
    """Attempts at it so far."""
    ready: float = 0.0
    """Before this time it asked not to be asked again."""
    named: bool = False
    """It said itself when to come again: there is no other wait."""
    next_key: bool = False
    """Its last attempt failed by its key, and there is another one: it is asked with that at once."""
    switched: bool = False
    """The budget has paid for changing keys."""
    doubted: tuple[int, ...] = ()
    """Keys that were answered 403: dead if another one is then good."""


class Turns:
    """Of one exchange."""

    def __init__(self, plan: Sequence[Target], services: Sequence[Service], way: Way, call: Call) -> None:
        """``plan``: targets in order of preference."""
        self._call = call
        self._queue = [
            Turn(target, services[target.upstream], way.retries_of(target.upstream, services)) for target in plan
        ]
        self._visited: set[int] = set()

    def take(self, now: float, draw: Callable[[], float]) -> tuple[Turn, float] | None:
        """The next turn and the seconds to wait before it; None where nobody may be asked (again). ``draw``: 0 to 1."""
        while self._queue:
            turn = min(self._queue, key=lambda item: max(item.ready, now))  # the first in order that need not wait
            self._queue.remove(turn)
            if not self.granted(turn):
                continue
            if not turn.made or turn.next_key:
                return turn, 0.0
            wait = 0.0 if turn.named else backoff.draw(turn.made, turn.retries, draw())
            return turn, max(wait, turn.ready - now, 0.0)
        return None

    def begun(self, target: Target, made: int) -> Turn:
        """The turn of ``made`` attempts that were made elsewhere, with what they cost."""
        turn = next((item for item in self._queue if item.target is target), self._queue[0])
        turn.made = made
        self._queue.remove(turn)
        self._visited.add(target.upstream)
        return turn

    def asked(self, turn: Turn) -> None:
        """An attempt begins."""
        turn.made += 1
        upstream, circuit = turn.target.upstream, turn.target.circuit
        if circuit is not None and upstream not in self._visited:
            circuit.vitals.asked(time.monotonic_ns())
        self._visited.add(upstream)

    def second(self, turn: Turn) -> Turn:
        """Who is asked beside ``turn`` where that one is late: the next target, or the same one. It stays in the queue."""
        return next((item for item in self._queue if not item.made), turn)

    def out(self, turn: Turn) -> None:
        """It is asked no more."""
        if turn in self._queue:
            self._queue.remove(turn)

    def granted(self, turn: Turn) -> bool:
        """Take what an attempt costs from the upstream's budget, or say no."""
        circuit = turn.target.circuit
        if circuit is None or turn.target.upstream not in self._visited or (turn.next_key and turn.switched):
            return True
        turn.switched = turn.switched or turn.next_key
        return circuit.vitals.may_retry(time.monotonic_ns(), turn.retries.budget, turn.retries.budget_floor)

    def failed(self, turn: Turn, error: UpstreamError, now: float) -> None:
        """An attempt has ended so. It comes again where that makes sense and it has attempts left.

        A longer wait than the configured ``max`` is not sat out: the caller gets the error with it.
        """
        self.out(turn)
        turn.next_key = False
        named = (error.retry_after_ms or 0) / 1000
        if turn.made < turn.retries.attempts and again(error, self._call) and named <= turn.retries.max:
            turn.named = error.retry_after_ms is not None
            turn.ready = now + named
            self._queue.append(turn)

    def with_another_key(self, turn: Turn) -> bool:
        """An attempt has failed by its key: it comes next, without a wait. False where it has no attempts left."""
        self.out(turn)
        if turn.made >= turn.retries.attempts or not self._call.replayable:
            return False
        turn.next_key = True
        turn.ready, turn.named = 0.0, False
        self._queue.insert(0, turn)
        return True
