"""Where a request goes: names, weights, retries, fallbacks, and when the gateway stops trying."""

from collections.abc import Iterator

import pytest

from tests.support.behaviours import answer, failure, limited, reset, silence, stream
from tests.support.fake_openai import completion, spoken, words
from tests.support.gateway import Gateway, chat_body, configuration, provider
from tests.support.upstream import Behaviour, Upstream, unreachable

WEIGHTED_TRIES = 60
PAUSE_MS = 40  # above the first back-off (10 ms), below the configured maximum (50 ms)


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
    first = {"upstream": "fake", "model": "gpt-4o"}
    other = {"upstream": "second", "model": "other-1"}
    models = [
        {"name": "spread", "targets": [{**first, "weight": 3}, {**other, "weight": 1}], "balance": "weighted"},
        {"name": "backed", "targets": [first], "fallbacks": ["second/other-1"]},
        {"name": "doomed", "targets": [{"upstream": "nowhere", "model": "dead-1"}], "fallbacks": ["second/other-1"]},
    ]
    with unreachable() as nowhere:
        upstreams = [
            provider(shared_upstream.url),
            provider(shared_second.url, "second", models=["other-?", "special", "gpt-9*"]),
            provider(nowhere, "nowhere", models=["dead-*"]),
        ]
        with Gateway(configuration(*upstreams, models=models)) as running:
            yield running


def test_weights_reach_every_target(gateway: Gateway, upstream: Upstream, second: Upstream) -> None:
    for _ in range(WEIGHTED_TRIES):
        assert gateway.chat(model="spread").status == 200
    assert len(upstream.requests) + len(second.requests) == WEIGHTED_TRIES
    assert len(upstream.requests) > len(second.requests) > 0
    assert {seen.json["model"] for seen in upstream.requests} == {"gpt-4o"}
    assert {seen.json["model"] for seen in second.requests} == {"other-1"}


@pytest.mark.parametrize(
    "sick", [failure(503), failure(500), limited(()), reset(), silence()], ids=["503", "500", "429", "reset", "silence"]
)
@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "stream"])
def test_a_sick_target_falls_back_and_the_trail_tells(
    gateway: Gateway, upstream: Upstream, second: Upstream, sick: Behaviour, streamed: bool
) -> None:
    upstream.default = sick
    reply = gateway.chat(model="backed", stream=streamed)
    assert reply.status == 200
    assert len(second.requests) == 1
    trail = reply.value("x-agw-attempts") or ""
    assert "fake/gpt-4o" in trail
    assert "second/other-1" in trail
    assert trail.index("fake/gpt-4o") < trail.index("second/other-1")


def test_an_unreachable_target_falls_back(gateway: Gateway, second: Upstream) -> None:
    assert gateway.chat(model="doomed").status == 200
    assert len(second.requests) == 1


def test_no_other_upstream_is_tried_after_the_first_byte(
    gateway: Gateway, upstream: Upstream, second: Upstream
) -> None:
    upstream.script(stream(words()[:2], ending="fin"))
    reply = gateway.chat(model="backed", stream=True)
    assert b"event: error" in reply.body
    assert second.requests == []


@pytest.mark.parametrize(
    ("name", "model"),
    [("other-1", "other-1"), ("special", "special"), ("second/any/thing", "any/thing")],
)
def test_names_globs_and_direct_addresses_lead_to_the_second_upstream(
    gateway: Gateway, upstream: Upstream, second: Upstream, name: str, model: str
) -> None:
    assert gateway.chat(model=name).status == 200
    assert second.last.json["model"] == model
    assert upstream.requests == []


def test_globs_match_in_the_order_of_the_upstreams(gateway: Gateway, upstream: Upstream, second: Upstream) -> None:
    assert gateway.chat(model="gpt-9").status == 200
    assert (len(upstream.requests), len(second.requests)) == (1, 0)


@pytest.mark.parametrize("name", ["other-12", "Special", "dead", "nobody/gpt-4o", "second/"])
def test_what_no_route_leads_to_is_404(gateway: Gateway, name: str) -> None:
    assert gateway.chat(model=name).status == 404


def test_only_the_models_name_changes_in_the_body(gateway: Gateway, second: Upstream) -> None:
    text = '{ "messages" : [ {"role":"user","content":"\u00e9 \\u0041"} ],\n\t"temperature": 1.50e+0, "model" :  %s }'
    body = (text % '"second/other-1"').encode()
    assert gateway.post("/v1/chat/completions", body).status == 200
    assert second.last.body == (text % '"other-1"').encode()
    assert second.last.values("content-length") == [str(len(second.last.body))]


def test_a_body_whose_name_stays_is_forwarded_as_it_came(gateway: Gateway, upstream: Upstream) -> None:
    body = b'{"model":"gpt-4o" , "messages":[]  , "seed": 12345678901234567890 }'
    assert gateway.post("/v1/chat/completions?api-version=1", body).status == 200
    assert upstream.last.body == body
    assert upstream.last.target == "/v1/chat/completions?api-version=1"


@pytest.mark.parametrize("sick", [limited(()), failure(500), failure(503), reset()], ids=["429", "500", "503", "reset"])
def test_a_failure_that_may_pass_is_tried_again_on_the_same_target(
    gateway: Gateway, upstream: Upstream, sick: Behaviour
) -> None:
    upstream.script(sick)
    reply = gateway.chat()
    assert reply.status == 200
    assert len(upstream.requests) == 2
    assert upstream.requests[0].body == upstream.requests[1].body
    assert gateway.receipt(reply.request_id)["attempts"] == 2


def test_the_attempts_are_bounded(gateway: Gateway, upstream: Upstream) -> None:
    upstream.default = failure(500)
    reply = gateway.chat()
    assert reply.status == 502
    assert reply.value("x-should-retry") == "false"
    assert len(upstream.requests) == 3


def test_the_upstreams_wish_to_wait_is_honoured(gateway: Gateway, upstream: Upstream) -> None:
    upstream.script(limited((("retry-after-ms", str(PAUSE_MS)),)))
    assert gateway.chat().status == 200
    first, again = upstream.requests
    assert again.received_at - first.received_at >= PAUSE_MS / 1000


def test_a_wait_too_long_for_us_is_passed_on_capped(gateway: Gateway, upstream: Upstream) -> None:
    upstream.default = limited((("retry-after", "200"),))
    reply = gateway.chat()
    assert reply.status == 429
    assert reply.error["message"]
    assert 1 <= int(reply.value("retry-after") or "0") <= 30


@pytest.mark.parametrize("rubbish", ["soon", "-5", "1e400", "Wed, 21 Oct 2015 07:28:00 GMT"])
def test_rubbish_or_a_date_in_the_past_means_our_own_back_off(
    gateway: Gateway, upstream: Upstream, rubbish: str
) -> None:
    upstream.script(limited((("retry-after", rubbish),)))
    assert gateway.chat().status == 200
    assert len(upstream.requests) == 2


@pytest.mark.parametrize("status", [400, 413, 422])
def test_an_error_of_the_caller_is_passed_through_once(gateway: Gateway, upstream: Upstream, status: int) -> None:
    upstream.default = failure(status, "the caller's own fault", code="their_code")
    reply = gateway.chat(model="backed")
    assert reply.status == status
    assert reply.error["message"] == "the caller's own fault"
    assert len(upstream.requests) == 1
    assert reply.request_id


def test_an_exhausted_quota_is_not_tried_again(gateway: Gateway, upstream: Upstream) -> None:
    upstream.default = limited((), "insufficient_quota")
    reply = gateway.chat()
    assert reply.status == 429
    assert reply.error["code"] == "insufficient_quota"
    assert reply.value("x-should-retry") == "false"
    assert len(upstream.requests) == 1


def test_a_kept_connection_that_the_upstream_has_closed_costs_nothing(gateway: Gateway, upstream: Upstream) -> None:
    for _ in range(5):
        upstream.script(answer(completion(), close=True))
        assert gateway.chat().status == 200
    assert len(upstream.requests) == 5


def test_connections_to_an_upstream_are_used_again(gateway: Gateway, upstream: Upstream) -> None:
    for _ in range(4):
        assert gateway.chat().status == 200
        assert gateway.chat(stream=True).body == b"".join(spoken())
    assert len({seen.connection for seen in upstream.requests}) < len(upstream.requests)


def test_one_client_connection_reaches_many_routes(gateway: Gateway, upstream: Upstream, second: Upstream) -> None:
    with gateway.connect() as connection:
        for model in ("gpt-4o", "second/other-1", "agw/echo", "gpt-4o"):
            connection.send("POST", "/v1/chat/completions", chat_body(model=model), gateway.headers())
            assert connection.reply().status == 200
    assert (len(upstream.requests), len(second.requests)) == (2, 1)
