"""``@timeout``: a function that takes too long ends with a TimeoutError."""

import asyncio
import contextvars
import threading
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from concurrent.futures import Future
from typing import overload

from agw_proxy.sdk.host import here
from agw_proxy.sdk.wrapping import P, R, T, name_of, wrap

MAX_THREADS = 64
"""Of synchronous functions with a time-out, in one process; each is taken until its function has really ended."""
SECONDS = 30.0

_places = threading.BoundedSemaphore(MAX_THREADS)


@overload
def timeout(function: Callable[P, R], /) -> Callable[P, R]: ...


@overload
def timeout(seconds: float = SECONDS, /) -> Callable[[Callable[P, R]], Callable[P, R]]: ...


@overload
def timeout(*, seconds: float = SECONDS) -> Callable[[Callable[P, R]], Callable[P, R]]: ...


def timeout(
    function: Callable[P, R] | float | None = None, /, *, seconds: float = SECONDS
) -> Callable[P, R] | Callable[[Callable[P, R]], Callable[P, R]]:
    """Raise TimeoutError where it has not ended within ``seconds``.

    An async function is cancelled then, an async generator too, whose time is that of all it does (not of whoever reads
    it). A synchronous one runs on a thread of its own, one of MAX_THREADS: Python cannot end it, so it *goes on* and keeps
    its thread until it ends by itself. Raises ValueError, TypeError.
    """
    bound = float(function) if isinstance(function, int | float) else seconds
    if not 0 < bound <= threading.TIMEOUT_MAX:
        raise ValueError(f"expected seconds > 0 and finite, got {bound:g}")

    def around(inner: Callable[P, R]) -> Callable[P, R]:
        return wrap(inner, _Timeout(name_of(inner), bound))

    return around if function is None or isinstance(function, int | float) else around(function)


class _Timeout:
    def __init__(self, name: str, seconds: float) -> None:
        self._name, self._seconds = name, seconds

    def sync(self, call: Callable[[], T]) -> T:
        """See ``Helper``."""
        deadline = time.monotonic() + self._seconds
        if not _places.acquire(timeout=self._seconds):
            raise self._late(f"none of {MAX_THREADS} threads got free: what they run has not ended in its time either")
        done: Future[T] = Future()
        context = contextvars.copy_context()

        def run() -> None:
            try:
                done.set_result(context.run(call))
            except BaseException as error:  # noqa: BLE001  whatever it raises is its caller's, also SystemExit
                done.set_exception(error)
            finally:
                _places.release()

        try:
            threading.Thread(target=run, name=f"agw-timeout {self._name}", daemon=True).start()
        except RuntimeError:  # there can be no more threads
            _places.release()
            raise
        try:
            return done.result(max(deadline - time.monotonic(), 0.0))
        except TimeoutError:
            if done.done():  # it has raised one of its own, or ended at this very moment
                return done.result()
            raise self._late("its thread goes on until it ends by itself") from None

    async def awaited(self, call: Callable[[], Awaitable[T]]) -> T:
        """See ``Helper``."""
        clock = asyncio.timeout(self._seconds)
        try:
            async with clock:
                return await call()
        except TimeoutError:
            if clock.expired():
                raise self._late() from None
            raise

    async def streamed(self, call: Callable[[], AsyncGenerator[T, None]]) -> AsyncGenerator[T, None]:
        """See ``Helper``."""
        left = self._seconds
        items = call()
        try:
            while True:
                begun = time.monotonic()
                clock = asyncio.timeout(max(left, 0.0))
                try:
                    async with clock:
                        item = await anext(items)
                except StopAsyncIteration:
                    return
                except TimeoutError:
                    if clock.expired():
                        raise self._late() from None
                    raise
                left -= time.monotonic() - begun
                yield item
        finally:
            await items.aclose()

    def _late(self, why: str = "") -> TimeoutError:
        here().helped("timeout", self._name, "late")
        return TimeoutError(f"{self._name} did not end within {self._seconds:g} s" + (f"; {why}" if why else ""))
