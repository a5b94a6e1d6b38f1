"""Threads for what agents' authors do not write asynchronously: tools above all.

The SDK runs such a tool in the loop's default executor, which the gateway uses itself. ``Threads`` is put in its place:
what is asked for within a run goes to ``Places`` of the agents' own, so that tools that block keep only each other waiting;
all else goes where it always went. A thread cannot be ended. So what a cancelled run has left running gives its place up
to the next, and ends by itself some day, or with the process.
"""

import asyncio
import functools
import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

from agw_proxy.sdk.entry import CURRENT, SERVING

P = ParamSpec("P")
T = TypeVar("T")
DEFAULT = 32
"""At a time, where nobody says another number."""
LEFT_TIMES = 4
"""So many times as many may go on that nobody waits for; beyond that, they keep their places."""

IDLE_SECONDS = 30.0
"""That a thread waits for the next call: to start one keeps the loop waiting until it runs."""

log = logging.getLogger("agw_proxy.sdk")


class Threads(ThreadPoolExecutor):
    """A loop's default executor with two sides. To be used on that loop."""

    def __init__(self, most: Callable[[], int]) -> None:
        """``most``: threads of agents at a time, asked for anew each time."""
        super().__init__(thread_name_prefix="agw")
        self.places = Places(most)

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """See ``Executor``."""
        run = CURRENT.get()
        if run is None or SERVING.get():
            return super().submit(fn, *args, **kwargs)
        return self.places.submit(run.agent, functools.partial(fn, *args, **kwargs))


class Work(Future[Any]):
    """One call. Whoever cancels it waits for it no more, also where it cannot be stopped."""

    def __init__(self, places: "Places", agent: str, call: Callable[[], Any]) -> None:
        super().__init__()
        self.agent = agent
        self.call: Callable[[], Any] | None = call
        self._places = places

    def cancel(self) -> bool:
        """See ``Future``."""
        cancelled = super().cancel()
        self._places.left(self)
        return cancelled


class Places:
    """Which calls run, which wait for a place, and which nobody waits for any more. Its threads keep no process from its end."""

    def __init__(self, most: Callable[[], int]) -> None:
        self._most = most
        self._lock = threading.Condition()
        self._waiting: deque[Work] = deque()
        self._given: deque[Work] = deque()  # to threads that have none: as many of these are not idle any more
        self._idle = 0
        self._running: set[Work] = set()
        self._left: set[Work] = set()

    @property
    def running(self) -> int:
        """Calls that have a place."""
        return len(self._running)

    def submit(self, agent: str, call: Callable[[], T]) -> Future[T]:
        """Make the call, of a run of that agent, on a thread once there is a place. It is forgotten where it is cancelled before."""
        work = Work(self, agent, call)
        with self._lock:
            self._waiting.append(work)
            self._serve()
        return work

    def left(self, work: Work) -> None:
        """Nobody waits for it: who does gets its place."""
        with self._lock:
            if work in self._running and not work.done() and len(self._left) < LEFT_TIMES * self._most():
                self._running.remove(work)
                self._left.add(work)
                number = len(self._left)
            else:
                number = 0
                if work in self._waiting:
                    self._waiting.remove(work)
            self._serve()
        if number:
            log.warning(
                "a tool of agent '%s' goes on, on a thread, after its run was cancelled; so do %d now",
                work.agent,
                number,
            )

    def _serve(self) -> None:
        """Find threads for those that wait, while there are places. Under the lock."""
        while (work := self._next()) is not None:
            if self._idle:
                self._idle -= 1
                self._given.append(work)
                self._lock.notify()
                continue
            try:
                threading.Thread(target=self._run, args=(work,), name="agw-tools", daemon=True).start()
            except RuntimeError as error:  # the machine has no more: who waits is told, and the place is free again
                self._running.discard(work)
                work.set_exception(error)

    def _next(self) -> Work | None:
        """The one that has waited longest, which has a place now; None where there is none. Under the lock."""
        while self._waiting and len(self._running) < self._most():
            work = self._waiting.popleft()
            if work.set_running_or_notify_cancel():
                self._running.add(work)
                return work
        return None

    def _run(self, first: Work) -> None:
        """A thread's life: one call after the other, until there was none for a while."""
        work: Work | None = first
        while work is not None:
            call, work.call = work.call, None
            try:
                made = call() if call is not None else None
            except StopIteration as error:  # no future of asyncio's takes it: whoever waits would do so for ever
                work.set_exception(RuntimeError(f"the call has raised {error!r}"))
            except BaseException as error:  # noqa: BLE001  whoever waits is told, whatever it is
                work.set_exception(error)
            else:
                work.set_result(made)
            call = made = None
            with self._lock:
                self._running.discard(work)
                self._left.discard(work)
                work = self._next() or self._wait()

    def _wait(self) -> Work | None:
        """What this thread is given to do; None: nothing, for so long that it may end. Under the lock."""
        self._idle += 1
        if self._lock.wait_for(lambda: self._given, IDLE_SECONDS):
            return self._given.popleft()
        self._idle -= 1
        return None


def divide(loop: asyncio.AbstractEventLoop, most: Callable[[], int]) -> Threads:
    """From now on, agents' synchronous tools have threads of their own on that loop, ``most`` at a time."""
    threads = Threads(most)
    loop.set_default_executor(threads)
    return threads
