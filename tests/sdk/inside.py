"""A gateway that serves within the test, with a run under way in it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from agw_proxy.edge.inner import Inner
from agw_proxy.sdk.entry import CURRENT, Run
from tests.edge.inprocess import Running, serving
from tests.support.gateway import Tree


@asynccontextmanager
async def running_within(config: Tree, folder: Path) -> AsyncIterator[tuple[Running, Inner, Run]]:
    """The gateway, its way of a run's model calls, and the run, which is the key ``app``'s."""
    async with serving(config, folder) as running:
        inner = Inner(running.gateway._edges[0].load_full)
        run = Run("req_outer", running.gateway.state.keys.named("app"), "default/clerk")
        before = CURRENT.set(run)
        try:
            yield running, inner, run
        finally:
            CURRENT.reset(before)
