"""Work on threads of its own: what it gives and raises comes back, and nobody waits for what never ends."""

import asyncio
import threading
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import pytest

from agw_proxy.tools.threads import Quit, begin, on_thread

HERE: ContextVar[str] = ContextVar("here", default="nowhere")


async def test_it_sees_the_context_of_whoever_begins_it() -> None:
    HERE.set("here")
    assert await on_thread(HERE.get, "looks") == "here"
    assert await on_thread(lambda: threading.current_thread().name, "named") == "named"


def _quits() -> None:
    raise SystemExit(3)


def _stops() -> None:
    raise StopIteration


def _fails() -> None:
    raise LookupError("not there")


@pytest.mark.parametrize(
    ("work", "kind", "told"),
    [(_quits, Quit, "SystemExit: 3"), (_stops, Quit, "Stop"), (_fails, LookupError, "not there")],
)
async def test_what_it_raises_is_told(work: Callable[[], Any], kind: type[Exception], told: str) -> None:
    with pytest.raises(kind, match=told):
        await on_thread(work, "fails")


async def test_its_end_is_told_also_where_nobody_waits() -> None:
    gate, over = threading.Event(), asyncio.Event()
    future = begin(lambda: gate.wait(60), "goes on", over.set)
    future.cancel()
    await asyncio.sleep(0)
    assert not over.is_set()
    gate.set()
    async with asyncio.timeout(30):
        await over.wait()


async def test_where_there_can_be_no_thread_its_end_is_told_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    over: list[int] = []
    monkeypatch.setattr(threading.Thread, "start", full)
    with pytest.raises(RuntimeError, match="can't start"):
        begin(int, "none", lambda: over.append(1))
    assert over == [1]


def test_a_loop_that_is_closed_hears_nothing_and_nothing_fails() -> None:
    gate, ended = threading.Event(), threading.Event()

    def work() -> None:
        gate.wait(60)
        ended.set()

    async def start() -> None:
        begin(work, "late")

    asyncio.run(start())
    gate.set()
    assert ended.wait(60)
