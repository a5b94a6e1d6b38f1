"""What limits cost the fast lane: CPU a request of one gateway with none, with three, and with a budget, interleaved.

    python -m bench.rules [--rounds N] [--ms N]

All gateways run at once, one at a time under load. The figure to watch is the ratio of the medians; on a machine that
does other things at the same time, it is the only one.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from bench.load.build import program
from bench.proxies.request import build

KEY = "agw-bench-rules-4b7d1c90e25fa836"
FAR = 1_000_000_000
THREE = [
    {"per": "key", "requests": FAR, "period": "1h"},
    {"per": "key", "tokens": FAR, "period": "1h"},
    {"per": "user", "requests": FAR, "period": "1h"},
]
PLAIN = [{"per": "key", "requests": FAR, "period": "1h"}, *[{**THREE[2], "per": per} for per in ("user", "model")]]
CASES: dict[str, dict[str, object]] = {
    "no rules": {},
    "three rules in requests": {"limits": PLAIN},
    "three rules, one in tokens": {"limits": THREE},
    "three rules and a budget": {"limits": THREE, "budgets": [{"usd": 1_000_000}]},
}


def cpu(pid: int) -> float:
    """Seconds of CPU that the process has used: the scheduler's own account, in nanoseconds."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


class Gateway:
    """One gateway with the mock upstream behind it."""

    def __init__(self, folder: Path, upstream: int, more: dict[str, object]) -> None:
        folder.mkdir()
        entry = {"name": "mock", "base_url": f"http://127.0.0.1:{upstream}/v1", "api_key": "none", "models": ["gpt-*"]}
        tree = {
            "server": {"port": 0},
            "upstreams": [entry],
            "keys": [{"name": "app", "key": KEY, **more}],
            "prices": [{"model": "gpt-*", "input": 1, "output": 1, "max_output": 1000}],
        }
        file = folder / "gateway.yaml"
        file.write_text(yaml.safe_dump(tree))
        file.chmod(0o600)
        env = {**os.environ, "XDG_STATE_HOME": str(folder / "state")}
        self._log = folder / "log"
        command = [sys.executable, "-m", "agw_proxy", "serve", "--config", str(file)]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(command, env=env, stdout=log, stderr=log)
        self.port = self._ready()

    def _ready(self) -> int:
        while True:
            for line in self._log.read_text().splitlines():
                if '"server.ready"' in line:
                    return int(json.loads(line)["url"].split(":")[2].split("/")[0])
            if self.process.poll() is not None:
                raise RuntimeError(self._log.read_text())
            time.sleep(0.05)

    def run(self, load: Path, request: Path, milliseconds: int) -> tuple[float, float]:
        """Requests a second, and microseconds of CPU a request."""
        request.write_bytes(build(self.port, "gpt-4o-mini", KEY, {"x-user-id": "ann"}, stream=False))
        command = [str(load), "--port", str(self.port), "--request", str(request), "--measure-ms", str(milliseconds)]
        command += ["--warmup-ms", "300", "--connections", "64"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
            if running.stdout is None:
                raise RuntimeError("no output")
            lines = iter(running.stdout)
            next(line for line in lines if line.startswith("start"))
            before = cpu(self.process.pid)
            next(line for line in lines if line.startswith("end"))
            used = cpu(self.process.pid) - before
            told = json.loads(next(lines))
        if any(told["errors"].values()):
            raise RuntimeError(f"the load was not served: {told}")
        return told["requests"] / milliseconds * 1000, used / told["requests"] * 1e6


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--ms", type=int, default=1500)
    given = parser.parse_args()
    load = program("load")
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in CASES}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        upstream = subprocess.Popen([program("upstream"), "--port", "0"], stdout=subprocess.PIPE, text=True)
        gateways: dict[str, Gateway] = {}
        try:
            line = upstream.stdout.readline() if upstream.stdout is not None else ""
            for name, more in CASES.items():
                gateways[name] = Gateway(folder / str(len(gateways)), int(line.split()[1]), more)
            for number in range(given.rounds):
                order = list(gateways.items())
                for name, gateway in order if number % 2 else reversed(order):
                    found[name].append(gateway.run(load, folder / "request", given.ms))
        finally:
            processes: list[subprocess.Popen[Any]] = [upstream, *[gateway.process for gateway in gateways.values()]]
            for process in processes:
                process.terminate()
                process.wait()
    base = statistics.median(cost for _, cost in found["no rules"])
    print("| | requests/s | CPU us/request | of no rules |\n|---|---|---|---|")
    for name, rounds in found.items():
        rate, cost = (statistics.median(column) for column in zip(*rounds, strict=True))
        print(f"| {name} | {rate:,.0f} | {cost:.2f} | {cost / base:.3f} |")


if __name__ == "__main__":
    main()
