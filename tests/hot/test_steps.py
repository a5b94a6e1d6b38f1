"""Steps of a run's tasks: passed on as they are, told when they are late, and they end no process."""

import asyncio
import sys
import time
from contextvars import ContextVar
from typing import Any

import pytest

from agw_proxy._hot.steps import STEP, Contained, Quit, Tasks


async def asked(steps: int, answer: object) -> object:
    for _ in range(steps):
        await asyncio.sleep(0)
    return answer


async def raising(error: BaseException) -> None:
    await asyncio.sleep(0)
    raise error


@pytest.mark.parametrize("answer", [None, 1, (), (1, 2), [3], StopIteration(4), ValueError("an answer, too")])
@pytest.mark.parametrize("steps", [0, 1, 3])
async def test_what_it_returns_is_passed_on(answer: object, steps: int) -> None:
    assert await asyncio.create_task(Contained(asked(steps, answer), "run")) is answer


async def test_what_it_raises_is_passed_on() -> None:
    error = ValueError("mine")
    with pytest.raises(ValueError, match="mine") as caught:
        await asyncio.create_task(Contained(raising(error)))
    assert caught.value is error


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
async def test_what_would_end_the_process_is_an_ordinary_exception(error: BaseException) -> None:
    with pytest.raises(Quit, match=type(error).__name__) as caught:
        await asyncio.create_task(Contained(raising(error)))
    assert caught.value.__cause__ is error


async def test_it_is_a_coroutine_like_any_other() -> None:
    contained = Contained(asked(0, 5))
    assert asyncio.iscoroutine(contained)
    assert await contained == 5
    sent = Contained(asked(1, 6))
    assert sent.send(None) is None
    with pytest.raises(StopIteration) as ended:
        sent.send(None)
    assert ended.value.value == 6
    thrown = Contained(asked(1, 7))
    thrown.send(None)
    with pytest.raises(LookupError):
        thrown.throw(LookupError("no"))
    closed = Contained(asked(1, 8))
    closed.close()
    with pytest.raises(RuntimeError):
        closed.send(None)


async def test_a_task_that_is_cancelled_ends() -> None:
    task = asyncio.create_task(Contained(asyncio.Event().wait()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_steps_have_a_run_and_a_number() -> None:
    seen: list[tuple[Any, int]] = []

    async def look() -> None:
        for _ in range(2):
            seen.append((STEP.run, STEP.number))
            await asyncio.sleep(0)

    await asyncio.create_task(Contained(look(), "mine"))
    assert [run for run, _ in seen] == ["mine", "mine"]
    assert seen[0][1] < seen[1][1]
    assert STEP.run is None


async def test_a_late_step_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[Any, int, float]] = []
    monkeypatch.setattr(STEP, "hears", lambda *late: told.append(late))

    async def late() -> None:
        end = time.monotonic() + STEP.most
        while time.monotonic() < end:
            pass

    await asyncio.create_task(Contained(late(), "late"))
    await asyncio.create_task(Contained(late()))  # of no run: nobody to name
    ((run, number, seconds),) = told
    assert (run, number < STEP.number, seconds >= STEP.most) == ("late", True, True)


async def test_tasks_of_a_run_are_contained() -> None:
    current: ContextVar[Any] = ContextVar("current", default=None)
    serving: ContextVar[bool] = ContextVar("serving", default=False)
    loop = asyncio.get_running_loop()
    before = loop.get_task_factory()
    loop.set_task_factory(Tasks(current, serving))

    def inner(task: "asyncio.Task[Any]") -> object:
        return task.get_coro()

    try:
        outside = loop.create_task(asked(0, 1), name="outside")
        current.set("run")
        within = loop.create_task(asked(0, 2), name="within")
        made = Contained(asked(0, 3), "other")
        once = loop.create_task(made)
        serving.set(True)
        own = loop.create_task(asked(0, 4))
    finally:
        loop.set_task_factory(before)
    assert [isinstance(inner(task), Contained) for task in (outside, within, once, own)] == [False, True, True, False]
    assert (outside.get_name(), within.get_name(), inner(once)) == ("outside", "within", made)
    assert [await task for task in (outside, within, once, own)] == [1, 2, 3, 4]


async def test_nothing_is_left_of_what_has_run() -> None:
    answer, run = object(), object()
    counts = set()
    for _ in range(100):
        await asyncio.create_task(Contained(asked(2, answer), run))
        counts.add((sys.getrefcount(answer), sys.getrefcount(run)))
    assert len(counts) == 1
