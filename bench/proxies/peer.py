"""What a peer is: how to find, configure, start and ask it."""

import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent.parent
BUILT = ROOT / "build" / "bench"
VENVS = BUILT / "venvs"
UPSTREAM_MODEL = "gpt-4o-mini"
UPSTREAM_KEY = "sk-bench-upstream-8f2d6c41a7e94b03"
SETTLE_SECONDS = 10.0


class Setting(NamedTuple):
    """What a start is given."""

    folder: Path  # for its files; also its working directory
    port: int  # to listen on, at 127.0.0.1
    upstream_port: int
    streaming: bool
    files: int  # descriptors that it may open
    ca_file: Path | None  # set: the upstream speaks TLS as "localhost", with a certificate of this authority


class Launch(NamedTuple):
    """A command, and what it needs in its environment beside PATH and HOME."""

    argv: list[str]
    env: Mapping[str, str] = {}


class Peer(NamedTuple):
    """One proxy. ``missing`` gives why it cannot run here (None: it can); ``launch`` writes its files."""

    name: str
    title: str
    speed: int
    version: Callable[[], str]
    missing: Callable[[], str | None]
    launch: Callable[[Setting], Launch]
    model: str = UPSTREAM_MODEL  # what to ask it for
    key: str = UPSTREAM_KEY
    headers: Callable[[int], Mapping[str, str]] = lambda _: {}  # more of them, by the upstream's port
    start_seconds: float = SETTLE_SECONDS
    kept: bool = False  # started once and frozen in between, because a start takes long
    workers: int = 1


def first_line(*argv: str | Path, holding: str = "") -> str:
    """Give the first line that a command prints (on either stream) that holds a word; "" where it cannot run."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    lines = (done.stdout + done.stderr).splitlines()
    return next((line.strip() for line in lines if holding in line and line.strip()), "")
