"""The clients are real: npm packages in build/clients (``make clients`` puts them there), each with a home of its own."""

import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.e2e.test_translation import upstreams
from tests.support.gateway import PACKAGE_ROOT, Gateway, configuration
from tests.support.published import ready
from tests.support.upstream import Upstream

INSTALLED = PACKAGE_ROOT / "build" / "clients"
RUN_SECONDS = 150.0  # a coding tool starts for seconds, and the machine may be busy
PATIENT = {"connect": "5s", "first_byte": "30s", "between_bytes": "30s", "total": "120s"}
Run = Callable[..., str]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All that is here needs what `make clients` installs."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.clients)
            item.add_marker(pytest.mark.timeout(2 * RUN_SECONDS))


@pytest.fixture(scope="session")
def upstream_of_all() -> Iterator[Upstream]:
    ready()
    with Upstream() as running:
        yield running


@pytest.fixture
def upstream(upstream_of_all: Upstream) -> Upstream:
    upstream_of_all.reset()
    return upstream_of_all


@pytest.fixture(scope="session")
def gateway(upstream_of_all: Upstream) -> Iterator[Gateway]:
    with Gateway(configuration(*upstreams(upstream_of_all.url), timeouts=PATIENT)) as running:
        yield running


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run a command of the installed packages in a new folder; what it has printed."""
    assert INSTALLED.joinpath("node_modules").is_dir(), "the clients are not installed: make clients"
    home = tmp_path / "home"
    home.mkdir()

    def runs(*command: str, env: Mapping[str, str] | None = None, source: str = "", cwd: Path = tmp_path) -> str:
        told = {
            "PATH": f"{INSTALLED}/node_modules/.bin:{os.environ['PATH']}",
            "HOME": str(home), "NO_PROXY": "127.0.0.1", "CI": "1", **(env or {}),
        }  # fmt: skip
        done = subprocess.run(
            command, cwd=cwd, env=told, input=source, capture_output=True, text=True, timeout=RUN_SECONDS, check=False
        )
        assert done.returncode == 0, f"{command[0]} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
        return done.stdout

    return runs
