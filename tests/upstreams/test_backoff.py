"""Waits grow as the strategy says, never over the configured longest, and are drawn from all of 0 to the ceiling."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agw_proxy.config.resilience import Retries, Strategy
from agw_proxy.upstreams.backoff import ceiling, draw

STRATEGIES: list[Strategy] = ["exponential", "linear", "fixed", "fibonacci"]
RETRIES = st.builds(
    lambda strategy, base, most: Retries(strategy=strategy, base=base, max=most),
    st.sampled_from(STRATEGIES),
    st.floats(0.001, 60),
    st.floats(0.001, 600),
)
NUMBERS = st.integers(1, 10_000)


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        ("exponential", [1, 2, 4, 8, 16, 20, 20]),
        ("linear", [1, 2, 3, 4, 5, 6, 7]),
        ("fixed", [1, 1, 1, 1, 1, 1, 1]),
        ("fibonacci", [1, 1, 2, 3, 5, 8, 13]),
    ],
)
def test_ceilings_grow_as_the_strategy_says(strategy: Strategy, expected: list[float]) -> None:
    retries = Retries(strategy=strategy, base=1.0, max=20.0)
    assert [ceiling(number, retries) for number in range(1, 8)] == expected


@given(NUMBERS, RETRIES)
def test_a_ceiling_never_falls_and_never_passes_the_longest_wait(number: int, retries: Retries) -> None:
    assert 0 < ceiling(number, retries) <= ceiling(number + 1, retries) <= retries.max


@given(NUMBERS, RETRIES, st.floats(0, 1))
def test_what_is_drawn_lies_between_nothing_and_the_ceiling(number: int, retries: Retries, share: float) -> None:
    assert draw(number, retries, 0.0) == 0.0
    assert 0.0 <= draw(number, retries, share) <= ceiling(number, retries) == draw(number, retries, 1.0)


@given(st.floats(0.001, 1), st.floats(0.001, 1))
def test_no_strategy_grows_faster_than_doubling_or_slower_than_not_at_all(base: float, share: float) -> None:
    ways = {name: Retries(strategy=name, base=base, max=600.0) for name in STRATEGIES}
    for number in range(1, 9):
        fixed, *others, fastest = (
            draw(number, ways[name], share) for name in ("fixed", "linear", "fibonacci", "exponential")
        )
        assert all(fixed <= other <= fastest for other in others)
