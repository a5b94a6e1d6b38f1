"""What a Grant holds: extended while an answer goes on, moved to another upstream, given back once."""

import pytest

from agw_proxy._hot import limit
from tests.hot.rules import HOUR, MINUTE, SECOND, budget, gate, limits, requests, tokens

UP = limit.PER_UPSTREAM


def left(rules: limit.Limits, upstream: int = 0, key: int = 1) -> dict[str, int]:
    """What each rule that applies has left, by name."""
    return {item.rule.name: item.remaining for item in rules.look(SECOND, key=key, upstream=upstream)}


# --- extend -------------------------------------------------------------------------------------------------------


def test_an_extension_takes_by_all_rules_or_none() -> None:
    out = limit.Rule("out", limit.PER_KEY, limit.OUTPUT, 100, HOUR, algorithm=limit.SLIDING)
    rules = limits(requests(5, HOUR), gate(1), tokens(200, HOUR), out, budget(50, name="usd"))
    grant = rules.admit(SECOND, key=1, input_tokens=10, output_tokens=20, cost=5)
    assert grant.extend(30, 10, SECOND) is None
    assert left(rules) == {"r": 4, "g": 0, "t": 140, "out": 50, "usd": 35}
    refused = grant.extend(30, 36, SECOND)
    assert refused is rules.rules[4]
    assert grant.retry_after_ns > HOUR
    assert left(rules) == {"r": 4, "g": 0, "t": 140, "out": 50, "usd": 35}
    assert grant.extend(51, 0, SECOND) is out
    assert left(rules) == {"r": 4, "g": 0, "t": 140, "out": 50, "usd": 35}
    assert grant.settle(10, 45, 12, SECOND)
    assert left(rules) == {"r": 4, "g": 0, "t": 145, "out": 55, "usd": 38}
    assert grant.extend(1000, 1000, SECOND) is None  # it is settled: nothing is counted any more
    assert left(rules) == {"r": 4, "g": 0, "t": 145, "out": 55, "usd": 38}


def test_all_that_was_extended_is_cancelled_with_it() -> None:
    rules = limits(tokens(200, HOUR), budget(50))
    grant = rules.admit(SECOND, key=1, output_tokens=20, cost=5)
    for _ in range(3):
        assert grant.extend(10, 5, SECOND) is None
    assert left(rules) == {"t": 150, "b": 30}
    assert grant.cancel(SECOND)
    assert left(rules) == {"t": 200, "b": 50}


def test_an_extension_may_bring_a_prompt_of_its_own() -> None:
    rules = limits(limit.Rule("in", limit.PER_KEY, limit.INPUT, 100, HOUR), tokens(200, HOUR), budget(50))
    grant = rules.admit(SECOND, key=1, input_tokens=10)
    assert grant.extend(20, 5, SECOND, 40) is None
    assert left(rules) == {"in": 50, "t": 130, "b": 45}
    assert grant.extend(20, 5, SECOND, 60) is rules.rules[0]
    assert left(rules) == {"in": 50, "t": 130, "b": 45}
    assert grant.settle(60, 30, 5, SECOND)
    assert left(rules) == {"in": 40, "t": 110, "b": 45}
    with pytest.raises(ValueError, match="-1"):
        grant.extend(0, 0, SECOND, -1)


def test_an_extension_tells_of_marks_even_where_it_is_refused() -> None:
    rules = limits(budget(100, marks=(0.5, 1.0)))
    grant = rules.admit(SECOND, key=1, cost=40)
    assert grant.extend(0, 10, SECOND) is None
    assert [share for _, share in grant.crossed] == [0.5]
    assert grant.extend(0, 60, SECOND) is rules.rules[0]
    assert [share for _, share in grant.crossed] == [0.5, 1.0]


def test_a_grant_that_holds_nothing_is_extended_for_nothing() -> None:
    assert limits().admit(SECOND).extend(10, 10, SECOND) is None
    rules = limits(requests(1, HOUR))
    assert rules.admit(SECOND, key=1).granted
    assert rules.admit(SECOND, key=1).extend(10, 10, SECOND) is None


# --- move ---------------------------------------------------------------------------------------------------------


def upstreams() -> limit.Limits:
    """Two upstreams with limits of their own, and others that look at the upstream or do not."""
    return limits(
        requests(10, HOUR, name="key"),
        limit.Rule("each", UP, limit.TOKENS, 100, HOUR),
        limit.Rule("one/gate", limit.PER_GLOBAL, limit.CONCURRENT, 1, only=(UP, 1)),
        limit.Rule("two/money", limit.PER_KEY, limit.COST, 50, MINUTE, algorithm=limit.SLIDING, only=(UP, 2)),
        limit.Rule("two/gate", limit.PER_GLOBAL, limit.CONCURRENT, 1, only=(UP, 2)),
        gate(3),
    )


def test_a_move_gives_back_what_the_one_upstream_counted_and_takes_it_at_the_other() -> None:
    rules = upstreams()
    grant = rules.admit(SECOND, key=1, upstream=1, input_tokens=30, cost=20)
    assert left(rules, 1) == {"key": 9, "each": 70, "one/gate": 0, "g": 2}
    assert grant.move(2, SECOND) is None
    assert left(rules, 1) == {"key": 9, "each": 100, "one/gate": 1, "g": 2}
    assert left(rules, 2) == {"key": 9, "each": 70, "two/money": 30, "two/gate": 0, "g": 2}
    assert grant.settle(10, 5, 50, SECOND)
    assert grant.release()
    assert left(rules, 2) == {"key": 9, "each": 85, "two/money": 0, "two/gate": 1, "g": 3}


def test_a_move_that_is_refused_leaves_nothing_at_either_upstream_and_can_go_on() -> None:
    rules = upstreams()
    there = rules.admit(SECOND, key=2, upstream=2, cost=31)
    assert there.granted
    grant = rules.admit(SECOND, key=1, upstream=1, input_tokens=30, cost=20)
    assert grant.move(2, SECOND) is rules.rules[4]
    assert (grant.granted, grant.closed, grant.retry_after_ns) == (True, False, 0)
    assert left(rules, 1) == {"key": 9, "each": 100, "one/gate": 1, "g": 2}
    assert left(rules, 2) == {"key": 9, "each": 100, "two/money": 50, "two/gate": 0, "g": 2}
    assert there.release()
    assert grant.move(2, SECOND) is None
    assert left(rules, 2) == {"key": 9, "each": 70, "two/money": 30, "two/gate": 0, "g": 2}
    assert grant.move(1, SECOND) is None
    assert grant.cancel(SECOND)
    del grant
    assert left(rules, 1) == {"key": 10, "each": 100, "one/gate": 1, "g": 3}
    assert left(rules, 2) == {"key": 10, "each": 100, "two/money": 50, "two/gate": 1, "g": 3}


def test_a_move_takes_along_what_was_extended() -> None:
    rules = upstreams()
    grant = rules.admit(SECOND, key=1, upstream=1, output_tokens=10)
    assert grant.extend(20, 5, SECOND) is None
    assert grant.move(2, SECOND) is None
    assert left(rules, 2) == {"key": 9, "each": 70, "two/money": 45, "two/gate": 0, "g": 2}


def test_a_move_says_when_to_come_again_and_whether_the_lease_is_closed() -> None:
    leased = limit.Rule("l", UP, limit.COST, 10, HOUR, leased=True)
    rules = limits(limit.Rule("u", UP, limit.REQUESTS, 1, HOUR), leased)
    rules.table.set_lease_mode(1, limit.OPEN)
    grants = [rules.admit(SECOND, upstream=upstream) for upstream in (1, 2)]
    assert grants[0].move(2, SECOND) is rules.rules[0]
    assert grants[0].retry_after_ns == HOUR
    rules.table.set_lease_mode(1, limit.CLOSED)
    assert grants[0].move(3, SECOND) is leased
    assert grants[0].closed
    assert rules.look(SECOND, upstream=3)[0].remaining == 1


def test_nothing_moves_without_need_or_after_the_end() -> None:
    rules = upstreams()
    grant = rules.admit(SECOND, key=1, upstream=1)
    assert grant.move(1, SECOND) is None
    assert grant.settle(0, 0, 0, SECOND)
    assert grant.move(2, SECOND) is None
    assert left(rules, 1)["one/gate"] == 0
    plain = limits(requests(1, HOUR))
    assert plain.admit(SECOND, key=1, upstream=1).move(2, SECOND) is None
    assert limits().admit(SECOND).move(2, SECOND) is None


# --- what it tells ------------------------------------------------------------------------------------------------


def test_input_and_output_stand_apart_and_both_in_tokens() -> None:
    rules = limits(
        limit.Rule("in", limit.PER_KEY, limit.INPUT, 100, MINUTE),
        limit.Rule("out", limit.PER_KEY, limit.OUTPUT, 80, HOUR),
    )
    grant = rules.admit(SECOND, key=1, input_tokens=30, output_tokens=20)
    assert (grant.input_tokens_limit, grant.input_tokens_remaining, grant.input_tokens_reset_ns) == (
        100,
        70,
        18 * SECOND,
    )
    assert (grant.output_tokens_limit, grant.output_tokens_remaining) == (80, 60)
    assert grant.output_tokens_reset_ns == 15 * MINUTE
    assert (grant.tokens_limit, grant.tokens_remaining, grant.tokens_reset_ns) == (80, 60, 15 * MINUTE)


def test_counts_says_what_the_rules_look_at() -> None:
    assert limits().counts == 0
    rules = limits(
        requests(1, per=limit.PER_KEY | limit.PER_USER),
        tokens(1, per=limit.PER_GLOBAL),
        limit.Rule("only", limit.PER_SESSION, limit.CONCURRENT, 1, only=(limit.PER_MODEL, 5)),
    )
    who = limit.PER_KEY | limit.PER_USER | limit.PER_SESSION | limit.PER_MODEL
    assert rules.counts == who | limit.COUNTS_TOKENS
    money = limit.Rule("m", limit.PER_TEAM, limit.COST, 1, MINUTE, leased=True)
    assert limits(money).counts == limit.PER_TEAM | limit.COUNTS_COST | limit.COUNTS_LEASES


def test_rules_of_other_subjects_take_no_room_among_those_of_one_request() -> None:
    rules = [
        limit.Rule(f"{upstream}/{i}", limit.PER_KEY, limit.REQUESTS, 9, MINUTE, only=(UP, upstream))
        for upstream in range(1, 15)
        for i in range(16)
    ]
    many = limits(*rules)
    assert many.admit(SECOND, upstream=3).granted
    assert [item.remaining for item in many.look(SECOND, upstream=3)] == [8] * 16
    assert [item.remaining for item in many.look(SECOND, upstream=4)] == [9] * 16


def test_streams_are_counted_among_those_that_stream() -> None:
    rules = limits(limit.Rule("s", limit.PER_KEY, limit.STREAMS, 1))
    held = [rules.admit(SECOND, key=1, stream=stream) for stream in (True, True, False)]
    assert [grant.granted for grant in held] == [True, False, True]
    assert repr(rules.look(SECOND, key=1)[0]) == "<Standing 's': 0 left, full in 0 ns>"
    assert held[0].release()
    assert rules.admit(SECOND, key=1, stream=True).granted
