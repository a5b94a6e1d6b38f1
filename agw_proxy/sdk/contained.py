"""Keeps code of an agent's author that calls ``sys.exit`` from ending the gateway.

asyncio lets SystemExit and KeyboardInterrupt out of the loop, whichever task they come from. So each task that is
made within a run turns them into an ordinary exception, of which the run dies alone.
"""

import asyncio
from collections.abc import Coroutine, Generator
from types import TracebackType
from typing import Any

from agw_proxy.sdk.entry import CURRENT


class Quit(Exception):
    """The agent's code has asked for the end of the process."""


class Contained(Coroutine[Any, Any, Any]):
    """A coroutine that raises Quit for what would end the process. Steps are passed on as they are."""

    def __init__(self, inner: Coroutine[Any, Any, Any]) -> None:
        self._inner = inner

    def send(self, value: Any) -> Any:
        """See ``Coroutine``."""
        try:
            return self._inner.send(value)
        except (SystemExit, KeyboardInterrupt) as error:
            raise Quit(f"the agent's code has raised {type(error).__name__}") from error

    def throw(self, kind: Any, value: BaseException | object = None, traceback: TracebackType | None = None) -> Any:
        """See ``Coroutine``."""
        try:
            return self._inner.throw(kind) if value is None else self._inner.throw(kind, value, traceback)
        except (SystemExit, KeyboardInterrupt) as error:
            raise Quit(f"the agent's code has raised {type(error).__name__}") from error

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
    if CURRENT.get() is not None:
        coro = Contained(coro)
    return asyncio.Task(coro, loop=loop, **more)
