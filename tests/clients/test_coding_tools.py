"""Coding tools, unmodified and set up by docs/guides to the letter: each does one task with one tool call, over every dialect."""

from pathlib import Path

import pytest

from tests.clients.conftest import Run
from tests.clients.guide import exports, settings
from tests.clients.task import SAID, Wanted, does_task
from tests.support.gateway import Gateway
from tests.support.upstream import Upstream

SECRET = "heron-4417-lantern"
TASK = "Read the file note.txt and tell me what it says."
over_all = pytest.mark.parametrize("spoken", ["chat", "responses", "messages", "gemini"])


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A folder with a note in it."""
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "note.txt").write_text(SECRET + "\n")
    return folder


def written(file: Path, text: str) -> Path:
    """A file, with its folders."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def shown(upstream: Upstream, printed: str, gateway: Gateway) -> None:
    """The tool ran here, its result went there, and the last answer came back; the gateway's key stayed here."""
    assert SAID + SECRET in printed
    assert any(SECRET.encode() in request.body for request in upstream.requests)
    assert not any(gateway.key in value for request in upstream.requests for _, value in request.headers)


@over_all
def test_codex_does_a_task(
    gateway: Gateway, upstream: Upstream, run: Run, work: Path, tmp_path: Path, spoken: str
) -> None:
    calls: Wanted = (("exec_command", {"cmd": "cat note.txt"}), ("shell_command", {"command": "cat note.txt"}))
    upstream.default = does_task(SECRET, calls, own="responses")
    model = f"{spoken}-1"
    written(tmp_path / "home" / ".codex" / "config.toml", settings("codex", "toml", gateway, model))
    # Its sandbox wants rights that a container may not have.
    command = ("codex", "exec", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox", TASK)
    shown(upstream, run(*command, env=exports("codex", gateway, model), cwd=work), gateway)


@over_all
def test_codex_with_its_built_in_provider_does_it_over_a_websocket(
    gateway: Gateway, upstream: Upstream, run: Run, work: Path, spoken: str
) -> None:
    upstream.default = does_task(SECRET, (("exec_command", {"cmd": "cat note.txt"}),), own="responses")
    command = (
        "codex",
        "exec",
        "-m",
        f"{spoken}-1",
        "-c",
        f'openai_base_url="{gateway.url}/v1"',
        "--skip-git-repo-check",
    )
    env = {"CODEX_API_KEY": gateway.key}
    shown(upstream, run(*command, "--dangerously-bypass-approvals-and-sandbox", TASK, env=env, cwd=work), gateway)
    sockets = [line for line in gateway.logs() if line.get("endpoint") == "responses_get"]
    assert sockets
    assert {line["status"] for line in sockets} == {101}


@over_all
def test_claude_code_does_a_task(gateway: Gateway, upstream: Upstream, run: Run, work: Path, spoken: str) -> None:
    calls: Wanted = (("Bash", {"command": "cat note.txt", "description": "Read the note"}),)
    upstream.default = does_task(SECRET, calls, own="messages")
    env = exports("claude-code", gateway, f"{spoken}-1") | {"CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1"}
    printed = run("claude", "-p", TASK, "--allowedTools", "Bash(cat:*)", env=env, cwd=work)
    shown(upstream, printed, gateway)


@over_all
def test_gemini_cli_does_a_task(
    gateway: Gateway, upstream: Upstream, run: Run, work: Path, tmp_path: Path, spoken: str
) -> None:
    calls: Wanted = (("read_file", {"file_path": "note.txt"}),)
    upstream.default = does_task(SECRET, calls, own="gemini")
    model = f"{spoken}-1"
    written(tmp_path / "home" / ".gemini" / "settings.json", settings("gemini-cli", "json", gateway, model))
    env = exports("gemini-cli", gateway, model)
    shown(upstream, run("gemini", "-m", model, "-y", "--skip-trust", "-p", TASK, env=env, cwd=work), gateway)


@over_all
def test_opencode_does_a_task(gateway: Gateway, upstream: Upstream, run: Run, work: Path, spoken: str) -> None:
    calls: Wanted = (("bash", {"command": "cat note.txt", "description": "Read the note"}),)
    upstream.default = does_task(SECRET, calls, own="chat")
    written(work / "opencode.json", settings("opencode", "json", gateway, f"{spoken}-1"))
    shown(upstream, run("opencode", "run", TASK, env={"AGW_KEY": gateway.key}, cwd=work), gateway)


@over_all
def test_continue_does_a_task(
    gateway: Gateway, upstream: Upstream, run: Run, work: Path, tmp_path: Path, spoken: str
) -> None:
    calls: Wanted = (("Read", {"filepath": "note.txt"}),)
    upstream.default = does_task(SECRET, calls, own="chat")
    file = written(tmp_path / "config.yaml", settings("continue", "yaml", gateway, f"{spoken}-1"))
    printed = run("cn", "--config", str(file), "--auto", "-p", TASK, env={"AGW_KEY": gateway.key}, cwd=work)
    shown(upstream, printed, gateway)
