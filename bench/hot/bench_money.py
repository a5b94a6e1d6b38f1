"""What a request costs, and what its key has used by it."""

from fractions import Fraction
from math import floor

from pytest_benchmark.fixture import BenchmarkFixture

from agw_proxy._hot.meter import Meter
from agw_proxy._hot.money import Tariff
from agw_proxy.observe.metrics import FAMILIES, USAGE

PRICES = (2_500_000, 1_250_000, 10_000_000)
TOKENS = (1200, 400, 300)


def exact(prompt: int, cached: int, answer: int) -> int:
    amount = Fraction((prompt - cached) * PRICES[0] + cached * PRICES[1] + answer * PRICES[2], 10**6)
    return floor(amount + Fraction(1, 2))


def test_cost_compiled(benchmark: BenchmarkFixture) -> None:
    benchmark.group = "cost of a request"
    assert benchmark(Tariff(*PRICES).cost, *TOKENS) == exact(*TOKENS)


def test_cost_model(benchmark: BenchmarkFixture) -> None:
    benchmark.group = "cost of a request"
    assert benchmark(exact, *TOKENS) > 0


def test_tally_compiled(benchmark: BenchmarkFixture) -> None:
    """Requests, errors, tokens and money of one exchange: one cache line, found once."""
    benchmark.group = "usage of a key"
    meter = Meter(FAMILIES)
    benchmark(meter.tally, meter.series(USAGE, ("app", "gpt-4o", "openai")), 1, 0, *TOKENS, 6500, 0)
    assert any(sample.value > 0 for sample in meter.collect(USAGE))
