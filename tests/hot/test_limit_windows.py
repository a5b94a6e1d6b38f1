"""Windows: sliding, calendars and totals; their marks, their lines in the table, and a dead worker's."""

import datetime as dt
import mmap
import struct

import pytest

from agw_proxy._hot import limit
from tests.hot.rules import DAY, HOUR, MINUTE, SECOND, budget, cap, limits, requests, sliding, tokens

WINDOW_WORDS = 32
WINDOWS_AT = 24 + 8 * (8 + 64) + 8 * (8 + 64)  # words: the header, then buckets and gates of a table of eights


def wall(year: int, month: int, day: int, hour: int = 0, minute: int = 0) -> int:
    return int(dt.datetime(year, month, day, hour, minute, tzinfo=dt.UTC).timestamp()) * SECOND


def eights() -> limit.Table:
    return limit.Table(slots=8, gates=8, windows=8, leases=8)


# --- sliding ------------------------------------------------------------------------------------------------------


def test_capacity_comes_back_in_steps_of_a_23rd_and_never_early() -> None:
    rules = limits(sliding(23, 23 * SECOND))
    start = 100 * SECOND
    limits(sliding(23, 23 * SECOND), table=rules.table).admit(start)  # the first decision: parts count from here
    for second in range(23):
        assert rules.admit(start + second * SECOND, key=1).granted
    full = rules.admit(start + 23 * SECOND - 1, key=1)
    assert (full.granted, full.retry_after_ns) == (False, SECOND + 1)
    # What came in the first second is forgotten a period after that second's end.
    assert [rules.admit(start + 24 * SECOND - 1, key=1).granted for _ in range(2)] == [False, False]
    assert [rules.admit(start + 24 * SECOND, key=1).granted for _ in range(2)] == [True, False]


def test_a_settlement_goes_into_the_part_that_it_was_taken_from() -> None:
    rules = limits(sliding(100, 23 * SECOND, unit=limit.TOKENS))
    early, late = (rules.admit(at * SECOND, key=1, input_tokens=40) for at in (10, 15))
    assert early.settle(10, 0, 0, 20 * SECOND)
    assert rules.look(20 * SECOND, key=1)[0].remaining == 50
    assert late.settle(50, 10, 0, 20 * SECOND)
    assert rules.look(20 * SECOND, key=1)[0].remaining == 30
    # What was too little counts from when it was known.
    assert [rules.look(at * SECOND, key=1)[0].remaining for at in (33, 34, 39, 44)] == [30, 40, 80, 100]


def test_a_settlement_after_its_part_is_forgotten_gives_nothing_back() -> None:
    rules = limits(sliding(100, 23 * SECOND, unit=limit.TOKENS))
    first = rules.admit(SECOND, key=1, input_tokens=100)
    assert rules.admit(30 * SECOND, key=1, input_tokens=100).granted
    assert first.settle(0, 0, 0, 30 * SECOND)
    assert not rules.admit(30 * SECOND, key=1, input_tokens=1).granted


def test_what_an_extension_took_goes_back_to_where_the_first_part_was_taken() -> None:
    rules = limits(sliding(100, 23 * SECOND, unit=limit.OUTPUT))
    grant = rules.admit(SECOND, key=1, output_tokens=20)
    assert grant.extend(30, 0, 11 * SECOND) is None
    assert rules.look(11 * SECOND, key=1)[0].remaining == 50
    assert grant.settle(0, 5, 0, 12 * SECOND)
    # 20 of the 45 go back at once; what is left over of the later part is forgotten with it.
    assert rules.look(12 * SECOND, key=1)[0].remaining == 70


# --- calendars ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("calendar", "until"),
    [
        (limit.HOUR, (2028, 2, 29)),
        (limit.DAY, (2028, 2, 29)),
        (limit.WEEK, (2028, 3, 6)),
        (limit.MONTH, (2028, 3, 1)),
    ],
)
def test_a_budget_is_whole_again_when_its_time_of_the_calendar_begins(
    calendar: int, until: tuple[int, int, int]
) -> None:
    begin = wall(2028, 2, 28, 23, 15)
    rules = limits(budget(100, calendar), table=limit.Table(wall_ns=begin))
    end = wall(*until)
    assert rules.admit(0, key=1, cost=100).granted
    refused = rules.admit(0, key=1, cost=1)
    assert refused.retry_after_ns == end - begin
    assert not rules.admit(end - begin - 1, key=1, cost=1).granted
    assert rules.admit(end - begin, key=1, cost=100).granted


def test_an_old_exchange_gives_nothing_back_to_the_new_month_but_owes_it() -> None:
    rules = limits(budget(100), table=limit.Table(wall_ns=wall(2027, 1, 31)))
    low, high = rules.admit(0, key=1, cost=40), rules.admit(0, key=1, cost=40)
    assert rules.admit(DAY, key=1, cost=60).granted
    assert low.settle(0, 0, 10, DAY)
    assert rules.look(DAY, key=1)[0].remaining == 40
    assert high.settle(0, 0, 55, DAY)
    assert rules.look(DAY, key=1)[0].remaining == 25


def test_settling_may_go_over_and_that_is_not_lost() -> None:
    rules = limits(budget(100), table=limit.Table(wall_ns=wall(2027, 1, 31)))
    assert rules.admit(0, key=1, cost=90).settle(0, 0, 250, 0)
    assert not rules.admit(0, key=1, cost=0).granted
    assert rules.admit(DAY, key=1, cost=100).granted


def test_an_estimate_above_a_budget_is_refused_and_one_above_a_limit_in_tokens_is_cut() -> None:
    assert not limits(budget(100)).admit(SECOND, key=1, cost=101).granted
    assert not limits(sliding(100, MINUTE, unit=limit.COST)).admit(SECOND, key=1, cost=101).granted
    for rules in (limits(budget(100, unit=limit.TOKENS)), limits(sliding(100, MINUTE, unit=limit.TOKENS))):
        assert rules.admit(SECOND, key=1, input_tokens=101).granted
        assert not rules.admit(SECOND, key=1, input_tokens=1).granted


@pytest.mark.parametrize("algorithm", [limit.SLIDING, limit.TOTAL])
def test_the_largest_amounts_are_exact(algorithm: int) -> None:
    amount = 10**15
    rules = limits(limit.Rule("x", 0, limit.COST, amount, 30 * DAY, algorithm=algorithm))
    assert rules.admit(SECOND, cost=amount - 1).granted
    assert not rules.admit(SECOND, cost=2).granted
    assert rules.admit(SECOND, cost=1).granted
    assert not rules.admit(SECOND, cost=1).granted


@pytest.mark.parametrize("amount", [10**12, 10**12 + 1, 999_999_999_989])
def test_a_bucket_of_a_trillion_is_strict_and_nearly_exact(amount: int) -> None:
    rules = limits(tokens(amount, MINUTE))
    whole, rest = divmod(amount, 2**31)
    assert all(rules.admit(SECOND, key=1, input_tokens=2**31).granted for _ in range(whole))
    left = rules.look(SECOND, key=1)[0].remaining
    assert rest - whole - 1 <= left <= rest
    assert rules.admit(SECOND, key=1, input_tokens=left).granted
    assert not rules.admit(SECOND, key=1, input_tokens=2).granted


# --- totals -------------------------------------------------------------------------------------------------------


def test_a_session_is_forgotten_after_its_silence_however_often_it_is_refused() -> None:
    rules = limits(cap(2, HOUR))
    assert [rules.admit(at * MINUTE, session=7).granted for at in (0, 59, 118)] == [True, True, False]
    refused = rules.admit(118 * MINUTE, session=7)
    assert refused.retry_after_ns == MINUTE
    assert not rules.admit(119 * MINUTE - 1, session=7).granted
    assert rules.admit(119 * MINUTE, session=7).granted


def test_a_settlement_keeps_a_session_awake() -> None:
    rules = limits(cap(100, HOUR, unit=limit.TOKENS))
    long = rules.admit(0, session=7, output_tokens=10)
    assert long.settle(0, 90, 0, 50 * MINUTE)
    assert not rules.admit(100 * MINUTE, session=7, output_tokens=20).granted


def test_a_settlement_of_a_forgotten_session_gives_nothing_to_the_next() -> None:
    rules = limits(cap(100, HOUR, unit=limit.TOKENS))
    old = rules.admit(0, session=7, output_tokens=90)
    assert rules.admit(2 * HOUR, session=7, output_tokens=90).granted
    assert old.settle(0, 0, 0, 2 * HOUR)
    assert not rules.admit(2 * HOUR, session=7, output_tokens=20).granted


def test_requests_without_a_session_or_tool_do_not_come_under_their_rules() -> None:
    rules = limits(cap(1), requests(1, HOUR, per=limit.PER_TOOL | limit.PER_KEY, name="tool"))
    assert all(rules.admit(SECOND, key=1).granted for _ in range(5))
    assert [rules.admit(SECOND, key=1, tool=3).granted for _ in range(2)] == [True, False]
    assert [rules.admit(SECOND, key=2, session=3).granted for _ in range(2)] == [True, False]


# --- marks --------------------------------------------------------------------------------------------------------


def test_each_mark_is_told_once_and_again_in_the_next_month() -> None:
    rules = limits(budget(100, marks=(0.5, 0.8, 1.0)), table=limit.Table(wall_ns=wall(2027, 1, 31)))
    rule = rules.rules[0]
    assert rules.admit(0, key=1, cost=49).crossed == ()
    assert rules.admit(0, key=1, cost=1).crossed == ((rule, 0.5),)
    assert rules.admit(0, key=1, cost=20).crossed == ()
    jump = rules.admit(0, key=1, cost=5)
    assert jump.settle(0, 0, 40, 0)
    assert jump.crossed == ((rule, 0.8), (rule, 1.0))
    assert rules.admit(0, key=1, cost=1).crossed == ()
    assert rules.admit(DAY, key=1, cost=90).crossed == ((rule, 0.5), (rule, 0.8))


def test_who_is_refused_learns_that_the_budget_is_at_its_end() -> None:
    rules = limits(budget(100, marks=(0.8, 1.0)))
    assert rules.admit(SECOND, key=1, cost=70).granted
    refused = rules.admit(SECOND, key=1, cost=40)
    assert refused.crossed == ((rules.rules[0], 0.8), (rules.rules[0], 1.0))
    # It was not taken after all, so the marks are told once more when they are reached.
    assert rules.admit(SECOND, key=1, cost=15).crossed == ((rules.rules[0], 0.8),)


# --- lines --------------------------------------------------------------------------------------------------------


def test_windows_move_on_only_when_nothing_is_counted_in_them() -> None:
    rules = limits(sliding(1, 23 * SECOND), table=eights())
    assert all(rules.admit(SECOND, key=k).granted for k in range(8))
    full, grace = SECOND + 24 * SECOND, SECOND // 4
    # In the overflow line, where it has room again when it is a line's time to move on.
    for now, granted, overflowed in ((SECOND, True, 1), (full - 1, False, 2), (full + grace - 1, True, 3)):
        assert rules.admit(now, key=100).granted is granted
        assert rules.table.overflowed() == overflowed
    later = full + 30 * SECOND
    assert rules.admit(later, key=100).granted
    assert rules.table.overflowed() == 3
    assert not rules.admit(later, key=100).granted


def test_subjects_without_a_window_share_one() -> None:
    table = eights()
    rules = limits(budget(10, name="b"), table=table)
    assert all(rules.admit(SECOND, key=k, cost=10).granted for k in range(8))
    assert sum(rules.admit(SECOND, key=100 + k, cost=1).granted for k in range(20)) == 10
    assert limits(budget(10, name="other"), table=table).admit(SECOND, key=1, cost=10).granted
    # What was taken there goes back there.
    rules = limits(sliding(5, HOUR), table=eights())
    assert all(rules.admit(SECOND, key=k).granted for k in range(8))
    shared = [rules.admit(SECOND, key=100 + k) for k in range(6)]
    assert [grant.granted for grant in shared] == [True] * 5 + [False]
    assert shared[0].cancel(SECOND)
    assert [rules.admit(SECOND, key=200 + k).granted for k in range(2)] == [True, False]


def test_more_rules_than_overflow_windows_refuse_until_one_is_empty() -> None:
    table = eights()
    assert all(limits(sliding(1, HOUR, name="full"), table=table).admit(SECOND, key=k).granted for k in range(8))
    for i in range(100):
        rules = limits(sliding(3, MINUTE, name=f"rule-{i}"), table=table)
        assert sum(rules.admit(SECOND, key=k).granted for k in range(10)) <= 3 * (i < 64)
    assert rules.admit(SECOND, key=1).retry_after_ns > 0
    assert rules.admit(5 * MINUTE, key=1).granted


def words(memory: mmap.mmap) -> memoryview:
    return memoryview(memory).cast("q")


def test_a_worker_that_died_counting_is_cleared_up() -> None:
    memory = mmap.mmap(-1, limit.Table.size(8, 8, 8, 8))
    table = limit.Table(memory, slots=8, gates=8, windows=8, leases=8)
    rules = limits(sliding(5, HOUR), table=table)
    grant = rules.admit(SECOND, key=1)
    assert grant.granted
    seen = words(memory)
    line = next(at for at in range(WINDOWS_AT, WINDOWS_AT + 8 * WINDOW_WORDS, WINDOW_WORDS) if seen[at])
    # As worker 3 leaves it when killed after adding 2 to the part and before adding them to the total.
    seen[line + 1] = 4
    seen[line + 8 + seen[line + 4] % 24] += 2
    blocked = rules.admit(SECOND, key=1)
    assert (blocked.granted, blocked.retry_after_ns) == (False, 1_000_000)
    assert table.reclaim(2) == 0
    assert seen[line + 1] == 4
    assert table.reclaim(3) == 0
    assert [rules.admit(SECOND, key=1).granted for _ in range(3)] == [True, True, False]
    seen.release()


def test_a_charge_on_a_line_that_somebody_holds_is_not_lost() -> None:
    memory = mmap.mmap(-1, limit.Table.size(8, 8, 8, 8))
    table = limit.Table(memory, slots=8, gates=8, windows=8, leases=8)
    rules = limits(budget(100), table=table)
    grant = rules.admit(SECOND, key=1, cost=10)
    seen = words(memory)
    line = next(at for at in range(WINDOWS_AT, WINDOWS_AT + 8 * WINDOW_WORDS, WINDOW_WORDS) if seen[at])
    seen[line + 1] = 4
    assert grant.settle(0, 0, 95, SECOND)
    table.reclaim(3)
    assert not rules.admit(SECOND, key=1, cost=6).granted
    assert rules.admit(SECOND, key=1, cost=5).granted
    seen.release()


def test_the_header_is_as_the_tests_take_it() -> None:
    memory = mmap.mmap(-1, limit.Table.size(8, 8, 8, 8))
    limit.Table(memory, slots=8, gates=8, windows=8, leases=8, wall_ns=17)
    assert struct.unpack_from("=QQ", memory, 56) == (8 << 32 | 8, 0)
    assert limit.Table.size(8, 8, 8, 8) == 8 * (WINDOWS_AT + WINDOW_WORDS * (8 + 64) + 8 * 8)
