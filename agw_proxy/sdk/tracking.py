"""``@track``: how often something is called, how long it takes and whether it fails, in the gateway's metrics and as spans."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from typing import overload

from agw_proxy.sdk.host import here
from agw_proxy.sdk.wrapping import P, R, T, name_of, wrap
from agw_proxy.spans import CURRENT, Span, enter


@overload
def track(function: Callable[P, R], /) -> Callable[P, R]: ...


@overload
def track(name: str | None = None, /) -> Callable[[Callable[P, R]], Callable[P, R]]: ...


@overload
def track(*, name: str | None = None) -> Callable[[Callable[P, R]], Callable[P, R]]: ...


def track(
    function: Callable[P, R] | str | None = None, /, *, name: str | None = None
) -> Callable[P, R] | Callable[[Callable[P, R]], Callable[P, R]]:
    """Count and time each call as ``agw_tracked_seconds{name, outcome}``: ``ok``, ``failed`` or ``cancelled``.

    ``name``: None is the function's module and name. Where its request is traced, each call is a span too, and what it
    does below it. What it is given and gives is never told, nor the words of an error. Raises TypeError.
    """
    label = function if isinstance(function, str) else name

    def around(inner: Callable[P, R]) -> Callable[P, R]:
        return wrap(inner, _Track(label or name_of(inner)))

    return around if function is None or isinstance(function, str) else around(function)


class _Track:
    def __init__(self, name: str) -> None:
        self._name = name

    def sync(self, call: Callable[[], T]) -> T:
        """See ``Helper``."""
        with self._told() as span, _within(span):
            return call()

    async def awaited(self, call: Callable[[], Awaitable[T]]) -> T:
        """See ``Helper``."""
        with self._told() as span, _within(span):
            return await call()

    async def streamed(self, call: Callable[[], AsyncGenerator[T, None]]) -> AsyncGenerator[T, None]:
        """See ``Helper``; between two items the context is the reader's."""
        items = call()
        with self._told() as span:
            try:
                while True:
                    try:
                        with _within(span):
                            item = await anext(items)
                    except StopAsyncIteration:
                        return
                    yield item
            finally:
                await items.aclose()

    @contextlib.contextmanager
    def _told(self) -> Iterator[Span | None]:
        above = CURRENT.get()
        span = above.child(self._name) if above is not None else None
        begun = time.monotonic_ns()
        outcome, kind = "cancelled", "cancelled"
        try:
            yield span
            outcome, kind = "ok", ""
        except asyncio.CancelledError:
            raise
        except Exception as error:
            outcome, kind = "failed", type(error).__name__
            raise
        finally:
            here().tracked(self._name, outcome, time.monotonic_ns() - begun)
            if span is not None:
                span.end(kind or None)


@contextlib.contextmanager
def _within(span: Span | None) -> Iterator[None]:
    """What is done is below the span."""
    above = CURRENT.get()
    if span is not None:
        enter(span)
    try:
        yield
    finally:
        if span is not None and above is not None and CURRENT.get() is span:
            enter(above)
