"""Work that would block the loop, done by a few threads; what would have to wait behind too much other is not done."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class Threads:
    """A bounded executor. Its threads are made when there is work."""

    def __init__(self, count: int, name: str, max_waiting: int) -> None:
        """``max_waiting``: pieces of work that wait for a thread, or are in one."""
        self._waiting = 0
        self._max_waiting = max_waiting
        self._pool = ThreadPoolExecutor(count, thread_name_prefix=name)

    async def do(self, work: Callable[[], T], otherwise: T) -> T:
        """What ``work`` gives, or ``otherwise`` where too much is waiting. Cancelled, the work is done all the same."""
        if self._waiting >= self._max_waiting:
            return otherwise
        self._waiting += 1
        task = asyncio.get_running_loop().run_in_executor(self._pool, work)
        task.add_done_callback(self._done)
        return await asyncio.shield(task)

    def close(self) -> None:
        """End the threads once they have done what they were asked."""
        self._pool.shutdown(wait=False)

    def _done(self, task: asyncio.Future[T]) -> None:
        self._waiting -= 1
        if not task.cancelled():
            task.exception()  # told to whoever waits, if somebody still does
