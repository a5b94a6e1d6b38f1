"""A gateway with more than it can do: new requests get 503 and keep their connection; probes and admin are answered."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.behaviours import answer, counting, gate
from tests.support.client import Reply, bearer
from tests.support.gateway import ADMIN_KEY, APP_KEY, Gateway, Tree, chat_body, configuration, provider
from tests.support.upstream import Upstream

MODEL = "gpt-4o-mini"
ANSWERED_SECONDS = 5.0  # a probe's patience; far above what an answer takes, and far below a hang


def bounded(upstream: Upstream, lane: str, **server: object) -> Tree:
    config = configuration(provider(upstream.url, models=[MODEL]), breaker={"enabled": False})
    config["server"] |= {"lane": lane, "body_seconds": 20, **server}
    config["timeouts"]["first_byte"] = "20s"
    return config


@pytest.fixture(params=["auto", "full"])
def lane(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def crowd() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as pool:
        yield pool


def shed(gateway: Gateway) -> Tree:
    """Requests refused, by cause."""
    found = gateway.get("/metrics", key=ADMIN_KEY).json.get("agw_shed_total", [])
    assert isinstance(found, list)
    return {entry["labels"]["cause"]: entry["value"] for entry in found}


def assert_overloaded(reply: Reply) -> None:
    assert (reply.status, reply.value("x-agw-error"), reply.error["code"]) == (503, "gateway_overloaded", "gateway_overloaded")  # fmt: skip
    assert (reply.value("retry-after"), reply.value("retry-after-ms")) == ("1", "1000")
    assert reply.value("x-should-retry") is None


def test_requests_over_the_bound_are_503_on_a_connection_that_stays(
    upstream: Upstream, lane: str, crowd: ThreadPoolExecutor
) -> None:
    with Gateway(bounded(upstream, lane, max_requests=2)) as gateway:
        go, held = gate(answer({"ok": True}))
        upstream.script(held, held)
        running = [crowd.submit(gateway.chat, model=MODEL) for _ in range(2)]
        upstream.wait(2)
        with gateway.connect() as connection:
            for _ in range(3):
                connection.send("POST", "/v1/chat/completions", chat_body(model=MODEL), bearer(APP_KEY))
                reply = connection.reply()
                assert_overloaded(reply)
                assert (reply.value("connection") or "").lower() != "close"
            go.set()
            assert [reply.result().status for reply in running] == [200, 200]
            connection.send("POST", "/v1/chat/completions", chat_body(model=MODEL), bearer(APP_KEY))
            assert connection.reply().status == 200
        assert len(upstream.requests) == 3
        assert shed(gateway) == {"requests": 3}
        assert gateway.receipt(reply.request_id)["outcome"] == "gateway_overloaded"


def test_it_never_runs_more_than_its_bound(upstream: Upstream, lane: str, crowd: ThreadPoolExecutor) -> None:
    most, upstream.default = counting(answer({"ok": True}, delay_ms=10))
    with Gateway(bounded(upstream, lane, max_requests=3)) as gateway:
        replies = list(crowd.map(lambda _: gateway.chat(model=MODEL).status, range(100)))
        assert set(replies) == {200, 503}
        assert most() <= 3
        assert len(upstream.requests) == replies.count(200)
        assert shed(gateway) == {"requests": replies.count(503)}
        assert gateway.chat(model=MODEL).status == 200


def test_probes_and_admin_are_answered_while_it_is_flooded(
    upstream: Upstream, lane: str, crowd: ThreadPoolExecutor
) -> None:
    with Gateway(bounded(upstream, lane, max_requests=1, workers=1)) as gateway:
        go, held = gate(answer({"ok": True}))
        upstream.script(held)
        running = crowd.submit(gateway.chat, model=MODEL)
        upstream.wait(1)
        ended = threading.Event()

        def flood() -> int:
            refused = 0
            with gateway.connect() as connection:
                while not ended.is_set():
                    connection.send("POST", "/v1/chat/completions", chat_body(model=MODEL), bearer(APP_KEY))
                    refused += connection.reply().status == 503
            return refused

        floods = [crowd.submit(flood) for _ in range(8)]
        gateway.until(lambda: shed(gateway).get("requests", 0) > 100, "the flood has not begun")
        begun = time.monotonic()
        for _ in range(10):
            assert gateway.get("/health", key=None).status == 200
            ready = gateway.get("/health/ready", key=None)
            assert (ready.status, ready.json["status"]) == (200, "ready")
            assert gateway.get("/upstreams", key=ADMIN_KEY).status == 200
            assert gateway.get("/metrics/prometheus", key=ADMIN_KEY).status == 200
        assert time.monotonic() - begun < 10 * ANSWERED_SECONDS
        ended.set()
        assert all(flooded.result() > 0 for flooded in floods)
        go.set()
        assert running.result().status == 200


def test_more_memory_than_allowed_refuses_all_but_one_and_is_not_ready(
    upstream: Upstream, lane: str, crowd: ThreadPoolExecutor
) -> None:
    config = bounded(upstream, lane, max_body_mb=200)
    config["memory_limit_mb"] = 100
    with Gateway(config) as gateway:
        assert gateway.chat(model=MODEL).status == 200
        go, held = gate(answer({"ok": True}))
        upstream.script(held)
        large = chat_body(model=MODEL, padding="x" * (50 << 20))
        sent = crowd.submit(gateway.post, "/v1/chat/completions", large)

        def not_ready() -> bool:
            ready = gateway.get("/health/ready", key=None)
            return (ready.status, ready.json["status"]) == (503, "overloaded")

        gateway.until(not_ready, "it never had too much memory", 20)
        assert gateway.get("/health", key=None).status == 200
        upstream.wait(1, 20)
        assert_overloaded(gateway.chat(model=MODEL))
        assert gateway.get("/upstreams", key=ADMIN_KEY).status == 200
        go.set()
        assert sent.result().status == 200
        gateway.until(lambda: gateway.chat(model=MODEL).status == 200, "it never took a request again", 10)

        def told() -> list[Tree]:
            return [line for line in gateway.logs() if str(line.get("event")).startswith("overload.")]

        events = gateway.until(told, "nothing was said of it")
        assert (events[0]["event"], events[0]["cause"]) == ("overload.begun", "memory")
        assert len(events) <= 4  # no flapping


def test_the_bounds_follow_a_reload(upstream: Upstream, lane: str, crowd: ThreadPoolExecutor) -> None:
    config = bounded(upstream, lane, max_requests=1)
    with Gateway(config) as gateway:
        go, held = gate(answer({"ok": True}))
        upstream.script(held)
        running = crowd.submit(gateway.chat, model=MODEL)
        upstream.wait(1)
        assert gateway.chat(model=MODEL).status == 503
        config["server"]["max_requests"] = 2
        gateway.write(config)
        assert gateway.post("/upstreams/refresh", key=ADMIN_KEY).status == 200
        assert gateway.chat(model=MODEL).status == 200
        go.set()
        assert running.result().status == 200
