"""Runs that fail, are stopped or come to a bound: what their callers are told, and what never gets out."""

import asyncio
from typing import Any

import httpx2
import openai
import pytest
from agents import (
    Agent,
    GuardrailFunctionOutput,
    InputGuardrail,
    OutputGuardrail,
    function_tool,
)
from agents.testing import ModelStep, ScriptedModel, function_call

from agw_proxy.errors import (
    AgentCallFailed,
    AgentCallLimited,
    AgentFailed,
    AgentNeedsApproval,
    AgentSpent,
    AgentTimeout,
    GatewayError,
    GuardrailTripped,
    RateLimited,
    UpstreamBroken,
)
from agw_proxy.sdk.entry import CURRENT, Bounds
from tests.sdk.agents_served import Served, asking, rest, said, weather, with_weather, words_of


async def test_the_bound_of_turns_cuts_an_answer_and_is_an_error_where_there_is_none() -> None:
    served = Served(Agent(name="helper", tools=[weather], model=with_weather()), Bounds(turns=1))
    assert (await served.answer(form="chat"))["choices"][0]["finish_reason"] == "length"
    silent = ScriptedModel([[function_call("weather", {"city": "Oslo"}, call_id="c")]])
    with pytest.raises(AgentSpent):
        await Served(Agent(name="helper", tools=[weather], model=silent), Bounds(turns=1)).answer()


async def test_the_bound_of_tokens_ends_a_run_that_would_go_on() -> None:
    model = with_weather(*said("Never."))
    served = Served(Agent(name="helper", tools=[weather], model=model), Bounds(tokens=20))
    assert (await served.answer(form="chat"))["choices"][0]["finish_reason"] == "length"
    assert model.remaining_steps == 1
    enough = Served(Agent(name="helper", model=ScriptedModel(said("Long answer.", usage=(50, 50)))), Bounds(tokens=20))
    assert words_of(await enough.answer(), "responses") == "Long answer."


def limited(status: int, headers: dict[str, str] | None = None) -> openai.APIStatusError:
    request = httpx2.Request("POST", "http://model")
    answer = httpx2.Response(status, headers=headers, request=request)
    kind = {401: openai.AuthenticationError, 429: openai.RateLimitError, 503: openai.InternalServerError}[status]
    return kind("no", response=answer, body={"message": "Slow down"})


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("failure", "error", "status"),
    [
        (limited(429, {"retry-after-ms": "1500"}), AgentCallLimited, 429),
        (limited(503), AgentCallFailed, 503),
        (limited(401), AgentCallFailed, 502),
        (RateLimited("Too many.", rule="r", retry_after_ms=5), RateLimited, 429),
        (UpstreamBroken("cut"), AgentCallFailed, 502),
        (ZeroDivisionError("secret"), AgentFailed, 500),
    ],
)
async def test_a_failure_before_the_first_word_has_its_status(
    failure: Exception, error: type[GatewayError], status: int, stream: bool
) -> None:
    served = Served(Agent(name="helper", model=ScriptedModel([failure])))
    with pytest.raises(error) as caught:
        await served.open({**asking("Hello", "chat"), "stream": stream}, "chat")
    assert caught.value.status == status
    assert "secret" not in caught.value.message
    if status == 429:
        assert caught.value.retry_after_ms in {5, 1500}
    assert served.told[-1][0] == "sdk_agent.failure"
    assert served.told[-1][1]["outcome"] == caught.value.code


async def test_a_failure_after_the_first_word_breaks_the_stream() -> None:
    served = Served(Agent(name="helper", tools=[weather], model=with_weather(ModelStep.raise_error(limited(429)))))
    opened = await served.open({**asking("Hello", "chat"), "stream": True}, "chat")
    with pytest.raises(AgentCallLimited):
        await rest(opened)
    assert b"[DONE]" not in opened.first


def guard(*, trips: bool) -> Any:
    async def check(*_: Any) -> GuardrailFunctionOutput:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return GuardrailFunctionOutput(output_info=None, tripwire_triggered=trips)

    return check


@pytest.mark.parametrize("stream", [False, True])
async def test_words_that_a_guardrail_forbids_never_get_out(stream: bool) -> None:
    for side in ("input", "output"):
        for trips in (False, True):
            agent: Agent[Any] = Agent(name="helper", model=ScriptedModel(said("Forbidden.")))
            if side == "input":
                agent.input_guardrails = [InputGuardrail(guardrail_function=guard(trips=trips), name="polite")]
            else:
                agent.output_guardrails = [OutputGuardrail(guardrail_function=guard(trips=trips), name="polite")]
            served = Served(agent)
            if not trips:
                assert b"Forbidden." in await served.ask({**asking("Hello", "chat"), "stream": stream}, "chat")
                continue
            with pytest.raises(GuardrailTripped, match="polite"):
                await served.ask({**asking("Hello", "chat"), "stream": stream}, "chat")


async def test_a_tool_that_needs_an_approval_is_an_error_that_names_it() -> None:
    @function_tool(needs_approval=True)
    def drop_table(name: str) -> str:
        return f"dropped {name}"

    model = ScriptedModel([[function_call("drop_table", {"name": "a"}, call_id="c")]])
    with pytest.raises(AgentNeedsApproval, match="drop_table"):
        await Served(Agent(name="helper", tools=[drop_table], model=model)).answer()


async def test_a_run_has_its_time() -> None:
    @function_tool
    async def wait() -> str:
        await asyncio.Event().wait()
        return ""

    model = ScriptedModel([[function_call("wait", "{}", call_id="c")]])
    served = Served(Agent(name="helper", tools=[wait], model=model), Bounds(seconds=0.05))
    with pytest.raises(AgentTimeout):
        await served.answer()
    await served.upstream.close()


async def test_a_run_that_is_broken_off_says_so_to_what_is_left_of_it() -> None:
    runs: list[Any] = []
    begun = asyncio.Event()

    async def fails(_: Any) -> Any:
        runs.append(CURRENT.get())
        raise ConnectionError

    async def endless(_: Any) -> Any:
        runs.append(CURRENT.get())
        begun.set()
        await asyncio.Event().wait()

    async def answers(_: Any) -> Any:
        runs.append(CURRENT.get())
        return said("Done.")[0]

    failing, hanging, well = (
        Served(Agent(name="helper", model=ScriptedModel([ModelStep.respond(plays)])))
        for plays in (fails, endless, answers)
    )
    with pytest.raises(AgentFailed):
        await failing.answer()
    asked = asyncio.ensure_future(hanging.answer())
    await begun.wait()
    asked.cancel()
    await asyncio.gather(asked, return_exceptions=True)
    await hanging.runner.close()
    await well.answer()
    assert [run.broken_off for run in runs] == [True, True, False]
