"""Limits: exact refusals with headers that clients obey, slots given back, tokens settled by what was really used."""

from collections.abc import Iterator

import pytest

from tests.support.behaviours import answer, stream
from tests.support.client import Reply
from tests.support.fake_openai import completion, spoken, words
from tests.support.gateway import Gateway, chat_body, configuration, provider
from tests.support.upstream import Upstream

KEYS = {
    "few": [{"per": "key", "requests": 2, "period": "1h"}],
    "shed": [{"per": "key", "requests": 1, "period": "1h"}],
    "gate": [{"per": "key", "concurrent": 1}],
    "thrifty": [{"per": "key", "tokens": 1000, "period": "1h"}],
    "debtor": [{"per": "key", "tokens": 1000, "period": "1h"}],
    "dreamer": [{"per": "key", "tokens": 1000, "period": "1h"}],
    "family": [{"per": "user", "requests": 1, "period": "1h"}],
    "choosy": [{"per": "model", "requests": 1, "period": "1h"}],
    "burst": [{"per": "key", "requests": 3600, "period": "1h", "burst": 2}],
}


def key_of(name: str) -> str:
    return f"agw-bench-{name}-6a1f0d93b84c72e5"


@pytest.fixture(scope="module")
def shared_gateway(shared_upstream: Upstream) -> Iterator[Gateway]:
    config = configuration(provider(shared_upstream.url))
    config["keys"] += [{"name": name, "key": key_of(name), "limits": limits} for name, limits in KEYS.items()]
    with Gateway(config) as running:
        yield running


def assert_refused(reply: Reply) -> None:
    assert reply.status == 429, reply.body
    assert reply.error["code"] == "rate_limit_exceeded"
    seconds = reply.value("retry-after")
    milliseconds = reply.value("retry-after-ms")
    assert seconds is not None
    assert milliseconds is not None
    assert int(seconds) >= 1
    assert int(seconds) * 1000 >= int(milliseconds) > 0


def test_a_request_over_the_limit_is_429_with_the_headers_that_clients_obey(
    gateway: Gateway, upstream: Upstream
) -> None:
    key = key_of("few")
    left = []
    for _ in range(2):
        reply = gateway.chat(key=key)
        assert reply.status == 200
        assert reply.value("x-ratelimit-limit-requests") == "2"
        assert reply.value("x-ratelimit-reset-requests")
        left.append(reply.value("x-ratelimit-remaining-requests"))
    assert left == ["1", "0"]
    refused = gateway.chat(key=key)
    assert_refused(refused)
    assert refused.value("x-ratelimit-remaining-requests") == "0"
    assert len(upstream.requests) == 2


def test_one_keys_limit_does_not_touch_another_key(gateway: Gateway) -> None:
    assert gateway.chat(key=key_of("shed")).status == 200
    assert_refused(gateway.chat(key=key_of("shed")))
    assert gateway.chat().status == 200


def test_the_burst_bounds_what_can_come_at_once(gateway: Gateway) -> None:
    statuses = [gateway.chat(key=key_of("burst")).status for _ in range(3)]
    assert statuses == [200, 200, 429]


def test_a_slot_is_held_until_the_stream_has_ended_and_the_refusal_names_the_rule(
    gateway: Gateway, upstream: Upstream
) -> None:
    key = key_of("gate")
    upstream.script(stream(spoken(), pace_ms=50))
    with gateway.connect() as connection:
        connection.send("POST", "/v1/chat/completions", chat_body(stream=True), gateway.headers(key))
        reply = connection.head()
        refused = gateway.chat(key=key)
        assert_refused(refused)
        assert "keys.gate" in str(refused.error["message"])
        pieces = list(connection.pieces(reply))
    assert reply.complete
    assert pieces
    gateway.until(lambda: gateway.chat(key=key).status == 200, "the slot was not given back")


@pytest.mark.parametrize("streamed", [True, False])
def test_a_slot_is_given_back_when_the_client_leaves(gateway: Gateway, upstream: Upstream, streamed: bool) -> None:
    key = key_of("gate")
    gateway.until(lambda: gateway.chat(key=key).status == 200, "the slot was not free to begin with")
    count = len(upstream.requests)
    upstream.script(stream(words()[:1], ending="hang", delay_ms=0 if streamed else 400))
    with gateway.connect() as connection:
        connection.send("POST", "/v1/chat/completions", chat_body(stream=streamed), gateway.headers(key))
        upstream.wait(count + 1)
        assert_refused(gateway.chat(key=key))
    gateway.until(lambda: gateway.chat(key=key).status == 200, "the slot was not given back")


@pytest.mark.parametrize("streamed", [True, False])
def test_tokens_reserved_but_not_used_are_given_back(gateway: Gateway, streamed: bool) -> None:
    key = key_of("thrifty")
    for _ in range(5):
        reply = gateway.chat(key=key, stream=streamed, max_tokens=700)
        assert reply.status == 200, "five reservations of 700 fit into 1000 only when the real 18 replace each"
        assert reply.value("x-ratelimit-limit-tokens") == "1000"
        gateway.receipts(reply.request_id)


def test_tokens_used_beyond_the_reservation_are_owed(gateway: Gateway, upstream: Upstream) -> None:
    key = key_of("debtor")
    dear = {**completion(), "usage": {"prompt_tokens": 3000, "completion_tokens": 2000, "total_tokens": 5000}}
    upstream.script(answer(dear))
    first = gateway.chat(key=key)
    assert first.status == 200
    gateway.receipts(first.request_id)
    assert_refused(gateway.chat(key=key))
    assert len(upstream.requests) == 1


def test_a_reservation_over_the_whole_bucket_waits_for_a_full_one(gateway: Gateway, upstream: Upstream) -> None:
    assert gateway.chat(key=key_of("dreamer"), max_tokens=5000).status == 200
    assert gateway.chat(key=key_of("dreamer"), max_tokens=5000).status == 429
    assert len(upstream.requests) == 1
    assert gateway.chat(key=key_of("dreamer"), max_tokens=100).status == 200


def test_users_are_told_apart_by_the_body_or_by_x_user_id(gateway: Gateway) -> None:
    key = key_of("family")
    assert gateway.chat(key=key, user="ann").status == 200
    assert_refused(gateway.chat(key=key, user="ann"))
    assert gateway.chat(key=key, user="bob").status == 200
    assert gateway.chat(key=key, headers={"x-user-id": "cy"}).status == 200
    assert_refused(gateway.chat(key=key, headers={"x-user-id": "cy"}))


def test_models_have_buckets_of_their_own(gateway: Gateway) -> None:
    key = key_of("choosy")
    assert gateway.chat(key=key, model="gpt-4o").status == 200
    assert_refused(gateway.chat(key=key, model="gpt-4o"))
    assert gateway.chat(key=key, model="gpt-4o-mini").status == 200
