"""A run's own model calls: the same policy as for a client's requests, on the caller's account, and no socket."""

import asyncio
from pathlib import Path
from typing import Any

import orjson
import pytest

from agw_proxy.edge.inner import MAX_HELD_BYTES
from agw_proxy.errors import UpstreamBroken
from agw_proxy.sdk.contained import Contained, contain
from agw_proxy.sdk.entry import CURRENT, SERVING
from tests.edge.runs import COST, PRICES, everything, within
from tests.support.behaviours import answer, failure, huge, silence, stream
from tests.support.fake_openai import ANSWER, chunk, completion, usage_event
from tests.support.gateway import ADMIN_KEY, APP_KEY, UPSTREAM_KEY, Tree, chat_body
from tests.support.upstream import Upstream


async def test_a_call_is_an_exchange_of_the_callers_with_one_receipt_that_names_the_run(
    config: Tree, upstream: Upstream, tmp_path: Path
) -> None:
    async with within({**config, "prices": PRICES}, tmp_path) as here:
        here.run.user, here.run.channel, here.run.trace = "ann", "phone", "0af7651916cd43dd8448eb211c80319c"
        status, tree = await here.ask(model="fake/gpt-4o-mini")
        assert (status, tree["choices"][0]["message"]["content"]) == (200, ANSWER)
        line = await here.running.receipt()
    sent = upstream.last
    assert sent.value("authorization") == f"Bearer {UPSTREAM_KEY}"
    assert sent.json["model"] == "gpt-4o-mini"
    assert not {"x-user-id", "x-channel-id"} & {name.lower() for name, _ in sent.headers}
    assert str(sent.value("traceparent")).split("-")[1] == here.run.trace
    told = {name: line.get(name) for name in ("key", "user", "channel", "trace_id", "run_id", "agent", "lane_reason")}
    assert told == {
        "key": "app",
        "user": "ann",
        "channel": "phone",
        "trace_id": here.run.trace,
        "run_id": "req_outer",
        "agent": "default/clerk",
        "lane_reason": "run",
    }
    assert (line["endpoint"], line["outcome"], line["upstream"]) == ("chat_completions", "ok", "fake")
    assert (line["prompt_tokens"], line["completion_tokens"], line["cost"]) == (11, 7, COST)
    assert line["request_id"] != "req_outer"
    assert here.run.cost == COST


async def test_what_the_key_may_not_use_or_nobody_serves_is_refused_as_for_a_client(
    config: Tree, upstream: Upstream, tmp_path: Path
) -> None:
    config["keys"] = [{"name": "app", "key": APP_KEY, "models": ["gpt-4o"]}]
    async with within(config, tmp_path) as here:
        assert (await here.ask())[0] == 403
        assert (await here.ask(model="gpt-4o"))[0] == 200
        status, tree = await here.ask(model="nobody's")
        assert (status, tree["error"]["code"]) == (404, "model_not_found")
    assert len(upstream.requests) == 1


async def test_a_key_of_one_request_at_a_time_and_an_hour_can_finish_its_run(
    config: Tree, upstream: Upstream, tmp_path: Path
) -> None:
    limits = [{"concurrent": 1}, {"requests": 1, "period": "1h"}, {"streams": 1}]
    config["keys"] = [{"name": "app", "key": APP_KEY, "models": ["*"], "limits": limits}]
    upstream.script(stream([chunk({"role": "assistant"}), chunk({"content": "a"})], ending="hang"))
    async with within(config, tmp_path) as here:
        loop = asyncio.get_running_loop()
        outer = loop.create_task(here.running.chat(stream=True))  # it has the key's only place
        await here.running.until(lambda: here.running.gateway.active == 1 and upstream.requests)
        for _ in range(2):
            assert (await here.ask())[0] == 200
        assert (await here.running.chat(model="gpt-4o")).status == 429
        await asyncio.wait_for(outer, 10)  # its upstream falls silent, and that ends it


async def test_tokens_and_money_of_a_run_are_taken_from_the_callers_limits_and_budgets(
    config: Tree, upstream: Upstream, tmp_path: Path
) -> None:
    limits = [{"tokens": 40, "period": "24h"}]
    config["keys"] = [{"name": "app", "key": APP_KEY, "models": ["*"], "limits": limits}]
    body: dict[str, Any] = {"max_tokens": 10}
    async with within(config, tmp_path) as here:
        assert [(await here.ask(**body))[0] for _ in range(2)] == [200, 200]  # 18 tokens each
        status, tree = await here.ask(**body)
        assert (status, tree["error"]["code"]) == (429, "rate_limit_exceeded")
        refused = await here.running.chat(**body)
        assert refused.status == 429, "the caller's own requests come under the same count"
    assert len(upstream.requests) == 2


async def test_a_budget_that_is_spent_by_a_run_is_spent_for_its_caller(
    config: Tree, upstream: Upstream, tmp_path: Path
) -> None:
    config["prices"] = PRICES
    budgets = [{"usd": 0.00006, "period": "day"}]
    config["keys"] = [{"name": "app", "key": APP_KEY, "models": ["*"], "budgets": budgets}]
    async with within(config, tmp_path) as here:
        assert (await here.ask(max_tokens=7))[0] == 200
        assert (await here.ask(max_tokens=7))[0] == 200
        status, tree = await here.ask(max_tokens=7)
        assert (status, tree["error"]["code"]) == (429, "insufficient_quota")
        assert here.run.cost == 2 * COST
    assert len(upstream.requests) == 2


async def test_a_run_asks_no_more_once_it_has_cost_what_a_run_may(
    config: Tree, upstream: Upstream, tmp_path: Path
) -> None:
    async with within({**config, "prices": PRICES}, tmp_path) as here:
        here.run.most_cost = COST + 1
        assert [(await here.ask())[0] for _ in range(2)] == [200, 200]
        status, tree = await here.ask()
        assert (status, tree["error"]["code"]) == (429, "insufficient_quota")
        assert here.running.receipts()[-1]["rule"] == "agents.default/clerk"
        here.run.principal = None
        assert (await here.ask())[0] == 401
    assert len(upstream.requests) == 2


async def test_rules_of_models_and_upstreams_count_the_calls_of_runs(
    config: Tree, upstream: Upstream, tmp_path: Path
) -> None:
    config["upstreams"][0]["limits"] = [{"requests": 1, "period": "1h"}]
    async with within(config, tmp_path) as here:
        assert [(await here.ask())[0] for _ in range(2)] == [200, 429]
    assert len(upstream.requests) == 1


async def test_what_fails_is_tried_again_elsewhere_and_an_upstreams_refusal_keeps_its_status(
    config: Tree, upstream: Upstream, tmp_path: Path
) -> None:
    config["models"] = [
        {"name": "fast", "targets": [{"upstream": "fake", "model": "gpt-4o-mini"}], "fallbacks": ["fake/gpt-4o"]}
    ]
    config["retries"] = {**config["retries"], "attempts": 1}
    upstream.script(failure(500), answer(completion(model="gpt-4o")), failure(400, "no"))
    async with within(config, tmp_path) as here:
        assert (await here.ask(model="fast"))[0] == 200
        line = await here.running.receipt()
        assert [attempt["target"] for attempt in line["trail"]] == ["fake/gpt-4o-mini", "fake/gpt-4o"]
        status, tree = await here.ask(model="fake/gpt-4o")
        assert (status, tree["error"]["message"]) == (400, "no")


@pytest.mark.parametrize("begun", [False, True])
async def test_a_run_that_is_cancelled_or_reads_no_more_ends_its_call_upstream(
    begun: bool, config: Tree, upstream: Upstream, tmp_path: Path
) -> None:
    upstream.script(stream([chunk({"content": "a"})], ending="hang") if begun else silence())
    config["timeouts"] = {"connect": "5s", "first_byte": "60s", "between_bytes": "60s", "total": "90s"}
    async with within(config, tmp_path) as here:
        if begun:
            reply = await here.open(stream=True)
            assert b"content" in await reply.read()
            reply.close()
            reply.close()
            with pytest.raises(UpstreamBroken):
                await reply.read()
        else:
            task = asyncio.get_running_loop().create_task(here.open())
            await here.running.until(lambda: upstream.requests)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await asyncio.to_thread(upstream.wait_gone, upstream.requests[0])
        await here.quiet()
        line = await here.running.receipt()
        assert (line["outcome"], line["run_id"]) == ("caller_gone", "req_outer")


async def test_a_stream_that_breaks_never_looks_whole(config: Tree, upstream: Upstream, tmp_path: Path) -> None:
    upstream.script(stream([chunk({"content": "a"})], ending="rst"))
    async with within(config, tmp_path) as here:
        reply = await here.open(stream=True)
        read = b""
        while b"event: error" not in read:
            read += await reply.read()
        with pytest.raises(UpstreamBroken):
            await reply.read()
        assert not reply.ended
        assert (await here.running.receipt())["outcome"] == "upstream_broken"


async def test_a_stream_is_settled_when_its_last_bytes_have_come(
    config: Tree, upstream: Upstream, tmp_path: Path
) -> None:
    async with within(config, tmp_path) as here:
        reply = await here.open(stream=True)
        assert (reply.status, dict(reply.headers)[b"content-type"]) == (200, b"text/event-stream")
        assert b"[DONE]" in await everything(reply)
        assert await reply.read() == b""
        reply.close()
        line = await here.running.receipt()
        assert (line["outcome"], line["prompt_tokens"], line["stream"]) == ("ok", 11, True)


async def test_a_run_that_reads_slowly_stops_the_reading_of_its_upstream(
    config: Tree, upstream: Upstream, tmp_path: Path
) -> None:
    size = 64 * 1024 * 1024
    upstream.script(huge(size))
    async with within(config, tmp_path) as here:
        reply = await here.open("/v1/responses", model="gpt-4o")
        await here.running.until(lambda: len(reply._held) >= MAX_HELD_BYTES)
        first = await reply.read()
        assert MAX_HELD_BYTES <= len(first) < 4 * MAX_HELD_BYTES
        reply.close()
        await here.quiet()


async def test_runs_reach_no_endpoint_of_admins(config: Tree, upstream: Upstream, tmp_path: Path) -> None:
    async with within(config, tmp_path, "boss") as here:
        reply = await here.inner.open(here.run, "GET", "/metrics/json", [("x-agw-key", ADMIN_KEY)], b"")
        assert reply.status in {403, 404}
        reply = await here.inner.open(here.run, "GET", "/v1/models", [], b"")
        assert reply.status == 200


async def test_a_run_goes_on_while_new_requests_are_refused(config: Tree, upstream: Upstream, tmp_path: Path) -> None:
    config["server"]["max_requests"] = 1
    upstream.script(stream([chunk({"content": "a"})], ending="hang"))
    async with within(config, tmp_path) as here:
        gateway = here.running.gateway
        outer = await here.open(stream=True)
        assert (await here.running.chat()).status == 503
        assert (await here.ask())[0] == 200
        outer.close()
        gateway.accounts.draining = True
        assert (await here.ask())[0] == 200
        gateway.accounts.draining = False


async def test_a_drain_ends_calls_that_outlast_it_with_an_answer(
    config: Tree, upstream: Upstream, tmp_path: Path
) -> None:
    config["server"]["drain_seconds"] = 0
    upstream.script(silence())
    config["timeouts"] = {"connect": "5s", "first_byte": "60s", "between_bytes": "60s", "total": "90s"}
    async with within(config, tmp_path) as here:
        task = asyncio.get_running_loop().create_task(here.ask())
        await here.running.until(lambda: upstream.requests)
        await here.running.stop()
        status, tree = await task
        assert (status, tree["error"]["code"]) == (503, "gateway_draining")


async def test_a_run_gets_kept_answers_only_where_it_asks_for_them(
    config: Tree, upstream: Upstream, tmp_path: Path
) -> None:
    config["cache"] = {"models": ["*"]}
    async with within(config, tmp_path) as here:
        for _ in range(2):
            assert (await here.ask())[0] == 200
        assert len(upstream.requests) == 2
        headers = [("content-type", "application/json"), ("cache-control", "max-age=60")]
        body = orjson.dumps(chat_body())
        for _ in range(2):
            reply = await here.inner.open(here.run, "POST", "/v1/chat/completions", headers, body)
            await everything(reply)
        assert len(upstream.requests) == 3
        assert here.running.receipts()[-1]["cache"] == "hit"


async def test_a_run_keeps_its_own_steps_in_the_store_only_where_it_says_so(config: Tree, tmp_path: Path) -> None:
    config["store"] = {"path": str(tmp_path / "responses.db")}
    headers = [("content-type", "application/json")]
    async with within(config, tmp_path) as here:
        for members, status in (({}, 404), ({"store": True}, 200)):
            body = orjson.dumps({"model": "agw/echo", "input": "hello", **members})
            made = orjson.loads(
                await everything(await here.inner.open(here.run, "POST", "/v1/responses", headers, body))
            )
            found = await here.running.ask("GET", f"/v1/responses/{made['id']}")
            assert (made["store"], found.status) == (status == 200, status)


async def test_a_stream_of_a_run_that_nobody_reads_to_its_end_is_complete_once_its_terminator_has_come(
    config: Tree, upstream: Upstream, tmp_path: Path
) -> None:
    upstream.script(
        stream([chunk({"content": "a"}), chunk({}, "stop"), usage_event(), b"data: [DONE]\n\n"], ending="hang")
    )
    async with within(config, tmp_path) as here:
        reply = await here.open(stream=True)
        read = b""
        while b"[DONE]" not in read:
            read += await reply.read()
        reply.close()
        assert (await here.running.receipt())["outcome"] == "ok"


async def test_a_call_is_the_gateways_doing_and_not_the_agents(
    config: Tree, upstream: Upstream, tmp_path: Path
) -> None:
    """Neither its threads nor the time that its steps take are the agent's."""
    async with within(config, tmp_path) as here:
        contain(asyncio.get_running_loop())
        before = CURRENT.set(here.run)
        try:
            wire = await here.open(model="fake/gpt-4o-mini")
            assert not SERVING.get()
        finally:
            CURRENT.reset(before)
        assert wire.task is not None
        assert not isinstance(wire.task.get_coro(), Contained)
        assert orjson.loads(await everything(wire))["choices"]
