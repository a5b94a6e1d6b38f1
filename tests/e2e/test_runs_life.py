"""Runs over the life of gateways: several workers, a drain, a kill, a restart, a store of Responses, and agents."""

import os
import signal
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.e2e.test_runs import TURN, begin, client, config, ended, events, read
from tests.sdk.folders import says, write
from tests.support.behaviours import gate, silence, stream
from tests.support.gateway import APP_KEY, Gateway, configuration
from tests.support.providers import TEXT, chat_frames, plays
from tests.support.upstream import Upstream


@pytest.fixture(autouse=True)
def played(upstream: Upstream) -> None:
    upstream.default = plays(TEXT)


def halves() -> tuple[bytes, bytes]:
    """A streamed answer, cut behind its first words."""
    frames = chat_frames(TEXT)
    cut = frames.index(b"lo wor")
    cut = frames.rindex(b"\n\n", 0, cut) + 2
    return frames[:cut], frames[cut:]


def test_any_worker_tells_of_any_run_and_ends_it(upstream: Upstream) -> None:
    made = config(upstream.url)
    made["server"] |= {"workers": 2, "heartbeat_seconds": 0}
    with Gateway(made) as gateway:
        for _ in range(6):  # connections of their own: some reach the other worker
            run = begin(gateway)
            assert [number for number, _, _ in events(gateway, run["id"])] == list(
                range(run_length(gateway, run["id"]))
            )
        opened, behaviour = gate(stream(halves()))
        upstream.script(behaviour)
        run = begin(gateway)
        with ExitStack() as stack:
            readers = [stack.enter_context(gateway.connect()) for _ in range(6)]
            for reader in readers:
                reader.send("GET", f"/runs/{run['id']}/events", None, gateway.headers())
            heads = [reader.head() for reader in readers]
            opened.set()
            told = [b"".join(reader.pieces(head, "GET")) for reader, head in zip(readers, heads, strict=True)]
        assert [read(body)[-1][1] for body in told] == ["response.completed"] * 6
        assert len(set(told)) == 1
        upstream.script(*[silence()] * 6)
        held = [begin(gateway)["id"] for _ in range(6)]
        upstream.wait(len(upstream.requests))
        for identity in held:
            reply: Any = gateway.post(f"/runs/{identity}/cancel").json
            assert reply["status"] == "cancelled"
        # A worker that is killed leaves runs that nobody goes on with: its siblings say so at once.
        upstream.script(*[silence()] * 4)
        lost = [begin(gateway)["id"] for _ in range(4)]
        for line in [line for line in gateway.logs() if line.get("event") == "worker.ready"]:
            os.kill(line["pid"], signal.SIGKILL)
        for identity in lost:
            run = ended(gateway, identity)
            assert (run["status"], run["error"]["code"]) == ("failed", "gateway_restarted")


def run_length(gateway: Gateway, identity: str) -> int:
    return int(ended(gateway, identity)["last_event_id"]) + 1


def test_a_drain_waits_for_runs_and_a_restart_knows_what_became_of_them(upstream: Upstream) -> None:
    one, other = halves()
    opened, behaviour = gate(stream([one, other]))
    made = config(upstream.url)
    made["server"]["drain_seconds"] = 20
    with Gateway(made) as gateway:
        upstream.script(behaviour)
        run = begin(gateway)
        upstream.wait(1)
        gateway.process.send_signal(signal.SIGTERM)
        gateway.until(lambda: "server.draining" in gateway.output, "no drain")
        opened.set()
        assert gateway.wait() == 0
        gateway.start()
        done = ended(gateway, run["id"])
        assert (done["status"], done["response"]["output"][0]["content"][0]["text"]) == ("completed", "Hello world")

        made["server"]["drain_seconds"] = 0
        gateway.write(made)
        gateway.stop()
        gateway.start()
        upstream.script(stream([one], ending="hang"))
        cut = begin(gateway)
        gateway.until(
            lambda: b"Hel" in gateway.get(f"/runs/{cut['id']}").body or run_has(gateway, cut["id"], 3), "no words"
        )
        assert gateway.stop() == 0
        gateway.start()
        failed = ended(gateway, cut["id"])
        assert (failed["status"], failed["error"]["code"]) == ("failed", "gateway_draining")
        assert "Hel" in "".join(tree.get("delta", "") for _, _, tree in events(gateway, cut["id"]))

        upstream.script(silence())
        lost = begin(gateway)
        upstream.wait(len(upstream.requests))
        gateway.process.kill()
        gateway.wait()
        gateway.start()
        told: Any = gateway.get(f"/runs/{lost['id']}").json
        assert (told["status"], told["error"]["code"]) == ("failed", "gateway_restarted")
        last = events(gateway, lost["id"])[-1]
        assert (last[1], last[2]["response"]["status"]) == ("response.failed", "failed")


def run_has(gateway: Gateway, identity: str, least: int) -> bool:
    run: Any = gateway.get(f"/runs/{identity}").json
    return bool(run["last_event_id"] > least)


def test_what_was_made_in_the_background_can_be_gone_on_from_where_there_is_a_store(upstream: Upstream) -> None:
    with Gateway(config(upstream.url, store={})) as gateway, client(gateway) as sdk:
        first = sdk.responses.create(model="messages-x", input="one", background=True)
        run_length(gateway, f"run_{first.id.removeprefix('resp_')}")
        items: Any = list(sdk.responses.input_items.list(first.id))
        assert [item.content[0].text for item in items] == ["one"]
        with sdk.responses.create(
            model="responses-x", input="two", previous_response_id=first.id, background=True, stream=True
        ) as begun:
            last: Any = list(begun)[-1]
        # An upstream that keeps Responses itself would have been asked for a background of its own.
        assert last.type == "response.completed"
        second = sdk.responses.create(model="chat-x", input="three", previous_response_id=first.id)
        sent: Any = upstream.last.json
        assert [turn["content"] for turn in sent["messages"]] == ["one", "Hello world", "three"]
        assert second.previous_response_id == first.id
        sdk.responses.delete(first.id)
        with pytest.raises(openai.NotFoundError):
            sdk.responses.retrieve(first.id)
        with pytest.raises(openai.BadRequestError):
            sdk.responses.create(model="chat-x", input="four", previous_response_id=first.id)


def test_an_agent_runs_in_the_background(tmp_path: Path) -> None:
    gateway = Gateway(configuration())
    write(gateway.folder / "work" / "agents", {"sky/agent.py": says("blue")})
    with gateway:
        reply = gateway.post("/runs", {"agent": "Sky", "input": "hi"})
        assert reply.status == 202, reply.body
        made: Any = reply.json
        assert made["model"] == "default/sky"
        run = ended(gateway, made["id"])
        assert run["response"]["output"][0]["content"][0]["text"] == "blue"
        refused = gateway.post("/runs", {"agent": "agw/echo", "input": "hi"})
        assert (refused.status, refused.error["code"]) == (404, "model_not_found")
        with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=APP_KEY, max_retries=0) as sdk:
            begun = sdk.responses.create(model="default/sky", input="hi", background=True)
            done: Any = gateway.until(
                lambda: found if (found := sdk.responses.retrieve(begun.id)).status == "completed" else None, "not done"
            )
            assert done.output_text == "blue"


SLOW = """\
import asyncio
from pathlib import Path
from agents import Agent, function_tool
from agents.testing import ScriptedModel, function_call

@function_tool
async def wait() -> str:
    Path("begun").touch()
    try:
        await asyncio.Event().wait()
    finally:
        Path("ended").touch()
    return "never"

agent = Agent(name="Slow", tools=[wait], model=ScriptedModel([[function_call("wait", {}, call_id="call_1")]] * 9))
"""


def test_a_cancelled_run_of_an_agent_ends_its_tool_and_none_are_taken_where_that_is_said() -> None:
    gateway = Gateway(configuration())
    work = gateway.folder / "work"
    write(work / "agents", {"slow/agent.py": SLOW})
    with gateway:
        made: Any = gateway.post("/runs", {"agent": "slow", "input": "hi"}).json
        gateway.until((work / "begun").exists, "the tool was not used")
        assert gateway.get(f"/runs/{made['id']}").json["status"] in {"queued", "in_progress"}
        told: Any = gateway.post(f"/runs/{made['id']}/cancel").json
        assert told["status"] == "cancelled"
        gateway.until((work / "ended").exists, "the tool goes on")
        gateway.write(configuration(runs={"concurrent": 0}))
        assert gateway.stop() == 0
        gateway.start()
        refused = gateway.post("/runs", {"model": "agw/echo", "input": "hi"})
        assert (refused.status, "runs.concurrent" in str(refused.error["message"])) == (400, True)
        background = gateway.post(TURN, {"model": "default/slow", "input": "hi", "background": True})
        assert background.status == 400
        assert gateway.get(f"/runs/{made['id']}").json["status"] == "cancelled"


def test_a_follower_that_leaves_leaves_the_run(upstream: Upstream) -> None:
    one, other = halves()
    opened, behaviour = gate(stream([one, other]))
    upstream.script(behaviour)
    with Gateway(config(upstream.url)) as gateway:
        run = begin(gateway)
        with gateway.connect() as connection:
            connection.send("GET", f"/runs/{run['id']}/events", None, gateway.headers())
            reply = connection.head()
            pieces = connection.pieces(reply, "GET")
            assert read(next(pieces))[0][1] == "response.created"
        opened.set()
        assert ended(gateway, run["id"])["status"] == "completed"
        assert gateway.get(f"{TURN}/{run['response_id']}").status == 200
