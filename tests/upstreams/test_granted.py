"""A credential is fetched once for all who wait, renewed ahead of its end, and kept where that fails."""

import asyncio
import threading
from collections.abc import Callable

import pytest

from agw_proxy.errors import UpstreamError, UpstreamRefused, UpstreamUnreachable
from agw_proxy.upstreams import granted
from agw_proxy.upstreams.granted import Grant, Granted

PATIENCE_SECONDS = 20


class Source:
    """Gives ``value-1``, ``value-2`` ..., each for ten seconds, by a clock that the test sets."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.asked = 0
        self.error: UpstreamError | None = None
        self.open = threading.Event()
        self.open.set()

    def __call__(self) -> Grant[str]:
        self.asked += 1
        assert self.open.wait(PATIENCE_SECONDS)
        assert threading.current_thread() is not threading.main_thread()
        if self.error is not None:
            raise self.error
        return Grant(f"value-{self.asked}", self.now + 6, self.now + 10)

    def clock(self) -> float:
        return self.now


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def held(source: Source) -> Granted[str]:
    return Granted("cloud", source, clock=source.clock)


async def until(done: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not done():
            await asyncio.sleep(0.001)


async def test_all_who_wait_get_one(source: Source, held: Granted[str]) -> None:
    source.open.clear()
    waiting = [asyncio.create_task(held.get()) for _ in range(20)]
    await until(lambda: source.asked == 1)
    waiting[0].cancel()  # the first one to ask goes: the others' is fetched on
    source.open.set()
    found = await asyncio.gather(*waiting[1:])
    assert (set(found), source.asked) == ({"value-1"}, 1)
    assert await held.get() == "value-1"


async def test_it_is_renewed_beside_the_requests_and_in_time(source: Source, held: Granted[str]) -> None:
    await held.get()
    source.now += 7
    source.open.clear()
    assert await held.get() == await held.get() == "value-1"  # nobody waits for the new one
    source.open.set()
    await until(lambda: source.asked == 2)
    async with asyncio.timeout(PATIENCE_SECONDS):
        while await held.get() == "value-1":
            await asyncio.sleep(0.001)
    source.now += 100
    assert await held.get() == "value-3"


async def test_the_old_one_is_kept_where_no_new_one_comes(source: Source, held: Granted[str]) -> None:
    await held.get()
    source.now += 7
    source.error = UpstreamUnreachable("none now")
    assert await held.get() == "value-1"
    await until(lambda: source.asked == 2)
    await until(lambda: held._running is None)
    assert await held.get() == "value-1"
    assert source.asked == 2  # not at each request
    source.now += 4
    with pytest.raises(UpstreamUnreachable, match="none now"):
        await held.get()


async def test_each_who_waits_gets_an_error_of_his_own(source: Source, held: Granted[str]) -> None:
    source.error = UpstreamRefused("no account")
    found = await asyncio.gather(held.get(), held.get(), return_exceptions=True)
    assert [type(error) for error in found] == [UpstreamRefused, UpstreamRefused]
    assert found[0] is not found[1]
    source.error = None
    assert await held.get() == "value-2"


async def test_a_refused_one_is_fetched_anew_but_not_over_and_over(source: Source, held: Granted[str]) -> None:
    await held.get()
    assert not held.forget()
    assert await held.get() == "value-1"
    source.now += 9.5
    source.now += 0.4
    assert not held.forget()
    source.now += 0.1
    assert held.forget()
    assert await held.get() == "value-2"


async def test_nobody_waits_for_ever(source: Source, held: Granted[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(granted, "SECONDS", 0.01)
    source.open.clear()
    with pytest.raises(UpstreamUnreachable, match=r"within 0\.01 s"):
        await held.get()
    source.open.set()
    await held.close()
