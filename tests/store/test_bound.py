"""The bound of docs/redis.md: three processes on one real server, each offering several times the limit.

For every span between two requests that passed, what passed in it is held against the bound; times are the one monotonic
clock of the machine.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agw_proxy._hot.limit import BUCKET, SLIDING
from tests.store.offering import SHARE
from tests.support.redis_server import RedisServer

ROOT = Path(__file__).resolve().parent.parent.parent
NODES = 3
AMOUNT = 200
PERIOD_MS = 1000
LEASE = round(AMOUNT * SHARE)
TIMEOUT = 0.1
NEVER = 20.0  # a machine that stalls makes no answer late: each node would go on by itself then
NOTICED = 1.0  # seconds after its end in which an outage is over for the nodes: the probes' pause, and a busy machine's


class Offering:
    """The nodes' processes."""

    def __init__(self, server: RedisServer, seconds: float, algorithm: int, timeout: float) -> None:
        words = [str(word) for word in (seconds, algorithm, AMOUNT, PERIOD_MS, timeout)]
        self.processes = [
            subprocess.Popen(
                [sys.executable, "-m", "tests.store.offering", server.url, f"node{number}", *words],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for number in range(NODES)
        ]
        for process in self.processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in self.processes:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()

    def passed(self) -> list[list[int]]:
        """When what each let pass did, once all have ended."""
        found = []
        for process in self.processes:
            out, _ = process.communicate(timeout=30)
            assert process.returncode == 0
            found.append(json.loads(out))
        return found

    def end(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()


def most_within(times: list[int], span_ns: int) -> int:
    """The most that passed in any span of this length."""
    most = first = 0
    for last, at in enumerate(times):
        while at - times[first] >= span_ns:
            first += 1
        most = max(most, last - first + 1)
    return most


def assert_bound(times: list[int], algorithm: int, beyond: int) -> None:
    """In spans of a tenth of the period up to five periods. ``beyond``: what outages add."""
    for tenths in (1, 2, 5, 10, 15, 20, 30, 50):
        periods = tenths / 10
        full = AMOUNT * -(-tenths // 10) if algorithm == SLIDING else AMOUNT * (1 + periods)
        most = most_within(times, round(periods * PERIOD_MS * 1_000_000))
        assert most <= full + NODES * LEASE + beyond, f"{most} in {periods} periods"


@pytest.mark.parametrize("algorithm", [BUCKET, SLIDING], ids=["bucket", "sliding"])
def test_nodes_stay_within_the_bound(server: RedisServer, algorithm: int) -> None:
    offering = Offering(server, 2.5, algorithm, NEVER)
    try:
        found = offering.passed()
    finally:
        offering.end()
    times = sorted(time for node in found for time in node)
    assert_bound(times, algorithm, 0)
    assert len(times) >= AMOUNT * 1.5, "they let much less pass than they may"
    assert all(len(node) >= LEASE for node in found), "a node got nothing"


@pytest.mark.parametrize("algorithm", [BUCKET, SLIDING], ids=["bucket", "sliding"])
def test_nodes_stay_within_the_bound_while_the_server_is_frozen_and_comes_back_empty(
    server: RedisServer, algorithm: int
) -> None:
    offering = Offering(server, 4.0, algorithm, TIMEOUT)
    outages = []
    try:
        time.sleep(0.7)
        for stop, go in ((server.freeze, server.thaw), (server.kill, server.start)):
            began = time.monotonic()
            stop()
            time.sleep(0.5)
            go()
            outages.append(time.monotonic() - began + TIMEOUT + NOTICED)
            time.sleep(0.7)
        found = offering.passed()
    finally:
        offering.end()
    times = sorted(time for node in found for time in node)
    rate = AMOUNT / PERIOD_MS * 1000
    forgotten = AMOUNT
    assert_bound(times, algorithm, round(sum(AMOUNT + rate * outage for outage in outages)) + forgotten)
    assert len(times) >= AMOUNT * 2
