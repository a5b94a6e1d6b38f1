"""The keys of an upstream that has several: taken in turn; one that is limited rests, one that is refused is dead.

Dead is until the configuration changes: a key that was revoked does not come back by itself. Times are seconds of the
loop's clock. A key is only ever shown as its number.
"""

from collections.abc import Callable, Collection, Sequence

from agw_proxy.errors import UpstreamError, UpstreamRefused, UpstreamRejected

STATUSES = frozenset({401, 403, 429})  # with which an upstream may mean the key and not the request
REST_SECONDS = 30.0  # of a key that was limited and not told for how long
NEVER = float("inf")


class Keyring:
    """Of one upstream, in this process."""

    def __init__(self, name: str, headers: Sequence[tuple[str, str]], on_dead: Callable[[str, str], None]) -> None:
        """``headers``: for each key the header that carries it. ``on_dead``: told of each dead key: upstream, key."""
        self._name = name
        self._headers = tuple(headers)
        self._until = [0.0] * len(headers)
        self._next = 0
        self._on_dead = on_dead

    def __len__(self) -> int:
        return len(self._headers)

    def take(self, now: float, but: Collection[int] = ()) -> int | None:
        """The number of the next key that may be used, or None where all (``but`` these) rest or are dead."""
        for step in range(len(self._headers)):
            number = (self._next + step) % len(self._headers)
            if self._until[number] <= now and number not in but:
                self._next = number + 1
                return number
        return None

    def usable(self, now: float, but: Collection[int] = ()) -> bool:
        """Whether ``take`` would give one."""
        return any(until <= now and number not in but for number, until in enumerate(self._until))

    def failed(self, number: int, error: UpstreamError, now: float) -> None:
        """An attempt with this key ended so, with 401 or 429."""
        if isinstance(error, UpstreamRefused):
            self.bury(number)
        else:
            self.rest(number, now + (error.retry_after_ms / 1000 if error.retry_after_ms is not None else REST_SECONDS))

    def header(self, number: int) -> tuple[str, str]:
        """The header that carries this key."""
        return self._headers[number]

    def rest(self, number: int, until: float) -> None:
        """The upstream limits this key."""
        self._until[number] = max(self._until[number], until)

    def bury(self, number: int) -> None:
        """The upstream refuses this key: it is not used again. Told once."""
        if self._until[number] != NEVER:
            self._until[number] = NEVER
            self._on_dead(self._name, self.shown(number))

    def shown(self, number: int) -> str:
        """How people are told of it, e.g. ``key 2 of 3``."""
        return f"key {number + 1} of {len(self._headers)}"

    @property
    def dead(self) -> int:
        """How many were refused."""
        return self._until.count(NEVER)

    def until(self) -> float | None:
        """When the first of them may be used (it may be in the past), or None where all are dead."""
        soonest = min(self._until)
        return None if soonest == NEVER else soonest


def blames_key(error: UpstreamError) -> bool:
    """The upstream may mean the key, so that another one is worth an attempt."""
    return isinstance(error, UpstreamRefused | UpstreamRejected) and error.status in STATUSES
