"""Where spans go: to a collector by OTLP over HTTP (OpenTelemetry's own exporter), or as events into a log of level debug."""

from collections.abc import Callable

from agw_proxy import __version__
from agw_proxy.config.tracing import Trace
from agw_proxy.observe.log import Log
from agw_proxy.spans import Sink, Span, Tracer

EVENT = "trace.span"


def tracer_of(settings: Trace, level: str, log: Log, dropped: Callable[[str, int], None]) -> Tracer | None:
    """What traces requests; None where nobody would see it. To be made in the process that serves, at its start.

    ``level``: the log's. ``dropped``: hears ``span`` and how many have not been sent; on any thread.
    """
    sink: Sink
    if settings.endpoint is not None:
        from agw_proxy.observe.otlp import Collector  # noqa: PLC0415  an extra, and heavy

        sink = Collector(settings, __version__, dropped)
    elif level == "debug":
        sink = Events(log)
    else:
        return None
    return Tracer(sink, settings.sample, content=settings.content)


class Events:
    """Spans as events of the log."""

    def __init__(self, log: Log) -> None:
        self._say = log.events.debug

    def ended(self, span: Span) -> None:
        """See ``Sink``."""
        members: dict[str, object] = {"trace_id": span.trace_id, "span_id": span.span_id}
        if span.parent_id is not None:
            members["parent_id"] = span.parent_id
        members |= {"name": span.name, "kind": span.kind}
        members["duration_ms"] = round((span.ended_ns - span.began_ns) / 1e6, 3)
        if span.error is not None:
            members["error"] = span.error
        self._say(EVENT, **members, attributes=span.attributes)

    def entered(self, span: Span) -> None:
        """See ``Sink``; the log needs nothing of it."""

    def close(self) -> None:
        """See ``Sink``; the log is closed by its owner."""
