"""Limits, compiled against the plain model. The rules alone: a set's time less that of the set without rules.

The model is made to be read; the ratio says that the test's oracle is slow, not that Python must be.
"""

import mmap
import multiprocessing
from collections.abc import Iterator, Sequence

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from agw_proxy._hot import limit
from tests.hot import model_limit

MINUTE = 60 * 10**9
FORK = multiprocessing.get_context("fork")
# Never exhausted while measuring, and with a window that fits.
KEY = limit.Rule("key", limit.PER_KEY, limit.REQUESTS, 10**9, MINUTE)
TOKENS = limit.Rule("tokens", limit.PER_KEY, limit.TOKENS, 10**9, MINUTE)
USER = limit.Rule("user", limit.PER_USER, limit.REQUESTS, 10**9, MINUTE)
SLIDING = limit.Rule("user", limit.PER_USER, limit.REQUESTS, 10**9, MINUTE, algorithm=limit.SLIDING)
BUDGET = limit.Rule(
    "month", limit.PER_TEAM, limit.COST, 10**15, algorithm=limit.CALENDAR, calendar=limit.MONTH, marks=(0.8, 1.0)
)
LEASED = limit.Rule("key", limit.PER_KEY, limit.REQUESTS, 10**9, MINUTE, leased=True)
GATE = limit.Rule("gate", limit.PER_KEY, limit.CONCURRENT, 50)
SETS = {
    "no rules": (),
    "one bucket": (KEY,),
    "three buckets": (KEY, TOKENS, USER),
    "two buckets and a sliding window": (KEY, TOKENS, SLIDING),
    "three buckets and a gate": (KEY, TOKENS, USER, GATE),
    "three buckets and a budget": (KEY, TOKENS, USER, BUDGET),
    "two buckets, one of them leased": (LEASED, TOKENS),
}
LOCAL = [name for name in SETS if "leased" not in name]
CONTENDED = ["three buckets", "two buckets and a sliding window"]
ALICE = limit.subject(b"user-1")
MODEL = limit.subject(b"gpt-4o-mini")
ASK: model_limit.Ask = {"key": 1, "user": ALICE, "model": MODEL, "input_tokens": 60, "output_tokens": 40, "cost": 7}


@pytest.mark.parametrize("name", SETS)
def test_admit_compiled(benchmark: BenchmarkFixture, name: str) -> None:
    grant = measured(benchmark, "alone", name, limit.Table())
    assert grant.granted


@pytest.mark.parametrize("name", LOCAL)
def test_admit_model(benchmark: BenchmarkFixture, name: str) -> None:
    benchmark.group = f"limit.admit: {name}"
    rules = model_limit.Limits(model_limit.Table(), SETS[name])

    def exchange() -> model_limit.Grant:
        grant = rules.admit(MINUTE, **ASK)
        grant.release()
        return grant

    assert benchmark(exchange).granted


def measured(benchmark: BenchmarkFixture, how: str, name: str, table: limit.Table) -> limit.Grant:
    """One decision a round; the grant before it is released as it goes out of sight."""
    benchmark.group = f"limit.admit: {name}" if how == "alone" else f"limit.admit, {how}: {name}"
    rules = limit.Limits(table, SETS[name])
    if rules.counts & limit.COUNTS_LEASES:
        tag = rules.admit(MINUTE, **ASK).short[0][1]
        assert table.lend(tag, 2**52, 2 * MINUTE, MINUTE)
    admit = rules.admit
    # Written out: a dict of the subjects that is taken apart at each call would cost as much as the rules.
    # Rounds of many: the clock would cost more than a decision.
    grant: limit.Grant = benchmark.pedantic(  # type: ignore[no-untyped-call]
        lambda: admit(MINUTE, key=1, user=ALICE, input_tokens=1), rounds=200, iterations=2000, warmup_rounds=5
    )
    return grant


@pytest.fixture
def contended(request: pytest.FixtureRequest) -> Iterator[limit.Table]:
    """A table that another process makes the same decisions in all the time."""
    memory = mmap.mmap(-1, limit.Table.size())
    reader, writer = FORK.Pipe(duplex=False)

    def keep_deciding() -> None:
        rules = limit.Limits(limit.Table(memory, worker=1), SETS[request.param])
        writer.send(None)
        while True:
            rules.admit(MINUTE, **ASK)

    other = FORK.Process(target=keep_deciding, daemon=True)
    other.start()
    reader.recv()
    yield limit.Table(memory)
    other.kill()
    other.join()


@pytest.mark.parametrize(("contended", "name"), [(name, name) for name in CONTENDED], indirect=["contended"])
def test_admit_contended(benchmark: BenchmarkFixture, contended: limit.Table, name: str) -> None:
    assert measured(benchmark, "contended by two", name, contended).granted


@pytest.mark.benchmark(group="limit: one exchange (admit, settle, release)")
def test_exchange_compiled(benchmark: BenchmarkFixture) -> None:
    benchmark(exchange_all, limit.Limits(limit.Table(), SETS["three buckets and a gate"]), range(100))


@pytest.mark.benchmark(group="limit: one exchange (admit, settle, release)")
def test_exchange_model(benchmark: BenchmarkFixture) -> None:
    rules = model_limit.Limits(model_limit.Table(), SETS["three buckets and a gate"])
    benchmark(exchange_all, rules, range(100))


def exchange_all(rules: limit.Limits | model_limit.Limits, users: Sequence[int]) -> None:
    """Run a hundred exchanges, one a user."""
    for user in users:
        grant = rules.admit(MINUTE, key=1, user=user, model=MODEL, input_tokens=60, output_tokens=40)
        grant.settle(60, 30, 0, MINUTE)
        grant.release()


@pytest.mark.benchmark(group="limit: refusal by the third rule")
def test_refusal_compiled(benchmark: BenchmarkFixture) -> None:
    empty = limit.Rule("none", limit.PER_KEY, limit.TOKENS, 1, MINUTE)
    rules = limit.Limits(limit.Table(), (KEY, TOKENS, empty))
    rules.admit(MINUTE, **ASK)
    assert not benchmark(rules.admit, MINUTE, **ASK).granted
