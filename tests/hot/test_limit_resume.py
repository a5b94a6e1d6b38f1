"""Limits over restarts: of the gateway, of the machine, and with clocks that jump."""

import datetime as dt
import mmap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agw_proxy._hot import limit
from tests.hot.rules import DAY, HOUR, MINUTE, SECOND, budget, cap, limits, requests, sliding, tokens

NOON = int(dt.datetime(2027, 1, 30, 12, tzinfo=dt.UTC).timestamp()) * SECOND
UP = 5 * HOUR
RULES = (
    tokens(100, 100 * MINUTE),
    sliding(100, 23 * MINUTE, unit=limit.TOKENS),
    budget(100, unit=limit.TOKENS),
    cap(100, 100 * MINUTE, unit=limit.TOKENS),
)


class Machine:
    """A gateway over memory that is kept, on a machine with a monotonic and a wall clock."""

    def __init__(self) -> None:
        self.memory = mmap.mmap(-1, limit.Table.size())
        self.boot, self.up, self.wall = 1, UP, NOON
        self.start()

    def start(self) -> None:
        limit.Table(self.memory).resume(self.boot, self.up, self.wall)
        self.rules = limits(*RULES, table=limit.Table(self.memory))

    def restart(self, away: int) -> None:
        """Only the gateway."""
        self.up += away
        self.wall += away
        self.start()

    def reboot(self, away: int, jump: int = 0, up: int = SECOND) -> None:
        """All of it; the wall clock has jumped meanwhile."""
        self.boot, self.up = self.boot + 1, up
        self.wall += away + jump
        self.start()

    def spend(self, count: int) -> limit.Grant:
        return self.rules.admit(self.up, key=1, session=1, input_tokens=count)

    def left(self) -> list[int]:
        return [standing.remaining for standing in self.rules.look(self.up, key=1, session=1)]


@pytest.mark.parametrize("how", ["restart", "reboot"])
@pytest.mark.parametrize("away", [0, SECOND, 10 * MINUTE, 24 * MINUTE, 2 * HOUR, 2 * DAY])
def test_what_was_spent_counts_on_by_the_time_that_passed(how: str, away: int) -> None:
    machine = Machine()
    # In a row without a restart, a table does the same.
    plain = limits(*RULES, table=limit.Table(wall_ns=NOON - UP))
    for rules in (machine.rules, plain):
        assert rules.admit(UP, key=1, session=1, input_tokens=60).granted
    getattr(machine, how)(away)
    assert machine.left() == [standing.remaining for standing in plain.look(UP + away, key=1, session=1)]


@pytest.mark.parametrize("up", [0, SECOND, 3 * DAY])
def test_a_machine_that_was_up_for_longer_or_shorter_makes_no_difference(up: int) -> None:
    machine = Machine()
    assert machine.spend(60).granted
    machine.reboot(10 * MINUTE, up=up)
    assert machine.left() == [50, 40, 40, 40]
    machine.up += 14 * MINUTE
    machine.wall += 14 * MINUTE
    assert machine.left() == [64, 100, 40, 40]


def test_a_wall_clock_that_went_back_over_a_reboot_refills_nothing_and_blocks_nobody() -> None:
    machine = Machine()
    assert machine.spend(60).granted
    machine.up += 10 * MINUTE
    assert machine.spend(0).granted
    machine.reboot(0, jump=-400 * DAY)
    # Time went on by what the table had seen of it.
    assert machine.left() == [50, 40, 40, 40]
    machine.up += 24 * MINUTE
    assert machine.left() == [74, 100, 40, 40]
    # The budget counts on in the month that the clock says, and no longer than that.
    machine.up += 31 * DAY
    assert machine.left() == [100, 100, 100, 100]


def test_jumps_of_the_wall_clock_while_it_runs_are_not_seen() -> None:
    machine = Machine()
    assert machine.spend(60).granted
    machine.wall += 500 * DAY
    assert machine.left() == [40, 40, 40, 40]
    # A restart takes it as it is then: the month is another one, buckets go by the monotonic clock.
    machine.restart(0)
    assert machine.left() == [40, 40, 100, 40]
    assert machine.spend(10).granted
    # What was counted while the clock was ahead counts in the month that it really is, and is forgotten with that.
    machine.wall -= 500 * DAY
    machine.restart(0)
    assert machine.left() == [30, 30, 90, 30]
    machine.restart(3 * DAY)
    assert machine.left() == [100, 100, 100, 100]


def test_a_gateway_that_was_killed_holds_no_slots_and_no_locks() -> None:
    machine = Machine()
    gate = limits(limit.Rule("g", 0, limit.CONCURRENT, 1), table=machine.rules.table)
    held = gate.admit(machine.up)
    assert held.granted
    words = memoryview(machine.memory).cast("Q")
    words[3] = 7
    machine.restart(SECOND)
    assert words[3] == 0
    assert gate.admit(machine.up).granted
    words.release()


def test_leases_end_with_the_gateway_and_debts_do_not() -> None:
    machine = Machine()
    rule = limit.Rule("l", limit.PER_KEY, limit.TOKENS, 100, HOUR, leased=True)
    rules = limits(rule, table=machine.rules.table)
    tags = [rules.admit(machine.up, key=key).short[0][1] for key in (1, 2)]
    assert all(rules.table.lend(tag, 10, machine.up + HOUR, machine.up) for tag in tags)
    assert rules.admit(machine.up, key=2, input_tokens=10).settle(17, 0, 0, machine.up)
    machine.restart(SECOND)
    assert [rules.table.reclaim_credit(tag) for tag in tags] == [0, -7]


def test_buckets_count_on_for_more_years_than_one_epoch_lasts() -> None:
    machine = Machine()
    for _ in range(12):
        assert machine.spend(60).granted
        machine.up += MINUTE
        machine.wall += MINUTE
        assert machine.left()[0] == 41
        machine.reboot(400 * DAY)
        assert machine.left() == [100, 100, 100, 100]
    assert machine.spend(100).granted
    machine.reboot(30 * MINUTE)
    assert machine.left()[0] == 30


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["spend", "wait", "restart", "reboot"]),
            st.integers(0, 60),
            st.sampled_from([SECOND, MINUTE, 7 * MINUTE, DAY]),
        ),
        max_size=40,
    )
)
def test_restarts_change_nothing(steps: list[tuple[str, int, int]]) -> None:
    machine = Machine()
    plain = limits(*RULES, table=limit.Table(wall_ns=NOON - UP))
    now = UP
    assert machine.spend(1).granted
    assert plain.admit(now, key=1, session=1, input_tokens=1).granted
    for what, count, time in steps:
        if what == "spend":
            theirs = plain.admit(now, key=1, session=1, input_tokens=count)
            assert machine.spend(count).granted is theirs.granted
        else:
            now += time
            if what == "wait":
                machine.up += time
                machine.wall += time
            else:
                getattr(machine, what)(time)
        assert machine.left() == [standing.remaining for standing in plain.look(now, key=1, session=1)]


def test_a_table_of_requests_alone_can_be_resumed_before_its_first_decision() -> None:
    memory = mmap.mmap(-1, limit.Table.size())
    limit.Table(memory).resume(9, 0, NOON)
    rules = limits(requests(1, HOUR), table=limit.Table(memory))
    assert [rules.admit(SECOND, key=1).granted for _ in range(2)] == [True, False]
