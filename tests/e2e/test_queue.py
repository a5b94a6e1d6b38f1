"""Places at an upstream: in both lanes together never more than there are, and those who wait are told in time."""

import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.behaviours import answer, counting, failure, gate, reset, silence, stream
from tests.support.client import Reply, bearer
from tests.support.fake_openai import spoken
from tests.support.gateway import APP_KEY, Gateway, Tree, chat_body, configuration, provider
from tests.support.upstream import Behaviour, Upstream

MODEL = "gpt-4o-mini"
CLIENTS = 12


def crowded(upstream: Upstream, lane: str, *, most: int = 1, size: int = 100, wait: str = "5s", **more: object) -> Tree:
    queue = {"size": size, "wait": wait}
    entry = provider(upstream.url, models=[MODEL], max_concurrent=most, queue=queue)
    config = configuration(entry, breaker={"enabled": False}, **more)
    config["server"]["lane"] = lane
    config["timeouts"] |= {"first_byte": "20s", "between_bytes": "20s"}
    return config


@pytest.fixture(params=["auto", "full"])
def lane(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def crowd() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(CLIENTS) as pool:
        yield pool


def standing(gateway: Gateway) -> Tree:
    """The scripted upstream's line of ``GET /upstreams``."""
    data = gateway.get("/upstreams", key=gateway.admin_key).json["data"]
    assert isinstance(data, list)
    found: Tree = data[0]
    return found


def queued(gateway: Gateway, *, taken: int, waiting: int) -> None:
    """Wait until so many places are taken and so many wait."""

    def there() -> bool:
        found = standing(gateway)["queue"]
        return bool(found["taken"] == taken and found["waiting"] == waiting)

    gateway.until(there, f"never {taken} taken and {waiting} waiting: {standing(gateway)['queue']}")


def holding(upstream: Upstream, behaviour: Behaviour | None = None) -> threading.Event:
    """The next request is answered when the event is set."""
    go, held = gate(behaviour or answer({"ok": True}))
    upstream.script(held)
    return go


def test_no_more_than_its_places_are_asked_and_none_is_lost(
    upstream: Upstream, lane: str, crowd: ThreadPoolExecutor
) -> None:
    most, upstream.default = counting(answer({"ok": True}, delay_ms=5))
    with Gateway(crowded(upstream, lane, most=3)) as gateway:
        replies = list(crowd.map(lambda _: gateway.chat(model=MODEL), range(60)))
        assert {reply.status for reply in replies} == {200}
        assert most() <= 3
        assert len(upstream.requests) == 60
        queued(gateway, taken=0, waiting=0)


def test_a_full_queue_is_503_at_once_and_tells_when_to_come_again(
    upstream: Upstream, lane: str, crowd: ThreadPoolExecutor
) -> None:
    with Gateway(crowded(upstream, lane, size=1)) as gateway:
        go = holding(upstream)
        first = crowd.submit(gateway.chat, model=MODEL)
        upstream.wait(1)
        second = crowd.submit(gateway.chat, model=MODEL)
        queued(gateway, taken=1, waiting=1)
        third = gateway.chat(model=MODEL)
        assert (third.status, third.value("x-agw-error"), third.error["code"]) == (503, "upstream_queue_full", "upstream_queue_full")  # fmt: skip
        assert (third.value("retry-after"), third.value("x-should-retry")) == ("5", None)
        assert gateway.receipt(third.request_id)["outcome"] == "upstream_queue_full"
        assert len(upstream.requests) == 1
        go.set()
        waited = second.result()
        assert (first.result().status, waited.status) == (200, 200)
        assert re.search(r"queue;dur=\d", waited.value("server-timing") or "")
        assert "queue;" not in (first.result().value("server-timing") or "")
        line = standing(gateway)
        assert (line["failures"], line["state"]) == (0, "up")  # it was never the upstream's fault


def test_a_wait_that_is_too_long_is_503(upstream: Upstream, lane: str, crowd: ThreadPoolExecutor) -> None:
    with Gateway(crowded(upstream, lane, wait="50ms")) as gateway:
        go = holding(upstream)
        first = crowd.submit(gateway.chat, model=MODEL)
        upstream.wait(1)
        late = gateway.chat(model=MODEL)
        assert (late.status, late.value("x-agw-error"), late.value("retry-after")) == (503, "upstream_queue_full", "1")
        assert len(upstream.requests) == 1
        go.set()
        assert first.result().status == 200
        queued(gateway, taken=0, waiting=0)


def test_a_client_that_leaves_the_queue_leaves_its_turn(
    upstream: Upstream, lane: str, crowd: ThreadPoolExecutor
) -> None:
    with Gateway(crowded(upstream, lane)) as gateway:
        go = holding(upstream)
        first = crowd.submit(gateway.chat, model=MODEL)
        upstream.wait(1)
        with gateway.connect() as leaving:
            leaving.send("POST", "/v1/chat/completions", chat_body(model=MODEL), bearer(APP_KEY))
            queued(gateway, taken=1, waiting=1)
        queued(gateway, taken=1, waiting=0)
        go.set()
        assert first.result().status == 200
        assert gateway.chat(model=MODEL).status == 200
        assert len(upstream.requests) == 2  # nobody was asked for who had left
        queued(gateway, taken=0, waiting=0)


def test_a_stream_keeps_its_place_until_its_end(upstream: Upstream, lane: str, crowd: ThreadPoolExecutor) -> None:
    with Gateway(crowded(upstream, lane)) as gateway, gateway.connect() as reading:
        words = spoken()
        go, held = gate(stream(words[:1], ending="hang"))
        go.set()
        upstream.script(held)
        reading.send("POST", "/v1/chat/completions", chat_body(model=MODEL, stream=True), bearer(APP_KEY))
        assert reading.head().status == 200
        second = crowd.submit(gateway.chat, model=MODEL)
        queued(gateway, taken=1, waiting=1)
        assert len(upstream.requests) == 1
        reading.close()  # the stream's end, for its client
        assert second.result().status == 200
        queued(gateway, taken=0, waiting=0)


@pytest.mark.parametrize(
    "behaviour", [reset(), failure(500), failure(400), silence()], ids=["reset", "500", "400", "silence"]
)
def test_a_place_comes_back_however_the_attempt_ends(upstream: Upstream, lane: str, behaviour: Behaviour) -> None:
    config = crowded(upstream, lane, size=0)
    config["timeouts"]["first_byte"] = "50ms"
    config["retries"] = {"attempts": 1}
    with Gateway(config) as gateway:
        upstream.script(behaviour)
        assert gateway.chat(model=MODEL).status >= 400
        for _ in range(3):
            assert gateway.chat(model=MODEL).status == 200
        queued(gateway, taken=0, waiting=0)


def test_another_target_is_asked_where_there_is_no_place(
    upstream: Upstream, lane: str, crowd: ThreadPoolExecutor
) -> None:
    with Upstream() as other:
        config = crowded(upstream, lane, size=0)
        config["upstreams"].append(provider(other.url, "other", models=["other-model"]))
        config["models"] = [{"name": "both", "targets": [f"fake/{MODEL}"], "fallbacks": ["other/other-model"]}]
        with Gateway(config) as gateway:
            go = holding(upstream)
            first = crowd.submit(gateway.chat, model="both")
            upstream.wait(1)
            second = gateway.chat(model="both")
            assert second.status == 200
            assert "upstream_queue_full" in (second.value("x-agw-attempts") or "")
            assert (len(upstream.requests), len(other.requests)) == (1, 1)
            go.set()
            assert first.result().status == 200


def test_the_queue_is_measured(upstream: Upstream, lane: str, crowd: ThreadPoolExecutor) -> None:
    def figures(gateway: Gateway) -> Tree:
        tree = gateway.get("/metrics", key=gateway.admin_key).json
        return {name: entries for name, entries in tree.items() if name.startswith("agw_queue")}

    with Gateway(crowded(upstream, lane, size=1)) as gateway:
        go = holding(upstream)
        replies = [crowd.submit(gateway.chat, model=MODEL)]
        upstream.wait(1)
        replies.append(crowd.submit(gateway.chat, model=MODEL))
        queued(gateway, taken=1, waiting=1)
        full: Reply = gateway.chat(model=MODEL)
        assert full.status == 503
        during = figures(gateway)
        go.set()
        assert [reply.result().status for reply in replies] == [200, 200]
        after = figures(gateway)
    assert during["agw_queue_depth"] == [{"labels": {"upstream": "fake"}, "value": 1}]
    assert during["agw_queue_refused_total"] == [{"labels": {"upstream": "fake", "why": "full"}, "value": 1}]
    assert after["agw_queue_depth"] == [{"labels": {"upstream": "fake"}, "value": 0}]
    assert after["agw_queue_seconds"][0]["count"] == 1
