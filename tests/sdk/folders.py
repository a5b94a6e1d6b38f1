"""Folders of agents, for tests."""

from collections.abc import Mapping
from pathlib import Path

SAYS = """\
from agents import Agent
from agents.testing import ScriptedModel, assistant_message

agent = Agent(name="{name}", model=ScriptedModel([[assistant_message("{says}")]] * 50))
"""


def says(text: str, name: str = "Speaker") -> str:
    """The source of an agent that answers with ``text``."""
    return SAYS.format(name=name, says=text)


def write(root: Path, files: Mapping[str, str]) -> Path:
    """Make the files, by their paths below ``root``."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root
