"""Steps of agents' code on the loop: what surrounds each of them. One loop of a process runs agents."""

import asyncio
from collections.abc import Callable, Coroutine, Generator
from contextvars import ContextVar
from types import TracebackType
from typing import Any, final

class Quit(Exception):
    """The agent's code has asked for the end of the process."""

@final
class Step:
    """The step of a run that the loop is in."""

    run: Any
    """Whose it is; None: the loop is in none of a run."""
    hears: Callable[[Any, int, float], None] | None
    """Told, on the loop, of each step that has taken too long: whose, its number, and its seconds."""
    @property
    def number(self) -> int:
        """Of this step, or of the last one."""
    @property
    def began(self) -> float:
        """When, by ``time.monotonic``, in seconds."""
    @property
    def most(self) -> float:
        """Seconds; a step that takes so long has kept all others waiting."""

STEP: Step

@final
class Contained(Coroutine[Any, Any, Any]):
    """A coroutine that raises Quit for what would end the process. Steps are passed on as they are."""

    def __init__(self, inner: Coroutine[Any, Any, Any], run: Any = None) -> None:
        """``run``: whose it is."""
    def send(self, value: Any) -> Any:
        """See ``Coroutine``."""
    def throw(self, kind: Any, value: BaseException | object = None, traceback: TracebackType | None = None) -> Any:
        """See ``Coroutine``."""
    def close(self) -> None:
        """See ``Coroutine``."""
    def __await__(self) -> Generator[Any, Any, Any]: ...

@final
class Tasks:
    """A loop's task factory: tasks that are made within a run are contained."""

    def __init__(self, current: ContextVar[Any], serving: ContextVar[bool]) -> None:
        """``current``: the run that code is part of, None outside of any. ``serving``: it is the gateway's own, though within one."""
    def __call__(
        self, loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, Any] | Generator[Any, None, Any], **more: Any
    ) -> asyncio.Task[Any]: ...
