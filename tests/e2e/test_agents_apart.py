"""Agents in workers of their own: as models they are what they were, and nothing that one does holds up a relay."""

import os
import re
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anthropic
import openai
import orjson
import pytest

from tests.sdk.folders import says, write
from tests.support.client import bearer
from tests.support.gateway import APP_KEY, Gateway, Tree, configuration, provider
from tests.support.providers import HELLO, TEXT, plays
from tests.support.upstream import Upstream

SECONDS = 150.0  # several processes import the SDK, maybe on a busy machine
TOOL = """\
import os, sys, time
from pathlib import Path
from agents import Agent, function_tool
from agents.testing import ModelStep, ScriptedModel, assistant_message, function_call

HERE = Path(__file__).parent

{tool}

turns = [ModelStep([assistant_message("I try."), function_call("work", "{{}}", call_id="c")]), ModelStep([assistant_message("Done.")])]
agent = Agent(name="Worker", tools=[work], model=ScriptedModel(turns * 20))
"""
CRASHES = """\
@function_tool
def work() -> str:
    os._exit(7)
"""
BLOCKS = """\
@function_tool
async def work() -> str:
    (HERE / "inside").touch()
    return stand_still()

def stand_still() -> str:
    until = time.monotonic() + 120
    while not (HERE / "go").exists() and time.monotonic() < until:
        time.sleep(0.01)
    return ""
"""
WAITS = """\
import asyncio

@function_tool
async def work() -> str:
    (HERE / "inside").touch()
    while not (HERE / "go").exists():
        await asyncio.sleep(0.01)
    return ""
"""
FAILS = """\
from agents import Agent
from agents.testing import ModelStep, ScriptedModel

def fails(_):
    raise LookupError("no such thing")

agent = Agent(name="Fails", model=ScriptedModel([ModelStep.respond(fails)] * 9))
"""
START = {
    "sky/agent.py": says("blue"),
    "asks/agent.py": 'from agents import Agent\n\nagent = Agent(name="Asks", model="gpt-4o-mini")\n',
    "crashes/agent.py": TOOL.format(tool=CRASHES),
    "blocks/agent.py": TOOL.format(tool=BLOCKS),
    "waits/agent.py": TOOL.format(tool=WAITS),
    "streams/agent.py": TOOL.format(tool=WAITS),
    "fails/agent.py": FAILS,
}


@pytest.fixture(scope="module")
def running(shared_upstream: Upstream) -> Iterator[Gateway]:
    """One worker that relays, and two that run agents."""
    config = configuration(
        provider(shared_upstream.url),
        server={"port": 0, "drain_seconds": 20, "body_seconds": 1, "heartbeat_seconds": 0},
        agents={"workers": 2},
        timeouts={},
    )
    gateway = Gateway(config, fresh=True)
    try:
        write(folder(gateway), START)
        gateway.launch()
        (ready,) = gateway.until(lambda: events(gateway, "server.ready"), "it is not ready", SECONDS)
        gateway.url = ready["url"]
        yield gateway
    finally:
        gateway.__exit__()


@pytest.fixture
def gateway(running: Gateway, upstream: Upstream) -> Gateway:
    upstream.reset()
    return running


def folder(gateway: Gateway) -> Path:
    return gateway.folder / "work" / "agents"


def chat(gateway: Gateway, model: str, timeout: float = SECONDS) -> str:
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=APP_KEY, max_retries=0, timeout=timeout) as client:
        reply = client.chat.completions.create(model=model, messages=[{"role": "user", "content": "hi"}])
    return reply.choices[0].message.content or ""


def events(gateway: Gateway, name: str, agent: str | None = None) -> list[Tree]:
    return [line for line in gateway.logs() if line.get("event") == name and agent in (None, line.get("agent"))]


def workers(gateway: Gateway) -> dict[int, int]:
    """The newest process of each worker, by number; the first one relays."""
    newest = {line["worker"]: int(line["pid"]) for line in events(gateway, "worker.ready")}
    return dict(sorted(newest.items()))


def brings_the_sdk(pid: int) -> bool:
    """A compiled library that comes with the SDK, and with nothing of the gateway, is mapped in there."""
    return "/cryptography/" in Path(f"/proc/{pid}/maps").read_text()


def test_they_are_models_in_every_dialect_and_who_relays_imports_nothing_of_the_sdk(gateway: Gateway) -> None:
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=APP_KEY, max_retries=0) as client:
        assert "default/sky" in [model.id for model in client.models.list()]
        assert client.responses.create(model="default/sky", input="hi").output_text == "blue"
        chunks = client.chat.completions.create(
            model="agents/default/sky", messages=[{"role": "user", "content": "hi"}], stream=True
        )
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "blue"
    with anthropic.Anthropic(base_url=gateway.url, api_key=APP_KEY, max_retries=0) as claude:
        message = claude.messages.create(
            model="default/sky", max_tokens=99, messages=[{"role": "user", "content": "hi"}]
        )
    assert [block.text for block in message.content if block.type == "text"] == ["blue"]
    relays, *apart = workers(gateway).values()
    assert [brings_the_sdk(pid) for pid in (relays, *apart)] == [False, True, True]


def test_their_model_calls_are_on_the_callers_account_with_one_receipt_each(
    gateway: Gateway, upstream: Upstream
) -> None:
    upstream.script(plays(TEXT))
    reply = gateway.chat(model="default/asks", headers={"x-user-id": "ann", "x-session-id": "s1"})
    assert orjson.loads(reply.body)["choices"][0]["message"]["content"] == "".join(HELLO)
    outer = gateway.receipt(reply.request_id)
    assert (outer["upstream"], outer["key"], outer.get("prompt_tokens", -1), outer["cost"]) == ("agents", "app", -1, 0)
    (inner,) = [line for line in gateway.logs() if line.get("run_id") == reply.request_id]
    told = {name: inner[name] for name in ("key", "user", "agent", "upstream", "lane_reason", "prompt_tokens")}
    assert told == {
        "key": "app",
        "user": "ann",
        "agent": "default/asks",
        "upstream": "fake",
        "lane_reason": "run",
        "prompt_tokens": 21,
    }


def test_what_goes_wrong_in_a_run_is_told_as_it_is(gateway: Gateway) -> None:
    with pytest.raises(openai.InternalServerError) as caught:
        chat(gateway, "default/fails")
    assert (caught.value.status_code, caught.value.code) == (500, "agent_failed")
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert "LookupError" in caught.value.message
    with pytest.raises(openai.NotFoundError):
        chat(gateway, "default/none")
    with pytest.raises(openai.BadRequestError, match="takes part in conversations"):
        gateway_embeds(gateway)


def gateway_embeds(gateway: Gateway) -> None:
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=APP_KEY, max_retries=0) as client:
        client.embeddings.create(model="default/sky", input="hi")


def test_a_client_that_leaves_ends_its_run(gateway: Gateway) -> None:
    inside = folder(gateway) / "waits" / "inside"
    with gateway.connect() as connection:
        body = {"model": "default/waits", "stream": True, "messages": [{"role": "user", "content": "hi"}]}
        connection.send("POST", "/v1/chat/completions", body, gateway.headers())
        gateway.until(inside.exists, "the tool was not called", SECONDS)
        assert listed(gateway)["default/waits"]["running"] == 1
    failed = gateway.until(lambda: events(gateway, "sdk_agent.failure", "default/waits"), "the run goes on", SECONDS)
    assert failed[0]["outcome"] == "cancelled"
    gateway.until(lambda: listed(gateway)["default/waits"]["running"] == 0, "it is held", SECONDS)


def listed(gateway: Gateway) -> dict[str, Tree]:
    data = orjson.loads(gateway.get("/agents", key=gateway.admin_key).body)["data"]
    return {item["id"]: item for item in data}


def blocking(gateway: Gateway, *, ended: bool) -> list[Tree]:
    """What is told of the agent that stands still; other steps of its may be late, too, on a busy machine."""
    found = events(gateway, "agent.blocked_loop", "default/blocks")
    return [line for line in found if line.get("ended", True) is ended and "stand_still" in str(line["frame"])]


def test_one_that_blocks_holds_up_neither_relays_nor_the_others_and_is_named(
    gateway: Gateway, upstream: Upstream
) -> None:
    place = folder(gateway) / "blocks"
    with ThreadPoolExecutor(1) as pool:
        blocked = pool.submit(chat, gateway, "default/blocks")
        try:
            gateway.until((place / "inside").exists, "the tool was not called", SECONDS)
            (first,) = gateway.until(lambda: blocking(gateway, ended=False), "it is not named", SECONDS)
            assert not blocked.done()
            upstream.script(plays(TEXT), plays(TEXT))
            assert gateway.chat().status == 200
            assert [chat(gateway, name) for name in ("default/sky", "default/asks")] == ["blue", "".join(HELLO)]
            assert not blocked.done()
        finally:
            (place / "go").touch()
        assert blocked.result() == "I try.\n\nDone."
    last = gateway.until(lambda: blocking(gateway, ended=True), "the end is not told", SECONDS)[-1]
    assert re.fullmatch(rf"{re.escape(str(place / 'agent.py'))}:\d+ stand_still", first["frame"])
    assert last["blocked_ms"] >= first["blocked_ms"] >= 1000
    text = gateway.get("/metrics/prometheus", key=gateway.admin_key).body.decode()
    found = re.search(r'agw_agent_blocked_seconds_total\{agent="default/blocks"\} (\S+)', text)
    assert found is not None
    assert float(found[1]) >= last["blocked_ms"] / 1000 - 0.001


def test_one_that_ends_its_process_is_replaced_while_others_serve(gateway: Gateway, upstream: Upstream) -> None:
    before = workers(gateway)
    with pytest.raises(openai.APIStatusError) as caught:
        chat(gateway, "default/crashes")
    assert caught.value.status_code == 502
    assert "has ended" in caught.value.message
    upstream.script(plays(TEXT))
    assert gateway.chat().status == 200
    assert chat(gateway, "default/sky") == "blue"
    gateway.until(lambda: events(gateway, "worker.ended"), "nobody has seen it end", SECONDS)
    (ended,) = events(gateway, "worker.ended")
    assert (ended["how"], ended["worker"] in (1, 2)) == ("exit code 7", True)
    gateway.until(lambda: workers(gateway) != before, "it is not replaced", SECONDS)
    assert workers(gateway)[0] == before[0]
    assert all(chat(gateway, "default/sky") == "blue" for _ in range(2))


def test_what_is_under_way_needs_no_worker_that_relays(gateway: Gateway) -> None:
    """The connection is the agent's worker's until it has answered: an agent's events are no work for a relay."""
    place = folder(gateway) / "streams"
    stopped = workers(gateway)[0]
    with gateway.connect() as connection:
        for _ in range(2):
            body = {"model": "default/streams", "messages": [{"role": "user", "content": "hi"}], "stream": True}
            connection.send("POST", "/v1/chat/completions", body, bearer(APP_KEY))
            head = connection.head()
            gateway.until((place / "inside").exists, "the tool was not called", SECONDS)
            os.kill(stopped, signal.SIGSTOP)
            try:
                (place / "go").touch()
                text = b"".join(connection.pieces(head))
            finally:
                os.kill(stopped, signal.SIGCONT)
            assert (head.complete, text.count(b"Done."), text.endswith(b"data: [DONE]\n\n")) == (True, 1, True)
            for name in ("inside", "go"):
                (place / name).unlink()


def test_a_refresh_is_taken_up_by_all_before_it_is_answered(gateway: Gateway) -> None:
    write(folder(gateway), {"sky/agent.py": "agent = (", "late/agent.py": says("at last")})
    try:
        reply = gateway.post("/agents/refresh", key=gateway.admin_key)
        assert reply.status == 200, reply.body
        told = orjson.loads(reply.body)
        assert told["agents"] == {"ready": 7, "stale": 1, "failed": 0, "blocked": 0}
        assert "sky/agent.py:1" in told["agent_errors"]["default/sky"]
        assert [chat(gateway, f"default/{name}") for name in ("late", "sky")] == ["at last", "blue"]
    finally:
        write(folder(gateway), START)
        assert gateway.post("/agents/refresh", key=gateway.admin_key).status == 200
    assert listed(gateway)["default/sky"]["status"] == "ready"


def test_what_is_asked_during_a_refresh_is_answered(gateway: Gateway) -> None:
    with ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(chat, gateway, "default/sky") for _ in range(16)]
        for text in ("grey", "blue"):
            write(folder(gateway), {"sky/agent.py": says(text)})
            assert gateway.post("/agents/refresh", key=gateway.admin_key).status == 200
            assert chat(gateway, "default/sky") == text
        assert {answer.result() for answer in answers} <= {"blue", "grey"}


def test_a_drain_lets_runs_end_before_their_workers_do(running: Gateway) -> None:
    """The last of this module: it ends the gateway."""
    place = folder(running) / "waits"
    (place / "inside").unlink()
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(chat, running, "default/waits")
        running.until((place / "inside").exists, "the tool was not called", SECONDS)
        for pid in (running.pid, *workers(running).values()):  # as a service manager does
            os.kill(pid, signal.SIGTERM)
        running.until(lambda: events(running, "server.draining"), "it does not drain", SECONDS)
        (place / "go").touch()
        assert answer.result() == "I try.\n\nDone."
    assert running.wait() == 0
    first, *apart, last = [line.get("worker") for line in events(running, "server.stopped")]
    assert (first, set(apart), last) == (0, {1, 2}, None)
