"""Spans reach a collector as OTLP, those of authors below ours; one that is away costs spans and nothing else."""

import contextvars

import pytest
from opentelemetry import trace as opentelemetry

from agw_proxy.config.tracing import Trace
from agw_proxy.observe import otlp
from agw_proxy.observe.otlp import MAX_QUEUED_SPANS
from agw_proxy.spans import Tracer, enter
from tests.support.collector import Collector


class Sent:
    """What a collector of spans has not sent."""

    def __init__(self) -> None:
        self.dropped = 0

    def __call__(self, what: str, count: int) -> None:
        assert what == "span"
        self.dropped += count


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenTelemetry takes one provider a process."""
    from opentelemetry.util._once import Once

    monkeypatch.setattr(opentelemetry, "_TRACER_PROVIDER", None)
    monkeypatch.setattr(opentelemetry, "_TRACER_PROVIDER_SET_ONCE", Once())


def made(url: str, dropped: Sent, **more: object) -> tuple[Tracer, otlp.Collector]:
    sink = otlp.Collector(Trace.model_validate({"endpoint": url, "service": "edge", **more}), "1.2.3", dropped)
    return Tracer(sink), sink


@pytest.mark.usefixtures("fresh")
def test_spans_arrive_whole_and_an_authors_below_ours() -> None:
    dropped = Sent()
    with Collector() as collector:
        tracer, sink = made(collector.url, dropped, headers={"x-team": "blue"})

        def work() -> None:
            span = tracer.begin("request", "server", None)
            enter(span)
            with opentelemetry.get_tracer("author").start_as_current_span("query"):
                tool = span.child("execute_tool look", "client")
                tool.attributes |= {"n": 3, "yes": True, "some": ("a", "b"), "share": 0.5}
                tool.end("tool_failed")
            span.name = "chat m"
            span.end(nanoseconds=2_000_000)

        contextvars.Context().run(work)
        contextvars.Context().run(lambda: opentelemetry.get_tracer("author").start_span("nobody's").end())
        request, tool, query = collector.named("chat m", "execute_tool look", "query")
        sink.close()
        path, headers = collector.requests[0]
        assert len(collector.spans) == 3
    assert (path, headers["x-team"]) == ("/v1/traces", "blue")
    assert (request.kind, request.parent_id, request.failed, request.nanoseconds) == ("server", "", False, 2_000_000)
    assert (tool.kind, tool.parent_id, tool.failed) == ("client", request.span_id, True)
    assert tool.attributes == {"n": 3, "yes": True, "some": ["a", "b"], "share": 0.5, "error.type": "tool_failed"}
    assert (query.trace_id, query.parent_id) == (request.trace_id, request.span_id)
    assert {span.service for span in (request, tool, query)} == {"edge"}
    assert dropped.dropped == 0


@pytest.mark.usefixtures("fresh")
def test_what_a_collector_does_not_take_is_counted_as_dropped() -> None:
    dropped = Sent()
    with Collector(status=400) as collector:
        tracer, sink = made(collector.url, dropped)
        tracer.begin("request", "server", None).end()
        collector.asked()
        sink.close()
    assert dropped.dropped == 1
    tracer.begin("request", "server", None).end()
    assert dropped.dropped == 2, "after its end it takes none"


@pytest.mark.usefixtures("fresh")
def test_a_full_queue_drops_and_an_absent_collector_does_not_hold_up_the_end() -> None:
    dropped = Sent()
    with Collector() as gone:
        url = gone.url
    tracer, sink = made(url, dropped, seconds=60)
    for _ in range(MAX_QUEUED_SPANS + 5):
        tracer.begin("request", "server", None).end()
    sink.close()
    assert dropped.dropped >= MAX_QUEUED_SPANS
