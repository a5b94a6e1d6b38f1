"""A request's span: what its Receipt makes of it, and what its upstream hears of it."""

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from agw_proxy.edge import tracing
from agw_proxy.edge.exchange import Exchange
from agw_proxy.edge.headers import towards_upstream
from agw_proxy.spans import CURRENT, Tracer
from tests.observe.test_metrics import receipt
from tests.test_spans import SPAN, TRACE, Kept


@pytest.fixture
def kept() -> Kept:
    return Kept()


async def begun(kept: Kept, flags: str = "01") -> Exchange:
    exchange = Exchange("req_1", "POST", None)
    tracing.begin(Tracer(kept), exchange, {"traceparent": f"00-{TRACE}-{SPAN}-{flags}"})
    return exchange


async def test_a_receipt_says_what_its_span_tells(kept: Kept) -> None:
    exchange = await begun(kept)
    tracing.end(
        exchange,
        receipt(prompt_tokens=5, completion_tokens=7, cached_tokens=2, finish_reason="stop", ttft_ms=20.0, cost=1500),
    )
    (span,) = kept.over
    assert (span.name, span.kind, span.parent_id, span.error) == ("chat gpt-4o", "server", SPAN, None)
    assert span.ended_ns - span.began_ns == 250_000_000
    assert span.attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "fake",
        "gen_ai.request.model": "gpt-4o",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.response.time_to_first_chunk": 0.02,
        "gen_ai.usage.input_tokens": 5,
        "gen_ai.usage.output_tokens": 7,
        "gen_ai.usage.cache_read.input_tokens": 2,
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "agw.request_id": "r",
        "agw.endpoint": "chat_completions",
        "agw.attempts": 1,
        "agw.cost_usd": 0.0015,
    }


async def test_what_fails_says_how_and_what_asks_no_model_has_no_span(kept: Kept) -> None:
    tracing.end(await begun(kept), receipt(outcome="upstream_timeout", status=504))
    tracing.end(await begun(kept), receipt(model=None, endpoint="health"))
    tracing.end(Exchange("untraced", "GET", None), receipt())
    assert [span.error for span in kept.over] == ["upstream_timeout"]


async def test_an_upstream_goes_on_below_a_span_that_is_recorded(kept: Kept) -> None:
    came = f"00-{TRACE}-{SPAN}-01"
    headers = CIMultiDictProxy(CIMultiDict({"TraceParent": came, "tracestate": "v=1", "accept": "*/*"}))
    CURRENT.set(None)
    assert ("TraceParent", came) in towards_upstream(headers)
    exchange = await begun(kept, "00")
    assert ("TraceParent", came) in towards_upstream(headers)
    exchange = await begun(kept)
    assert exchange.span is not None
    assert towards_upstream(headers) == [
        ("traceparent", exchange.span.traceparent), ("tracestate", "v=1"), ("accept", "*/*"),
    ]  # fmt: skip
    assert exchange.trace_id == TRACE
