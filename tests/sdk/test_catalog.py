"""A refresh takes up what has changed, keeps what cannot be made, and lets go of what nobody runs any more."""

import asyncio
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agw_proxy.config.agents import Agents
from agw_proxy.config.tools import Tool
from agw_proxy.sdk.catalog import Catalog
from agw_proxy.states import AgentState
from agw_proxy.tools.registry import REGISTRY, Registry
from tests.sdk.folders import says, write
from tests.support.mcp_servers import SECONDS, Children
from tests.tools.test_registry import Heard as HeardOfTools

LIFE = """\
import pathlib
def on_shutdown(): (pathlib.Path(__file__).parent.parent.parent / "ended").touch()
"""
HELPER = "agents: [{name: Helper, instructions: Help., handoffs: [weather]}]"


class Heard:
    """Events, as the log would get them."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, dict[str, Any]]] = []

    def info(self, event: str, **fields: Any) -> None:
        self.lines.append(("info", event, fields))

    def warning(self, event: str, **fields: Any) -> None:
        self.lines.append(("warning", event, fields))

    def take(self) -> list[tuple[str, str]]:
        """(event, agent) since the last time."""
        lines, self.lines = self.lines, []
        return sorted((event, fields["agent"]) for _, event, fields in lines)


class Folder:
    """A folder of agents and their catalog."""

    def __init__(self, root: Path) -> None:
        self.root = root / "agents"
        self.heard = Heard()
        self.catalog = Catalog(self.heard)

    async def refresh(self, files: dict[str, str] | None = None, taken: tuple[str, ...] = (), **settings: Any) -> None:
        write(self.root, files or {})
        await self.catalog.refresh(Agents.model_validate({"paths": [str(self.root)], **settings}), taken)

    def states(self) -> dict[str, AgentState]:
        return {state.id: state for state in self.catalog.states()}


async def until(path: Path) -> None:
    async with asyncio.timeout(30):
        while not path.exists():
            await asyncio.sleep(0.01)


async def test_one_that_cannot_be_made_hurts_no_other(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    await folder.refresh({"weather/agent.py": says("sun"), "bad/agent.py": "1 / 0", "no/agent.py": ""}, deny=["no"])
    states = folder.states()
    assert {name: state.status for name, state in states.items()} == {
        "default/weather": "ready", "default/bad": "failed", "default/no": "blocked",
    }  # fmt: skip
    assert "ZeroDivisionError" in (states["default/bad"].error or "")
    assert folder.catalog.ids == ("default/weather",)
    assert folder.catalog.find("default/bad") is None
    assert folder.heard.take() == [
        ("agent.dropin.blocked", "default/no"),
        ("agent.dropin.failed", "default/bad"),
        ("agent.dropin.loaded", "default/weather"),
    ]
    await folder.refresh(deny=["no"])
    assert folder.heard.take() == [], "nothing is said twice"
    await folder.catalog.close()


async def test_names_and_words_that_are_no_text_can_be_told(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    odd = folder.root / os.fsdecode(b"b\xe9ta")
    await folder.refresh({"weather/agent.py": says("sun"), "bad/agent.py": "raise ValueError('\\udc80')"})
    write(odd, {"agent.py": says("rain")})
    await folder.refresh()
    told = msgspec.json.decode(msgspec.json.encode(folder.catalog.states()))
    assert {state["status"] for state in told} == {"ready", "failed", "blocked"}
    assert "ValueError" in (folder.states()["default/bad"].error or "")
    await folder.catalog.close()


async def test_a_new_version_that_fails_keeps_the_old_one_until_one_is_good(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    await folder.refresh({"weather/agent.py": says("one")})
    one = folder.catalog.find("default/weather")
    await folder.refresh({"weather/agent.py": "import nothing_at_all"})
    state = folder.states()["default/weather"]
    assert folder.catalog.find("default/weather") is one
    assert (state.status, state.version) == ("stale", one.version if one else None)
    assert "nothing_at_all" in (state.error or "")
    await folder.refresh({"weather/agent.py": says("three")})
    three = folder.catalog.find("default/weather")
    assert three is not None
    assert one is not None
    assert three.version != one.version
    assert folder.states()["default/weather"].status == "ready"
    await folder.catalog.close()


async def test_a_version_ends_when_its_last_run_has(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    await folder.refresh({"weather/agent.py": says("one") + LIFE})
    with folder.catalog.using("default/weather"):
        assert folder.states()["default/weather"].running == 1
        with folder.catalog.using("default/weather"):
            await folder.refresh({"weather/agent.py": says("two")})
            assert folder.states()["default/weather"].running == 0, "of the new version"
        await asyncio.sleep(0)
        assert not (tmp_path / "ended").exists()
    await until(tmp_path / "ended")
    await folder.catalog.close()


async def test_a_version_is_kept_for_runs_that_have_had_to_wait_for_a_place(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    await folder.refresh({"weather/agent.py": says("one") + LIFE}, seconds=0.01)
    with folder.catalog.using("default/weather"):
        await folder.refresh({"weather/agent.py": says("two")}, seconds=0.01)
        await asyncio.sleep(0.1)
        assert not (tmp_path / "ended").exists()
    await until(tmp_path / "ended")
    await folder.catalog.close()


async def test_a_version_waits_for_runs_that_may_come_to_it(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    await folder.refresh({"weather/agent.py": says("one") + LIFE, "agents.yaml": HELPER})
    with folder.catalog.using("default/helper"):
        assert folder.states()["default/weather"].running == 1
        await folder.refresh({"weather/agent.py": says("two")})
        await asyncio.sleep(0)
        assert not (tmp_path / "ended").exists()
    await until(tmp_path / "ended")
    await folder.catalog.close()


async def test_what_is_gone_is_let_go_of_and_so_is_all_at_the_end(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    await folder.refresh({"weather/agent.py": says("one") + LIFE, "other/agent.py": says("x")})
    folder.heard.take()
    (folder.root / "weather" / "agent.py").unlink()
    await folder.refresh()
    assert folder.heard.take() == [("agent.dropin.gone", "default/weather")]
    assert folder.catalog.ids == ("default/other",)
    await until(tmp_path / "ended")
    await folder.refresh({"other/agent.py": says("x") + LIFE})
    (tmp_path / "ended").unlink()
    await folder.catalog.close()
    assert (tmp_path / "ended").exists()


async def test_bounds_and_names_are_the_settings(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    override = {"name": "default/weather", "turns": 3, "cost": "0.5", "shows": "visible", "serve_as": "team/sky"}
    await folder.refresh(
        {"weather/agent.py": says("one"), "other/agent.py": says("two")}, overrides=[override], seconds=7
    )
    sky, other = folder.catalog.find("team/sky"), folder.catalog.find("default/other")
    assert sky is not None
    assert other is not None
    assert (sky.bounds.turns, sky.bounds.cost, sky.bounds.seconds, sky.shows) == (3, 500_000, 7, "visible")
    assert (other.bounds.turns, other.bounds.cost, other.bounds.seconds, other.shows) == (10, 0, 7, "hidden")
    assert folder.catalog.longest_seconds == 7
    folder.heard.take()
    await folder.refresh(overrides=[{**override, "turns": 4}], seconds=9)
    newer = folder.catalog.find("team/sky")
    assert newer is not None
    assert newer.agent is sky.agent, "nothing of its own has changed"
    assert (newer.bounds.turns, newer.bounds.seconds, sky.bounds.turns) == (4, 9, 3)
    assert folder.heard.take() == []
    await folder.catalog.close()


async def test_a_name_that_is_taken_is_not_served_twice(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    overrides = [{"name": "default/b", "serve_as": "default/c"}]
    files = {name: says("x") for name in ("a/agent.py", "b/agent.py", "c/agent.py")}
    await folder.refresh(files, taken=("default/a",), overrides=overrides)
    assert folder.catalog.ids == ("default/c",)
    assert [state.status for state in folder.catalog.states()] == ["ready", "blocked", "blocked"]
    await folder.catalog.close()


async def test_what_is_declared_follows_what_it_names(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    await folder.refresh({"weather/agent.py": says("one"), "agents.yaml": HELPER})
    helper, weather = folder.catalog.find("default/helper"), folder.catalog.find("default/weather")
    assert helper is not None
    assert weather is not None
    assert helper.agent.handoffs == [weather.agent]
    await folder.refresh()
    assert folder.catalog.find("default/helper") is helper
    await folder.refresh({"weather/agent.py": says("two")})
    newer, weather = folder.catalog.find("default/helper"), folder.catalog.find("default/weather")
    assert newer is not None
    assert weather is not None
    assert newer.agent.handoffs == [weather.agent]
    assert newer.version != helper.version
    await folder.refresh({"agents.yaml": "agents: ["})
    assert folder.catalog.find("default/helper") is newer, "what cannot be read may be there still"
    assert folder.states()["default/helper"].status == "stale"
    await folder.refresh({"agents.yaml": "agents: []"})
    assert folder.catalog.ids == ("default/weather",)
    await folder.catalog.close()


@pytest.mark.parametrize(
    "where", ["agent = wait()", "def on_startup(): wait()", "async def agent(): await asyncio.sleep(99)"]
)
async def test_one_that_never_comes_is_told_and_keeps_no_other_from_coming(tmp_path: Path, where: str) -> None:
    slow = f"import asyncio, threading\nfrom agents import Agent\ndef wait(): threading.Event().wait(20)\n{where}\n"
    folder = Folder(tmp_path)
    await folder.refresh({"weather/agent.py": says("one")})  # what all need is imported by now
    await folder.refresh({"slow/agent.py": slow}, load_seconds=1)
    assert folder.catalog.ids == ("default/weather",)
    assert "load_seconds" in (folder.states()["default/slow"].error or "")
    await folder.catalog.close()


def asks(children: Children, name: str = "one") -> str:
    """The source of an agent with an MCP server; it says when it has ended."""
    return f"{children.agent}agent.name = {name!r}\n{LIFE}"


async def until_alive(children: Children, pids: list[int]) -> None:
    async with asyncio.timeout(SECONDS):
        while children.alive != pids:
            await asyncio.sleep(0.01)


async def test_mcp_servers_are_there_for_as_long_as_the_version_that_has_them(tmp_path: Path) -> None:
    children = Children(tmp_path)
    folder = Folder(tmp_path)
    await folder.refresh({"asks/agent.py": asks(children), "agents.yaml": HELPER.replace("weather", "asks")})
    assert folder.states()["default/asks"].tools == ("echo", "end", "wait", "meta")
    first = children.pids
    await folder.refresh()
    assert children.alive == first, "what has not changed stays connected"
    with folder.catalog.using("default/helper"):
        await folder.refresh({"asks/agent.py": asks(children, "two")})
        assert children.alive == children.pids
        assert len(children.alive) == 2
    second = children.pids[1:]
    await until_alive(children, second)
    with folder.catalog.using("default/asks"):
        await folder.refresh({"asks/agent.py": asks(children, "three")})
        assert len(children.alive) == 2
        await folder.catalog.close()
    assert not children.alive, "also of a version that a run still holds"


async def test_one_whose_server_does_not_begin_fails_alone_and_ends_what_it_had_begun(tmp_path: Path) -> None:
    children = Children(tmp_path)
    folder = Folder(tmp_path)
    children.write("raise SystemExit(1)")
    await folder.refresh({"asks/agent.py": asks(children), "weather/agent.py": says("sun")})
    assert list(folder.catalog.ids) == ["default/weather"]
    why = "MCP server 'plain' cannot be reached: MCPError: Connection closed"
    assert folder.states()["default/asks"].error == why
    assert (tmp_path / "ended").exists()
    children.write()
    await folder.refresh()
    assert sorted(folder.catalog.ids) == ["default/asks", "default/weather"]
    (tmp_path / "ended").unlink()
    children.write("raise SystemExit(1)")
    await folder.refresh({"asks/agent.py": asks(children, "two")})
    state = folder.states()["default/asks"]
    assert (state.status, state.error) == ("stale", why)
    assert len(children.alive) == 1, "the version before goes on"
    await folder.catalog.close()
    assert not children.alive


async def test_a_pattern_that_is_too_much_for_python_fails_its_agent_alone(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    odd = "{name: odd, instructions: Refuse., guardrails: [{refuse: ['x{99999999999}']}]}"
    await folder.refresh({"agents.yaml": f"agents: [{odd}, {{name: fine, instructions: Help.}}]"})
    assert folder.catalog.ids == ("default/fine",)
    assert "no regular expression" in (folder.states()["default/odd"].error or "")
    await folder.catalog.close()


async def test_one_whose_server_does_not_begin_may_have_to_wait_and_is_tried_alone(tmp_path: Path) -> None:
    children = Children(tmp_path)
    folder = Folder(tmp_path)
    children.write("raise SystemExit(1)")
    helper = HELPER.replace("weather", "asks")
    await folder.refresh({"asks/agent.py": asks(children), "agents.yaml": helper, "bad/agent.py": "1 / 0"})
    assert (folder.catalog.ids, folder.catalog.waits) == ((), True)
    assert {name: state.waits for name, state in folder.states().items()} == {
        "default/asks": True, "default/bad": False, "default/helper": False,
    }  # fmt: skip
    assert not await folder.catalog.retry()
    assert folder.catalog.waits
    children.write()
    write(folder.root, {"bad/agent.py": says("good by now, but nobody has looked")})
    assert await folder.catalog.retry()
    assert (folder.catalog.ids, folder.catalog.waits) == (("default/asks", "default/helper"), False)
    assert not folder.states()["default/asks"].waits
    await folder.catalog.close()


WITH_TOOL = "from agents import Agent\nfrom agw_proxy.sdk import gateway_tool\nagent = Agent(name='a', tools=[gateway_tool('add')])\n"
DECLARED = "agents: [{name: Helper, instructions: Help., handoffs: [adds], tools: [{tool: add, name: plus}]}]"


async def test_an_agent_is_made_anew_when_a_tool_of_the_gateways_has_changed(tmp_path: Path) -> None:
    heard = HeardOfTools()
    registry = Registry(heard, heard)
    token = REGISTRY.set(registry)
    try:
        await _follow_a_tool(tmp_path, registry)
    finally:
        REGISTRY.reset(token)


async def _follow_a_tool(tmp_path: Path, registry: Registry) -> None:
    folder = Folder(tmp_path)
    tools = tmp_path / "tools.py"
    settings = Tool.model_validate({"name": "add", "python": f"{tools}:add"})

    async def refresh(source: str) -> tuple[Any, Any]:
        tools.write_text(source)
        await registry.refresh([settings])
        await folder.refresh({"adds/agent.py": WITH_TOOL, "agents.yaml": DECLARED})
        return folder.catalog.find("default/adds"), folder.catalog.find("default/helper")

    assert await refresh("") == (None, None)
    assert "has no add (adds/agent.py:3)" in (folder.states()["default/adds"].error or "")
    adds, helper = await refresh("def add(a: int) -> int: return a\n")
    assert (adds.agent.tools[0].name, helper.agent.tools[0].name) == ("add", "plus")
    same = await refresh("def add(a: int) -> int: return a + 1\n")
    assert [each is other for each, other in zip(same, (adds, helper), strict=True)] == [True, True]
    newer, helped = await refresh("def add(a: int, b: int) -> int: return a + b\n")
    assert newer.version != adds.version
    assert helped.agent.handoffs == [newer.agent]
    assert helped.agent.tools[0].params_json_schema["required"] == ["a", "b"]
    await folder.catalog.close()


async def test_what_no_run_could_use_and_what_ends_the_process_fails_alone(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    agent = "from agents import Agent\ndef look() -> str: ...\nagent = Agent(name='a', {})\n"
    await folder.refresh(
        {
            "weather/agent.py": says("sun"),
            "bare/agent.py": agent.format("tools=[look]"),
            "served/agent.py": agent.format("mcp_servers=[{'command': 'x'}]"),
            "team/agents.yaml": "agents: [{name: Quits, instructions: Go., tools: ['tools.py:go']}, {name: Stays, instructions: x}]",
            "team/tools.py": "raise SystemExit('set X')",
        }
    )
    told = {name: state.error for name, state in folder.states().items()}
    assert told["default/weather"] is told["team/stays"] is None
    assert "@function_tool makes one of a function" in (told["default/bare"] or "")
    assert "expected MCP servers" in (told["default/served"] or "")
    assert told["team/quits"] == "SystemExit: set X"


def begun_here() -> set[str]:
    """The pids of this process' children, those that have ended and were not waited for among them."""
    return {pid for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()}


async def test_a_server_that_cannot_be_looked_at_fails_its_agent_alone_and_leaves_nothing(tmp_path: Path) -> None:
    folder, children = Folder(tmp_path), Children(tmp_path)
    before = begun_here()
    source = f"""\
from agents import Agent
from agents.mcp import MCPServerStdio
class Odd(MCPServerStdio):
    @property
    def name(self):
        raise LookupError("nameless")
agent = Agent(name="a", mcp_servers=[{children.source}, Odd({children.params!r})])
"""
    await folder.refresh({"weather/agent.py": says("sun"), "odd/agent.py": source})
    assert folder.states()["default/odd"].error == "LookupError: nameless"
    assert folder.states()["default/weather"].status == "ready"
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("mcp ")]
    assert not children.alive
    async with asyncio.timeout(SECONDS):  # one that was given up as it began is reaped in a turn of the loop
        while begun_here() - before:
            await asyncio.sleep(0.01)
