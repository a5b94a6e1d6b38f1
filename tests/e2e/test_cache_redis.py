"""Several gateways with one Redis: an answer that one has is everybody's, and without Redis each goes on alone."""

from collections.abc import Iterator

import pytest

from tests.e2e.test_cache import cached, fresh
from tests.support.gateway import Gateway, Tree
from tests.support.redis_server import RedisServer
from tests.support.upstream import Upstream


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
