"""Agents ask models by the gateway's names, with no key of a provider's in sight and no socket to the gateway."""

import asyncio
from pathlib import Path
from typing import Any

import agents
import openai
import pytest
from agents import Agent, ModelSettings, RunConfig, Runner, function_tool
from openai.types.shared import Reasoning

from agw_proxy.sdk.models import provider
from tests.sdk.inside import running_within
from tests.support.behaviours import silence
from tests.support.gateway import UPSTREAM_KEY, Tree
from tests.support.providers import HELLO, TEXT, Scene, plays
from tests.support.upstream import Upstream

CALL = Scene(calls=(("look_up", {"city": "Oslo"}),), stop="tool")


@function_tool
def look_up(city: str) -> str:
    """The weather of a city."""
    return f"Sun in {city}"


@pytest.fixture(autouse=True)
def nothing_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_DEFAULT_MODEL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")


def settings(models: agents.ModelProvider, **more: Any) -> RunConfig:
    return RunConfig(model_provider=models, tracing_disabled=True, **more)


@pytest.mark.parametrize("model", ["fast", "fake/gpt-4o", "chatty/gpt-chat"])
async def test_an_agent_runs_on_a_model_of_the_route_table(
    model: str, config: Tree, upstream: Upstream, tmp_path: Path
) -> None:
    agent = Agent(name="clerk", instructions="Be kind.", model=model, tools=[look_up])
    upstream.script(plays(CALL), plays(TEXT), plays(CALL), plays(TEXT))
    async with running_within(config, tmp_path) as (running, inner, _):
        for server in running.gateway._edges[0]._listening:
            server.close()  # there is no way in but the one within the process
        models = settings(provider(inner))
        result = await Runner.run(agent, "Weather?", run_config=models)
        assert result.final_output == "".join(HELLO)
        streamed = Runner.run_streamed(agent, "Weather?", run_config=models)
        kinds = [event.data.type async for event in streamed.stream_events() if event.type == "raw_response_event"]
        assert kinds.count("response.completed") == 2
        for used in (result, streamed):
            usage = used.context_wrapper.usage
            assert (usage.requests, usage.input_tokens, usage.output_tokens) == (2, 42, 18)
        await running.until(lambda: not inner.active)
        lines = running.receipts()
        assert [(line["key"], line["prompt_tokens"], line["outcome"]) for line in lines] == [("app", 21, "ok")] * 4
    assert {request.value("authorization") for request in upstream.requests} == {f"Bearer {UPSTREAM_KEY}"}


async def test_an_agent_without_a_model_gets_the_configured_one_and_no_settings_meant_for_another(
    config: Tree, upstream: Upstream, tmp_path: Path
) -> None:
    upstream.script(*[plays(TEXT)] * 3)
    async with running_within(config, tmp_path) as (_, inner, _run):
        models = settings(provider(inner, lambda: "fast"))
        await Runner.run(Agent(name="clerk"), "Hi", run_config=models)
        assert upstream.last.json["model"] == "gpt-4o-mini"
        assert not upstream.last.json.get("reasoning")
        assert "verbosity" not in str(upstream.last.json)
        streamed = Runner.run_streamed(Agent(name="clerk"), "Hi", run_config=models)
        async for _event in streamed.stream_events():
            pass
        assert not upstream.last.json.get("reasoning")
        chosen = ModelSettings(reasoning=Reasoning(effort="high"))
        await Runner.run(Agent(name="clerk", model_settings=chosen), "Hi", run_config=models)
        assert upstream.last.json["reasoning"] == {"effort": "high"}


async def test_without_a_configured_one_it_is_the_sdks_own_default(
    config: Tree, upstream: Upstream, tmp_path: Path
) -> None:
    config["upstreams"][0]["models"] = ["gpt-*"]
    upstream.script(plays(TEXT))
    async with running_within(config, tmp_path) as (_, inner, _run):
        await Runner.run(Agent(name="clerk"), "Hi", run_config=settings(provider(inner)))
    assert upstream.last.json["model"] == agents.models.get_default_model()


async def test_a_refusal_by_a_limit_reaches_the_run_as_the_clients_exception(
    config: Tree, upstream: Upstream, tmp_path: Path
) -> None:
    config["keys"][0]["limits"] = [{"tokens": 30, "period": "24h"}]
    upstream.script(plays(TEXT))
    limited = ModelSettings(max_tokens=1)
    agent = Agent(name="clerk", model="fast", model_settings=limited)
    async with running_within(config, tmp_path) as (_, inner, _run):
        models = settings(provider(inner))
        await Runner.run(agent, "Hi", run_config=models)
        with pytest.raises(openai.RateLimitError):
            await Runner.run(agent, "Hi", run_config=models)
        with pytest.raises(openai.RateLimitError):
            async for _event in Runner.run_streamed(agent, "Hi", run_config=models).stream_events():
                pass


async def test_a_run_that_is_cancelled_leaves_nothing_upstream(
    config: Tree, upstream: Upstream, tmp_path: Path
) -> None:
    config["timeouts"] = {"connect": "5s", "first_byte": "60s", "between_bytes": "60s", "total": "90s"}
    upstream.script(silence(), silence())
    agent = Agent(name="clerk", model="fast")
    async with running_within(config, tmp_path) as (running, inner, _):
        models = settings(provider(inner))
        task = asyncio.get_running_loop().create_task(Runner.run(agent, "Hi", run_config=models))
        await running.until(lambda: upstream.requests)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.to_thread(upstream.wait_gone, upstream.requests[0])
        streamed = Runner.run_streamed(agent, "Hi", run_config=models)
        await running.until(lambda: len(upstream.requests) == 2)
        streamed.cancel()
        await asyncio.to_thread(upstream.wait_gone, upstream.requests[1])
        await running.until(lambda: not inner.active and not running.gateway.active)
        assert [line["outcome"] for line in running.receipts()] == ["caller_gone", "caller_gone"]


async def test_a_model_with_a_client_of_its_own_goes_its_own_way(
    config: Tree, upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HTTP_PROXY")
    upstream.script(plays(TEXT))
    async with running_within(config, tmp_path) as (running, inner, _):
        own = openai.AsyncOpenAI(base_url=f"{upstream.url}/v1", api_key="the author's")
        model = agents.OpenAIResponsesModel("anything", own)
        result = await Runner.run(Agent(name="clerk", model=model), "Hi", run_config=settings(provider(inner)))
        assert result.final_output == "".join(HELLO)
        await own.close()
        assert not running.receipts()
    assert upstream.last.value("authorization") == "Bearer the author's"
