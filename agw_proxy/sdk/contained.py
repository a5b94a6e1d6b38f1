"""What surrounds each step of agents' code on the loop: it cannot end the gateway, and it is known how long it takes.

asyncio lets SystemExit and KeyboardInterrupt out of the loop, whichever task they come from. So each task that is
made within a run turns them into an ordinary exception, of which the run dies alone. And while a step goes on, nothing
else does on the loop: ``STEP`` says whose it is, for ``lookout`` to see.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Generator
from types import TracebackType
from typing import Any

from agw_proxy.sdk.entry import CURRENT, SERVING, Run

BLOCKED_SECONDS = 0.2
"""A step that takes so long has kept all others waiting."""


class Quit(Exception):
    """The agent's code has asked for the end of the process."""


class Step:
    """The step of a run that the loop is in. One loop of a process runs agents."""

    __slots__ = ("began", "hears", "number", "run")

    def __init__(self) -> None:
        self.run: Run | None = None
        """None: in none of a run."""
        self.number = 0
        self.began = 0.0
        self.hears: Callable[[Run, int, float], None] | None = None
        """Told, on the loop, of each step that has taken too long: whose, its number, and its seconds."""


STEP = Step()


class Contained(Coroutine[Any, Any, Any]):
    """A coroutine that raises Quit for what would end the process. Steps are passed on as they are."""

    def __init__(self, inner: Coroutine[Any, Any, Any], run: Run | None = None) -> None:
        """``run``: whose it is."""
        self._inner = inner
        self._run = run

    def send(self, value: Any) -> Any:
        """See ``Coroutine``."""
        self._begin()
        try:
            return self._inner.send(value)
        except (SystemExit, KeyboardInterrupt) as error:
            raise Quit(f"the agent's code has raised {type(error).__name__}") from error
        finally:
            self._end()

    def throw(self, kind: Any, value: BaseException | object = None, traceback: TracebackType | None = None) -> Any:
        """See ``Coroutine``."""
        self._begin()
        try:
            return self._inner.throw(kind) if value is None else self._inner.throw(kind, value, traceback)
        except (SystemExit, KeyboardInterrupt) as error:
            raise Quit(f"the agent's code has raised {type(error).__name__}") from error
        finally:
            self._end()

    def _begin(self) -> None:
        STEP.began = time.monotonic()
        STEP.number += 1
        STEP.run = self._run

    def _end(self) -> None:
        run, STEP.run = STEP.run, None
        spent = time.monotonic() - STEP.began
        if spent >= BLOCKED_SECONDS and STEP.hears is not None and run is not None:
            STEP.hears(run, STEP.number, spent)

    def close(self) -> None:
        """See ``Coroutine``."""
        self._inner.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._inner.__await__()


def contain(loop: asyncio.AbstractEventLoop) -> None:
    """From now on, tasks that are made within a run are contained. A loop that makes its tasks in a way of its own is left alone."""
    if loop.get_task_factory() is None:
        loop.set_task_factory(_make)


def _make(loop: asyncio.AbstractEventLoop, coro: Any, **more: Any) -> "asyncio.Task[Any]":
    run = CURRENT.get()
    if run is not None and not SERVING.get() and not isinstance(coro, Contained):
        coro = Contained(coro, run)
    return asyncio.Task(coro, loop=loop, **more)
