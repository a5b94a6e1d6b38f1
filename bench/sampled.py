"""Where the fast lane's CPU goes under rules, by sampling: what timing whole turns cannot tell from the machine's noise.

    python -m bench.sampled [--rounds N] [--ms N] [--cores GATEWAY,LOAD]

Samples of the gateway's process are taken while the cases of `bench.rules` have their turns, by Linux' ``perf`` (on the PATH).
All cases have the same reads and writes, so the samples in the kernel say how much was done; those in user space are told
per sample in the kernel, and the functions that have more of them than without rules. What the kernel itself needs for a
longer answer does not show here.
"""

import collections
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from bench import rules
from bench.awake import awake
from bench.load.build import program

FREQUENCY = "3999"
LINE = re.compile(r"\s*[0-9a-f]+\s+(.*?)(?:\+0x[0-9a-f]+)?\s+\((.*?)\)$")
SHOWN = 15
LEAD_SECONDS = 0.3  # for perf to begin


def sampled(pid: int, file: Path, seconds: float) -> "subprocess.Popen[bytes]":
    """Take samples of that process from now on."""
    command = ["perf", "record", "-q", "-F", FREQUENCY, "-p", str(pid), "-o", str(file), "--", "sleep", str(seconds)]
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(LEAD_SECONDS)
    return running


def counted(file: Path) -> "collections.Counter[str]":
    """Samples by function; those in the kernel as ``kernel``."""
    found: collections.Counter[str] = collections.Counter()
    command = ["perf", "script", "-i", str(file), "-F", "ip,sym,dso"]
    for line in subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines():
        match = LINE.match(line)
        if match is not None:
            library = Path(match[2]).name.partition(".")[0]
            found["kernel" if library.startswith("[kernel") else f"{library}: {match[1]}"] += 1
    return found


def main() -> int:
    """Sample in turns, and print what has grown."""
    given = rules.arguments("Where rules cost the fast lane CPU, by samples.")
    if shutil.which("perf") is None:
        print("this needs perf (linux-perf) on the PATH", file=sys.stderr)
        return 1
    load, cores = program("load"), given.cores
    found = {name: collections.Counter[str]() for name in rules.CASES}
    os.sched_setaffinity(0, {cores[1]})
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        upstream = subprocess.Popen([program("upstream"), "--port", "0"], stdout=subprocess.PIPE, text=True)
        stack.callback(upstream.wait)
        stack.callback(upstream.terminate)
        line = upstream.stdout.readline() if upstream.stdout is not None else ""
        gateway = rules.Gateway(folder, int(line.split()[1]), rules.CASES, {})
        stack.callback(gateway.process.wait)
        stack.callback(gateway.process.terminate)
        for task in Path(f"/proc/{gateway.process.pid}/task").iterdir():
            os.sched_setaffinity(int(task.name), {cores[0]})
        stack.enter_context(awake(cores))
        for number in range(given.rounds + 1):
            for name, samples in found.items():
                taking = sampled(gateway.process.pid, folder / "samples", LEAD_SECONDS + given.ms / 1000)
                gateway.turn(load, folder / "request", name, given.ms)
                taking.wait()
                if number:  # the first round warms up
                    samples.update(counted(folder / "samples"))
    show(found)
    return 0


def show(found: "dict[str, collections.Counter[str]]") -> None:
    """Print the table, and the functions that grow most in the last case but one."""
    first, *_ = found.values()
    whole = first.total() / first["kernel"]
    print(f"| | samples | of {next(iter(found))}, by the kernel's |\n|---|---:|---:|")
    for name, samples in found.items():
        print(f"| {name} | {samples.total():,} | {samples.total() / samples['kernel'] / whole:.4f} |")
    name = list(found)[-2]
    grown = {
        function: (found[name][function] / found[name]["kernel"] - first[function] / first["kernel"]) / whole
        for function in found[name]
    }
    print(f"\n| {name}: in | of all, more |\n|---|---:|")
    for function, share in sorted(grown.items(), key=lambda item: -item[1])[:SHOWN]:
        print(f"| {function} | {share * 100:.2f} % |")


if __name__ == "__main__":
    sys.exit(main())
