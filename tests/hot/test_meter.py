"""Meters: values, labels and their bounds, and what is refused."""

import mmap

import pytest

from agw_proxy._hot.meter import COUNTER, GAUGE, HISTOGRAM, TALLY, Family, Meter, Sample
from tests.hot import model_meter

REQUESTS = Family("requests", COUNTER, ("model", "status"), max_series=4)
OPEN = Family("open", GAUGE)
BUSY = Family("busy", GAUGE, ("upstream",), max_series=3)
LATENCY = Family("latency", HISTOGRAM, ("model",), (10, 20, 40), max_series=8)
TOTAL = Family("total", COUNTER)
USED = Family("used", TALLY, ("key",), max_series=3)
FAMILIES = [REQUESTS, OPEN, BUSY, LATENCY, TOTAL]
WITH_TALLY = [*FAMILIES, USED]


def of(meter: Meter, family: Family) -> dict[tuple[str, ...], Sample]:
    return {sample.labels: sample for sample in meter.collect() if sample.family == family}


def test_a_counter_counts() -> None:
    meter = Meter(FAMILIES)
    handle = meter.series("requests", ("gpt-4o", "200"))
    meter.add(handle)
    meter.add(handle, 4)
    meter.add(handle, 0)
    assert meter.series("requests", ("gpt-4o", "200")) == handle
    assert of(meter, REQUESTS)["gpt-4o", "200"] == Sample(REQUESTS, ("gpt-4o", "200"), 5, (), 0)


def test_a_gauge_goes_both_ways_and_below_zero() -> None:
    meter = Meter(FAMILIES)
    handle = meter.series("open")
    for amount in (5, -2, -4):
        meter.add(handle, amount)
    assert of(meter, OPEN)[()].value == -1


def test_a_histogram_counts_values_up_to_and_including_each_bound() -> None:
    meter = Meter(FAMILIES)
    handle = meter.series("latency", ("m",))
    for value in (-1, 0, 10, 11, 20, 21, 40, 41, 10**12):
        meter.observe(handle, value)
    total = -1 + 0 + 10 + 11 + 20 + 21 + 40 + 41 + 10**12
    assert of(meter, LATENCY)[("m",)] == Sample(LATENCY, ("m",), 9, (3, 2, 2, 2), total)


def test_a_tally_counts_seven_things_at_once() -> None:
    meter = Meter(WITH_TALLY)
    handle, other = meter.series("used", ("app",)), meter.series("used", ("dev",))
    meter.tally(handle, 1, 2, 3, 4, 5, 6, 7)
    meter.tally(handle, 10, 0, -1, -5, 0, 0, 70)
    meter.tally(other, 1, 0, 0, 0, 0, 0, 0)
    assert of(meter, USED)[("app",)] == Sample(USED, ("app",), 11, (11, 2, 3, 4, 5, 6, 77), 0)
    assert of(meter, USED)[("dev",)].buckets == (1, 0, 0, 0, 0, 0, 0)
    for wrong in (meter.add, meter.observe):
        with pytest.raises(ValueError, match="another kind"):
            wrong(handle, 1)
    with pytest.raises(ValueError, match="another kind"):
        meter.tally(meter.series("total"), *[1] * 7)


def test_the_words_of_a_tally_stop_at_the_end_of_64_bits() -> None:
    meter = Meter(WITH_TALLY)
    handle = meter.series("used", ("app",))
    for _ in range(2):
        meter.tally(handle, *[2**63 - 1] * 7)
    assert of(meter, USED)[("app",)].buckets == (2**63 - 1,) * 7
    with pytest.raises(ValueError, match="expected 7 amounts, got 6"):
        meter.tally(handle, *[1] * 6)
    with pytest.raises(OverflowError):
        meter.tally(handle, *[2**63] * 7)


def test_one_family_can_be_collected_alone() -> None:
    memory = mmap.mmap(-1, Meter.size(WITH_TALLY, 2))
    workers = [Meter(WITH_TALLY, memory, worker=worker, workers=2) for worker in range(2)]
    for meter in workers:
        meter.tally(meter.series("used", ("app",)), *[meter.worker + 1] * 7)
    assert workers[0].collect("used") == [
        Sample(USED, ("other",), 0, (0,) * 7, 0),
        Sample(USED, ("app",), 3, (3,) * 7, 0),
    ]
    with pytest.raises(KeyError):
        workers[0].collect("unknown")


@pytest.mark.parametrize("count", range(1, 32))
def test_every_number_of_bounds_finds_the_right_bucket(count: int) -> None:
    bounds = tuple(3 * i for i in range(count))
    meter = Meter([Family("h", HISTOGRAM, (), bounds)])
    expected = [0] * (count + 1)
    for value in range(-2, 3 * count + 2):
        meter.observe(meter.series("h"), value)
        expected[sum(bound < value for bound in bounds)] += 1
    assert meter.collect()[0].buckets == tuple(expected)


def test_what_does_not_fit_goes_to_other_and_is_counted() -> None:
    meter = Meter(FAMILIES)
    other = meter.series("requests", ("other", "other"))
    for number in range(3):
        meter.add(meter.series("requests", (str(number), "200")))
    assert meter.overflowed() == 0
    for number in range(3, 10):
        handle = meter.series("requests", (str(number), "200"))
        assert handle == other
        meter.add(handle)
    assert meter.overflowed() == 7
    samples = of(meter, REQUESTS)
    assert len(samples) == REQUESTS.max_series
    assert samples["other", "other"].value == 7
    meter.add(meter.series("requests", ("2", "200")))
    assert of(meter, REQUESTS)["2", "200"].value == 2
    assert meter.overflowed() == 7


@pytest.mark.parametrize(
    "label", ["", 'say "hi"', "two\nlines\r\n", "back\\slash", "naïve 模型 \U0001f600", "nul\0nul", "\ud800"]
)
def test_labels_are_kept_intact_also_by_a_reader_of_the_memory(label: str) -> None:
    memory = mmap.mmap(-1, Meter.size(FAMILIES))
    writer = Meter(FAMILIES, memory)
    writer.add(writer.series("requests", (label, "x")))
    reader = Meter(FAMILIES, memory)
    assert of(reader, REQUESTS)[label, "x"].value == 1


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("x" * 63, "x" * 63),
        ("x" * 64, "x" * 63),
        ("x" * 62 + "é", "x" * 62),
        ("x" * 61 + "é", "x" * 61 + "é"),
        ("\U0001f600" * 20, "\U0001f600" * 15),
        ("x" * 61 + "\ud800y", "x" * 61),
    ],
)
def test_long_labels_are_cut_between_characters(label: str, expected: str) -> None:
    meter = Meter(FAMILIES)
    handle = meter.series("latency", (label,))
    assert meter.series("latency", (label + "and more",)) == meter.series("latency", (expected,)) == handle
    assert list(of(meter, LATENCY)) == [("other",), (expected,)]
    assert model_meter.kept(label) == expected


def test_any_number_of_long_labels_with_one_beginning_is_one_series() -> None:
    meter = Meter(FAMILIES)
    handles = {meter.series("latency", ("x" * 63 + str(number),)) for number in range(1_000)}
    assert len(handles) == 1
    assert meter.overflowed() == 0


def test_a_series_has_its_own_words() -> None:
    """All slots in use, each with its own amount: no two overlap, and the neighbours' labels stay."""
    wide = Family("wide", COUNTER, tuple("abcdefgh"), max_series=50)
    narrow = Family("narrow", HISTOGRAM, ("a",), tuple(range(31)), max_series=50)
    meter = Meter([wide, narrow, TOTAL])
    meter.add(meter.series("total"), 7)
    for number in range(1, 50):
        meter.add(meter.series("wide", ("x" * 60 + str(number),) * 8), number)
        for _ in range(number):
            meter.observe(meter.series("narrow", ("y" * 60 + str(number),)), number)
    assert [sample.value for sample in of(meter, wide).values()] == list(range(50))
    assert [sample.value for sample in of(meter, narrow).values()] == list(range(50))
    assert [sample.total for sample in of(meter, narrow).values()] == [number * number for number in range(50)]
    assert list(of(meter, wide))[49] == ("x" * 60 + "49",) * 8
    assert of(meter, TOTAL)[()].value == 7


def test_counters_never_go_down() -> None:
    meter = Meter(FAMILIES)
    handle = meter.series("total")
    meter.add(handle, 2**63 - 1)
    meter.add(handle, 2**63 - 1)
    with pytest.raises(ValueError, match="does not go down: amount -1"):
        meter.add(handle, -1)
    assert of(meter, TOTAL)[()].value == 2**63 - 1


def test_values_stop_at_the_ends_of_64_bits() -> None:
    meter = Meter(FAMILIES)
    meter.add(meter.series("open"), -(2**63))
    meter.add(meter.series("open"), -1)
    latency = meter.series("latency", ("m",))
    meter.observe(latency, 2**63 - 1)
    meter.observe(latency, 2**63 - 1)
    assert of(meter, OPEN)[()].value == -(2**63)
    assert of(meter, LATENCY)[("m",)] == Sample(LATENCY, ("m",), 2, (0, 0, 0, 2), 2**63 - 1)
    for amount in (2**63, -(2**63) - 1):
        with pytest.raises(OverflowError):
            meter.add(meter.series("open"), amount)


@pytest.mark.parametrize("handle", [-1, -(2**31), 5 << 16, 2**31 - 1, 1, 4, 0xFFFF, 1 << 16 | 1, 4 << 16 | 1])
def test_unknown_handles_are_refused_and_change_nothing(handle: int) -> None:
    """Out of range of families or slots, or of a slot that is not in use yet."""
    meter = Meter(FAMILIES)
    before = meter.collect()
    with pytest.raises(IndexError, match=str(handle)):
        meter.add(handle)
    with pytest.raises(IndexError, match=str(handle)):
        meter.observe(handle, 1)
    assert meter.collect() == before


def test_add_and_observe_are_for_their_own_kinds() -> None:
    meter = Meter(FAMILIES)
    with pytest.raises(ValueError, match="another kind"):
        meter.add(meter.series("latency", ("m",)))
    for handle in (meter.series("total"), meter.series("open")):
        with pytest.raises(ValueError, match="another kind"):
            meter.observe(handle, 1)


def test_series_wants_a_known_family_and_all_labels() -> None:
    meter = Meter(FAMILIES)
    with pytest.raises(KeyError, match="nope"):
        meter.series("nope")
    for labels in ((), ("a",), ("a", "b", "c")):
        with pytest.raises(ValueError, match="'requests' has the labels"):
            meter.series("requests", labels)
    with pytest.raises(ValueError, match="'open' has the labels"):
        meter.series("open", ("a",))
    with pytest.raises(TypeError):
        meter.series("requests", (1, 2))  # type: ignore[arg-type]
    assert len(of(meter, REQUESTS)) == 1


def test_lists_do_for_a_familys_tuples() -> None:
    meter = Meter([Family("h", HISTOGRAM, ["a"], [1, 2])])  # type: ignore[arg-type]
    assert meter.families == (Family("h", HISTOGRAM, ("a",), (1, 2)),)
    assert (meter.worker, meter.workers) == (0, 1)


@pytest.mark.parametrize(
    ("families", "message"),
    [
        ([], "1 to 1024 families, got 0"),
        ([TOTAL, OPEN, TOTAL], "twice.*'total'"),
        ([Family("", COUNTER)], "non-empty"),
        ([Family("x", 0)], "'x'.*kind 0"),
        ([Family("x", COUNTER, ("a", "a"))], "'x'.*different labels"),
        ([Family("x", COUNTER, tuple("abcdefghi"))], "'x'.*at most 8"),
        ([Family("x", COUNTER, (), (1,))], "'x'.*only a histogram"),
        ([Family("x", HISTOGRAM)], "'x'.*1 to 31 bounds, not 0"),
        ([Family("x", HISTOGRAM, (), tuple(range(32)))], "'x'.*1 to 31 bounds, not 32"),
        ([Family("x", HISTOGRAM, (), (1, 1))], "'x'.*ascend"),
        ([Family("x", HISTOGRAM, (), (1, 2**63))], "'x'.*64 bits"),
        ([Family("x", HISTOGRAM, (), (0.5,))], "'x'.*ints"),  # type: ignore[arg-type]
        ([Family("x", COUNTER, (), (), 0)], "'x'.*max_series.*not 0"),
        ([Family("x", COUNTER, ("a",), (), 1)], "'x'.*max_series.*not 1"),
        ([Family("x", COUNTER, ("a",), (), 65_537)], "'x'.*max_series.*not 65537"),
    ],
)
def test_families_that_cannot_be_are_refused_by_name(families: list[Family], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Meter(families)
    with pytest.raises(ValueError, match=message):
        Meter.size(families)


@pytest.mark.parametrize(("worker", "workers"), [(-1, 1), (1, 1), (0, 0), (2, 2)])
def test_a_worker_is_one_of_its_number(worker: int, workers: int) -> None:
    with pytest.raises(ValueError, match=f"worker {worker} is not one of {workers}"):
        Meter(FAMILIES, worker=worker, workers=workers)
    with pytest.raises(ValueError, match="0 workers"):
        Meter.size(FAMILIES, 0)
