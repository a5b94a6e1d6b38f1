"""Synchronous tools have threads of their own: bounded, apart from the gateway's, and given up by runs that are cancelled."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from contextvars import Context, copy_context
from typing import Any

import pytest
from agents import Agent, function_tool
from agents.testing import ModelStep, ScriptedModel, assistant_message, function_call

from agw_proxy.sdk.entry import CURRENT, SERVING, Run
from agw_proxy.sdk.threads import LEFT_TIMES, Threads, divide
from tests.sdk.agents_served import Served

PATIENCE_SECONDS = 30.0


class Gates:
    """Calls that block until they are let go; all are at the end."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.inside = 0
        self.names: set[str] = set()
        self._lock = threading.Lock()

    def wait(self) -> str:
        with self._lock:
            self.inside += 1
            self.names.add(threading.current_thread().name)
        assert self.open.wait(PATIENCE_SECONDS)
        return "through"


@pytest.fixture
def gates() -> Iterator[Gates]:
    made = Gates()
    yield made
    made.open.set()


async def until(there: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not there():
            await asyncio.sleep(0.005)


async def test_where_no_thread_can_be_started_the_call_fails_and_its_place_is_free(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start = threading.Thread.start

    def fails(thread: threading.Thread) -> None:
        if thread.name == "agw-tools":
            raise RuntimeError("can't start new thread")
        start(thread)

    executor = divide(asyncio.get_running_loop(), lambda: 1)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", fails)
        with pytest.raises(RuntimeError, match="start new thread"):
            await begun(of_a_run(), lambda: "never")
    assert executor.places.running == 0
    assert await begun(of_a_run(), lambda: "now") == "now"


def of_a_run(agent: str = "default/slow", serving: bool = False) -> Context:
    """What a run of the agent is made in."""
    context = copy_context()
    context.run(CURRENT.set, Run("req", None, agent))
    context.run(SERVING.set, serving)
    return context


def begun(context: Context, call: Callable[[], Any]) -> "asyncio.Task[Any]":
    return asyncio.get_running_loop().create_task(asyncio.to_thread(call), context=context)


@pytest.fixture
async def threads() -> Threads:
    return divide(asyncio.get_running_loop(), lambda: 2)


async def test_no_more_run_at_a_time_than_there_are_places_and_the_gateways_own_do_not_wait(
    threads: Threads, gates: Gates
) -> None:
    tasks = [begun(of_a_run(), gates.wait) for _ in range(3)]
    await until(lambda: gates.inside == 2)
    async with asyncio.timeout(PATIENCE_SECONDS):
        assert await asyncio.to_thread(lambda: "ours") == "ours"
        assert await begun(of_a_run(serving=True), lambda: "a model call's") == "a model call's"
    assert (gates.inside, threads.places.running) == (2, 2)
    gates.open.set()
    assert await asyncio.gather(*tasks) == ["through"] * 3
    assert gates.names == {"agw-tools"}
    await until(lambda: threads.places.running == 0)


async def test_what_a_cancelled_run_has_left_running_gives_its_place_up(
    threads: Threads, gates: Gates, caplog: pytest.LogCaptureFixture
) -> None:
    tasks = [begun(of_a_run(), gates.wait) for _ in range(2)]
    await until(lambda: gates.inside == 2)
    waits = begun(of_a_run(), gates.wait)
    await asyncio.sleep(0)
    for task in (waits, *tasks):
        task.cancel()
    await asyncio.wait([waits, *tasks])
    assert (threads.places.running, len(threads.places._left)) == (0, 2)
    assert await begun(of_a_run(), lambda: "next") == "next"
    assert gates.inside == 2, "one that was cancelled while it waited has run"
    assert "a tool of agent 'default/slow' goes on" in caplog.text
    gates.open.set()
    await until(lambda: not threads.places._left)


async def test_no_more_are_left_running_than_a_bound(threads: Threads, gates: Gates) -> None:
    most = 2 * LEFT_TIMES
    for number in range(most + 2):
        task = begun(of_a_run(), gates.wait)
        await until(lambda number=number: gates.inside == number + 1)  # type: ignore[misc]
        task.cancel()
        await asyncio.wait([task])
    assert (threads.places.running, len(threads.places._left)) == (2, most)
    waits = begun(of_a_run(), lambda: "at last")
    await asyncio.sleep(0.05)
    assert not waits.done()
    gates.open.set()
    assert await waits == "at last"


async def test_threads_are_used_again_and_end_when_there_is_nothing_to_do(
    threads: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = {await begun(of_a_run(), threading.current_thread) for _ in range(20)}
    assert len(used) <= 2
    monkeypatch.setattr("agw_proxy.sdk.threads.IDLE_SECONDS", 0.0)
    last = await begun(of_a_run(), threading.current_thread)
    await until(lambda: not last.is_alive())
    assert await begun(of_a_run(), lambda: "again") == "again"


async def test_what_a_call_raises_is_raised_where_it_is_waited_for(threads: Threads) -> None:
    def fails() -> None:
        raise LookupError("not there")

    with pytest.raises(LookupError, match="not there"):
        await begun(of_a_run(), fails)
    with pytest.raises(RuntimeError, match="StopIteration"):
        await begun(of_a_run(), lambda: next(iter(())))
    assert await begun(of_a_run(), lambda: 7) == 7
    await until(lambda: threads.places.running == 0)


async def test_a_run_that_is_cancelled_in_a_blocking_tool_lets_the_next_one_run(gates: Gates) -> None:
    @function_tool
    def blocks() -> str:
        return gates.wait()

    @function_tool
    def quick() -> str:
        return "at once"

    def calling(name: str) -> Agent[Any]:
        turns = [ModelStep([function_call(name, "{}", call_id="c")]), ModelStep([assistant_message("Done.")])]
        return Agent(name="helper", tools=[blocks, quick], model=ScriptedModel(turns))

    served = Served(calling("blocks"), threads=1)
    asked = asyncio.create_task(served.answer())
    await until(lambda: gates.inside)
    asked.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asked
    other = Served(calling("quick"), threads=1, runner=served.runner)
    async with asyncio.timeout(PATIENCE_SECONDS):
        assert (await other.answer())["status"] == "completed"
