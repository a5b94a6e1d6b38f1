"""Spans to a collector, by OTLP over HTTP. Only this module imports OpenTelemetry; it comes with the extra ``otel``.

Spans are handed over as they are; a thread of its own turns them into protobuf in small batches and posts them. What
authors' code traces through OpenTelemetry's API (its own spans, instrumented libraries) goes the same way, below the span
that is under way here.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence

from opentelemetry import context, trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from agw_proxy.config.tracing import Trace
from agw_proxy.spans import Span

MAX_QUEUED_SPANS = 4096  # some 4 MB; beyond, the newest are dropped
MAX_BATCH_SPANS = 128  # some 3 ms of the interpreter's lock to encode, in pieces
BATCH_SECONDS = 0.5  # between two batches
CLOSE_SECONDS = 2.0  # for what is on its way at the end
WHAT = "span"
KINDS = {"internal": SpanKind.INTERNAL, "server": SpanKind.SERVER, "client": SpanKind.CLIENT}


class Collector(SpanProcessor):
    """Of one process (``spans.Sink``)."""

    def __init__(self, settings: Trace, version: str, dropped: Callable[[str, int], None]) -> None:
        """``version``: of the gateway. ``dropped``: hears how many spans have not been sent; on any thread."""
        self._dropped = dropped
        headers = dict(settings.headers) or None
        self._exporter: SpanExporter = OTLPSpanExporter(settings.address, headers=headers, timeout=settings.seconds)
        self._resource = Resource.create({SERVICE_NAME: settings.service, SERVICE_VERSION: version})
        self._scope = InstrumentationScope("agw_proxy", version)
        self._queue: deque[Span | ReadableSpan] = deque()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        # Spans of others that belong to no trace of ours are nobody's: there would be one for each thing a library does.
        others = TracerProvider(sampler=ParentBased(ALWAYS_OFF), resource=self._resource, shutdown_on_exit=False)
        others.add_span_processor(self)
        trace.set_tracer_provider(others)

    # -- spans.Sink

    def ended(self, span: Span) -> None:
        """See ``Sink``."""
        self._put(span)

    def entered(self, span: Span) -> None:
        """See ``Sink``: OpenTelemetry's own notion of what is under way follows."""
        context.attach(trace.set_span_in_context(NonRecordingSpan(_place(span, span.span_id))))

    def close(self) -> None:
        """See ``Sink``. Blocks for up to CLOSE_SECONDS."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join(CLOSE_SECONDS / 2)
            end: Callable[[], object] = self._exporter.shutdown
            end()  # it tries again and again where the collector is away
            self._thread.join(CLOSE_SECONDS / 2)
        if self._queue:
            self._dropped(WHAT, len(self._queue))
            self._queue.clear()

    # -- the SDK's processor, for spans of others

    def on_end(self, span: ReadableSpan) -> None:
        """See ``SpanProcessor``."""
        if span.context is not None and span.context.trace_flags.sampled:
            self._put(span)

    def shutdown(self) -> None:
        """See ``SpanProcessor``: the gateway closes it."""

    def force_flush(self, timeout_millis: int = 30000) -> bool:  # noqa: ARG002  the SDK's signature
        """See ``SpanProcessor``: batches are small and soon."""
        return True

    # -- the thread

    def _put(self, span: Span | ReadableSpan) -> None:
        if len(self._queue) >= MAX_QUEUED_SPANS or self._closing.is_set():
            self._dropped(WHAT, 1)
            return
        self._queue.append(span)
        if self._thread is None:
            self._begin()

    def _begin(self) -> None:
        """With the first span: a process may be forked before, and many never have one."""
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="agw-traces", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while not self._closing.wait(BATCH_SECONDS) or self._queue:
            self._send()

    def _send(self) -> None:
        while self._queue:
            batch = [self._queue.popleft() for _ in range(min(len(self._queue), MAX_BATCH_SPANS))]
            made = [self._readable(span) if isinstance(span, Span) else span for span in batch]
            if not _sent(self._exporter, made):
                self._dropped(WHAT, len(batch))

    def _readable(self, span: Span) -> ReadableSpan:
        attributes: dict[str, str | bool | int | float | Sequence[str]] = {**span.attributes}
        if span.error is not None:
            attributes["error.type"] = span.error
        return ReadableSpan(
            span.name,
            context=_place(span, span.span_id),
            parent=_place(span, span.parent_id) if span.parent_id is not None else None,
            resource=self._resource,
            attributes=attributes,
            kind=KINDS[span.kind],
            status=Status(StatusCode.ERROR) if span.error is not None else Status(StatusCode.UNSET),
            start_time=span.began_ns,
            end_time=span.ended_ns,
            instrumentation_scope=self._scope,
        )


def _sent(exporter: SpanExporter, spans: Sequence[ReadableSpan]) -> bool:
    """Whether the collector has them. What goes wrong is the exporter's to log."""
    try:
        return exporter.export(spans) is SpanExportResult.SUCCESS
    except Exception:  # noqa: BLE001  whatever a transport may raise: the thread goes on with the next batch
        return False


def _place(span: Span, span_id: str) -> SpanContext:
    """Of a span of its trace."""
    flags = TraceFlags(TraceFlags.SAMPLED if span.recorded else TraceFlags.DEFAULT)
    return SpanContext(int(span.trace_id, 16), int(span_id, 16), is_remote=False, trace_flags=flags)
