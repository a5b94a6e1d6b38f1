"""Limits: exactness in virtual time, and agreement with an exact model."""

from collections.abc import Callable
from fractions import Fraction

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from agw_proxy._hot import limit
from tests.hot import model_limit, model_limit_lines
from tests.hot.rules import HOUR, MINUTE, SECOND, gate, limits, requests, tokens

WIDE = st.integers(0, 60).flatmap(lambda bits: st.integers(2**bits // 2 or 1, 2**bits))


# --- buckets ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("amount", [1, 7, 600, 3333, 9999])
@pytest.mark.parametrize("period", [SECOND // 1000, 999_983, SECOND, MINUTE, 30 * 24 * HOUR])
def test_ten_thousand_decisions_at_one_instant_admit_exactly_the_amount(amount: int, period: int) -> None:
    rules = limits(requests(amount, period))
    assert sum(rules.admit(5 * SECOND, key=1).granted for _ in range(10_000)) == amount


@given(WIDE, WIDE, WIDE, st.integers(0, 2**31))
@example(2**60, SECOND, 2**60, 1)
@example(1, 2**55, 1, 1)
def test_what_a_bucket_has_left_is_exact_whatever_its_size(amount: int, period: int, burst: int, spent: int) -> None:
    try:
        rule = tokens(amount, period, burst)
    except ValueError:  # over 2.2 years to refill, or no limit
        assume(False)
    kept = model_limit_lines.Bucket(rule)
    cost = min(kept.cost(min(spent, rule.burst)), kept.window)
    left = (kept.window - cost) * (model_limit_lines.SCALE if kept.fine else 1) // kept.cell
    assert limits(rule).admit(SECOND, key=1, input_tokens=spent).tokens_remaining == left


@pytest.mark.parametrize("amount", [1, 7, 600, 3333])
def test_ten_thousand_decisions_over_a_period_admit_the_burst_and_the_refill(amount: int) -> None:
    rules = limits(requests(amount, MINUTE))
    cell = Fraction(model_limit_lines.Bucket(rules.rules[0]).cell, 64)
    step = MINUTE // 10_000
    admitted = sum(rules.admit(SECOND + i * step, key=1).granted for i in range(10_000))
    assert admitted == min(10_000, amount + int(9_999 * step / cell))


@given(st.lists(st.integers(1, 400), min_size=1, max_size=300))
def test_tokens_pass_to_the_exact_number_however_they_are_split(costs: list[int]) -> None:
    rules = limits(tokens(10_000, 7 * SECOND))
    taken = 0
    for cost in [*costs, *[400] * 25, *[1] * 400]:
        granted = rules.admit(SECOND, key=1, input_tokens=cost).granted
        assert granted == (taken + cost <= 10_000)
        taken += cost * granted
    assert taken == 10_000


def test_the_same_request_passes_after_retry_after_and_not_before() -> None:
    rules = limits(requests(3, SECOND), tokens(700, MINUTE, name="t"))
    now = SECOND
    for _ in range(50):
        grant = rules.admit(now, key=1, input_tokens=97)
        if grant.granted:
            continue
        assert grant.retry_after_ns > 0
        early = rules.admit(now + grant.retry_after_ns - 1, key=1, input_tokens=97)
        assert (early.granted, early.rule) == (False, grant.rule)
        now += grant.retry_after_ns
        late = rules.admit(now, key=1, input_tokens=97)
        assert late.granted or late.rule is not grant.rule


def test_an_estimate_above_the_burst_passes_on_a_full_bucket_only() -> None:
    rules = limits(tokens(100, SECOND))
    assert rules.admit(SECOND, key=1, input_tokens=5000).granted
    assert not rules.admit(2 * SECOND - 1, key=1, input_tokens=5000).granted
    assert rules.admit(2 * SECOND, key=1, input_tokens=5000).granted


def test_a_debt_is_waited_for() -> None:
    rules = limits(tokens(100, SECOND))
    assert rules.admit(SECOND, key=1, input_tokens=10).settle(400, 0, 0, SECOND)
    broke = rules.admit(SECOND, key=1)
    assert (broke.granted, broke.retry_after_ns, broke.tokens_remaining) == (False, 3 * SECOND, 0)
    assert rules.admit(4 * SECOND, key=1).granted


def test_an_absurd_count_makes_a_bounded_debt() -> None:
    rules = limits(tokens(100, HOUR * 1000))
    assert rules.admit(SECOND, key=1, input_tokens=1).settle(2**63 - 1, 0, 0, SECOND)
    assert not rules.admit(HOUR, key=1).granted
    cheap = limits(tokens(2**31, SECOND))
    assert cheap.admit(SECOND, key=1).settle(2**62, 0, 0, SECOND)
    assert not cheap.admit(2 * SECOND - 1, key=1, input_tokens=2**31).granted
    assert cheap.admit(2 * SECOND, key=1, input_tokens=2**31).granted


def test_settling_and_releasing_happen_once() -> None:
    rules = limits(tokens(100, HOUR), requests(10, HOUR), gate(1))
    grant = rules.admit(SECOND, key=1, input_tokens=50)
    assert [grant.settle(20, 0, 0, SECOND), grant.settle(0, 0, 0, SECOND), grant.cancel(SECOND)] == [True, False, False]
    assert [grant.release(), grant.release()] == [True, False]
    second = rules.admit(SECOND, key=1, input_tokens=30)
    assert (second.tokens_remaining, second.requests_remaining) == (50, 8)
    assert [second.cancel(SECOND), second.settle(90, 0, 0, SECOND)] == [True, False]
    second.release()
    third = rules.admit(SECOND, key=1)
    assert (third.tokens_remaining, third.requests_remaining) == (80, 8)


def test_a_refused_grant_has_nothing_to_give_back() -> None:
    rules = limits(gate(1), requests(1, HOUR))
    first = rules.admit(SECOND, key=1)
    refused = rules.admit(SECOND, key=1)
    assert [refused.granted, refused.settle(5, 0, 0, SECOND), refused.cancel(SECOND), refused.release()] == [False] * 4
    first.release()
    assert rules.admit(SECOND, key=1).rule is rules.rules[1]


def test_all_rules_or_none() -> None:
    table = limit.Table()
    rules = limits(requests(5, HOUR), tokens(100, HOUR), gate(3), requests(1, HOUR, name="last"), table=table)
    held = rules.admit(SECOND, key=1, input_tokens=10)
    for _ in range(20):
        refused = rules.admit(SECOND, key=1, input_tokens=10)
        assert refused.rule is rules.rules[3]
    without_last = limit.Limits(table, rules.rules[:3])
    again = without_last.admit(SECOND, key=1, input_tokens=90)
    assert (again.granted, again.requests_remaining, again.tokens_remaining) == (True, 3, 0)
    assert held.granted


def test_the_tightest_rule_is_reported() -> None:
    rules = limits(requests(10, HOUR, name="a"), requests(4, SECOND, name="b"), requests(4, MINUTE, name="c"))
    grant = rules.admit(SECOND, key=1)
    assert (grant.requests_limit, grant.requests_remaining, grant.requests_reset_ns) == (4, 3, MINUTE // 4)
    assert (grant.tokens_limit, grant.tokens_remaining, grant.tokens_reset_ns) == (-1, -1, -1)


def test_without_rules_everything_passes() -> None:
    grant = limits().admit(0, key=1, user=2, model=3, input_tokens=10**6)
    assert (grant.granted, grant.rule, grant.retry_after_ns, grant.requests_limit) == (True, None, 0, -1)
    assert [grant.settle(1, 0, 0, 0), grant.settle(1, 0, 0, 0), grant.release(), grant.release()] == [
        True,
        False,
        True,
        False,
    ]


@pytest.mark.parametrize("per", [0, *(1 << i for i in range(8)), limit.PER_KEY | limit.PER_USER, 255])
def test_a_rule_counts_by_its_own_subjects_alone(per: int) -> None:
    rules = limits(requests(1, HOUR, per=per))

    def passes(changed: int = -1) -> bool:
        key, team, user, channel, model, upstream, tool, session = (2 if i == changed else 1 for i in range(8))
        ask: model_limit.Ask = {"key": key, "team": team, "user": user, "channel": channel}
        ask = {**ask, "model": model, "upstream": upstream, "tool": tool, "session": session}
        return rules.admit(SECOND, **ask).granted

    assert passes()
    assert [passes(i) for i in range(8)] == [bool(per >> i & 1) for i in range(8)]
    assert not passes()


@pytest.mark.parametrize("drift", [0, -1, -SECOND, -HOUR])
def test_a_clock_that_stands_or_goes_back_grants_nothing_extra(drift: int) -> None:
    rules = limits(requests(50, MINUTE), gate(100))
    start = 2 * HOUR
    assert sum(rules.admit(max(0, start + i * drift), key=1).granted for i in range(500)) == 50


def test_a_reload_with_the_same_names_goes_on() -> None:
    table = limit.Table()
    old = limits(requests(5, HOUR), gate(2), table=table)
    held = [old.admit(SECOND, key=1) for _ in range(2)]
    new = limits(gate(3), requests(5, HOUR), tokens(5, HOUR, name="r"), table=table)
    third = new.admit(SECOND, key=1, input_tokens=5)
    assert (third.granted, third.requests_remaining, third.tokens_remaining) == (True, 2, 0)
    assert new.admit(SECOND, key=1).rule is new.rules[0]
    assert all(grant.release() for grant in held)


# --- bad arguments ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: requests(0), "amount of 1"),
        (lambda: requests(1, 0), "period above 0"),
        (lambda: requests(1, -1), "period above 0"),
        (lambda: requests(1, MINUTE, -1), "burst of 1"),
        (lambda: requests(1, MINUTE, name=""), "name"),
        (lambda: requests(1, MINUTE, per=256), "PER_"),
        (lambda: limit.Rule("x", 0, 7, 1, 1), "unit"),
        (lambda: limit.Rule("x", 0, 0, 1, 1, algorithm=4), "algorithm"),
        (lambda: limit.Rule("x", 0, 0, 1, 1, calendar=limit.DAY), "calendar"),
        (lambda: limit.Rule("x", 0, 0, 1, algorithm=limit.CALENDAR), "calendar"),
        (lambda: limit.Rule("x", 0, 0, 1, 1, algorithm=limit.CALENDAR, calendar=limit.DAY), "no period"),
        (lambda: limit.Rule("x", 0, 0, 1, algorithm=limit.SLIDING), "period above 0"),
        (lambda: limit.Rule("x", 0, 0, 1, 1, 1, algorithm=limit.TOTAL), "only a bucket"),
        (lambda: limit.Rule("x", 0, 0, 2**61, 1, algorithm=limit.TOTAL), "2\\*\\*60"),
        (lambda: limit.Rule("x", 0, 0, 1, 1, only=(3, 1)), "only"),
        (lambda: limit.Rule("x", 0, 0, 1, 1, marks=(0.1,) * 5), "at most 4 marks"),
        (lambda: limit.Rule("x", 0, 0, 1, 1, marks=(1.5,)), "up to 1"),
        (lambda: limit.Rule("x", 0, limit.STREAMS, 1, algorithm=limit.TOTAL), "neither"),
        (lambda: limit.Rule("x", 0, limit.STREAMS, 1, leased=True), "neither leased"),
        (lambda: requests(1, 2**56), "2.2 years"),
        (lambda: requests(10, 2**55, burst=100), "2.2 years"),
        (lambda: requests(2**62, 1), "2.2 years"),
        (lambda: limit.Rule("x", 0, limit.CONCURRENT, 5, 1), "neither"),
        (lambda: limit.Rule("x", 0, limit.CONCURRENT, 5, 0, 1), "neither"),
        (lambda: gate(28 * 65_535 + 1), "1834980"),
        (lambda: limits(*(requests(1, name=f"r{i}") for i in range(17))), "at most 16"),
        (lambda: limits(*(requests(1, name=f"r{i}") for i in range(257))), "at most 256"),
        (lambda: limit.Table(windows=7), "windows, got 7"),
        (lambda: limit.Table(leases=7), "leases, got 7"),
        (lambda: limit.Table().set_lease_mode(2, 0), "group"),
        (lambda: limit.Table().set_lease_mode(0, 4), "mode"),
        (lambda: limit.Table().lease_mode(-1), "group"),
        (lambda: limit.Table().lend(5, -1, 0, 0), "-1"),
        (lambda: limit.Table().resume(0, 0, 0), "boot"),
        (lambda: limits().admit(0).extend(-1, 0, 0), "-1"),
        (lambda: limits(requests(1), requests(2)), "twice"),
        (lambda: limits().admit(0, input_tokens=-1), "-1"),
        (lambda: limits().admit(-1), "-1"),
        (lambda: limits().admit(0).settle(-1, 0, 0, 0), "-1"),
        (lambda: limit.Table(slots=7), "slots, got 7"),
        (lambda: limit.Table(gates=2**25), "gates, got 33554432"),
        (lambda: limit.Table(worker=28), "worker from 0 to 27"),
        (lambda: limit.Table().reclaim(-1), "worker from 0 to 27"),
    ],
)
def test_bad_arguments_are_refused(make: Callable[[], object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make()


def test_rules_say_what_they_are() -> None:
    rule = requests(600, MINUTE, 60)
    assert (rule.name, rule.per, rule.unit, rule.amount, rule.period_ns, rule.burst) == ("r", 1, 0, 600, MINUTE, 60)
    assert (requests(600).burst, gate(7).burst, gate(7).amount, repr(rule)) == (600, 0, 7, "<Rule 'r'>")
    table = limit.Table(slots=100, gates=50)
    assert (table.slots, table.gates, limits(rule, table=table).table) == (100, 50, table)


def test_subject_hashes_spread_and_stay() -> None:
    # Fixed: workers of a rolling restart share one table.
    assert [limit.subject(text) for text in (b"", b"hello", b"hello, world")] == FIXED
    texts = {b"%d" % i for i in range(20_000)} | {bytes(i) for i in range(100)} | {b"\x80" * i for i in range(1, 100)}
    hashes = {limit.subject(text) for text in texts}
    assert len(hashes) == len(texts)
    for shift in (0, 24, 56):
        assert {value >> shift & 255 for value in hashes} == set(range(256))


FIXED = [0x9CA066F1A4AB2EEA, 0x9A07EC9628CA5904, 0xE11D9B88E28499A6]
