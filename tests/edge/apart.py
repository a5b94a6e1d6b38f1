"""Two workers in one process: one relays, one runs agents, and their links are as the supervisor would have made them."""

import asyncio
import copy
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

from agw_proxy._hot.limit import Table
from agw_proxy._hot.meter import Meter
from agw_proxy.config.settings import Settings
from agw_proxy.edge.agents import Find
from agw_proxy.edge.agents_hosted import HostedAgents
from agw_proxy.edge.agents_placed import PlacedAgents
from agw_proxy.edge.inboxes import Inboxes
from agw_proxy.edge.shared import Shared
from agw_proxy.edge.state import common_of
from agw_proxy.edge.worker_link import Channel, WorkerLink
from agw_proxy.observe.log import Log
from agw_proxy.observe.metrics import FAMILIES, Metrics
from agw_proxy.policy.keys import Keys
from agw_proxy.tools.registry import Registry
from agw_proxy.types import Upstream
from tests.edge.inprocess import Lines
from tests.support.gateway import configuration

PATIENCE_SECONDS = 60.0


class Apart:
    """``hosted`` runs agents by what ``make`` makes, ``placed`` has them run there. ``changes``: how often it heard of others."""

    def __init__(self, root: Path, make: Callable[[Find], Awaitable[Upstream]]) -> None:
        tree = configuration(agents={"paths": [str(root)]})
        self.settings = Settings.model_validate(tree)
        self.shared = Shared(2)
        self.lines = Lines()
        self.changes = 0
        self.stops: list[bool] = []
        self.inboxes = Inboxes(1)
        others = copy.copy(self.inboxes)  # as another process has them
        others._pairs = [(puts.dup(), takes.dup()) for puts, takes in self.inboxes._pairs]
        self.others = others
        self._channels = [end for _ in range(2) for end in Channel.pair()]
        log = Log(self.lines)
        keys = Keys(self.settings.keys, common_of(self.settings), Table())
        self.link = self._link(0, self.inboxes)
        self.far = self._link(1, others)
        self.far._stop = self.stops.append
        self.hosted = HostedAgents(
            self.far, log, make, lambda: keys, lambda: Registry(log.events, Metrics(Meter(FAMILIES), "0"), lambda: None)
        )
        self.placed = PlacedAgents(self.link, log, self._changed)

    def _link(self, worker: int, inboxes: Inboxes) -> WorkerLink:
        return WorkerLink(worker, 1, self._channels[2 * worker], self.shared, cast("Any", None), inboxes)

    async def _changed(self) -> None:
        self.changes += 1

    def stand(self, version: int = 1) -> None:
        """The worker that runs agents serves, and its loop turns."""
        self.shared.tick(1, time.monotonic_ns() + 3600 * 10**9)
        self.shared.stand(1, version)

    async def until(self, there: Callable[[], object]) -> None:
        while not there():
            await asyncio.sleep(0.005)

    async def close(self) -> None:
        await self.placed.close()
        await self.hosted.close()
        await asyncio.sleep(0.01)  # connections are closed in the turns that follow
        for inboxes in (self.inboxes, self.others):
            for ends in inboxes._pairs:
                for end in ends:
                    end.close()
        for channel in self._channels:
            channel.close()


@asynccontextmanager
async def apart(root: Path, make: Callable[[Find], Awaitable[Upstream]]) -> AsyncIterator[Apart]:
    made = Apart(root, make)
    async with asyncio.timeout(PATIENCE_SECONDS):
        try:
            yield made
        finally:
            await made.close()
