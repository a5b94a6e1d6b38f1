"""The fixture that we ship, used as an author of agents would: a project of its own, and pytest run in it."""

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.sdk.folders import write
from tests.support.gateway import PACKAGE_ROOT
from tests.support.mcp_servers import Children

PROJECT = {
    "pyproject.toml": '[tool.pytest.ini_options]\nagw_agents = "mine"\n',
    "conftest.py": """\
import pytest

pytest_plugins = ["agw_proxy.sdk.pytest_plugin"]


@pytest.fixture(scope="session")
def anyio_backend():
    return "asyncio"


@pytest.fixture(scope="session")
def agw_config():
    return {
        "models": [{"name": "fast", "targets": [{"upstream": "agw", "model": "echo"}]}],
        "server": {"max_body_mb": 8},
        "agents": {"turns": 3},
        "keys": [{"name": "app", "key": "agw-of-the-app-that-is-tested", "models": ["*"]}],
    }
""",
    "mine/Repeats/agent.py": """\
import os

from agents import Agent

os.write(2, b'not of UTF-8: \\xff, and no line: {"event": "server.ready"\\n')

agent = Agent(name="Repeats", instructions="Repeat.", model="fast")
""",
    "mine/Broken/agent.py": "raise RuntimeError('not today')\n",
    "test_mine.py": """\
import asyncio

import openai
import pytest
from agents import Runner

from agw_proxy.sdk.function_model import FunctionModel


def test_it_repeats(agw_gateway):
    assert "hello there" in agw_gateway.ask("Repeats", "hello there")
    (event,) = agw_gateway.events("sdk_agent.success")
    assert event["agent"] == "default/repeats"


def test_itself(agw_agents):
    agent = agw_agents["repeats"].clone(model=FunctionModel(lambda turn: turn.said.upper()))
    assert asyncio.run(Runner.run(agent, "hello")).final_output == "HELLO"
    with pytest.raises(LookupError, match="not today"):
        agw_agents["broken"]
    with pytest.raises(LookupError, match=r"default/nobody: not among .*'default/repeats'"):
        agw_agents["nobody"]


def test_a_server_of_mcp_is_asked_from_the_tests_own_loop(agw_agents):
    model = FunctionModel(lambda turn: turn.results[0] if turn.results else turn.use("echo", text="there"))
    result = asyncio.run(Runner.run(agw_agents["remote"].clone(model=model), "hello"))
    assert "there" in result.final_output


def test_what_it_is_configured_with_is_more_and_no_provider_is_there(agw_gateway):
    assert agw_gateway.agents()["default/repeats"]["bounds"]["turns"] == 3
    with agw_gateway.openai() as client:
        assert "fast" in {model.id for model in client.with_options(api_key="agw-of-the-app-that-is-tested").models.list()}
        told = client.get(f"{agw_gateway.url}/upstreams", cast_to=dict)
    assert not {"openai", "anthropic"} & {upstream["name"] for upstream in told["data"]}


def test_the_broken_one_says_why(agw_gateway):
    agents = agw_gateway.agents()
    assert agents["default/repeats"]["status"] == "ready"
    assert "not today" in agents["default/broken"]["error"]
    with pytest.raises(openai.APIStatusError):
        agw_gateway.ask("broken", "hello")
""",
}


def guide() -> dict[str, str]:
    """The agent and the tests that the guide shows."""
    page = (PACKAGE_ROOT / "docs/agents-guide.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page.partition("## 4. Its tools")[2], re.DOTALL)
    tests = [block.partition("# tests/")[2].partition("\n") for block in blocks[1:3]]
    assert [name for name, *_ in tests] == ["test_desk.py", "test_served.py"]
    return {"mine/Desk/agent.py": blocks[0], **{name: source for name, _, source in tests}}


def test_a_project_tests_its_agents(tmp_path: Path) -> None:
    server = Children(tmp_path).source
    remote = f"from agents import Agent\nfrom agents.mcp import MCPServerStdio\nagent = Agent(name='R', mcp_servers=[{server}])\n"
    write(tmp_path, {**PROJECT, **guide(), "mine/Remote/agent.py": remote})
    env = {**os.environ, "PYTHONPATH": str(PACKAGE_ROOT), "GATEWAY_ENV": "elsewhere", "OPENAI_API_KEY": "sk-nobodys"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", str(tmp_path)]
    ended = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "7 passed" in ended.stdout
