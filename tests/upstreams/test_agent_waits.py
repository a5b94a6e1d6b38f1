"""Places at agents that ask each other: whoever could only wait for himself is refused at once, and nobody else."""

import asyncio
from collections.abc import Awaitable

import pytest

from agw_proxy.errors import UpstreamQueueFull
from agw_proxy.sdk.entry import Run
from agw_proxy.upstreams.agent_waits import Waits
from agw_proxy.upstreams.queue import Places


class Agents:
    """With a place each, but where more are said."""

    def __init__(self, **most: int) -> None:
        self.waits = Waits()
        self._most = most
        self._places: dict[str, Places] = {}

    def _of(self, agent: str) -> Places:
        most = self._most.get(agent, 1)
        return self._places.setdefault(agent, Places(agent, most=most, size=9, wait=600.0))

    async def enter(self, agent: str, within: Run | None = None) -> Run:
        run = Run("req_1", None, agent, within=within)
        await self.waits.place(self._of(agent), run)
        return run

    def leave(self, run: Run) -> None:
        self.waits.leave(self._of(run.agent), run)


async def waiting(entering: Awaitable[Run]) -> "asyncio.Future[Run]":
    """It stands in line."""
    task = asyncio.ensure_future(entering)
    await asyncio.sleep(0)
    assert not task.done()
    return task


async def test_of_two_agents_that_ask_each_other_the_second_to_wait_is_refused_and_the_first_goes_on() -> None:
    here = Agents()
    first, other = await here.enter("a"), await here.enter("b")
    line = await waiting(here.enter("b", first))
    with pytest.raises(UpstreamQueueFull, match=r"'a' is asked by the agent 'b'.*concurrent: 1"):
        await here.enter("a", other)
    here.leave(other)
    here.leave(await line)
    here.leave(first)
    assert (here.waits._held, here.waits._waiting) == ({}, [])


async def test_a_ring_of_three_is_one_also_where_a_run_between_has_a_place_of_its_own() -> None:
    here = Agents(d=9)
    runs = [await here.enter(agent) for agent in "abc"]
    between = await here.enter("d", runs[1])
    lines = [await waiting(here.enter("b", runs[0])), await waiting(here.enter("c", between))]
    with pytest.raises(UpstreamQueueFull):
        await here.enter("a", runs[2])
    for line in lines:
        line.cancel()
    await asyncio.gather(*lines, return_exceptions=True)
    assert here.waits._waiting == []


async def test_where_somebody_will_end_it_is_waited_for_him() -> None:
    here = Agents(a=2)
    first, free, other = await here.enter("a"), await here.enter("a"), await here.enter("b")
    lines = [await waiting(here.enter("b", first)), await waiting(here.enter("a", other))]
    here.leave(free)
    asked = await lines[1]
    here.leave(asked)
    here.leave(other)
    assert (await lines[0]).agent == "b"


async def test_who_waits_for_none_of_the_others_is_not_refused_for_them() -> None:
    here = Agents()
    first, other, third = [await here.enter(agent) for agent in "abc"]
    line = await waiting(here.enter("b", first))
    behind = await waiting(here.enter("b", third))
    last = await waiting(here.enter("c"))
    here.leave(other)
    here.leave(await line)
    here.leave(await behind)
    here.leave(third)
    assert (await last).agent == "c"


async def test_an_agent_that_asks_itself_gets_a_free_place_or_none() -> None:
    here = Agents(a=2)
    first = await here.enter("a")
    second = await here.enter("a", await here.enter("b", first))
    with pytest.raises(UpstreamQueueFull, match="asked by a run of its own"):
        await here.enter("a", second)


async def test_who_gives_up_waits_no_more() -> None:
    here = Agents()
    first, other = await here.enter("a"), await here.enter("b")
    line = await waiting(here.enter("b", first))
    line.cancel()
    await asyncio.gather(line, return_exceptions=True)
    again = await waiting(here.enter("a", other))
    here.leave(first)
    assert (await again).agent == "a"
