"""A fixture for tests of agents: a gateway that serves their folder, as its callers will find it.

In ``conftest.py``::

    pytest_plugins = ["agw_proxy.sdk.pytest_plugin"]

and in a test::

    def test_it_knows_oslo(agw_gateway):
        assert "snow" in agw_gateway.ask("weather", "What is the weather in Oslo?")

``agw_agents`` has the agents themselves, by name, for tests with ``Runner.run`` and another model.

The folder is ``agents`` beside pytest's configuration; the option ``agw_agents`` of that names another. A fixture
``agw_config`` (of scope ``session``) gives more of a configuration: models, limits, keys, upstreams.
"""

import asyncio
import json
import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, Self

import openai
import pytest
from agents import Agent

from agw_proxy.config.agents import Agents as Settings
from agw_proxy.sdk.catalog import Catalog, Silent

START_SECONDS = 60.0
STOP_SECONDS = 15.0
POLL_SECONDS = 0.02


class AgentsGateway:
    """A gateway of its own process, on a free port of this machine, with no key of the environment."""

    def __init__(self, agents: Path, folder: Path, config: dict[str, Any]) -> None:
        """``agents``: where they are. ``folder``: for its files. ``config``: sections, with those made here."""
        self.key = f"agw-tests-{secrets.token_hex(16)}"
        self.url = ""
        """Where it is; clients want ``base_url``."""
        self._log = folder / "log"
        self._file = folder / "gateway.yaml"
        own = {"name": "tests", "key": self.key, "models": ["*"], "tools": ["*"], "admin": True}
        made: dict[str, Any] = {
            "upstreams": [],  # else there would be one for each provider's key in the environment
            **config,
            "server": {"host": "127.0.0.1", "port": 0, **config.get("server", {})},
            "agents": {"paths": [str(agents)], **config.get("agents", {})},
            "keys": [own, *config.get("keys", ())],
        }
        self._file.write_text(json.dumps(made))  # JSON is YAML
        self._file.chmod(0o600)
        self._env = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
        self._env["GATEWAY_SERVER__PORT"] = str(made["server"]["port"])  # a project's .env may name its gateway's
        self._env["XDG_STATE_HOME"] = str(folder / "state")

    def __enter__(self) -> Self:
        """Start it and wait until it serves. Raises RuntimeError with what it has said."""
        command = [sys.executable, "-m", "agw_proxy", "serve", "--config", str(self._file)]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, env=self._env, stdout=log, stderr=log)  # noqa: S603  our own
        try:
            self._wait()
        except BaseException:  # also an impatient Ctrl-C
            self.__exit__()
            raise
        return self

    def _wait(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not self.url:
            ended = self._process.poll() is not None
            for event in self.events("server.ready"):
                self.url = str(event["url"]).removesuffix("/").removesuffix("/v1")
            if not self.url and (ended or time.monotonic() > deadline):
                raise RuntimeError(f"the gateway did not start:\n{self._said}")
            time.sleep(POLL_SECONDS)

    @property
    def _said(self) -> str:
        """Its log, and all that agents and their MCP servers write to standard error."""
        return self._log.read_text("utf-8", "replace")

    def __exit__(self, *_: object) -> None:
        """End it."""
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    @property
    def base_url(self) -> str:
        """For clients of OpenAI's dialects; Anthropic's want ``url``."""
        return f"{self.url}/v1"

    def openai(self) -> openai.OpenAI:
        """A client of it; close it, or use it in a ``with``."""
        http = openai.DefaultHttpxClient(trust_env=False)  # no proxy stands between a test and this machine
        return openai.OpenAI(base_url=self.base_url, api_key=self.key, max_retries=0, http_client=http)

    def ask(self, agent: str, text: str) -> str:
        """What an agent answers: ``namespace/name``, or the name alone in the namespace ``default``.

        Raises openai.APIStatusError, with the reason where the agent could not be loaded.
        """
        model = agent if "/" in agent else f"default/{agent}"
        with self.openai() as client:
            answer = client.responses.create(model=model.lower(), input=text)
        return answer.output_text

    def agents(self) -> dict[str, dict[str, Any]]:
        """All that were found, by id, as ``GET /agents`` tells: ``status``, and ``error`` where one is not served."""
        with self.openai() as client:
            told = client.get(f"{self.url}/agents?limit=1000", cast_to=dict[str, Any])
        return {agent["id"]: agent for agent in told["data"]}

    def events(self, name: str) -> list[dict[str, Any]]:
        """The events of that name that it has logged so far, such as ``sdk_agent.success``."""
        found = []
        for line in self._said.splitlines():
            if f'"{name}"' in line:
                try:
                    event = json.loads(line)
                except ValueError:  # its end is not written yet
                    continue
                if event.get("event") == name:
                    found.append(event)
        return found


class Loaded:
    """The agents of a folder, loaded as the gateway does it, in this process."""

    def __init__(self, folder: Path) -> None:
        """Load them, and call their ``on_startup``: on a loop of its own, which runs until ``close``."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="agw-agents", daemon=True)
        self._thread.start()
        self._catalog = Catalog(Silent())
        self._on_loop(self._catalog.refresh(Settings(paths=(folder,)), set()))

    def __getitem__(self, name: str) -> Agent[Any]:
        """The agent of that name: ``namespace/name``, or the name alone. Raises LookupError, which says why."""
        identity = (name if "/" in name else f"default/{name}").lower()
        entry = self._catalog.find(identity)
        if entry is None:
            told = {state.id: state.error or state.status for state in self._catalog.states()}
            raise LookupError(f"{identity}: {told.get(identity, f'not among {sorted(told)}')}")
        agent: Agent[Any] = entry.agent
        return agent

    def close(self) -> None:
        """Call their ``on_shutdown``."""
        self._on_loop(self._catalog.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _on_loop(self, work: Coroutine[Any, Any, object]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option ``agw_agents``."""
    parser.addini("agw_agents", "the folder of agents that the fixtures of agw load and serve", default="agents")


@pytest.fixture(scope="session")
def agw_config() -> dict[str, Any]:
    """Sections of the gateway's configuration; override it in ``conftest.py``."""
    return {}


@pytest.fixture(scope="session")
def agw_agents(request: pytest.FixtureRequest) -> Iterator[Loaded]:
    """The agents of the folder, by name."""
    loaded = Loaded(_folder(request))
    yield loaded
    loaded.close()


@pytest.fixture(scope="session")
def agw_gateway(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, agw_config: dict[str, Any]
) -> Iterator[AgentsGateway]:
    """A gateway that serves the folder of agents, until the last test has ended."""
    with AgentsGateway(_folder(request), tmp_path_factory.mktemp("agw"), agw_config) as gateway:
        yield gateway


def _folder(request: pytest.FixtureRequest) -> Path:
    return Path(request.config.rootpath / str(request.config.getini("agw_agents")))
