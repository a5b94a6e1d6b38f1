"""One measurement: start a peer, load it, account it, stop it."""

import contextlib
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, NamedTuple, Self

from bench.awake import awake
from bench.load.build import program
from bench.proxies import processes, request
from bench.proxies.peer import Peer, Setting
from bench.proxies.peers import DIRECT
from bench.proxies.references import tls_front
from bench.proxies.scenarios import Scenario
from bench.proxies.tls import make_certificate

POLL_SECONDS = 0.002
IDLE_SECONDS = 2.0  # between the first answer and the look at the idle memory: what that answer brought counts, too
AT = 0.8  # of the window: when the memory under load is read
SPARE_FILES = 256  # descriptors of a process that are no connections
US = 1000.0
SAID_CHARACTERS = 300

Sample = dict[str, float]
"""Figures of one measurement by name; see ``figures`` for the names and units."""


class Cores(NamedTuple):
    """Which core the proxy has to itself, and which one everything else shares."""

    proxy: int
    load: int


class Running(NamedTuple):
    """A peer that has answered once."""

    process: subprocess.Popen[bytes] | None
    port: int
    cold_seconds: float
    folder: Path

    @property
    def pids(self) -> list[int]:
        """The peer's processes; none for the direct way."""
        return [] if self.process is None else processes.family(self.process.pid)


class Bench:
    """``with Bench(cores) as bench``: the upstream runs (and a TLS front, once one is needed); peers come and go."""

    def __init__(self, cores: Cores) -> None:
        self.cores = cores
        self.files = processes.raise_file_limit()
        self._stack = contextlib.ExitStack()
        self._kept: dict[str, Running] = {}
        self._tls: tuple[int, Path] | None = None
        self._upstream_port = 0
        self._helpers: list[int] = []  # processes on the load's side, and those that keep the cores awake
        self._folder = Path()

    def __enter__(self) -> Self:
        self._folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="agw-bench-")))
        upstream = subprocess.Popen([program("upstream")], stdout=subprocess.PIPE, text=True)
        self._stack.callback(_end, upstream)
        self._helpers.append(upstream.pid)
        assert upstream.stdout is not None
        os.sched_setaffinity(upstream.pid, {self.cores.load})
        os.sched_setaffinity(0, {self.cores.load})
        self._upstream_port = int(upstream.stdout.readline().split()[1])
        self._helpers += self._stack.enter_context(awake(self.cores))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def sample(self, peer: Peer, scenario: Scenario) -> Sample:
        """Measure one peer under one scenario. Raises RuntimeError where it does not start or answer."""
        self._pace(scenario)
        with self._running(peer, scenario) as running:
            idle = processes.memory(running.pids)
            connections = min(scenario.connections_for(peer.speed), (self.files - SPARE_FILES) // 2)
            counts, cpu_ns, foreign_ns, loaded = self._load(peer, scenario, running, connections)
        found = figures(scenario, counts, cpu_ns, connections)
        found["foreign_share"] = max(foreign_ns, 0) / 1e9 / counts["seconds"]
        if not counts["requests"] and not counts["events"]:
            errors = ", ".join(f"{count} {kind}" for kind, count in counts["errors"].items() if count)
            said = f", last status {counts['last_status']}" if counts["last_status"] else ""
            raise RuntimeError(f"no good answer under this load: {errors or 'none at all'}{said}")
        if running.process is not None:
            found |= {"cold_s": running.cold_seconds, "idle_rss_mb": idle.rss_mb, "idle_pss_mb": idle.pss_mb}
            if scenario.events:
                found["kb_per_stream"] = (loaded.rss_mb - idle.rss_mb) * processes.KIB / connections
        return found

    @contextlib.contextmanager
    def _running(self, peer: Peer, scenario: Scenario) -> Iterator[Running]:
        if peer is DIRECT:
            yield Running(None, self._upstream_port, 0.0, self._folder)
        elif peer.kept:
            running = self._kept.get(peer.name)
            if running is None:
                running = self._kept[peer.name] = self._start(peer, scenario, self._stack)
            assert running.process is not None
            processes.pause(running.process, paused=False)
            try:
                yield running
            finally:
                processes.pause(running.process, paused=True)
        else:
            with contextlib.ExitStack() as stack:
                yield self._start(peer, scenario, stack)

    def _start(self, peer: Peer, scenario: Scenario, stack: contextlib.ExitStack) -> Running:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=self._folder, ignore_cleanup_errors=True)))
        port = processes.free_port()
        upstream_port, ca_file = self._secure() if scenario.tls else (self._upstream_port, None)
        setting = Setting(folder, port, upstream_port, bool(scenario.events), self.files, ca_file)
        argv, env = peer.launch(setting)
        begun = time.perf_counter()
        process = processes.spawn(argv, core=self.cores.proxy, folder=folder, env=_environment(folder) | dict(env))
        stack.callback(_unfreeze_and_stop, process)
        try:
            for _ in processes.until(process, peer.start_seconds, POLL_SECONDS):
                if self._answers(peer, port):
                    break
        except RuntimeError as error:
            said = " ".join(_tail(file) for file in (folder / "output", *folder.glob("*.log"))).strip()
            raise RuntimeError(f"{error}: {said}" if said else str(error)) from None
        cold_seconds = time.perf_counter() - begun
        time.sleep(IDLE_SECONDS)
        return Running(process, port, cold_seconds, folder)

    def _answers(self, peer: Peer, port: int) -> bool:
        """Whether a chat request is answered with 200."""
        content = request.body(peer.model, stream=False)
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {peer.key}"}
        connection = HTTPConnection("127.0.0.1", port, timeout=peer.start_seconds)
        with contextlib.closing(connection), contextlib.suppress(OSError, HTTPException):
            connection.request("POST", request.PATH, content, {**headers, **peer.headers(self._upstream_port)})
            response = connection.getresponse()
            response.read()
            return response.status == 200
        return False

    def _load(
        self, peer: Peer, scenario: Scenario, running: Running, connections: int
    ) -> tuple[dict[str, Any], int, int, processes.Memory]:
        """Give what the generator counted, the peer's CPU in the window, that of strangers, and its memory late in it."""
        stream = bool(scenario.events)
        headers = peer.headers(self._upstream_port)
        file = running.folder / "request"
        file.write_bytes(request.build(running.port, peer.model, peer.key, headers, stream=stream))
        options = {
            "port": running.port,
            "connections": connections,
            "measure-ms": scenario.measure_ms,
            "warmup-ms": scenario.warmup_ms,
            "ramp-ms": scenario.ramp_ms,
            "rate": scenario.rate,
            "events": scenario.events,
            "least-bytes": request.LEAST_ANSWER_BYTES,
        }
        argv = [str(program("load")), "--request", str(file)]
        for name, value in options.items():
            argv += [f"--{name}", str(value)]
        pids = running.pids
        load = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        ours = [os.getpid(), load.pid, *self._helpers]
        try:
            assert load.stdout is not None
            _expect(load, "start")
            before, all_before = processes.cpu_ns(pids), self._foreign(pids, ours)
            time.sleep(scenario.measure_ms / 1000 * AT)
            loaded = processes.memory(pids) if stream else processes.Memory(0, 0)
            _expect(load, "end")
            after, all_after = processes.cpu_ns(pids), self._foreign(pids, ours)
            counts: dict[str, Any] = json.loads(load.stdout.readline())
            return counts, after - before, all_after - all_before, loaded
        finally:
            _end(load)

    def _foreign(self, pids: list[int], ours: list[int]) -> int:
        """Give the time that the two cores have spent on anything but this measurement, to a tick or two."""
        return processes.busy_ns(self.cores) - processes.cpu_ns([*pids, *ours])

    def _pace(self, scenario: Scenario) -> None:
        """Tell the upstream how streams go from now on."""
        connection = HTTPConnection("127.0.0.1", self._upstream_port, timeout=5)
        with contextlib.closing(connection):
            connection.request("GET", f"/control/{scenario.pace_us}/{scenario.events or 1}")
            connection.getresponse().read()

    def _secure(self) -> tuple[int, Path]:
        """Give the port of the TLS front and the authority's file; starts it on the load's core at first."""
        if self._tls is None:
            folder = Path(tempfile.mkdtemp(dir=self._folder))
            authority, certificate, key = make_certificate(folder)
            setting = Setting(folder, processes.free_port(), self._upstream_port, False, self.files, None)
            argv, _ = tls_front(setting, certificate, key)
            front = processes.spawn(argv, core=self.cores.load, folder=folder, env=_environment(folder))
            self._stack.callback(processes.stop, front)
            time.sleep(IDLE_SECONDS)
            if front.poll() is not None:
                raise RuntimeError(f"the TLS front does not start: {_tail(folder / 'output')}")
            self._helpers += processes.family(front.pid)
            self._tls = setting.port, authority
        return self._tls


def figures(scenario: Scenario, counts: dict[str, Any], cpu_ns: int, connections: int) -> Sample:
    """Name the figures: *_us microseconds, *_s seconds, *_mb and *_kb sizes; rates are a second."""
    seconds = counts["seconds"]
    errors = sum(counts["errors"].values())
    found: Sample = {"errors": errors, "connections": connections, "missing": counts["missing"]}
    if scenario.events:
        events = counts["events"]
        found["events_per_s"] = events / seconds
        found["streams_per_s"] = counts["streams"] / seconds
        found["cpu_us_per_event"] = cpu_ns / US / events if events else float("nan")
        if scenario.expected_events:
            found["on_time"] = events / seconds / (scenario.expected_events * connections)
        for name in ("ttft", "delay", "gap"):
            found |= _percentiles(name, counts[name])
    else:
        found["requests_per_s"] = counts["requests"] / seconds
        found["cpu_us_per_request"] = cpu_ns / US / counts["requests"] if counts["requests"] else float("nan")
        found |= _percentiles("latency", counts["latency"])
    found["cpu_share"] = cpu_ns / 1e9 / seconds
    return found


def _percentiles(name: str, histogram: dict[str, float]) -> Sample:
    if not histogram["count"]:
        return {}
    return {f"{name}_{share}_us": histogram[share] for share in ("p50", "p99", "p999")}


def _environment(folder: Path) -> dict[str, str]:
    """Nothing of the caller's but the path."""
    return {"PATH": os.environ["PATH"], "HOME": str(folder), "XDG_STATE_HOME": str(folder), "LANG": "C.UTF-8"}


def _tail(file: Path) -> str:
    """Give the end of what a program has printed, on one line."""
    return " ".join(file.read_text(errors="replace").split())[-SAID_CHARACTERS:]


def _expect(load: subprocess.Popen[str], word: str) -> None:
    assert load.stdout is not None
    line = load.stdout.readline().strip()
    if line != word:
        raise RuntimeError(f"the load generator ended: expected {word!r}, got {line!r}")


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    process.communicate()


def _unfreeze_and_stop(process: subprocess.Popen[bytes]) -> None:
    processes.pause(process, paused=False)
    processes.stop(process)
