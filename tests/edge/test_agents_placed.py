"""A worker that only relays: it knows the agents that others run, and learns when that changes."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from agw_proxy.edge import agents, agents_placed
from agw_proxy.edge.agents import Find
from agw_proxy.edge.agents_placed import merged
from agw_proxy.states import AgentState
from agw_proxy.types import Upstream
from tests.edge.apart import apart
from tests.edge.test_agents import Answering
from tests.sdk.folders import says, write
from tests.support.mcp_servers import Children


async def answering(find: Find) -> Upstream:
    return Answering(find)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write(tmp_path / "agents", {"sky/agent.py": says("blue")})


async def test_a_start_waits_for_the_workers_and_knows_their_agents(root: Path) -> None:
    async with apart(root, answering) as here:
        starting = asyncio.create_task(here.placed.start(here.settings))
        await here.hosted.start(here.settings)
        assert not starting.done()
        here.stand()
        assert await starting
        upstream: Any = here.placed.upstream
        assert (upstream.ids, upstream.longest_seconds) == (("default/sky",), 300.0)
        assert [(state.id, state.status) for state in await here.placed.look()] == [("default/sky", "ready")]


async def test_a_worker_that_cannot_be_started_is_not_waited_for_but_taken_up_when_it_is_there(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agents_placed, "LOOK_SECONDS", 0.01)
    async with apart(root, answering) as here:
        here.shared.fail(1, failing=True)
        assert not await here.placed.start(here.settings)
        assert (here.placed.upstream, await here.placed.look()) == (None, [])
        await here.hosted.start(here.settings)
        here.stand()
        await here.until(lambda: here.changes)
        upstream: Any = here.placed.upstream
        assert upstream.ids == ("default/sky",)


async def test_another_process_in_a_workers_place_is_asked_anew(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agents_placed, "LOOK_SECONDS", 0.01)
    async with apart(root, answering) as here:
        await here.hosted.start(here.settings)
        here.stand()
        assert await here.placed.start(here.settings)
        write(root, {"late/agent.py": says("dark")})
        await here.hosted.refresh(here.settings)
        here.shared.bury(1)
        here.stand()
        await here.until(lambda: here.changes)
        upstream: Any = here.placed.upstream
        assert upstream.ids == ("default/late", "default/sky")


async def test_an_agent_that_waits_there_is_asked_for_until_it_is_served(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name in ((agents_placed, "LOOK_SECONDS"), (agents_placed, "RETRY_SECONDS"), (agents, "RETRY_SECONDS")):
        monkeypatch.setattr(module, name, 0.05)
    children = Children(tmp_path)
    children.write("raise SystemExit(1)")
    write(root, {"asks/agent.py": children.agent})
    async with apart(root, answering) as here:
        await here.hosted.start(here.settings)
        here.stand()
        assert await here.placed.start(here.settings)
        upstream: Any = here.placed.upstream
        assert upstream.ids == ("default/sky",)
        children.write()
        await here.until(lambda: here.changes)
        assert upstream.ids == ("default/asks", "default/sky")
        assert not any(state.waits for state in await here.placed.look())
        hosted: Any = here.hosted.upstream
        await hosted.close()
    assert not children.alive


async def test_a_look_that_sees_the_change_first_takes_it_up(root: Path) -> None:
    async with apart(root, answering) as here:
        await here.hosted.start(here.settings)
        here.stand()
        assert await here.placed.start(here.settings)
        write(root, {"late/agent.py": says("dark")})
        await here.hosted.refresh(here.settings)
        assert len(await here.placed.look()) == 2
        assert here.changes == 1


async def test_a_worker_that_has_gone_has_no_runs(root: Path) -> None:
    async with apart(root, answering) as here:
        await here.hosted.start(here.settings)
        here.stand()
        assert await here.placed.start(here.settings)
        catalog: Any = here.hosted._catalog
        with catalog.using("default/sky"):
            assert [state.running for state in await here.placed.look()] == [1]
            here.shared.bury(1)
            assert [state.running for state in await here.placed.look()] == [0]


async def test_after_a_reload_it_waits_until_the_workers_have_taken_it_up(root: Path) -> None:
    async with apart(root, answering) as here:
        await here.hosted.start(here.settings)
        here.stand()
        assert await here.placed.start(here.settings)
        here.link.taking = 2
        assert not await here.placed.refresh(here.settings), "relays wait for nothing"
        settling = asyncio.create_task(here.placed.settle(here.settings))
        write(root, {"late/agent.py": says("dark")})
        await here.hosted.refresh(here.settings)
        assert not settling.done()
        here.stand(2)
        await settling
        upstream: Any = here.placed.upstream
        assert (upstream.ids, here.changes) == (("default/late", "default/sky"), 1)


def test_of_several_workers_the_worst_is_told_and_all_runs_are_counted() -> None:
    ready = AgentState(id="default/sky", status="ready", source="a", running=2)
    stale = AgentState(id="default/sky", status="stale", source="a", running=3, error="no")
    other = AgentState(id="default/tax", status="ready", source="b", running=1)
    blocked = [AgentState(id="default/sky", status="blocked", source=source) for source in ("c", "d")]
    told = merged([[ready, other, *blocked], [stale, other, *blocked]])
    assert [(state.id, state.status, state.running) for state in told] == [
        ("default/sky", "stale", 5), ("default/tax", "ready", 2), ("default/sky", "blocked", 0),
        ("default/sky", "blocked", 0),
    ]  # fmt: skip
    assert told[0].error == "no"
