"""Where spans go: nowhere, into the log, or to a collector."""

import io

import orjson
import pytest

from agw_proxy.config.settings import Settings
from agw_proxy.config.tracing import Trace
from agw_proxy.observe.log import Log, LogWriter
from agw_proxy.observe.trace import EVENT, tracer_of


def ignore(_what: str, _count: int) -> None:
    pass


def test_a_log_of_level_debug_has_spans_as_events() -> None:
    text = io.StringIO()
    log = Log(LogWriter(text), level="debug")
    tracer = tracer_of(Trace(), "debug", log, ignore)
    assert tracer is not None
    span = tracer.begin("chat m", "server", None)
    below = span.child("execute_tool look")
    below.attributes["gen_ai.tool.name"] = "look"
    below.end("tool_failed")
    span.end()
    tracer.close()
    log.writer.close()
    tool, chat = [orjson.loads(line) for line in text.getvalue().splitlines()]
    assert (tool["event"], tool["level"], tool["name"]) == (EVENT, "debug", "execute_tool look")
    assert (tool["trace_id"], tool["parent_id"]) == (chat["trace_id"], chat["span_id"])
    assert (tool["attributes"], tool["error"], tool["kind"]) == (
        {"gen_ai.tool.name": "look"},
        "tool_failed",
        "internal",
    )
    assert "parent_id" not in chat
    assert chat["duration_ms"] >= tool["duration_ms"]


def test_where_nobody_would_see_it_nothing_is_traced() -> None:
    log = Log(LogWriter(io.StringIO()))
    assert tracer_of(Trace(), "info", log, ignore) is None
    log.writer.close()


@pytest.mark.parametrize(
    ("endpoint", "address"),
    [
        ("http://c:4318", "http://c:4318/v1/traces"),
        ("http://c:4318/", "http://c:4318/v1/traces"),
        ("https://c/otel/v1/traces", "https://c/otel/v1/traces"),
    ],
)
def test_an_endpoint_without_a_path_gets_that_of_the_specification(endpoint: str, address: str) -> None:
    assert Settings.model_validate({"trace": {"endpoint": endpoint}}).trace.address == address
