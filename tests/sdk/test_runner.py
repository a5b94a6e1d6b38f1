"""Runs of agents: what their callers get in each form, how they end, and that nothing is left of them."""

import asyncio
import threading
from typing import Any

import pytest
from agents import (
    Agent,
    Runner,
    StopAtTools,
    function_tool,
)
from agents.testing import ModelStep, ScriptedModel, assistant_message, function_call
from anthropic.types import Message as AnthropicMessage
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseIncompleteEvent, ResponseOutputMessage, ResponseOutputRefusal
from pydantic import BaseModel

from agw_proxy.config.values import Form
from agw_proxy.errors import (
    InvalidParameter,
    UpstreamBroken,
    UpstreamQueueFull,
)
from agw_proxy.sdk.entry import CURRENT, Bounds
from tests.sdk.agents_served import NAME, Served, asking, rest, said, trees, used, weather, with_weather, words_of

CLIENT_TOOL = {
    "type": "function",
    "name": "send_mail",
    "description": "Send a mail",
    "parameters": {"type": "object", "properties": {"to": {"type": "string"}}, "required": ["to"]},
}


@pytest.mark.parametrize("form", ["chat", "responses", "messages"])
async def test_an_answer_holds_the_words_of_all_turns_and_the_usage_of_all_calls(form: Form) -> None:
    served = Served(Agent(name="helper", tools=[weather], model=with_weather(*said("It rains."))))
    answer = await served.answer(form=form)
    kinds: dict[Form, type[BaseModel]] = {"chat": ChatCompletion, "responses": Response, "messages": AnthropicMessage}
    kinds[form].model_validate(answer)
    assert words_of(answer, form) == "I look.\n\nIt rains."
    usage = answer["usage"]
    assert (
        usage.get("prompt_tokens", usage.get("input_tokens")),
        usage.get("completion_tokens", usage.get("output_tokens")),
    ) == (30, 12)
    assert "weather" not in str(answer)
    ends = {"chat": "stop", "responses": "completed", "messages": "end_turn"}
    assert (
        answer["choices"][0]["finish_reason"] if form == "chat" else answer.get("stop_reason", answer.get("status"))
    ) == ends[form]
    assert served.events == ["sdk_agent.start", "tool.called", "sdk_agent.success"]


async def test_a_chat_stream_never_tells_of_the_agents_own_calls() -> None:
    served = Served(Agent(name="helper", tools=[weather], model=with_weather(*said("It rains."))))
    chunks = trees(
        await served.ask({**asking("Hello", "chat"), "stream": True, "stream_options": {"include_usage": True}}, "chat")
    )
    for chunk in chunks:
        ChatCompletionChunk.model_validate(chunk)
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    assert "".join(delta.get("content") or "" for delta in deltas) == "I look.\n\nIt rains."
    assert not any("tool_calls" in delta for delta in deltas)
    assert [choice["finish_reason"] for chunk in chunks for choice in chunk["choices"]][-1] == "stop"
    assert chunks[-1]["usage"]["total_tokens"] == 42


@pytest.mark.parametrize(("shows", "member"), [("annotated", "summary"), ("visible", "content")])
async def test_what_the_agent_does_is_told_as_thoughts_or_as_words(shows: Any, member: str) -> None:
    served = Served(Agent(name="helper", tools=[weather], model=with_weather(*said("It rains."))), shows=shows)
    answer = await served.answer()
    told = [part["text"] for item in answer["output"] for part in item.get(member, ())]
    assert any('Calls weather: {"city":"Oslo"}' in text for text in told)
    assert any("weather: Rain in Oslo" in text for text in told)
    assert not any(item["type"] == "function_call" for item in answer["output"])


async def test_a_handoff_goes_to_the_other_agent_which_has_the_callers_tools_too() -> None:
    expert_model = ScriptedModel([ModelStep([function_call("send_mail", {"to": "a"}, call_id="mail_1")], used(4, 4))])
    expert = Agent(name="expert", model=expert_model)
    model = ScriptedModel([ModelStep([function_call("transfer_to_expert", "{}", call_id="hand_1")], used(3, 3))])
    served = Served(Agent(name="helper", handoffs=[expert], model=model), shows="annotated")
    answer = await served.answer(tools=[CLIENT_TOOL])
    kinds = [item["type"] for item in answer["output"]]
    assert kinds == ["reasoning", "reasoning", "function_call"]
    assert "helper hands over to expert" in str(answer["output"][1])
    assert served.events == ["sdk_agent.start", "sdk_agent.handoff", "sdk_agent.success"]
    assert [tool.name for tool in expert_model.calls[0].tools] == ["send_mail"]
    assert expert.tools == []


@pytest.mark.parametrize("stream", [False, True])
async def test_a_callers_tool_ends_the_run_and_its_result_goes_on_with_what_was_done(stream: bool) -> None:
    mail = function_call("send_mail", {"to": "Ada"}, call_id="mail_1")
    model = with_weather(ModelStep([mail], used(4, 4)), *said("Sent."))
    served = Served(Agent(name="helper", tools=[weather], model=model))
    tools = [{"type": "function", "function": {k: v for k, v in CLIENT_TOOL.items() if k != "type"}}]
    if stream:
        chunks = trees(await served.ask({**asking("Mail Ada", "chat"), "tools": tools, "stream": True}, "chat"))
        calls = [call for c in chunks for choice in c["choices"] for call in choice["delta"].get("tool_calls", ())]
        assert [choice["finish_reason"] for c in chunks for choice in c["choices"]][-1] == "tool_calls"
        arguments = "".join(call["function"].get("arguments", "") for call in calls)
        name, call_id = calls[0]["function"]["name"], calls[0]["id"]
    else:
        answer = await served.answer("Mail Ada", "chat", tools=tools)
        assert answer["choices"][0]["finish_reason"] == "tool_calls"
        (call,) = answer["choices"][0]["message"]["tool_calls"]
        name, arguments, call_id = call["function"]["name"], call["function"]["arguments"], call["id"]
    assert (name, arguments, call_id) == ("send_mail", '{"to":"Ada"}', "mail_1")
    called = {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
    history = [
        {"role": "user", "content": "Mail Ada"},
        {"role": "assistant", "content": "I look.", "tool_calls": [called]},
        {"role": "tool", "tool_call_id": call_id, "content": "ok"},
    ]
    answer = await served.answer(history, "chat", tools=tools)
    assert answer["choices"][0]["message"]["content"] == "Sent."
    seen = model.calls[-1].input
    assert [item.get("call_id") for item in seen if item.get("type", "").startswith("function")] == [
        "call_1",
        "call_1",
        "mail_1",
        "mail_1",
    ]
    assert next(item["output"] for item in seen if item.get("type") == "function_call_output") == "Rain in Oslo"


async def test_own_calls_beside_a_callers_are_run_once() -> None:
    both = [
        function_call("weather", {"city": "Rome"}, call_id="own_1"),
        function_call("send_mail", {"to": "A"}, call_id="mail_1"),
    ]
    model = ScriptedModel([ModelStep(both, used(1, 1)), *said("Done.")])
    served = Served(Agent(name="helper", tools=[weather], model=model))
    answer = await served.answer(tools=[CLIENT_TOOL])
    (call,) = [item for item in answer["output"] if item["type"] == "function_call"]
    output = {"type": "function_call_output", "call_id": "mail_1", "output": "ok"}
    again = await served.answer([{"role": "user", "content": "Hello"}, call, output], tools=[CLIENT_TOOL])
    assert words_of(again, "responses") == "Done."
    assert served.events.count("tool.called") == 1
    assert "Rain in Rome" in str(model.calls[-1].input)


async def test_a_callers_tool_that_is_named_as_an_agents_own_keeps_its_name_with_the_caller() -> None:
    model = ScriptedModel([ModelStep([function_call("weather_2", {"to": "x"}, call_id="c")], used(1, 1))])
    served = Served(Agent(name="helper", tools=[weather], model=model))
    answer = await served.answer(tools=[{**CLIENT_TOOL, "name": "weather"}])
    assert [item["name"] for item in answer["output"]] == ["weather"]
    assert [tool.name for tool in model.calls[0].tools] == ["weather", "weather_2"]


async def test_an_answer_in_the_callers_form_and_settings() -> None:
    model = ScriptedModel(said('{"a":1}'))
    served = Served(Agent(name="helper", model=model))
    form = {"type": "json_schema", "name": "thing", "schema": {"type": "object", "properties": {}}, "strict": False}
    answer = await served.answer(text={"format": form}, temperature=0.5, max_output_tokens=50, instructions="Be kind.")
    assert words_of(answer, "responses") == '{"a":1}'
    call = model.calls[0]
    assert call.output_schema is not None
    assert call.output_schema.json_schema() == form["schema"]
    assert (call.model_settings.temperature, call.model_settings.max_tokens) == (0.5, 50)
    assert call.input[0] == {"type": "message", "role": "system", "content": "Be kind."}


class Answered(BaseModel):
    number: int


async def test_an_agent_with_a_form_of_its_own_takes_no_other() -> None:
    served = Served(Agent(name="helper", model=ScriptedModel(said('{"number":1}')), output_type=Answered))
    with pytest.raises(InvalidParameter):
        await served.answer(text={"format": {"type": "json_object"}})
    assert words_of(await served.answer(), "responses") == '{"number":1}'


async def test_what_a_tool_gives_as_the_last_word_is_the_answer() -> None:
    agent = Agent(
        name="helper",
        tools=[weather],
        model=ScriptedModel([[function_call("weather", {"city": "Oslo"}, call_id="c")]]),
        tool_use_behavior=StopAtTools(stop_at_tool_names=["weather"]),
    )
    answer = await Served(agent).answer(form="chat")
    assert answer["choices"][0]["message"]["content"] == "Rain in Oslo"
    assert answer["choices"][0]["finish_reason"] == "stop"


async def test_a_refusal_is_a_refusal() -> None:
    refusal = ResponseOutputMessage(
        id="m",
        type="message",
        role="assistant",
        status="completed",
        content=[ResponseOutputRefusal(type="refusal", refusal="No.")],
    )
    for output_type in (None, Answered):
        served = Served(Agent(name="helper", model=ScriptedModel([[refusal]]), output_type=output_type))
        answer = await served.answer()
        assert answer["output"][0]["content"] == [{"type": "refusal", "refusal": "No."}]


async def test_an_answer_that_is_cut_ends_so() -> None:
    usage: dict[str, Any] = {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5}
    usage["input_tokens_details"] = {"cached_tokens": 0, "cache_write_tokens": 0}
    usage["output_tokens_details"] = {"reasoning_tokens": 0}
    told: dict[str, Any] = {"id": "resp_1", "object": "response", "created_at": 1, "model": "m", "tools": []}
    told |= {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}, "usage": usage}
    told |= {"parallel_tool_calls": True, "tool_choice": "auto", "output": [assistant_message("Half of").model_dump()]}
    cut = Response.model_validate(told)
    event = ResponseIncompleteEvent(type="response.incomplete", response=cut, sequence_number=1)
    served = Served(Agent(name="helper", model=ScriptedModel([ModelStep.stream([event])])))
    asked = {**asking("Hello", "chat"), "stream": True, "stream_options": {"include_usage": True}}
    chunks = trees(await served.ask(asked, "chat"))
    assert "".join(c["choices"][0]["delta"].get("content", "") for c in chunks if c["choices"]) == "Half of"
    assert [c["choices"][0]["finish_reason"] for c in chunks if c["choices"]][-1] == "length"
    assert chunks[-1]["usage"]["total_tokens"] == 5


async def test_runs_beyond_the_places_wait_and_beyond_the_queue_are_refused() -> None:
    gate = asyncio.Event()

    async def waits(_: Any) -> Any:
        await gate.wait()
        return [assistant_message("Here.")]

    served = Served(Agent(name="helper", model=ScriptedModel([waits_step(waits)] * 2)), Bounds(concurrent=1, queue=1))
    first, second = asyncio.create_task(served.answer()), asyncio.create_task(served.answer())
    while "sdk_agent.start" not in served.events:
        await asyncio.sleep(0)
    with pytest.raises(UpstreamQueueFull):
        await served.answer()
    assert served.events == ["sdk_agent.start"]
    gate.set()
    assert [words_of(answer, "responses") for answer in await asyncio.gather(first, second)] == ["Here.", "Here."]


def waits_step(responder: Any) -> ModelStep:
    return ModelStep.respond(responder)


async def test_a_hundred_runs_with_cancellations_leave_no_task() -> None:
    arrived = 0
    gate, all_here = asyncio.Event(), asyncio.Event()
    threads: set[int] = set()

    @function_tool
    def blocking() -> str:
        threads.add(threading.get_ident())
        return "done"

    async def waits(_: Any) -> Any:
        nonlocal arrived
        arrived += 1
        if arrived == 50:
            all_here.set()
        await gate.wait()
        return [assistant_message("Here.")]

    async def one(number: int) -> str:
        model = ScriptedModel([[function_call("blocking", "{}", call_id="c")], ModelStep.respond(waits)])
        agent = Agent(name="helper", tools=[blocking], model=model)
        mine = Served(agent)
        answer = await mine.ask({**asking("Hello", "chat"), "stream": number % 2 == 0}, "chat")
        await mine.upstream.close()
        return "Here." if b"Here." in answer else "nothing"

    before = asyncio.all_tasks()
    tasks = [asyncio.create_task(one(number)) for number in range(100)]
    await all_here.wait()
    for task in tasks[::3]:
        task.cancel()
    gate.set()
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert [end for number, end in enumerate(ends) if number % 3] == ["Here."] * 66
    assert all(isinstance(end, asyncio.CancelledError) for end in ends[::3])
    assert threading.get_ident() not in threads
    async with asyncio.timeout(30):
        while asyncio.all_tasks() - before:
            await asyncio.sleep(0.01)


async def test_who_leaves_a_stream_ends_its_model_call() -> None:
    ended = asyncio.Event()

    async def endless(_: Any) -> Any:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    served = Served(Agent(name="helper", tools=[weather], model=with_weather(ModelStep.respond(endless))))
    opened = await served.open({**asking("Hello", "chat"), "stream": True}, "chat")
    reading = asyncio.create_task(rest(opened))
    await asyncio.sleep(0)
    opened.reply.close()
    async with asyncio.timeout(30):
        with pytest.raises(UpstreamBroken):
            await reading
        await served.upstream.close()
    assert served.told[-1][1]["outcome"] == "cancelled"


async def test_a_run_knows_whose_it_is() -> None:
    @function_tool
    async def who() -> str:
        run = CURRENT.get()
        assert run is not None
        return f"{run.agent} {run.request_id}"

    model = ScriptedModel([[function_call("who", "{}", call_id="c")], *said("ok")])
    served = Served(Agent(name="helper", tools=[who], model=model))
    await served.answer()
    assert f"{NAME} req-1" in str(model.calls[-1].input)
    assert CURRENT.get() is None


async def test_the_answer_is_what_the_sdks_own_runner_gives() -> None:
    agent = Agent(name="helper", tools=[weather], model=with_weather(*said("It rains.")))
    alone = await Runner.run(agent, "Hello")
    served = Served(agent.clone(model=with_weather(*said("It rains."))))
    assert words_of(await served.answer(), "responses").endswith(str(alone.final_output))
