"""The memory that workers share: what one writes another reads, and a dead one's holdings come back."""

from dataclasses import asdict

from agw_proxy._hot.circuit import BAD, Circuit
from agw_proxy.edge.shared import Shared
from tests.hot.model_circuit import SECOND, Terms

START = 1000 * SECOND


def circuit(shared: Shared, worker: int) -> Circuit:
    board = shared.board(worker)
    return board.circuit("up/m", board.vitals("up"), **asdict(Terms()))


def test_a_circuit_that_one_worker_opens_is_open_for_all() -> None:
    shared = Shared(2)
    one, other = circuit(shared, 0), circuit(shared, 1)
    for _ in range(3):
        one.end(START, BAD, one.begin(START))
    assert not other.may(START)
    assert circuit(Shared(2), 1).may(START)


def test_a_dead_workers_probe_comes_back() -> None:
    shared = Shared(2)
    one, other = circuit(shared, 0), circuit(shared, 1)
    for _ in range(3):
        one.end(START, BAD, one.begin(START))
    assert (one.begin(START + SECOND), other.begin(START + SECOND)) == (2, 0)
    shared.bury(1)
    assert other.begin(START + SECOND) == 0
    shared.bury(0)
    assert other.begin(START + SECOND) == 2


def test_it_shows_which_version_a_worker_serves_by_and_that_another_has_its_place() -> None:
    shared = Shared(2)
    assert shared.stands(1) == (0, 0)
    shared.stand(1, 3)
    assert (shared.stands(1), shared.stands(0)) == ((3, 0), (0, 0))
    shared.bury(1)
    assert shared.stands(1) == (0, 1)
    shared.fail(1, failing=True)
    assert (shared.fails(1), shared.fails(0)) == (True, False)
    shared.fail(1, failing=False)
    assert not shared.fails(1)


def test_each_worker_has_a_tick_of_its_own() -> None:
    shared = Shared(3)
    for worker in range(3):
        shared.tick(worker, START + worker)
    assert [shared.ticked_ns(worker) for worker in range(3)] == [START, START + 1, START + 2]
