"""Limits, compiled against the exact model. The rules alone: a set's time less that of the set without rules.

The model counts in Fractions, to be exact; the ratio says that the test's oracle is slow, not that Python must be.
"""

from collections.abc import Sequence

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from agw_proxy._hot import limit
from tests.hot import model_limit

MINUTE = 60 * 10**9
# Never exhausted while measuring, and with a window that fits.
RULES = (
    limit.Rule("all", limit.PER_GLOBAL, limit.REQUESTS, 10**10, MINUTE),
    limit.Rule("key", limit.PER_KEY, limit.REQUESTS, 10**10, MINUTE),
    limit.Rule("user", limit.PER_USER, limit.TOKENS, 10**12, MINUTE),
    limit.Rule("gate", limit.PER_KEY, limit.CONCURRENT, 50),
)
SETS = {"no rules": RULES[:0], "one bucket": RULES[:1], "three buckets": RULES[:3], "three buckets and a gate": RULES}
USER = limit.subject(b"user-1")
MODEL = limit.subject(b"gpt-4o-mini")


@pytest.mark.parametrize("name", SETS)
def test_admit_compiled(benchmark: BenchmarkFixture, name: str) -> None:
    admit = measured(benchmark, name, limit.Limits(limit.Table(), SETS[name]))
    assert admit.granted


@pytest.mark.parametrize("name", SETS)
def test_admit_model(benchmark: BenchmarkFixture, name: str) -> None:
    benchmark.group = f"limit.admit: {name}"
    rules = model_limit.Limits(model_limit.Table(), SETS[name])

    def exchange() -> model_limit.Grant:
        grant = rules.admit(1, USER, MODEL, 100, MINUTE)
        grant.release()
        return grant

    assert benchmark(exchange).granted


def measured(benchmark: BenchmarkFixture, name: str, rules: limit.Limits) -> limit.Grant:
    """One decision a round; the grant before it is released as it goes out of sight."""
    benchmark.group = f"limit.admit: {name}"
    grant: limit.Grant = benchmark(rules.admit, 1, USER, MODEL, 100, MINUTE)
    return grant


@pytest.mark.benchmark(group="limit: one exchange (admit, settle, release)")
def test_exchange_compiled(benchmark: BenchmarkFixture) -> None:
    benchmark(exchange_all, limit.Limits(limit.Table(), RULES), range(100))


@pytest.mark.benchmark(group="limit: one exchange (admit, settle, release)")
def test_exchange_model(benchmark: BenchmarkFixture) -> None:
    benchmark(exchange_all, model_limit.Limits(model_limit.Table(), RULES), range(100))


def exchange_all(rules: limit.Limits | model_limit.Limits, users: Sequence[int]) -> None:
    """Run a hundred exchanges, one a user."""
    for user in users:
        grant = rules.admit(1, user, MODEL, 100, MINUTE)
        grant.settle(90, MINUTE)
        grant.release()


@pytest.mark.benchmark(group="limit: refusal by the third rule")
def test_refusal_compiled(benchmark: BenchmarkFixture) -> None:
    empty = limit.Rule("none", limit.PER_KEY, limit.TOKENS, 1, MINUTE)
    rules = limit.Limits(limit.Table(), (*RULES[:2], empty))
    rules.admit(1, USER, MODEL, 1, MINUTE)
    assert not benchmark(rules.admit, 1, USER, MODEL, 1, MINUTE).granted
