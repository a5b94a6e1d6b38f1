"""The span of a request on the full lane: begun with its exchange, ended by its Receipt.

What asks no model (``/health``, lists, admins) has none in the end; it was only a place in a trace.
"""

from collections.abc import Mapping

from agw_proxy.edge.exchange import Exchange
from agw_proxy.observe.metrics import OPERATIONS
from agw_proxy.spans import Tracer, enter
from agw_proxy.types import Receipt

MICRO = 1_000_000  # micro-dollars in a dollar
TRACEPARENT = "traceparent"


def begin(tracer: Tracer, exchange: Exchange, headers: Mapping[str, str]) -> None:
    """The exchange is what is under way here, in its caller's trace or a new one."""
    span = tracer.begin("request", "server", headers.get(TRACEPARENT))
    exchange.span, exchange.trace_id = span, span.trace_id
    enter(span)


def end(exchange: Exchange, receipt: Receipt) -> None:
    """It is over, as the Receipt says."""
    span = exchange.span
    if span is None or receipt.model is None or not span.recorded:
        return
    operation = OPERATIONS.get(receipt.endpoint, receipt.endpoint)
    span.name = f"{operation} {receipt.model}"
    told: dict[str, str | int | float | bool | None] = {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": receipt.upstream,
        "gen_ai.request.model": receipt.model,
        "gen_ai.request.stream": receipt.stream or None,
        "gen_ai.response.time_to_first_chunk": receipt.ttft_ms / 1000 if receipt.ttft_ms is not None else None,
        "http.request.method": receipt.method,
        "http.response.status_code": receipt.status or None,
        "agw.request_id": receipt.request_id,
        "agw.endpoint": receipt.endpoint,
        "agw.key": receipt.key,
        "agw.target": receipt.target,
        "agw.attempts": receipt.attempts,
        "agw.cache": receipt.cache,
        "agw.run_id": receipt.run_id,
        "agw.cost_usd": receipt.cost / MICRO if receipt.cost >= 0 else None,
    }
    for name, count in (
        ("input_tokens", receipt.prompt_tokens),
        ("output_tokens", receipt.completion_tokens),
        ("cache_read.input_tokens", receipt.cached_tokens),
    ):
        if count >= 0:
            told[f"gen_ai.usage.{name}"] = count
    span.attributes |= {name: value for name, value in told.items() if value is not None}
    if receipt.finish_reason is not None:
        span.attributes["gen_ai.response.finish_reasons"] = (receipt.finish_reason,)
    span.end(None if receipt.outcome == "ok" else receipt.outcome, round(receipt.duration_ms * 1e6))
