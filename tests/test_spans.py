"""Spans: whose trace they belong to, whether they are recorded, and that each ends once."""

import pytest

from agw_proxy.spans import CURRENT, PARENT, Span, Tracer, enter

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


class Kept:
    def __init__(self) -> None:
        self.over: list[Span] = []
        self.closed = False

    def ended(self, span: Span) -> None:
        self.over.append(span)

    def entered(self, span: Span) -> None:
        pass

    def close(self) -> None:
        self.closed = True


def test_a_callers_trace_goes_on_as_the_caller_decided() -> None:
    kept = Kept()
    tracer = Tracer(kept, 0.0)
    span = tracer.begin("request", "server", f"00-{TRACE}-{SPAN}-01")
    assert (span.trace_id, span.parent_id, span.recorded) == (TRACE, SPAN, True)
    assert span.traceparent == f"00-{TRACE}-{span.span_id}-01"
    not_sampled = tracer.begin("request", "server", f"00-{TRACE}-{SPAN}-00").child("below")
    assert not_sampled.traceparent.endswith("-00")
    not_sampled.end()
    assert kept.over == []
    tracer.close()
    assert kept.closed


def test_a_span_of_another_process_is_gone_on_with_and_never_ended_here() -> None:
    kept = Kept()
    tracer = Tracer(kept)
    span = tracer.within(f"00-{TRACE}-{SPAN}-01")
    assert span is not None
    assert span.traceparent == f"00-{TRACE}-{SPAN}-01"
    below = span.child("below")
    below.end()
    assert [(each.trace_id, each.parent_id) for each in kept.over] == [(TRACE, SPAN)]
    assert [tracer.within(header) for header in (None, "", "00-0-0-01")] == [None] * 3


@pytest.mark.parametrize("header", [None, "", "00-0-0-01", f"ff-{TRACE}-{SPAN}-01", f"00-{'0' * 32}-{SPAN}-01"])
def test_without_a_callers_trace_there_is_a_new_one(header: str | None) -> None:
    span = Tracer(Kept()).begin("request", "server", header)
    assert PARENT.fullmatch(span.traceparent)
    assert (span.parent_id, span.recorded) == (None, True)
    assert span.trace_id != TRACE


def test_the_share_that_is_sampled_is_known_by_the_traces_id() -> None:
    tracer = Tracer(Kept(), 0.25)
    made = [tracer.begin("request", "server", None) for _ in range(400)]
    assert {span.recorded for span in made} == {True, False}
    assert all(span.recorded == (int(span.trace_id[16:], 16) < 1 << 62) for span in made)
    assert not Tracer(Kept(), 0.0).begin("request", "server", None).recorded


def test_a_span_ends_once_with_its_first_error() -> None:
    kept = Kept()
    span = Tracer(kept).begin("request", "server", None)
    below = span.child("tool")
    below.end("tool_failed")
    below.end()
    span.end(nanoseconds=5_000_000_000)
    assert kept.over == [below, span]
    assert (below.error, below.parent_id, span.error) == ("tool_failed", span.span_id, None)
    assert span.ended_ns - span.began_ns == 5_000_000_000
    assert 0 <= below.ended_ns - below.began_ns < 5_000_000_000


async def test_what_is_under_way_is_known_in_its_context() -> None:
    span = Tracer(Kept()).begin("request", "server", None)
    enter(span)
    assert CURRENT.get() is span
