"""A folder to write configuration into, and ``load`` on it."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from agw_proxy.config.loader import Loaded, load
from agw_proxy.config.tree import ConfigError, Problem


class Folder:
    """A working directory. What a method is given as environment is all the environment there is."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, text: str, name: str = "gateway.yaml") -> Path:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def load(self, text: str | None = None, /, **environ: str) -> Loaded:
        """Load as without ``--config``; ``text`` is what ./gateway.yaml is to hold."""
        if text is not None:
            self.write(text)
        return load(None, environ, self.path)

    def load_file(self, config: Path, **environ: str) -> Loaded:
        """Load as with ``--config``."""
        return load(config, environ, self.path)

    def problems(self, text: str | None = None, environ: Mapping[str, str] | None = None) -> tuple[Problem, ...]:
        """Load what must not load, and give why."""
        with pytest.raises(ConfigError) as caught:
            self.load(text, **(environ or {}))
        return caught.value.problems

    def problem(self, text: str | None = None, environ: Mapping[str, str] | None = None) -> Problem:
        """Give the one problem there is."""
        found = self.problems(text, environ)
        assert len(found) == 1, [str(item) for item in found]
        return found[0]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)
