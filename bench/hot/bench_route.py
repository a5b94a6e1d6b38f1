"""Look-ups and plans, compiled against the plain-Python model (which keeps no memo of names and of patterns)."""

from collections.abc import Sequence
from typing import Protocol

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from agw_proxy._hot import route
from tests.hot import model_route

UPSTREAMS = [
    ("openai", ["gpt-*", "o1*", "o3*", "text-embedding-*", "omni-moderation-latest"]),
    ("claude", ["claude-*"]),
    ("router", ["*/*"]),
    ("local", [*(f"exact-{number}" for number in range(50)), "*"]),
]
MODELS: list[tuple[str, list[tuple[int, str, int]], str, list[str]]] = [
    ("fast", [(0, "gpt-4o-mini", 3), (1, "claude-haiku", 1)], "weighted", ["openai/gpt-4o"]),
]
NAMES = {
    "virtual": "fast",
    "exact": "exact-25",
    "direct": "openai/gpt-4o-mini-2024-07-18",
    "glob": "claude-sonnet-4-20250514",
    "last_glob": "qwen2.5-coder:32b",
}
PATTERNS = ["gpt-4*", "claude-?-*", "*-mini", "default/*"]


class Found(Protocol):
    """What both kinds of route can do."""

    def plan(self, random: int) -> Sequence[object]:
        """Targets in the order to try."""


class Table(Protocol):
    """What both kinds of table can do."""

    def find(self, model: str) -> Found | None:
        """Look up the route of a name."""


def table(made_by: str) -> Table:
    return route.RouteTable(UPSTREAMS, MODELS) if made_by == "compiled" else model_route.RouteTable(UPSTREAMS, MODELS)


@pytest.mark.parametrize("made_by", ["compiled", "model"])
@pytest.mark.parametrize("kind", NAMES)
def test_find(benchmark: BenchmarkFixture, kind: str, made_by: str) -> None:
    """A name seen before, as nearly all are."""
    benchmark.group = f"route find {kind}"
    assert benchmark(table(made_by).find, NAMES[kind]) is not None


@pytest.mark.parametrize("made_by", ["compiled", "model"])
def test_find_new_name(benchmark: BenchmarkFixture, made_by: str) -> None:
    """Each look-up has another name: a route is made by the last glob."""
    benchmark.group = "route find new name"
    find, names = table(made_by).find, iter(f"qwen-{number}" for number in range(10**9))
    assert benchmark(lambda: find(next(names))) is not None


def test_find_bytes(benchmark: BenchmarkFixture) -> None:
    benchmark.group = "route find glob"
    assert benchmark(route.RouteTable(UPSTREAMS, MODELS).find_bytes, NAMES["glob"].encode()) is not None


@pytest.mark.parametrize("made_by", ["compiled", "model"])
def test_plan_by_weight(benchmark: BenchmarkFixture, made_by: str) -> None:
    benchmark.group = "route plan"
    found = table(made_by).find("fast")
    assert found is not None
    assert len(benchmark(found.plan, 0x0123456789ABCDEF)) == 3


@pytest.mark.parametrize("made_by", ["compiled", "model"])
def test_globs(benchmark: BenchmarkFixture, made_by: str) -> None:
    """A key's list: the third pattern of four matches."""
    benchmark.group = "route globs"
    if made_by == "compiled":
        assert benchmark(route.Globs(PATTERNS).match, "o4-mini")
    else:
        assert benchmark(lambda name: any(model_route.matches(pattern, name) for pattern in PATTERNS), "o4-mini")
