"""Places that follow what an upstream can do, against simulated servers in virtual time."""

import heapq
import random
from collections.abc import Callable

import pytest

from agw_proxy.config.resilience import Adaptive
from agw_proxy.errors import UpstreamError, UpstreamRejected, UpstreamReset, UpstreamTimeout, UpstreamUnavailable
from agw_proxy.upstreams.adaptive import SAMPLES, Follower
from agw_proxy.upstreams.queue import Places

SECOND = 1_000_000_000


class Simulation:
    """Clients who always want more than ``offered`` at once, and a server with ``slots`` that answer in ``pace`` seconds each.

    What comes while all slots are busy waits in the server's own queue, first come, first served.
    """

    def __init__(self, *, slots: int, pace: float, offered: int = 1000, seed: int = 1, **settings: object) -> None:
        self.now = 0
        self.slots, self.pace, self.offered = slots, pace, offered
        self.places = Places("u", most=10_000, size=0, wait=1).follow(Adaptive.model_validate(settings))
        assert self.places.follower is not None
        self.follower = self.places.follower
        self.random = random.Random(seed)
        self.free: list[int] = [0] * slots  # when each slot is next free
        self.under_way: list[tuple[int, int]] = []  # (when it ends, when it began)
        self.refuses: Callable[[], UpstreamError | None] = lambda: None
        self.history: list[int] = []
        self.answered = 0

    def set_server(self, *, slots: int | None = None, pace: float | None = None) -> None:
        if slots is not None:
            self.free = sorted(self.free, reverse=True)[:slots] + [self.now] * max(slots - len(self.free), 0)
            self.slots = slots
        self.pace = pace if pace is not None else self.pace
        heapq.heapify(self.free)

    def run(self, seconds: float) -> "Simulation":
        end = self.now + round(seconds * SECOND)
        while self.now < end:
            while len(self.under_way) < self.offered and self.places.take():
                self._send()
            ends, began = heapq.heappop(self.under_way)
            self.now = max(self.now, ends)
            error = self.refuses()
            if error is None:
                self.answered += 1
                self.follower.answered(self.now, self.now - began)
            else:
                self.follower.failed(self.now, began, error)
            self.places.give()
            self.history.append(self.follower.limit)
        return self

    def _send(self) -> None:
        took = self.pace * self.random.uniform(0.8, 1.2)
        begins = max(heapq.heappop(self.free), self.now)
        heapq.heappush(self.free, begins + round(took * SECOND))
        heapq.heappush(self.under_way, (begins + round(took * SECOND), self.now))

    def usual(self, answers: int = 3000) -> float:
        """The middle of the bounds of late."""
        return sorted(self.history[-answers:])[min(answers, len(self.history)) // 2]


@pytest.mark.parametrize("slots", [2, 8, 32, 100])
@pytest.mark.parametrize("pace", [0.02, 2.0])
def test_it_finds_what_a_server_can_do(slots: int, pace: float) -> None:
    found = Simulation(slots=slots, pace=pace, max=1000).run(pace * 3000)
    assert slots <= found.usual() <= 2 * slots + 4


def test_it_stays_there() -> None:
    """A queue of our own making is never taken for the server's pace."""
    simulated = Simulation(slots=10, pace=0.2, max=1000)
    usual = [simulated.run(400).usual() for _ in range(10)]
    assert max(usual[1:]) <= 24
    assert min(usual[1:]) >= 10


def test_the_server_is_kept_busy() -> None:
    simulated = Simulation(slots=10, pace=0.2).run(100)
    before = simulated.answered
    simulated.run(400)
    assert simulated.answered - before >= 0.95 * 400 * 10 / 0.2


def test_it_recovers_after_a_slow_phase() -> None:
    simulated = Simulation(slots=40, pace=0.1, max=1000).run(200)
    assert simulated.usual() >= 40
    simulated.set_server(pace=5.0)
    simulated.run(200)
    slow = simulated.usual(100)
    simulated.set_server(pace=0.1)
    simulated.run(200)
    assert simulated.usual() >= 40
    assert slow <= 120


def test_it_follows_a_server_that_grows_and_shrinks() -> None:
    simulated = Simulation(slots=10, pace=0.1, max=1000).run(200)
    simulated.set_server(slots=60)
    simulated.run(400)
    assert simulated.usual() >= 60
    simulated.set_server(slots=10)
    simulated.run(400)
    assert simulated.usual() <= 24


def test_an_upstream_that_has_become_slower_for_good_is_not_starved() -> None:
    simulated = Simulation(slots=500, pace=0.1, offered=100, max=100).run(100)
    assert simulated.usual() >= 90
    simulated.set_server(pace=0.5)
    simulated.run(3000)
    assert simulated.usual() >= 90


def test_a_server_that_refuses_what_is_too_much_is_asked_for_less() -> None:
    simulated = Simulation(slots=500, pace=0.1, max=1000)
    full = UpstreamRejected("slow down", status=429)
    simulated.refuses = lambda: full if len(simulated.under_way) >= 30 else None
    simulated.run(400)
    assert 10 <= simulated.usual() <= 32


def test_little_use_tells_nothing_of_what_would_be_too_much() -> None:
    simulated = Simulation(slots=500, pace=0.1, offered=5, start=20).run(500)
    assert simulated.usual() <= 21


def test_two_gateways_share_a_server() -> None:
    """Each sees the other's load as latency; neither is pushed out."""
    one, other = (Simulation(slots=20, pace=0.1, max=1000, seed=seed) for seed in (1, 2))
    other.free = one.free
    for _ in range(4000):
        for simulated in (one, other):
            simulated.now = max(one.now, other.now) if not simulated.under_way else simulated.now
            simulated.run(0.05)
    usual = one.usual(), other.usual()
    assert min(usual) >= 5
    assert sum(usual) >= 20
    assert max(usual) <= 4 * min(usual)


def follower(**settings: object) -> tuple[Follower, Places]:
    places = Places("u", most=500, size=0, wait=1).follow(Adaptive.model_validate({"start": 64, **settings}))
    assert places.follower is not None
    return places.follower, places


@pytest.mark.parametrize(
    ("error", "left"),
    [
        (UpstreamTimeout("late"), 32),
        (UpstreamUnavailable("busy"), 32),
        (UpstreamRejected("slow down", status=429), 32),
        (UpstreamReset("gone"), 57),
        (UpstreamRejected("what is this", status=400), 64),
    ],
)
def test_what_tells_of_overload_halves_it(error: UpstreamError, left: int) -> None:
    moved, places = follower()
    moved.failed(10 * SECOND, 9 * SECOND, error)
    assert (moved.limit, places.most) == (left, left)


def test_what_went_out_together_fails_once() -> None:
    moved, _ = follower()
    for _ in range(64):
        moved.failed(10 * SECOND, 9 * SECOND, UpstreamTimeout("late"))
    assert moved.limit == 32
    moved.failed(12 * SECOND, 11 * SECOND, UpstreamTimeout("late"))
    assert moved.limit == 16


def test_it_stays_within_its_bounds() -> None:
    moved, places = follower(min=8, max=100)
    for number in range(20):
        moved.failed((number + 1) * SECOND, number * SECOND + 1, UpstreamTimeout("late"))
    assert moved.limit == 8
    simulated = Simulation(slots=1000, pace=0.1, max=100, min=8).run(200)
    assert simulated.usual() == 100
    assert max(simulated.history) == 100
    assert places.most == 8


def test_what_went_out_before_a_change_is_not_judged_by_it() -> None:
    moved, places = follower()
    for number in range(SAMPLES + 1):
        moved.answered(SECOND + number * SECOND // 10, SECOND // 2)
    assert moved.limit == 64  # nothing was taken, so there is nothing to go up for
    moved.failed(3 * SECOND, 2 * SECOND, UpstreamTimeout("late"))
    assert moved.limit == 32
    for _ in range(32):
        assert places.take()
    for number in range(50):
        moved.answered(3 * SECOND + number, SECOND)  # all of them went out before the cut
    assert moved.limit == 32
    for number in range(SAMPLES + 1):
        moved.answered(5 * SECOND + number * SECOND // 10, SECOND // 2)
    assert moved.limit > 32


def test_the_configured_bound_is_the_highest() -> None:
    places = Places("u", most=30, size=0, wait=1).follow(Adaptive(start=64, max=500))
    assert places.most == 30
