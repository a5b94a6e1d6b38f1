"""Several keys of one upstream: taken in turn, and one that is refused or limited costs nobody an answer."""

from collections.abc import Iterator

import pytest

from tests.support.behaviours import answer, failure, limited
from tests.support.fake_openai import completion
from tests.support.gateway import Gateway, configuration, provider
from tests.support.upstream import Behaviour, Exchange, Upstream

KEYS = [f"upstream-secret-{letter * 16}" for letter in "abc"]


def but(sick: dict[str, Behaviour]) -> Behaviour:
    """Answers each key in its own way, all others well."""

    async def behave(exchange: Exchange) -> None:
        key = (exchange.request.value("authorization") or "").removeprefix("Bearer ")
        await sick.get(key, answer(completion()))(exchange)

    return behave


def keys_seen(upstream: Upstream) -> list[int]:
    return [KEYS.index((seen.value("authorization") or "").removeprefix("Bearer ")) for seen in upstream.requests]


@pytest.fixture
def keyed(upstream: Upstream) -> Iterator[Gateway]:
    entry = provider(upstream.url, api_key=None, api_keys=KEYS, breaker={"enabled": True, "consecutive": 2})
    with Gateway(configuration(entry)) as running:
        upstream.reset()
        yield running


def test_keys_are_taken_in_turn(keyed: Gateway, upstream: Upstream) -> None:
    for _ in range(6):
        reply = keyed.chat()
        assert reply.status == 200
    first = keys_seen(upstream)[0]
    assert keys_seen(upstream) == [(first + step) % 3 for step in range(6)]
    assert keyed.receipt(reply.request_id)["lane_reason"] == "keys"


@pytest.mark.parametrize("status", [401, 403])
def test_a_key_that_is_refused_is_left_out_and_named_by_its_number(
    keyed: Gateway, upstream: Upstream, status: int
) -> None:
    upstream.default = but({KEYS[1]: failure(status)})
    for _ in range(9):
        assert keyed.chat().status == 200
    assert keys_seen(upstream).count(1) == 1
    lines = keyed.until(
        lambda: [line for line in keyed.logs() if line["event"] == "upstream.key_refused"],
        "the dead key was not told of",
    )
    assert [(line["upstream"], line["key"]) for line in lines] == [("fake", "key 2 of 3")]
    assert not any(key in keyed.output for key in KEYS)
    told = keyed.get("/upstreams", key=keyed.admin_key)
    assert b'"dead_keys":1' in told.body
    assert not any(key.encode() in told.body for key in KEYS)


def test_a_key_that_is_limited_rests(keyed: Gateway, upstream: Upstream) -> None:
    upstream.default = but({KEYS[0]: limited((("retry-after", "20"),))})
    for _ in range(9):
        assert keyed.chat().status == 200
    assert keys_seen(upstream).count(0) == 1


def test_a_request_that_every_key_is_refused_for_is_the_requests_fault(keyed: Gateway, upstream: Upstream) -> None:
    upstream.script(*[failure(403)] * 3)
    assert keyed.chat().status == 403
    assert sorted(keys_seen(upstream)) == [0, 1, 2]
    assert keyed.chat().status == 200
    assert not [line for line in keyed.logs() if line["event"] == "upstream.key_refused"]


def test_where_all_keys_are_limited_the_caller_hears_when_to_come_again(keyed: Gateway, upstream: Upstream) -> None:
    upstream.default = limited((("retry-after", "20"),))
    assert keyed.chat().status == 429
    reply = keyed.chat()
    assert reply.status == 503
    assert 1 <= int(reply.value("retry-after") or "0") <= 20
    assert len(upstream.requests) == 3


def test_a_changed_configuration_revives_a_dead_key(keyed: Gateway, upstream: Upstream) -> None:
    upstream.default = but({KEYS[1]: failure(401)})
    for _ in range(3):
        assert keyed.chat().status == 200
    upstream.reset()
    entry = provider(upstream.url, api_key=None, api_keys=KEYS, retries={"attempts": 2})
    keyed.write(configuration(entry))
    assert keyed.post("/security/refresh", key=keyed.admin_key).status == 200
    for _ in range(6):
        assert keyed.chat().status == 200
    assert keys_seen(upstream).count(1) == 2
