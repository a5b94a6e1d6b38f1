"""A refresh takes up what has changed, keeps what cannot be made, and lets go of what nobody runs any more."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from agw_proxy.config.agents import Agents
from agw_proxy.sdk.catalog import Catalog
from agw_proxy.states import AgentState
from tests.sdk.folders import says, write

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
