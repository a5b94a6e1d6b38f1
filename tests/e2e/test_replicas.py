"""Three gateways on one real Redis: what they let pass together, also while it is frozen, gone, and back with nothing.

The bounds are those of docs/redis.md.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest

from tests.support.gateway import APP_KEY, Gateway, configuration, provider
from tests.support.redis_server import RedisServer
from tests.support.upstream import Upstream, unreachable

NODES = 3
AMOUNT = 120  # an hour: two more a minute, at most, come while a test runs
SLACK = 4
OTHER_KEY = "agw-bench-other-2b8c61f09d7e4a35"


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


def config(upstream: Upstream, redis: RedisServer, **redis_fields: object) -> dict[str, Any]:
    tree = configuration(
        provider(upstream.url),
        redis={"url": redis.url, "timeout": "250ms", "lease": {"seconds": "500ms"}, **redis_fields},
    )
    tree["timeouts"] = {"total": "20s"}  # all nodes and clients share the machine's cores
    tree["keys"][0]["limits"] = [{"per": "key", "requests": AMOUNT, "period": "1h"}]
    return tree


@pytest.fixture
def gateways(upstream: Upstream, redis: RedisServer) -> Iterator[list[Gateway]]:
    with ExitStack() as stack:
        running = [
            stack.enter_context(Gateway(config(upstream, redis), args=("--workers", "2") if number == 0 else ()))
            for number in range(NODES)
        ]
        for gateway in running:
            gateway.until(partial(up, gateway), "Redis was not found")
        yield running


def metric(gateway: Gateway, name: str, **labels: str) -> float:
    """The sum of a metric's series that have these labels."""
    tree: Any = gateway.get("/metrics", key=gateway.admin_key).json
    return sum(float(one["value"]) for one in tree.get(name, []) if labels.items() <= one["labels"].items())


def up(gateway: Gateway) -> float:
    return metric(gateway, "agw_redis_up")


def offer(gateways: list[Gateway], each: int) -> list[int]:
    """``each`` requests to each of them, by several clients at once; gives the statuses."""

    def ask(gateway: Gateway) -> int:
        return gateway.chat().status

    with ThreadPoolExecutor(4 * len(gateways)) as clients:
        return list(clients.map(ask, gateways * each))


def drain(gateways: list[Gateway], admitted: int, most: int) -> int:
    """Offer more until ``most`` have passed, since what a node has not used goes back; gives how many did."""

    def passed() -> bool:
        nonlocal admitted
        admitted += offer(gateways, 4).count(200)
        return admitted >= most

    gateways[0].until(passed, f"fewer than {most} passed", seconds=30)
    return admitted


def test_together_they_admit_the_amount_and_all_of_it(gateways: list[Gateway]) -> None:
    statuses = offer(gateways, AMOUNT)
    assert set(statuses) == {200, 429}
    admitted = statuses.count(200)
    assert admitted <= AMOUNT + SLACK
    admitted = drain(gateways, admitted, AMOUNT)
    assert admitted <= AMOUNT + SLACK
    refused = gateways[0].chat()
    assert refused.status == 429
    assert int(refused.value("retry-after") or 0) > 1


def test_a_frozen_server_lets_pass_one_amount_more_and_nobody_waits_for_it(
    gateways: list[Gateway], redis: RedisServer
) -> None:
    admitted = offer(gateways, AMOUNT).count(200)
    for gateway in gateways:
        gateway.until(partial(nodes_known, gateway), "the nodes do not know each other")
    redis.freeze()
    frozen = offer(gateways, AMOUNT)
    assert set(frozen) <= {200, 429}
    assert frozen.count(200) <= AMOUNT + SLACK
    late = sum(metric(gateway, "agw_redis_failures_total", why="late") for gateway in gateways)
    assert late < len(frozen) / 10
    redis.thaw()
    for gateway in gateways:
        gateway.until(partial(up, gateway), "Redis was not found again")
    after = offer(gateways, AMOUNT).count(200)
    assert admitted + after <= AMOUNT + SLACK


def nodes_known(gateway: Gateway) -> bool:
    return metric(gateway, "agw_nodes") == NODES


def test_a_server_that_comes_back_with_nothing_lets_pass_one_amount_more(
    gateways: list[Gateway], redis: RedisServer
) -> None:
    for gateway in gateways:
        gateway.until(partial(nodes_known, gateway), "the nodes do not know each other")
    admitted = offer(gateways, AMOUNT).count(200)
    redis.kill()
    away = offer(gateways, AMOUNT).count(200)
    redis.start()
    for gateway in gateways:
        gateway.until(partial(up, gateway), "Redis was not found again")
    after = offer(gateways, AMOUNT).count(200)
    assert admitted <= AMOUNT + SLACK
    assert away <= AMOUNT + SLACK
    assert admitted + after <= 2 * AMOUNT + SLACK  # what was held when it went may be spent now


def test_fail_closed_refuses_with_503_while_it_is_away(upstream: Upstream, redis: RedisServer) -> None:
    with Gateway(config(upstream, redis, on_failure="fail_closed")) as gateway:
        gateway.until(partial(up, gateway), "Redis was not found")
        assert gateway.chat().status == 200
        told: Any = gateway.get("/health/ready?verbose", key=gateway.admin_key).json
        assert told["redis"] == {"state": "up", "since": told["redis"]["since"], "last_error": None}
        redis.kill()
        gateway.until(lambda: gateway.chat().status == 503, "it goes on serving")
        reply = gateway.chat()
        assert reply.error["code"] == "gateway_limits_unavailable"
        told = gateway.get("/health/ready?verbose", key=gateway.admin_key).json
        assert (told["status"], told["redis"]["state"], told["redis"]["last_error"]) == (
            "ready",
            "away",
            "ConnectionError",
        )
        assert reply.value("retry-after-ms")
        redis.start()
        gateway.until(lambda: gateway.chat().status == 200, "it serves no more")


def test_a_gateway_starts_and_serves_without_the_server(upstream: Upstream, redis: RedisServer) -> None:
    redis.kill()
    with Gateway(config(upstream, redis, replicas=2)) as gateway:
        statuses = offer([gateway], AMOUNT)
        assert statuses.count(200) == AMOUNT // 2
        lost = [line for line in gateway.logs() if line.get("event") == "redis.lost"]
        assert len(lost) == 1


def test_a_revoked_key_is_refused_by_all_once_one_has_read_its_file(
    gateways: list[Gateway], upstream: Upstream, redis: RedisServer
) -> None:
    for gateway in gateways:
        assert gateway.get("/v1/models").status == 200
        revoked = config(upstream, redis)
        revoked["keys"][0]["key"] = OTHER_KEY
        gateway.write(revoked)
    for gateway in gateways:
        assert gateway.get("/v1/models", key=APP_KEY).status == 200
    told = gateways[1]
    assert told.post("/security/refresh", {}, key=told.admin_key).status == 200
    for gateway in gateways:
        gateway.until(partial(swapped, gateway), "not revoked in every worker")
    assert_notices(gateways, [1, 0, 1])
    assert gateways[0].post("/upstreams/refresh", {}, key=told.admin_key).status == 200
    assert_notices(gateways, [1, 1, 2])
    assert told.post("/upstreams/refresh", {}, key=told.admin_key).status == 200
    assert_notices(gateways, [2, 1, 3])


def swapped(gateway: Gateway) -> bool:
    """Many connections, so all of its workers, know the new key and not the old one."""
    told = [gateway.get("/v1/models", key=key).status for _ in range(12) for key in (APP_KEY, OTHER_KEY)]
    return told == [401, 200] * 12


def assert_notices(gateways: list[Gateway], expected: list[int]) -> None:
    def counts() -> list[int]:
        return [sum(line.get("event") == "config.notice" for line in gateway.logs()) for gateway in gateways]

    gateways[0].until(lambda: counts() == expected, f"not {expected} notices")


def test_a_budget_is_shared_and_closed_while_the_server_is_away(upstream: Upstream, redis: RedisServer) -> None:
    tree = config(upstream, redis)
    tree["keys"][0] |= {"limits": [], "budgets": [{"usd": 1, "period": "month"}]}
    tree["prices"] = [{"model": "*", "request": 0.01}]
    with Gateway(tree) as one, Gateway(tree) as two:
        both = [one, two]
        for gateway in both:
            gateway.until(partial(up, gateway), "Redis was not found")
        statuses = offer(both, 80)
        admitted = statuses.count(200)
        assert set(statuses) == {200, 429}
        assert admitted <= 100
        assert drain(both, admitted, 100) == 100
        reply = one.chat()
        assert reply.error["code"] == "insufficient_quota"
        assert reply.value("x-should-retry") == "false"
        redis.kill()
        two.until(lambda: two.chat().status == 503, "it goes on spending")
        assert one.get("/v1/models").status == 200


def test_a_fallback_finds_its_upstreams_limit_unused(upstream: Upstream, redis: RedisServer) -> None:
    """The part of a limit that nobody has asked for here yet is taken when the exchange goes to that upstream."""
    tree = config(upstream, redis)
    with unreachable() as nowhere:
        tree["upstreams"] = [
            provider(nowhere, "first", limits=[{"requests": 5, "period": "1h"}]),
            provider(upstream.url, "second", limits=[{"requests": 5, "period": "1h"}]),
        ]
        targets = [{"upstream": name, "model": "gpt-4o-mini"} for name in ("first", "second")]
        tree["models"] = [{"name": "pair", "targets": targets, "balance": "first"}]
        with Gateway(tree) as gateway:
            gateway.until(partial(up, gateway), "Redis was not found")
            statuses = [gateway.chat(model="pair").status for _ in range(7)]
    assert statuses[:5] == [200] * 5
    assert 200 not in statuses[5:]
