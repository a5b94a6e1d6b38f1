"""``agw agents``: a first agent is written as it can be served, and what cannot be loaded is told."""

from pathlib import Path

import pytest

from tests.commands.conftest import Run
from tests.commands.tiny import KEY, Tiny, delta
from tests.sdk.folders import write


def test_what_is_written_can_be_loaded(agw: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert agw("agents", "new", "Weather") == 0
    assert "agents/Weather/agent.py" in capsys.readouterr().out
    assert agw("agents", "check") == 0
    out = capsys.readouterr().out
    assert out.startswith("ready    default/weather")
    assert "asked for as the model default/weather" in out
    source = (tmp_path / "agents" / "Weather" / "agent.py").read_text()
    assert agw("agents", "new", "Weather") == 1, "nobody's work is written over"
    assert (tmp_path / "agents" / "Weather" / "agent.py").read_text() == source
    assert "File exists" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["../up", "a b", "", "9x", "x" * 65])
def test_a_name_that_could_be_none_is_refused(agw: Run, tmp_path: Path, name: str) -> None:
    assert agw("agents", "new", name) == 1
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_loaded_is_told_and_fails_the_check(
    agw: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert agw("agents", "check") == 0
    assert "no agents in agents" in capsys.readouterr().out
    write(tmp_path / "agents", {"bad/agent.py": "import \x1b[31m"})
    assert agw("agents", "check") == 1
    out = capsys.readouterr().out
    assert "failed   default/bad" in out
    assert "bad/agent.py" in out
    assert "\x1b" not in out
    write(tmp_path, {"agents/bad/agent.py": "from agents import Agent\nagent = Agent(name='good')"})
    write(tmp_path, {"gateway.yaml": "tools: [{name: math.add, python: 'math.py:add'}]"})
    assert agw("agents", "check") == 1, "no agent may name it, and it is broken all the same"
    out = capsys.readouterr().out
    assert out.startswith("failed   tool math.add\n    there is no file math.py\nready    default/bad"), out


def test_what_is_blocked_fails_the_check_but_for_what_is_denied(agw: Run, tmp_path: Path) -> None:
    root = write(tmp_path / "agents", {"good/agent.py": "from agents import Agent\nagent = Agent(name='good')"})
    write(root, {"draft/agent.py": "not yet", "old/agents.yaml": "agents: [{name: a}]"})
    write(tmp_path, {"gateway.yaml": "agents: {deny: [default/draft, old/*]}"})
    assert agw("agents", "check") == 0
    write(root, {"team/agents.yaml": "agents: 5"})
    assert agw("agents", "check") == 1, "no agent of that file can be loaded"
    (root / "team/agents.yaml").unlink()
    write(root, {"a name/agent.py": ""})
    assert agw("agents", "check") == 1


def test_the_running_gateways_are_listed(agw: Run, gateway: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    sky = {
        "id": "default/sky",
        "status": "ready",
        "source": "s",
        "version": "0a1b",
        "description": "Knows.",
        "error": None,
    }
    bad = {
        "id": "default/bad",
        "status": "failed",
        "source": "/b.py",
        "version": None,
        "description": "",
        "error": "why",
    }
    gateway.says("/agents?limit=1000", {"object": "list", "data": [sky, bad]})
    assert agw("agents", "list", "--url", gateway.url, "--key", KEY) == 0
    assert capsys.readouterr().out.splitlines() == [
        "ready    default/sky  0a1b  Knows.", "failed   default/bad", "    /b.py: why",
    ]  # fmt: skip
    gateway.says("/agents?limit=1000", {"error": {"message": "Only admins."}}, 403)
    assert agw("agents", "list", "--url", gateway.url, "--key", KEY) == 1
    assert "Only admins." in capsys.readouterr().err


def test_a_gateway_without_agents_is_told_of(agw: Run, gateway: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    gateway.says("/agents?limit=1000", {"object": "list", "data": []})
    assert agw("agents", "list", "--url", gateway.url, "--key", KEY) == 0
    told = capsys.readouterr()
    assert (told.out, "no agents at " in told.err) == ("", True)


@pytest.mark.parametrize(("name", "model"), [("Weather", "default/weather"), ("team/Tax", "team/tax")])
def test_the_running_gateways_are_asked(
    agw: Run, gateway: Tiny, capsys: pytest.CaptureFixture[str], name: str, model: str
) -> None:
    gateway.streams(delta("sun"))
    assert agw("agents", "run", name, "Berlin?", "--url", gateway.url, "--key", KEY) == 0
    assert capsys.readouterr().out == "sun\n"
    assert gateway.asked[-1].body["model"] == model
    assert gateway.asked[-1].body["messages"] == [{"role": "user", "content": "Berlin?"}]
