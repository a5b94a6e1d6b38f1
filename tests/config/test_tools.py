"""The section of tools: names that keys and models can give, one of each, and functions that can be found."""

from pathlib import Path

import pytest

from agw_proxy.config.loader import load
from agw_proxy.config.settings import Settings
from agw_proxy.config.tree import ConfigError


def settings(tmp_path: Path, tools: str) -> Settings:
    (tmp_path / "gateway.yaml").write_text(f"tools: [{tools}]\n")
    return load(None, {}, tmp_path).settings


def test_defaults_are_bounds(tmp_path: Path) -> None:
    tool = settings(tmp_path, '{name: math.add, python: "tools/math.py:add"}').tools[0]
    assert (tool.description, tool.timeout, tool.concurrent) == (None, 30.0, 16)
    assert settings(tmp_path, '{name: a, python: "some.package:f", timeout: 2m}').tools[0].timeout == 120.0


@pytest.mark.parametrize(
    ("tool", "told"),
    [
        ('{name: a/b, python: "a.py:f"}', "such as math.add"),
        ("{name: a, python: a.py}", "FILE.py:NAME"),
        ('{name: a, python: "a.py:f()"}', "FILE.py:NAME"),
        ('{name: a, python: "a.py:f", timeout: 0}', "timeout"),
        ('{name: a, python: "a.py:f"}, {name: a, python: "b.py:f"}', "taken already"),
    ],
)
def test_what_could_not_be_called_is_refused(tmp_path: Path, tool: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        settings(tmp_path, tool)
