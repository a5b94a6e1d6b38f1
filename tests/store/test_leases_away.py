"""How nodes share one limit: how they count each other, and what passes while the server is away."""

import pytest

from agw_proxy._hot.limit import CLOSED, LEASED, LOCAL, OPEN
from agw_proxy.store import nodes as counting
from tests.store.conftest import redis_settings
from tests.store.node import Node, running
from tests.store.test_client import until
from tests.store.test_leases import budget, requests
from tests.support.redis_server import RedisServer


@pytest.mark.parametrize(
    ("policies", "modes"),
    [
        ({}, (LOCAL, CLOSED)),
        ({"on_failure": "fail_open", "budgets_on_failure": "local"}, (OPEN, LOCAL)),
        ({"on_failure": "fail_closed", "budgets_on_failure": "fail_open"}, (CLOSED, OPEN)),
    ],
)
async def test_the_policies_hold_from_the_first_late_answer_until_the_next_in_time(
    server: RedisServer, policies: dict[str, object], modes: tuple[int, int]
) -> None:
    node = Node(redis_settings(server, timeout=0.05, replicas=2, **policies), [requests(10), budget(1_000_000)])
    async with running(node):
        assert (node.table.lease_mode(0), node.table.lease_mode(1)) == (LEASED, LEASED)
        server.freeze()
        grant = await node.ask(cost=1)
        assert (node.table.lease_mode(0), node.table.lease_mode(1)) == modes
        assert grant.granted == (CLOSED not in modes)
        assert grant.closed == (CLOSED in modes)
        late = node.told.failures["late"]
        for _ in range(50):
            node.take(cost=1)
        assert node.told.failures["late"] <= late + 1
        server.thaw()
        await until(lambda: node.client.up)
        assert (node.table.lease_mode(0), node.table.lease_mode(1)) == (LEASED, LEASED)


async def test_each_node_has_its_share_while_the_server_is_away(server: RedisServer) -> None:
    nodes = [Node(redis_settings(server, timeout=0.05), [requests(90)], f"n{i}") for i in range(3)]
    async with running(*nodes):
        await until(lambda: all(node.table.replicas == 3 for node in nodes))
        server.kill()
        passed = [await node.spend(60) for node in nodes]
        assert passed == [30, 30, 30]


async def test_nodes_that_redis_has_forgotten_are_counted_on(server: RedisServer) -> None:
    """Else each of them would let all pass where it goes away again."""
    settings = redis_settings(server, timeout=0.05)
    nodes = [Node(settings, [requests(90)], f"n{i}") for i in range(3)]
    async with running(*nodes):
        await until(lambda: all(node.table.replicas == 3 for node in nodes))
        for _ in range(2):
            server.kill()
            await until(lambda: not any(node.client.up for node in nodes))
            server.start()
            await until(lambda: any(node.client.up for node in nodes))
            assert [node.table.replicas for node in nodes] == [3, 3, 3]


async def test_a_worker_that_begins_while_the_server_is_away_knows_what_its_gateway_knew(server: RedisServer) -> None:
    nodes = [Node(redis_settings(server), [requests(90)], f"n{i}") for i in range(3)]
    async with running(*nodes):
        await until(lambda: all(node.table.replicas == 3 for node in nodes))
        server.kill()
        anew = Node(redis_settings(server), [requests(90)], "n0", table=nodes[0].table)
        assert nodes[0].table.replicas == anew.nodes.count == 3


async def test_a_node_that_leaves_is_counted_no_more(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "SILENT_SECONDS", 2.0)
    one, two = (Node(redis_settings(server), [requests(90)], name) for name in ("one", "two"))
    async with running(one):
        async with running(two):
            await until(lambda: one.nodes.count == 2)
        await until(lambda: one.nodes.count == 1)
        assert one.table.replicas == 1


async def test_the_number_of_replicas_in_the_settings_holds(server: RedisServer) -> None:
    node = Node(redis_settings(server, replicas=7), [requests(90)])
    async with running(node):
        await until(lambda: node.told.answers > 0)
        assert node.table.replicas == node.nodes.count == 7
