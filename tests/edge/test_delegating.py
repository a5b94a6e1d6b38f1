"""What an exchange costs whose upstream asks models itself: nothing but what those exchanges cost; and how it ends."""

import asyncio
from pathlib import Path

from agw_proxy.edge.authentication import MAX_DEPTH
from tests.edge.runs import COST, PRICES, Asks, delegate, two, within
from tests.support.behaviours import failure, silence, stream
from tests.support.client import bearer
from tests.support.fake_openai import USAGE, chunk
from tests.support.gateway import APP_KEY, Tree, chat_body
from tests.support.upstream import Upstream


async def test_who_asks_models_itself_is_told_the_caller_and_costs_no_tokens(
    config: Tree, upstream: Upstream, tmp_path: Path
) -> None:
    limits = [{"tokens": 40, "period": "24h"}]
    config["keys"] = [{"name": "app", "key": APP_KEY, "models": ["*"], "limits": limits}]
    config["prices"] = PRICES
    async with within(config, tmp_path) as here:
        noting = delegate(here)
        for _ in range(4):  # 18 tokens each
            reply = await here.running.chat(headers={"x-session-id": "s", "x-user-id": "ann"})
            assert (reply.status, reply.json["usage"]) == (200, USAGE)
        lines = here.running.receipts()
        assert [(line.get("prompt_tokens", -1), line["cost"]) for line in lines] == [(-1, 0)] * 4
        caller = noting.callers[0]
        assert caller is not None
        assert caller.principal is not None
        assert (caller.principal.name, caller.session, caller.user) == ("app", "s", "ann")
        status, _ = await here.ask(max_tokens=10)
        assert status == 200, "nothing has been spent yet"


async def test_a_model_in_place_of_who_asks_models_itself_is_paid_for(
    config: Tree, upstream: Upstream, tmp_path: Path
) -> None:
    fast = {"name": "fast", "targets": [{"upstream": "fake", "model": "gpt-4o"}], "fallbacks": ["other/gpt-4o-mini"]}
    config = {**two(upstream), "models": [fast]}
    limits = [{"tokens": 40, "period": "24h"}]
    config["keys"] = [{"name": "app", "key": APP_KEY, "models": ["*"], "limits": limits}]
    config["retries"] = {**config["retries"], "attempts": 1}
    upstream.script(failure(500))
    async with within(config, tmp_path) as here:
        delegate(here)
        assert (await here.running.chat(model="fast", max_tokens=10)).status == 200
        line = await here.running.receipt()
        assert (line["upstream"], line["prompt_tokens"], line["cost"]) == ("other", 11, COST)
        remaining = await here.running.chat(model="fast", max_tokens=10)
        assert remaining.value("x-ratelimit-remaining-tokens") == "22", "what the model has used, and nothing else"


async def test_what_a_run_spends_is_spent_by_the_session_that_it_is_for(upstream: Upstream, tmp_path: Path) -> None:
    config = {**two(upstream), "sessions": {"tokens": 40}}
    async with within(config, tmp_path) as here:
        delegate(here, Asks(here.inner, "gpt-4o-mini"))
        asked = {"model": "gpt-4o", "max_tokens": 10}
        for text, status in (("One", 200), ("One", 200), ("One", 429), ("Two", 200)):
            messages = [{"role": "user", "content": text}]
            reply = await here.running.ask("POST", "/v1/chat/completions", {**asked, "messages": messages})
            assert reply.status == status
        inner, outer = here.running.receipts()[:2]
        assert (inner["session"], inner["run_id"]) == (outer["session"], outer["request_id"])
        assert (inner["prompt_tokens"], outer.get("prompt_tokens", -1)) == (11, -1)


async def test_a_client_that_leaves_ends_the_run_and_its_call(upstream: Upstream, tmp_path: Path) -> None:
    config = two(upstream)
    config["timeouts"] = {"connect": "5s", "first_byte": "60s", "between_bytes": "60s", "total": "90s"}
    upstream.script(silence(), stream([chunk({"content": "a"})], ending="hang"))
    async with within(config, tmp_path) as here:
        delegate(here, Asks(here.inner, "gpt-4o-mini"))
        for number in range(2):
            with here.running.connect() as connection:
                body = chat_body(model="gpt-4o", stream=True)
                await asyncio.to_thread(connection.send, "POST", "/v1/chat/completions", body, bearer(APP_KEY))
                if number:
                    await asyncio.to_thread(connection.head)
                await here.running.until(lambda: len(upstream.requests) == number + 1)  # noqa: B023  within the round
            await asyncio.to_thread(upstream.wait_gone, upstream.requests[number])
        await here.quiet()
        assert [line["outcome"] for line in here.running.receipts()] == ["caller_gone"] * 4


async def test_agents_that_call_each_other_without_end_are_stopped(upstream: Upstream, tmp_path: Path) -> None:
    async with within(two(upstream), tmp_path) as here:
        delegate(here, Asks(here.inner, "gpt-4o"))
        reply = await here.running.chat(model="gpt-4o")
        assert reply.status == 400
        *inner, outer = here.running.receipts()
        assert len(inner) == MAX_DEPTH + 1
        assert {line["run_id"] for line in inner} == {outer["request_id"]}
    assert not upstream.requests
