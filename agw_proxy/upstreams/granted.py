"""A credential that expires: fetched off the loop, by one thread at a time, and renewed ahead of its end."""

import asyncio
import time
from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

from agw_proxy.errors import UpstreamError, UpstreamUnreachable

T = TypeVar("T")
SECONDS = 20.0  # how long a request waits for one
PAUSE_SECONDS = 10.0  # after a renewal that has failed, as long as the one before is still good


class Grant(NamedTuple, Generic[T]):
    """What was fetched. ``renew_at``: from when on another one is fetched beside it; ``ends_at``: seconds since 1970."""

    value: T
    renew_at: float
    ends_at: float


class Granted(Generic[T]):
    """One credential of one upstream, in this process."""

    def __init__(self, name: str, fetch: Callable[[], Grant[T]], *, clock: Callable[[], float] = time.time) -> None:
        """``fetch``: may block; raises UpstreamError in words without secrets. ``name``: of the upstream."""
        self._name, self._fetch, self._clock = name, fetch, clock
        self._held: Grant[T] | None = None
        self._running: asyncio.Task[Grant[T]] | None = None
        self._not_before = self._since = 0.0

    async def get(self) -> T:
        """The credential. Raises UpstreamError where there is none; who waits may go, the others' goes on."""
        held, now = self._held, self._clock()
        if held is not None and now < held.ends_at:
            if now >= held.renew_at and now >= self._not_before and self._running is None:
                self._begin()
            return held.value
        running = self._running if self._running is not None else self._begin()
        try:
            async with asyncio.timeout(SECONDS):
                return (await asyncio.shield(running)).value
        except TimeoutError:
            raise UpstreamUnreachable(f"No credentials for upstream '{self._name}' within {SECONDS:g} s.") from None
        except UpstreamError as error:
            raise type(error)(error.message) from None  # each who waits gets an error of his own

    def forget(self) -> bool:
        """The upstream has refused it: fetch another. False: it is too new for that to help, and is kept."""
        if self._clock() - self._since < PAUSE_SECONDS:
            return False
        self._held = None
        return True

    async def close(self) -> None:
        """Fetch no more; a thread that is at it is not waited for."""
        running, self._running = self._running, None
        if running is not None:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    def _begin(self) -> "asyncio.Task[Grant[T]]":
        task = asyncio.get_running_loop().create_task(self._renew())
        self._running = task
        task.add_done_callback(self._ended)
        return task

    async def _renew(self) -> Grant[T]:
        return await asyncio.get_running_loop().run_in_executor(None, self._fetch)

    def _ended(self, task: "asyncio.Task[Grant[T]]") -> None:
        if self._running is task:
            self._running = None
        if task.cancelled():
            return
        if task.exception() is None:
            self._held, self._since = task.result(), self._clock()
        else:
            self._not_before = self._clock() + PAUSE_SECONDS
