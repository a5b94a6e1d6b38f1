"""``@rate_limit``: so many calls in a period, of all workers of a gateway together; the others wait, or are refused."""

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import overload

from agw_proxy._hot.limit import PER_GLOBAL, REQUESTS, Limits, Rule
from agw_proxy.errors import RateLimited
from agw_proxy.sdk.host import Host, here
from agw_proxy.sdk.wrapping import P, R, T, name_of, wrap

CALLS, PERIOD, WAIT = 10, 1.0, 60.0
LEAST_SECONDS = 0.001
"""Between two looks at a limit."""


@overload
def rate_limit(function: Callable[P, R], /) -> Callable[P, R]: ...


@overload
def rate_limit(
    requests: int = CALLS,
    /,
    *,
    period: float = PERIOD,
    burst: int = 0,
    wait: float = WAIT,
    name: str | None = None,
) -> Callable[[Callable[P, R]], Callable[P, R]]: ...


@overload
def rate_limit(
    *,
    requests: int = CALLS,
    period: float = PERIOD,
    burst: int = 0,
    wait: float = WAIT,
    name: str | None = None,
) -> Callable[[Callable[P, R]], Callable[P, R]]: ...


def rate_limit(
    function: Callable[P, R] | int | None = None,
    /,
    *,
    requests: int = CALLS,
    period: float = PERIOD,
    burst: int = 0,
    wait: float = WAIT,
    name: str | None = None,
) -> Callable[P, R] | Callable[[Callable[P, R]], Callable[P, R]]:
    """Let ``requests`` calls begin in each ``period`` of seconds, up to ``burst`` at once (0: as many as ``requests``).

    It is the token bucket that the gateway limits its callers by, in memory that all its workers share; in a plain script
    it is the process's. One that comes too early waits, for at most ``wait`` seconds; where that would not do it raises
    ``agw_proxy.errors.RateLimited`` at once (``wait=0``: always), which ``retry`` around it understands. ``name``: functions
    of the same name share a limit; None: each has its own. Raises ValueError, TypeError.
    """
    amount = function if isinstance(function, int) else requests
    if amount < 1 or period <= 0 or burst < 0 or wait < 0:
        raise ValueError(
            f"expected requests >= 1, period > 0, burst >= 0 and wait >= 0, got {amount}, {period:g}, {burst} and {wait:g}"
        )

    def around(inner: Callable[P, R]) -> Callable[P, R]:
        called = name or name_of(inner)
        rule = Rule(f"helper {called}", PER_GLOBAL, REQUESTS, amount, round(period * 1e9), burst)
        return wrap(inner, _Limit(called, rule, wait))

    return around if function is None or isinstance(function, int) else around(function)


class _Limit:
    def __init__(self, name: str, rule: Rule, wait: float) -> None:
        self._name, self._rule, self._longest = name, rule, wait
        self._taken: tuple[Host, Limits] | None = None

    def sync(self, call: Callable[[], T]) -> T:
        """See ``Helper``."""
        begun = time.monotonic()
        wait = self._wait(begun, first=True)
        while wait:
            time.sleep(wait)
            wait = self._wait(begun)
        return call()

    async def awaited(self, call: Callable[[], Awaitable[T]]) -> T:
        """See ``Helper``."""
        await self._turn()
        return await call()

    async def streamed(self, call: Callable[[], AsyncGenerator[T, None]]) -> AsyncGenerator[T, None]:
        """See ``Helper``."""
        await self._turn()
        items = call()
        try:
            async for item in items:
                yield item
        finally:
            await items.aclose()

    async def _turn(self) -> None:
        begun = time.monotonic()
        wait = self._wait(begun, first=True)
        while wait:
            await asyncio.sleep(wait)
            wait = self._wait(begun)

    def _wait(self, begun: float, *, first: bool = False) -> float:
        """Seconds until the next try; 0.0: the call may begin. A call that waits is counted once. Raises RateLimited."""
        host = here()
        if self._taken is None or self._taken[0] is not host:
            self._taken = host, Limits(host.table, [self._rule])
        grant = self._taken[1].admit(time.monotonic_ns())
        if grant.granted:
            return 0.0
        wait = max(grant.retry_after_ns / 1e9, LEAST_SECONDS)
        if time.monotonic() + wait > begun + self._longest:
            host.helped("rate_limit", self._name, "refused")
            amount, period = self._rule.amount, self._rule.period_ns / 1e9
            raise RateLimited(
                f"{self._name} may be called {amount} times in {period:g} s.",
                rule=self._name,
                retry_after_ms=math.ceil(wait * 1000),  # whoever waits for so long finds a place
            )
        if first:
            host.helped("rate_limit", self._name, "waited")
        return wait
