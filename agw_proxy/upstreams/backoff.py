"""How long to wait before the next attempt: four ways to grow, all with full jitter. Pure.

Full jitter (drawn evenly from 0 up to the ceiling) spreads the attempts of many callers that failed at the same moment;
a wait that is only lengthened a little keeps them together.
"""

from agw_proxy.config.resilience import Retries

DOUBLINGS = 32  # beyond, every `max` that can be configured is reached
GOLDEN = (1.0, 1.0)  # the first two of Fibonacci's numbers


def ceiling(number: int, retries: Retries) -> float:
    """Seconds that the wait before retry ``number`` (1 is the first) takes at most; never over ``retries.max``."""
    return min(retries.max, retries.base * _factor(number, retries.strategy))


def draw(number: int, retries: Retries, share: float) -> float:
    """Seconds to wait before retry ``number``. ``share``: what was drawn, 0 to 1."""
    return share * ceiling(number, retries)


def _factor(number: int, strategy: str) -> float:
    if strategy == "fixed":
        return 1.0
    if strategy == "linear":
        return float(number)
    if strategy == "fibonacci":
        one, two = GOLDEN
        for _ in range(min(number, 2 * DOUBLINGS) - 1):
            one, two = two, one + two
        return one
    return float(2.0 ** min(number - 1, DOUBLINGS))
