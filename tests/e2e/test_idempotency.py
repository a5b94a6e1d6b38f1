"""Idempotency-Key: a request that is sent again is not run again, and gets what the first one got."""

import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.e2e.test_cache import FEW, OTHER, THRIFTY, cached, fresh, stable
from tests.e2e.test_cache_flights import in_flight, joined, opened_by
from tests.support.behaviours import DONE, answer, failure, gate, stream
from tests.support.fake_openai import completion, spoken, words
from tests.support.gateway import Gateway, Tree, chat_body, provider
from tests.support.upstream import Upstream, unreachable


def plain(url: str) -> Tree:
    config = cached(url)
    del config["cache"]
    return config


@pytest.fixture(scope="module")
def shared_gateway(shared_upstream: Upstream) -> Iterator[Gateway]:
    config = plain(shared_upstream.url)
    with unreachable() as nowhere:
        config["upstreams"].append(provider(nowhere, "nowhere", models=["dead-*"]))
        with Gateway(config) as running:
            yield running


@pytest.fixture(scope="module")
def crowd(shared_upstream: Upstream) -> Iterator[Gateway]:
    config = plain(shared_upstream.url)
    config["server"]["workers"] = 3
    with Gateway(config) as running:
        yield running


def key(name: str) -> dict[str, str]:
    return {"idempotency-key": name}


@pytest.mark.parametrize("streamed", [False, True])
def test_the_same_key_and_body_get_the_same_answer_once(gateway: Gateway, upstream: Upstream, streamed: bool) -> None:
    asked, mine = fresh(), key(f"once-{streamed}")
    first = gateway.chat(messages=asked, stream=streamed, headers=mine)
    again = gateway.chat(messages=asked, stream=streamed, headers=mine)
    assert (first.status, again.status) == (200, 200)
    assert (first.value("idempotent-replayed"), again.value("idempotent-replayed")) == (None, "true")
    assert again.body == first.body != b""
    told = [{**stable(reply), "idempotent-replayed": "", "content-length": ""} for reply in (first, again)]
    assert told[0] == told[1]
    assert len(upstream.requests) == 1
    assert upstream.last.value("idempotency-key") is None, "one tenant's keys must not meet another's at the provider"
    lines = [gateway.receipt(reply.request_id) for reply in (first, again)]
    assert [line["lane_reason"] for line in lines] == ["idempotency"] * 2
    assert [line.get("cache") for line in lines] == [None, "replayed"]
    assert [line.get("prompt_tokens") for line in lines] == [11, None]


def test_another_body_is_a_conflict_that_is_not_worth_retrying(gateway: Gateway, upstream: Upstream) -> None:
    mine = key("conflict")
    assert gateway.chat(messages=fresh(), headers=mine).status == 200
    reply = gateway.chat(messages=fresh(), headers=mine)
    assert (reply.status, reply.error["code"]) == (409, "idempotency_conflict")
    assert reply.value("x-should-retry") == "false"
    assert reply.value("x-agw-error") == "caller_idempotency_conflict"
    assert len(upstream.requests) == 1


def test_keys_are_the_callers_own(gateway: Gateway, upstream: Upstream) -> None:
    mine = key("theirs")
    for caller in (gateway.key, OTHER):
        assert gateway.chat(messages=fresh(), key=caller, headers=mine).value("idempotent-replayed") is None
    assert len(upstream.requests) == 2


@pytest.mark.parametrize("bad", ["", "x" * 300, "tab\there"])
def test_a_key_is_a_short_printable_text(gateway: Gateway, upstream: Upstream, bad: str) -> None:
    with gateway.connect() as connection:
        body = chat_body()
        connection.send("POST", "/v1/chat/completions", body, gateway.headers(more={"idempotency-key": bad or " "}))
        reply = connection.reply()
    assert (reply.status, reply.error["param"]) == (400, "Idempotency-Key")
    assert upstream.requests == []


@pytest.mark.parametrize(
    "behaviour", [failure(400), failure(401), stream(words()[:2], ending="fin"), answer(b'{"cut":', framing="close")]
)
def test_what_failed_runs_again(gateway: Gateway, upstream: Upstream, behaviour: object) -> None:
    asked, mine = fresh(), key(f"failed-{id(behaviour)}")
    upstream.script(behaviour, *[behaviour] * 2)  # type: ignore[arg-type]
    streamed = getattr(behaviour, "__qualname__", "").startswith("stream")
    gateway.chat(messages=asked, stream=streamed, headers=mine)
    count = len(upstream.requests)
    upstream.reset()
    again = gateway.chat(messages=asked, stream=streamed, headers=mine)
    assert (again.status, again.value("idempotent-replayed")) == (200, None)
    assert (count > 0, len(upstream.requests)) == (True, 1)


def test_what_never_reached_the_upstream_may_be_sent_again(gateway: Gateway, upstream: Upstream) -> None:
    mine = key("unsent")
    dead = chat_body(model="dead-1")
    assert gateway.post("/v1/chat/completions", dead, headers=mine).status == 502
    assert gateway.post("/v1/chat/completions", dead, headers=mine).status == 502
    refused = key("refused")
    asked = fresh()
    for _ in range(2):
        assert gateway.chat(messages=asked, key=FEW).status == 200
    for _ in range(2):
        reply = gateway.chat(messages=asked, key=FEW, headers=refused)
        assert (reply.status, reply.value("idempotent-replayed")) == (429, None)
    assert len(upstream.requests) == 2


def test_a_refusal_is_no_replay_of_what_was_answered(upstream: Upstream) -> None:
    asked, mine = fresh(), key("refused later")
    config = plain(upstream.url)
    config["keys"] = [{"name": "few", "key": FEW, "limits": [{"requests": 2, "period": "1h"}]}]
    with Gateway(config, key=FEW) as gateway:
        replies = [gateway.chat(messages=asked, key=FEW, headers=mine) for _ in range(3)]
        assert [reply.status for reply in replies] == [200, 200, 429]
        assert [reply.value("idempotent-replayed") for reply in replies] == [None, "true", None]
        assert gateway.receipt(replies[2].request_id).get("cache") is None


def test_a_replay_counts_as_a_request_and_takes_no_tokens(gateway: Gateway, upstream: Upstream) -> None:
    asked, mine = fresh(), key("thrifty")
    left = [
        gateway.chat(messages=asked, key=THRIFTY, max_tokens=20, headers=mine).value("x-ratelimit-remaining-tokens")
        for _ in range(3)
    ]
    assert left[1] == left[2] == str(100 - 18)


@pytest.mark.parametrize("streamed", [False, True])
def test_a_retry_joins_the_request_that_is_under_way(gateway: Gateway, upstream: Upstream, streamed: bool) -> None:
    asked, mine = fresh(), key(f"join-{streamed}")
    go, behaviour = gate(stream(spoken()) if streamed else answer(completion()))
    upstream.script(behaviour)
    with ThreadPoolExecutor(3) as pool:
        futures = [pool.submit(gateway.chat, messages=asked, stream=streamed, headers=mine) for _ in range(3)]
        upstream.wait(1)
        joined(gateway, 3)
        go.set()
        replies = [future.result() for future in futures]
    assert sorted(str(reply.value("idempotent-replayed")) for reply in replies) == ["None", "true", "true"]
    assert len({reply.body for reply in replies}) == 1
    assert len(upstream.requests) == 1


def test_who_leaves_and_comes_again_while_somebody_waits_gets_the_one_answer(
    gateway: Gateway, upstream: Upstream
) -> None:
    asked, mine = fresh(), key("left")
    go = threading.Event()
    upstream.script(opened_by([], go, spoken()))
    with ThreadPoolExecutor(2) as pool:
        with gateway.connect() as first:
            body = chat_body(messages=asked, stream=True)
            first.send("POST", "/v1/chat/completions", body, gateway.headers(more=mine))
            upstream.wait(1)
            future = pool.submit(gateway.chat, messages=asked, stream=True, headers=mine)
            joined(gateway, 2)
        gateway.until(lambda: in_flight(gateway) == 1, "the first has not left")
        go.set()
        assert future.result().body.endswith(DONE)
    assert gateway.chat(messages=asked, stream=True, headers=mine).value("idempotent-replayed") == "true"
    assert len(upstream.requests) == 1


def test_when_nobody_waits_it_is_cut_and_runs_again(gateway: Gateway, upstream: Upstream) -> None:
    asked, mine = fresh(), key("alone")
    upstream.script(stream(words()[:1], ending="hang"))
    with gateway.connect() as connection:
        body = chat_body(messages=asked, stream=True)
        connection.send("POST", "/v1/chat/completions", body, gateway.headers(more=mine))
        connection.head()
    upstream.wait_gone(upstream.last)
    again = gateway.chat(messages=asked, stream=True, headers=mine)
    assert (again.status, again.value("idempotent-replayed"), again.complete) == (200, None, True)
    assert len(upstream.requests) == 2


def test_it_is_not_answered_from_the_cache(shared_upstream: Upstream, upstream: Upstream) -> None:
    asked = fresh()
    with Gateway(cached(shared_upstream.url)) as gateway:
        told = [gateway.chat(messages=asked, headers=mine) for mine in (None, key("new"), key("new"), None)]
        assert [reply.value("x-agw-cache") for reply in told] == ["miss", "bypass", "bypass", "hit"]
        assert [reply.value("idempotent-replayed") for reply in told] == [None, None, "true", None]
    assert len(upstream.requests) == 2


def test_where_there_is_no_room_the_answer_says_that_the_key_was_dropped(
    shared_upstream: Upstream, upstream: Upstream
) -> None:
    upstream.default = answer(completion("x" * 500_000))
    config = plain(shared_upstream.url)
    config["idempotency"] = {"max_mb": 1}
    with Gateway(config) as gateway:
        asked = fresh()
        told = [gateway.chat(messages=asked, headers=key(f"room-{at}")).value("x-agw-dropped") for at in range(3)]
        assert told == [None, None, "idempotency-key"]
        assert gateway.chat(messages=asked, headers=key("room-0")).value("idempotent-replayed") == "true"


def test_an_answer_is_forgotten_after_its_time(shared_upstream: Upstream, upstream: Upstream) -> None:
    config = plain(shared_upstream.url)
    config["idempotency"] = {"ttl": "300ms"}
    asked, mine = fresh(), key("short")
    with Gateway(config) as gateway:
        gateway.chat(messages=asked, headers=mine)
        gateway.until(
            lambda: gateway.chat(messages=asked, headers=mine).value("idempotent-replayed") is None,
            "it is kept for ever",
        )


@pytest.mark.parametrize("streamed", [False, True])
def test_all_workers_agree(crowd: Gateway, upstream: Upstream, streamed: bool) -> None:
    """Twelve at once over three workers: one call, whoever gets it."""
    crowd_size = 12
    asked, mine = fresh(), key(f"crowd-{streamed}")
    go, behaviour = gate(stream(spoken()) if streamed else answer(completion()))
    upstream.script(behaviour)
    with ThreadPoolExecutor(crowd_size) as pool:
        futures = [pool.submit(crowd.chat, messages=asked, stream=streamed, headers=mine) for _ in range(crowd_size)]
        upstream.wait(1)
        joined(crowd, crowd_size)
        go.set()
        replies = [future.result() for future in futures]
    assert {reply.status for reply in replies} == {200}
    assert len({reply.body for reply in replies}) == 1
    assert [reply.value("idempotent-replayed") for reply in replies].count(None) == 1
    assert len(upstream.requests) == 1
    later = [crowd.chat(messages=asked, stream=streamed, headers=mine) for _ in range(6)]
    assert {reply.value("idempotent-replayed") for reply in later} == {"true"}
    conflicts = [crowd.chat(messages=fresh(), stream=streamed, headers=mine).status for _ in range(6)]
    assert set(conflicts) == {409}
    assert len(upstream.requests) == 1


def test_a_failure_is_forgotten_by_all_workers(crowd: Gateway, upstream: Upstream) -> None:
    asked, mine = fresh(), key("crowd-failure")
    upstream.script(failure(400))
    assert crowd.chat(messages=asked, headers=mine).status == 400
    again = crowd.chat(messages=asked, headers=mine)
    assert (again.status, again.value("idempotent-replayed")) == (200, None)


def test_answers_outlive_the_workers(shared_upstream: Upstream, upstream: Upstream) -> None:
    config = plain(shared_upstream.url)
    config["server"]["workers"] = 2
    asked, mine = fresh(), key("restart")
    with Gateway(config) as gateway:
        first = gateway.chat(messages=asked, headers=mine)
        gateway.until(
            lambda: gateway.chat(messages=asked, headers=mine).value("idempotent-replayed") == "true", "never kept"
        )
        gateway.stop(signal.SIGTERM)
        gateway.start()
        assert gateway.chat(messages=asked, headers=mine).body == first.body
    assert len(upstream.requests) == 1
