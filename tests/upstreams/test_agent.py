"""The upstream ``agents``: what it takes, whom it runs, its places, and its replies."""

import asyncio
from typing import Any

import msgspec
import orjson
import pytest
from agents import Agent, function_tool
from agents.testing import ModelStep, ScriptedModel, assistant_message, function_call

from agw_proxy._hot.peek import peek
from agw_proxy.dialects.openai_responses_writer import HEARTBEAT
from agw_proxy.errors import InvalidParameter, ModelNotFound, UpstreamBroken, UpstreamQueueFull
from agw_proxy.sdk.entry import CURRENT, Bounds, Run
from agw_proxy.types import Call, Caller, Stored
from agw_proxy.upstreams import agent as served_agents
from agw_proxy.upstreams.opening import open_target
from tests.sdk.agents_served import NAME, Served, rest, target, trees


def speaking(*texts: str) -> Agent[Any]:
    return Agent(name="helper", model=ScriptedModel([[assistant_message(text)] for text in texts]))


def waiting(gate: asyncio.Event) -> Agent[Any]:
    async def wait(_: Any) -> Any:
        await gate.wait()
        return [assistant_message("Here.")]

    return Agent(name="helper", model=ScriptedModel([ModelStep.respond(wait)] * 2))


def call(body: bytes | None = None, path: str = "/responses", **more: Any) -> Call:
    given = orjson.dumps({"model": NAME, "input": "Hi"}) if body is None else body
    return Call("POST", path, "", [], given, peek(given), "req/1 ü", **more)


@pytest.mark.parametrize("path", ["/embeddings", "/responses/input_tokens", "/chat/completions"])
async def test_an_agent_takes_part_in_conversations_only(path: str) -> None:
    with pytest.raises(InvalidParameter, match="is an agent"):
        await Served(speaking("Hi")).upstream.open(target(), call(path=path))


async def test_an_agent_that_has_gone_is_not_found() -> None:
    served = Served(speaking("Hi"))
    served.entry = msgspec.structs.replace(served.entry, id="default/other")
    upstream = served_agents.Agents(lambda _: None, served.runner)
    with pytest.raises(ModelNotFound):
        await upstream.open(target(), call())


async def test_a_request_that_is_refused_takes_no_place() -> None:
    served = Served(speaking("Hi"), Bounds(concurrent=1, queue=0))
    with pytest.raises(InvalidParameter):
        await served.upstream.open(target(), call(b'{"model":"m","conversation":"c"}'))
    assert (await served.answer())["status"] == "completed"


async def test_ids_are_of_the_request_or_of_the_store() -> None:
    served = Served(speaking("One", "Two"))
    reply = await served.upstream.open(target(), call())
    assert orjson.loads(await reply.read())["id"] == "resp_req-1--"
    assert reply.ended
    assert await reply.read() == b""
    reply = await served.upstream.open(target(), call(stored=Stored("abc", {"store": True})))
    answer = orjson.loads(await reply.read())
    assert (answer["id"], answer["store"]) == ("resp_abc", True)


async def test_a_run_is_for_the_caller() -> None:
    seen: list[Run | None] = []

    def notes(_: Any) -> Any:
        seen.append(CURRENT.get())
        return [assistant_message("Hi")]

    served = Served(Agent(name="helper", model=ScriptedModel([ModelStep.respond(notes)])))
    caller = Caller(None, session="s", trace="t", user="u", channel="c")
    reply = await served.upstream.open(target(), call(caller=caller))
    assert seen == [Run("req/1 ü", None, NAME, "s", "t", "u", "c")]
    assert served.told[0][1]["trace_id"] == "t"
    reply.close()


async def test_google_is_answered_too() -> None:
    body = orjson.dumps({"model": NAME, "stream": False, "contents": [{"role": "user", "parts": [{"text": "Hi"}]}]})
    served = Served(speaking("Hello"))
    asked = call(body, f"/v1beta/models/{NAME}:generateContent", form="gemini", dialect="gemini")
    answer = orjson.loads(await rest(await open_target(target(), served.service, asked)))
    assert answer["candidates"][0]["content"]["parts"] == [{"text": "Hello"}]
    assert answer["candidates"][0]["finishReason"] == "STOP"


async def test_a_silent_run_gives_signs_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served_agents, "SILENT_SECONDS", 0.01)
    gate = asyncio.Event()

    @function_tool
    async def slow() -> str:
        await gate.wait()
        return ""

    turns = [[assistant_message("Well."), function_call("slow", "{}", call_id="c")], [assistant_message("Here.")]]
    served = Served(Agent(name="helper", tools=[slow], model=ScriptedModel(turns)))
    stream = call(orjson.dumps({"model": NAME, "input": "Hi", "stream": True}))
    reply = await served.upstream.open(target(), stream)
    taken = b""
    while not reply.ended:
        made = await reply.read()
        if made == HEARTBEAT:
            gate.set()
        taken += made
    assert gate.is_set()
    assert trees(taken)[-1]["type"] == "response.completed"


async def test_a_reply_that_was_closed_says_so_and_gives_its_place_back() -> None:
    served = Served(waiting(asyncio.Event()), Bounds(concurrent=1, queue=0))
    stream = call(orjson.dumps({"model": NAME, "input": "Hi", "stream": True}))
    opening = asyncio.create_task(served.upstream.open(target(), stream))
    while "sdk_agent.start" not in served.events:
        await asyncio.sleep(0)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    await served.upstream.close()
    assert served.told[-1][1]["outcome"] == "cancelled"
    served.entry = msgspec.structs.replace(served.entry, agent=speaking("Next."))
    reply = await served.upstream.open(target(), stream)
    reply.close()
    reply.close()
    await reply.read()
    if not reply.ended:
        with pytest.raises(UpstreamBroken):
            await reply.read()
    await served.upstream.close()


async def test_bounds_that_change_hold_for_those_who_come() -> None:
    gate = asyncio.Event()
    served = Served(waiting(gate), Bounds(concurrent=1, queue=4))
    first = asyncio.create_task(served.answer())
    while served.events != ["sdk_agent.start"]:
        await asyncio.sleep(0)
    served.entry = msgspec.structs.replace(served.entry, bounds=Bounds(concurrent=2, queue=4))
    second = asyncio.create_task(served.answer())
    while served.events != ["sdk_agent.start"] * 2:
        await asyncio.sleep(0)
    gate.set()
    assert [answer["status"] for answer in await asyncio.gather(first, second)] == ["completed"] * 2


@pytest.mark.parametrize("between", [False, True], ids=["itself", "through another agent"])
async def test_a_run_that_asks_its_own_agent_does_not_wait_for_the_place_that_it_has(between: bool) -> None:
    refused: list[UpstreamQueueFull] = []

    async def asks_itself(_: Any) -> Any:
        own = CURRENT.get()
        if between:
            CURRENT.set(Run("req_between", None, "default/other", within=own))
        with pytest.raises(UpstreamQueueFull) as caught:
            await served.upstream.open(target(), call())
        refused.append(caught.value)
        return [assistant_message("Alone.")]

    served = Served(Agent(name="helper", model=ScriptedModel([ModelStep.respond(asks_itself)])), Bounds(concurrent=1))
    async with asyncio.timeout(30):
        assert (await served.answer())["status"] == "completed"
    assert "asked by a run of its own" in refused[0].message
    assert "concurrent: 1" in refused[0].message


async def test_a_run_may_ask_its_own_agent_where_a_place_is_free() -> None:
    async def asks_itself(_: Any) -> Any:
        reply = await served.upstream.open(target(), call())
        said = orjson.loads(await reply.read())["output"][0]["content"][0]["text"]
        reply.close()
        return [assistant_message(f"It says: {said}")]

    steps = [ModelStep.respond(asks_itself), ModelStep([assistant_message("Hi.")])]
    served = Served(Agent(name="helper", model=ScriptedModel(steps)), Bounds(concurrent=2))
    answer = await served.answer()
    assert answer["output"][0]["content"][0]["text"] == "It says: Hi."
