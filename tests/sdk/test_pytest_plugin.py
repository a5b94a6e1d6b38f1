"""The fixture that we ship, used as an author of agents would: a project of its own, and pytest run in it."""

import os
import subprocess
import sys
from pathlib import Path

from tests.sdk.folders import write
from tests.support.gateway import PACKAGE_ROOT

PROJECT = {
    "pyproject.toml": '[tool.pytest.ini_options]\nagw_agents = "mine"\n',
    "conftest.py": """\
import pytest

pytest_plugins = ["agw_proxy.sdk.pytest_plugin"]


@pytest.fixture(scope="session")
def agw_config():
    return {"models": [{"name": "fast", "targets": [{"upstream": "agw", "model": "echo"}]}]}
""",
    "mine/Repeats/agent.py": """\
from agents import Agent

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
    with pytest.raises(LookupError, match=r"default/nobody: not among \\['default/broken', 'default/repeats'\\]"):
        agw_agents["nobody"]


def test_the_broken_one_says_why(agw_gateway):
    agents = agw_gateway.agents()
    assert agents["default/repeats"]["status"] == "ready"
    assert "not today" in agents["default/broken"]["error"]
    with pytest.raises(openai.APIStatusError):
        agw_gateway.ask("broken", "hello")
""",
}


def test_a_project_tests_its_agents(tmp_path: Path) -> None:
    write(tmp_path, PROJECT)
    env = {**os.environ, "PYTHONPATH": str(PACKAGE_ROOT), "GATEWAY_ENV": "elsewhere", "OPENAI_API_KEY": ""}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", str(tmp_path)]
    ended = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "3 passed" in ended.stdout
