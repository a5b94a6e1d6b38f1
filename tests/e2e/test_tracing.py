"""Traces of requests and runs, as a collector gets them: one tree from the caller's span down to the upstream's request."""

from collections.abc import Iterator

import orjson
import pytest

from tests.sdk.folders import write
from tests.support.collector import Collector
from tests.support.gateway import Gateway, configuration, provider
from tests.support.providers import TEXT, Scene, plays
from tests.support.upstream import Upstream

CALLERS, ABOVE = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
CALL = Scene(calls=(("look_up", {"city": "Oslo"}),), stop="tool")
CLERK = '''\
from agents import Agent, function_tool
from agw_proxy.sdk import rate_limit, track

@function_tool
@track("lookup")
@rate_limit(1, period=3600, wait=0)
def look_up(city: str) -> str:
    """The weather of a city."""
    return f"Sun in {city}"

agent = Agent(name="Clerk", model="fast", tools=[look_up])
'''
BOSS = 'from agents import Agent\n\nagent = Agent(name="Boss", model="default/clerk")\n'


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector() as running:
        yield running


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream() as running:
        yield running


@pytest.fixture(scope="module")
def gateway(collector: Collector, upstream: Upstream) -> Iterator[Gateway]:
    made = Gateway(
        configuration(
            provider(upstream.url, models=["gpt-4o-mini"]),
            models=[{"name": "fast", "targets": ["fake/gpt-4o-mini"]}],
            trace={"endpoint": collector.url, "service": "tested"},
        )
    )
    write(made.folder / "work" / "agents", {"Clerk/agent.py": CLERK, "Boss/agent.py": BOSS})
    with made:
        yield made


def test_a_run_is_one_tree_from_the_caller_to_the_upstream(
    gateway: Gateway, collector: Collector, upstream: Upstream
) -> None:
    upstream.script(plays(CALL), plays(TEXT))
    body = {"model": "default/clerk", "input": "Weather?"}
    sent = {"traceparent": f"00-{CALLERS}-{ABOVE}-01", "tracestate": "vendor=1"}
    reply = gateway.post("/v1/responses", body, headers=sent)
    assert reply.status == 200, reply.body
    request, agent, tool = collector.named("chat default/clerk", "invoke_agent Clerk", "execute_tool look_up")
    inner = collector.named("chat fast", kind="server", count=2)
    calls = [span for span in collector.spans if span.kind == "client"]
    assert {span.trace_id for span in collector.spans} == {CALLERS}
    assert {span.service for span in collector.spans} == {"tested"}
    assert (request.kind, request.parent_id, agent.parent_id) == ("server", ABOVE, request.span_id)
    assert {tool.parent_id, *(call.parent_id for call in calls)} == {agent.span_id}
    assert [span.parent_id for span in inner] == [span.span_id for span in calls]
    assert [asked.value("traceparent") for asked in upstream.wait(2)] == [
        f"00-{CALLERS}-{span.span_id}-01" for span in inner
    ]
    assert [asked.value("tracestate") for asked in upstream.wait(2)] == [None, None]
    told = inner[0].attributes
    assert (told["agw.target"], told["http.response.status_code"]) == ("fake/gpt-4o-mini", 200)
    assert told["gen_ai.usage.input_tokens"] == calls[0].attributes["gen_ai.usage.input_tokens"] == 21
    assert told["agw.run_id"] == request.attributes["agw.request_id"]
    assert b"Oslo" not in orjson.dumps([span.attributes for span in collector.spans])
    assert collector.named("lookup")[0].parent_id == tool.span_id
    scraped = gateway.get("/metrics/prometheus", key=gateway.admin_key).body
    assert b'agw_tracked_seconds_count{name="lookup",outcome="ok"} 1.0' in scraped
    assert gateway.receipts(request.attributes["agw.request_id"])[0]["trace_id"] == CALLERS


def test_an_agent_that_an_agent_asks_is_below_it(gateway: Gateway, collector: Collector, upstream: Upstream) -> None:
    upstream.reset()
    upstream.script(plays(TEXT))
    collector.spans.clear()
    assert gateway.post("/v1/responses", {"model": "default/boss", "input": "Well?"}).status == 200
    boss, agent, clerk = collector.named("chat default/boss", "invoke_agent Boss", "invoke_agent Clerk")
    inner = collector.named("chat default/clerk", kind="server")[0]
    calls = {span.span_id: span.parent_id for span in collector.spans if span.kind == "client"}
    assert len({span.trace_id for span in collector.spans}) == 1
    assert (agent.parent_id, calls[inner.parent_id]) == (boss.span_id, agent.span_id)
    assert clerk.parent_id == inner.span_id


def test_a_request_without_a_trace_begins_one_and_says_so_in_the_log(gateway: Gateway, collector: Collector) -> None:
    body = {"model": "agw/missing", "messages": [{"role": "user", "content": "x"}]}
    assert gateway.post("/v1/chat/completions", body).status == 404
    failed = collector.named("chat agw/missing")[0]
    assert (failed.failed, failed.parent_id) == (True, "")
    assert failed.attributes["error.type"] == "caller_model_not_found"
    assert gateway.receipts(failed.attributes["agw.request_id"])[0]["trace_id"] == failed.trace_id
    assert gateway.get("/health").status == 200


def test_what_is_not_sampled_is_not_sent(gateway: Gateway, collector: Collector, upstream: Upstream) -> None:
    upstream.reset()
    upstream.script(plays(CALL), plays(TEXT))
    headers = {"traceparent": f"00-{'a' * 32}-{ABOVE}-00"}
    reply = gateway.post("/v1/responses", {"model": "default/clerk", "input": "Weather?"}, headers=headers)
    assert reply.status == 200, reply.body
    refused = b'agw_helpers_total{helper="rate_limit",name="Clerk.agent.look_up",outcome="refused"} 1.0'
    assert refused in gateway.get("/metrics/prometheus", key=gateway.admin_key).body
    assert {(asked.value("traceparent") or "")[:36] for asked in upstream.wait(2)} == {f"00-{'a' * 32}-"}
    gateway.stop()
    assert "a" * 32 not in {span.trace_id for span in collector.spans}
