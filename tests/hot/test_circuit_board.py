"""The board behind the circuits: shared by processes, full, and turned over to other targets."""

import mmap
import multiprocessing
import os
from collections.abc import Callable
from dataclasses import asdict
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Barrier

import pytest

from agw_proxy._hot.circuit import BAD, GOOD, NEITHER, Board, Circuit
from tests.hot.model_circuit import SECOND, Terms
from tests.hot.test_circuit import START, ask, circuit

FORK = multiprocessing.get_context("fork")
PROCESSES = 4
CALLED = 512  # places for names that callers make up


def made_up(board: Board, name: str) -> Circuit:
    return board.circuit(name, board.vitals("up"), **asdict(Terms()), configured=False)


def in_processes(work: Callable[[Board], int], memory: mmap.mmap | None = None) -> tuple[Board, list[int]]:
    """Run ``work`` in forked processes that start together; gives the board and what each returned."""
    memory = memory if memory is not None else mmap.mmap(-1, Board.size())
    barrier, results = FORK.Barrier(PROCESSES), [FORK.Value("q", -1) for _ in range(PROCESSES)]

    def run(worker: int, barrier: Barrier, result: "Synchronized[int]") -> None:
        board = Board(memory, worker=worker)
        barrier.wait(30)
        result.value = work(board)

    children = [FORK.Process(target=run, args=(i, barrier, results[i])) for i in range(PROCESSES)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0] * PROCESSES
    return Board(memory), [result.value for result in results]


def test_every_count_of_every_process_is_there() -> None:
    times = 20_000
    terms = Terms(consecutive=16_383, ratio=1.0, min_requests=1_000_000)

    def work(board: Board) -> int:
        target = circuit(terms, board)
        for turn in range(times):
            target.end(START, BAD if turn % 4 == 0 else GOOD, target.begin(START))
        return target.in_flight

    board, in_flight = in_processes(work)
    vitals = board.vitals("up")
    assert (vitals.requests, vitals.failures, in_flight) == (PROCESSES * times, PROCESSES * times // 4, [0] * PROCESSES)
    # A threshold that these counts just meet, and one that they just miss.
    for requests, state in ((PROCESSES * times + 2, "closed"), (PROCESSES * times + 2, "open")):
        target = circuit(Terms(consecutive=16_383, ratio=0.25, min_requests=requests), board)
        ask(target, START, BAD)
        assert target.state(START) == state


def test_of_many_failures_at_once_exactly_so_many_open_it_and_only_once() -> None:
    threshold, times = 1000, 2000

    def work(board: Board) -> int:
        target = circuit(Terms(consecutive=threshold, min_requests=1_000_000), board)
        began = 0
        while (begun := target.begin(START)) and began < times:
            target.end(START, BAD, begun)
            began += 1
        if begun:
            target.end(START, NEITHER, begun)
        return began

    board, began = in_processes(work)
    target = circuit(Terms(consecutive=threshold), board)
    assert (target.state(START), target.openings) == ("open", 1)
    # Each process may have had one attempt under way when it opened.
    assert threshold <= sum(began) < threshold + PROCESSES


def test_probes_are_never_more_in_all_processes_together() -> None:
    def work(board: Board) -> int:
        target = circuit(Terms(probes=5), board)
        ask(target, START, BAD, 3)
        return sum(target.begin(START + SECOND) == 2 for _ in range(10))

    board, probes = in_processes(work)
    assert sum(probes) == 5
    assert sum(board.reclaim(worker) for worker in range(PROCESSES)) == 5


def test_the_retry_budget_is_one_for_all_processes() -> None:
    memory = mmap.mmap(-1, Board.size())
    vitals = Board(memory).vitals("up")
    for _ in range(100_000):
        vitals.asked(START)

    def work(board: Board) -> int:
        own = board.vitals("up")
        return sum(own.may_retry(START, 0.5, 10) for _ in range(50_000))

    _, taken = in_processes(work, memory)
    assert sum(taken) == 50_000


def test_no_request_is_lost_from_the_budget_in_any_process() -> None:
    def work(board: Board) -> int:
        own = board.vitals("up")
        for _ in range(20_000):
            own.asked(START)
        return 0

    board, _ = in_processes(work)
    vitals = board.vitals("up")
    assert sum(vitals.may_retry(START, 0.01, 0) for _ in range(5000)) == PROCESSES * 200


def test_a_name_has_one_place_however_it_was_reached() -> None:
    board = Board()
    ask(circuit(board=board), START, BAD, 3)
    assert not made_up(board, "up/m").may(START)
    assert made_up(board, "up/other").may(START)


def test_names_that_callers_make_up_fill_their_own_places_and_then_share_one() -> None:
    board = Board()
    kept = [made_up(board, f"up/{number}") for number in range(4 * CALLED)]
    for one in kept:
        ask(one, START, NEITHER)
    shared = [one for one in kept if one.shared]
    assert 4 * CALLED - len(shared) <= CALLED
    assert not circuit(board=board, name="up/configured").shared
    ask(shared[0], START, BAD, 3)
    assert not shared[1].may(START)
    assert not circuit(board=board, name="up/*").may(START)
    assert all(one.may(START) for one in kept if not one.shared)


def test_an_idle_place_goes_to_another_target_with_nothing_of_the_old_one() -> None:
    board = Board()
    old = [made_up(board, f"up/{number}") for number in range(4 * CALLED)]
    own = [one for one in old if not one.shared]
    for one in own:
        ask(one, START, BAD, 2, first=SECOND)
    begun = own[0].begin(START)
    late = START + 700 * SECOND
    ask(circuit(board=board), late, GOOD)  # the board learns what time it is
    new = [made_up(board, f"up/new-{number}") for number in range(4 * CALLED)]
    taken = [one for one in new if not one.shared]
    assert len(taken) >= CALLED // 2
    assert {(one.first_ns, one.openings, one.state(late)) for one in taken} == {(-1, 0, "closed")}
    for one in taken:
        ask(one, late, BAD, 2)
        assert one.state(late) == "closed"  # two in a row, not four
    own[0].end(late, BAD, begun)  # of the target that has gone: counts for nobody
    assert {one.state(late) for one in taken} == {"closed"}
    assert own[0].in_flight == 0
    # A target that lost its place gets another one or shares; it goes on being asked either way.
    assert [one.begin(late) for one in own] == [1] * len(own)


def test_failures_of_the_target_that_had_the_place_before_do_not_count_in_a_long_window() -> None:
    board = Board()
    vitals = board.vitals("up")
    terms = asdict(Terms(consecutive=100, min_requests=10, window_ns=3600 * SECOND))
    names = [f"up/{number}" for number in range(4 * CALLED)]
    for one in [board.circuit(name, vitals, **terms, configured=False) for name in names]:
        if not one.shared:
            ask(one, START, BAD, 9)
    late = START + 700 * SECOND
    ask(circuit(board=board), late, GOOD)
    new = [board.circuit(f"up/new-{name}", vitals, **terms, configured=False) for name in names]
    taken = [one for one in new if not one.shared]
    for one in taken:
        ask(one, late, BAD)
    assert len(taken) >= CALLED // 2
    assert {one.state(late) for one in taken} == {"closed"}


def test_an_open_circuit_keeps_its_place() -> None:
    board = Board()
    terms = Terms(cool_down_ns=3600 * SECOND, cool_down_max_ns=3600 * SECOND)
    vitals = board.vitals("up")
    names = [f"up/{number}" for number in range(4 * CALLED)]
    old = [board.circuit(name, vitals, **asdict(terms), configured=False) for name in names]
    opened = [one for one in old if not one.shared]
    for one in opened:
        ask(one, START, BAD, 3)
    late = START + 700 * SECOND
    ask(circuit(board=board), late, GOOD)
    assert all(made_up(board, f"up/new-{number}").shared for number in range(4 * CALLED))
    assert not any(one.may(late) for one in opened)


def test_more_upstreams_and_targets_than_there_are_places_still_work() -> None:
    board = Board()
    for number in range(3000):
        target = circuit(board=board, name=f"up-{number}/m")
        ask(target, START, BAD, 3)
        assert not target.may(START)


def test_a_worker_that_dies_while_it_turns_a_place_over_leaves_it_usable() -> None:
    """The header's third word says who is at it; reclaim takes that back."""
    memory = mmap.mmap(-1, Board.size())
    board = Board(memory)
    assert not any(circuit(board=board, name=f"up/{number}").shared for number in range(256))
    for one in [made_up(board, f"up/x-{number}") for number in range(4 * CALLED)]:
        ask(one, START, GOOD)
    ask(circuit(board=board), START + 700 * SECOND, GOOD)
    memory[16:24] = (7 + 1).to_bytes(8, "little")
    name = next(f"up/y-{number}" for number in range(10_000) if made_up(board, f"up/y-{number}").shared)
    board.reclaim(6)
    assert made_up(board, name).shared
    board.reclaim(7)
    assert not made_up(board, name).shared


@pytest.mark.parametrize("size", [0, 64, Board.size() - 1])
def test_memory_that_is_too_small_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="at least"):
        Board(bytearray(size))


def test_memory_with_something_else_in_it_is_refused() -> None:
    memory = mmap.mmap(-1, Board.size())
    memory[:8] = os.urandom(7) + b"\1"
    with pytest.raises(ValueError, match="zeroes or a board"):
        Board(memory)
    with pytest.raises(ValueError, match="aligned"):
        Board(memoryview(mmap.mmap(-1, Board.size() + 64))[8:])
    with pytest.raises(BufferError):
        Board(memoryview(bytes(Board.size())))


def test_how_an_upstream_fares_is_one_for_all_workers() -> None:
    memory = mmap.mmap(-1, Board.size())
    mine, yours = (Board(memory, worker=worker).vitals("up") for worker in range(2))
    assert (mine.failing, mine.since_ns, mine.fault) == (False, 0, 0)
    for turn, good in enumerate((True, True, False, False, True)):
        (mine, yours)[turn % 2].note(START + turn, good)
        assert (mine.failing, mine.since_ns) == (yours.failing, yours.since_ns)
        assert (yours.failing, yours.since_ns - START) == (not good, (0, 0, 2, 2, 4)[turn])
    yours.fault = 17
    assert (mine.fault, mine.requests, mine.failures) == (17, 5, 2)
