"""How many processes there are, and which signals end them: several workers, seen by whoever runs them."""

import os
import signal
from pathlib import Path

import pytest

from agw_proxy.config.values import MAX_WORKERS, processors
from tests.support.behaviours import stream
from tests.support.fake_openai import spoken
from tests.support.gateway import Gateway, Tree, chat_body, configuration, provider
from tests.support.upstream import Upstream


def settings(upstream: Upstream, workers: int = 2) -> Tree:
    config = configuration(provider(upstream.url, models=["gpt-4o-mini"]))
    config["server"] |= {"workers": workers, "heartbeat_seconds": 0}
    return config


def events(gateway: Gateway, name: str) -> list[Tree]:
    return [line for line in gateway.logs() if line.get("event") == name]


def test_a_signal_to_every_process_of_the_gateway_is_one_wish_to_stop(upstream: Upstream) -> None:
    """A service manager signals all processes of a service at once: the answers under way are finished all the same."""
    upstream.script(*[stream(spoken(), pace_ms=60)] * 6)
    with Gateway(settings(upstream)) as gateway:
        held = [gateway.connect() for _ in range(6)]
        try:
            for connection in held:
                connection.send("POST", "/v1/chat/completions", chat_body(stream=True), gateway.headers())
            replies = [connection.head() for connection in held]
            for pid in [*(line["pid"] for line in events(gateway, "worker.ready")), gateway.pid]:
                os.kill(pid, signal.SIGTERM)
            for connection, reply in zip(held, replies, strict=True):
                assert b"".join(connection.pieces(reply)) == b"".join(spoken())
                assert reply.complete
        finally:
            for connection in held:
                connection.close()
        assert gateway.wait() == 0
        assert not events(gateway, "worker.killed")


def test_a_worker_told_to_stop_alone_drains_and_is_replaced(upstream: Upstream) -> None:
    with Gateway(settings(upstream)) as gateway:
        victim = events(gateway, "worker.ready")[0]["pid"]
        os.kill(victim, signal.SIGTERM)
        gateway.until(lambda: len(events(gateway, "worker.ready")) == 3, "no replacement")
        assert [(line["pid"], line["how"]) for line in events(gateway, "worker.ended")] == [(victim, "exit code 0")]
        assert [gateway.get("/health", key=None).status for _ in range(20)] == [200] * 20


def test_one_worker_is_one_process(upstream: Upstream) -> None:
    with Gateway(settings(upstream, workers=1)) as gateway:
        assert not Path(f"/proc/{gateway.pid}/task/{gateway.pid}/children").read_text().split()
        assert [line["pid"] for line in events(gateway, "server.ready")] == [gateway.pid]


def test_auto_starts_one_worker_a_processor(upstream: Upstream) -> None:
    with Gateway(settings(upstream), args=["--workers", "auto"]) as gateway:
        assert events(gateway, "server.ready")[0]["workers"] == min(processors(), MAX_WORKERS)
        assert [gateway.get("/health", key=None).status for _ in range(4)] == [200] * 4


@pytest.mark.parametrize("number", ["0", "29", "-1", "2.5", "two"])
def test_a_number_of_workers_that_cannot_be_is_refused(upstream: Upstream, number: str) -> None:
    gateway = Gateway(settings(upstream), args=["--workers", number])
    try:
        gateway.launch()
        assert gateway.wait() == 1
        assert "server.workers" in gateway.output
    finally:
        gateway.__exit__()
