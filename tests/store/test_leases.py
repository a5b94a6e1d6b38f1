"""How nodes share one limit: what they take and what they give back."""

import asyncio
import time
from functools import partial
from typing import Any

import pytest

from agw_proxy._hot.limit import (
    BUCKET,
    CALENDAR,
    COST,
    MONTH,
    PER_KEY,
    PER_UPSTREAM,
    REQUESTS,
    SLIDING,
    TOKENS,
    TOTAL,
    Limits,
    Rule,
    Table,
)
from agw_proxy.store import leases
from tests.store.conftest import redis_settings
from tests.store.node import Node, running
from tests.store.test_client import until
from tests.support.redis_server import RedisServer

HOUR_NS = 3_600_000_000_000  # so slow that nothing comes back during a test


def requests(amount: int, period_ns: int = HOUR_NS, algorithm: int = BUCKET) -> Rule:
    return Rule("key/requests", PER_KEY, REQUESTS, amount, period_ns, algorithm=algorithm, leased=True)


def budget(amount: int) -> Rule:
    return Rule("key/budget", PER_KEY, COST, amount, algorithm=CALENDAR, calendar=MONTH, leased=True)


@pytest.mark.parametrize("algorithm", [BUCKET, SLIDING, TOTAL])
async def test_three_nodes_admit_exactly_the_amount_together(server: RedisServer, algorithm: int) -> None:
    nodes = [Node(redis_settings(server), [requests(100, algorithm=algorithm)], f"n{i}") for i in range(3)]
    async with running(*nodes):
        passed = await asyncio.gather(*(node.spend(100) for node in nodes))
        # What one of them still holds goes back before the last of it can be had by the others.
        await until_spent(nodes, 100 - sum(passed))
    assert sum(passed) <= 100


async def until_spent(nodes: list[Node], left: int) -> None:
    """The nodes go on until the last ``left`` have passed; one more does not."""
    async with asyncio.timeout(20):
        while left:
            for node in nodes:
                left -= (await node.ask()).granted
            await asyncio.sleep(0.01)
    assert left == 0
    for node in nodes:
        assert not (await node.ask()).granted


async def test_a_calendar_budget_is_shared(server: RedisServer) -> None:
    nodes = [Node(redis_settings(server), [budget(1_000_000)], f"n{i}") for i in range(3)]
    async with running(*nodes):
        passed = sum(await asyncio.gather(*(node.spend(40, cost=10_000) for node in nodes)))
        assert passed <= 100
        async with asyncio.timeout(20):
            while passed < 100:
                for node in nodes:
                    passed += (await node.ask(cost=10_000)).granted
                await asyncio.sleep(0.01)
        for node in nodes:
            assert not (await node.ask(cost=10_000)).granted
            assert node.refused is not None
            assert node.refused.retry_after_ns > 0


async def test_most_decisions_ask_nobody(server: RedisServer) -> None:
    node = Node(redis_settings(server), [requests(1000)])
    async with running(node):
        assert await node.spend(200) == 200
        assert node.asked <= 200 // node.leases.lease(node.limits.rules[0]) + 1


async def test_credit_is_taken_before_it_is_missed(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "LOOK_SECONDS", 3600)  # the decision itself tells that little is left
    node = Node(redis_settings(server), [requests(1000)])
    async with running(node):
        assert (await node.ask()).granted
        assert node.leases.lease(node.limits.rules[0]) == 50
        for taken in (2, 3, 4):
            assert all(node.take().granted for _ in range(30))
            await until(partial(taken_so_often, node, taken))
        assert node.asked == 1


def taken_so_often(node: Node, times: int) -> bool:
    return node.told.leases["taken"] == times


async def test_waiters_for_one_subject_share_one_question(server: RedisServer) -> None:
    node = Node(redis_settings(server), [requests(1000)])
    async with running(node):
        answers = await asyncio.gather(*(node.ask() for _ in range(40)))
        assert all(grant.granted for grant in answers)
        assert node.told.leases["taken"] == 1


async def test_a_defect_in_the_midst_of_answers_keeps_nobody_waiting(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    more = Rule("key/more", PER_KEY, REQUESTS, 500, HOUR_NS, leased=True)
    node = Node(redis_settings(server, timeout=20), [requests(1000), more])
    lend, lent = node.leases._lend, 0

    def fails_once(*given: Any) -> bool:
        nonlocal lent
        lent += 1
        if lent == 2:
            raise ValueError("a defect")
        return lend(*given)

    monkeypatch.setattr(node.leases, "_lend", fails_once)
    async with running(node):
        async with asyncio.timeout(10):
            await node.ask()
            assert (await node.ask()).granted
    assert told == []


async def test_what_is_left_goes_back_when_a_node_leaves(server: RedisServer) -> None:
    one, two = (Node(redis_settings(server), [requests(100)], name) for name in ("one", "two"))
    async with running(two):
        async with running(one):
            assert (await one.ask()).granted
        assert one.told.leases["returned"] == 1
        assert await two.spend(200) == 99


async def test_it_is_forgotten_of_the_oldest_alone_where_they_took(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "MAX_MARKS", 2)
    one, two = (Node(redis_settings(server), [requests(100, algorithm=SLIDING)], name) for name in ("one", "two"))
    async with running(two):
        async with running(one):
            for key in (1, 2, 3):
                assert (await one.ask(key)).granted
            assert len(one.leases._marks) == 2
        assert [await two.spend(200, key=key) for key in (1, 2, 3)] == [95, 99, 99]


async def test_what_is_under_way_when_a_node_leaves_goes_back(server: RedisServer) -> None:
    one, two = (Node(redis_settings(server), [requests(100)], name) for name in ("one", "two"))
    async with running(two):
        await one.start()
        assert (await one.ask()).granted
        server.freeze()
        assert all(one.take().granted for _ in range(3))  # more than two thirds of its part: the rest is asked for
        await until(lambda: bool(one.leases._flying))
        leaving = asyncio.create_task(one.close())
        await asyncio.sleep(0)
        server.thaw()
        await leaving
        assert await two.spend(200) == 96


@pytest.mark.parametrize(("used", "left"), [(10, 90), (50, 50), (60, 40)])
async def test_an_answer_that_ends_as_its_node_leaves_is_charged_for_what_it_used(
    server: RedisServer, used: int, left: int
) -> None:
    rule = Rule("key/tokens", PER_KEY, TOKENS, 100, HOUR_NS, leased=True)
    one, two = (Node(redis_settings(server), [rule], name) for name in ("one", "two"))
    async with running(two):
        async with running(one):
            grant = await one.ask(tokens=50)
            [(tag, held)] = one.leases._held.items()
            one.leases._return(held.rule, tag, renew=False)  # as it does in time
            assert not one.leases._held
            grant.settle(used, 0, 0, time.monotonic_ns())
        assert await two.spend(100, tokens=1) == left


async def test_what_is_not_used_goes_back_in_time(server: RedisServer) -> None:
    settings = redis_settings(server, lease={"seconds": 0.2, "share": 0.5})
    one, two = (Node(settings, [requests(100)], name) for name in ("one", "two"))
    async with running(one, two):
        assert (await one.ask()).granted
        passed = await two.spend(100)
        assert passed < 99
        await until(lambda: bool(one.told.leases["returned"]))
        async with asyncio.timeout(20):
            while passed < 99:
                passed += (await two.ask()).granted
                await asyncio.sleep(0.01)
        assert not (await two.ask()).granted


async def test_a_part_is_taken_anew_by_what_its_rule_says_after_a_reload(server: RedisServer) -> None:
    """A subject that never uses two thirds of its part is renewed by time alone."""
    settings = redis_settings(server, lease={"seconds": 0.2, "share": 0.5})
    node = Node(settings, [requests(1000)])
    async with running(node):
        assert (await node.ask()).granted
        node.limits = Limits(node.table, [requests(10)])
        for taken in (2, 3, 4):
            assert node.take().granted
            await until(partial(taken_so_often, node, taken))
        assert node.limits.look(time.monotonic_ns(), key=1)[0].remaining <= 5
        assert await node.spend(20) <= 10


async def test_what_was_estimated_too_low_is_charged_to_all(server: RedisServer) -> None:
    rule = Rule("key/tokens", PER_KEY, TOKENS, 1000, HOUR_NS, leased=True)
    settings = redis_settings(server, lease={"seconds": 0.2, "share": 0.05})
    one, two = (Node(settings, [rule], name) for name in ("one", "two"))
    async with running(one, two):
        grant = await one.ask(tokens=10)
        assert grant.granted
        grant.settle(800, 0, 0, time.monotonic_ns())
        key = f"agw:limit:{tag_of(one, 10):016x}"
        await until(lambda: level(server, key) <= 200)
        passed = await two.spend(50, tokens=10)
        assert passed <= 20


async def test_what_was_estimated_too_high_comes_back_to_all(server: RedisServer) -> None:
    settings = redis_settings(server, lease={"seconds": 0.2, "share": 0.01})
    one, two = (Node(settings, [budget(1_000_000)], name) for name in ("one", "two"))
    async with running(one, two):
        grant = await one.ask(cost=900_000)
        assert grant.granted
        assert not (await two.ask(cost=500_000)).granted
        await asyncio.sleep(0.5)  # the lease has expired, as it does under a long stream
        grant.settle(0, 0, 100_000, time.monotonic_ns())
        async with asyncio.timeout(20):
            while not (await two.ask(cost=500_000)).granted:
                await asyncio.sleep(0.02)


@pytest.mark.parametrize("ask_meanwhile", [False, True])
async def test_what_comes_back_once_its_part_went_back_is_not_kept_from_all(
    server: RedisServer, ask_meanwhile: bool
) -> None:
    """A long stream had reserved all there is. Its part is looked at shortly before it expires; then the stream ends."""
    settings = redis_settings(server, lease={"seconds": 3600, "share": 0.01})
    one, two = (Node(settings, [budget(1_000_000)], name) for name in ("one", "two"))
    async with running(one, two):
        grant = await one.ask(cost=1_000_000)
        assert grant.granted
        [(tag, held)] = one.leases._held.items()
        one.leases._return(held.rule, tag, renew=True)
        one.leases._kick()
        await until(lambda: one.leases._round is None)
        assert not one.leases._held
        if ask_meanwhile:
            assert not (await one.ask(cost=10)).granted
        one.table.wanting()  # what was spent is told to whoever looks first
        grant.settle(0, 0, 100_000, time.monotonic_ns())
        async with asyncio.timeout(20):
            while not (await two.ask(cost=500_000)).granted:
                await asyncio.sleep(0.02)


async def test_what_could_not_be_sent_back_goes_back_later(server: RedisServer) -> None:
    settings = redis_settings(server, timeout=0.05, lease={"seconds": 0.2, "share": 0.01})
    one, two = (Node(settings, [budget(1_000_000)], name) for name in ("one", "two"))
    async with running(one, two):
        grant = await one.ask(cost=900_000)
        server.freeze()
        other = asyncio.create_task(one.ask(key=2, cost=10))
        await until(lambda: bool(one.leases._flying))
        grant.settle(0, 0, 100_000, time.monotonic_ns())
        [(tag, held)] = one.leases._held.items()
        one.leases._return(held.rule, tag, renew=False)  # to go with the next round trip
        assert not (await other).granted
        await until(lambda: one.leases._round is None)
        server.thaw()
        async with asyncio.timeout(20):
            while not (await two.ask(cost=500_000)).granted:
                await asyncio.sleep(0.02)


def tag_of(node: Node, tokens: int) -> int:
    """The tag of key 1's subject: what a node that has nothing is short of."""
    [(_, tag, _)] = Limits(Table(), node.limits.rules).admit(0, key=1, input_tokens=tokens).short
    return tag


def level(server: RedisServer, key: str) -> float:
    answer = server.command("GET", key).split(b"\r\n")
    return float(answer[1].split()[0]) if answer[0] != b"$-1" else 1e18


async def test_a_refusal_is_remembered_for_a_moment(server: RedisServer) -> None:
    node = Node(redis_settings(server), [requests(5)])
    async with running(node):
        await node.spend(10)
        answers = node.told.answers
        for _ in range(50):
            assert not (await node.ask()).granted
            assert node.refused is not None
            assert node.refused.retry_after_ns > HOUR_NS // 10
        assert node.told.answers - answers <= 5  # beats, and a question now and then


async def test_nothing_is_lost_of_an_amount_that_refused_another(server: RedisServer) -> None:
    rules = [requests(100), Rule("key/tokens", PER_KEY, TOKENS, 50, HOUR_NS, leased=True)]
    node = Node(redis_settings(server), rules)
    async with running(node):
        passed = await node.spend(20, tokens=10)
        assert passed == 5
        assert await node.spend(95, tokens=0) <= 95


async def test_more_for_an_answer_that_goes_on_is_taken_from_all(server: RedisServer) -> None:
    settings = redis_settings(server, lease={"share": 0.001, "seconds": 60})
    node = Node(settings, [budget(1_000_000)])
    async with running(node):
        grant = await node.ask(cost=1000)
        rule = grant.extend(0, 50_000, time.monotonic_ns())
        assert rule is node.limits.rules[0]
        [(short, _, missing)] = grant.short
        assert (short, missing) == (rule, 50_000)
        assert await node.leases.cover(grant.short) is None
        assert grant.extend(0, 50_000, time.monotonic_ns()) is None
        assert grant.extend(0, 2_000_000, time.monotonic_ns()) is rule
        refused = await node.leases.cover(grant.short)
        assert refused is not None
        assert refused.rule is rule


async def test_another_upstream_is_asked_for_its_part_too(server: RedisServer) -> None:
    rule = Rule("upstream/requests", PER_UPSTREAM, REQUESTS, 1, HOUR_NS, leased=True)
    node = Node(redis_settings(server), [rule])
    async with running(node):
        now = time.monotonic_ns()
        first = node.limits.admit(now, upstream=1)
        assert await node.leases.cover(first.short) is None
        grant = node.limits.admit(now, upstream=1)
        assert grant.granted
        assert grant.move(2, time.monotonic_ns()) is rule
        assert await node.leases.cover(grant.short) is None
        assert grant.move(2, time.monotonic_ns()) is None


async def test_credit_that_finds_no_place_goes_back(server: RedisServer) -> None:
    rules = [requests(10)]
    node = Node(redis_settings(server, lease={"share": 0.5, "seconds": 60}), rules, table=Table(leases=8))
    async with running(node):
        refused = 0
        for key in range(1, 40):
            grant = await node.ask(key)
            refused += not grant.granted
        assert refused == node.told.leases["no_place"]
        assert 0 < refused < 39
        await until(lambda: server.command("DBSIZE") == b":%d\r\n" % (39 - refused + 1))  # and that of the nodes
