"""Several gateways with one Redis: an answer that one has is everybody's, and without Redis each goes on alone."""

from collections.abc import Iterator

import pytest

from tests.e2e.test_cache import cached, fresh
from tests.support.gateway import Gateway, Tree
from tests.support.redis_server import RedisServer
from tests.support.upstream import Upstream

LEASED = "agw-bench-leased-4b7e19c2d5a8306f"


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


def sharing(url: str, redis: RedisServer) -> Tree:
    return {**cached(url, backend="redis"), "redis": {"url": redis.url, "timeout": "250ms", "notices": False}}


@pytest.fixture(scope="module")
def two(shared_upstream: Upstream, redis: RedisServer) -> Iterator[tuple[Gateway, Gateway]]:
    config = sharing(shared_upstream.url, redis)
    with Gateway(config) as one, Gateway(config) as other:
        yield one, other


@pytest.mark.parametrize("streamed", [False, True])
def test_an_answer_of_one_is_given_by_the_other(
    two: tuple[Gateway, Gateway], upstream: Upstream, streamed: bool
) -> None:
    one, other = two
    asked = fresh()
    first = one.chat(messages=asked, stream=streamed)
    other.until(
        lambda: other.chat(messages=asked, stream=streamed).value("x-agw-cache") == "hit", "the answer is not shared"
    )
    again = other.chat(messages=asked, stream=streamed)
    assert first.value("x-agw-cache") == "miss"
    assert again.body == first.body


def test_a_key_means_the_same_at_both(two: tuple[Gateway, Gateway], upstream: Upstream) -> None:
    one, other = two
    asked, mine = fresh(), {"idempotency-key": "everywhere"}
    first = one.chat(messages=asked, headers=mine)
    again = other.chat(messages=asked, headers=mine)
    assert (first.value("idempotent-replayed"), again.value("idempotent-replayed")) == (None, "true")
    assert again.body == first.body
    assert other.chat(messages=fresh(), headers=mine).status == 409
    assert len(upstream.requests) == 1


def test_while_redis_is_frozen_or_gone_requests_are_answered_all_the_same(
    two: tuple[Gateway, Gateway], redis: RedisServer, upstream: Upstream
) -> None:
    one, _ = two
    asked = fresh()
    assert one.chat(messages=asked).status == 200
    redis.freeze()
    try:
        replies = [one.chat(messages=asked) for _ in range(3)]
        assert [(reply.status, reply.value("x-agw-cache")) for reply in replies] == [(200, "miss")] * 3
        dropped = one.chat(messages=asked, headers={"idempotency-key": "frozen"})
        assert (dropped.status, dropped.value("x-agw-dropped")) == (200, "idempotency-key")
    finally:
        redis.thaw()
    one.until(lambda: one.chat(messages=asked).value("x-agw-cache") == "hit", "Redis is not asked again", 15)
    redis.kill()
    assert one.chat(messages=asked).status == 200
    redis.start()
    one.until(lambda: one.chat(messages=asked).value("x-agw-cache") == "hit", "Redis is not asked again", 15)


def test_what_is_kept_stays_so_when_a_part_of_a_shared_limit_is_used_up(
    shared_upstream: Upstream, upstream: Upstream, redis: RedisServer
) -> None:
    """The full lane takes the next part, and goes on with the kept answer, not with the upstream."""
    config = sharing(shared_upstream.url, redis)
    config["cache"]["backend"] = "memory"
    config["redis"]["lease"] = {"share": 0.05, "seconds": "30s"}
    config["keys"].append({"name": "leased", "key": LEASED, "limits": [{"per": "key", "requests": 60, "period": "1h"}]})
    asked = fresh()
    with Gateway(config) as gateway:
        replies = [gateway.chat(messages=asked, key=LEASED) for _ in range(25)]
        lanes = [gateway.receipt(reply.request_id)["lane"] for reply in replies]
    assert {reply.status for reply in replies} == {200}
    assert [reply.value("x-agw-cache") for reply in replies] == ["miss"] + ["hit"] * 24
    assert "full" in lanes[1:], "no part was used up"
    assert len(upstream.requests) == 1
