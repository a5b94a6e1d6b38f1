"""An agent that keeps the loop from turning is named, with the place in its code, in the log and in a metric."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from agents import Agent
from agents.testing import ModelStep, ScriptedModel, assistant_message

from agw_proxy.sdk import lookout
from agw_proxy.sdk.contained import BLOCKED_SECONDS, STEP, Contained
from agw_proxy.sdk.discovery import Found
from agw_proxy.sdk.entry import Run
from agw_proxy.sdk.loading import let_go, load
from agw_proxy.sdk.lookout import EVENT, LONG_SECONDS, Lookout
from tests.sdk.agents_served import NAME, Served
from tests.sdk.folders import write

RUN = Run("req_1", None, "default/slow")
PATIENCE_SECONDS = 30.0
STARTS = """\
import time
from agents import Agent

agent = Agent(name="Slow")

async def on_startup():
    dawdle()

def dawdle():
    time.sleep(SECONDS)
"""


class Heard:
    """What has been told, and counted."""

    def __init__(self) -> None:
        self.told: list[dict[str, object]] = []
        self.counted: dict[str, float] = {}
        self.news = threading.Event()

    def say(self, event: str, members: Mapping[str, object]) -> None:
        assert event == EVENT
        self.told.append(dict(members))
        self.news.set()

    def count(self, agent: str, seconds: float) -> None:
        self.counted[agent] = self.counted.get(agent, 0.0) + seconds


@pytest.fixture
def heard() -> Iterator[Heard]:
    made = Heard()
    watching = Lookout(made.say, made.count)
    yield made
    watching.close()
    assert STEP.hears is None


def blocks(until: Callable[[], bool], least: float) -> None:
    """Stand still for so long, and until then: what is to be seen meanwhile has been, also on a busy machine."""
    end, last = time.monotonic() + least, time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < end or not until():
        assert time.monotonic() < last
        time.sleep(0.01)


async def begun(work: Callable[[], Any]) -> None:
    async def step() -> None:
        work()

    await asyncio.get_running_loop().create_task(Contained(step(), RUN))


def seen() -> bool:
    """The lookout has a place for the step that goes on."""
    hears: Any = STEP.hears
    return bool(hears.__self__._place[0] == STEP.number)


async def test_a_step_that_blocks_is_told_with_its_place_and_counted(heard: Heard) -> None:
    await begun(lambda: blocks(seen, BLOCKED_SECONDS))
    (told,) = heard.told
    assert (told["agent"], told["request_id"]) == ("default/slow", "req_1")
    assert int(str(told["blocked_ms"])) >= BLOCKED_SECONDS * 1000
    assert "test_lookout.py:" in str(told["frame"])
    assert str(told["frame"]).endswith(" blocks")
    assert heard.counted["default/slow"] >= BLOCKED_SECONDS


async def test_what_goes_on_is_told_before_it_ends(heard: Heard) -> None:
    await begun(lambda: blocks(heard.news.is_set, 0))
    first, last = heard.told
    assert first["ended"] is False
    assert int(str(first["blocked_ms"])) >= LONG_SECONDS * 1000
    assert int(str(last["blocked_ms"])) >= int(str(first["blocked_ms"]))
    assert "ended" not in last


async def test_of_many_in_a_row_a_few_are_told_and_all_are_counted(
    heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookout, "SAY_SECONDS", 3600.0)
    for _ in range(3):
        await begun(lambda: time.sleep(BLOCKED_SECONDS))
    assert len(heard.told) == 1
    assert heard.counted["default/slow"] >= 3 * BLOCKED_SECONDS
    monkeypatch.setattr(lookout, "SAY_SECONDS", 0.0)
    await begun(lambda: time.sleep(BLOCKED_SECONDS))
    assert heard.told[-1]["passed_over"] == 2


async def test_a_step_that_waits_blocks_nobody(heard: Heard) -> None:
    async def waits() -> None:
        await asyncio.sleep(2 * BLOCKED_SECONDS)

    await asyncio.get_running_loop().create_task(Contained(waits(), RUN))
    assert (heard.told, heard.counted) == ([], {})


async def test_what_blocks_when_it_is_cancelled_is_told_too(heard: Heard) -> None:
    waiting = asyncio.Event()

    async def clears_up() -> None:
        try:
            waiting.set()
            await asyncio.Event().wait()
        finally:
            blocks(seen, BLOCKED_SECONDS)

    task = asyncio.get_running_loop().create_task(Contained(clears_up(), RUN))
    await waiting.wait()
    task.cancel()
    await asyncio.wait([task])
    assert [told["agent"] for told in heard.told] == ["default/slow"]


async def test_a_run_that_blocks_is_told_under_its_agents_name() -> None:
    def stands_still(_: Any) -> Any:
        blocks(seen, BLOCKED_SECONDS)
        return [assistant_message("At last.")]

    first = Served(Agent(name="helper", model=ScriptedModel([[assistant_message("Hello.")]])))
    await (
        first.answer()
    )  # the SDK's library builds what it needs at its first use, and a slow machine takes long for it
    await first.upstream.close()
    served = Served(Agent(name="helper", model=ScriptedModel([ModelStep.respond(stands_still)])))
    assert (await served.answer())["status"] == "completed"
    told = next(members for _, members in served.blocked if "test_lookout.py:" in str(members["frame"]))
    assert (told["agent"], told["request_id"]) == (NAME, "req-1")
    await served.upstream.close()


async def test_a_hook_that_blocks_the_start_is_told_with_the_line_of_the_agents_own_file(
    heard: Heard, tmp_path: Path
) -> None:
    root = write(tmp_path, {"Slow/agent.py": STARTS.replace("SECONDS", str(4 * BLOCKED_SECONDS))})
    file = root / "Slow" / "agent.py"
    made = await load(Found("default/slow", root, ("Slow",), "1"), "default/slow")
    told = heard.told[-1]
    assert told["agent"] == "default/slow"
    assert told["frame"] == f"{file}:10 dawdle"
    await let_go(made)
