"""A second attempt for an answer that is late: the first to answer wins, the loser is gone at once."""

from collections.abc import Iterator

import pytest

from tests.support.behaviours import answer, failure, silence
from tests.support.fake_openai import completion
from tests.support.gateway import Gateway, configuration, provider
from tests.support.upstream import Upstream

LEAVE_SECONDS = 0.1


@pytest.fixture(scope="module")
def shared_second() -> Iterator[Upstream]:
    with Upstream() as running:
        yield running


@pytest.fixture
def second(shared_second: Upstream) -> Upstream:
    shared_second.reset()
    return shared_second


@pytest.fixture(scope="module")
def shared_gateway(shared_upstream: Upstream, shared_second: Upstream) -> Iterator[Gateway]:
    hedge = {"after": "50ms", "budget": 1.0}
    config = configuration(
        provider(shared_upstream.url),
        provider(shared_second.url, "second", models=["other-*"]),
        models=[
            {"name": "pair", "targets": ["fake/gpt-4o", "second/other-1"], "balance": "first", "hedge": hedge},
            {"name": "alone", "targets": ["fake/gpt-4o"], "hedge": hedge},
            {"name": "poor", "targets": ["fake/gpt-4o"], "hedge": {"after": "20ms", "budget": 0}},
            {
                "name": "learning",
                "targets": ["fake/gpt-4o", "second/other-1"],
                "balance": "first",
                "hedge": {"budget": 1},
            },
        ],
        timeouts={"connect": "300ms", "first_byte": "2s", "between_bytes": "2s", "total": "20s"},
    )
    with Gateway(config) as running:
        yield running


def counted(gateway: Gateway, outcome: str) -> int:
    line = f'agw_hedges_total{{outcome="{outcome}"}}'
    text = gateway.get("/metrics/prometheus", key=gateway.admin_key).body.decode()
    return next((int(float(row.split()[-1])) for row in text.splitlines() if row.startswith(line)), 0)


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "stream"])
def test_the_next_target_answers_for_a_late_one_which_is_left_at_once(
    gateway: Gateway, upstream: Upstream, second: Upstream, streamed: bool
) -> None:
    before = counted(gateway, "won")
    upstream.default = silence()
    reply = gateway.chat(model="pair", stream=streamed)
    assert reply.status == 200
    assert (b"[DONE]" in reply.body) is streamed
    assert upstream.wait_gone(upstream.last) - second.last.received_at < LEAVE_SECONDS
    assert reply.value("x-agw-attempts") == "fake/gpt-4o=hedged_lost, second/other-1=200"
    receipt = gateway.receipt(reply.request_id)
    assert (receipt["target"], receipt["lane_reason"]) == ("second/other-1", "hedge")
    assert counted(gateway, "won") == before + 1


def test_a_single_target_is_asked_twice(gateway: Gateway, upstream: Upstream) -> None:
    upstream.script(silence())
    reply = gateway.chat(model="alone")
    assert (reply.status, len(upstream.requests)) == (200, 2)
    upstream.wait_gone(upstream.requests[0])


def test_an_answer_in_time_has_no_rival(gateway: Gateway, upstream: Upstream, second: Upstream) -> None:
    assert gateway.chat(model="pair").status == 200
    assert (len(upstream.requests), second.requests) == (1, [])


def test_a_late_first_answer_still_wins_over_a_later_rival(
    gateway: Gateway, upstream: Upstream, second: Upstream
) -> None:
    upstream.script(answer(completion(), delay_ms=200))
    second.default = silence()
    reply = gateway.chat(model="pair")
    assert reply.value("x-agw-attempts") == "second/other-1=hedged_lost, fake/gpt-4o=200"
    second.wait_gone(second.last)


def test_a_rival_that_fails_leaves_it_to_the_first(gateway: Gateway, upstream: Upstream, second: Upstream) -> None:
    upstream.script(answer(completion(), delay_ms=200))
    second.default = failure(500)
    reply = gateway.chat(model="pair")
    assert (reply.status, reply.value("x-agw-attempts")) == (200, "second/other-1=upstream_failed, fake/gpt-4o=200")


def test_without_a_budget_there_is_no_second_attempt(gateway: Gateway, upstream: Upstream) -> None:
    upstream.script(answer(completion(), delay_ms=100))
    assert gateway.chat(model="poor").status == 200
    assert len(upstream.requests) == 1
    assert counted(gateway, "denied") >= 1


def test_a_client_that_leaves_ends_both(gateway: Gateway, upstream: Upstream, second: Upstream) -> None:
    upstream.default = second.default = silence()
    with gateway.connect() as connection:
        body = {"model": "pair", "messages": [{"role": "user", "content": "Say hello"}]}
        connection.send("POST", "/v1/chat/completions", body, gateway.headers())
        upstream.wait(1)
        second.wait(1)
    upstream.wait_gone(upstream.last)
    second.wait_gone(second.last)


def test_the_time_is_learnt_from_the_answers_of_the_route(
    gateway: Gateway, upstream: Upstream, second: Upstream
) -> None:
    upstream.script(answer(completion(), delay_ms=300))
    assert gateway.chat(model="learning").status == 200  # nothing is known yet: no rival
    for _ in range(40):
        assert gateway.chat(model="learning").status == 200
    assert len(upstream.requests) + len(second.requests) >= 41
    for _ in range(5):  # a loser of those before that was still on its way may take the silence
        rivals = len(second.requests)
        upstream.script(silence())
        reply = gateway.chat(model="learning")
        assert reply.status == 200
        if reply.value("x-agw-attempts") is not None:
            break
    assert reply.value("x-agw-attempts") == "fake/gpt-4o=hedged_lost, second/other-1=200"
    assert len(second.requests) == rivals + 1
