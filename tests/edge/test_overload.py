"""A worker with more than it can do refuses new requests, without flapping, and never for ever."""

import asyncio
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from agw_proxy._hot.meter import Meter
from agw_proxy.config.settings import Settings
from agw_proxy.edge.descriptors import KEPT_DESCRIPTORS, Descriptors, descriptors
from agw_proxy.edge.overload import LOOK_SECONDS, Memory, Overload
from agw_proxy.errors import Overloaded
from agw_proxy.observe.log import Log
from agw_proxy.observe.metrics import FAMILIES, Metrics
from tests.edge.inprocess import Lines, serving
from tests.support.gateway import Tree
from tests.support.upstream import Upstream

MIB = 1 << 20
SECOND = 1_000_000_000


class Room:
    """Memory in use, as the test wants it."""

    bytes = 50 * MIB

    def __call__(self) -> int:
        return self.bytes


class Bench:
    """An overload with its surroundings."""

    def __init__(self, **sections: object) -> None:
        self.lines = Lines()
        self.metrics = Metrics(Meter(FAMILIES), "test")
        self.room = Room()
        self.lane = SimpleNamespace(active=0, shedding=False, max_requests=0, others=0)
        settings = Settings.model_validate(sections)
        self.overload = Overload(settings, self.metrics, Log(self.lines), Descriptors(), resident=self.room)
        self.overload.join(self.lane)
        self.now = 0

    def look(self, late_ms: float = 0) -> str | None:
        self.now += int(LOOK_SECONDS * SECOND)
        self.overload.look(self.now, int(late_ms * 1e6))
        assert self.lane.shedding == (self.overload.shedding is not None)
        return self.overload.shedding

    def value(self, name: str, **labels: str) -> object:
        found = [entry["value"] for entry in self.metrics.tree().get(name, []) if entry["labels"] == labels]  # type: ignore[attr-defined]
        return found[0] if found else None


def test_nothing_is_refused_by_default() -> None:
    bench = Bench()
    bench.room.bytes = 1 << 50
    bench.lane.active = 10**6
    assert bench.look(late_ms=10**6) is None
    bench.overload.check()


def test_requests_of_both_lanes_count() -> None:
    bench = Bench(server={"max_requests": 3})
    bench.lane.active = 2
    bench.overload.check()
    bench.overload.entered()
    assert (bench.lane.max_requests, bench.lane.others) == (3, 1)
    with pytest.raises(Overloaded, match=r"3 requests at once \(server\.max_requests\)") as refused:
        bench.overload.check()
    assert (refused.value.status, refused.value.retry_after_ms) == (503, 1000)
    assert bench.value("agw_shed_total", cause="requests") == 1
    bench.overload.left()
    bench.overload.check()
    assert bench.lane.others == 0


def test_a_late_loop_refuses_until_it_is_clearly_less_late() -> None:
    bench = Bench(server={"max_loop_lag": "100ms"})
    assert bench.look(late_ms=110) is None  # once is no state
    bench.lane.active = 1
    while bench.look(late_ms=150) is None:
        assert bench.overload.late_ns < 150e6
    with pytest.raises(Overloaded, match="max_loop_lag"):
        bench.overload.check()
    assert bench.look(late_ms=60) == "lag"
    assert all(bench.look(late_ms=60) == "lag" for _ in range(50))  # below the bound, but not by half
    while bench.look(late_ms=0) == "lag":
        pass
    bench.overload.check()
    assert [
        (line["event"], line["cause"]) for name in ("begun", "ended") for line in bench.lines.trees(f"overload.{name}")
    ] == [
        ("overload.begun", "lag"),
        ("overload.ended", "lag"),
    ]


def test_work_that_waits_for_a_turn_of_the_loop_is_late_too() -> None:
    bench = Bench(server={"max_loop_lag": "100ms"})
    waited = 0
    bench.overload.watch(lambda: waited)
    assert bench.look() is None
    waited = SECOND
    assert [bench.look() for _ in range(3)][-1] == "lag"
    waited = 0
    assert [bench.look() for _ in range(12)][-1] is None


def test_too_much_memory_refuses_until_it_is_clearly_less() -> None:
    bench = Bench(memory_limit_mb=100)
    assert bench.look() is None
    bench.lane.active = 1
    bench.room.bytes = 101 * MIB
    assert bench.look() == "memory"
    assert bench.value("agw_shedding", cause="memory") == 1
    with pytest.raises(Overloaded, match=r"100 MiB, memory_limit_mb"):
        bench.overload.check()
    bench.room.bytes = 99 * MIB
    assert bench.look() == "memory"
    bench.room.bytes = 94 * MIB
    assert bench.look() is None
    assert bench.value("agw_shedding", cause="memory") is None or bench.value("agw_shedding", cause="memory") == 0
    assert bench.value("agw_memory_bytes") == 94 * MIB


def test_memory_that_never_comes_back_does_not_refuse_for_ever() -> None:
    bench = Bench(memory_limit_mb=100)
    bench.room.bytes = 200 * MIB
    assert bench.look() == "memory"
    bench.overload.check()  # nothing else is under way
    bench.overload.entered()
    with pytest.raises(Overloaded):
        bench.overload.check()


def test_an_idle_worker_is_ready_whatever_its_memory() -> None:
    bench = Bench(memory_limit_mb=100)
    bench.room.bytes = 200 * MIB
    assert bench.look() == "memory"
    told = [bench.overload.refuses]  # a prober that took it out for this would never bring it back
    bench.overload.entered()
    told.append(bench.overload.refuses)
    bench.overload.left()
    told.append(bench.overload.refuses)
    assert told == [None, "memory", None]


def test_memory_that_is_not_known_is_no_reason() -> None:
    bench = Bench(memory_limit_mb=64)
    bench.room.bytes = -1
    assert bench.look() is None


def test_a_reload_without_the_bound_ends_it() -> None:
    bench = Bench(memory_limit_mb=100)
    bench.room.bytes = 200 * MIB
    assert bench.look() == "memory"
    bench.overload.take_up(Settings.model_validate({}))
    assert (bench.overload.shedding, bench.lane.shedding) == (None, False)


def test_the_memory_is_this_process_own() -> None:
    memory = Memory()
    before = memory.resident()
    held = bytearray(64 * MIB)
    assert memory.resident() - before > 32 * MIB
    assert len(held) == 64 * MIB
    memory.close()


def test_a_connection_near_the_last_descriptor_is_one_too_many() -> None:
    found = Descriptors()

    def numbered(number: int) -> SimpleNamespace:
        return SimpleNamespace(fileno=lambda: number)

    last = found.limit - KEPT_DESCRIPTORS
    assert [found.room(numbered(number)) for number in (5, last - 1, last, last + 1)] == [True, True, False, False]  # type: ignore[arg-type]
    assert found.room(None)


def test_it_is_said_once_a_second() -> None:
    found = Descriptors()
    assert [found.may_say(now) for now in (0.0, 0.5, 0.99, 1.0, 1.5, 2.1)] == [True, False, False, True, False, True]


def test_open_descriptors_are_counted() -> None:
    found = Descriptors()
    before = found.open()
    if before < 0:
        pytest.skip("the system does not tell how many descriptors are open")
    with open("/dev/null", "rb"):  # noqa: PTH123  a descriptor, no file
        assert found.open() == before + 1
    assert found.open() == before
    found.close()


async def test_the_limit_of_open_files_is_the_hard_one() -> None:
    assert descriptors() == descriptors() > 64


async def test_a_loop_that_is_kept_busy_refuses_and_recovers(config: Tree, upstream: Upstream, tmp_path: Path) -> None:
    config["server"]["max_loop_lag"] = "20ms"
    async with serving(config, tmp_path) as running:
        assert (await running.chat(model="gpt-4o-mini")).status == 200
        ended = False

        async def hog() -> None:
            while not ended:
                time.sleep(0.12)  # between two ticks, so that each comes too late
                await asyncio.sleep(0.001)

        busy = asyncio.create_task(hog())
        await running.until(lambda: running.gateway.shedding == "lag")
        refused = await running.chat(model="gpt-4o-mini")
        assert (refused.status, refused.value("x-agw-error"), refused.value("retry-after")) == (503, "gateway_overloaded", "1")  # fmt: skip
        assert (await running.ask("GET", "/health", key=None)).status == 200
        assert (await running.ask("GET", "/health/ready", key=None)).status == 200
        assert len(upstream.requests) == 1
        ended = True
        await busy
        await running.until(lambda: running.gateway.shedding is None)
        assert (await running.chat(model="gpt-4o-mini")).status == 200
