"""Values in this process, bounded in bytes: the one that was not asked for the longest goes first."""

from collections.abc import Callable
from typing import Generic, Protocol, TypeVar


class Sized(Protocol):
    """What counts for something."""

    @property
    def size(self) -> int:
        """Bytes."""
        ...


V = TypeVar("V", bound=Sized)


class Held(Generic[V]):
    """A value in its place."""

    __slots__ = ("due", "extra", "key", "value")

    def __init__(self, key: bytes, value: V, due: float) -> None:
        self.key, self.value, self.due = key, value, due
        self.extra = 0
        """Bytes that others keep for it, see ``Memory.charge``."""


class Memory(Generic[V]):
    """Values by digest. Times are seconds of one clock, handed in."""

    def __init__(
        self,
        max_bytes: int,
        *,
        dropped: Callable[[bytes], None] = lambda key: None,  # noqa: ARG005
        fresh: Callable[[bytes], bool] = lambda key: False,  # noqa: ARG005
    ) -> None:
        """``dropped``: a value has gone, for whatever reason. ``fresh``: it was used without ``get`` since it was last asked."""
        self.max_bytes = max_bytes
        self.bytes = 0
        self.evicted = 0
        self._dropped = dropped
        self._fresh = fresh
        self._held: dict[bytes, Held[V]] = {}

    def __len__(self) -> int:
        return len(self._held)

    def get(self, key: bytes, now: float) -> V | None:
        """The value, which is the last to go now; None where there is none, or not any more."""
        held = self._held.get(key)
        if held is None:
            return None
        if now >= held.due:
            self.remove(key)
            return None
        self._held[key] = self._held.pop(key)
        return held.value

    def due(self, key: bytes) -> float:
        """When a value expires that is there."""
        return self._held[key].due

    def set(self, key: bytes, value: V, ttl: float, now: float) -> bool:
        """Keep it, in place of what was there. False where it is larger than all the room."""
        self.remove(key)
        if value.size > self.max_bytes:
            return False
        self._held[key] = Held(key, value, now + ttl)
        self.bytes += value.size
        self._make_room(key, now)
        return True

    def charge(self, key: bytes, size: int, now: float) -> None:
        """Count ``size`` bytes more for a value that is there, until it goes."""
        held = self._held.get(key)
        if held is not None:
            held.extra += size
            self.bytes += size
            self._make_room(key, now)

    def remove(self, key: bytes) -> None:
        """Forget a value, if it is there."""
        held = self._held.pop(key, None)
        if held is not None:
            self.bytes -= held.value.size + held.extra
            self._dropped(key)

    def clear(self) -> None:
        """Forget all."""
        for key in list(self._held):
            self.remove(key)

    def _make_room(self, newest: bytes, now: float) -> None:
        spared = 0
        while self.bytes > self.max_bytes and self._held:
            oldest = next(iter(self._held))
            held = self._held[oldest]
            if now < held.due and spared < len(self._held) and (oldest == newest or self._fresh(oldest)):
                self._held[oldest] = self._held.pop(oldest)
                spared += 1
                continue
            self.evicted += 1
            self.remove(oldest)
