"""Limits at every place and by every subject, alike in both lanes; what is refused takes nothing."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.faults.holes import deaf
from tests.support.behaviours import answer, failure, stream
from tests.support.client import Reply
from tests.support.fake_openai import completion, words
from tests.support.gateway import ADMIN_KEY, Gateway, Tree, chat_body, configuration, provider
from tests.support.upstream import Upstream

ANN, BOB, CY = ("agw-rules-ann-8c3f17d05b9a24e6", "agw-rules-bob-8c3f17d05b9a24e6", "agw-rules-cy-8c3f17d05b9a24e6")
USED = {"prompt_tokens": 30, "completion_tokens": 12, "total_tokens": 42}


@pytest.fixture(params=["auto", "full"])
def lane(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def settings(upstream: Upstream, lane: str, **sections: object) -> Tree:
    config = configuration(
        provider(upstream.url),
        server={"port": 0, "drain_seconds": 1, "body_seconds": 1, "lane": lane},
        retries={"attempts": 1},
        teams=[{"name": "red", **sections.pop("team", {})}],  # type: ignore[dict-item]  # a team's settings
        **sections,
    )
    own = [("ann", ANN, "red"), ("bob", BOB, "red"), ("cy", CY, None)]
    config["keys"] += [{"name": name, "key": key} | ({"team": team} if team else {}) for name, key, team in own]
    return config


def start(upstream: Upstream, lane: str, **sections: object) -> Gateway:
    upstream.reset()
    return Gateway(settings(upstream, lane, **sections))


def statuses(gateway: Gateway, *keys: str, **more: Any) -> list[int]:
    return [gateway.chat(key=key, **more).status for key in keys]


def rule_of(reply: Reply) -> str:
    return str(reply.error["message"]).split("'")[1]


def test_a_teams_keys_share_its_limits(upstream: Upstream, lane: str) -> None:
    with start(upstream, lane, team={"limits": [{"requests": 3, "period": "1h"}]}) as gateway:
        assert statuses(gateway, ANN, BOB, ANN, BOB, CY) == [200, 200, 200, 429, 200]
        refused = gateway.chat(key=ANN)
        assert rule_of(refused) == "teams.red/requests-per-team"
        receipt = gateway.receipts(refused.request_id)[0]
        assert (receipt["team"], receipt["rule"]) == ("red", "teams.red/requests-per-team")
        told = gateway.get("/metrics/prometheus", key=ADMIN_KEY).body.decode()
        assert 'agw_rate_limited_total{rule="teams.red/requests-per-team"} 2.0' in told


def test_team_and_model_together_have_buckets_of_their_own(upstream: Upstream, lane: str) -> None:
    limits = [{"per": ["team", "model"], "requests": 1, "period": "1h"}]
    with start(upstream, lane, team={"limits": limits}) as gateway:
        assert statuses(gateway, ANN, BOB, model="gpt-4o") == [200, 429]
        assert statuses(gateway, BOB, ANN, model="gpt-4o-mini") == [200, 429]


def test_channels_are_told_apart_and_so_are_users_of_one(upstream: Upstream, lane: str) -> None:
    limits = [{"per": ["channel", "user"], "requests": 1, "period": "1h"}]
    with start(upstream, lane, limits=limits) as gateway:

        def ask(channel: str, user: str) -> int:
            return gateway.chat(key=CY, headers={"x-channel-id": channel, "x-user-id": user}).status

        assert [ask("a", "u"), ask("b", "u"), ask("a", "v"), ask("a", "u")] == [200, 200, 200, 429]


def test_an_upstreams_limit_is_for_all_keys_and_a_fallback_serves_what_it_refuses(
    upstream: Upstream, lane: str
) -> None:
    model = {"name": "both", "targets": ["fake/gpt-4o"], "fallbacks": ["other/gpt-9"], "balance": "first"}
    config = settings(upstream, lane, models=[model])
    config["upstreams"][0]["limits"] = [{"requests": 2, "period": "1h"}]
    config["upstreams"].append(provider(upstream.url, "other", models=["gpt-9"]))
    with Gateway(config) as gateway:
        assert statuses(gateway, ANN, CY, ANN, model="gpt-4o") == [200, 200, 429]
        reply = gateway.chat(key=ANN, model="both")
        assert reply.status == 200
        assert gateway.receipts(reply.request_id)[0]["upstream"] == "other"


def test_nothing_is_taken_where_one_rule_refuses(upstream: Upstream, lane: str) -> None:
    limits = [{"per": "key", "requests": 5, "period": "1h", "name": "wide"}]
    narrow = {"limits": [{"per": "user", "requests": 1, "period": "1h", "name": "narrow"}]}
    with start(upstream, lane, limits=limits, team=narrow) as gateway:
        assert gateway.chat(key=ANN, user="u").status == 200
        assert [gateway.chat(key=ANN, user="u").status for _ in range(7)] == [429] * 7
        left = gateway.chat(key=ANN, user="v").value("x-ratelimit-remaining-requests")
        assert left == "0"  # of the user's one, the tightest
        assert [gateway.chat(key=ANN, user=f"w{number}").status for number in range(4)] == [200, 200, 200, 429]


def test_input_and_output_tokens_are_settled_apart(upstream: Upstream, lane: str) -> None:
    limits = [
        {"per": "key", "input_tokens": 1000, "period": "24h"},
        {"per": "key", "output_tokens": 500, "period": "24h"},
    ]
    with start(upstream, lane, limits=limits) as gateway:
        upstream.default = answer({**completion(), "usage": USED})
        first = gateway.chat(key=CY, max_tokens=100)
        gateway.receipts(first.request_id)
        assert first.value("x-ratelimit-limit-tokens") == "500"
        assert first.value("x-ratelimit-remaining-tokens") == "400"
        second = gateway.chat(key=CY, max_tokens=100)
        assert second.value("x-ratelimit-remaining-tokens") == str(500 - 12 - 100)


def test_what_the_upstream_fails_at_costs_nothing_and_what_it_refuses_nothing_but_the_request(
    upstream: Upstream, lane: str
) -> None:
    limits = [{"per": "key", "requests": 3, "period": "1h"}, {"per": "key", "tokens": 1000, "period": "1h"}]
    with start(upstream, lane, limits=limits) as gateway:
        upstream.script(failure(400), failure(500), failure(429))
        refused = [gateway.chat(key=CY, max_tokens=900) for _ in range(3)]
        assert [reply.status for reply in refused] == [400, 502, 429]
        gateway.receipts(refused[-1].request_id)
        last = gateway.chat(key=CY, max_tokens=900)
        assert (last.status, last.value("x-ratelimit-remaining-requests")) == (200, "0")
        assert rule_of(gateway.chat(key=CY)) == "global/requests-per-key"


def test_who_sends_nothing_but_what_the_upstream_refuses_comes_to_an_end(upstream: Upstream, lane: str) -> None:
    with start(upstream, lane, limits=[{"per": "key", "requests": 3, "period": "1h"}]) as gateway:
        upstream.default = failure(400)
        assert statuses(gateway, *[CY] * 5) == [400, 400, 400, 429, 429]


def test_who_waits_no_longer_for_an_upstream_that_was_asked_pays_for_the_prompt(upstream: Upstream, lane: str) -> None:
    limits = [{"per": "key", "requests": 4, "period": "1h"}, {"per": "key", "tokens": 10000, "period": "24h"}]
    config = settings(upstream, lane, limits=limits)
    config["upstreams"][0] |= {"max_concurrent": 1, "queue": {"size": 4, "wait": "9s"}}
    config["timeouts"] |= {"first_byte": "20s", "between_bytes": "20s"}
    upstream.reset()
    hasty = {"x-agw-timeout": "200ms"}
    with Gateway(config) as gateway:
        upstream.script(answer(completion(), delay_ms=60_000))
        assert gateway.chat(key=CY, max_tokens=5000, headers=hasty).status == 504
        upstream.script(stream(words()[:2], ending="hang"))
        with gateway.connect() as connection:
            connection.send("POST", "/v1/chat/completions", chat_body(stream=True, max_tokens=100), gateway.headers(CY))
            left = connection.head()
            assert left.value("x-ratelimit-remaining-requests") == "2"
            prompt = (10000 - 100 - int(left.value("x-ratelimit-remaining-tokens") or 0)) / 2
            assert 0 < prompt < 60
            for _ in range(3):  # the only place is taken: nobody is asked
                assert gateway.chat(key=CY, max_tokens=5000, headers=hasty).status == 504
        gateway.receipts(left.request_id)
        last = gateway.chat(key=CY, max_tokens=100)
        assert last.value("x-ratelimit-remaining-requests") == "1"


def test_a_client_that_leaves_pays_for_the_prompt_and_what_came(upstream: Upstream, lane: str) -> None:
    with start(upstream, lane, limits=[{"per": "key", "tokens": 10000, "period": "24h"}]) as gateway:
        upstream.script(stream(words("one two three four five six")[:4], ending="hang"))
        with gateway.connect() as connection:
            connection.send(
                "POST", "/v1/chat/completions", chat_body(stream=True, max_tokens=5000), gateway.headers(CY)
            )
            reply = connection.head()
            left = int(reply.value("x-ratelimit-remaining-tokens") or 0)
            body = b""
            pieces = connection.pieces(reply)
            while b"three" not in body:
                body += next(pieces)
        gateway.receipts(reply.request_id)
        upstream.script(answer({**completion(), "usage": USED}))
        after = gateway.chat(key=CY, max_tokens=1)
        remaining = int(after.value("x-ratelimit-remaining-tokens") or 0)
        prompt = 10000 - 5000 - left
        assert 0 < prompt < 60
        spent = 10000 - remaining - (prompt + 1)  # without what this second request reserves
        assert prompt < spent < prompt + 10


def test_a_client_that_leaves_before_its_request_went_out_pays_nothing(upstream: Upstream, lane: str) -> None:
    limits: list[Tree] = [{"per": "key", unit: 100, "period": "24h"} for unit in ("tokens", "requests")]
    with deaf() as nobody:
        config = settings(upstream, lane, limits=limits, timeouts={"connect": "20s"})
        config["upstreams"][0]["base_url"] = f"http://{nobody}/v1"
        with Gateway(config) as gateway:
            with gateway.connect() as connection:
                connection.send("POST", "/v1/chat/completions", chat_body(max_tokens=50), gateway.headers(CY))

                def left() -> list[int]:
                    told: Any = gateway.post("/explain", chat_body(max_tokens=1), key=CY).json
                    return [rule["remaining"] for rule in told["limits"]]

                gateway.until(lambda: left()[1] == 99, "nothing was taken for it")
            gateway.until(lambda: left() == [100, 100], "what was taken did not come back")


def test_streams_at_the_same_time_are_counted_apart_from_other_requests(upstream: Upstream, lane: str) -> None:
    with start(upstream, lane, limits=[{"per": "key", "streams": 1}]) as gateway:
        upstream.script(stream(words()[:2], ending="hang"))
        with gateway.connect() as connection:
            connection.send("POST", "/v1/chat/completions", chat_body(stream=True), gateway.headers(CY))
            connection.head()
            refused = gateway.chat(key=CY, stream=True)
            assert (refused.status, rule_of(refused)) == (429, "global/streams-per-key")
            assert gateway.chat(key=CY).status == 200
        gateway.until(lambda: gateway.chat(key=CY, stream=True).status == 200, "the stream's place was not given back")


@pytest.fixture
def anthropic(upstream: Upstream, lane: str) -> Iterator[Gateway]:
    limits: list[Tree] = [
        {"per": "key", "requests": 9, "period": "1h"},
        {"per": "user", "requests": 3, "period": "1h"},
        {"per": "key", "input_tokens": 5000, "period": "1h"},
    ]
    config = settings(upstream, lane, limits=limits)
    claude = provider(upstream.url, "claude", dialect="anthropic", models=["claude-*"])
    config["upstreams"].append({**claude, "base_url": upstream.url})
    upstream.reset()
    upstream.default = answer({"type": "message", "usage": {"input_tokens": 5, "output_tokens": 7}})
    with Gateway(config) as gateway:
        yield gateway


def test_anthropics_clients_get_headers_of_their_own_form(anthropic: Gateway) -> None:
    body = {
        "model": "claude-x",
        "max_tokens": 9,
        "messages": [{"role": "user", "content": "hi"}],
        "metadata": {"user_id": "user_1_account_2_session_3"},
    }
    reply = anthropic.post("/v1/messages", body, key=CY)
    assert reply.status == 200, reply.body
    assert reply.value("anthropic-ratelimit-requests-limit") == "3"
    assert reply.value("anthropic-ratelimit-requests-remaining") == "2"
    assert (reply.value("anthropic-ratelimit-requests-reset") or "").endswith("Z")
    assert reply.value("anthropic-ratelimit-input-tokens-limit") == "5000"
    assert reply.value("anthropic-ratelimit-output-tokens-limit") is None
    assert anthropic.receipts(reply.request_id)[0]["user"] == "user_1_account_2"
    for number in (4, 5):
        body["metadata"] = {"user_id": f"user_1_account_2_session_{number}"}
        assert anthropic.post("/v1/messages", body, key=CY).status == 200
    refused = anthropic.post("/v1/messages", body, key=CY)
    assert refused.status == 429
    assert refused.error["type"] == "rate_limit_error"
    assert refused.value("anthropic-ratelimit-requests-remaining") == "0"
    assert refused.value("retry-after")


def test_a_user_whose_name_cannot_be_written_down_breaks_nothing(anthropic: Gateway) -> None:
    named = '{"user_id": "\\ud800", "session_id": "s"}'
    body = {
        "model": "claude-x",
        "max_tokens": 9,
        "messages": [{"role": "user", "content": "hi"}],
        "metadata": {"user_id": named},
    }
    with anthropic.connect() as connection:
        for _ in range(2):
            connection.send("POST", "/v1/messages", body, anthropic.headers(CY))
            reply = connection.reply()
            assert reply.status == 200, reply.body
            assert anthropic.receipts(reply.request_id)[0]["user"] == named
    told = anthropic.get("/metrics/prometheus", key=ADMIN_KEY).body.decode()
    assert "agw_active_requests 1.0" in told  # the one that asks


def test_names_in_the_log_are_bounded(upstream: Upstream, lane: str) -> None:
    with start(upstream, lane) as gateway:
        known = gateway.chat(key=CY, user="u" * 1000)
        long = gateway.chat(key=CY, user="u" * 100_000, headers={"x-user-id": "ann"})
        unknown = gateway.chat(key=CY, model="m" * 100_000)
        assert [reply.status for reply in (known, long, unknown)] == [200, 200, 404]
        assert gateway.receipts(known.request_id)[0]["user"] == "u" * 1000
        assert gateway.receipts(long.request_id)[0]["user"] == "ann"
        assert len(str(gateway.receipts(unknown.request_id)[0]["model"])) == 256


def test_a_connection_goes_on_after_a_refusal_and_so_does_what_was_pipelined(upstream: Upstream, lane: str) -> None:
    with start(upstream, lane, limits=[{"per": "user", "requests": 1, "period": "1h"}]) as gateway:
        with gateway.connect() as connection:
            found = []
            for user in ("a", "a", "b"):
                connection.send("POST", "/v1/chat/completions", chat_body(user=user), gateway.headers(CY))
                found.append(connection.reply().status)
            assert found == [200, 429, 200]
            for user in ("a", "a", "c", "a"):  # before the first of them is answered
                connection.send("POST", "/v1/chat/completions", chat_body(user=user), gateway.headers(CY))
            assert [connection.reply().status for _ in range(4)] == [429, 429, 200, 429]
        assert len(upstream.requests) == 3
