"""Runs in one piece: what their callers get is what a stream would have told, and their models are asked for one piece."""

import asyncio
import dataclasses
from pathlib import Path
from typing import Any

import agents
import httpx2
import pytest
from agents import (
    Agent,
    GuardrailFunctionOutput,
    InputGuardrail,
    ModelResponse,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    OutputGuardrail,
    Usage,
    function_tool,
    set_tracing_disabled,
)
from agents.testing import ModelStep, ScriptedModel, assistant_message, function_call
from openai import AsyncOpenAI
from openai.types.responses import Response, ResponseIncompleteEvent

from agw_proxy.errors import AgentCallFailed, AgentFailed, AgentSpent, GuardrailTripped
from agw_proxy.sdk.bridge import Bridge
from agw_proxy.sdk.entry import Shows
from agw_proxy.sdk.models import provider
from agw_proxy.sdk.runner import Runner
from agw_proxy.sdk.whole import end_of, tells_all
from agw_proxy.types import Caller
from tests.sdk.agents_served import Served, asking, said, trees, used, weather, with_weather, words_of
from tests.sdk.inside import running_within
from tests.support.behaviours import answer as answers
from tests.support.gateway import Tree
from tests.support.providers import CUT, TEXT, Scene, plays, response
from tests.support.upstream import Upstream

LOOKS = Scene(text=("I look.",), calls=(("weather", {"city": "Oslo"}),), stop="tool")

set_tracing_disabled(True)  # the first time it reads files, which nobody may do while a gateway serves


def slow(*, trips: bool) -> Any:
    async def check(*_: Any) -> GuardrailFunctionOutput:
        await asyncio.sleep(0.02)
        return GuardrailFunctionOutput(output_info=None, tripwire_triggered=trips)

    return check


def client() -> AsyncOpenAI:
    return AsyncOpenAI(base_url="http://model/v1", api_key="k", http_client=httpx2.AsyncClient())


async def streamed_words(served: Served) -> str:
    chunks = trees(await served.ask({**asking("Hello", "chat"), "stream": True}, "chat"))
    return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])


@pytest.mark.parametrize("model", ["fast", "chatty/gpt-chat"])
async def test_who_asks_for_one_piece_has_the_model_asked_for_one(
    model: str, config: Tree, upstream: Upstream, tmp_path: Path
) -> None:
    upstream.script(*[plays(LOOKS), plays(TEXT)] * 2)
    async with running_within(config, tmp_path) as (_, inner, run):
        agent = Agent(name="helper", model=model, tools=[weather])
        runner = Runner(provider(inner), lambda *_: None)
        served = Served(agent, runner=runner, caller=Caller(run.principal))
        whole = await served.answer(form="chat")
        assert [bool(request.json.get("stream")) for request in upstream.requests] == [False] * 2
        assert whole["choices"][0]["message"]["content"] == await streamed_words(served)
        assert [bool(request.json.get("stream")) for request in upstream.requests[2:]] == [True] * 2
        assert whole["usage"]["total_tokens"] == 60
        assert whole["usage"]["prompt_tokens_details"]["cached_tokens"] == 16


@pytest.mark.parametrize("model", ["fast", "chatty/gpt-chat"])
async def test_an_answer_of_the_gateways_that_was_cut_is_told_as_cut_and_no_tool_of_it_runs(
    model: str, config: Tree, upstream: Upstream, tmp_path: Path
) -> None:
    upstream.script(plays(CUT), plays(dataclasses.replace(LOOKS, stop="length")))
    async with running_within(config, tmp_path) as (_, inner, run):
        agent = Agent(name="helper", model=model, tools=[weather])
        runner = Runner(provider(inner), lambda *_: None)
        served = Served(agent, runner=runner, caller=Caller(run.principal))
        for words in ("".join(TEXT.text), "I look."):
            choice = (await served.answer(form="chat"))["choices"][0]
            assert (choice["message"]["content"], choice["finish_reason"]) == (words, "length")
        assert "tool.called" not in served.events
        assert len(upstream.requests) == 2


async def test_an_answer_that_a_filter_has_cut_is_a_refusal_and_one_that_failed_an_error(
    config: Tree, upstream: Upstream, tmp_path: Path
) -> None:
    cut = {**response(TEXT), "status": "incomplete", "incomplete_details": {"reason": "content_filter"}}
    failed = {**response(TEXT), "status": "failed", "error": {"code": "server_error", "message": "No more."}}
    upstream.script(answers(cut), answers(failed))
    async with running_within(config, tmp_path) as (_, inner, run):
        runner = Runner(provider(inner), lambda *_: None)
        served = Served(Agent(name="helper", model="fast"), runner=runner, caller=Caller(run.principal))
        assert (await served.answer(form="chat"))["choices"][0]["finish_reason"] == "content_filter"
        with pytest.raises(AgentCallFailed, match="No more"):
            await served.answer(form="chat")


async def test_a_cut_answer_of_a_run_within_a_tool_is_not_the_agents(
    config: Tree, upstream: Upstream, tmp_path: Path
) -> None:
    @function_tool(failure_error_function=None)
    async def ask_another() -> str:
        return str((await agents.Runner.run(Agent(name="other", model="fast"), "Hi")).final_output)

    upstream.script(plays(CUT))
    async with running_within(config, tmp_path) as (_, inner, run):
        model = ScriptedModel([[assistant_message("I ask."), function_call("ask_another", {}, call_id="c")]])
        runner = Runner(provider(inner), lambda *_: None)
        asks: Agent[Any] = Agent(name="helper", model=model, tools=[ask_another])
        with pytest.raises(AgentFailed):
            await Served(asks, runner=runner, caller=Caller(run.principal)).answer()
        assert len(upstream.requests) == 1


async def test_a_message_that_says_that_it_is_not_whole_is_believed() -> None:
    served = Served(Agent(name="helper", model=ScriptedModel([half(streamed=False)])))
    choice = (await served.answer(form="chat"))["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("Half of", "length")


def half(*, streamed: bool) -> ModelStep | list[Any]:
    """What a model says that is cut: as a stream, or as a message that tells so itself."""
    told = assistant_message("Half of").model_copy(update={"status": "incomplete"})
    if not streamed:
        return [told]
    cut = Response.construct(**{**response(CUT), "output": [told], "usage": None})
    return ModelStep.stream([ResponseIncompleteEvent(type="response.incomplete", response=cut, sequence_number=1)])


async def test_words_that_were_cut_before_a_guardrail_saw_them_are_not_told() -> None:
    guards = [OutputGuardrail(guardrail_function=slow(trips=False), name="polite")]
    for streamed in (False, True):
        agent = Agent(name="helper", model=ScriptedModel([half(streamed=streamed)]), output_guardrails=guards)
        with pytest.raises(AgentSpent, match="guardrails"):
            await Served(agent).ask({**asking("Hello", "chat"), "stream": streamed}, "chat")


@pytest.mark.parametrize("stream", [False, True])
async def test_a_guardrail_beside_an_answer_that_is_cut_has_its_say(stream: bool) -> None:
    asked = {**asking("Hello", "chat"), "stream": stream}
    for trips in (False, True):
        checks = [InputGuardrail(guardrail_function=slow(trips=trips), name="polite")]
        agent = Agent(name="helper", model=ScriptedModel([half(streamed=True)]), input_guardrails=checks)
        if trips:
            with pytest.raises(GuardrailTripped, match="polite"):
                await Served(agent).ask(asked, "chat")
        else:
            told = await Served(agent).ask(asked, "chat")
            assert b"Half of" in told
            assert b'"length"' in told


@pytest.mark.parametrize("shows", ["hidden", "annotated", "visible"])
async def test_what_the_agent_does_is_told_as_in_a_stream(shows: Shows) -> None:
    def served() -> Served:
        expert = Agent(name="expert", tools=[weather], model=with_weather(*said("It rains.")))
        hands = ScriptedModel([[assistant_message("Wait."), function_call("transfer_to_expert", {}, call_id="h")]])
        return Served(Agent(name="helper", handoffs=[expert], model=hands), shows=shows)

    whole, streamed = served(), served()
    answer = await whole.answer()
    told = trees(await streamed.ask({**asking("Hello", "responses"), "stream": True}))[-1]["response"]
    assert words_of(answer, "responses") == words_of(told, "responses")
    assert [item["type"] for item in answer["output"]] == [item["type"] for item in told["output"]]
    assert answer["usage"] == told["usage"]
    assert sorted(whole.events) == sorted(streamed.events)
    assert ("Rain in Oslo" in str(answer)) is (shows != "hidden")


class Mute(ScriptedModel):
    """A model that must not be asked for a stream."""

    def stream_response(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("a stream was asked for")


async def test_a_model_of_an_authors_needs_no_streams() -> None:
    assert words_of(await Served(Agent(name="helper", model=Mute(said("Here.")))).answer(), "responses") == "Here."


def test_models_that_tell_more_in_streams_are_streamed() -> None:
    def has(model: Any) -> Agent[Any]:
        return Agent(name="a", model=model)

    assert tells_all(has(None))
    assert tells_all(has("fast"))
    assert tells_all(has(ScriptedModel()))
    assert tells_all(has(OpenAIChatCompletionsModel("gpt", client())))
    assert not tells_all(has(OpenAIResponsesModel("gpt", client())))
    checks = InputGuardrail(guardrail_function=lambda *_: GuardrailFunctionOutput(None, False), name="polite")
    assert not tells_all(Agent(name="c", input_guardrails=[checks]))
    assert tells_all(Agent(name="c", input_guardrails=[dataclasses.replace(checks, run_in_parallel=False)]))
    assert not tells_all(Agent(name="b", handoffs=[has("fast"), has(OpenAIResponsesModel("gpt", client()))]))


async def test_a_caller_who_leaves_ends_the_run_and_its_tools() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    @function_tool
    async def wait() -> str:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return ""

    served = Served(Agent(name="helper", tools=[wait], model=ScriptedModel([[function_call("wait", {}, call_id="c")]])))
    before = asyncio.all_tasks()
    asked = asyncio.ensure_future(served.answer())
    await begun.wait()
    asked.cancel()
    await asyncio.gather(asked, return_exceptions=True)
    await served.upstream.close()
    assert ended.is_set()
    assert asyncio.all_tasks() == before
    assert served.told[-1][1]["outcome"] == "cancelled"


async def test_usage_of_calls_before_a_failure_is_told() -> None:
    model = with_weather()
    model.extend([ValueError("no")])
    served = Served(Agent(name="helper", tools=[weather], model=model))
    with pytest.raises(AgentFailed):
        await served.answer()
    assert (served.told[-1][1]["prompt_tokens"], served.told[-1][1]["completion_tokens"]) == (20, 7)


def test_what_a_model_does_not_count_stays_unknown() -> None:
    bridge = Bridge({}, "hidden")
    counted = ModelResponse([assistant_message("Hi")], Usage(requests=1), None)
    bridge.whole(counted.output, end_of(counted))
    assert (bridge.tokens.input, bridge.tokens.output) == (-1, -1)
    counted = ModelResponse([assistant_message("Hi")], used(3, 2), None)
    bridge.whole(counted.output, end_of(counted))
    assert (bridge.tokens.input, bridge.tokens.output) == (3, 2)
