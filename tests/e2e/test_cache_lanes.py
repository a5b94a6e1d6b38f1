"""What the full lane has kept, the fast lane gives itself: the same bytes, under the same policy, counted the same."""

import json
from collections.abc import Iterator

import pytest

from tests.e2e.test_cache import FEW, OTHER, cached, fresh, stable
from tests.support.behaviours import answer
from tests.support.client import Reply
from tests.support.fake_openai import completion
from tests.support.gateway import Gateway, Tree, chat_body, provider
from tests.support.upstream import Upstream

BY_FULL_LANE = {"cache-control": "max-age=100000"}  # a hit like any other, that the full lane has to look at


def with_messages(url: str, **cache: object) -> Tree:
    config = cached(url, **cache)
    config["upstreams"].append(provider(url, "claude", dialect="anthropic", models=["claude-*"]))
    return config


@pytest.fixture(scope="module")
def shared_gateway(shared_upstream: Upstream) -> Iterator[Gateway]:
    with Gateway(with_messages(shared_upstream.url)) as running:
        yield running


def lane_of(gateway: Gateway, reply: Reply) -> str:
    return str(gateway.receipt(reply.request_id)["lane"])


@pytest.mark.parametrize("streamed", [False, True])
def test_both_lanes_give_the_same_answer(gateway: Gateway, upstream: Upstream, streamed: bool) -> None:
    asked = fresh()
    miss = gateway.chat(messages=asked, stream=streamed)
    fast = gateway.chat(messages=asked, stream=streamed)
    full = gateway.chat(messages=asked, stream=streamed, headers=BY_FULL_LANE)
    assert [lane_of(gateway, reply) for reply in (miss, fast, full)] == ["full", "fast", "full"]
    assert [reply.value("x-agw-cache") for reply in (miss, fast, full)] == ["miss", "hit", "hit"]
    assert fast.body == full.body == miss.body
    assert stable(fast) == stable(full)
    assert {name.lower() for name, _ in fast.headers} == {name.lower() for name, _ in full.headers}
    assert len(upstream.requests) == 1
    lines = [gateway.receipt(reply.request_id) for reply in (fast, full)]
    passing = {"time", "request_id", "duration_ms", "overhead_us", "lane", "lane_reason", "ttft_ms", "inter_token_ms"}
    told = [{name: value for name, value in line.items() if name not in passing} for line in lines]
    told[1].pop("finish_reason", None)  # the fast lane does not read what it gives
    assert told[0] == told[1]
    assert (lines[0]["cache"], lines[0].get("attempts", 0), lines[0]["bytes_out"]) == ("hit", 0, len(fast.body))


@pytest.mark.parametrize("name", ["anthropic-version", "anthropic-beta", "openai-beta", "x-goog-fieldmask"])
def test_both_lanes_tell_headers_that_count_apart(gateway: Gateway, upstream: Upstream, name: str) -> None:
    asked = fresh()
    told = [gateway.chat(messages=asked, headers=more) for more in ({}, {}, {name: "a"}, {name: "a"}, {name: "b"})]
    assert [reply.value("x-agw-cache") for reply in told] == ["miss", "hit", "miss", "hit", "miss"]
    assert [lane_of(gateway, reply) for reply in told] == ["full", "fast", "full", "fast", "full"]


def test_another_spelling_is_found_by_the_full_lane_first(gateway: Gateway, upstream: Upstream) -> None:
    asked = fresh()
    bodies = [json.dumps(chat_body(messages=asked), indent=indent).encode() for indent in (None, 2)]
    replies = [gateway.post("/v1/chat/completions", body) for body in (*bodies, *bodies)]
    assert [lane_of(gateway, reply) for reply in replies] == ["full", "full", "fast", "fast"]
    assert len({reply.body for reply in replies}) == 1
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("scope", ["key", "shared"])
def test_another_keys_bytes_are_looked_at_by_the_full_lane(
    shared_upstream: Upstream, upstream: Upstream, scope: str
) -> None:
    asked = fresh()
    with Gateway(cached(shared_upstream.url, scope=scope)) as gateway:
        replies = [gateway.chat(messages=asked, key=key) for key in (gateway.key, gateway.key, OTHER, OTHER)]
        assert [lane_of(gateway, reply) for reply in replies] == ["full", "fast", "full", "fast"]
        assert len(upstream.requests) == (1 if scope == "shared" else 2)


def test_a_key_that_loses_its_model_loses_its_answers(shared_upstream: Upstream, upstream: Upstream) -> None:
    asked = fresh()
    config = cached(shared_upstream.url)
    with Gateway(config) as gateway:
        assert [lane_of(gateway, gateway.chat(messages=asked)) for _ in range(2)] == ["full", "fast"]
        config["keys"][0]["models"] = ["gpt-4o"]
        gateway.write(config)
        assert gateway.post("/security/refresh", key=gateway.admin_key).status == 200
        assert gateway.chat(messages=asked).status == 403
        config["keys"][0]["models"] = ["*"]
        gateway.write(config)
        assert gateway.post("/security/refresh", key=gateway.admin_key).status == 200
        again = [gateway.chat(messages=asked) for _ in range(2)]
        assert [lane_of(gateway, reply) for reply in again] == ["full", "fast"]
    assert len(upstream.requests) == 1


def test_requests_are_limited_all_the_same(gateway: Gateway, upstream: Upstream) -> None:
    asked = fresh()
    replies = [gateway.chat(messages=asked, key=FEW) for _ in range(3)]
    assert [reply.status for reply in replies] == [200, 200, 429]
    assert [reply.value("x-ratelimit-remaining-requests") for reply in replies] == ["1", "0", "0"]
    assert lane_of(gateway, replies[1]) == "fast"


def test_what_asks_no_upstream_comes_under_no_limit_of_one(shared_upstream: Upstream, upstream: Upstream) -> None:
    config = cached(shared_upstream.url)
    config["limits"] = [{"per": "upstream", "requests": 2, "period": "1h", "name": "asked"}]
    with Gateway(config) as gateway:
        asked = fresh()
        hows = [{}, {}, {}, BY_FULL_LANE, BY_FULL_LANE, BY_FULL_LANE]
        replies = [gateway.chat(messages=asked, headers=how) for how in hows]
        assert [(reply.status, reply.value("x-agw-cache")) for reply in replies] == [(200, "miss")] + [(200, "hit")] * 5
        assert {reply.value("x-ratelimit-limit-requests") for reply in replies[1:]} == {None}
        assert [gateway.chat(messages=fresh()).status for _ in range(2)] == [200, 429]


def test_a_refusal_has_nothing_of_a_kept_answer(shared_upstream: Upstream, upstream: Upstream) -> None:
    asked = fresh()
    with Gateway(cached(shared_upstream.url)) as gateway:
        for _ in range(2):
            gateway.chat(messages=asked, key=FEW)
        for headers in ({}, BY_FULL_LANE):
            reply = gateway.chat(messages=asked, key=FEW, headers=headers)
            assert (reply.status, reply.value("x-agw-cache"), reply.value("age")) == (429, None, None)
            assert "cache" not in gateway.receipt(reply.request_id)
        text = gateway.get("/metrics/prometheus", key=gateway.admin_key).body.decode()
        told = {line for line in text.splitlines() if line.startswith("agw_cache_total")}
        outcomes = ("hit", "miss", "stored")
        assert told == {f'agw_cache_total{{outcome="{outcome}"}} 1.0' for outcome in outcomes}


def test_headers_that_count_are_part_of_the_request(gateway: Gateway, upstream: Upstream) -> None:
    message = {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-x", "stop_reason": "end_turn",
        "content": [{"type": "text", "text": "hello"}], "usage": {"input_tokens": 3, "output_tokens": 1},
    }  # fmt: skip
    upstream.default = answer(message)
    body = {"model": "claude-x", "max_tokens": 9, "messages": fresh()}
    told = []
    for version in ("2023-06-01", "2023-06-01", "2026-10-21", "2026-10-21"):
        reply = gateway.post("/v1/messages", body, headers={"anthropic-version": version})
        told.append((reply.value("x-agw-cache"), lane_of(gateway, reply)))
        assert reply.value("request-id") == reply.request_id
    assert told == [("miss", "full"), ("hit", "fast")] * 2
    queries = [
        gateway.post(f"/v1/messages{query}", body).value("x-agw-cache") for query in ("", "?beta=true", "?beta=true")
    ]
    assert queries == ["miss", "miss", "hit"]


def test_what_makes_room_is_not_given_any_more(shared_upstream: Upstream, upstream: Upstream) -> None:
    upstream.default = answer(completion("x" * 300_000))
    with Gateway(cached(shared_upstream.url, max_mb=1)) as gateway:
        asked = [fresh() for _ in range(4)]
        for one in asked[:3]:
            gateway.chat(messages=one)
        assert lane_of(gateway, gateway.chat(messages=asked[0])) == "fast"
        gateway.chat(messages=asked[3])
        told = [gateway.chat(messages=one).value("x-agw-cache") for one in (asked[0], asked[3], asked[2], asked[1])]
        assert told == ["hit", "hit", "hit", "miss"], "what the fast lane gives is in use, and the second was not"


def test_an_expired_answer_is_not_given(shared_upstream: Upstream, upstream: Upstream) -> None:
    asked = fresh()
    with Gateway(cached(shared_upstream.url, ttl="400ms")) as gateway:
        gateway.chat(messages=asked)
        gateway.until(lambda: gateway.chat(messages=asked).value("x-agw-cache") == "miss", "it never expires")
        assert len(upstream.requests) == 2


def test_a_connection_goes_on_behind_kept_answers_small_and_large(gateway: Gateway, upstream: Upstream) -> None:
    """Several requests in one write; the client reads slowly, so that large answers wait in the connection."""
    upstream.default = answer(completion("y" * 700_000))
    asked = fresh()
    whole = gateway.chat(messages=asked).body
    with gateway.connect(receive_buffer=4096) as connection:
        content = json.dumps(chat_body(messages=asked), separators=(",", ":")).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {gateway.key}\r\n"
        head += f"content-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
        connection.socket.sendall((head.encode() + content) * 5)
        assert [connection.reply().body for _ in range(5)] == [whole] * 5
    assert len(upstream.requests) == 1


def test_of_many_requests_in_one_write_the_fast_lane_answers_the_last(gateway: Gateway, upstream: Upstream) -> None:
    """Each answer would be given within the one before it: a burst must neither fill the stack nor hold up all others."""
    content = json.dumps(chat_body(messages=fresh())).encode()
    for _ in range(2):
        gateway.post("/v1/chat/completions", content)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {gateway.key}\r\n"
    head += f"content-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
    with gateway.connect() as connection:
        connection.socket.sendall((head.encode() + content) * 20)
        replies = [connection.reply() for _ in range(20)]
    assert {reply.value("x-agw-cache") for reply in replies} == {"hit"}
    assert [lane_of(gateway, reply) for reply in replies] == ["full"] * 19 + ["fast"]
    assert len(upstream.requests) == 1


@pytest.mark.parametrize(("size", "lane"), [(1_000_000, "fast"), (1_100_000, "full")])
def test_a_very_long_answer_is_given_piece_by_piece(
    shared_upstream: Upstream, upstream: Upstream, size: int, lane: str
) -> None:
    """The full lane waits for a slow reader; the fast one would have all of it wait in the connection."""
    upstream.default = answer(completion("z" * size))
    asked = fresh()
    with Gateway(cached(shared_upstream.url, max_answer_kb=4096)) as gateway:
        replies = [gateway.chat(messages=asked) for _ in range(2)]
        assert [reply.value("x-agw-cache") for reply in replies] == ["miss", "hit"]
        assert replies[0].body == replies[1].body
        assert lane_of(gateway, replies[1]) == lane


def test_where_nothing_is_kept_the_fast_lane_relays(shared_upstream: Upstream, upstream: Upstream) -> None:
    config = cached(shared_upstream.url, models=["gpt-4o"])
    with Gateway(config) as gateway:
        replies = [gateway.chat(messages=fresh()) for _ in range(2)]
        assert [lane_of(gateway, reply) for reply in replies] == ["fast", "fast"]
        assert [reply.value("x-agw-cache") for reply in replies] == [None, None]
        kept = gateway.chat(messages=fresh(), model="gpt-4o")
        assert gateway.receipt(kept.request_id)["lane_reason"] == "cache"
