"""The memory of the limits in a file: what was spent of a budget outlives the gateway, however it ended.

The kernel writes the file; a process that is killed loses nothing, a machine that loses its power the last half minute
or so. One gateway has the file at a time.
"""

import fcntl
import mmap
import os
import stat
import time
import uuid
from collections.abc import Mapping
from pathlib import Path

from agw_proxy._hot.limit import Table
from agw_proxy.config.devkey import OTHERS_WRITE, state_dir
from agw_proxy.config.settings import Settings
from agw_proxy.config.tree import ConfigError, Origin, problem

FILE = "limits"
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
WAIT_SECONDS = 5.0  # for the workers of a gateway that was killed to end
LOOK_SECONDS = 0.05


def kept_limits(settings: Settings, environ: Mapping[str, str]) -> mmap.mmap | None:
    """The memory for ``Table``, from the state directory, where something in ``settings`` has a budget; else None.

    No other gateway gets it until this process and those forked from it have ended. Raises ConfigError where the file
    cannot be had or is not ours.
    """
    if not settings.has_budgets:
        return None
    return keep(state_dir(settings.server.state_dir, environ) / FILE)


def keep(path: Path, wait_seconds: float = WAIT_SECONDS) -> mmap.mmap:
    """The memory in that file, made where there is none, ready for workers. Raises ConfigError."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
        try:
            _check(path, os.fstat(descriptor))
            _lock(path, descriptor, wait_seconds)
            size = os.fstat(descriptor).st_size
            if size not in {0, Table.size()}:
                raise _refusal(path, "is of another version; delete it to count all budgets from 0")
            # All of it now: memory over a file that finds no room later would end the process.
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(descriptor, 0, Table.size())
            else:
                os.ftruncate(descriptor, Table.size())
            memory = mmap.mmap(descriptor, Table.size())  # with a descriptor of its own, which holds the lock
        finally:
            os.close(descriptor)
    except OSError as error:
        raise _refusal(path, f"budgets cannot be kept here: {error.strerror}; set server.state_dir") from None
    try:
        Table(memory).resume(_boot(), time.monotonic_ns(), time.time_ns())
    except ValueError:
        memory.close()
        raise _refusal(path, "is of another version; delete it to count all budgets from 0") from None
    return memory


def _check(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise _refusal(path, "expected a regular file")
    if status.st_uid != os.geteuid() or status.st_mode & OTHERS_WRITE:
        raise _refusal(path, "others may write what was spent; set server.state_dir to a directory of your own")


def _lock(path: Path, descriptor: int, wait_seconds: float) -> None:
    until = time.monotonic() + wait_seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                raise _refusal(
                    path, "another gateway counts its budgets here; give each a server.state_dir of its own"
                ) from None
            time.sleep(LOOK_SECONDS)
        else:
            return


def _boot() -> int:
    """A number of this run of the machine; where it has none, of this call: then the wall clock alone tells the time."""
    try:
        return uuid.UUID(BOOT_ID.read_text().strip()).int % (2**64 - 1) + 1
    except (OSError, ValueError):
        return time.time_ns()


def _refusal(path: Path, message: str) -> ConfigError:
    return ConfigError([problem(message, origin=Origin(file=str(path)))])
