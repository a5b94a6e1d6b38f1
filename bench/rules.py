"""What limits cost the fast lane: CPU a request without rules, with three, and with a budget, in one gateway.

    python -m bench.rules [--rounds N] [--ms N] [--cores GATEWAY,LOAD]

A key a case, all of *one* process: two processes of the same program and configuration differ by more than the rules
cost (where its memory came to lie, what the core was at meanwhile), and however long one measures them, that does not
go away. Each round gives every key a short turn in an order of its own, and a turn is compared with those without
rules of its own round. "No rules" is measured a second time as if it were something else: what its row is off 1 is
what the others may be off, too.
"""

import argparse
import contextlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from bench.awake import awake
from bench.load.build import program
from bench.proxies.request import build

FAR = 1_000_000_000
THREE = [
    {"per": "key", "requests": FAR, "period": "1h"},
    {"per": "key", "tokens": FAR, "period": "1m"},  # hundreds of rounds use up more than that
    {"per": "user", "requests": FAR, "period": "1h"},
]
PLAIN = [{"per": "key", "requests": FAR, "period": "1h"}, *[{**THREE[2], "per": per} for per in ("user", "model")]]
BASE = "no rules"
Cases = Mapping[str, Mapping[str, object]]
"""What each key has beside its name. The first is what the others are compared with."""
CASES: Cases = {
    BASE: {},
    "no rules, once more": {},
    "three rules in requests": {"limits": PLAIN},
    "three rules, one in tokens": {"limits": THREE},
    "three rules and a budget": {"limits": THREE, "budgets": [{"usd": 1_000_000}]},
}
WARMUP_MS = 60
LEAST_REQUESTS = 200  # a turn with fewer says nothing: somebody else had the core
KEY_BYTES = 64  # of all keys: a longer one is more to read


def key_of(name: str) -> str:
    """The key of a case."""
    return f"agw-bench-rules-key-{name.replace(' ', '-').replace(',', '')}".ljust(KEY_BYTES, "-")


def cpu(pid: int) -> float:
    """Seconds of CPU that the process has used: the scheduler's own account, in nanoseconds."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


class Gateway:
    """The gateway with a key a case, in front of the mock upstream."""

    command: tuple[str, ...] = ()
    """What it is run by."""

    def __init__(self, folder: Path, upstream: int, cases: Cases, sections: Mapping[str, Any]) -> None:
        """``upstream``: its port. ``sections``: what the configuration has beside these; its upstreams are added."""
        entry = {"name": "mock", "base_url": f"http://127.0.0.1:{upstream}/v1", "api_key": "none", "models": ["gpt-*"]}
        tree = {
            "server": {"port": 0},
            "keys": [
                {"name": f"app{number}", "key": key_of(name), **more}
                for number, (name, more) in enumerate(cases.items())
            ],
            "prices": [{"model": "gpt-*", "input": 1, "output": 1, "max_output": 1000}],
            **sections,
            "upstreams": [entry, *sections.get("upstreams", ())],
        }
        file = folder / "gateway.yaml"
        file.write_text(yaml.safe_dump(tree))
        file.chmod(0o600)
        env = {**os.environ, "XDG_STATE_HOME": str(folder / "state")}
        self.log = folder / "log"
        command = [*self.command, sys.executable, "-m", "agw_proxy", "serve", "--config", str(file)]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, env=env, stdout=log, stderr=log)
        self.port = self._ready()

    def _ready(self) -> int:
        while True:
            for line in self.log.read_text().splitlines():
                if '"server.ready"' in line:
                    return int(json.loads(line)["url"].split(":")[2].split("/")[0])
            if self.process.poll() is not None:
                raise RuntimeError(self.log.read_text())
            time.sleep(0.05)

    def turn(self, load: Path, request: Path, name: str, milliseconds: int) -> tuple[float, float] | None:
        """Requests a second, and microseconds of CPU a request, of one case; None where there were too few to tell."""
        request.write_bytes(build(self.port, "gpt-4o-mini", key_of(name), {"x-user-id": "ann"}, stream=False))
        command = [str(load), "--port", str(self.port), "--request", str(request), "--measure-ms", str(milliseconds)]
        command += ["--warmup-ms", str(WARMUP_MS), "--connections", "64"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
            if running.stdout is None:
                raise RuntimeError("no output")
            lines = iter(running.stdout)
            if next((line for line in lines if line.startswith("start")), None) is None:
                return None  # the machine stood still until the turn was over
            before = cpu(self.process.pid)
            next(line for line in lines if line.startswith("end"))
            used = cpu(self.process.pid) - before
            told = json.loads(next(lines))
        if any(told["errors"].values()):
            raise RuntimeError(f"the load was not served: {told}")
        if told["requests"] < LEAST_REQUESTS:
            return None
        return told["requests"] / milliseconds * 1000, used / told["requests"] * 1e6


def _end(process: subprocess.Popen[str] | subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.wait()


Turns = dict[str, list[tuple[float, float]]]


def measure(given: argparse.Namespace, folder: Path, cases: Cases, sections: Mapping[str, Any]) -> Turns:
    """All turns by case. The gateway has the first core, everything else the second."""
    load, cores = program("load"), given.cores
    found: Turns = {name: [] for name in cases}
    os.sched_setaffinity(0, {cores[1]})
    with contextlib.ExitStack() as stack:
        upstream = subprocess.Popen([program("upstream"), "--port", "0"], stdout=subprocess.PIPE, text=True)
        stack.callback(_end, upstream)
        line = upstream.stdout.readline() if upstream.stdout is not None else ""
        gateway = Gateway(folder, int(line.split()[1]), cases, sections)
        stack.callback(_end, gateway.process)
        for task in Path(f"/proc/{gateway.process.pid}/task").iterdir():
            os.sched_setaffinity(int(task.name), {cores[0]})
        stack.enter_context(awake(cores))
        for number in range(given.rounds + 1):
            for name in random.Random(number).sample(list(cases), len(cases)):
                turn = None
                while turn is None:
                    turn = gateway.turn(load, folder / "request", name, given.ms)
                if number:  # the first round warms up
                    found[name].append(turn)
    return found


def table(found: Turns) -> list[str]:
    """Markdown; the ratios with the middle half of them."""
    first = next(iter(found))
    lines = [f"| | requests/s | CPU us/request | of {first}, round by round (middle half) |", "|---|---:|---:|---:|"]
    base = [cost for _, cost in found[first]]
    for name, turns in found.items():
        rate, cost = (statistics.median(column) for column in zip(*turns, strict=True))
        low, middle, high = statistics.quantiles(
            [cost / of for (_, cost), of in zip(turns, base, strict=True)], n=4, method="inclusive"
        )
        lines.append(f"| {name} | {rate:,.0f} | {cost:.2f} | {middle:.3f} ({low:.3f} - {high:.3f}) |")
    return lines


def arguments(description: str, **more: int) -> argparse.Namespace:
    """Rounds, ``ms`` of a turn, the two cores, and ``more`` numbers, off the command line."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--ms", type=int, default=200)
    parser.add_argument("--cores", type=lambda text: [int(core) for core in text.split(",")], default=[0, 1])
    for name, default in more.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    return parser.parse_args()


def main() -> None:
    """Measure and print a table."""
    given = arguments("What limits cost the fast lane: CPU a request without rules, with three, and with a budget.")
    with tempfile.TemporaryDirectory() as folder:
        found = measure(given, Path(folder), CASES, {})
    print("\n".join(table(found)))


if __name__ == "__main__":
    main()
