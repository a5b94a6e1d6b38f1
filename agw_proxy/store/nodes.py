"""Which nodes share the limits: each tells Redis every second that it is there, and is counted until it is silent.

A Redis that was away for longer, or has forgotten, knows of nobody at first. So fewer nodes than before count only once it
has told of no more for as long as a node may be silent; else each would take itself for the only one if it went away again.
"""

import asyncio
import time
from collections.abc import Callable

from redis.asyncio import Redis

from agw_proxy._hot.limit import Table
from agw_proxy.store import scripts
from agw_proxy.store.client import Away, Client

BEAT_SECONDS = 1.0
SILENT_SECONDS = 5.0  # after so long a node is counted no more
MAX_NODES = 1000  # as in the settings


class Nodes:
    """The beats of this node. In several workers each beats for the same node."""

    def __init__(
        self,
        client: Client,
        table: Table,
        node: str,
        replicas: int | None,
        told: Callable[[int], None] | None = None,
    ) -> None:
        """``node``: its name, different from all others'. ``replicas``: how many there are; None: count them.

        ``told``: hears by how many more (or fewer) there are.
        """
        self.count = replicas or table.replicas  # what a worker before this one knew
        self._told = told or _nobody
        self._told(self.count)
        self._client = client
        self._table = table
        self._node = node
        self._counted = replicas is None
        self._task: asyncio.Task[None] | None = None
        self._fewer: tuple[float, int] | None = None
        """Since when fewer were seen, and the most of them."""
        table.replicas = self.count
        client.watch(self._turned)

    def start(self) -> None:
        """Beat from now on; the first is what shows that Redis is there."""
        self._client.start(self.beat)
        self._task = asyncio.get_running_loop().create_task(self._go_on())

    async def beat(self, redis: Redis) -> None:
        """One beat, and how many others there are."""
        seen = await scripts.beat(redis, self._client.prefix, self._node, SILENT_SECONDS)
        if self._counted:
            self._see(min(max(seen, 1), MAX_NODES), time.monotonic())

    def _see(self, seen: int, now: float) -> None:
        if seen < self.count:
            since, most = self._fewer or (now, seen)
            seen = max(most, seen)
            self._fewer = since, seen
            if now - since < SILENT_SECONDS:
                return
        self._fewer = None
        self._told(seen - self.count)
        self.count = self._table.replicas = seen

    def _turned(self, _: bool) -> None:
        self._fewer = None

    async def close(self) -> None:
        """Be counted no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

        async def leave(redis: Redis) -> None:
            await scripts.leave(redis, self._client.prefix, self._node)

        try:
            await self._client.ask(leave)
        except Away:
            return

    async def _go_on(self) -> None:
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            if self._client.up:
                try:
                    await self._client.ask(self.beat)
                except Away:
                    continue


def _nobody(_: int) -> None:
    return
