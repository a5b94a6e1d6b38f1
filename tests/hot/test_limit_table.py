"""The table behind the limits: full, shared by processes, and left behind by a dead one."""

import gc
import mmap
import multiprocessing
import os
import sys
from collections.abc import Callable
from hashlib import blake2b
from typing import Any

import pytest

from agw_proxy._hot import limit
from tests.hot.rules import HOUR, MINUTE, SECOND, cap, gate, limits, requests, sliding, tokens

FORK = multiprocessing.get_context("fork")


def test_eviction_takes_only_full_buckets_and_loses_nothing() -> None:
    table = limit.Table(slots=8)
    rules = limits(requests(10, 10 * SECOND), table=table)
    for turn in range(200):
        # Eight new subjects each time, long after the last ones' buckets were full again.
        now = SECOND + turn * 20 * SECOND
        assert all(sum(rules.admit(now, key=8 * turn + k).granted for _ in range(15)) == 10 for k in range(8))
    assert (table.overflowed(), table.in_use()) == (0, 8)


def test_a_late_settlement_after_eviction_gives_no_refund_but_takes_the_debt() -> None:
    table = limit.Table(slots=8)
    rules = limits(tokens(100, SECOND), table=table)
    refund, debt = rules.admit(SECOND, input_tokens=100), rules.admit(SECOND, key=1, input_tokens=100)
    for k in range(2, 10):
        assert rules.admit(10 * SECOND, key=k, input_tokens=100).granted
    later = 20 * SECOND
    assert rules.admit(later, input_tokens=100).granted
    assert refund.settle(0, 0, 0, later)
    assert not rules.admit(later, input_tokens=1).granted
    assert debt.settle(300, 0, 0, later)
    assert rules.admit(later, key=1, input_tokens=1).retry_after_ns > SECOND


def test_subjects_without_a_place_share_one_bucket() -> None:
    table = limit.Table(slots=8)
    rules = limits(requests(5, HOUR), table=table)
    assert all(rules.admit(SECOND, key=k).granted for k in range(8))
    assert table.overflowed() == 0
    assert sum(rules.admit(SECOND, key=100 + k).granted for k in range(50)) == 5
    assert table.overflowed() == 50
    # Another rule's subjects have an overflow slot of their own.
    assert limits(requests(5, HOUR, name="other"), table=table).admit(SECOND, key=100).granted


def test_a_bucket_goes_to_another_subject_only_a_while_after_it_was_full() -> None:
    table = limit.Table(slots=8)
    rules = limits(requests(1, SECOND // 5), table=table)
    assert all(rules.admit(SECOND, key=k).granted for k in range(8))
    full = SECOND + SECOND // 5
    grace = SECOND // 4
    for now, overflowed in ((SECOND, 1), (full - 1, 2), (full + grace - 1, 3), (full + grace, 3)):
        rules.admit(now, key=100)
        assert table.overflowed() == overflowed
        assert not any(rules.admit(full - 1, key=k).granted for k in range(8)) or now == full + grace


def test_what_came_out_of_an_overflow_bucket_does_not_go_back() -> None:
    table = limit.Table(slots=8)
    assert all(limits(requests(1, HOUR, name="full"), table=table).admit(SECOND, key=k).granted for k in range(8))
    rules = limits(tokens(100, SECOND), table=table)
    early = rules.admit(SECOND, key=1, input_tokens=100)
    assert early.granted
    assert rules.admit(MINUTE, key=2, input_tokens=100).granted
    assert early.cancel(MINUTE)
    assert not rules.admit(MINUTE, key=2, input_tokens=1).granted


def test_a_bucket_won_after_overflow_starts_with_what_was_spent_there() -> None:
    table = limit.Table(slots=8)
    short, long = limits(requests(1, SECOND, name="short"), table=table), limits(requests(5, HOUR), table=table)
    assert all(short.admit(SECOND, key=k).granted for k in range(8))
    assert sum(long.admit(SECOND, key=1).granted for _ in range(9)) == 5
    assert table.overflowed() == 9
    assert not long.admit(5 * SECOND, key=1).granted
    assert table.overflowed() == 9


def test_more_rules_than_overflow_slots_still_hold_their_limits() -> None:
    table = limit.Table(slots=8)
    assert all(limits(requests(1, HOUR, name="full"), table=table).admit(SECOND, key=k).granted for k in range(8))
    for i in range(100):
        rules = limits(requests(3, HOUR, name=f"rule-{i}"), table=table)
        assert sum(rules.admit(SECOND, key=k).granted for k in range(10)) <= 3


def test_gates_are_exact_and_give_back() -> None:
    rules = limits(gate(5))
    held = [rules.admit(0, key=1) for _ in range(12)]
    assert [grant.granted for grant in held] == [True] * 5 + [False] * 7
    assert (held[-1].rule, held[-1].retry_after_ns, held[-1].requests_limit) == (rules.rules[0], 0, -1)
    assert held[2].release()
    assert rules.admit(0, key=1).granted
    assert rules.admit(0, key=2).granted


def test_a_forgotten_grant_leaves_its_gate() -> None:
    rules = limits(gate(1))
    for _ in range(5):
        grant = rules.admit(0, key=1)
        assert grant.granted
        assert not rules.admit(0, key=1).granted
        del grant
        gc.collect()


def test_gates_without_a_place_share_one_and_move_out_when_it_is_empty() -> None:
    table = limit.Table(gates=8)
    rules = limits(gate(2), table=table)
    held = [rules.admit(0, key=k) for k in range(8)]
    shared = [rules.admit(0, key=100 + k) for k in range(5)]
    assert [grant.granted for grant in shared] == [True, True, False, False, False]
    assert table.overflowed() == 5
    assert all(grant.release() for grant in held)
    # Places are free now, but 100 may not have two beside the one it holds in the shared gate.
    assert not rules.admit(0, key=100).granted
    assert all(grant.release() for grant in shared[:2])
    own = [rules.admit(0, key=100) for _ in range(3)]
    assert [grant.granted for grant in own] == [True, True, False]
    assert table.overflowed() == 6


def test_a_dead_workers_slots_come_back() -> None:
    memory = mmap.mmap(-1, limit.Table.size())
    living, dying = limit.Table(memory, worker=1), limit.Table(memory, worker=27)
    here, there = limits(gate(5), table=living), limits(gate(5), table=dying)
    ours = [here.admit(0, key=1) for _ in range(2)]
    theirs = [there.admit(0, key=1) for _ in range(3)]
    assert all(grant.granted for grant in ours + theirs)
    assert not here.admit(0, key=1).granted
    assert living.reclaim(27) == 3
    assert living.reclaim(27) == 0
    # A late release must not take a slot of somebody else.
    assert all(grant.release() for grant in theirs)
    more = [here.admit(0, key=1) for _ in range(5)]
    assert [grant.granted for grant in more] == [True] * 3 + [False] * 2


def header_words(memory: mmap.mmap) -> memoryview:
    return memoryview(memory).cast("Q")


def test_a_worker_that_died_moving_a_bucket_is_cleared_up() -> None:
    memory = mmap.mmap(-1, limit.Table.size(8, 8))
    table = limit.Table(memory, slots=8, gates=8)
    rules = limits(requests(5, SECOND), table=table)
    assert all(rules.admit(SECOND, key=k).granted for k in range(8))
    words = header_words(memory)
    # As worker 3 leaves it when killed between locking line 2 and storing the new tag.
    tat = words[8 * 5 + 1]
    words[3], words[4], words[5], words[8 * 5 + 1] = 4, 3, tat, 1 << 63
    late = 10 * SECOND
    refused = [grant for grant in (rules.admit(late, key=k) for k in range(100, 104)) if not grant.granted]
    assert (len(refused), refused[0].retry_after_ns) == (4, 1_000_000)
    assert table.reclaim(2) == 0
    assert words[3] == 4
    assert table.reclaim(3) == 0
    assert (words[3], words[4], words[8 * 5 + 1], table.in_use()) == (0, 0, tat + 1, 7)
    assert all(rules.admit(late, key=k).granted for k in range(100, 104))
    words.release()


def test_a_worker_that_died_moving_a_gate_is_cleared_up() -> None:
    memory = mmap.mmap(-1, limit.Table.size(8, 8))
    table = limit.Table(memory, slots=8, gates=8)
    rules = limits(gate(1), table=table)
    held = [rules.admit(0, key=k) for k in range(8)]
    words = header_words(memory)
    line = 8 * (3 + 8 + 64)
    tag = words[line]
    words[3], words[4], words[5], words[line] = 6, (1 << 32) + 1, tag, 1
    assert table.reclaim(5) == 0
    assert (words[3], words[4], words[line]) == (0, 0, tag)
    assert not any(rules.admit(0, key=k).granted for k in range(8))
    assert all(grant.release() for grant in held)
    words.release()


# --- two processes ------------------------------------------------------------------------------------------------


def together(work: Callable[[limit.Table, Any], object], memory: mmap.mmap, workers: int = 2, **size: int) -> list[Any]:
    """Run ``work(table, barrier)`` in forked workers over the same memory; their results."""
    barrier = FORK.Barrier(workers)

    def body(worker: int, pipe: Any) -> None:
        pipe.send(work(limit.Table(memory, worker=worker, **size), barrier))

    pairs = [FORK.Pipe(duplex=False) for _ in range(workers)]
    children = [FORK.Process(target=body, args=(i, pairs[i][1])) for i in range(workers)]
    for child in children:
        child.start()
    results = [reader.recv() if reader.poll(30) else None for reader, _ in pairs]
    for child in children:
        child.join(10)
    assert [child.exitcode for child in children] == [0] * workers
    return results


@pytest.mark.parametrize("cost", [1, 3])
def test_two_processes_at_one_bucket_admit_exactly_the_amount(cost: int) -> None:
    def work(table: limit.Table, barrier: Any) -> int:
        rules = limits(tokens(180_000, HOUR), table=table)
        barrier.wait()
        return sum(rules.admit(SECOND, key=1, input_tokens=cost).granted for _ in range(150_000))

    assert sum(together(work, mmap.mmap(-1, limit.Table.size()))) == 180_000 // cost


OTHERS = (requests(10**6, HOUR, per=limit.PER_GLOBAL, name="all"), tokens(10**9, HOUR, per=limit.PER_USER))
BUDGET = limit.Rule(
    "budget", limit.PER_KEY, limit.COST, 3000, algorithm=limit.CALENDAR, calendar=limit.MONTH, marks=(0.5, 1.0)
)


@pytest.mark.parametrize(
    ("rule", "admitted"),
    [
        (requests(1000, 24 * HOUR), 1000),
        (sliding(1000, 24 * HOUR), 1000),
        (BUDGET, 1000),
        (cap(1000, 24 * HOUR), 1000),
    ],
    ids=["bucket", "sliding", "calendar", "total"],
)
def test_four_processes_offering_four_thousand_admit_exactly_a_thousand(rule: limit.Rule, admitted: int) -> None:
    def work(table: limit.Table, barrier: Any) -> tuple[int, int]:
        rules = limits(*OTHERS, rule, table=table)
        barrier.wait()
        passed = told = 0
        for i in range(1000):
            # As time goes on, and not in step.
            now = SECOND + i * 1000 + table.worker
            grant = rules.admit(now, key=1, user=table.worker, session=1, input_tokens=i, cost=3)
            while not grant.granted and grant.retry_after_ns == 1_000_000:  # the line was busy: nothing was decided
                grant = rules.admit(now, key=1, user=table.worker, session=1, input_tokens=i, cost=3)
            passed += grant.granted
            told += len(grant.crossed)
            if grant.granted:
                assert grant.settle(i, 0, 3, now)
        return passed, told

    memory = mmap.mmap(-1, limit.Table.size())
    found = together(work, memory, workers=4)
    assert sum(passed for passed, _ in found) == admitted
    assert sum(told for _, told in found) == len(rule.marks)
    # What was taken of the other rules by who was refused has gone back.
    left = limits(*OTHERS, table=limit.Table(memory)).look(SECOND + 10**6, user=2)
    assert left[0].remaining in {10**6 - 1000, 10**6 - 999}


def test_processes_that_reserve_and_settle_never_lose_or_make_money() -> None:
    rule = limit.Rule("b", limit.PER_KEY, limit.COST, 10**12, algorithm=limit.CALENDAR, calendar=limit.MONTH)
    also = sliding(10**12, HOUR, unit=limit.COST)

    def work(table: limit.Table, barrier: Any) -> int:
        rules = limits(rule, also, table=table)
        barrier.wait()
        spent = 0
        for i in range(20_000):
            grant = rules.admit(SECOND, key=1, cost=i % 97)
            used = i * (table.worker + 3) % 89
            if not grant.granted:
                continue
            if i % 5 == 0:
                assert grant.cancel(SECOND)
            else:
                assert grant.settle(0, 0, used, SECOND)
                spent += used
        return spent

    memory = mmap.mmap(-1, limit.Table.size())
    spent = sum(together(work, memory, workers=3))
    left = limits(rule, also, table=limit.Table(memory)).look(SECOND, key=1)
    assert [10**12 - standing.remaining for standing in left] == [spent, spent]


def test_killed_processes_leave_no_window_locked() -> None:
    memory = mmap.mmap(-1, limit.Table.size())
    rules = (sliding(10**9, HOUR), BUDGET)

    def work(worker: int, ready: Any) -> None:
        mine = limits(*rules, table=limit.Table(memory, worker=worker))
        ready.send(None)
        while True:
            mine.admit(SECOND, key=1)

    table = limit.Table(memory)
    mine = limits(*rules, table=table)
    for turn in range(1, 25):
        reader, writer = FORK.Pipe(duplex=False)
        child = FORK.Process(target=work, args=(turn % 3 + 1, writer), daemon=True)
        child.start()
        reader.recv()
        for _ in range(turn * 7):
            mine.admit(SECOND, key=1)
        child.kill()
        child.join()
        table.reclaim(turn % 3 + 1)
        assert mine.admit(SECOND, key=1, cost=1).granted


@pytest.mark.parametrize("make", [requests, sliding])
def test_two_processes_crowding_a_table_never_admit_more_than_each_subjects_amount(
    make: Callable[[int, int], limit.Rule],
) -> None:
    rounds, subjects, amount = 10_000, 12, 2
    places = mmap.mmap(-1, 4096)

    def work(table: limit.Table, barrier: Any) -> list[list[int]]:
        rules = limits(make(amount, SECOND), table=table)
        at = memoryview(places).cast("Q")
        counts = []
        barrier.wait()
        for turn in range(1, rounds + 1):
            # A spinning barrier: both begin within a fraction of a microsecond, when every bucket is idle.
            at[table.worker] = turn
            while at[1 - table.worker] < turn:
                os.sched_yield()
            passed = [0] * subjects
            for i in range(4 * subjects):
                k = i * (5 if table.worker else 7) % subjects
                passed[k] += rules.admit(10 * turn * SECOND, key=k).granted
            counts.append(passed)
        return counts

    memory = mmap.mmap(-1, limit.Table.size(8, 8, 8))
    one, other = together(work, memory, slots=8, gates=8, windows=8)
    sums = [a + b for mine, theirs in zip(one, other, strict=True) for a, b in zip(mine, theirs, strict=True)]
    assert max(sums) == amount
    assert limit.Table(memory, slots=8, gates=8, windows=8).overflowed() > 0


def test_two_processes_are_never_in_the_same_gate_of_one() -> None:
    inside = mmap.mmap(-1, 4096)

    def work(table: limit.Table, barrier: Any) -> tuple[int, int]:
        rules = limits(gate(1), table=table)
        mine = table.worker + 1
        entered = broken = 0
        barrier.wait()
        for turn in range(40_000):
            # More subjects than lines, some held for a while, so that gates change hands all the time.
            held = []
            for i in range(5):
                who = (turn * (3 + table.worker) + i * 5) % 12
                grant = rules.admit(0, key=who)
                if grant.granted:
                    entered += 1
                    broken += inside[who] != 0
                    inside[who] = mine
                    held.append((who, grant))
            for who, grant in held:
                broken += inside[who] != mine
                inside[who] = 0
                grant.release()
        return entered, broken

    (entered, broken), (entered_too, broken_too) = together(
        work, mmap.mmap(-1, limit.Table.size(8, 8)), slots=8, gates=8
    )
    assert (broken, broken_too) == (0, 0)
    assert min(entered, entered_too) > 1000


# --- memory -------------------------------------------------------------------------------------------------------


def test_a_buffer_of_another_table_is_refused() -> None:
    memory = mmap.mmap(-1, limit.Table.size(64, 64))
    limit.Table(memory, slots=32, gates=32)
    with pytest.raises(ValueError, match="another size"):
        limit.Table(memory, slots=64, gates=64)
    memory[0] ^= 1
    with pytest.raises(ValueError, match="this version"):
        limit.Table(memory, slots=32, gates=32)
    with pytest.raises(BufferError):
        limit.Table(bytes(limit.Table.size()))
    with pytest.raises(ValueError, match="at least"):
        limit.Table(mmap.mmap(-1, 4096))
    with pytest.raises(ValueError, match="aligned"):
        limit.Table(memoryview(mmap.mmap(-1, limit.Table.size() + 64))[8:])


def test_memory_is_held_while_in_use() -> None:
    memory = mmap.mmap(-1, limit.Table.size())
    rules = limits(requests(1), table=limit.Table(memory))
    with pytest.raises(BufferError):
        memory.close()
    grant = rules.admit(0, key=1)
    references = sys.getrefcount(memory)
    del rules, grant
    assert sys.getrefcount(memory) < references
    memory.close()


def test_a_worker_may_be_named_after_the_fork() -> None:
    table = limit.Table()
    table.worker = 5
    grant = limits(gate(1), table=table).admit(0, key=1)
    assert (table.worker, grant.granted, table.reclaim(0), table.reclaim(5)) == (5, True, 0, 1)
    with pytest.raises(ValueError, match="worker"):
        table.worker = 28


def test_no_subject_shares_a_count_in_a_table_half_full() -> None:
    table = limit.Table()
    rules = limits(requests(1, HOUR), table=table)
    keys = [int.from_bytes(blake2b(b"%d" % number, digest_size=8).digest()) for number in range(8192)]
    assert all(rules.admit(SECOND, key=key).granted for key in keys)
    assert (table.overflowed(), table.in_use()) == (0, 8192)
