"""Circuits, compiled against the plain-Python model, and what they add to a route's choice."""

from dataclasses import asdict
from itertools import count
from typing import Protocol

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from agw_proxy._hot.circuit import GOOD, Board, Circuit
from agw_proxy._hot.route import Route, RouteTable
from tests.hot import model_circuit
from tests.hot.model_circuit import MS, SECOND, Terms

NOW = 1000 * SECOND
TERMS = Terms(window_ns=100 * MS, min_requests=1_000_000)
TARGETS = [(0, "gpt-4o-mini", 3), (1, "claude-haiku", 1)]


class Attempt(Protocol):
    """One good attempt at a time, in nanoseconds."""

    def __call__(self, now: int, /) -> None:
        """Begin and end it."""


def compiled() -> Attempt:
    board = Board()
    target = board.circuit("up/m", board.vitals("up"), **asdict(TERMS))

    def attempt(now: int) -> None:
        target.end(now, GOOD, target.begin(now), 100 * MS)

    return attempt


def model() -> Attempt:
    target = model_circuit.Circuit(TERMS)

    def attempt(now: int) -> None:
        target.end(0, now, GOOD, target.begin(0, now, force=False), 100 * MS)

    return attempt


@pytest.mark.parametrize("made_by", ["compiled", "model"])
def test_attempt(benchmark: BenchmarkFixture, made_by: str) -> None:
    """A good one: begun, ended, counted in the window and at the upstream, its first byte averaged."""
    benchmark.group = "circuit attempt"
    attempt = compiled() if made_by == "compiled" else model()
    times = count(NOW, MS)
    benchmark(lambda: attempt(next(times)))


@pytest.mark.parametrize("circuits", ["with", "without"])
@pytest.mark.parametrize("balance", ["first", "weighted", "least_busy", "fastest", "sticky"])
def test_first(benchmark: BenchmarkFixture, balance: str, circuits: str) -> None:
    """The choice of a target for one request, all circuits closed."""
    benchmark.group = f"route first {balance}"
    found = route("weighted" if balance == "sticky" else balance, circuits == "with")
    assert benchmark(found.first, 0x0123456789ABCDEF, NOW, 7 if balance == "sticky" else 0) is not None


def route(balance: str, guarded: bool) -> Route:
    board = Board()

    def of(upstream: int, name: str, configured: bool) -> Circuit:
        return board.circuit(name, board.vitals(f"up{upstream}"), **asdict(TERMS), configured=configured)

    table = RouteTable([("openai", []), ("claude", [])], [("v", TARGETS, balance, [])], of if guarded else None, 0.5)
    found = table.find("v")
    assert found is not None
    return found
