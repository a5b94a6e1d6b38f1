"""The agents of a process: nothing without a folder, and none let go of while it is asked."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agw_proxy._hot.route import RouteTable, Target
from agw_proxy.config.settings import Settings
from agw_proxy.config.values import Dialect
from agw_proxy.edge import agents
from agw_proxy.edge.agents import Agents, Find, Hosted
from agw_proxy.sdk.catalog import Silent
from agw_proxy.types import Call, RawHeaders, Reply, Upstream
from agw_proxy.upstreams.unwrapped import lost_by
from tests.edge.inprocess import serving
from tests.sdk.folders import says, write
from tests.support.gateway import configuration
from tests.support.mcp_servers import Children

CALL = Call("POST", "/responses", "", [], b"{}", None, "req_1")
SECONDS = 60


class Answering:
    """An upstream whose answers end when they are closed; ``fails``: they never begin."""

    name = "agents"
    dialect: Dialect = "openai"

    def __init__(self, find: Find) -> None:
        self.find = find
        self.fails = False
        self.closed = False

    async def open(self, target: Target, call: Call) -> Reply:
        if self.fails:
            raise RuntimeError("it cannot begin")
        entry = self.find(target.model)
        assert entry is not None
        return Answered(entry.version.encode())

    async def close(self) -> None:
        self.closed = True


class Answered:
    status = 200
    headers: RawHeaders = ()
    connect_ms = 0.0
    began_ns = 0
    ended = True
    dropped = ("seed",)

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def read(self, *, progress: bool = True) -> bytes:
        return self._body

    def close(self) -> None:
        pass


async def answering(find: Find) -> Upstream:
    return Answering(find)


def settings(root: Path, **more: Any) -> Settings:
    return Settings.model_validate({"agents": {"paths": [str(root)], **more}})


def target(name: str) -> Target:
    route = RouteTable([("agents", ())], [(name, [(0, name, 1)], "first", ())]).find(name)
    assert route is not None
    return route.targets[0]


async def until(there: Callable[[], bool]) -> None:
    async with asyncio.timeout(SECONDS):
        while not there():
            await asyncio.sleep(0.01)


async def test_without_a_folder_nothing_is_made_and_with_an_empty_one_neither(tmp_path: Path) -> None:
    made = Agents(Silent, answering)
    assert not await made.start(settings(tmp_path / "agents"))
    (tmp_path / "agents").mkdir()
    assert not await made.refresh(settings(tmp_path / "agents"))
    assert (made.upstream, made.states()) == (None, [])


async def test_an_agent_is_held_until_its_answer_is_closed(tmp_path: Path) -> None:
    made = Agents(Silent, answering)
    root = write(tmp_path / "agents", {"sky/agent.py": says("one")})
    assert await made.start(settings(root))
    upstream = made.upstream
    assert isinstance(upstream, Hosted)
    assert (upstream.name, upstream.ids) == ("agents", ("default/sky",))
    reply = await upstream.open(target("default/sky"), CALL)
    assert [state.running for state in made.states()] == [1]
    assert lost_by(reply) == ("seed",)
    reply.close()
    reply.close()
    assert [state.running for state in made.states()] == [0]
    inner = upstream._upstream
    assert isinstance(inner, Answering)
    inner.fails = True
    with pytest.raises(RuntimeError):
        await upstream.open(target("default/sky"), CALL)
    assert [state.running for state in made.states()] == [0]
    await upstream.close()
    assert inner.closed
    assert upstream.ids == ()


async def test_files_that_change_are_taken_up_where_the_settings_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agents, "WATCH_SECONDS", 0.01)
    root = write(tmp_path / "agents", {"sky/agent.py": says("one")})
    current = settings(root)
    reloads = 0
    looked = 0

    async def reload() -> None:
        nonlocal reloads
        reloads += 1
        raise RuntimeError("and the watch goes on")

    def in_force() -> Settings:
        nonlocal looked
        looked += 1
        return current

    made = Agents(Silent, answering)
    made.watch(in_force, reload)
    await until(lambda: looked > 3)
    write(root, {"sky/agent.py": says("two")})
    seen = looked
    await until(lambda: looked > seen + 3)
    assert reloads == 0, "nobody has asked for it"
    current = settings(root, auto_reload=True)
    await made.refresh(current)
    write(root, {"sky/agent.py": says("at once")})
    await until(lambda: reloads == 1)
    for times in (2, 3):
        write(root, {"sky/agent.py": says(f"more {times}")})
        await until(lambda times=times: reloads == times)  # type: ignore[misc]
    tools = write(tmp_path / "tools", {"add.py": "def add(): ...", "deeper/other.py": ""})
    told = {"name": "add", "python": f"{tools}/add.py:add"}
    current = Settings.model_validate({"tools": [told], "server": {"tool_auto_reload": True}})
    await made.refresh(current)
    write(tools, {"deeper/other.py": "# not seen by it", "notes.txt": ""})
    seen = looked
    await until(lambda: looked > seen + 3)
    assert reloads == 3
    write(tools, {"beside.py": "# seen by it"})
    await until(lambda: reloads == 4)
    await made.close()


async def test_one_that_waits_for_a_server_is_served_when_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agents, "RETRY_SECONDS", 0.05)
    children = Children(tmp_path)
    children.write("raise SystemExit(1)")
    root = write(tmp_path / "agents", {"asks/agent.py": children.agent})
    heard: list[int] = []

    async def on_change() -> None:
        heard.append(len(made.states()))
        raise RuntimeError("and what is there stays")

    made = Agents(Silent, answering, on_change=on_change)
    assert not await made.start(settings(root))
    assert [state.waits for state in made.states()] == [True]
    children.write()
    await until(lambda: bool(heard))
    assert [state.status for state in made.states()] == ["ready"]
    assert isinstance(made.upstream, Hosted)
    assert made.upstream.ids == ("default/asks",)
    await made.close()
    await made.upstream.close()
    assert not children.alive


async def test_after_a_look_one_that_waits_is_tried_again_soon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agents, "RETRY_SECONDS", 3600.0)
    children = Children(tmp_path)
    children.write("raise SystemExit(1)")
    root = write(tmp_path / "agents", {"asks/agent.py": children.agent})
    made = Agents(Silent, answering)
    assert not await made.start(settings(root))
    await asyncio.sleep(0.05)  # it waits now, for an hour
    monkeypatch.setattr(agents, "RETRY_SECONDS", 0.05)
    write(root, {"too/agent.py": children.agent})
    await made.refresh(settings(root))
    children.write()
    await until(lambda: [state.status for state in made.states()] == ["ready", "ready"])
    await until(lambda: made.upstream is not None)
    await made.close()
    assert made.upstream is not None
    await made.upstream.close()


async def test_looking_for_them_never_blocks_the_loop(tmp_path: Path) -> None:
    root = write(tmp_path / "agents", {"sky/agent.py": says("blue")})
    config = configuration(agents={"paths": [str(root)], "auto_reload": True})
    async with serving(config, tmp_path) as running:
        assert b"default/sky" in (await running.ask("GET", "/v1/models")).body
        write(root, {"sky/agent.py": "agent = (", "late/agent.py": says("dark"), "bad/agents.yaml": "agents: ["})
        await running.gateway.reload()
        states = {state.id: state.status for state in await running.gateway.agents()}
        assert states == {"default/sky": "stale", "default/late": "ready", str(root / "bad/agents.yaml"): "blocked"}
        assert b"default/late" in (await running.ask("GET", "/v1/models")).body
