"""Circuits as callers see them, on both lanes: left alone when it fails, probed, back when it works; and who is chosen."""

import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.support.behaviours import answer, failure, gate, limited, silence, stream
from tests.support.client import Reply
from tests.support.fake_openai import completion, openai_like, words
from tests.support.gateway import ADMIN_KEY, Gateway, Tree, configuration, provider
from tests.support.upstream import Upstream

COOL_MS = 1000  # long enough for the next request to come within it on a busy machine
BREAKER = {"consecutive": 3, "cool_down": "60s", "min_requests": 1000}
BRIEF = {**BREAKER, "cool_down": f"{COOL_MS}ms", "cool_down_max": "10s"}


@pytest.fixture(params=["auto", "full"])
def lane(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def second() -> Iterator[Upstream]:
    with Upstream(openai_like) as running:
        yield running


def served(lane: str, *upstreams: Tree, **more: object) -> Tree:
    config = configuration(*upstreams, breaker=BREAKER, retries={"attempts": 1})
    config["server"]["lane"] = lane
    return {**config, **more}


def brief(lane: str, *upstreams: Tree) -> Tree:
    """Open for a moment only."""
    return {**served(lane, *upstreams), "breaker": BRIEF}


def pair(lane: str, one: Upstream, two: Upstream, **model: object) -> Tree:
    targets = ["fake/gpt-4o", "second/gpt-4o"]
    models = [{"name": "m", "targets": targets, **model}]
    return served(lane, provider(one.url), provider(two.url, "second"), models=models)


def state(gateway: Gateway, name: str = "fake") -> dict[str, str]:
    """The circuits of an upstream's targets."""
    found: Any = gateway.get("/upstreams", key=ADMIN_KEY).json["data"]
    [upstream] = [item for item in found if item["name"] == name]
    return {target["name"]: target["circuit"] for target in upstream["targets"]}


@pytest.mark.parametrize("streamed", [False, True])
def test_a_target_that_fails_is_left_alone_probed_and_comes_back(upstream: Upstream, lane: str, streamed: bool) -> None:
    with Gateway(brief(lane, provider(upstream.url))) as gateway:
        upstream.default = failure(500)
        assert [gateway.chat(stream=streamed).status for _ in range(3)] == [502, 502, 502]
        refused = gateway.chat(stream=streamed)
        assert (refused.status, refused.error["code"]) == (503, "upstream_unavailable")
        assert 0 < int(refused.value("retry-after-ms") or 0) <= COOL_MS + 1
        assert refused.value("x-agw-attempts") is None
        assert len(upstream.requests) == 3
        assert "attempts" not in gateway.receipt(refused.request_id)
        time.sleep(COOL_MS / 1000)
        upstream.default = openai_like
        assert gateway.chat(stream=streamed).status == 200
        assert gateway.chat(stream=streamed).status == 200
        assert len(upstream.requests) == 5


def test_a_bad_probe_opens_it_for_longer(upstream: Upstream, lane: str) -> None:
    with Gateway(brief(lane, provider(upstream.url))) as gateway:
        upstream.default = failure(500)
        for _ in range(3):
            gateway.chat()
        time.sleep(COOL_MS / 1000)
        assert gateway.chat().status == 502  # the probe
        refused = gateway.chat()
        assert refused.status == 503
        assert int(refused.value("retry-after-ms") or 0) > COOL_MS
        assert len(upstream.requests) == 4


def test_a_probe_that_is_answered_closes_it_before_its_stream_has_ended(upstream: Upstream, lane: str) -> None:
    with Gateway(brief(lane, provider(upstream.url))) as gateway, gateway.connect() as connection:
        upstream.default = failure(500)
        assert [gateway.chat().status for _ in range(3)] == [502, 502, 502]
        time.sleep(COOL_MS / 1000)
        upstream.default = openai_like
        upstream.script(stream(words()[:2], ending="hang"))
        body = {"model": "gpt-4o-mini", "messages": [], "stream": True}
        connection.send("POST", "/v1/chat/completions", body, gateway.headers())
        assert connection.head().status == 200
        assert [gateway.chat().status for _ in range(3)] == [200, 200, 200]


@pytest.mark.parametrize(("status", "after"), [(200, 503), (400, 400)])
def test_a_slow_answer_counts_as_a_failure_but_not_one_to_a_wrong_request(
    upstream: Upstream, lane: str, status: int, after: int
) -> None:
    config = served(lane, provider(upstream.url))
    config["breaker"] = {**BREAKER, "slow": "50ms"}
    with Gateway(config) as gateway:
        upstream.default = answer(completion(), status=status, delay_ms=80)
        assert [gateway.chat().status for _ in range(4)] == [status, status, status, after]


def test_what_the_caller_did_wrong_opens_nothing(upstream: Upstream, lane: str) -> None:
    with Gateway(served(lane, provider(upstream.url))) as gateway:
        upstream.default = failure(400)
        assert [gateway.chat().status for _ in range(8)] == [400] * 8
        assert len(upstream.requests) == 8


def test_a_client_that_leaves_opens_nothing(upstream: Upstream, lane: str) -> None:
    with Gateway(served(lane, provider(upstream.url))) as gateway:
        upstream.default = stream(words()[:2], ending="hang")
        for number in range(5):
            with gateway.connect() as connection:
                connection.send(
                    "POST",
                    "/v1/chat/completions",
                    {"model": "gpt-4o-mini", "messages": [], "stream": True},
                    gateway.headers(more={"x-request-id": f"left-{number}"}),
                )
                connection.head()
            assert gateway.receipts(f"left-{number}")[0]["outcome"] == "caller_gone"
        upstream.default = openai_like
        assert gateway.chat().status == 200


def test_streams_that_break_open_it(upstream: Upstream, lane: str) -> None:
    with Gateway(served(lane, provider(upstream.url))) as gateway:
        upstream.default = stream(words()[:2])
        for _ in range(3):
            assert not gateway.chat(stream=True).complete
        assert gateway.chat(stream=True).status == 503
        assert len(upstream.requests) == 3


def test_an_open_target_s_share_goes_to_the_other(upstream: Upstream, second: Upstream, lane: str) -> None:
    with Gateway(pair(lane, upstream, second)) as gateway:
        upstream.default = failure(500)
        replies = [gateway.chat(model="m") for _ in range(30)]
        assert {reply.status for reply in replies} == {200}
        assert len(upstream.requests) == 3
        assert state(gateway)["fake/gpt-4o"] == "open"


def test_a_target_that_named_a_time_rests_and_the_other_serves(upstream: Upstream, second: Upstream, lane: str) -> None:
    with Gateway(pair(lane, upstream, second, balance="first")) as gateway:
        upstream.default = limited((("retry-after", "60"),))
        assert {gateway.chat(model="m").status for _ in range(5)} == {200}
        assert len(upstream.requests) == 1


def test_where_most_are_out_all_are_asked(upstream: Upstream, second: Upstream, lane: str) -> None:
    with Gateway(pair(lane, upstream, second)) as gateway:
        upstream.default = second.default = failure(500)
        for _ in range(10):
            gateway.chat(model="m")
        assert [state(gateway)["fake/gpt-4o"], state(gateway, "second")["second/gpt-4o"]] == ["open", "open"]
        upstream.default = second.default = openai_like
        assert [gateway.chat(model="m").status for _ in range(5)] == [200] * 5


def test_workers_share_what_they_know(upstream: Upstream, lane: str) -> None:
    config = served(lane, provider(upstream.url))
    config["server"]["workers"] = 2
    with Gateway(config) as gateway:
        upstream.default = failure(500)
        statuses = Counter(gateway.chat().status for _ in range(40))
        assert statuses == {502: 3, 503: 37}
        assert len(upstream.requests) == 3


# -- who is chosen


def test_least_busy_goes_where_less_is_under_way(upstream: Upstream, second: Upstream, lane: str) -> None:
    with Gateway(pair(lane, upstream, second, balance="least_busy")) as gateway, ThreadPoolExecutor(12) as crowd:
        go, held = gate(answer(completion()))
        upstream.default = second.default = held
        sent = [crowd.submit(gateway.chat, model="m") for _ in range(12)]
        gateway.until(lambda: len(upstream.requests) + len(second.requests) == 12, "not all were asked")
        assert len(upstream.requests) == len(second.requests) == 6
        go.set()
        assert {reply.result().status for reply in sent} == {200}


def test_fastest_goes_where_the_first_byte_came_sooner(upstream: Upstream, second: Upstream, lane: str) -> None:
    with Gateway(pair(lane, upstream, second, balance="fastest")) as gateway:
        upstream.default = answer(completion(), delay_ms=60)
        for _ in range(20):
            assert gateway.chat(model="m").status == 200
        assert len(upstream.requests) <= 4
        assert len(second.requests) >= 16


@pytest.mark.parametrize("kind", ["session", "prefix"])
def test_what_belongs_together_keeps_to_one_target(upstream: Upstream, second: Upstream, lane: str, kind: str) -> None:
    with Gateway(pair(lane, upstream, second, sticky=kind)) as gateway:

        def ask(number: int) -> Reply:
            long = [{"role": "system", "content": f"{number} " + "x" * 600}]
            messages = long if kind == "prefix" else [{"role": "user", "content": "hi"}]
            return gateway.chat(model="m", messages=messages, headers={"x-session-id": f"s{number}"})

        chosen = {number: gateway.receipt(ask(number).request_id)["upstream"] for number in range(16)}
        assert set(chosen.values()) == {"fake", "second"}
        for number, name in chosen.items():
            assert {gateway.receipts(ask(number).request_id)[0]["upstream"] for _ in range(3)} == {name}


def test_both_lanes_keep_a_session_to_the_same_target(upstream: Upstream, second: Upstream) -> None:
    found = []
    for name in ("auto", "full"):
        with Gateway(pair(name, upstream, second, sticky="session")) as gateway:
            replies = [gateway.chat(model="m", headers={"x-session-id": f"s{number}"}) for number in range(12)]
            found.append([gateway.receipts(reply.request_id)[0]["upstream"] for reply in replies])
    assert found[0] == found[1]


@pytest.mark.parametrize("sent", ["50ms", "first_byte=50ms", "connect=0.000001s", "between_bytes=50ms"])
def test_a_caller_in_a_hurry_opens_no_circuit(upstream: Upstream, lane: str, sent: str) -> None:
    """Whoever has a key could else keep everybody from an upstream that is well."""
    with Gateway(served(lane, provider(upstream.url))) as gateway:
        slow = stream(words()[:2], ending="hang") if sent.startswith("between") else silence()
        upstream.script(*[slow] * 4)
        hurried = [gateway.chat(stream=True, headers={"x-agw-timeout": sent}) for _ in range(4)]
        assert not any(reply.status == 200 and reply.complete for reply in hurried)
        upstream.reset()
        assert gateway.chat().status == 200
        found: Any = gateway.get("/upstreams", key=ADMIN_KEY).json["data"]
        assert found[0]["failures"] == 0


def test_an_upstream_that_fails_somebody_in_a_hurry_has_failed(upstream: Upstream, lane: str) -> None:
    with Gateway(served(lane, provider(upstream.url))) as gateway:
        upstream.default = failure(504)
        assert [gateway.chat(headers={"x-agw-timeout": "10s"}).status for _ in range(3)] == [504] * 3
        assert gateway.chat().status == 503
