"""The supervisor with workers that follow a script; tests/e2e/test_workers.py has it with real ones."""

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import orjson
import pytest

from agw_proxy._hot.limit import CONCURRENT, PER_GLOBAL, Limits, Rule
from agw_proxy.edge.direct_log import DirectWriter, open_direct
from agw_proxy.edge.shared import Shared
from agw_proxy.edge.slots import BACKOFF_SECONDS, Slot
from agw_proxy.edge.supervisor import START_ATTEMPTS
from tests.support.gateway import INHERITED, PACKAGE_ROOT, Tree


class Script:
    """A supervisor in a process of its own."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        assert process.stderr is not None
        assert process.stdout is not None
        self.process = process
        self._log: IO[bytes] = process.stderr
        self._said: IO[bytes] = process.stdout

    def next(self, event: str) -> Tree:
        """The next line of this event in its log."""
        for line in self._log:
            tree: Any = orjson.loads(line)
            if tree["event"] == event:
                assert isinstance(tree, dict)
                return tree
        raise AssertionError(f"no {event} any more")

    def stop(self) -> tuple[int, str]:
        """SIGTERM; the exit code and what it printed."""
        self.process.send_signal(signal.SIGTERM)
        return self.end()

    def end(self) -> tuple[int, str]:
        """The same, once it has ended by itself."""
        said, _ = self.process.communicate(timeout=20)
        return self.process.returncode, said.decode()


@contextmanager
def supervised(behaviour: str, folder: Path) -> Iterator[Script]:
    environ = {name: value for name, value in os.environ.items() if INHERITED.fullmatch(name)}
    tests = str(Path(__file__).parents[2])
    with subprocess.Popen(
        [sys.executable, "-m", "tests.edge.supervised", behaviour],
        cwd=folder,
        env={**environ, "PYTHONPATH": f"{PACKAGE_ROOT}:{tests}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        try:
            yield Script(process)
        finally:
            process.kill()


@pytest.mark.parametrize(("behaviour", "why"), [("fails", "no luck today"), ("dies", "exit code 3")])
def test_workers_that_never_get_ready_end_the_start_with_their_reason(behaviour: str, why: str, tmp_path: Path) -> None:
    with supervised(behaviour, tmp_path) as script:
        ended = [script.next("worker.ended") for _ in range(START_ATTEMPTS)]
        code, said = script.end()
    assert code == 1
    assert said.rstrip().endswith(f"ended {START_ATTEMPTS} times before it was ready: {why}")
    assert {line["how"] for line in ended} == {"exit code 3"}


def test_workers_that_were_ready_once_are_replaced_for_ever(tmp_path: Path) -> None:
    with supervised("leaves", tmp_path) as script:
        for _ in range(2 * START_ATTEMPTS + 2):
            assert script.next("worker.ended")["how"] == "exit code 0"
        assert script.stop()[0] == 0


def test_workers_of_agents_that_never_get_ready_end_nothing(tmp_path: Path) -> None:
    with supervised("apart", tmp_path) as script:
        ended = [script.next("worker.ended") for _ in range(START_ATTEMPTS)]
        assert {line["worker"] for line in ended} == {2}
        script.next("announced")
        assert script.next("worker.ended")["worker"] == 2, "it is tried again"
        assert script.stop()[0] == 0


def test_the_back_off_doubles_up_to_a_bound() -> None:
    slot = Slot(0)
    waits = []
    for _ in range(9):
        slot.postpone(1000.0)
        assert slot.due is not None
        waits.append(round(slot.due - 1000.0, 3))
    first, most = BACKOFF_SECONDS
    assert waits == [min(first * 2**step, most) for step in range(9)]
    assert waits[-1] == most


def test_a_worker_that_does_not_heed_the_drain_is_killed_in_the_end(tmp_path: Path) -> None:
    with supervised("ignores", tmp_path) as script:
        workers = {script.next("worker.ready")["worker"] for _ in range(2)}
        script.process.send_signal(signal.SIGTERM)
        killed = [script.next("worker.killed") for _ in range(2)]
        assert script.end()[0] == 0
    assert workers == {line["worker"] for line in killed} == {0, 1}
    assert {line["reason"] for line in killed} == {"it did not end in time"}


def test_a_worker_that_hangs_up_and_stays_is_killed_and_replaced(tmp_path: Path) -> None:
    with supervised("hangs_up", tmp_path) as script:
        first = {script.next("worker.ready")["pid"] for _ in range(2)}
        assert script.next("worker.killed")["reason"] == "it has hung up and did not end"
        assert script.next("worker.ended")["how"] == f"signal {signal.SIGKILL.value}"
        assert script.next("worker.ready")["pid"] not in first
        assert script.stop()[0] == 0


def test_a_dead_workers_slots_and_gauges_come_back_and_no_others() -> None:
    shared = Shared(2)
    limits = [
        Limits(shared.table(worker), [Rule("global/concurrent", PER_GLOBAL, CONCURRENT, 3)]) for worker in range(2)
    ]
    grants = [limits[worker].admit(1) for worker in (0, 1, 1)]
    assert [grant.granted for grant in grants] == [True] * 3
    assert not limits[0].admit(1).granted
    meters = [shared.meter(worker) for worker in range(2)]
    for meter in meters:
        meter.add(meter.series("agw_connections"), 5)
    assert shared.bury(1) == 2
    again = [limits[0].admit(1) for _ in range(3)]
    assert [grant.granted for grant in again] == [True, True, False]
    told = {sample.family.name: sample.value for sample in meters[0].collect() if not sample.family.labels}
    assert told["agw_connections"] == 5


def test_each_worker_has_a_tick_of_its_own() -> None:
    shared = Shared(28)
    for worker in range(28):
        shared.tick(worker, 10**15 + worker)
    assert [shared.ticked_ns(worker) for worker in range(28)] == [10**15 + worker for worker in range(28)]


def test_the_log_of_a_supervisor_never_blocks() -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb", 0) as out, os.fdopen(writing, "w") as stream:
        writer = DirectWriter(stream)
        writer.put(b"first")
        assert out.read(64) == b"first\n"
        line = b"x" * (3 * select.PIPE_BUF)
        for _ in range(100):  # more than a pipe holds: what does not fit is dropped
            writer.put(line)
        os.set_blocking(reading, False)
        held = b""
        with suppress(BlockingIOError):
            while piece := out.read(65536):
                held += piece
        assert held.startswith(line + b"\n" + line)
        assert len(held) < 100 * len(line)


def test_a_reader_that_has_gone_does_not_end_the_supervisor() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as stream:
        DirectWriter(stream).put(b"nobody reads this")


def test_the_log_file_is_appended_to_and_is_its_owners(tmp_path: Path) -> None:
    file = tmp_path / "logs" / "agw.log"
    for number in range(2):
        log = open_direct(level="info", form="auto", file=file, environ={})
        log.events.info("worker.ready", worker=number)
        log.events.debug("worker.detail")
        log.writer.close()
    assert [orjson.loads(line)["worker"] for line in file.read_bytes().splitlines()] == [0, 1]
    assert file.stat().st_mode & 0o777 == 0o600
