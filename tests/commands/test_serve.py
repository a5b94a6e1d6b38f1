"""What the settings' models are made with is put back for everybody else's."""

import os
import subprocess
import sys

import pytest

from tests.support.gateway import PACKAGE_ROOT

AFTER = """
import os, sys
from pydantic.plugin import _loader
asked = []
_loader.entry_points = lambda **group: asked.append(group) or []
from agw_proxy.commands import serve
with serve._without_plugins():
    from agw_proxy.config.settings import Settings
told = len(asked), os.environ.get("PYDANTIC_DISABLE_PLUGINS")
import pydantic
pydantic.create_model("Agents", name=(str, ""))
print(*told, len(asked))
"""


@pytest.mark.parametrize(("before", "later"), [(None, 1), ("some_plugin", 1), ("__all__", 0)])
def test_only_the_settings_are_made_without_plugins(before: str | None, later: int) -> None:
    env = {name: value for name, value in os.environ.items() if name != "PYDANTIC_DISABLE_PLUGINS"}
    done = subprocess.run(
        [sys.executable, "-c", AFTER],
        cwd=PACKAGE_ROOT,
        env=env if before is None else {**env, "PYDANTIC_DISABLE_PLUGINS": before},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stdout.split() == ["0", str(before), str(later)], done.stderr


def test_a_socket_that_cannot_be_made_is_named_without_a_port() -> None:
    command = [sys.executable, "-m", "agw_proxy", "serve", "--host", "unix:/no/such/folder/agw.sock"]
    done = subprocess.run(command, cwd=PACKAGE_ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "agw cannot listen on unix:/no/such/folder/agw.sock: No such file" in done.stderr
