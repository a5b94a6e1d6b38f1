"""Asks Redis or Valkey, never longer than a bound; and not at all while it is slow, frozen or away.

Who asks waits at most ``timeout`` and then goes on without. What was asked is left to end for a while longer, so that a
late answer does not cost its connection, and a new connection is not given up before it is there. FAILURES in a row open
a breaker: then nobody waits at all, and a task of its own asks (``beat``) until an answer comes in time again.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any, Protocol, TypeVar

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeout

from agw_proxy.config.storage import Redis as Settings
from agw_proxy.store.base import Says

FAILURES = 2  # in a row: one late answer is a hiccup
PROBE_SECONDS = 0.25  # between two questions whether it is back
MAX_CONNECTIONS = 16  # of one worker; who needs another waits within its bound
LATE_FACTOR = 20  # an answer is waited for so many times the bound, by nobody but its connection
MIN_LATE_SECONDS = 0.5  # and at least so long: a connection with TLS needs several round trips

T = TypeVar("T")


class Away(Exception):
    """There was no answer in time, or none was waited for."""


class Told(Protocol):
    """Who hears how it goes: the metrics."""

    def redis_answered(self, nanoseconds: int) -> None:
        """An answer came, after so long."""
        ...

    def redis_failed(self, why: str) -> None:
        """None came: ``late``, ``unreachable``, ``refused`` or ``away`` (it was not asked)."""
        ...

    def redis_up(self, step: int) -> None:
        """It can be asked (1), or no more (-1)."""
        ...


class Client:
    """One worker's way to the server."""

    def __init__(self, settings: Settings, told: Told, say: Says) -> None:
        """It connects at the first question."""
        self.prefix = settings.prefix
        self.timeout = settings.timeout
        self.up = False
        """Whether it is asked: from the first answer on, until FAILURES in a row."""
        self.since = _now()
        """When that became so."""
        self.error: str | None = None
        """What went wrong last: ``late``, or the name of an exception; never its text, which may quote an address."""
        self._late = max(settings.timeout * LATE_FACTOR, MIN_LATE_SECONDS)
        self._told = told
        self._say = say
        self._failures = 0
        self._refused = False  # the last failure was an answer
        self._began = True  # nothing is known yet: the first loss is told as well
        self._known = asyncio.Event()
        self._watchers: list[Callable[[bool], None]] = []
        self._beat: Callable[[Redis], Coroutine[Any, Any, None]] = _ping
        self._running: set[asyncio.Task[Any]] = set()
        self._probing: asyncio.Task[None] | None = None
        self.pool = pool(settings, MAX_CONNECTIONS, self._late)
        self._redis = Redis(connection_pool=self.pool)

    def watch(self, heard: Callable[[bool], None]) -> None:
        """Call ``heard`` with True whenever it has come back (or is there for the first time), with False when it is lost."""
        self._watchers.append(heard)

    def start(self, beat: Callable[[Redis], Coroutine[Any, Any, None]] | None = None) -> None:
        """Connect, in the background. ``beat``: what proves that it is well; it should write, as takes do."""
        if beat is not None:
            self._beat = beat
        self._probe()

    async def ask(self, question: Callable[[Redis], Coroutine[Any, Any, T]]) -> T:
        """What ``question`` gives, or Away raised after ``timeout`` seconds at most.

        An answer that comes later is thrown away; use ``begin`` where it matters.
        """
        return await self.wait(self.begin(question))

    def begin(self, question: Callable[[Redis], Coroutine[Any, Any, T]]) -> asyncio.Task[T]:
        """Ask, and let it go on whoever waits; it raises Away. What it gives is told once, late or not. Raises Away."""
        if not self.up:
            self._told.redis_failed("away")
            raise Away
        return self._begin(question)

    async def wait(self, task: asyncio.Task[T]) -> T:
        """The answer, if it comes within ``timeout`` seconds from now; else raises Away."""
        done, _ = await asyncio.wait({task}, timeout=self.timeout)
        if not done:
            raise Away
        return task.result()

    async def known(self, seconds: float) -> None:
        """Wait until it is known whether it is there, but no longer than that."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._known.wait()

    def trip(self) -> None:
        """Treat it as lost until the next answer in time, which is asked for at once."""
        if self.up:
            self._turn(up=False)

    async def close(self) -> None:
        """Give up what is under way and close all connections."""
        tasks = [task for task in (self._probing, *self._running) if task is not None]
        self._probing = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.pool.disconnect()
        if self.up:
            self.up = False
            self._told.redis_up(-1)

    def _begin(self, question: Callable[[Redis], Coroutine[Any, Any, T]]) -> asyncio.Task[T]:
        loop = asyncio.get_running_loop()
        task = loop.create_task(self._ask(question))
        overdue = loop.call_later(self.timeout, self._fail, "late")
        self._running.add(task)

        def end(task: asyncio.Task[T]) -> None:
            overdue.cancel()
            self._running.discard(task)
            if not task.cancelled():
                task.exception()  # seen, should nobody wait any more

        task.add_done_callback(end)
        return task

    async def _ask(self, question: Callable[[Redis], Coroutine[Any, Any, T]]) -> T:
        begun = time.monotonic_ns()
        try:
            async with asyncio.timeout(self._late):
                answer = await question(self._redis)
        except TimeoutError:  # counted when it was overdue
            raise Away from None
        except RedisTimeout:  # all connections are taken: likewise
            raise Away from None
        except (RedisError, OSError) as error:
            self._fail("unreachable" if isinstance(error, RedisConnectionError | OSError) else "refused", error)
            raise Away from None
        except Exception as error:  # noqa: BLE001  a client that stumbles must not take requests with it, nor be silent
            self._fail("refused", error)
            raise Away from None
        took = time.monotonic_ns() - begun
        self._told.redis_answered(took)
        if took <= self.timeout * 1e9:
            self._failures = 0
        return answer

    def _fail(self, why: str, error: Exception | None = None) -> None:
        self._told.redis_failed(why)
        self._failures += 1
        self._refused = why == "refused"
        self.error = type(error).__name__ if error is not None else why
        if (self.up and self._failures >= FAILURES) or self._began:
            self._turn(up=False)

    def _turn(self, *, up: bool) -> None:
        if self.up != up:
            self.since = _now()
            self._told.redis_up(1 if up else -1)
        first, self._began = self._began, False
        self._known.set()
        self.up = up
        if not up:
            self._say.warning("redis.lost", error=self.error or "late")
            self._probe()
        elif not first:
            self._say.info("redis.back")
        for heard in self._watchers:
            heard(up)

    def _probe(self) -> None:
        if self._probing is None or self._probing.done():
            self._probing = asyncio.get_running_loop().create_task(self._look())

    async def _look(self) -> None:
        """Until an answer comes in time. One question at a time: what is frozen gets no queue of them."""
        while True:
            begun = time.monotonic()
            task = self._begin(self._beat)
            await asyncio.wait({task})
            if task.exception() is None and time.monotonic() - begun <= self.timeout:
                self._turn(up=True)
                return
            if self._refused:  # perhaps it is a replica by now, and its address leads to another
                with contextlib.suppress(RedisError, OSError):
                    await self.pool.disconnect(inuse_connections=False)
            await asyncio.sleep(PROBE_SECONDS)


def pool(settings: Settings, connections: int, seconds: float) -> BlockingConnectionPool:
    """Connections that try nothing twice; ``seconds`` to wait for a free one, and for a new one to be there."""
    return BlockingConnectionPool.from_url(
        settings.url.get_secret_value(),
        max_connections=connections,
        timeout=seconds,
        retry=Retry(NoBackoff(), 0),
        socket_timeout=None,  # who asks has a bound for a whole exchange, however many reads it takes
        socket_connect_timeout=seconds,
        protocol=2,
        driver_info=None,  # nobody needs two more commands a connection
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


async def _ping(redis: Redis) -> None:
    await redis.ping()
