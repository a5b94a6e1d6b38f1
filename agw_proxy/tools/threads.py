"""Threads of their own for work that may block: one that never ends keeps nobody else from theirs, nor the process from its end."""

import asyncio
import contextvars
import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


class Quit(Exception):
    """The work has raised what would end a program, or what a future does not take."""


def begin(work: Callable[[], T], name: str, ended: Callable[[], None] | None = None) -> asyncio.Future[T]:
    """Start it; the future, of the running loop, gets what it gives or raises (Quit for SystemExit and the like).

    It sees the context variables of whoever starts it. To cancel the future stops nothing. ``ended``: called on the loop,
    once, when the work is over, whoever still waits for it.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(put: Callable[[Any], None], value: object) -> None:
        if not done.done():  # else nobody waits any more
            put(value)

    def run() -> None:
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001  whatever a user's code raises is told, also SystemExit
            told = error
            if not isinstance(error, Exception) or isinstance(error, StopIteration):
                told = Quit(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)
            _tell(loop, settle, done.set_exception, told)
        else:
            _tell(loop, settle, done.set_result, result)
        finally:
            if ended is not None:
                _tell(loop, ended)

    thread = threading.Thread(target=contextvars.copy_context().run, args=(run,), name=name, daemon=True)
    try:
        thread.start()
    except RuntimeError:  # there can be no more threads
        if ended is not None:
            ended()
        raise
    return done


async def on_thread(work: Callable[[], T], name: str) -> T:
    """Do it on a thread of its own, and wait for it. Raises what it raises, see ``begin``."""
    return await begin(work, name)


def _tell(loop: asyncio.AbstractEventLoop, function: Callable[..., None], *arguments: object) -> None:
    """Have the loop call it, from another thread; nothing where the loop is closed."""
    try:
        loop.call_soon_threadsafe(function, *arguments)
    except RuntimeError:
        if not loop.is_closed():
            raise
