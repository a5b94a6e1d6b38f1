"""What a target's answers teach: ratios of true to estimated tokens, and how long its answers are."""

import math
import random
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agw_proxy._hot.tokens import Learner, count
from tests.corpus.tokens import samples

sizes = st.integers(1, 10**7)


def test_untaught_the_estimate_stands() -> None:
    assert [Learner().prompt(raw) for raw in (0, 1, 77, 10**6)] == [0, 1, 77, 10**6]


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("model", ["cl100k_base", "a third more", "half"])
def test_taught_by_half_the_corpus_it_is_within_a_tenth_on_the_other_half(model: str, first: int) -> None:
    def true(o200k: int, cl100k: int) -> int:
        return {"cl100k_base": cl100k, "a third more": round(o200k * 1.3), "half": o200k // 2}[model]

    learner = Learner()
    for one in samples()[first::2]:
        learner.learn(count(one.body), true(one.o200k, one.cl100k), -1)
    rest = samples()[1 - first :: 2]
    estimated = sum(learner.prompt(count(one.body)) for one in rest)
    assert estimated == pytest.approx(sum(true(one.o200k, one.cl100k) for one in rest), rel=0.10)


@given(st.lists(st.tuples(sizes, st.integers(-(10**9), 10**15)), max_size=80), sizes)
def test_a_ratio_stays_between_a_fifth_and_five(answers: list[tuple[int, int]], raw: int) -> None:
    learner = Learner()
    for estimated, true in answers:
        learner.learn(estimated, true, -1)
    assert math.floor(raw * 0.2) <= learner.prompt(raw) <= math.ceil(raw * 5)


@given(st.floats(0.25, 4), st.lists(sizes, min_size=1, max_size=50), sizes)
def test_a_steady_ratio_is_learnt_for_every_size(ratio: float, raws: list[int], raw: int) -> None:
    learner = Learner()
    for one in raws * 20:
        learner.learn(one * 100, round(one * 100 * ratio), -1)
    low, high = sorted((1.0, ratio))
    assert math.floor(raw * low * 0.99) <= learner.prompt(raw) <= math.ceil(raw * high * 1.01)
    assert learner.prompt(raws[0] * 100) == pytest.approx(raws[0] * 100 * ratio, rel=0.1)


def test_small_and_large_prompts_have_ratios_of_their_own() -> None:
    """A target that puts 100 tokens before each prompt."""
    learner = Learner()
    for _ in range(64):
        for raw in (40, 3_000):
            learner.learn(raw, raw + 100, -1)
    assert learner.prompt(40) == pytest.approx(140, rel=0.05)
    assert learner.prompt(3_000) == pytest.approx(3_100, rel=0.1)


def test_a_changed_model_is_learnt_anew() -> None:
    learner = Learner()
    for true in [500] * 300 + [1_500] * 300:
        learner.learn(1_000, true, true)
    assert learner.prompt(1_000) == pytest.approx(1_500, rel=0.02)
    assert learner.output(-1, 0) == pytest.approx(1_500, rel=0.1)


def test_what_says_nothing_teaches_nothing() -> None:
    learner = Learner()
    for raw, prompt, output in [(0, 100, -1), (100, 0, -1), (-5, 7, -1), (100, -3, -1)]:
        learner.learn(raw, prompt, output)
    assert learner.prompt(1_000) == 1_000
    assert learner.output(-1, 0) == Learner().output(-1, 0) == 512


@given(st.integers(0, 10**9), st.integers(0, 10**9), st.lists(st.integers(0, 10**18), max_size=5))
def test_an_answer_is_what_was_asked_for_and_no_longer_than_the_model_gives(
    asked: int, most: int, answers: list[int]
) -> None:
    learner = Learner()
    for tokens in answers:
        learner.learn(0, 0, tokens)
    assert learner.output(asked, most) == (min(asked, most) if most else asked)
    assert learner.output(-1, most) >= 0
    assert most == 0 or learner.output(-1, most) <= most


@pytest.mark.parametrize("kind", ["exponential", "normal", "steady", "two kinds"])
def test_nearly_all_answers_stay_below_what_is_expected(kind: str) -> None:
    draw = random.Random(5)

    def length() -> int:
        match kind:
            case "exponential":
                return int(draw.expovariate(1 / 300))
            case "normal":
                return max(0, int(draw.gauss(800, 200)))
            case "steady":
                return 120
            case _:
                return draw.choice((20, 20, 20, 900))

    learner = Learner()
    for _ in range(100):
        learner.learn(0, 0, length())
    drawn = [length() for _ in range(2_000)]
    expected = learner.output(-1, 0)
    assert sum(one <= expected for one in drawn) >= 0.93 * len(drawn)
    assert expected <= 5 * (sum(drawn) / len(drawn))


def test_answers_of_one_length_leave_no_spread_that_is_too_small_to_reckon_with() -> None:
    """Towards 0 a double is subnormal, and a hundred times as slow as another."""
    learner = Learner()
    for length in (10, 30):
        learner.learn(0, 0, length)
    smallest = learner.deviation
    for _ in range(60_000):
        learner.learn(0, 0, 20)
        smallest = min(smallest, learner.deviation or smallest)
    assert learner.deviation == 0
    assert smallest > sys.float_info.min
    assert learner.output(-1, 0) == 20
    learner.learn(0, 0, 40)
    assert learner.output(-1, 0) > 20


def test_the_same_answers_teach_the_same() -> None:
    one, other = Learner(), Learner()
    for learner in (one, other):
        draw = random.Random(11)
        for _ in range(200):
            learner.learn(draw.randrange(1, 10**5), draw.randrange(1, 10**5), draw.randrange(4_000))
    assert [one.prompt(10**n) for n in range(7)] == [other.prompt(10**n) for n in range(7)]
    assert one.output(-1, 0) == other.output(-1, 0)


def test_bodies_that_are_alike_need_not_be_looked_at() -> None:
    learner = Learner()
    draw = random.Random(3)
    for _ in range(15):
        learner.learn_bytes(6_000, 1_500 + draw.randrange(-20, 21))
    assert learner.by_bytes(6_000) == -1  # too few yet
    learner.learn_bytes(6_000, 1_500)
    assert abs(learner.by_bytes(8_000) - 2_000) <= 30
    assert (
        learner.by_bytes(600) == learner.by_bytes(60_000) == learner.by_bytes(0) == -1
    )  # of other sizes nothing is known
    learner.learn_bytes(6_000, 0)
    assert learner.by_bytes(6_000) > 0  # that said nothing
    learner.learn_bytes(6_000, 3_000)
    assert learner.by_bytes(6_000) == -1  # they are not alike any more


@given(
    st.lists(st.tuples(st.integers(-(2**62), 2**62), st.integers(-(2**62), 2**62)), max_size=80), st.integers(-5, 2**40)
)
def test_whatever_is_learnt_by_bytes_gives_a_number_of_tokens_or_none(told: list[tuple[int, int]], size: int) -> None:
    learner = Learner()
    for answer in told:
        learner.learn_bytes(*answer)
    assert -1 <= learner.by_bytes(size) <= 2**62
