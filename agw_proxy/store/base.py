"""What a store of values looks like to those who keep something in it."""

from typing import Protocol


class Says(Protocol):
    """The log of events: their names and fields."""

    def info(self, event: str, **fields: object) -> object:
        """As it should be."""
        ...

    def warning(self, event: str, **fields: object) -> object:
        """Not as it should be."""
        ...


class Store(Protocol):
    """Bytes by name, for a time. Nothing here raises for a store that is away: what cannot be read is a miss."""

    async def get(self, key: str) -> bytes | None:
        """The value; None where there is none, where it has expired, or where the store is away."""
        ...

    async def set(self, key: str, value: bytes, ttl: float) -> bool:
        """Keep ``value`` for ``ttl`` seconds, in place of what was there. False: it could not be kept."""
        ...

    async def add(self, key: str, value: bytes, ttl: float) -> bool | None:
        """Keep it if nothing is kept by that name, in one step. False: there is something; None: the store is away."""
        ...

    async def remove(self, key: str) -> None:
        """Forget the value, if there is one."""
        ...
