"""What is tracked is counted and timed by its outcome, and is a span where its request is traced."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from agw_proxy._hot.limit import Table
from agw_proxy._hot.meter import Meter
from agw_proxy.observe.metrics import FAMILIES, Metrics
from agw_proxy.sdk import host, track
from agw_proxy.sdk.host import Host
from agw_proxy.spans import CURRENT, Span, Tracer, enter
from tests.test_spans import Kept


@pytest.fixture(autouse=True)
def metrics(monkeypatch: pytest.MonkeyPatch) -> Metrics:
    made = Metrics(Meter(FAMILIES), "1")
    monkeypatch.setattr(host, "_hosts", [])
    host.serve(Host(Table(slots=64, gates=8, windows=32, leases=8), made.helped, made.tracked))
    return made


@pytest.fixture
def kept() -> Kept:
    return Kept()


def request(kept: Kept) -> Span:
    span = Tracer(kept).begin("request", "server", None)
    enter(span)
    return span


def counts(metrics: Metrics) -> dict[tuple[str, ...], int]:
    return {sample.labels: sample.value for sample in metrics.meter.collect("agw_tracked_seconds") if sample.value}


async def test_each_call_is_counted_by_its_outcome(metrics: Metrics) -> None:
    @track("lookup")
    async def look(error: BaseException | None = None) -> int:
        if error is not None:
            raise error
        return 1

    assert await look() == 1
    with pytest.raises(ValueError, match="secret"):
        await look(ValueError("secret"))
    with pytest.raises(asyncio.CancelledError):
        await look(asyncio.CancelledError())
    assert counts(metrics) == {("lookup", "ok"): 1, ("lookup", "failed"): 1, ("lookup", "cancelled"): 1}
    assert b'agw_tracked_seconds_count{name="lookup",outcome="ok"} 1.0' in metrics.text()


async def test_without_a_name_it_is_the_functions(metrics: Metrics) -> None:
    @track
    def look() -> None: ...

    look()
    assert counts(metrics) == {
        ("tests.sdk.test_tracking.test_without_a_name_it_is_the_functions.look"[:63], "ok"): 1,
    }


async def test_it_is_a_span_and_what_it_does_is_below_it(kept: Kept) -> None:
    above = request(kept)
    seen: list[Span | None] = []

    @track("inside")
    def inside() -> None:
        raise KeyError("secret")

    @track("outside")
    async def outside() -> None:
        seen.append(CURRENT.get())
        with pytest.raises(KeyError):
            inside()

    await outside()
    inner, outer = kept.over
    assert [(span.name, span.parent_id, span.error) for span in kept.over] == [
        ("inside", outer.span_id, "KeyError"),
        ("outside", above.span_id, None),
    ]
    assert inner.trace_id == above.trace_id
    assert seen == [outer]
    assert CURRENT.get() is above


async def test_a_stream_is_one_call_and_its_reader_is_not_below_it(metrics: Metrics, kept: Kept) -> None:
    above = request(kept)
    seen: list[Span | None] = []

    @track("stream")
    async def stream() -> AsyncIterator[int]:
        for number in range(3):
            seen.append(CURRENT.get())
            yield number

    async for _ in stream():
        assert CURRENT.get() is above
    assert seen == [kept.over[0]] * 3
    items = stream()
    await anext(items)
    await items.aclose()  # type: ignore[attr-defined]  # it is a generator still
    assert counts(metrics) == {("stream", "ok"): 1, ("stream", "cancelled"): 1}


def test_where_nothing_is_traced_there_is_no_span(metrics: Metrics) -> None:
    CURRENT.set(None)
    track("alone")(lambda: None)()
    assert counts(metrics) == {("alone", "ok"): 1}
    assert CURRENT.get() is None
