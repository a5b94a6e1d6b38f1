"""SIGTERM: no new work, live streams finish within the limit, what is left is told so, exit status 0."""

import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.behaviours import answer, failure, gate, stream
from tests.support.client import Connection
from tests.support.fake_openai import spoken, words
from tests.support.gateway import Gateway, chat_body, configuration, provider
from tests.support.upstream import Upstream


@pytest.fixture
def draining(upstream: Upstream) -> Iterator[Gateway]:
    with Gateway(configuration(provider(upstream.url))) as running:
        yield running


def open_stream(gateway: Gateway, upstream: Upstream) -> Connection:
    """A connection on which a streamed answer is under way."""
    connection = gateway.connect()
    connection.send("POST", "/v1/chat/completions", chat_body(stream=True), gateway.headers())
    upstream.wait()
    return connection


def refuses(gateway: Gateway) -> bool:
    try:
        gateway.connect().close()
    except ConnectionRefusedError:
        return True
    return False


def test_a_live_stream_finishes_and_the_exit_status_is_0(draining: Gateway, upstream: Upstream) -> None:
    upstream.script(stream(spoken(), pace_ms=60))
    with open_stream(draining, upstream) as connection:
        reply = connection.head()
        draining.process.send_signal(signal.SIGTERM)
        reply.body = b"".join(connection.pieces(reply))
    assert reply.complete
    assert reply.body == b"".join(spoken())
    assert draining.wait() == 0
    assert draining.receipts(reply.request_id)[0]["outcome"] == "ok"


def test_a_stream_over_the_limit_ends_in_an_error_event(draining: Gateway, upstream: Upstream) -> None:
    upstream.script(stream(words() * 1000, pace_ms=50))
    with open_stream(draining, upstream) as connection:
        reply = connection.head()
        draining.process.send_signal(signal.SIGTERM)
        reply.body = b"".join(connection.pieces(reply))
    assert not reply.complete
    assert b"event: error\n" in reply.body
    assert b"[DONE]" not in reply.body
    assert draining.wait() == 0
    upstream.wait_gone(upstream.last)
    lines = draining.receipts(reply.request_id)
    assert len(lines) == 1
    assert lines[0]["outcome"] != "ok"


@pytest.mark.parametrize("lane", ["auto", "full"])
def test_what_runs_is_tried_again_while_it_drains(upstream: Upstream, lane: str) -> None:
    config = configuration(provider(upstream.url, models=["gpt-4o-mini"]))
    config["server"] |= {"lane": lane, "drain_seconds": 20}
    config["timeouts"]["first_byte"] = "20s"
    go, held = gate(failure(500))
    upstream.script(held, answer({"ok": True}))
    with Gateway(config) as gateway, ThreadPoolExecutor(1) as pool:
        going = pool.submit(gateway.chat, model="gpt-4o-mini")
        upstream.wait()
        gateway.process.send_signal(signal.SIGTERM)
        gateway.until(lambda: refuses(gateway), "new connections were still accepted")
        go.set()
        assert (going.result().status, len(upstream.requests)) == (200, 2)
        assert going.result().value("connection") == "close"
        assert gateway.wait() == 0


def test_new_connections_are_refused_and_a_kept_one_is_not_ready(draining: Gateway, upstream: Upstream) -> None:
    upstream.script(stream(words() * 1000, pace_ms=50))
    with draining.connect() as kept, open_stream(draining, upstream) as connection:
        kept.send("GET", "/health/ready")
        assert kept.reply("GET").status == 200
        connection.head()
        draining.process.send_signal(signal.SIGTERM)
        draining.until(lambda: refuses(draining), "new connections were still accepted")
        assert _readiness(kept) in {503, None}, "ready (200) while draining"


def _readiness(kept: Connection) -> int | None:
    """The status of a readiness probe on a kept connection, None where the gateway has closed it as idle."""
    try:
        kept.send("GET", "/health/ready")
        reply = kept.reply("GET")
    except (EOFError, ConnectionError):
        return None
    assert (reply.value("connection") or "").lower() == "close"
    return reply.status


def test_an_idle_gateway_ends_at_once_and_clean(draining: Gateway) -> None:
    with draining.connect() as idle:
        idle.send("GET", "/health")
        assert idle.reply("GET").status == 200
        assert draining.stop() == 0
    assert any(str(line.get("event", "")).startswith("server.") for line in draining.logs())


def test_ctrl_c_drains_too(draining: Gateway) -> None:
    assert draining.stop(signal.SIGINT) == 0
    assert "Traceback" not in draining.output


def test_a_second_sigterm_does_not_wait(upstream: Upstream) -> None:
    server = {"port": 0, "drain_seconds": 3600, "body_seconds": 1}
    upstream.script(stream(words() * 10000, pace_ms=50))
    with (
        Gateway(configuration(provider(upstream.url), server=server)) as gateway,
        open_stream(gateway, upstream) as connection,
    ):
        connection.head()
        gateway.process.send_signal(signal.SIGTERM)
        gateway.until(lambda: refuses(gateway), "the drain did not begin")
        gateway.process.send_signal(signal.SIGTERM)
        gateway.wait()
