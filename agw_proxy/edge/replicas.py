"""A gateway among others that share limits, cache and news through Redis; and how a request gets its part of a limit.

Imported only where ``redis`` is configured: nobody else pays for its client.
"""

import contextlib
import secrets
import time
from collections.abc import Mapping

from agw_proxy._hot.limit import Table
from agw_proxy.config.storage import Redis as Settings
from agw_proxy.edge.worker_link import WorkerLink
from agw_proxy.errors import ReloadFailed
from agw_proxy.observe.metrics import Metrics
from agw_proxy.store.base import Says, Store
from agw_proxy.store.client import Away, Client
from agw_proxy.store.kept import RedisStore
from agw_proxy.store.leases import Leases, Refused, Short
from agw_proxy.store.nodes import Nodes
from agw_proxy.store.notices import Notices
from agw_proxy.types import Control

START_SECONDS = 1.0  # to wait for Redis before serving without


async def join(
    settings: Settings, link: WorkerLink | None, table: Table, metrics: Metrics, say: Says, control: Control
) -> "Replicas":
    """Share with others from now on, as one of several workers where there is a ``link``; the first one tells and hears."""
    replicas = Replicas(
        settings,
        table,
        metrics,
        say,
        node=secrets.token_hex(8) if link is None else link.shared.run,
        listens=link is None or link.worker == 0,
        control=control,
    )
    await replicas.start()
    return replicas


class Replicas:
    """One worker's part in it."""

    def __init__(
        self,
        settings: Settings,
        table: Table,
        metrics: Metrics,
        say: Says,
        *,
        node: str,
        listens: bool,
        control: Control,
    ) -> None:
        """To be made on the loop. ``node``: its name, the same in all its workers and different from all other nodes'.

        ``listens``: this worker tells and hears of reloads, see ``store.notices``; ``control`` makes them.
        """
        self._control = control
        self._client = Client(settings, metrics, say)
        self._nodes = Nodes(self._client, table, node, settings.replicas, metrics.nodes if listens else None)
        self._leases = Leases(self._client, self._nodes, settings, table, metrics)
        self._notices: Notices | None = None
        if listens and settings.notices:
            self._notices = Notices(self._client, settings, node, self._hear, say)

    async def start(self) -> None:
        """Connect, and look after it all in the background.

        Waits for the first answer, so that no request is the first to find out that there is no connection yet.
        """
        self._nodes.start()
        self._leases.start()
        if self._notices is not None:
            self._notices.start()
        await self._client.known(START_SECONDS)

    async def close(self) -> None:
        """Give back what is held, and be counted no more."""
        if self._notices is not None:
            await self._notices.close()
        await self._leases.close()
        await self._nodes.close()
        await self._client.close()

    def standing(self) -> Mapping[str, object]:
        """How this worker stands with Redis; see ``types.Control``."""
        return {
            "state": "up" if self._client.up else "away",
            "since": self._client.since,
            "last_error": self._client.error,
        }

    def store(self, part: str) -> Store:
        """Values that all nodes share; ``part`` keeps those of different users apart."""
        return RedisStore(self._client, part)

    def tell(self, *, discover: bool) -> None:
        """Tell the other nodes of a reload that none of them has told."""
        if self._notices is not None:
            self._notices.tell(discover=discover)

    async def _hear(self, discover: bool) -> None:
        """Another node has read its configuration. A bad one here is told by whoever reads it, in the log."""
        with contextlib.suppress(ReloadFailed):
            await (self._control.refresh_upstreams(heard=True) if discover else self._control.reload(heard=True))

    def may_wait(self, begun_ns: int) -> bool:
        """Whether a request that began to ask at ``begun_ns`` (monotonic) may ask once more: for ``redis.timeout``."""
        return time.monotonic_ns() - begun_ns < self._client.timeout * 1e9

    async def take(self, short: Short) -> Refused | None:
        """Take what a grant is short of. None: ask for it again; else the rule that has no more on any node.

        Where Redis is late or away, the policies hold from now on, so it is decided by asking again, too.
        """
        try:
            return await self._leases.cover(short)
        except Away:
            return None
