"""News for the other nodes: one of them has read its configuration again, so they read theirs.

It goes by a channel of Redis, which keeps nothing. Who may have missed something (the connection was lost, or there was
none at the start) reads its own files once it listens again. What a node does because of a notice it tells nobody, so
notices do not go round.
"""

import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.exceptions import RedisError

from agw_proxy.config.storage import Redis as Settings
from agw_proxy.store.base import Says
from agw_proxy.store.client import Away, Client, pool

PING_SECONDS = 5.0  # of silence, before it is asked whether there still is somebody; and for the answer
RETRY_SECONDS = 0.25
CONNECT_SECONDS = 2.0


class Notice(msgspec.Struct, frozen=True):
    """``node`` has read its configuration; ``discover``: and has asked its upstreams for their models."""

    node: str
    discover: bool = False


class Notices:
    """One node's: in several workers, one of them listens and tells."""

    def __init__(
        self,
        client: Client,
        settings: Settings,
        node: str,
        heard: Callable[[bool], Coroutine[Any, Any, None]],
        say: Says,
    ) -> None:
        """``heard``: reads the configuration again (and discovers, with True); what it raises is told in the log."""
        self._client = client
        self._channel = f"{settings.prefix}:notices"
        self._node = node
        self._heard = heard
        self._say = say
        self._redis = Redis(connection_pool=pool(settings, 1, CONNECT_SECONDS))
        self._untold: bool | None = None  # what could not be told yet: with ``discover``, or without
        self._task: asyncio.Task[None] | None = None
        self._telling: set[asyncio.Task[None]] = set()
        client.watch(self._turned)

    def start(self) -> None:
        """Listen from now on."""
        self._task = asyncio.get_running_loop().create_task(self._listen())

    async def close(self) -> None:
        """Listen no more."""
        tasks = [task for task in (self._task, *self._telling) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._redis.connection_pool.disconnect()

    def tell(self, *, discover: bool) -> None:
        """Tell the others, now or once Redis is back."""
        self._untold = discover or bool(self._untold)
        task = asyncio.get_running_loop().create_task(self._tell())
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def _tell(self) -> None:
        while self._untold is not None:
            notice, self._untold = Notice(self._node, self._untold), None
            try:
                await self._client.begin(functools.partial(self._publish, notice))  # late is soon enough
            except Away:
                self._untold = notice.discover or bool(self._untold)
                if not self._client.up:
                    return  # until it is back
                await asyncio.sleep(RETRY_SECONDS)

    async def _publish(self, notice: Notice, redis: Redis) -> None:
        await redis.publish(self._channel, msgspec.json.encode(notice))

    def _turned(self, up: bool) -> None:
        if up and self._untold is not None:
            self.tell(discover=self._untold)

    async def _listen(self) -> None:
        missed = False
        while True:
            try:
                async with self._redis.pubsub() as channel:
                    async with asyncio.timeout(CONNECT_SECONDS):
                        await channel.subscribe(self._channel)
                        await channel.get_message(timeout=None)  # that it is so
                    if missed:
                        await self._hear(discover=False)
                    await self._follow(channel)
            except (RedisError, OSError, TimeoutError):
                missed = True
            await asyncio.sleep(RETRY_SECONDS)

    async def _follow(self, channel: PubSub) -> None:
        """Until the connection is lost, or silent to a ping. Raises RedisError, TimeoutError."""
        asked = False
        while True:
            message = await channel.get_message(timeout=PING_SECONDS)
            if message is None:
                if asked:
                    raise TimeoutError
                await channel.ping()
                asked = True
                continue
            asked = False
            if message["type"] == "message":
                await self._take(message["data"])

    async def _take(self, data: bytes) -> None:
        try:
            notice = msgspec.json.decode(data, type=Notice)
        except msgspec.DecodeError:
            return  # not from one of ours
        if notice.node != self._node:
            self._say.info("config.notice", node=notice.node)
            await self._hear(discover=notice.discover)

    async def _hear(self, *, discover: bool) -> None:
        try:
            await self._heard(discover)
        except Exception as error:  # noqa: BLE001  whatever it is: this node goes on listening
            self._say.warning("config.notice_failed", error=repr(error))
