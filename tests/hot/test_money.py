"""What calls cost: whole micro-dollars, rounded once, against exact fractions."""

import pickle
from fractions import Fraction
from math import floor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agw_proxy._hot.money import Tariff

MOST = 1 << 62
prices = st.integers(0, 10**15)
tokens = st.integers(-1, 2**63 - 1)


def half_up(amount: Fraction) -> int:
    return min(floor(amount + Fraction(1, 2)), MOST)


def test_a_call_costs_what_the_price_list_says() -> None:
    # 1,000 tokens of which 400 came from the cache, and 250 of an answer, at 2.50 / 1.25 / 10 dollars a million.
    tariff = Tariff(2_500_000, 1_250_000, 10_000_000)
    assert tariff.cost(1000, 400, 250) == 600 * 2.5 + 400 * 1.25 + 250 * 10


@pytest.mark.parametrize(("count", "cost"), [(0, 0), (1, 0), (2, 0), (3, 0), (4, 1), (5, 1), (12, 2), (20, 3)])
def test_half_a_micro_dollar_goes_up(count: int, cost: int) -> None:
    assert Tariff(input=125_000).cost(count, 0, 0) == cost


def test_the_parts_of_a_request_are_rounded_together() -> None:
    third = Tariff(300_000, 0, 300_000)
    assert third.cost(1, 0, 0) == 0
    assert third.cost(1, 0, 1) == 1


@pytest.mark.parametrize("cached", [-1, 0])
def test_unknown_counts_cost_nothing(cached: int) -> None:
    assert Tariff(1_000_000, 1_000_000, 1_000_000, request=7).cost(-1, cached, -1) == 7


def test_no_more_of_a_prompt_is_from_the_cache_than_there_is() -> None:
    assert Tariff(2_000_000, 1_000_000).cost(10, 500, 0) == 10


@given(prices, prices, prices, st.integers(0, MOST), tokens, tokens, tokens)
def test_it_is_the_exact_amount_rounded(
    input_price: int, cached_price: int, output_price: int, request: int, prompt: int, cached: int, answer: int
) -> None:
    read = max(prompt, 0)
    again = min(max(cached, 0), read)
    exact = Fraction((read - again) * input_price + again * cached_price + max(answer, 0) * output_price, 10**6)
    tariff = Tariff(input_price, cached_price, output_price, request)
    assert tariff.cost(prompt, cached, answer) == min(half_up(exact + request), MOST)


@given(st.integers(0, 2**63 - 1), st.integers(0, 2**63 - 1), tokens, tokens)
def test_pieces_are_counted_by_the_image_and_by_the_minute(image: int, minute: int, images: int, spent: int) -> None:
    exact = Fraction(max(spent, 0) * minute, 60_000) + max(images, 0) * image
    assert Tariff(image=image, minute=minute).pieces(images, spent) == half_up(exact)


def test_a_tariff_is_a_value() -> None:
    tariff = Tariff(1, 2, 3, 4, 5, 6, 7)
    assert pickle.loads(pickle.dumps(tariff)) == tariff
    assert hash(Tariff(1, 2, 3, 4, 5, 6, 7)) == hash(tariff)
    assert tariff != Tariff(1, 2, 3, 4, 5, 6, 8)
    assert repr(tariff) == "Tariff(input=1, cached=2, output=3, request=4, image=5, minute=6, max_output=7)"


def test_free_is_what_has_no_price() -> None:
    assert Tariff(max_output=5).free
    assert not any(Tariff(*[int(place == part) for place in range(6)]).free for part in range(6))


def test_no_price_is_below_nothing() -> None:
    with pytest.raises(ValueError, match="below 0"):
        Tariff(output=-1)
    with pytest.raises(OverflowError):
        Tariff(output=2**63)
