"""Relays beside busy agents: what 50 runs at a time, in a worker of their own, cost the relays of the same gateway.

    python -m bench.agents_beside [--rounds N] [--ms N] [--work N] [--threads N] [--cores RELAYS,REST]

A run calls a tool three times, which computes and waits in turns, ``--work`` times: with 50, a run takes some seconds, with 0
it takes as long as the SDK needs for it. Each is asked for by a request that comes to the relaying worker, which lends it to the
agent's: the shorter the runs, the more of them come by.

The relaying worker has a core to itself. The worker of the agents has the other, which it shares with the load generator
and the upstream: it runs with the lowest priority there, and so do the runs' clients, so that what is measured is the
gateway and not a generator that waits for a core. With ``--threads N``, that many runs at a time of an agent whose tool is
a plain function that computes for 0.2 s, on a thread of the one worker, which relays, too. Turns with the agents idle and
with them busy alternate; each pair is compared.
"""

import asyncio
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2

from bench import rules
from bench.awake import awake
from bench.load.build import program
from bench.proxies.request import build

AGENT = '''\
import asyncio

from agents import Agent, function_tool

from agw_proxy.sdk import FunctionModel


@function_tool
async def work(rounds: int) -> int:
    """Compute a little, and wait a little."""
    total = 0
    for _ in range(rounds):
        total += sum(range(20_000))
        await asyncio.sleep(0.005)
    return total


def plays(turn):
    return "Done." if len(turn.results) >= 3 else turn.use("work", rounds=ROUNDS)


agent = Agent(name="Busy", model=FunctionModel(plays), tools=[work])
'''
COMPUTES = '''\
import time

from agents import Agent, function_tool

from agw_proxy.sdk import FunctionModel


@function_tool
def work() -> int:
    """Compute."""
    total, until = 0, time.monotonic() + 0.2
    while time.monotonic() < until:
        total += sum(range(2000))
    return total


agent = Agent(name="Busy", model=FunctionModel(lambda turn: "Done." if len(turn.results) >= 3 else turn.use("work")), tools=[work])
'''
RUNS = 50
CONNECTIONS = "16"
WARMUP_MS = "150"
RATE = "2000"  # a second: what is measured is how late answers come, not how many
KEY = rules.key_of("beside")
LOWEST = 19


class Busy:
    """Keeps ``runs`` runs under way while ``on`` is set, from a thread of its own."""

    def __init__(self, port: int, runs: int) -> None:
        self._runs = runs
        self._url = f"http://127.0.0.1:{port}/v1/responses"
        self.on, self._over = threading.Event(), threading.Event()
        self.done = self.under_way = 0
        self._thread = threading.Thread(target=lambda: asyncio.run(self._go()), daemon=True)
        self._thread.start()

    async def _go(self) -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOWEST)
        limits = httpx2.Limits(max_connections=self._runs)
        async with httpx2.AsyncClient(timeout=60, limits=limits) as client:
            await asyncio.gather(*(self._client(client) for _ in range(self._runs)))

    async def _client(self, client: httpx2.AsyncClient) -> None:
        headers = {"Authorization": f"Bearer {KEY}"}
        while not self._over.is_set():
            if not self.on.is_set():
                await asyncio.sleep(0.05)
                continue
            self.under_way += 1
            reply = await client.post(self._url, json={"model": "default/busy", "input": "Go."}, headers=headers)
            self.under_way -= 1
            if reply.status_code != 200:
                raise RuntimeError(reply.text)
            self.done += 1

    def turn(self, on: bool) -> None:
        """Wait until all are at work, or all have ended."""
        (self.on.set if on else self.on.clear)()
        while self.under_way < self._runs * 0.8 if on else self.under_way:
            time.sleep(0.05)

    def close(self) -> None:
        """Let those under way end, and begin no more."""
        self._over.set()
        self._thread.join()


def workers(log: Path) -> list[int]:
    """Their pids, by their numbers: those that relay come first."""
    told = [json.loads(line) for line in log.read_text().splitlines() if '"worker.ready"' in line]
    return [line["pid"] for line in sorted(told, key=lambda line: line["worker"])]


def pin(pid: int, core: int, nice: int = 0) -> None:
    """All threads of a process."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(task.name), {core})
        os.setpriority(os.PRIO_PROCESS, int(task.name), nice)


def turn(load: Path, request: Path, port: int, relay: int, milliseconds: int) -> tuple[float, float] | None:
    """Microseconds of the relay's CPU a request, and the p99 in microseconds; None where there were too few to tell."""
    command = [str(load), "--port", str(port), "--request", str(request), "--measure-ms", str(milliseconds)]
    command += ["--warmup-ms", WARMUP_MS, "--connections", CONNECTIONS, "--rate", RATE]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        if running.stdout is None:
            raise RuntimeError("no output")
        lines = iter(running.stdout)
        next(line for line in lines if line.startswith("start"))
        before = rules.cpu(relay)
        next(line for line in lines if line.startswith("end"))
        used = rules.cpu(relay) - before
        told = json.loads(next(lines))
    if any(told["errors"].values()):
        raise RuntimeError(f"the load was not served: {told}")
    if told["requests"] < rules.LEAST_REQUESTS // 2:
        return None
    return used / told["requests"] * 1e6, float(told["latency"]["p99"])


@contextlib.contextmanager
def gateway(folder: Path, upstream: int, work: int, threads: int) -> Iterator[tuple[int, int, int]]:
    """The port, and the pids of the relaying worker and of the agents'; one and the same with ``threads``."""
    agents = folder / "agents" / "Busy"
    agents.mkdir(parents=True)
    (agents / "agent.py").write_text(COMPUTES if threads else AGENT.replace("ROUNDS", str(work)))
    sections = {"agents": {"paths": [str(agents.parent)], "workers": 0 if threads else 1, "concurrent": RUNS}}
    made = rules.Gateway(folder, upstream, {"beside": {}}, sections)
    try:
        relay, apart = (made.process.pid, made.process.pid) if threads else workers(made.log)
        yield made.port, relay, apart
    finally:
        made.process.send_signal(signal.SIGTERM)
        made.process.wait()


def main() -> int:
    """Measure in pairs and print the table."""
    given = rules.arguments("What relays cost beside busy agents.", work=50, threads=0)
    cores, load = given.cores, program("load")
    os.sched_setaffinity(0, {cores[1]})
    upstream = subprocess.Popen([program("upstream"), "--port", "0"], stdout=subprocess.PIPE, text=True)
    line = upstream.stdout.readline() if upstream.stdout is not None else ""
    found: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
    with (
        awake(cores),
        tempfile.TemporaryDirectory() as name,
        gateway(Path(name), int(line.split()[1]), given.work, given.threads) as (port, relay, apart),
    ):
        if apart != relay:
            pin(apart, cores[1], LOWEST)
        pin(relay, cores[0])
        request = Path(name, "request")
        request.write_bytes(build(port, "gpt-4o-mini", KEY, {}, stream=False))
        runs = given.threads or RUNS
        busy = Busy(port, runs)
        for number in range(given.rounds + 1):
            for on in (False, True):
                busy.turn(on)
                measured = None
                while measured is None:
                    measured = turn(load, request, port, relay, given.ms)
                if number:
                    found[on].append(measured)
        busy.close()
        done = busy.done
    upstream.terminate()
    upstream.wait()
    print(f"{RATE} relays a second; {done} runs ended\n\n| relays | CPU us/request | p99 us |\n|---|---:|---:|")
    for on, turns in found.items():
        cost, late = (statistics.median(column) for column in zip(*turns, strict=True))
        print(f"| {f'beside {runs} runs' if on else 'alone'} | {cost:.1f} | {late:,.0f} |")
    for at, what in enumerate(("CPU", "p99")):
        ratios = [two[at] / one[at] for one, two in zip(found[False], found[True], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
        print(f"{what}: {middle:.2f} x (middle half {low:.2f} - {high:.2f})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
