"""What takes too long ends with a TimeoutError; what does not is left alone."""

import asyncio
import math
import threading
from collections.abc import AsyncIterator
from contextvars import ContextVar

import pytest

from agw_proxy.sdk import timeout, timeouts

SOON = 0.01
PATIENCE = 30.0
HERE: ContextVar[str] = ContextVar("here", default="")


async def test_an_async_function_is_cancelled() -> None:
    cancelled = asyncio.Event()

    @timeout(SOON)
    async def slow() -> None:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    with pytest.raises(TimeoutError, match=r"slow did not end within 0.01 s$"):
        await slow()
    assert cancelled.is_set()


async def test_a_functions_own_timeout_is_passed_on() -> None:
    error = TimeoutError("its own")

    @timeout(PATIENCE)
    async def slow() -> None:
        raise error

    @timeout(PATIENCE)
    def still() -> None:
        raise error

    for call in (slow(), asyncio.to_thread(still)):
        with pytest.raises(TimeoutError) as raised:
            await call
        assert str(raised.value) == "its own"


def test_a_synchronous_one_is_left_behind_on_its_thread() -> None:
    go, ended = threading.Event(), threading.Event()

    @timeout(SOON)
    def slow() -> None:
        go.wait(PATIENCE)
        ended.set()

    with pytest.raises(TimeoutError, match="its thread goes on"):
        slow()
    assert not ended.is_set()
    go.set()
    assert ended.wait(PATIENCE)


def test_a_synchronous_one_has_its_callers_context_and_gives_its_result() -> None:
    HERE.set("around")
    assert timeout(lambda: HERE.get())() == "around"  # noqa: PLW0108  a function, to be wrapped


def test_threads_are_bounded_and_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeouts, "_places", threading.BoundedSemaphore(1))
    go, done = threading.Event(), threading.Event()

    @timeout(SOON)
    def slow() -> None:
        go.wait(PATIENCE)

    @timeout(PATIENCE)
    def quick() -> None:
        done.set()

    with pytest.raises(TimeoutError, match="its thread goes on"):
        slow()
    with pytest.raises(TimeoutError, match="none of 64 threads got free"):
        slow()
    go.set()
    quick()
    assert done.is_set()


async def test_a_streams_time_is_its_own_and_not_its_readers() -> None:
    go = asyncio.Event()

    @timeout(SOON * 20)
    async def stream() -> AsyncIterator[int]:
        yield 1
        yield 2
        await go.wait()

    items = stream()
    for expected in (1, 2):
        assert await anext(items) == expected
        await asyncio.sleep(SOON * 15)
    with pytest.raises(TimeoutError, match="stream did not end"):
        await anext(items)


def test_nonsense_is_refused_where_it_stands() -> None:
    for seconds in (0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="expected seconds > 0"):
            timeout(seconds)


def test_where_there_can_be_no_more_threads_no_place_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(timeouts, "_places", threading.BoundedSemaphore(1))
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refused)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            timeout(PATIENCE)(lambda: 1)()
    assert timeout(PATIENCE)(lambda: 1)() == 1
