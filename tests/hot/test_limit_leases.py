"""Leases: what is spent is what was lent, whatever happens to an exchange; and the modes for when nobody lends."""

import mmap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agw_proxy._hot import limit
from tests.hot.rules import HOUR, MINUTE, SECOND, limits

FAR = 1000 * HOUR


def leased(amount: int = 100, unit: int = limit.REQUESTS, algorithm: int = limit.BUCKET, name: str = "l") -> limit.Rule:
    return limit.Rule(name, limit.PER_KEY, unit, amount, HOUR, algorithm=algorithm, leased=True)


def lend(rules: limit.Limits, amount: int, now: int = SECOND, expires: int = FAR, input_tokens: int = 0) -> int:
    """Lend to the first rule for key 1; gives the tag."""
    ((_, tag, _), *_) = rules.admit(now, key=1, input_tokens=input_tokens).short
    assert rules.table.lend(tag, amount, expires, now)
    return tag


def test_without_credit_all_that_are_short_are_named_and_nothing_is_taken() -> None:
    free = limit.Rule("free", limit.PER_KEY, limit.REQUESTS, 1, HOUR)
    gate = limit.Rule("gate", limit.PER_KEY, limit.CONCURRENT, 1)
    rules = limits(free, gate, leased(), leased(unit=limit.TOKENS, name="t"), leased(unit=limit.COST, name="c"))
    for _ in range(3):
        grant = rules.admit(SECOND, key=1, input_tokens=30, output_tokens=10, cost=0)
        assert (grant.granted, grant.rule, grant.closed) == (False, rules.rules[2], False)
        assert [(rule.name, amount) for rule, _, amount in grant.short] == [("l", 1), ("t", 40), ("c", 1)]
    for _, tag, amount in grant.short:
        assert rules.table.lend(tag, amount, FAR, SECOND)
    grant = rules.admit(SECOND, key=1, input_tokens=30, output_tokens=10)
    assert (grant.granted, grant.short) == (True, ())
    refused = rules.admit(SECOND, key=1, input_tokens=1)
    assert (refused.rule, refused.short) == (free, ())


def test_credit_is_spent_to_the_last_and_then_missing() -> None:
    rules = limits(leased(unit=limit.TOKENS))
    lend(rules, 10, input_tokens=3)
    passed = [rules.admit(SECOND, key=1, input_tokens=3) for _ in range(4)]
    assert [grant.granted for grant in passed] == [True, True, True, False]
    assert passed[-1].short[0][2] == 2
    # Another subject has nothing of it.
    assert not rules.admit(SECOND, key=2, input_tokens=1).granted


def test_what_will_soon_be_low_goes_along_once_with_what_is() -> None:
    rules = limits(leased(), leased(name="m"), leased(name="n"))
    low, soon, full = (tag for _, tag, _ in rules.admit(SECOND, key=1).short)
    for tag, amount in ((low, 5), (soon, 8), (full, 40)):
        assert rules.table.lend(tag, amount, FAR, SECOND)

    def wanted(spent: int) -> set[tuple[int, int]]:
        assert all(rules.admit(SECOND, key=1).granted for _ in range(spent))
        return {(tag, amount) for _, tag, amount in rules.table.wanting(SECOND)}

    assert wanted(3) == set()  # of none less than a third is left
    assert wanted(1) == {(low, 4), (soon, 4)}
    assert wanted(1) == {(low, 5)}  # the other one was told
    assert rules.table.lend(low, 40, FAR, SECOND)
    assert wanted(1) == set()
    assert wanted(1) == {(soon, 7)}  # nobody has asked for it, and nearly all is spent
    assert rules.table.lend(soon, 7, FAR, SECOND)
    assert wanted(6) == {(soon, 6), (full, 13)}


def test_who_hears_is_called_from_the_decision_that_leaves_less_than_a_third() -> None:
    rules = limits(leased())
    lend(rules, 4)
    heard: list[int] = []
    rules.table.hear(lambda: heard.append(1))
    told = []
    for _ in range(3):
        assert rules.admit(SECOND, key=1).granted
        told.append(len(heard))
    assert told == [0, 0, 1]
    assert rules.table.wanting(SECOND)

    def stumble() -> None:
        heard.append(1)
        raise ValueError

    rules.table.hear(stumble)
    assert rules.admit(SECOND, key=1).granted
    rules.table.hear(None)
    assert not rules.admit(SECOND, key=1).granted
    assert len(heard) == 2


def test_who_hears_is_called_once_until_somebody_looks_or_a_mode_is_set() -> None:
    rules = limits(leased())
    lend(rules, 18)
    heard: list[int] = []
    rules.table.hear(lambda: heard.append(1))

    def told(spent: int) -> int:
        assert all(rules.admit(SECOND, key=1).granted for _ in range(spent))
        return len(heard)

    assert [told(12), told(1), told(1)] == [0, 1, 1]
    assert rules.table.wanting(SECOND)
    assert [told(1), told(1)] == [1, 2]  # when nearly all is spent
    rules.table.set_lease_mode(0, limit.LEASED)
    assert told(1) == 3


@pytest.mark.parametrize("leases", [8, 100, 1000, 16384])
def test_wherever_a_lease_stands_it_is_found(leases: int) -> None:
    rules = limits(leased(), table=limit.Table(leases=leases))
    keys = range(1, 1 + min(leases // 2, 200))

    def short(key: int) -> int:
        ((_, tag, _),) = rules.admit(SECOND, key=key).short
        return tag

    tags = [short(key) for key in keys]
    assert all(rules.table.lend(tag, 4, FAR, SECOND) for tag in tags)
    for _ in range(2):
        assert all(rules.admit(SECOND, key=key).granted for key in keys)
    assert rules.table.wanting(SECOND) == []
    low, *along = keys
    assert rules.admit(SECOND, key=low).granted
    wanted = {tag for _, tag, _ in rules.table.wanting(SECOND)}
    assert wanted <= set(tags)
    assert (tags[0] in wanted, len(wanted)) == (True, 1 + min(len(along), 16))
    assert all(rules.admit(SECOND, key=key).granted for key in along)
    assert {tag for _, tag, _ in rules.table.wanting(SECOND)} == set(tags) - wanted
    assert all(rules.admit(SECOND, key=key).granted for key in keys)
    assert {tag for _, tag, _ in rules.table.wanting(SECOND)} == set(tags)


def test_credit_below_a_third_asks_for_more_and_again_when_nearly_all_is_spent() -> None:
    rules = limits(leased())
    tag = lend(rules, 4)
    for wanted in ([], [], [(rules.rules[0], tag, 3)], [(rules.rules[0], tag, 4)]):
        assert rules.admit(SECOND, key=1).granted
        assert rules.table.wanting(SECOND) == wanted
        assert rules.table.wanting(SECOND) == []
    assert rules.table.lend(tag, 4, FAR, SECOND)
    for wanted in ([], [], [(rules.rules[0], tag, 3)]):
        assert rules.admit(SECOND, key=1).granted
        assert rules.table.wanting(SECOND) == wanted


def test_what_was_lent_meanwhile_is_not_asked_for() -> None:
    rules = limits(leased())
    tag = lend(rules, 4)
    assert all(rules.admit(SECOND, key=1).granted for _ in range(3))
    assert rules.table.lend(tag, 3, FAR, SECOND)
    assert rules.table.wanting(SECOND) == []


def test_expired_credit_gives_nothing_and_is_there_to_be_taken_back() -> None:
    rules = limits(leased())
    tag = lend(rules, 10, expires=3 * SECOND)
    assert rules.admit(3 * SECOND - 1, key=1).granted
    assert rules.admit(3 * SECOND, key=1).short == ((rules.rules[0], tag, 1),)
    assert rules.table.reclaim_credit(tag) == 9
    assert rules.table.reclaim_credit(tag) == 0
    assert rules.table.reclaim_credit(tag + 1) == 0


@pytest.mark.parametrize(("after", "back"), [(HOUR // 2, 40), (2 * HOUR, 0)])
def test_of_a_window_that_is_over_nothing_comes_back(after: int, back: int) -> None:
    rules = limits(leased(100, unit=limit.TOKENS, algorithm=limit.SLIDING))
    lend(rules, 50, input_tokens=1)
    grant = rules.admit(SECOND, key=1, input_tokens=50)
    assert grant.settle(10, 0, 0, SECOND + after)
    assert rules.look(SECOND + after, key=1)[0].remaining == back


def test_answers_that_outlast_the_filling_of_a_bucket_bring_back_no_more_than_it_holds() -> None:
    rules = limits(leased(100, unit=limit.TOKENS))
    grants = []
    for hour in range(5):
        tag = lend(rules, 100, SECOND + hour * HOUR, input_tokens=1)
        grants.append(rules.admit(SECOND + hour * HOUR, key=1, input_tokens=100))
    assert all(grant.settle(0, 0, 0, SECOND + 5 * HOUR) for grant in grants)
    assert rules.table.reclaim_credit(tag) == 100


def test_what_came_back_while_more_was_asked_for_is_lent_with_it() -> None:
    rules = limits(leased(unit=limit.TOKENS))
    tag = lend(rules, 20, expires=3 * SECOND, input_tokens=1)
    grant = rules.admit(SECOND, key=1, input_tokens=20)
    assert rules.admit(4 * SECOND, key=1, input_tokens=10).short == ((rules.rules[0], tag, 10),)
    assert grant.settle(5, 0, 0, 4 * SECOND)
    assert rules.table.lend(tag, 10, FAR, 4 * SECOND)
    assert rules.look(4 * SECOND, key=1)[0].remaining == 25


def test_what_comes_back_when_all_was_called_in_asks_to_be_taken_back_before_it_expires() -> None:
    rules = limits(leased(unit=limit.TOKENS))
    tag = lend(rules, 50, expires=3 * SECOND, input_tokens=1)
    grant = rules.admit(SECOND, key=1, input_tokens=50)
    assert rules.table.wanting(SECOND) == [(rules.rules[0], tag, 50)]
    assert rules.table.reclaim_credit(tag) == 0
    assert grant.settle(5, 0, 0, 2 * SECOND)
    assert rules.table.wanting(2 * SECOND) == [(rules.rules[0], tag, -45)]
    assert rules.table.reclaim_credit(tag) == 45


def test_what_comes_back_after_its_lease_asks_to_be_taken_back() -> None:
    rules = limits(leased(unit=limit.TOKENS))
    tag = lend(rules, 50, expires=3 * SECOND, input_tokens=1)
    grant = rules.admit(SECOND, key=1, input_tokens=20)
    assert rules.table.reclaim_credit(tag) == 30
    assert grant.settle(5, 0, 0, 10 * SECOND)
    assert rules.table.wanting(10 * SECOND) == [(rules.rules[0], tag, -15)]
    assert rules.table.reclaim_credit(tag) == 15


def test_a_rule_is_known_by_its_name_and_unit() -> None:
    old, new, other = leased(100), leased(10), leased(10, unit=limit.TOKENS)
    table = limits(old).table
    assert table.current(old) is old
    limit.Limits(table, [new])
    assert table.current(old) is new
    assert table.current(other) is other


def test_a_debt_waits_for_the_next_lease_and_is_paid_first() -> None:
    rules = limits(leased(unit=limit.TOKENS))
    tag = lend(rules, 10, input_tokens=1)
    grant = rules.admit(SECOND, key=1, input_tokens=10)
    assert grant.settle(10, 25, 0, SECOND)
    refused = rules.admit(SECOND, key=1, input_tokens=5)
    assert refused.short == ((rules.rules[0], tag, 30),)
    assert rules.table.wanting(SECOND) == [(rules.rules[0], tag, 35)]
    assert rules.table.lend(tag, 29, FAR, SECOND)
    assert not rules.admit(SECOND, key=1, input_tokens=5).granted
    assert rules.table.lend(tag, 1, FAR, SECOND)
    assert rules.admit(SECOND, key=1, input_tokens=5).granted


def test_a_debt_outlives_the_lease_and_can_be_called_in() -> None:
    rules = limits(leased(unit=limit.TOKENS))
    tag = lend(rules, 10, expires=2 * SECOND, input_tokens=1)
    assert rules.admit(SECOND, key=1, input_tokens=10).settle(40, 0, 0, 5 * SECOND)
    assert rules.table.wanting(5 * SECOND) == [(rules.rules[0], tag, 30)]
    assert rules.table.reclaim_credit(tag) == -30


def test_the_shared_limit_stands_in_the_headers() -> None:
    rules = limits(leased(100))
    (_, tag, _) = rules.admit(SECOND, key=1).short[0]
    assert rules.table.lend(tag, 5, FAR, SECOND, 60)
    grant = rules.admit(SECOND, key=1)
    assert (grant.requests_limit, grant.requests_remaining) == (100, 64)
    assert rules.look(SECOND, key=1)[0].remaining == 4


def test_an_extension_takes_credit_and_a_move_leaves_it() -> None:
    up = limit.Rule("up", limit.PER_UPSTREAM, limit.OUTPUT, 100, HOUR, leased=True)
    rules = limits(up)
    for upstream in (1, 2):
        assert rules.table.lend(rules.admit(SECOND, upstream=upstream).short[0][1], 50, FAR, SECOND)
    grant = rules.admit(SECOND, upstream=1, output_tokens=30)
    assert grant.extend(20, 0, SECOND) is None
    assert grant.extend(1, 0, SECOND) is up
    assert grant.move(2, SECOND) is None
    assert [rules.look(SECOND, upstream=k)[0].remaining for k in (1, 2)] == [50, 0]
    assert grant.settle(0, 10, 0, SECOND)
    assert [rules.look(SECOND, upstream=k)[0].remaining for k in (1, 2)] == [50, 40]


# --- modes --------------------------------------------------------------------------------------------------------


def test_closed_refuses_and_open_lets_pass_by_group() -> None:
    table = limit.Table()
    plain, money = limits(leased(), table=table), limits(leased(unit=limit.COST, name="c"), table=table)
    assert [table.lease_mode(group) for group in (0, 1)] == [limit.LEASED] * 2
    table.set_lease_mode(1, limit.CLOSED)
    grant = money.admit(SECOND, key=1, cost=5)
    assert (grant.granted, grant.closed, grant.rule, grant.short) == (False, True, money.rules[0], ())
    assert plain.admit(SECOND, key=1).closed is False
    table.set_lease_mode(0, limit.OPEN)
    passed = [plain.admit(SECOND, key=1) for _ in range(200)]
    assert all(grant.granted and not grant.short for grant in passed)
    assert not limits(leased(unit=limit.COST, name="d"), table=table).admit(SECOND, key=1).granted


def test_rules_that_are_not_leased_know_no_modes() -> None:
    rules = limits(limit.Rule("r", limit.PER_KEY, limit.REQUESTS, 1, HOUR))
    for mode in (limit.CLOSED, limit.OPEN, limit.LOCAL):
        rules.table.set_lease_mode(0, mode)
    rules.table.replicas = 10
    assert [rules.admit(SECOND, key=1).granted for _ in range(2)] == [True, False]


@pytest.mark.parametrize("algorithm", [limit.BUCKET, limit.SLIDING, limit.TOTAL])
@pytest.mark.parametrize(("replicas", "share"), [(1, 12), (3, 4), (5, 2), (50, 1)])
def test_local_gives_each_node_its_share(algorithm: int, replicas: int, share: int) -> None:
    rules = limits(leased(12, algorithm=algorithm))
    rules.table.set_lease_mode(0, limit.LOCAL)
    rules.table.replicas = replicas
    assert rules.table.replicas == replicas
    grants = [rules.admit(SECOND, key=1) for _ in range(15)]
    assert sum(grant.granted for grant in grants) == share
    assert grants[0].requests_remaining == share - 1
    assert grants[0].cancel(SECOND)
    assert [rules.admit(SECOND, key=1).granted for _ in range(2)] == [True, False]


def test_a_bucket_that_is_shared_refills_by_the_share() -> None:
    rules = limits(leased(60))
    rules.table.set_lease_mode(0, limit.LOCAL)
    rules.table.replicas = 3
    assert all(rules.admit(SECOND, key=1).granted for _ in range(20))
    assert rules.admit(SECOND, key=1).retry_after_ns == 3 * MINUTE
    assert rules.admit(SECOND + 3 * MINUTE, key=1).granted


def test_local_goes_on_from_what_was_spent_of_leases() -> None:
    rules = limits(leased(12, algorithm=limit.SLIDING))
    lend(rules, 12)
    assert all(rules.admit(SECOND, key=1).granted for _ in range(3))
    rules.table.set_lease_mode(0, limit.LOCAL)
    rules.table.replicas = 3
    assert [rules.admit(SECOND, key=1).granted for _ in range(2)] == [True, False]
    rules.table.set_lease_mode(0, limit.LEASED)
    assert rules.admit(SECOND, key=1).granted


# --- lines --------------------------------------------------------------------------------------------------------


def test_lines_of_expired_leases_without_a_debt_move_on() -> None:
    table = limit.Table(slots=64, leases=8)
    rules = limits(leased(unit=limit.TOKENS), table=table)
    asked = [rules.admit(SECOND, key=k, input_tokens=1).short[0][1] for k in range(20)]
    assert [table.lend(tag, 5, 2 * SECOND, SECOND) for tag in asked] == [True] * 8 + [False] * 12
    debtor = rules.admit(SECOND, key=0, input_tokens=5)
    assert debtor.settle(9, 0, 0, SECOND)
    later = 10 * SECOND
    assert [table.lend(tag, 5, FAR, later) for tag in asked[8:16]] == [True] * 7 + [False]
    assert table.reclaim_credit(asked[0]) == -4


def test_a_worker_that_died_with_a_lease_in_hand_lets_go() -> None:
    memory = mmap.mmap(-1, limit.Table.size(8, 8, 8, 8))
    table = limit.Table(memory, slots=8, gates=8, windows=8, leases=8)
    rules = limits(leased(), table=table)
    lend(rules, 5)
    words = memoryview(memory).cast("Q")
    first = len(words) - 64
    line = next(at for at in range(first, first + 64, 8) if words[at])
    words[line + 1] = 4
    assert rules.admit(SECOND, key=1).retry_after_ns == 1_000_000
    assert table.reclaim(3) == 0
    assert rules.admit(SECOND, key=1).granted
    words.release()


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["lend", "admit", "settle", "cancel", "extend", "wait", "call in", "drop"]),
            st.integers(0, 30),
            st.integers(0, 40),
        ),
        max_size=80,
    )
)
def test_what_was_lent_is_spent_held_or_there(steps: list[tuple[str, int, int]]) -> None:
    """Credit neither appears nor is lost: lent = reserved or used + left, and what comes back fills up to the amount."""
    rules = limits(leased(30, unit=limit.TOKENS))
    table, now = rules.table, SECOND
    tag = rules.admit(now, key=1, input_tokens=1).short[0][1]
    credit, expires = 0, 0
    grants: list[tuple[limit.Grant, list[int]]] = []
    for what, a, b in steps:
        if what == "wait":
            now += b * SECOND
        elif what == "lend":
            credit += a
            expires = now + b * SECOND
            assert table.lend(tag, a, expires, now)
        elif what == "call in":
            assert table.reclaim_credit(tag) == credit
            credit = 0
        elif what == "admit":
            grant = rules.admit(now, key=1, input_tokens=b)
            wanted = min(b, 30)
            assert grant.granted is (expires > now and credit >= wanted)
            if grant.granted:
                credit -= wanted
                grants.append((grant, [wanted]))
            else:
                usable = credit if expires > now else min(credit, 0)
                assert grant.short == ((rules.rules[0], tag, max(wanted, 1) - usable),)
        elif grants:
            grant, held = grants[a % len(grants)]
            if what == "extend" and held:
                refused = grant.extend(b, 0, now)
                more = min(b, 30)
                assert (refused is None) is (more == 0 or (expires > now and credit >= more))
                if refused is None:
                    credit -= more
                    held[0] += more
            elif what in {"settle", "cancel"} and held:
                used = b if what == "settle" else 0
                assert grant.settle(used, 0, 0, now) if what == "settle" else grant.cancel(now)
                back = held.pop() - used
                credit = min(credit + back, max(credit, 30)) if back > 0 else credit + back
        assert rules.look(now, key=1)[0].remaining == (max(0, min(credit, 30)) if expires > now else 0)
