"""Processes under measurement: pinned to a core, with their CPU and memory as the kernel accounts them (proc(5))."""

import contextlib
import os
import re
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

STOP_SECONDS = 1.5  # for an end in order; then it is killed
TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
KIB = 1024


class Memory(NamedTuple):
    """Of a process and all its descendants, in MB: resident (shared pages counted for each), and proportional."""

    rss_mb: float
    pss_mb: float


def spawn(argv: Sequence[str | Path], *, core: int, folder: Path, env: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start a program on one core, in a session of its own; what it prints goes to ``folder/output``."""
    own = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        with (folder / "output").open("ab") as output:
            return subprocess.Popen(
                argv,
                cwd=folder,
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
    finally:
        os.sched_setaffinity(0, own)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process that ``spawn`` started, with all that it started."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, sign)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def pause(process: subprocess.Popen[bytes], *, paused: bool) -> None:
    """Freeze a process and its descendants while another is measured, or let them go on."""
    for pid in family(process.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP if paused else signal.SIGCONT)


def family(pid: int) -> list[int]:
    """Give a process and its descendants."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                # The name may hold anything; what follows its closing bracket does not.
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    found = [pid]
    for one in found:
        found += children.get(one, [])
    return found


def cpu_ns(pids: Sequence[int]) -> int:
    """Give the CPU time that processes have used, user and system.

    The scheduler's own figure of each thread (schedstat) where the kernel keeps it: it is the same sum as utime and
    stime in ``stat``, in nanoseconds instead of ticks of 10 ms.
    """
    return sum(sum(_thread_times(pid)) for pid in pids)


def _thread_times(pid: int) -> Iterator[int]:
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            try:
                yield int((task / "schedstat").read_text().split()[0])
            except FileNotFoundError:
                fields = (task / "stat").read_text().rpartition(")")[2].split()
                yield (int(fields[11]) + int(fields[12])) * TICK_NS


def busy_ns(cores: Collection[int]) -> int:
    """Give the time for which cores have not been idle since the system started, whoever used them."""
    total = 0
    for line in Path("/proc/stat").read_text().splitlines():
        name, *fields = line.split()
        if name.startswith("cpu") and name[3:].isdigit() and int(name[3:]) in cores:
            user, nice, system, _idle, _wait, irq, softirq, steal, *_ = (int(field) for field in fields)
            total += user + nice + system + irq + softirq + steal
    return total * TICK_NS


def memory(pids: Sequence[int]) -> Memory:
    """Give what processes hold at this moment."""
    rss = pss = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
            rss += _kib(text, "Rss")
            pss += _kib(text, "Pss")
    return Memory(rss / KIB, pss / KIB)


def _kib(text: str, name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE)
    return int(found[1]) if found else 0


def free_port() -> int:
    """Give a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def raise_file_limit() -> int:
    """Allow this process and its children as many descriptors as the system lets it; give that number."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def until(process: subprocess.Popen[bytes], seconds: float, poll_seconds: float) -> Iterator[None]:
    """Yield now and then while ``process`` lives. Raises RuntimeError when it has ended, or at the deadline."""
    deadline = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < deadline:
        yield
        time.sleep(poll_seconds)
    state = f"ended with status {process.returncode}" if process.poll() is not None else f"is not ready in {seconds} s"
    raise RuntimeError(f"it {state}")
