"""Builds the load generator and the mock upstream on first use: one C file each, no dependencies."""

import os
import shutil
import subprocess
from pathlib import Path

SOURCES = Path(__file__).resolve().parent
BUILT = SOURCES.parent.parent / "build" / "bench"
FLAGS = ("-O2", "-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror")


def program(name: str) -> Path:
    """Give the path of ``load`` or ``upstream``, built anew where its sources have changed.

    Raises RuntimeError where there is no C compiler or it refuses.
    """
    made = BUILT / name
    newest = max(source.stat().st_mtime for source in SOURCES.glob("*.[ch]"))
    if made.exists() and made.stat().st_mtime >= newest:
        return made
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise RuntimeError("the load generator needs a C compiler: apt-get install gcc libc6-dev")
    BUILT.mkdir(parents=True, exist_ok=True)
    # Under another name first: of two that build at once, neither runs a half of the other's.
    partial = made.with_suffix(f".{os.getpid()}")
    done = subprocess.run(
        [compiler, *FLAGS, "-o", partial, SOURCES / f"{name}.c"], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"{name}.c does not build:\n{done.stderr}")
    partial.replace(made)
    return made
