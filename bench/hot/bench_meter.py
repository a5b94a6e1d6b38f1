"""Counting and observing, compiled against the plain-Python model."""

import mmap

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from agw_proxy._hot.meter import COUNTER, HISTOGRAM, Family, Meter
from tests.hot import model_meter

LABELS = ("gpt-4o-mini", "openai", "200")
BOUNDS = tuple(10**6 * 2**power for power in range(20))
FAMILIES = [
    Family("requests", COUNTER, ("model", "upstream", "status")),
    Family("latency", HISTOGRAM, ("model", "upstream", "status"), BOUNDS),
]
SERIES = 100
WORKERS = 4


def test_add_compiled(benchmark: BenchmarkFixture) -> None:
    """With the handle at hand, as on the request path."""
    benchmark.group = "meter add"
    meter = Meter(FAMILIES)
    benchmark(meter.add, meter.series("requests", LABELS), 1)
    assert any(sample.value > 0 for sample in meter.collect())


def test_add_model(benchmark: BenchmarkFixture) -> None:
    benchmark.group = "meter add"
    model = model_meter.Meter(FAMILIES, 1)
    benchmark(model.add, 0, "requests", LABELS, 1)
    assert any(sample.value > 0 for sample in model.collect())


def test_observe_compiled(benchmark: BenchmarkFixture) -> None:
    benchmark.group = "meter observe"
    meter = Meter(FAMILIES)
    benchmark(meter.observe, meter.series("latency", LABELS), 123_456_789)
    assert any(sample.total > 0 for sample in meter.collect())


def test_observe_model(benchmark: BenchmarkFixture) -> None:
    benchmark.group = "meter observe"
    model = model_meter.Meter(FAMILIES, 1)
    benchmark(model.observe, 0, "latency", LABELS, 123_456_789)
    assert any(sample.total > 0 for sample in model.collect())


@pytest.mark.parametrize("labels", [LABELS, ("x" * 100, "openai", "200")], ids=["short", "cut"])
def test_series(benchmark: BenchmarkFixture, labels: tuple[str, ...]) -> None:
    """A series seen before: what finding its handle costs on top of counting."""
    benchmark.group = "meter series"
    meter = Meter(FAMILIES)
    assert benchmark(meter.series, "requests", labels) == meter.series("requests", labels)


def test_collect_compiled(benchmark: BenchmarkFixture) -> None:
    """A scrape: 4 workers with 100 series in each of two families."""
    benchmark.group = "meter collect"
    memory = mmap.mmap(-1, Meter.size(FAMILIES, WORKERS))
    meters = [Meter(FAMILIES, memory, worker=worker, workers=WORKERS) for worker in range(WORKERS)]
    for meter in meters:
        for number in range(SERIES):
            meter.add(meter.series("requests", (f"model-{number}", "openai", "200")))
            meter.observe(meter.series("latency", (f"model-{number}", "openai", "200")), number)
    assert len(benchmark(meters[0].collect)) == 2 * (SERIES + 1)


def test_collect_model(benchmark: BenchmarkFixture) -> None:
    benchmark.group = "meter collect"
    model = model_meter.Meter(FAMILIES, WORKERS)
    for worker in range(WORKERS):
        for number in range(SERIES):
            model.add(worker, "requests", (f"model-{number}", "openai", "200"), 1)
            model.observe(worker, "latency", (f"model-{number}", "openai", "200"), number)
    assert len(benchmark(model.collect)) == 2 * (SERIES + 1)
