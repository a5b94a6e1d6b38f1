"""A collector of traces: a small HTTP server that takes OTLP and decodes its protobuf."""

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

WAIT_SECONDS = 30.0
KINDS = {1: "internal", 2: "server", 3: "client"}


class Got(NamedTuple):
    """A span, as it came."""

    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    attributes: dict[str, Any]
    failed: bool
    nanoseconds: int
    service: str


class Collector:
    """``with Collector() as collector``: at ``collector.url``. ``status``: what it answers."""

    def __init__(self, status: int = 200) -> None:
        self.status = status
        self.spans: list[Got] = []
        self.requests: list[tuple[str, dict[str, str]]] = []
        self._came = threading.Condition()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(collector.status)
                self.send_header("Content-Length", "0")
                self.end_headers()
                collector._take(self.path, dict(self.headers), body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def named(self, *names: str, kind: str | None = None, count: int = 1) -> list[Got]:
        """The spans of each of these names (of that kind), ``count`` of each; waits for them."""
        deadline = time.monotonic() + WAIT_SECONDS

        def found(name: str) -> list[Got]:
            return [span for span in self.spans if span.name == name and kind in {None, span.kind}][:count]

        with self._came:
            while missing := [name for name in names if len(found(name)) < count]:
                assert self._came.wait(deadline - time.monotonic()), f"{missing} not in {[s.name for s in self.spans]}"
            return [span for name in names for span in found(name)]

    def asked(self) -> None:
        """Waits for a request."""
        with self._came:
            assert self._came.wait_for(lambda: self.requests, WAIT_SECONDS)

    def _take(self, path: str, headers: dict[str, str], body: bytes) -> None:
        message = ExportTraceServiceRequest.FromString(body)
        with self._came:
            self.requests.append((path, headers))
            for of_service in message.resource_spans:
                service = _attributes(of_service.resource.attributes)["service.name"]
                for scope in of_service.scope_spans:
                    self.spans += [_got(span, service) for span in scope.spans] if self.status == 200 else []
            self._came.notify_all()


def _got(span: Any, service: str) -> Got:
    return Got(
        span.name,
        KINDS[span.kind],
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        _attributes(span.attributes),
        span.status.code == 2,
        span.end_time_unix_nano - span.start_time_unix_nano,
        service,
    )


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    return [_value(item) for item in value.array_value.values] if kind == "array_value" else getattr(value, kind)
