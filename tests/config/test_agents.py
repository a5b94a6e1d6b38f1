"""The section of agents: overrides are found by the name an agent has, in files and in the environment."""

from agw_proxy.config.reload import needs_restart, with_fixed
from tests.config.conftest import Folder

TEXT = """
agents:
  turns: 5
  cost: 2.5
  overrides:
    - {name: default/weather, turns: 3, serve_as: team/sky}
    - {name: team/tax, cost: 0}
"""


def test_an_override_changes_what_it_says_and_nothing_else(folder: Folder) -> None:
    agents = folder.load(TEXT).settings.agents
    assert agents.bounds("default/weather") == {
        "concurrent": 16, "queue": 64, "seconds": 300.0, "turns": 3, "tokens": 0, "cost": 2_500_000,
    }  # fmt: skip
    assert (agents.bounds("team/tax")["cost"], agents.bounds("team/tax")["turns"]) == (0, 5)
    assert agents.bounds("default/other")["turns"] == 5
    assert (agents.served_as("default/weather"), agents.served_as("team/tax")) == ("team/sky", "team/tax")
    assert {agents.shown(name) for name in ("default/weather", "none/such")} == {"hidden"}


def test_the_environment_reaches_one_of_them_by_its_name(folder: Folder) -> None:
    agents = folder.load(TEXT, GATEWAY_AGENTS__OVERRIDES__default_weather__TURNS="9").settings.agents
    assert agents.bounds("default/weather")["turns"] == 9
    assert agents.served_as("default/weather") == "team/sky"


def test_no_two_are_served_under_one_name(folder: Folder) -> None:
    text = "agents: {overrides: [{name: a/b, serve_as: c/d}, {name: e/f, serve_as: c/d}]}"
    assert "taken already" in folder.problem(text).message


def test_there_is_something_to_look_at_where_a_folder_is(folder: Folder) -> None:
    agents = folder.load(f"agents: {{paths: ['{folder.path / 'agents'}']}}").settings.agents
    assert not agents.anywhere
    (folder.path / "agents").mkdir()
    assert agents.anywhere


def test_workers_of_both_kinds_are_bounded_together(folder: Folder) -> None:
    assert folder.load("server: {workers: 20}\nagents: {workers: 8}").settings.agents.workers == 8
    found = folder.problem("server: {workers: 20}\nagents: {workers: 9}")
    assert found.path == "agents.workers"
    assert "at most 28 with server.workers, which is 20" in found.message
    assert folder.problem("agents: {workers: 28}").path == "agents.workers"


def test_a_reload_keeps_the_number_of_workers_and_says_so(folder: Folder) -> None:
    started = folder.load("agents: {workers: 1}").settings
    later = folder.load("agents: {workers: 2, turns: 3}").settings
    assert needs_restart(started, later) == ["agents.workers"]
    kept = with_fixed(started, later).agents
    assert (kept.workers, kept.turns) == (1, 3)
