"""Circuits: vectors, and any interleaving of two workers in agreement with the plain-Python model."""

import mmap
from dataclasses import asdict, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agw_proxy._hot.circuit import BAD, GOOD, NEITHER, Board, Circuit
from tests.hot import model_circuit
from tests.hot.model_circuit import MS, SECOND, Terms

START = 1000 * SECOND


def circuit(terms: Terms | None = None, board: Board | None = None, name: str = "up/m") -> Circuit:
    board = board if board is not None else Board()
    return board.circuit(name, board.vitals(name.partition("/")[0]), **asdict(terms or Terms()))


def ask(target: Circuit, now: int, how: int, times: int = 1, first: int = -1) -> list[int]:
    """Attempts one after the other; gives what ``begin`` said of each."""
    begun = []
    for _ in range(times):
        begun.append(target.begin(now))
        target.end(now, how, begun[-1], first)
    return begun


def test_failures_in_a_row_open_it_and_one_good_answer_between_does_not() -> None:
    target = circuit(Terms(min_requests=1000))
    for _ in range(5):
        assert ask(target, START, BAD, 2) == [1, 1]
        assert ask(target, START, GOOD) == [1]
    assert (target.state(START), target.openings) == ("closed", 0)
    assert ask(target, START, BAD, 4) == [1, 1, 1, 0]
    assert (target.state(START), target.opens_in_ns(START), target.openings) == ("open", SECOND, 1)
    assert target.since_ns == START
    assert not target.may(START + SECOND - 1)
    assert target.may(START + SECOND)
    assert target.state(START + SECOND) == "half_open"


def test_the_share_of_failures_opens_it_once_there_are_enough_requests() -> None:
    target = circuit(Terms(consecutive=100))
    for how in (GOOD, BAD) * 4:
        ask(target, START, how)
    assert target.state(START) == "closed"  # half of eight: not enough of them
    ask(target, START, GOOD)
    assert target.state(START) == "closed"
    ask(target, START, BAD)  # half of ten
    assert target.state(START) == "open"


def test_failures_that_are_older_than_the_window_do_not_count() -> None:
    target = circuit(Terms(consecutive=100))
    ask(target, START, BAD, 9)
    ask(target, START + 8 * SECOND, BAD)
    assert target.state(START + 8 * SECOND) == "closed"
    ask(target, START + 8 * SECOND, BAD, 9)
    assert target.state(START + 8 * SECOND) == "open"


def test_a_good_probe_closes_it_with_a_clean_slate() -> None:
    target = circuit(Terms(consecutive=100))
    ask(target, START, BAD, 10)
    now = START + SECOND
    assert target.begin(now) == 2
    assert target.begin(now) == 0  # one probe at once
    target.end(now, GOOD, 2)
    assert target.state(now) == "closed"
    assert ask(target, now, BAD, 9) == [1] * 9
    assert target.state(now) == "closed"  # the ten failures of before are void
    ask(target, now, BAD)
    assert target.state(now) == "open"


def test_the_cool_down_doubles_up_to_its_bound_and_starts_anew_after_a_window_without_opening() -> None:
    target = circuit()
    ask(target, START, BAD, 3)
    now, pauses = START, []
    for _ in range(6):
        pauses.append(target.opens_in_ns(now) // SECOND)
        now += target.opens_in_ns(now)
        assert ask(target, now, BAD) == [2]
    assert pauses == [1, 2, 4, 8, 10, 10]
    now += target.opens_in_ns(now)
    assert ask(target, now, GOOD) == [2]
    ask(target, now, BAD, 3)
    assert target.opens_in_ns(now) == 10 * SECOND  # closed for no time at all
    now += 10 * SECOND
    assert ask(target, now, GOOD) == [2]
    ask(target, now + 8 * SECOND, BAD, 3)
    assert target.opens_in_ns(now + 8 * SECOND) == SECOND


def test_what_ends_late_does_not_open_it_a_second_time() -> None:
    target = circuit()
    begun = [target.begin(START) for _ in range(10)]
    for one in begun:
        target.end(START, BAD, one)
    assert (target.openings, target.opens_in_ns(START), target.in_flight) == (1, SECOND, 0)
    target.end(START + SECOND, BAD, target.begin(START + SECOND))
    assert target.openings == 2


def test_nobody_is_to_blame_for_a_caller_that_goes() -> None:
    target = circuit()
    assert ask(target, START, NEITHER, 50) == [1] * 50
    ask(target, START, BAD, 3)
    now = START + SECOND
    assert ask(target, now, NEITHER, 3) == [2, 2, 2]  # each gives its place as a probe back
    assert target.state(now) == "half_open"
    assert target.vitals.requests == 3


def test_at_most_so_many_probes_and_a_lost_one_gives_its_place_back_after_a_minute() -> None:
    target = circuit(Terms(probes=3))
    ask(target, START, BAD, 3)
    now = START + SECOND
    assert [target.begin(now) for _ in range(5)] == [2, 2, 2, 0, 0]
    assert target.opens_in_ns(now) == SECOND  # nobody knows when one of them ends
    assert target.begin(now + 60 * SECOND - 1) == 0
    assert [target.begin(now + 60 * SECOND) for _ in range(4)] == [2, 2, 2, 0]


def test_a_dead_worker_gives_its_probes_back() -> None:
    memory = mmap.mmap(-1, Board.size())
    boards = [Board(memory, worker=worker) for worker in range(3)]
    ones = [circuit(Terms(probes=2), board) for board in boards]
    ask(ones[0], START, BAD, 3)
    now = START + SECOND
    assert [one.begin(now) for one in ones] == [2, 2, 0]
    assert boards[2].reclaim(1) == 1
    assert [one.begin(now) for one in ones] == [2, 0, 0]


def test_slow_answers_are_failures_where_so_configured() -> None:
    target = circuit(Terms(slow_ns=SECOND))
    assert ask(target, START, GOOD, 5, SECOND) == [1] * 5
    assert ask(target, START, GOOD, 4, SECOND + 1) == [1, 1, 1, 0]
    assert (target.vitals.requests, target.vitals.failures) == (8, 3)


def test_a_rest_is_kept_whatever_the_circuit_says_and_ends_after_ten_minutes_at_most() -> None:
    for terms in (Terms(), Terms(enabled=False)):
        target = circuit(terms)
        ask(target, START, GOOD)
        target.rest(START + 5 * SECOND)
        target.rest(START + 2 * SECOND)
        assert (target.may(START + 5 * SECOND - 1), target.may(START + 5 * SECOND)) == (False, True)
        assert (target.begin(START), target.begin(START, force=True)) == (0, 1)
        assert (target.opens_in_ns(START), target.state(START)) == (5 * SECOND, "closed")
        target.rest(START + 3600 * SECOND)
        assert target.opens_in_ns(START) == 600 * SECOND
        target.rest(START + 3600 * SECOND, START + SECOND)
        assert target.opens_in_ns(START) == 601 * SECOND


def test_an_upstream_that_is_out_takes_all_its_targets_with_it() -> None:
    board = Board()
    one, other, elsewhere = (circuit(board=board, name=name) for name in ("up/a", "up/b", "other/a"))
    board.vitals("up").out = True
    assert [target.may(START) for target in (one, other, elsewhere)] == [False, False, True]
    assert (one.begin(START), one.begin(START, force=True)) == (0, 1)
    board.vitals("up").out = False
    assert one.may(START)


def test_switched_off_it_never_opens_but_counts() -> None:
    target = circuit(Terms(enabled=False))
    assert ask(target, START, BAD, 50) == [1] * 50
    assert (target.state(START), target.vitals.failures) == ("closed", 50)


def test_forced_attempts_neither_probe_nor_decide_before_the_cool_down_is_over() -> None:
    target = circuit()
    ask(target, START, BAD, 3)
    for how in (GOOD, BAD):
        begun = target.begin(START, force=True)
        assert begun == 1
        target.end(START, how, begun)
    assert (target.opens_in_ns(START), target.openings) == (SECOND, 1)
    assert target.begin(START + SECOND, force=True) == 2
    assert target.begin(START + SECOND, force=True) == 1


def test_the_time_to_the_first_byte_is_averaged_and_forgotten() -> None:
    target = circuit()
    assert target.first_ns == -1
    ask(target, START, GOOD, 1, 100 * MS)
    assert target.first_ns == pytest.approx(100 * MS, abs=1024)
    ask(target, START, GOOD, 1, 200 * MS)
    assert target.first_ns == pytest.approx(120 * MS, abs=2048)
    ask(target, START + 30 * SECOND, GOOD)
    assert target.first_ns == pytest.approx(60 * MS, abs=2048)
    ask(target, START + 30 * SECOND, GOOD, 1, 220 * MS)
    assert target.first_ns == pytest.approx(180 * MS, abs=2048)  # the old one has half its say
    ask(target, START + 330 * SECOND, GOOD)
    assert target.first_ns == -1


def test_what_was_counted_stays_with_a_reload_and_the_new_settings_hold() -> None:
    board = Board()
    old = circuit(board=board)
    ask(old, START, BAD, 2)
    begun = old.begin(START)
    new = circuit(replace(Terms(), cool_down_ns=4 * SECOND), board)
    assert new.in_flight == 1
    ask(new, START, BAD)
    assert (old.state(START), new.opens_in_ns(START)) == ("open", 4 * SECOND)
    old.end(START, GOOD, begun)
    assert new.in_flight == 0
    circuit(Terms(consecutive=50), board).begin(START)
    assert new.opens_in_ns(START) == 4 * SECOND


@pytest.mark.parametrize("share", [0.0, 0.2, 1.0])
def test_retries_are_a_share_of_the_requests_of_the_last_ten_seconds(share: float) -> None:
    vitals = Board().vitals("up")
    assert [vitals.may_retry(START, share, 3) for _ in range(5)] == [True] * 3 + [False] * 2
    for _ in range(100):
        vitals.asked(START)
    taken = sum(vitals.may_retry(START + 5 * SECOND, share, 3) for _ in range(200))
    assert taken == max(100 * share, 3) - 3
    assert not vitals.may_retry(START + 8 * SECOND, share, 0)
    assert [vitals.may_retry(START + 20 * SECOND, share, 1) for _ in range(2)] == [True, False]


def test_no_floor_and_no_requests_is_no_retry() -> None:
    vitals = Board().vitals("up")
    assert not vitals.may_retry(START, 1.0, 0)
    vitals.asked(START)
    assert [vitals.may_retry(START, 1.0, 0) for _ in range(2)] == [True, False]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"consecutive": 0}, "consecutive"),
        ({"consecutive": 16384}, "consecutive"),
        ({"window_ns": 7}, "window"),
        ({"cool_down_ns": 0}, "cool-downs"),
        ({"cool_down_max_ns": 0}, "cool-downs"),
        ({"min_requests": 0}, "min_requests"),
        ({"slow_ns": -1}, "slow_ns"),
        ({"probes": 0}, "probes"),
    ],
)
def test_numbers_out_of_range_are_refused(change: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        circuit(replace(Terms(), **change))  # type: ignore[arg-type]


def test_other_misuse_is_refused() -> None:
    board = Board()
    with pytest.raises(ValueError, match="same board"):
        board.circuit("up/m", Board().vitals("up"), **asdict(Terms()))
    with pytest.raises(ValueError, match="GOOD, BAD or NEITHER"):
        circuit().end(START, 3, 1)
    for call in (lambda: Board(worker=28), lambda: board.reclaim(28), lambda: board.reclaim(-1)):
        with pytest.raises(ValueError, match="worker of 0 to 27"):
            call()


TERMS = st.builds(
    Terms,
    enabled=st.sampled_from([True, True, True, False]),
    consecutive=st.integers(1, 6),
    ratio=st.sampled_from([0.1, 0.5, 0.9, 1.0]),
    min_requests=st.integers(1, 8),
    window_ns=st.sampled_from([MS, SECOND, 8 * SECOND, 30 * SECOND]),
    cool_down_ns=st.sampled_from([1, 10 * MS, SECOND, 20 * SECOND]),
    cool_down_max_ns=st.sampled_from([10 * MS, 10 * SECOND]),
    probes=st.sampled_from([1, 2, 16, 17]),
    slow_ns=st.sampled_from([0, 50 * MS]),
)
WORKER = st.integers(0, 1)
STEPS = st.one_of(
    st.tuples(st.just("begin"), WORKER, st.booleans()),
    st.tuples(st.just("begin"), WORKER, st.just(value=False)),
    st.tuples(
        st.just("end"), st.integers(0, 40), st.sampled_from([GOOD, BAD, BAD, NEITHER]),
        st.sampled_from([-1, 0, 10 * MS, 100 * MS]),
    ),
    st.tuples(st.just("wait"), st.sampled_from([1, MS, 100 * MS, SECOND, 7 * SECOND, 61 * SECOND, 400 * SECOND])),
    st.tuples(st.just("rest"), WORKER, st.sampled_from([0, SECOND, 2000 * SECOND])),
    st.tuples(st.just("out"), st.booleans()),
    st.tuples(st.just("bury"), WORKER),
)  # fmt: skip


@given(terms=TERMS, steps=st.lists(STEPS, max_size=80), start=st.integers(0, 10**17))
@settings(max_examples=400, deadline=None)
def test_any_interleaving_agrees_with_the_model(terms: Terms, steps: list[tuple[object, ...]], start: int) -> None:
    memory = mmap.mmap(-1, Board.size())
    targets = [circuit(terms, Board(memory, worker=worker)) for worker in range(2)]
    model = model_circuit.Circuit(terms)
    under_way: list[tuple[int, int]] = []  # (worker, what begin gave)
    now = start
    for step in steps:
        match step:
            case ("begin", int(worker), bool(force)):
                begun = targets[worker].begin(now, force)
                assert begun == model.begin(worker, now, force=force)
                under_way += [(worker, begun)] if begun else []
            case ("end", int(which), int(how), int(first)) if under_way:
                worker, begun = under_way.pop(which % len(under_way))
                targets[worker].end(now, how, begun, first)
                model.end(worker, now, how, begun, first)
            case ("wait", int(duration)):
                now += duration
            case ("rest", int(worker), int(ahead)):
                targets[worker].rest(now + ahead)
                latest = model.seen.get(worker, 0) + model_circuit.MAX_REST_NS
                model.rest_ns = max(model.rest_ns, min(now + ahead, latest))
            case ("out", bool(out)):
                targets[0].vitals.out = model.out = out
            case ("bury", int(worker)):
                assert Board(memory).reclaim(worker) == model.bury(worker)
                targets[worker] = circuit(terms, Board(memory, worker=worker))
                under_way = [one for one in under_way if one[0] != worker]
        for worker, target in enumerate(targets):
            assert target.may(now) is model.may(now)
            assert target.state(now) == model.state(now)
            assert target.opens_in_ns(now) == model.opens_in_ns(now)
            assert target.in_flight == model.in_flight.get(worker, 0)
            assert target.first_ns == model.first_ns(model.seen.get(worker, 0))
            assert (target.openings, target.vitals.requests, target.vitals.failures) == (
                model.openings, model.requests, model.failures,
            )  # fmt: skip
