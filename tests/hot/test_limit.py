"""Limits: exactness in virtual time, and agreement with an exact model."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agw_proxy._hot import limit
from tests.hot import model_limit
from tests.hot.rules import HOUR, MINUTE, SECOND, gate, limits, requests, tokens

# --- buckets ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("amount", [1, 7, 600, 3333, 9999])
@pytest.mark.parametrize("period", [1, 999, SECOND, MINUTE, 30 * 24 * HOUR])
def test_ten_thousand_decisions_at_one_instant_admit_exactly_the_amount(amount: int, period: int) -> None:
    rules = limits(requests(amount, period))
    assert sum(rules.admit(1, 0, 0, 0, 5 * SECOND).granted for _ in range(10_000)) == amount


@pytest.mark.parametrize("amount", [1, 7, 600, 3333])
def test_ten_thousand_decisions_over_a_period_admit_the_burst_and_the_refill(amount: int) -> None:
    rules = limits(requests(amount, MINUTE))
    cell = model_limit.cell_of(rules.rules[0])
    step = MINUTE // 10_000
    admitted = sum(rules.admit(1, 0, 0, 0, SECOND + i * step).granted for i in range(10_000))
    assert admitted == min(10_000, amount + int(9_999 * step / cell))


@given(st.lists(st.integers(1, 400), min_size=1, max_size=300))
def test_tokens_pass_to_the_exact_number_however_they_are_split(costs: list[int]) -> None:
    rules = limits(tokens(10_000, 7 * SECOND))
    taken = 0
    for cost in [*costs, *[400] * 25, *[1] * 400]:
        granted = rules.admit(1, 0, 0, cost, SECOND).granted
        assert granted == (taken + cost <= 10_000)
        taken += cost * granted
    assert taken == 10_000


def test_the_same_request_passes_after_retry_after_and_not_before() -> None:
    rules = limits(requests(3, SECOND), tokens(700, MINUTE, name="t"))
    now = SECOND
    for _ in range(50):
        grant = rules.admit(1, 0, 0, 97, now)
        if grant.granted:
            continue
        assert grant.retry_after_ns > 0
        early = rules.admit(1, 0, 0, 97, now + grant.retry_after_ns - 1)
        assert (early.granted, early.rule) == (False, grant.rule)
        now += grant.retry_after_ns
        late = rules.admit(1, 0, 0, 97, now)
        assert late.granted or late.rule is not grant.rule


def test_an_estimate_above_the_burst_passes_on_a_full_bucket_only() -> None:
    rules = limits(tokens(100, SECOND))
    assert rules.admit(1, 0, 0, 5000, SECOND).granted
    assert not rules.admit(1, 0, 0, 5000, 2 * SECOND - 1).granted
    assert rules.admit(1, 0, 0, 5000, 2 * SECOND).granted


def test_a_debt_is_waited_for() -> None:
    rules = limits(tokens(100, SECOND))
    assert rules.admit(1, 0, 0, 10, SECOND).settle(400, SECOND)
    broke = rules.admit(1, 0, 0, 0, SECOND)
    assert (broke.granted, broke.retry_after_ns, broke.tokens_remaining) == (False, 3 * SECOND, 0)
    assert rules.admit(1, 0, 0, 0, 4 * SECOND).granted


def test_an_absurd_count_makes_a_bounded_debt() -> None:
    rules = limits(tokens(100, HOUR * 1000))
    assert rules.admit(1, 0, 0, 1, SECOND).settle(2**63 - 1, SECOND)
    assert not rules.admit(1, 0, 0, 0, HOUR).granted
    cheap = limits(tokens(2**31, SECOND))
    assert cheap.admit(1, 0, 0, 0, SECOND).settle(2**62, SECOND)
    assert cheap.admit(1, 0, 0, 2**31, 2 * SECOND + 1000).granted is (
        model_limit.cell_of(cheap.rules[0]) * 2**31 <= SECOND + 1000
    )


def test_settling_and_releasing_happen_once() -> None:
    rules = limits(tokens(100, HOUR), requests(10, HOUR), gate(1))
    grant = rules.admit(1, 0, 0, 50, SECOND)
    assert [grant.settle(20, SECOND), grant.settle(0, SECOND), grant.cancel(SECOND)] == [True, False, False]
    assert [grant.release(), grant.release()] == [True, False]
    second = rules.admit(1, 0, 0, 30, SECOND)
    assert (second.tokens_remaining, second.requests_remaining) == (50, 8)
    assert [second.cancel(SECOND), second.settle(90, SECOND)] == [True, False]
    second.release()
    third = rules.admit(1, 0, 0, 0, SECOND)
    assert (third.tokens_remaining, third.requests_remaining) == (80, 8)


def test_a_refused_grant_has_nothing_to_give_back() -> None:
    rules = limits(gate(1), requests(1, HOUR))
    first = rules.admit(1, 0, 0, 0, SECOND)
    refused = rules.admit(1, 0, 0, 0, SECOND)
    assert [refused.granted, refused.settle(5, SECOND), refused.cancel(SECOND), refused.release()] == [False] * 4
    first.release()
    assert rules.admit(1, 0, 0, 0, SECOND).rule is rules.rules[1]


def test_all_rules_or_none() -> None:
    table = limit.Table()
    rules = limits(requests(5, HOUR), tokens(100, HOUR), gate(3), requests(1, HOUR, name="last"), table=table)
    held = rules.admit(1, 0, 0, 10, SECOND)
    for _ in range(20):
        refused = rules.admit(1, 0, 0, 10, SECOND)
        assert refused.rule is rules.rules[3]
    without_last = limit.Limits(table, rules.rules[:3])
    again = without_last.admit(1, 0, 0, 90, SECOND)
    assert (again.granted, again.requests_remaining, again.tokens_remaining) == (True, 3, 0)
    assert held.granted


def test_the_tightest_rule_is_reported() -> None:
    rules = limits(requests(10, HOUR, name="a"), requests(4, SECOND, name="b"), requests(4, MINUTE, name="c"))
    grant = rules.admit(1, 0, 0, 0, SECOND)
    assert (grant.requests_limit, grant.requests_remaining, grant.requests_reset_ns) == (4, 3, MINUTE // 4)
    assert (grant.tokens_limit, grant.tokens_remaining, grant.tokens_reset_ns) == (-1, -1, -1)


def test_without_rules_everything_passes() -> None:
    grant = limits().admit(1, 2, 3, 10**6, 0)
    assert (grant.granted, grant.rule, grant.retry_after_ns, grant.requests_limit) == (True, None, 0, -1)
    assert [grant.settle(1, 0), grant.settle(1, 0), grant.release(), grant.release()] == [True, False, True, False]


@pytest.mark.parametrize("per", [limit.PER_GLOBAL, limit.PER_KEY, limit.PER_USER, limit.PER_MODEL])
def test_a_rule_counts_by_its_own_subject_alone(per: int) -> None:
    rules = limits(requests(1, HOUR, per=per))
    passed = [rules.admit(*who, 0, SECOND).granted for who in ((1, 1, 1), (2, 1, 1), (1, 2, 1), (1, 1, 2))]
    assert passed == [True, per == limit.PER_KEY, per == limit.PER_USER, per == limit.PER_MODEL]


@pytest.mark.parametrize("drift", [0, -1, -SECOND, -HOUR])
def test_a_clock_that_stands_or_goes_back_grants_nothing_extra(drift: int) -> None:
    rules = limits(requests(50, MINUTE), gate(100))
    start = 2 * HOUR
    assert sum(rules.admit(1, 0, 0, 0, max(0, start + i * drift)).granted for i in range(500)) == 50


def test_a_reload_with_the_same_names_goes_on() -> None:
    table = limit.Table()
    old = limits(requests(5, HOUR), gate(2), table=table)
    held = [old.admit(1, 0, 0, 0, SECOND) for _ in range(2)]
    new = limits(gate(3), requests(5, HOUR), tokens(5, HOUR, name="r"), table=table)
    third = new.admit(1, 0, 0, 5, SECOND)
    assert (third.granted, third.requests_remaining, third.tokens_remaining) == (True, 2, 0)
    assert new.admit(1, 0, 0, 0, SECOND).rule is new.rules[0]
    assert all(grant.release() for grant in held)


# --- against the model --------------------------------------------------------------------------------------------

RULES = (
    requests(3, SECOND, per=limit.PER_GLOBAL, name="all"),
    requests(7, 3 * SECOND, burst=2),
    tokens(97, 11 * SECOND + 1, per=limit.PER_USER),
    tokens(50, SECOND, burst=120, per=limit.PER_MODEL, name="m"),
    gate(2),
    gate(3, per=limit.PER_USER, name="u"),
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("wait"), st.integers(-SECOND, 3 * SECOND), st.just(0)),
        st.tuples(st.just("admit"), st.integers(0, 3), st.integers(0, 130)),
        st.tuples(st.sampled_from(["settle", "cancel", "release"]), st.integers(0, 20), st.integers(0, 300)),
    ),
    max_size=60,
)


def seen(grant: limit.Grant) -> tuple[object, ...]:
    room = (grant.requests_limit, grant.requests_remaining, grant.requests_reset_ns)
    return (
        grant.granted,
        grant.rule,
        grant.retry_after_ns,
        room,
        (grant.tokens_limit, grant.tokens_remaining, grant.tokens_reset_ns),
    )


def wanted(grant: model_limit.Grant) -> tuple[object, ...]:
    rooms = [(room.limit, room.remaining, room.reset_ns) for room in (grant.requests, grant.tokens)]
    return grant.granted, grant.rule, grant.retry_after_ns, *rooms


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(RULES), unique=True, max_size=6), STEPS)
def test_every_decision_is_the_models(rules: list[limit.Rule], steps: list[tuple[str, int, int]]) -> None:
    real, model = limits(*rules), model_limit.Limits(model_limit.Table(), rules)
    grants: list[tuple[limit.Grant, model_limit.Grant]] = []
    now = 10 * SECOND
    for what, a, b in steps:
        if what == "wait":
            now += a
        elif what == "admit":
            grants.append((real.admit(a, a % 2, 9, b, max(0, now)), model.admit(a, a % 2, 9, b, max(0, now))))
            assert seen(grants[-1][0]) == wanted(grants[-1][1])
        elif grants:
            mine, theirs = grants[a % len(grants)]
            if what == "settle":
                assert mine.settle(b, max(0, now)) == theirs.settle(b, max(0, now))
            elif what == "cancel":
                assert mine.cancel(max(0, now)) == theirs.cancel()
            else:
                assert mine.release() == theirs.release()


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.sampled_from(RULES), unique=True, min_size=1, max_size=3),
    st.lists(
        st.tuples(
            st.integers(0, 30), st.integers(0, 130), st.integers(0, 2 * SECOND), st.integers(0, 3), st.booleans()
        ),
        min_size=20,
        max_size=150,
    ),
)
def test_a_crowded_table_is_never_laxer_than_the_model(
    rules: list[limit.Rule], steps: list[tuple[int, int, int, int, bool]]
) -> None:
    table = limit.Table(slots=8, gates=8)
    real, model = limits(*rules, table=table), model_limit.Limits(model_limit.Table(), rules)
    grants: list[tuple[limit.Grant, model_limit.Grant]] = []
    now = 10 * SECOND
    for who, amount, wait, ending, pause in steps:
        now += wait * pause
        mine = real.admit(who, who, who, amount, now)
        if not mine.granted:
            continue
        theirs = model.admit(who, who, who, amount, now)
        assert theirs.granted
        grants.append((mine, theirs))
        done, reference = grants[who % len(grants)]
        if ending == 0:
            assert done.settle(amount * 2, now) == reference.settle(amount * 2, now)
        elif ending == 1:
            assert done.cancel(now) == reference.cancel()
        elif ending == 2:
            assert done.release() == reference.release()


# --- bad arguments ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: requests(0), "amount of 1"),
        (lambda: requests(1, 0), "period above 0"),
        (lambda: requests(1, -1), "period above 0"),
        (lambda: requests(1, MINUTE, -1), "burst of 1"),
        (lambda: requests(1, MINUTE, name=""), "name"),
        (lambda: requests(1, MINUTE, per=4), "PER_"),
        (lambda: limit.Rule("x", 0, 3, 1, 1), "unit"),
        (lambda: requests(1, 2**56), "2.2 years"),
        (lambda: requests(10, 2**55, burst=100), "2.2 years"),
        (lambda: requests(2**62, 1), "2.2 years"),
        (lambda: limit.Rule("x", 0, limit.CONCURRENT, 5, 1), "neither"),
        (lambda: limit.Rule("x", 0, limit.CONCURRENT, 5, 0, 1), "neither"),
        (lambda: gate(65_536), "65535"),
        (lambda: limits(*(requests(1, name=f"r{i}") for i in range(17))), "at most 16"),
        (lambda: limits(requests(1), requests(2)), "twice"),
        (lambda: limits().admit(0, 0, 0, -1, 0), "-1"),
        (lambda: limits().admit(0, 0, 0, 0, -1), "-1"),
        (lambda: limits().admit(0, 0, 0, 0, 0).settle(-1, 0), "-1"),
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
