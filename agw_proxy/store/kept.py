"""Answers kept in Redis: the ``Store`` of several nodes. While it is away, everything is a miss."""

from redis.asyncio import Redis

from agw_proxy.store.client import Away, Client


class RedisStore:
    """See ``store.base.Store``. What is kept stands under ``<prefix>:<part>:``."""

    def __init__(self, client: Client, part: str) -> None:
        """``part``: tells what different users keep apart, e.g. ``cache``."""
        self._client = client
        self._prefix = f"{client.prefix}:{part}:"

    async def get(self, key: str) -> bytes | None:
        """See ``Store``."""

        async def ask(redis: Redis) -> bytes | None:
            value = await redis.get(self._prefix + key)
            return value if isinstance(value, bytes) else None

        try:
            return await self._client.ask(ask)
        except Away:
            return None

    async def set(self, key: str, value: bytes, ttl: float) -> bool:
        """See ``Store``."""

        async def ask(redis: Redis) -> bool:
            return bool(await redis.set(self._prefix + key, value, px=_milliseconds(ttl)))

        try:
            return await self._client.ask(ask)
        except Away:
            return False

    async def add(self, key: str, value: bytes, ttl: float) -> bool | None:
        """See ``Store``. One whose answer is late may have been kept all the same, for its time."""

        async def ask(redis: Redis) -> bool:
            return bool(await redis.set(self._prefix + key, value, px=_milliseconds(ttl), nx=True))

        try:
            return await self._client.ask(ask)
        except Away:
            return None

    async def remove(self, key: str) -> None:
        """See ``Store``."""

        async def ask(redis: Redis) -> None:
            await redis.delete(self._prefix + key)

        try:
            await self._client.ask(ask)
        except Away:
            return


def _milliseconds(seconds: float) -> int:
    return max(round(seconds * 1000), 1)
