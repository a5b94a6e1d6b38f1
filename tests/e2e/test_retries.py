"""Retries that help and never multiply an outage: bounded by a budget, by each model's own attempts, and by who waits."""

from collections.abc import Iterator

import pytest

from tests.support.behaviours import failure, limited
from tests.support.gateway import Gateway, chat_body, configuration, provider
from tests.support.upstream import Upstream

REQUESTS = 500
SHARE = 0.2
PAUSE_MS = 400


@pytest.fixture(scope="module")
def shared_gateway(shared_upstream: Upstream) -> Iterator[Gateway]:
    url = shared_upstream.url
    config = configuration(
        provider(url, "down", models=["down-*"], retries={"budget": SHARE, "budget_floor": 0}),
        provider(url, "fragile", models=["fragile-*"], breaker={"enabled": True, "consecutive": 3, "cool_down": "60s"}),
        provider(url, "quick", models=["quick-*"], breaker={"enabled": True, "consecutive": 3, "cool_down": "1ms"}),
        provider(url),
        models=[
            {"name": "eager", "targets": ["fake/gpt-4o"], "retries": {"attempts": 5}},
            {"name": "once", "targets": ["fake/gpt-4o"], "retries": {"attempts": 1}},
        ],
        retries={"attempts": 3, "base": "1ms", "max": "1s", "budget_floor": 1_000_000},
        server={"port": 0, "lane": "full"},
    )
    with Gateway(config) as running:
        yield running


def test_an_upstream_that_is_down_gets_a_fifth_more_than_the_requests_and_no_more(
    gateway: Gateway, upstream: Upstream
) -> None:
    upstream.default = failure(500)
    with gateway.connect() as connection:
        for _ in range(REQUESTS):
            connection.send("POST", "/v1/chat/completions", chat_body(model="down-1"), gateway.headers())
            assert connection.reply().status == 502
    assert REQUESTS * 1.1 < len(upstream.requests) <= REQUESTS * (1 + SHARE)


@pytest.mark.parametrize(("model", "attempts"), [("eager", 5), ("once", 1), ("gpt-4o", 3)])
def test_a_model_may_have_attempts_of_its_own(gateway: Gateway, upstream: Upstream, model: str, attempts: int) -> None:
    upstream.default = failure(500)
    reply = gateway.chat(model=model)
    assert (reply.status, len(upstream.requests)) == (502, attempts)
    assert gateway.receipt(reply.request_id)["attempts"] == attempts


def test_nobody_is_asked_again_for_a_client_that_has_gone(gateway: Gateway, upstream: Upstream) -> None:
    upstream.script(limited((("retry-after-ms", str(PAUSE_MS)),)))
    with gateway.connect() as connection:
        connection.send("POST", "/v1/chat/completions", chat_body(model="gpt-4o-gone"), gateway.headers())
        upstream.wait(1)
    gateway.until(
        lambda: [line for line in gateway.logs() if line.get("model") == "gpt-4o-gone"],
        "no receipt for the one who left",
    )
    receipt = next(line for line in gateway.logs() if line.get("model") == "gpt-4o-gone")
    # The 429 may be on its way yet when the client goes: then no attempt has ended.
    assert (receipt["outcome"], receipt.get("attempts", 0) <= 1) == ("caller_gone", True)
    assert receipt["duration_ms"] < PAUSE_MS
    assert len(upstream.requests) == 1


def test_an_open_circuit_answers_for_the_upstream_and_says_when_to_come_again(
    gateway: Gateway, upstream: Upstream
) -> None:
    upstream.default = failure(500)
    assert gateway.chat(model="fragile-1").status == 502
    reply = gateway.chat(model="fragile-1")
    assert (reply.status, reply.error["code"]) == (503, "upstream_unavailable")
    assert 1 <= int(reply.value("retry-after") or "0") <= 61  # a minute, rounded up
    assert len(upstream.requests) == 3
    assert gateway.receipt(reply.request_id).get("attempts", 0) == 0


def test_a_circuit_closes_again_behind_a_good_probe(gateway: Gateway, upstream: Upstream) -> None:
    upstream.script(*[failure(500)] * 3)
    assert gateway.chat(model="quick-1").status == 502
    assert gateway.until(lambda: gateway.chat(model="quick-1").status == 200, "the circuit stayed open")
    assert gateway.chat(model="quick-1").status == 200
