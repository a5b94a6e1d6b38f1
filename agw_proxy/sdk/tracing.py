"""The Agents SDK's own tracing as spans of the request's trace, in OpenTelemetry's GenAI conventions.

The SDK tells a processor of what it begins and ends: agents, model calls, tools, handoffs, guardrails, lists of MCP tools.
Here is such a processor; the SDK's own, which sends all to its vendor, is taken away before any agent is loaded. A run whose request is not recorded costs
nothing: the SDK makes no spans then.
"""

import contextlib
import reprlib
from collections.abc import Iterator, Mapping
from typing import Any

import agents
import orjson
from agents.tracing import Span as SdkSpan
from agents.tracing import Trace, TracingProcessor
from agents.tracing.scope import Scope

from agw_proxy.sdk.entry import Run
from agw_proxy.spans import CURRENT, Kind, Span, Tracer, Value, enter

MAX_TRACES = 4096
"""Of the SDK's, under way; those beyond are not recorded."""
MAX_SPANS = 1024
"""Under way in one of them; likewise."""
CONTENT_CHARACTERS = 16_384
"""Of one message or argument that a span tells."""
PASSED_OVER = frozenset({"task", "turn"})
"""What the SDK has between a run and its agents, and between an agent and its model: conventions know neither."""
ERRORS = (
    ("Error running tool", "tool_failed"),
    ("Error getting response", "model_failed"),
    ("Error streaming response", "model_failed"),
    ("Guardrail tripwire triggered", "guardrail_tripped"),
    ("Max turns exceeded", "max_turns"),
    ("Multiple handoffs requested", "several_handoffs"),
)
"""How the SDK's words begin -> ``error.type``."""
ENDING = frozenset({"guardrail_tripped"})
"""Of them, what ends a run: where it is not streamed, the SDK marks the turn with it, and not the agent."""
OTHER = "_OTHER"
"""``error.type`` of what has no name of a small set."""
Members = dict[str, Any]
UNRECORDED: Members = {"tracing_disabled": True}


class Traces(TracingProcessor):
    """Of one process; ``install`` makes it the SDK's."""

    def __init__(self, tracer: Tracer) -> None:
        self._content = tracer.content
        self._open: dict[str, dict[str, tuple[Span, Span | None]]] = {}
        """By the SDK's ids of traces and spans: ours, and what was under way before; None: it stands for one above it."""

    def install(self) -> None:
        """From now on the SDK tells it, and whoever an agent's code has added; its vendor's is gone (``import_sdk``)."""
        agents.add_trace_processor(self)
        agents.set_tracing_disabled(False)

    @contextlib.contextmanager
    def over(self, run: Run) -> Iterator[Members]:
        """Around a run, in its own task: its spans are below what is under way here. Gives members of its RunConfig."""
        parent = CURRENT.get()
        if parent is None or not parent.recorded:
            yield UNRECORDED
            return
        # A run that another run's model call has come to is within a trace of the SDK's already: not its own.
        Scope.set_current_trace(None)
        Scope.set_current_span(None)
        trace = agents.trace(run.agent)
        trace.start(mark_as_current=True)
        try:
            yield {"trace_include_sensitive_data": self._content}
        finally:
            trace.finish(reset_current=True)

    # -- TracingProcessor

    def on_trace_start(self, trace: Trace) -> None:
        """See the SDK."""
        if len(self._open) < MAX_TRACES:
            self._open[trace.trace_id] = {}

    def on_trace_end(self, trace: Trace) -> None:
        """See the SDK. What has not ended was left in the middle."""
        for span, before in self._open.pop(trace.trace_id, {}).values():
            if before is not None:
                span.end("cancelled")

    def on_span_start(self, span: SdkSpan[Any]) -> None:
        """See the SDK. In the context where it begins."""
        spans = self._open.get(span.trace_id)
        known = spans.get(span.parent_id or "") if spans is not None else None
        here = CURRENT.get()
        parent = known[0] if known is not None else here
        if known is not None and here is not None:
            parent = here.under_way(known[0]) or parent  # an author's own (``track``), which the SDK does not know
        if spans is None or parent is None or not parent.recorded or len(spans) >= MAX_SPANS:
            return
        data = span.span_data
        if data.type in PASSED_OVER:
            spans[span.span_id] = (parent, None)
            return
        name, kind = _named(data)
        made = parent.child(name, kind)
        spans[span.span_id] = (made, here or parent)
        enter(made)

    def on_span_end(self, span: SdkSpan[Any]) -> None:
        """See the SDK. It may be another context than where it has begun."""
        spans = self._open.get(span.trace_id, {})
        made, before = spans.pop(span.span_id, (None, None))
        if made is None:
            return
        data = span.span_data
        if before is None:
            agent, _ = spans.get(span.parent_id or "", (None, None))
            if data.type == "turn" and agent is not None and (error := _error(span.error)) in ENDING:
                agent.error = error
            return
        if CURRENT.get() is made:
            enter(before)
        try:
            made.name, _ = _named(data)
            made.attributes |= {name: value for name, value in _told(data).items() if value is not None}
            if self._content:
                made.attributes |= _content(data)
        finally:
            made.end(_error(span.error))

    def shutdown(self) -> None:
        """See the SDK; the tracer has an owner who closes it."""

    def force_flush(self) -> None:
        """See the SDK; nothing is kept here."""


@contextlib.contextmanager
def unrecorded(_: Run) -> Iterator[Members]:
    """``Traces.over`` where nothing is traced."""
    yield UNRECORDED


def _named(data: Any) -> tuple[str, Kind]:
    """What a span is called, and whether somebody else is asked in it."""
    match data.type:
        case "agent":
            return f"invoke_agent {data.name}", "internal"
        case "generation" | "response":
            model = _model(data)
            return ("chat" if model is None else f"chat {model}"), "client"
        case "function":
            return f"execute_tool {data.name}", "internal"
        case "handoff":
            return f"handoff {data.to_agent}" if data.to_agent else "handoff", "internal"
        case "guardrail":
            return f"guardrail {data.name}", "internal"
        case "mcp_tools":
            return "tools/list", "client"
    return str(getattr(data, "name", None) or data.type), "internal"


def _told(data: Any) -> dict[str, Value | None]:
    """What it is, without what anybody has said."""
    match data.type:
        case "agent":
            return {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": data.name}
        case "generation" | "response":
            return _of_call(data)
        case "function":
            return {
                "gen_ai.operation.name": "execute_tool",
                "gen_ai.tool.name": data.name,
                "gen_ai.tool.type": "function",
                "agw.mcp.server": _text_of(data.mcp_data, "server"),
            }
        case "handoff":
            return {"agw.handoff.from": data.from_agent, "agw.handoff.to": data.to_agent}
        case "guardrail":
            return {"agw.guardrail.name": data.name, "agw.guardrail.triggered": bool(data.triggered)}
        case "mcp_tools":
            count = len(data.result) if data.result is not None else None
            return {"mcp.method.name": "tools/list", "agw.mcp.server": data.server, "agw.mcp.tools": count}
    return {}


def _of_call(data: Any) -> dict[str, Value | None]:
    """A model call, of either of the SDK's kinds of models."""
    usage: Mapping[str, Any] = data.usage or {}
    response = getattr(data, "response", None)
    model = _model(data)
    details = usage.get("input_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, Mapping) else None
    return {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "agw",
        "gen_ai.request.model": model,
        "gen_ai.response.model": None if response is None else model,
        "gen_ai.response.id": None if response is None else str(response.id),
        "gen_ai.usage.input_tokens": _count(usage.get("input_tokens")),
        "gen_ai.usage.output_tokens": _count(usage.get("output_tokens")),
        "gen_ai.usage.cache_read.input_tokens": _count(cached),
    }


def _model(data: Any) -> str | None:
    response = getattr(data, "response", None)
    model = response.model if response is not None else getattr(data, "model", None)
    return str(model) if model else None


def _content(data: Any) -> dict[str, Value]:
    """What was said, as far as the SDK tells."""
    match data.type:
        case "function":
            pairs = {"gen_ai.tool.call.arguments": data.input, "gen_ai.tool.call.result": data.output}
        case "generation":
            pairs = {"gen_ai.input.messages": data.input, "gen_ai.output.messages": data.output}
        case "response":
            output = [item.model_dump(exclude_none=True) for item in data.response.output] if data.response else None
            pairs = {"gen_ai.input.messages": data.input, "gen_ai.output.messages": output}
        case "custom":
            pairs = {"agw.data": data.data}
        case _:
            pairs = {}
    return {name: _text(value) for name, value in pairs.items() if value is not None}


def _error(error: Any) -> str | None:
    """What has gone wrong, where the SDK says so; an author's words may be secrets, and are without number."""
    if error is None:
        return None
    return next((kind for words, kind in ERRORS if str(error.get("message", "")).startswith(words)), OTHER)


def _text(value: object) -> str:
    """At most so much of it, and only what can be sent: JSON, as far as it is of JSON's kinds."""
    if not isinstance(value, str):
        try:
            value = orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
        except TypeError:  # a number that is too large, or what leads round in a circle
            value = reprlib.repr(value)
    return value[:CONTENT_CHARACTERS].encode("utf-8", "replace").decode()


def _text_of(tree: Mapping[str, Any] | None, name: str) -> str | None:
    value = (tree or {}).get(name)
    return value if isinstance(value, str) else None


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
