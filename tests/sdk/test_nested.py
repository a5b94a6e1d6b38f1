"""Runs that agents' code begins itself ask the gateway's models, wherever they are begun, unless their author has chosen others."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import agents
import pytest
from agents import Agent, GuardrailFunctionOutput, MultiProvider, RunConfig, RunContextWrapper, Runner
from agents import input_guardrail as guards
from agents.models import _openai_shared
from agents.run import set_default_agent_runner
from openai import AsyncOpenAI, BadRequestError

from agw_proxy.sdk.entry import CURRENT, HOME
from agw_proxy.sdk.models import provider
from agw_proxy.sdk.nested import Within, _is_vendors
from tests.sdk.agents_served import said
from tests.sdk.inside import running_within
from tests.support.gateway import Tree
from tests.support.providers import HELLO, TEXT, plays
from tests.support.upstream import Upstream

INNER = Agent(name="Judge", instructions="Judge.", model="fast")
ANSWER = "".join(HELLO)


@pytest.fixture(autouse=True)
def nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    agents.set_tracing_disabled(True)
    yield
    set_default_agent_runner(None)
    _openai_shared._default_openai_client = None


def in_a_thread() -> object:
    loop = asyncio.new_event_loop()  # the SDK would leave its own open
    asyncio.set_event_loop(loop)
    try:
        return Runner.run_sync(INNER, "Hi").final_output
    finally:
        asyncio.set_event_loop(None)
        loop.close()


async def test_in_a_guardrail_a_stream_and_a_thread(config: Tree, upstream: Upstream, tmp_path: Path) -> None:
    heard: list[object] = []

    @guards
    async def judged(context: RunContextWrapper[Any], _: Agent[Any], given: Any) -> GuardrailFunctionOutput:
        result = await Runner.run(INNER, given, context=context.context, run_config=RunConfig(workflow_name="mine"))
        streamed = Runner.run_streamed(INNER, given, run_config={"workflow_name": "mine"})
        async for _event in streamed.stream_events():
            pass
        heard.extend([result.final_output, streamed.final_output])
        return GuardrailFunctionOutput(None, tripwire_triggered=False)

    upstream.script(*[plays(TEXT)] * 4)
    async with running_within(config, tmp_path) as (running, inner, _run):
        HOME.set(asyncio.get_running_loop())
        Within(provider(inner)).install()
        await Runner.run(Agent(name="Outer", model="fast", input_guardrails=[judged]), "Hi")
        heard.append(await asyncio.to_thread(in_a_thread))
        await running.until(lambda: not inner.active)
        assert [(line["run_id"], line["key"]) for line in running.receipts()] == [("req_outer", "app")] * 4
    assert heard == [ANSWER] * 3


async def test_a_stream_in_a_thread_may_be_left(config: Tree, upstream: Upstream, tmp_path: Path) -> None:
    upstream.script(plays(TEXT), plays(TEXT))

    async def elsewhere(asked: AsyncOpenAI) -> str:
        parts = await asked.responses.create(model="fast", input="Hi", stream=True)
        async for _ in parts:
            break
        await parts.close()
        streamed = [event async for event in await asked.responses.create(model="fast", input="Hi", stream=True)]
        return streamed[-1].type

    async with running_within(config, tmp_path) as (running, inner, _run):
        HOME.set(asyncio.get_running_loop())
        models: Any = provider(inner)
        assert await asyncio.to_thread(lambda: asyncio.run(elsewhere(models._client))) == "response.completed"
        await running.until(lambda: not inner.active)


async def test_after_a_run_is_broken_off_nothing_more_is_asked(
    config: Tree, upstream: Upstream, tmp_path: Path
) -> None:
    async with running_within(config, tmp_path) as (_, inner, run):
        HOME.set(asyncio.get_running_loop())
        Within(provider(inner)).install()
        run.broken_off = True
        with pytest.raises(BadRequestError, match="its caller pays for nothing more"):
            await asyncio.to_thread(in_a_thread)
    assert not upstream.requests


async def test_what_an_author_has_chosen_is_left_alone() -> None:
    own = Agent(name="Own", model=agents.testing.ScriptedModel(said("of its own")))
    mine = AsyncOpenAI(api_key="mine", base_url="http://127.0.0.1:9/v1", max_retries=0)
    runner = Within(MultiProvider())
    assert runner._with_models({}) == {}, "outside of the gateway's runs nothing changes"
    runner.install()
    assert (await Runner.run(own, "Hi")).final_output == "of its own"
    token: Any = object()
    before = CURRENT.set(token)
    try:
        chosen = {"run_config": RunConfig(model_provider=MultiProvider(openai_client=mine))}
        assert runner._with_models(chosen) is chosen
        assert _is_vendors(RunConfig().model_provider)
        agents.set_default_openai_client(mine, use_for_tracing=False)
        assert runner._with_models({}) == {}
    finally:
        CURRENT.reset(before)
        await mine.close()
