"""A late answer gets a rival: the first good one wins, the other is gone at once, and there are only so many."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agw_proxy.config.resilience import Hedge
from agw_proxy.errors import UpstreamFailed, UpstreamReset
from agw_proxy.upstreams.hedge import BOUNDS, MAX_SAMPLES, MIN_SAMPLES, BothFailed, Hedging, Latencies, Outcome, race


class Answer:
    def __init__(self, name: str) -> None:
        self.name = name
        self.abandoned = 0

    def abandon(self) -> None:
        self.abandoned += 1


class Runner:
    """An attempt that ends when it is told to."""

    def __init__(self, name: str) -> None:
        self.end: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.answer = Answer(name)
        self.begun = asyncio.Event()
        self.cancelled = False

    async def run(self) -> Answer:
        self.begun.set()
        try:
            return await self.end
        except asyncio.CancelledError:
            self.cancelled = True
            raise

    def win(self) -> None:
        self.end.set_result(self.answer)


class Contest:
    def __init__(self, *, after: float = 0.0, may: bool = True) -> None:
        self.one, self.two = Runner("one"), Runner("two")
        self.lost: list[int] = []
        first: Callable[[], Awaitable[Answer]] = self.one.run
        self.task: asyncio.Task[tuple[Answer, Outcome | None]] = asyncio.create_task(
            race(first, self.two.run, after, lambda: may, self.lost.append)
        )


async def test_an_answer_in_time_has_no_rival() -> None:
    contest = Contest(after=60.0)
    contest.one.win()
    answer, outcome = await contest.task
    assert (answer.name, outcome, contest.two.begun.is_set(), contest.lost) == ("one", None, False, [])


@pytest.mark.parametrize(("winner", "outcome", "loser"), [("one", "lost", 1), ("two", "won", 0)])
async def test_the_first_good_answer_wins_and_the_other_attempt_is_cancelled(
    winner: str, outcome: Outcome, loser: int
) -> None:
    contest = Contest()
    await contest.two.begun.wait()
    runners = (contest.one, contest.two)
    runners[1 - loser].win()
    answer, told = await contest.task
    assert (answer.name, told, contest.lost) == (winner, outcome, [loser])
    assert runners[loser].cancelled
    assert answer.abandoned == 0


async def test_an_answer_of_the_same_moment_is_closed() -> None:
    contest = Contest()
    await contest.two.begun.wait()
    contest.one.win()
    contest.two.win()
    answer, _ = await contest.task
    assert answer.name == "one"
    assert (contest.one.answer.abandoned, contest.two.answer.abandoned) == (0, 1)


@pytest.mark.parametrize("failing", [0, 1])
async def test_one_that_fails_leaves_it_to_the_other(failing: int) -> None:
    contest = Contest()
    await contest.two.begun.wait()
    runners = (contest.one, contest.two)
    runners[failing].end.set_exception(UpstreamReset("x"))
    await asyncio.sleep(0)
    assert not contest.task.done()
    runners[1 - failing].win()
    answer, _ = await contest.task
    assert answer is runners[1 - failing].answer
    assert contest.lost == []  # it told of its failure itself


async def test_where_both_fail_the_first_ones_error_is_kept() -> None:
    contest = Contest()
    await contest.two.begun.wait()
    contest.two.end.set_exception(UpstreamReset("second"))
    contest.one.end.set_exception(UpstreamFailed("first"))
    with pytest.raises(BothFailed) as caught:
        await contest.task
    assert str(caught.value.first) == "first"


async def test_a_failure_before_the_time_is_raised_as_it_is() -> None:
    contest = Contest(after=60.0)
    contest.one.end.set_exception(UpstreamFailed("first"))
    with pytest.raises(UpstreamFailed):
        await contest.task
    assert not contest.two.begun.is_set()


async def test_without_a_budget_the_first_is_waited_for() -> None:
    contest = Contest(may=False)
    await contest.one.begun.wait()
    await asyncio.sleep(0.01)
    contest.one.win()
    answer, outcome = await contest.task
    assert (answer.name, outcome, contest.two.begun.is_set()) == ("one", "denied", False)


async def test_a_caller_that_leaves_ends_both() -> None:
    contest = Contest()
    await contest.two.begun.wait()
    contest.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await contest.task
    assert (contest.one.cancelled, contest.two.cancelled) == (True, True)


def test_the_percentile_needs_samples_and_lies_a_fifth_above_at_most() -> None:
    times = Latencies()
    for number in range(MIN_SAMPLES - 1):
        times.note(0.1)
        assert times.p95() is None, number
    times.note(0.1)
    found = times.p95()
    assert found is not None
    assert 0.1 <= found <= 0.12


def test_what_was_long_ago_is_forgotten() -> None:
    times = Latencies()
    for _ in range(MAX_SAMPLES):
        times.note(5.0)
    for _ in range(8 * MAX_SAMPLES):
        times.note(0.01)
    found = times.p95()
    assert found is not None
    assert found < 0.02


@given(st.lists(st.floats(0.001, BOUNDS[-1] / 2), min_size=MIN_SAMPLES, max_size=MAX_SAMPLES - 1))
def test_the_percentile_is_that_of_the_samples(samples: list[float]) -> None:
    times = Latencies()
    for sample in samples:
        times.note(sample)
    exact = sorted(samples)[-(-95 * len(samples) // 100) - 1]
    found = times.p95()
    assert found is not None
    assert exact <= found <= exact * 1.21


@given(st.integers(1, 2000), st.floats(0.001, 1))
def test_second_attempts_are_a_share_of_the_requests(requests: int, budget: float) -> None:
    hedging = Hedging(Hedge(after=1.0, budget=budget))
    given_out = 0
    for _ in range(requests):
        assert hedging.after() == 1.0
        given_out += hedging.may()
    assert 1 <= given_out <= max(1.0, budget * requests) + 1


def test_no_budget_is_none() -> None:
    hedging = Hedging(Hedge(after=1.0, budget=0.0))
    hedging.after()
    assert not hedging.may()
