"""So many in a period, of all that share the memory; the others wait or are refused."""

import asyncio
import mmap
from collections.abc import AsyncIterator
from typing import Any

import pytest

from agw_proxy._hot.limit import Table
from agw_proxy.errors import RateLimited
from agw_proxy.sdk import host, rate_limit, retry
from agw_proxy.sdk.host import Host

SIZES: dict[str, Any] = {"slots": 64, "gates": 8, "windows": 32, "leases": 8}
LONG = 3600.0


@pytest.fixture(autouse=True)
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    told: list[str] = []
    monkeypatch.setattr(host, "_hosts", [])
    host.serve(Host(Table(**SIZES), lambda helper, _, outcome: told.append(f"{helper} {outcome}"), lambda *_: None))
    return told


async def test_what_is_too_much_is_refused_with_when_to_come_back(counted: list[str]) -> None:
    @rate_limit(2, period=LONG, wait=0)
    async def ask(what: str) -> str:
        return what

    assert [await ask("a"), await ask("b")] == ["a", "b"]
    with pytest.raises(RateLimited, match="ask may be called 2 times in 3600 s") as refused:
        await ask("c")
    assert 1_700_000 < (refused.value.retry_after_ms or 0) <= 1_800_000
    assert counted == ["rate_limit refused"]


async def test_what_comes_too_early_waits(counted: list[str]) -> None:
    @rate_limit(1, period=0.3, wait=30)
    async def ask() -> int:
        return 1

    @rate_limit(1, period=0.3, wait=30)
    def say() -> int:
        return 1

    assert sum(await asyncio.gather(ask(), ask(), ask())) == 3
    assert await asyncio.to_thread(lambda: [say(), say()]) == [1, 1]
    assert set(counted) == {"rate_limit waited"}


async def test_a_stream_waits_before_it_begins() -> None:
    @rate_limit(1, period=LONG, wait=0)
    async def stream() -> AsyncIterator[int]:
        yield 1

    assert [item async for item in stream()] == [1]
    with pytest.raises(RateLimited):
        [item async for item in stream()]


def test_workers_share_a_limit_and_names_do_too() -> None:
    memory = mmap.mmap(-1, Table.size(**SIZES))

    def ask() -> None: ...

    one, other = (rate_limit(2, period=LONG, wait=0, name="shared")(ask) for _ in range(2))
    own = rate_limit(1, period=LONG, wait=0)(ask)
    for worker, function in enumerate((one, other)):
        host.serve(Host(Table(memory, worker=worker, **SIZES), lambda *_: None, lambda *_: None))
        function()
    with pytest.raises(RateLimited):
        one()
    own()


def test_a_burst_may_be_less_than_the_amount() -> None:
    @rate_limit(requests=100, period=LONG, burst=2, wait=0)
    def ask() -> None: ...

    ask()
    ask()
    with pytest.raises(RateLimited):
        ask()


def test_without_a_gateway_the_limit_is_the_processs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "_hosts", [])

    @rate_limit(1, period=LONG, wait=0)
    def ask() -> None: ...

    ask()
    with pytest.raises(RateLimited):
        ask()


@pytest.mark.parametrize("members", [{"requests": 0}, {"period": 0}, {"burst": -1}, {"wait": -1}])
def test_nonsense_is_refused_where_it_stands(members: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="expected requests"):
        rate_limit(**members)  # type: ignore[call-overload]  # as an author may


async def test_a_call_that_waits_is_counted_once(counted: list[str]) -> None:
    @rate_limit(1, period=0.05, wait=30)
    async def ask() -> None: ...

    await asyncio.gather(*(ask() for _ in range(4)))
    assert counted == ["rate_limit waited"] * 3


def test_who_comes_back_when_it_was_told_to_is_let_in() -> None:
    calls: list[int] = []

    @retry(2)
    @rate_limit(1, period=0.0203, wait=0)
    def ask() -> None:
        calls.append(1)

    for _ in range(8):
        ask()
    assert len(calls) == 8
