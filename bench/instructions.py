"""Instructions of the fast lane, counted: what a clock cannot tell on a busy machine. Needs valgrind on the PATH.

    python -m bench.instructions [--turns N]

Gateways run under callgrind, one after the other. A case is a request that one client asks again and again over one
connection, and its count is all that the process did meanwhile beyond what it does when it is idle, by request: what
requests cause in the background is paid for, too. Cases take turns; what is told is the median turn. The first case of a
table is in it a second time, as the control. Streams hold EVENTS events.
"""

import argparse
import contextlib
import os
import random
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bench import mixed, rules
from bench import redis as shared
from bench.load.build import program
from bench.proxies.request import build
from tests.support.redis_server import RedisServer

EVENTS = 100
REQUESTS = 200  # a turn
MANY = 3500  # so that parts of shared limits are taken in each turn
WARMUP = 20
CALM_SECONDS = 1.0
IDLE_SECONDS = 3.0
BASE = "no rules"
LEASED = {
    BASE: {},
    "one shared limit, in requests": shared.limits(1, "1s", 1),
    "two, one in tokens": shared.limits(2, "1s", 1),
    "three": shared.limits(3, "1s", 1),
}
QUERY = "?api-version=2024-10-21-preview"
TOTAL = re.compile(r"^(?:totals|summary): (\d+)", re.MULTILINE)
ENDED = b"0\r\n\r\n"


@dataclass(frozen=True)
class Case:
    """A request, of a key."""

    name: str
    key: str = BASE
    stream: bool = False
    query: str = ""
    more: Mapping[str, str] = field(default_factory=dict)


class Counted(rules.Gateway):
    """A gateway under callgrind."""

    def __init__(self, folder: Path, upstream: int, cases: rules.Cases, sections: Mapping[str, Any]) -> None:
        """See ``rules.Gateway``."""
        self._folder = folder
        self.command = ("valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/counted")
        super().__init__(folder, upstream, cases, sections)

    def settle(self) -> None:
        """Wait until all is loaded that is loaded after the first request."""
        with socket.create_connection(("127.0.0.1", self.port)) as connection:
            ask(connection, build(self.port, "gpt-4o-mini", rules.key_of(BASE), {}, stream=False))
        used = -CALM_SECONDS
        while (now := cpu(self.process.pid)) - used > CALM_SECONDS / 20:
            used = now
            time.sleep(CALM_SECONDS)
        self._idle = self._counted(lambda: time.sleep(IDLE_SECONDS)) / IDLE_SECONDS

    def count(self, case: Case, requests: int) -> float:
        """Instructions a request."""
        made = build(
            self.port, "gpt-4o-mini", rules.key_of(case.key), {"x-user-id": "ann", **case.more}, stream=case.stream
        )
        made = made.replace(b" HTTP/1.1", case.query.encode() + b" HTTP/1.1", 1)
        with socket.create_connection(("127.0.0.1", self.port)) as connection:
            connection.settimeout(60)
            ask(connection, made, WARMUP)
            begun = time.monotonic()
            spent = self._counted(lambda: ask(connection, made, requests))
        return (spent - self._idle * (time.monotonic() - begun)) / requests

    def _counted(self, do: Callable[[], object]) -> int:
        """Instructions of the process while that is done."""
        self._control("--zero")
        do()
        self._control("--dump")
        newest = max(self._folder.glob("counted.*"), key=lambda file: int(file.suffix[1:]))
        total = TOTAL.search(newest.read_text())
        if total is None:
            raise RuntimeError(f"callgrind has told no total in {newest}")
        return int(total[1])

    def _control(self, what: str) -> None:
        subprocess.run(["callgrind_control", what, str(self.process.pid)], check=True, capture_output=True)


def cpu(pid: int) -> float:
    """Seconds of CPU of all threads of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def ask(connection: socket.socket, request: bytes, times: int = 1) -> None:
    """Send it and read the whole answer, so many times. Raises RuntimeError where it is none that can be counted."""
    for _ in range(times):
        connection.sendall(request)
        got = b""
        while b"\r\n\r\n" not in got:
            got += connection.recv(65536)
        head, _, body = got.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(got.decode(errors="replace"))
        length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
        while len(body) < int(length[1]) if length else not body.endswith(ENDED):
            body += connection.recv(65536)


@contextlib.contextmanager
def upstream() -> Iterator[int]:
    """The mock, on a port."""
    with subprocess.Popen(
        [program("upstream"), "--port", "0", "--events", str(EVENTS)], stdout=subprocess.PIPE, text=True
    ) as running:
        line = running.stdout.readline() if running.stdout is not None else ""
        try:
            yield int(line.split()[1])
        finally:
            running.terminate()


def table(
    title: str,
    cases: list[Case],
    keys: rules.Cases,
    sections: Mapping[str, Any],
    turns: int,
    requests: int = REQUESTS,
) -> None:
    """Count the cases in one gateway and print them; the ratio is to the first."""
    cases = [*cases, replace(cases[0], name=f"{cases[0].name}, once more")]
    found: dict[str, list[float]] = {case.name: [] for case in cases}
    with upstream() as port, tempfile.TemporaryDirectory() as folder:
        gateway = Counted(Path(folder), port, keys, sections)
        try:
            gateway.settle()
            for number in range(turns):
                for case in random.Random(number).sample(cases, len(cases)):
                    found[case.name].append(gateway.count(case, requests))
        finally:
            gateway.process.send_signal(signal.SIGTERM)
            gateway.process.wait()
    base = found[cases[0].name]
    print(f"\n| {title} | instructions a request | of the first, turn by turn |\n|---|---:|---:|")
    for name, counts in found.items():
        low, middle, high = statistics.quantiles(
            [count / of for count, of in zip(counts, base, strict=True)], n=4, method="inclusive"
        )
        print(f"| {name} | {statistics.median(counts):,.0f} | {middle:.3f} ({low:.3f} - {high:.3f}) |", flush=True)


def main() -> None:
    """Count and print the tables."""
    parser = argparse.ArgumentParser(description="Instructions of the fast lane, counted under callgrind.")
    parser.add_argument("--turns", type=int, default=5)
    given = parser.parse_args()
    if shutil.which("valgrind") is None:
        sys.exit("valgrind is not on the PATH; on Debian: apt-get install valgrind")
    plain = [Case("a request"), Case("with a query", query=QUERY), Case("a stream", stream=True)]
    table("Plain", plain, {BASE: {}}, {}, given.turns)
    silent = {"server": {"port": 0, "ping_seconds": 0}}
    table("Without heartbeats", [plain[0], plain[2]], {BASE: {}}, silent, given.turns)
    others = {"upstreams": mixed.OTHERS}
    table("Upstreams of other forms beside it", [plain[0], plain[2]], {BASE: {}}, others, given.turns)
    local = [Case(name, key=name) for name in rules.CASES if not name.endswith("once more")]
    table("Rules", local, rules.CASES, {}, given.turns)
    with RedisServer() as redis:
        leased = [Case(name, key=name) for name in LEASED]
        # callgrind is slow: at the usual pace no part of a limit that is in use grows as old as its lease.
        kept = {"redis": {"url": redis.url, "lease": {"seconds": 60}}}
        table("Shared through Redis", leased, LEASED, kept, given.turns, MANY)


if __name__ == "__main__":
    main()
