"""What is an agent is found by looking, and nothing of it is run."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agw_proxy.config.agents import Agents
from agw_proxy.sdk.discovery import Discovered, discover
from tests.sdk.folders import write
from tests.support.gateway import PACKAGE_ROOT

BROKEN = "raise RuntimeError('it was run')"


def look(root: Path, allow: tuple[str, ...] = ("*",), deny: tuple[str, ...] = ()) -> Discovered:
    return discover([root], "default", allow, deny)


def ids(found: Discovered) -> list[str]:
    return [each.id for each in found.found]


def blocked(found: Discovered) -> dict[str, str]:
    return {each.id: each.reason for each in found.blocked}


def test_a_folder_is_a_name_and_those_above_it_are_namespaces(tmp_path: Path) -> None:
    files = ("WeatherAgent/agent.py", "team/Billing/agent.py", "team/eu/Tax_1/agent.py", "WeatherAgent/tools/agent.py")
    root = write(tmp_path / "agents", dict.fromkeys(files, BROKEN))
    write(root, dict.fromkeys(("README/readme.md", "__pycache__/agent.py", ".git/agent.py", "_draft/agent.py"), ""))
    found = look(root)
    assert ids(found) == ["default/weatheragent", "team/billing", "team/eu/tax_1"]
    assert found.blocked == ()
    assert [each.file.relative_to(root).as_posix() for each in found.found] == [files[0], files[1], files[2]]
    assert ids(discover([tmp_path / "none", root], "mine"))[0] == "mine/weatheragent"


@pytest.mark.parametrize(
    "pattern",
    ["default/w*", "Default/Weather", "weather", "weather.*", "agents.Weather.agent", "agents.weather*", "*ather"],
)
def test_patterns_may_name_it_by_its_id_or_its_module(tmp_path: Path, pattern: str) -> None:
    root = write(tmp_path / "agents", {"Weather/agent.py": "", "team/Billing/agent.py": ""})
    assert ids(look(root, allow=(pattern,))) == ["default/weather"]
    found = look(root, deny=(pattern,))
    assert ids(found) == ["team/billing"]
    assert "denied" in blocked(found)["default/weather"]


def test_what_is_denied_is_denied_though_it_is_allowed_too(tmp_path: Path) -> None:
    root = write(tmp_path / "agents", {"a/agent.py": "", "b/agent.py": ""})
    found = look(root, allow=("default/*",), deny=("default/b",))
    assert ids(found) == ["default/a"]
    assert ids(look(root, allow=())) == []


def test_links_that_lead_out_are_refused_and_those_within_are_not(tmp_path: Path) -> None:
    outside = write(tmp_path / "outside", {"agent.py": "", "deep/Agent/agent.py": ""})
    root = write(tmp_path / "agents", {"Real/agent.py": "", "Half/readme": ""})
    (root / "Linked").symlink_to(outside)
    (root / "ns").symlink_to(outside / "deep")
    (root / "Half" / "agent.py").symlink_to(outside / "agent.py")
    (root / "Gone").symlink_to(tmp_path / "nowhere")
    (root / "Same").symlink_to(root / "Real")
    found = look(root)
    assert ids(found) == ["default/real", "default/same"]
    assert set(blocked(found)) == {"default/linked", "default/ns", "default/half"}
    assert all("link" in reason for reason in blocked(found).values())


def test_a_link_that_leads_round_in_a_circle_serves_no_agent_twice(tmp_path: Path) -> None:
    root = write(tmp_path / "agents", {"a/b/Agent/agent.py": "", "Top/agent.py": ""})
    (root / "a" / "again").symlink_to(root / "a")
    (root / "a" / "b" / "up").symlink_to(root)
    found = look(root)
    assert ids(found) == ["a/b/agent", "default/top"]
    assert set(blocked(found)) == {"a/again", "a/b/up"}
    assert all("circle" in reason for reason in blocked(found).values())


def test_links_that_lead_into_each_other_serve_no_agent_twice(tmp_path: Path) -> None:
    root = write(tmp_path / "agents", {"a/One/agent.py": "", "b/Two/agent.py": ""})
    (root / "a" / "to").symlink_to(root / "b")
    (root / "b" / "fro").symlink_to(root / "a")
    found = look(root)
    assert ids(found) == ["a/one", "a/to/two", "b/fro/one", "b/two"]
    assert set(blocked(found)) == {"a/to/fro", "b/fro/to"}


@pytest.mark.parametrize("name", ["wet her", "we.ather", "-x", "wetter\u00e4"])
def test_a_name_that_no_model_could_have_is_told(tmp_path: Path, name: str) -> None:
    root = write(tmp_path / "agents", {f"{name}/agent.py": "", "good/agent.py": ""})
    found = look(root)
    assert ids(found) == ["default/good"]
    assert any("letters" in each.reason for each in found.blocked)


def test_of_two_of_one_name_the_first_counts(tmp_path: Path) -> None:
    one = write(tmp_path / "one", {"Same/agent.py": ""})
    two = write(tmp_path / "two", {"same/agent.py": "", "other/agent.py": ""})
    found = discover([one, two], "default")
    assert [(each.id, each.root) for each in found.found] == [("default/other", two), ("default/same", one)]
    assert "taken" in blocked(found)["default/same"]


def test_the_version_changes_with_any_file_that_it_may_be_made_of(tmp_path: Path) -> None:
    root = write(tmp_path / "agents", {"a/agent.py": "", "a/prompt.md": "one", "b/agent.py": "", "shared.py": ""})

    def versions() -> list[str]:
        return [each.version for each in look(root).found]

    before = versions()
    assert versions() == before
    write(root, {"a/__pycache__/agent.cpython-311.pyc": "x", "a/.hidden": "x"})
    assert versions() == before
    write(root, {"a/prompt.md": "two"})
    after = versions()
    assert (after[0] != before[0], after[1] == before[1]) == (True, True)
    write(root, {"shared.py": "x = 1"})
    assert all(one != two for one, two in zip(after, versions(), strict=True))


def test_a_declaration_is_found_by_its_name_and_a_broken_file_is_told(tmp_path: Path) -> None:
    root = write(
        tmp_path / "agents",
        {
            "agents.yaml": "agents: [{name: Helper, instructions: Help.}, {instructions: none}]",
            "team/agents.yaml": "agents:\n  - {name: Triage, instructions: Sort.}\n",
            "bad/agents.yaml": "agents: [",
            "odd/agents.yaml": "agent: []",
        },
    )
    found = look(root)
    assert ids(found) == ["default/helper", "team/triage"]
    assert found.found[0].declared == {"name": "Helper", "instructions": "Help."}
    told = {Path(each.source).parent.name: each for each in found.blocked}
    assert (told["bad"].broken, told["odd"].broken, told["agents"].broken) == (True, True, False)
    assert ids(look(root, allow=("agents.helper",))) == ["default/helper"]


def test_looking_imports_nothing_of_the_sdk(tmp_path: Path) -> None:
    write(tmp_path / "agents", {"a/agent.py": BROKEN})
    script = (
        "import sys; from pathlib import Path; from agw_proxy.sdk.discovery import discover; "
        "found = discover([Path('agents')], 'default'); "
        "print([each.id for each in found.found], [name for name in ('agents', 'openai', 'yaml') if name in sys.modules])"
    )
    environ = {"PYTHONPATH": str(PACKAGE_ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        text=True,
        check=True,
        timeout=50,
    )
    assert done.stdout.strip() == "['default/a'] []"


def test_a_folder_that_may_not_be_looked_into_keeps_no_other_from_being_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write(tmp_path / "agents", {"weather/agent.py": "", "lost+found/agent.py": ""})
    stat = os.stat

    def refused(path: Any, *args: Any, **named: Any) -> os.stat_result:
        if "lost+found/" in str(path):
            raise PermissionError(13, "Permission denied", str(path))
        return stat(path, *args, **named)

    monkeypatch.setattr(os, "stat", refused)
    assert ids(look(root)) == ["default/weather"]
    assert not Agents(paths=(root / "lost+found" / "agents",)).anywhere
