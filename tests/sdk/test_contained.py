"""An author's code that ends the process ends its run only."""

import asyncio
import sys
from typing import Any

import pytest
from agents import Agent, function_tool
from agents.testing import ScriptedModel, assistant_message, function_call

from agw_proxy.errors import AgentFailed
from agw_proxy.sdk.contained import Contained, Quit, contain
from tests.sdk.agents_served import Served


@function_tool
def quits() -> str:
    sys.exit(3)


@function_tool
async def quits_on_the_loop() -> str:
    raise KeyboardInterrupt


@pytest.mark.parametrize("name", ["quits", "quits_on_the_loop"])
async def test_a_tool_that_quits_ends_its_run_only(name: str) -> None:
    model = ScriptedModel([[function_call(name, "{}", call_id="c")], [assistant_message("Here.")]])
    served = Served(Agent(name="helper", tools=[quits, quits_on_the_loop], model=model))
    with pytest.raises(AgentFailed):
        await served.answer()
    assert (await served.answer())["status"] == "completed"


async def test_what_is_awaited_raises_an_ordinary_exception() -> None:
    async def late() -> Any:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            sys.exit(1)

    task = asyncio.create_task(Contained(late()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(Quit):
        await task
    unused = Contained(late())
    unused.close()


async def test_a_loop_with_tasks_of_its_own_keeps_them() -> None:
    loop = asyncio.get_running_loop()
    before = loop.get_task_factory()

    def own(loop: asyncio.AbstractEventLoop, coro: Any, **more: Any) -> "asyncio.Task[Any]":
        return asyncio.Task(coro, loop=loop, **more)

    loop.set_task_factory(own)
    try:
        contain(loop)
        assert loop.get_task_factory() is own
    finally:
        loop.set_task_factory(before)
