"""``@retry``: what has failed for the moment is tried again, after a wait with full jitter or as long as was asked for."""

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, overload

from agw_proxy.errors import BudgetSpent, GatewayError, SessionSpent
from agw_proxy.policy.retry_after import wait_ms
from agw_proxy.sdk.host import here
from agw_proxy.sdk.wrapping import P, R, T, name_of, wrap

AGAIN = frozenset({408, 409, 425, 429})
"""Statuses below 500 that another attempt may better, as providers' own clients have it."""
SPENT = "insufficient_quota"
DOUBLINGS = 32
ALL_MS = 1 << 53
"""However long the other side wants to be left alone: whether that is too long is the author's to say."""
On = type[Exception] | tuple[type[Exception], ...] | Callable[[Exception], bool]


@overload
def retry(function: Callable[P, R], /) -> Callable[P, R]: ...


@overload
def retry(
    attempts: int = 3, /, *, on: On = Exception, base: float = 0.5, most: float = 30.0
) -> Callable[[Callable[P, R]], Callable[P, R]]: ...


@overload
def retry(
    *, attempts: int = 3, on: On = Exception, base: float = 0.5, most: float = 30.0
) -> Callable[[Callable[P, R]], Callable[P, R]]: ...


def retry(
    function: Callable[P, R] | int | None = None,
    /,
    *,
    attempts: int = 3,
    on: On = Exception,
    base: float = 0.5,
    most: float = 30.0,
) -> Callable[P, R] | Callable[[Callable[P, R]], Callable[P, R]]:
    """Call again what has raised, ``attempts`` times in all; the last error is raised as it is.

    ``on``: the exceptions that another attempt may better, or a function that says so of one. An error that says itself
    that it is none of these is raised at once: of a status 4xx but 408, 409, 425 and 429, of a spent quota, one of the
    gateway's that is final. ``base``: seconds before the second attempt at most, twice as many before each further one,
    up to ``most``; drawn evenly from 0. Where an error's answer says ``Retry-After`` (or ``retry-after-ms``), or the
    error is one of the gateway's limits, it is waited for so long instead; not at all beyond ``most``.

    An async generator is begun again only until it has yielded something. Raises ValueError, TypeError.
    """
    number = function if isinstance(function, int) else attempts
    if number < 1 or base < 0 or most < 0:
        raise ValueError(f"expected attempts >= 1, base >= 0 and most >= 0, got {number}, {base} and {most}")
    if not (_are_errors(on) if isinstance(on, type | tuple) else callable(on)):
        raise TypeError(f"expected 'on' to be an exception's class, a tuple of them, or a function of one, got {on!r}")

    def around(given: Callable[P, R]) -> Callable[P, R]:
        return wrap(given, _Retry(name_of(given), number, on, base, most))

    return around if function is None or isinstance(function, int) else around(function)


def _are_errors(on: object) -> bool:
    return all(
        isinstance(each, type) and issubclass(each, Exception) for each in (on if isinstance(on, tuple) else (on,))
    )


class _Retry:
    def __init__(self, name: str, attempts: int, on: On, base: float, most: float) -> None:
        self._name, self._attempts, self._on, self._base, self._most = name, attempts, on, base, most

    def sync(self, call: Callable[[], T]) -> T:
        """See ``Helper``."""
        number = 1
        while True:
            try:
                return call()
            except Exception as error:  # noqa: BLE001  which of them is the author's to say
                wait = self._wait(number, error)
            time.sleep(wait)
            number += 1

    async def awaited(self, call: Callable[[], Awaitable[T]]) -> T:
        """See ``Helper``."""
        number = 1
        while True:
            try:
                return await call()
            except Exception as error:  # noqa: BLE001  likewise
                wait = self._wait(number, error)
            await asyncio.sleep(wait)
            number += 1

    async def streamed(self, call: Callable[[], AsyncGenerator[T, None]]) -> AsyncGenerator[T, None]:
        """See ``Helper``."""
        number = 1
        while True:
            items = call()
            begun = False
            try:
                async for item in items:
                    begun = True
                    yield item
                return
            except Exception as error:
                if begun:
                    raise
                wait = self._wait(number, error)
            finally:
                await items.aclose()
            await asyncio.sleep(wait)
            number += 1

    def _wait(self, number: int, error: Exception) -> float:
        """Seconds until the next attempt; raises the error where there is none."""
        wanted = isinstance(error, self._on) if isinstance(self._on, type | tuple) else self._on(error)
        if not wanted or not _hopeful(error):
            raise error
        told = _told(error)
        if number >= self._attempts or (told is not None and told > self._most):
            here().helped("retry", self._name, "gave_up")
            raise error
        here().helped("retry", self._name, "again")
        if told is not None:
            return told
        return random.random() * min(self._most, self._base * 2.0 ** min(number - 1, DOUBLINGS))  # noqa: S311  no secret


def _hopeful(error: Exception) -> bool:
    """Nothing about the error says that another attempt ends alike."""
    if isinstance(error, GatewayError):
        final = isinstance(error, SessionSpent | BudgetSpent)
        return not final and (error.retryable or error.retry_after_ms is not None)
    if getattr(error, "code", None) == SPENT or _headers(error).get("x-should-retry") == "false":
        return False
    status = _status(error)
    return status is None or status >= 500 or status in AGAIN


def _status(error: Exception) -> int | None:
    """Of the answer that the error is about: httpx's, requests', aiohttp's and providers' clients' each have it somewhere."""
    response = getattr(error, "response", None)
    for value in (
        getattr(error, "status_code", None),
        getattr(response, "status_code", None),
        getattr(error, "status", None),
    ):
        if isinstance(value, int) and 400 <= value <= 599:
            return value
    return None


def _told(error: Exception) -> float | None:
    """Seconds that the other side wants to be left alone."""
    if isinstance(error, GatewayError):
        return None if error.retry_after_ms is None else error.retry_after_ms / 1000
    pairs = [(name.encode(), value.encode("latin-1", "replace")) for name, value in _headers(error).items()]
    told = wait_ms(pairs, datetime.now(UTC), ALL_MS)
    return None if told is None else told / 1000


def _headers(error: Exception) -> dict[str, str]:
    """Of the answer that the error is about, names in lower case."""
    headers: Any = getattr(getattr(error, "response", None), "headers", None) or getattr(error, "headers", None)
    items = getattr(headers, "items", None)  # the standard library's are no Mapping
    return {str(name).lower(): str(value) for name, value in items()} if callable(items) else {}
