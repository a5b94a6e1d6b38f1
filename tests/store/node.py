"""A node without its edge: a table, rules, and what takes its parts from a real server."""

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from agw_proxy._hot.limit import Grant, Limits, Rule, Table
from agw_proxy.config.storage import Redis
from agw_proxy.store.client import Away, Client
from agw_proxy.store.leases import Leases, Refused
from agw_proxy.store.nodes import Nodes
from tests.store.test_client import until
from tests.support.told import ToldRedis


class Node:
    """``ask`` decides one request of a subject, as the edge does."""

    def __init__(
        self, settings: Redis, rules: Sequence[Rule], name: str = "node", *, table: Table | None = None
    ) -> None:
        self.told = ToldRedis()
        self.table = table or Table()
        self.limits = Limits(self.table, rules)
        self.client = Client(settings, self.told, self.told)
        self.nodes = Nodes(self.client, self.table, name, settings.replicas)
        self.leases = Leases(self.client, self.nodes, settings, self.table, self.told)
        self.refused: Refused | None = None
        self.asked = 0

    def take(self, key: int = 1, tokens: int = 0, output: int = 0, cost: int = 0) -> Grant:
        """One decision without asking anybody."""
        now = time.monotonic_ns()
        return self.limits.admit(now, key=key, input_tokens=tokens, output_tokens=output, cost=cost)

    async def ask(self, key: int = 1, tokens: int = 0, output: int = 0, cost: int = 0) -> Grant:
        """One decision, with what is missing taken from the others' common store."""
        grant = self.take(key, tokens, output, cost)
        self.refused = None
        while grant.short:
            self.asked += 1
            try:
                self.refused = await self.leases.cover(grant.short)
            except Away:
                return self.take(key, tokens, output, cost)
            if self.refused is not None:
                return grant
            grant = self.take(key, tokens, output, cost)
        return grant

    async def spend(self, requests: int, **what: int) -> int:
        """How many of so many requests pass, one after the other."""
        return sum([(await self.ask(**what)).granted for _ in range(requests)])

    async def start(self) -> None:
        self.nodes.start()
        self.leases.start()
        await until(lambda: self.client.up)

    async def close(self) -> None:
        await self.leases.close()
        await self.nodes.close()
        await self.client.close()


@asynccontextmanager
async def running(*nodes: Node) -> AsyncIterator[None]:
    try:
        for node in nodes:
            await node.start()
        yield
    finally:
        for node in nodes:
            await node.close()
