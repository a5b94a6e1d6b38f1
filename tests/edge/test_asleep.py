"""A machine that sleeps: calendars begin when they do, and nothing else moves."""

from datetime import UTC, datetime

from agw_proxy._hot import limit
from agw_proxy._hot.limit import Table
from agw_proxy.edge.asleep import NOTED_NS, Asleep, slept_ns

HOUR_NS = 3_600_000_000_000
EVENING = int(datetime(2027, 3, 1, 22, tzinfo=UTC).timestamp()) * 10**9


def spent(table: Table) -> limit.Limits:
    """A dollar a day, and ten requests an hour at once: all taken."""
    daily = limit.Rule("day", limit.PER_KEY, limit.COST, 100, algorithm=limit.CALENDAR, calendar=limit.DAY)
    hourly = limit.Rule("hour", limit.PER_KEY, limit.REQUESTS, 10, HOUR_NS)
    rules = limit.Limits(table, [daily, hourly])
    for _ in range(10):
        assert rules.admit(0, key=1, cost=10).granted
    return rules


def test_the_day_begins_where_it_begins_while_the_machine_slept() -> None:
    table, slept = Table(wall_ns=EVENING), [5 * HOUR_NS]
    workers = [Asleep(table, lambda: slept[0]) for _ in range(3)]
    rules = spent(table)
    left = [look.remaining for look in rules.look(1, key=1)]
    assert left == [0, 0]
    slept[0] += HOUR_NS
    for worker in workers:
        worker.look()
    assert table.wall_ns == EVENING + HOUR_NS
    assert [look.remaining for look in rules.look(1, key=1)] == [0, 0]
    slept[0] += HOUR_NS
    for worker in workers * 2:
        worker.look()
    assert table.wall_ns == EVENING + 2 * HOUR_NS
    assert [look.remaining for look in rules.look(1, key=1)] == [100, 0]


def test_a_worker_that_begins_after_it_finds_it_told() -> None:
    table, slept = Table(wall_ns=EVENING), [0]
    first = Asleep(table, lambda: slept[0])
    slept[0] = HOUR_NS
    first.look()
    later = Asleep(table, lambda: slept[0])
    later.look()
    slept[0] += HOUR_NS
    later.look()
    first.look()
    assert table.wall_ns == EVENING + 2 * HOUR_NS


def test_what_lies_between_two_readings_of_the_clocks_is_no_sleep() -> None:
    table, slept = Table(wall_ns=EVENING), [0]
    asleep = Asleep(table, lambda: slept[0])
    for step in (NOTED_NS - 1, -NOTED_NS, NOTED_NS // 2):
        slept[0] = step
        asleep.look()
    assert table.wall_ns == EVENING


def test_a_table_takes_no_earlier_time() -> None:
    table = Table(wall_ns=EVENING)
    table.awake(EVENING - 1)
    assert table.wall_ns == EVENING


def test_this_machine_tells_how_long_it_slept() -> None:
    first = slept_ns()
    assert first >= -NOTED_NS
    assert abs(slept_ns() - first) < NOTED_NS
