"""Meters over shared memory: workers, processes, replacements, and agreement with the plain-Python model."""

import ctypes
import mmap
import os
from collections.abc import Callable
from functools import partial
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agw_proxy._hot.meter import COUNTER, GAUGE, HISTOGRAM, Family, Meter, Sample
from tests.hot import model_meter
from tests.hot.test_meter import BUSY, FAMILIES, LATENCY, OPEN, REQUESTS, TOTAL, of

# A test runner may have threads of its own; the children here touch nothing of theirs.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


def shared(families: list[Family], workers: int) -> mmap.mmap:
    """Anonymous shared memory: what the workers of one gateway inherit."""
    return mmap.mmap(-1, Meter.size(families, workers))


def start(work: Callable[[], None]) -> int:
    """Run ``work`` in a forked process; returns its id."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return child


def exit_code(child: int) -> int:
    """Wait for a process to end."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_samples_come_by_family_then_by_first_use_with_other_first() -> None:
    memory = shared(FAMILIES, 2)
    one, two = (Meter(FAMILIES, memory, worker=worker, workers=2) for worker in range(2))
    two.series("requests", ("b", "1"))
    one.series("requests", ("a", "1"))
    two.series("requests", ("c", "1"))
    one.series("requests", ("b", "1"))
    expected = [
        *[("requests", labels) for labels in (("other", "other"), ("b", "1"), ("a", "1"), ("c", "1"))],
        ("open", ()),
        ("busy", ("other",)),
        ("latency", ("other",)),
        ("total", ()),
    ]
    for meter in (one, two):
        assert [(sample.family.name, sample.labels) for sample in meter.collect()] == expected


def test_a_dead_workers_gauges_are_forgotten_and_nothing_else() -> None:
    memory = shared(FAMILIES, 2)
    workers = [Meter(FAMILIES, memory, worker=worker, workers=2) for worker in range(2)]
    for meter in workers:
        meter.add(meter.series("open"), 3)
        meter.add(meter.series("busy", ("openai",)), 5)
        meter.add(meter.series("busy", ("other",)), 1)
        meter.add(meter.series("total"), 7)
        meter.observe(meter.series("latency", ("m",)), 9)
    workers[0].forget_gauges(1)
    reader = workers[0]
    assert of(reader, OPEN)[()].value == 3
    assert {labels: sample.value for labels, sample in of(reader, BUSY).items()} == {("other",): 1, ("openai",): 5}
    assert of(reader, TOTAL)[()].value == 14
    assert of(reader, LATENCY)[("m",)].value == 2
    for worker in (-1, 2):
        with pytest.raises(ValueError, match="not one of 2"):
            reader.forget_gauges(worker)


def test_a_replaced_worker_goes_on_where_the_dead_one_stopped() -> None:
    memory = shared(FAMILIES, 2)
    first = Meter(FAMILIES, memory, worker=1, workers=2)
    handles = [first.series("requests", (name, "200")) for name in ("a", "b")]
    first.add(handles[0], 10)
    first.add(first.series("total"), 3)
    del first
    second = Meter(FAMILIES, memory, worker=1, workers=2)
    assert [second.series("requests", (name, "200")) for name in ("a", "b")] == handles
    second.add(handles[0], 5)
    second.add(second.series("requests", ("c", "200")), 1)
    second.add(second.series("requests", ("d", "200")), 1)  # full by now
    second.add(second.series("total"), 4)
    reader = Meter(FAMILIES, memory, workers=2)
    assert {labels[0]: sample.value for labels, sample in of(reader, REQUESTS).items()} == {
        "other": 1,
        "a": 15,
        "b": 0,
        "c": 1,
    }
    assert of(reader, TOTAL)[()].value == 7
    assert reader.overflowed() == 1


def test_a_slot_whose_writer_died_before_publishing_it_is_free() -> None:
    """Labels go first and the slot's first word last: what is there without that word is not seen, and written over."""
    memory = shared([BUSY], 1)
    writer = Meter([BUSY], memory)
    handle = writer.series("busy", ("half",))
    writer.add(handle)
    slot = 64 + 64 + 128  # header, region's own line, slot `other` (value and label: a line each)
    assert memory[slot + 64 : slot + 69] == b"\x04half"
    memory[slot : slot + 16] = bytes(16)
    reader = Meter([BUSY], memory)
    assert list(of(reader, BUSY)) == [("other",)]
    assert reader.series("busy", ("new",)) == handle
    assert {labels: sample.value for labels, sample in of(reader, BUSY).items()} == {("other",): 0, ("new",): 0}


def test_every_word_that_a_reader_adds_up_is_aligned() -> None:
    """A 64-bit store to an aligned address is never seen in halves; slots are whole lines from an aligned start."""
    for labels in range(9):
        for bounds in range(1, 32):
            family = Family("h", HISTOGRAM, tuple(map(str, range(labels))), tuple(range(bounds)), max_series=2)
            sizes = [Meter.size([family._replace(max_series=slots)], 1) for slots in (2, 3, 4)]
            strides = {after - before for before, after in pairwise(sizes)}
            assert len(strides) == 1
            assert strides.pop() % 64 == 0


def test_a_reader_sees_counts_that_only_grow_while_another_process_writes() -> None:
    memory = shared(FAMILIES, 2)
    reader = Meter(FAMILIES, memory, worker=0, workers=2)
    step = 2**32 + 1  # a torn word would show halves that differ

    def work() -> None:
        writer = Meter(FAMILIES, memory, worker=1, workers=2)
        handle = writer.series("total")
        for _ in range(50_000):
            writer.add(handle, step)

    child = start(work)
    last, done = 0, 0
    while not done:
        done, status = os.waitpid(child, os.WNOHANG)
        value = of(reader, TOTAL)[()].value
        assert value >= last
        assert value % step == 0
        last = value
    assert os.waitstatus_to_exitcode(status) == 0
    assert of(reader, TOTAL)[()].value == 50_000 * step


def test_two_processes_sum_exactly() -> None:
    memory = shared(FAMILIES, 3)
    reader = Meter(FAMILIES, memory, worker=2, workers=3)

    def work(worker: int) -> None:
        meter = Meter(FAMILIES, memory, worker=worker, workers=3)
        for number in range(20_000):
            meter.add(meter.series("requests", ("even" if number % 2 == 0 else f"only {worker}", "200")))
            meter.observe(meter.series("latency", ("m",)), number % 50)
            meter.add(meter.series("open"), 1 if number % 2 == 0 else -1)
        meter.add(meter.series("open"), worker)

    children = [start(partial(work, worker)) for worker in range(2)]
    assert [exit_code(child) for child in children] == [0, 0]
    assert {labels[0]: sample.value for labels, sample in of(reader, REQUESTS).items()} == {
        "other": 0,
        "even": 20_000,
        "only 0": 10_000,
        "only 1": 10_000,
    }
    assert of(reader, LATENCY)[("m",)] == Sample(
        LATENCY, ("m",), 40_000, (8_800, 8_000, 16_000, 7_200), 40_000 * 49 // 2
    )
    assert of(reader, OPEN)[()].value == 1


def test_a_process_that_knows_nothing_of_the_series_finds_its_labels() -> None:
    memory = shared(FAMILIES, 1)
    writer = Meter(FAMILIES, memory)
    writer.add(writer.series("requests", ("模型", "200")), 3)

    def work() -> None:
        assert of(Meter(FAMILIES, memory), REQUESTS)["模型", "200"].value == 3

    assert exit_code(start(work)) == 0


@pytest.mark.parametrize(
    "families",
    [
        [REQUESTS._replace(name="renamed"), *FAMILIES[1:]],
        [REQUESTS._replace(kind=GAUGE), *FAMILIES[1:]],
        [REQUESTS._replace(labels=("model", "code")), *FAMILIES[1:]],
        [REQUESTS._replace(max_series=3), *FAMILIES[1:]],
        [*FAMILIES[:3], LATENCY._replace(bounds=(10, 20, 41)), TOTAL],
        FAMILIES[:4],
        [OPEN, REQUESTS, *FAMILIES[2:]],
    ],
    ids=["name", "kind", "labels", "max_series", "bounds", "fewer", "order"],
)
def test_a_buffer_of_other_families_is_refused(families: list[Family]) -> None:
    memory = shared(FAMILIES, 1)
    Meter(FAMILIES, memory)
    with pytest.raises(ValueError, match="made for other families"):
        Meter(families, memory)
    Meter(FAMILIES, memory)


def test_a_buffer_for_another_number_of_workers_is_refused() -> None:
    memory = shared(FAMILIES, 2)
    Meter(FAMILIES, memory, workers=2)
    with pytest.raises(ValueError, match="another number of workers"):
        Meter(FAMILIES, memory, workers=1)


def test_a_buffer_must_be_large_aligned_and_writable() -> None:
    size = Meter.size(FAMILIES, 1)
    memory = mmap.mmap(-1, size + 64)
    with pytest.raises(ValueError, match=f"{size - 1} bytes.*need {size}"):
        Meter(FAMILIES, memoryview(memory)[: size - 1])
    with pytest.raises(ValueError, match="aligned to 64"):
        Meter(FAMILIES, memoryview(memory)[8:])
    with pytest.raises(BufferError):
        Meter(FAMILIES, bytes(size))
    assert not any(memory[:])
    exact = (ctypes.c_char * size).from_buffer(memory, 64)
    assert Meter(FAMILIES, exact).collect()


def test_the_memory_lives_as_long_as_the_meter() -> None:
    memory = shared([TOTAL], 1)
    meter = Meter([TOTAL], memory)
    with pytest.raises(BufferError):
        memory.close()
    del meter
    memory.close()
    assert memory.closed


WORKERS = 3
LABEL = st.one_of(
    st.sampled_from(["a", "b", "other", "é\n", '"', "x" * 63, "x" * 70, "\U0001f600" * 16]), st.text(max_size=3)
)
AMOUNT = st.one_of(st.integers(-5, 50), st.integers(-(2**63), 2**63 - 1))
STEP = st.tuples(st.integers(0, WORKERS - 1), st.sampled_from(FAMILIES), st.tuples(LABEL, LABEL), AMOUNT, st.booleans())


@given(steps=st.lists(STEP, max_size=40))
@settings(max_examples=250, deadline=None)
def test_meters_agree_with_the_model(steps: list[tuple[int, Family, tuple[str, str], int, bool]]) -> None:
    memory = shared(FAMILIES, WORKERS)
    meters = [Meter(FAMILIES, memory, worker=worker, workers=WORKERS) for worker in range(WORKERS)]
    model = model_meter.Meter(FAMILIES, WORKERS)
    for worker, family, values, amount, replaced in steps:
        if replaced:
            meters[worker] = Meter(FAMILIES, memory, worker=worker, workers=WORKERS)
        labels = values[: len(family.labels)]
        handle = meters[worker].series(family.name, labels)
        if family.kind == HISTOGRAM:
            meters[worker].observe(handle, amount)
            model.observe(worker, family.name, labels, amount)
        elif family.kind == COUNTER and amount < 0:
            with pytest.raises(ValueError):
                meters[worker].add(handle, amount)
            with pytest.raises(ValueError):
                model.add(worker, family.name, labels, amount)
        else:
            meters[worker].add(handle, amount)
            model.add(worker, family.name, labels, amount)
    for meter in meters:
        assert meter.collect() == model.collect()
        assert meter.overflowed() == model.overflows
