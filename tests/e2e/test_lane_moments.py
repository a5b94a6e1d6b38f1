"""Two things in one turn of the loop: whatever comes together, each exchange has one Receipt and gives back what it took.

The gateway is stopped while both happen, and finds both when it goes on.
"""

import contextlib
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.behaviours import answer, close, failure, gate
from tests.support.fake_openai import completion
from tests.support.gateway import APP_KEY, Gateway, Tree, chat_body, configuration, provider
from tests.support.upstream import Upstream

PATIENT = {"connect": "300ms", "first_byte": "10s", "between_bytes": "10s", "total": "20s"}
FREE = {**completion(), "usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}}
SETTLING_SECONDS = 0.1  # for the kernel to bring what was sent


@contextlib.contextmanager
def stopped(gateway: Gateway) -> Iterator[None]:
    """The process does nothing meanwhile."""
    gateway.process.send_signal(signal.SIGSTOP)
    tasks = Path(f"/proc/{gateway.pid}/task")
    gateway.until(
        lambda: all(task.read_text().rpartition(")")[2].split()[0] == "T" for task in tasks.glob("*/stat")),
        "the process goes on",
    )
    try:
        yield
        time.sleep(SETTLING_SECONDS)
    finally:
        gateway.process.send_signal(signal.SIGCONT)


@contextlib.contextmanager
def half_sent(gateway: Gateway, more: str = "") -> Iterator[socket.socket]:
    """A request whose body is short of its end."""
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {APP_KEY}\r\n{more}"
    with gateway.connect() as connection:
        connection.socket.sendall(f"{head}Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{{".encode())
        yield connection.socket


@pytest.mark.parametrize("first", ["client", "upstream"])
@pytest.mark.parametrize("loaded", [False, True], ids=["first-full", "later"])
def test_a_client_leaves_when_its_upstream_fails(upstream: Upstream, first: str, loaded: bool) -> None:
    config = configuration(provider(upstream.url, retries={"attempts": 1}), timeouts=PATIENT)
    config["limits"] = [{"per": "key", "tokens": 10_000, "period": "24h"}, {"per": "key", "concurrent": 1}]
    with Gateway(config) as gateway:
        if loaded:
            assert gateway.get("/v1/models").status == 200
        upstream.default = answer(FREE)
        before = int(gateway.chat(max_tokens=1).value("x-ratelimit-remaining-tokens") or 0)
        go, held = gate(failure(500))
        upstream.script(held)
        connection = gateway.connect()
        connection.send("POST", "/v1/chat/completions", chat_body(), gateway.headers(more={"x-request-id": "both"}))
        upstream.wait(2)
        steps = [connection.close, go.set]
        with stopped(gateway):
            for step in steps if first == "client" else reversed(steps):
                step()
                time.sleep(SETTLING_SECONDS)
        line = gateway.receipt("both")
        assert (line["outcome"], line["status"]) == ("caller_gone", 499)
        reply = gateway.chat(max_tokens=1)
        prompt = 10_000 - 1 - before
        assert reply.status == 200
        spent = before - int(reply.value("x-ratelimit-remaining-tokens") or 0)
        assert spent in {0, prompt}  # which of the two the gateway sees first decides


def test_an_upstream_closes_an_idle_connection_when_a_request_comes(upstream: Upstream) -> None:
    """Known in time, so nothing was sent on it and no attempt is spent."""
    with Gateway(configuration(provider(upstream.url, retries={"attempts": 1}), timeouts=PATIENT)) as gateway:
        go, idle = gate(answer(completion()), close)
        upstream.script(idle)
        with gateway.connect() as connection:
            connection.send("POST", "/v1/chat/completions", chat_body(), gateway.headers())
            assert connection.reply().status == 200
            with stopped(gateway):
                go.set()
                time.sleep(SETTLING_SECONDS)
                connection.send("POST", "/v1/chat/completions", chat_body(), gateway.headers())
            reply = connection.reply()
        assert reply.status == 200
        assert reply.value("x-agw-attempts") is None


@pytest.mark.parametrize("renamed", [False, True])
def test_a_reload_in_between_changes_nothing_for_what_runs(upstream: Upstream, renamed: bool) -> None:
    def routed(name: str, target: str) -> Tree:
        config = configuration(
            provider(upstream.url, "old", retries={"attempts": 1}), provider(upstream.url, "new"), timeouts=PATIENT
        )
        return {**config, "models": [{"name": name, "targets": [{"upstream": target, "model": "gpt-4o"}]}]}

    with Gateway(routed("m", "old")) as gateway:
        go, held = gate(failure(429))
        upstream.script(held)
        with gateway.connect() as connection:
            sent = gateway.headers(more={"x-request-id": "reloaded"})
            connection.send("POST", "/v1/chat/completions", chat_body(model="m"), sent)
            upstream.wait()
            gateway.write(routed("other", "old") if renamed else routed("m", "new"))
            gateway.process.send_signal(signal.SIGHUP)
            gateway.until(lambda: [line for line in gateway.logs() if line["event"] == "config.reloaded"], "no reload")
            go.set()
            reply = connection.reply()
        assert reply.status == 429
        line = gateway.receipt("reloaded")
        assert [(attempt["upstream"], attempt["outcome"]) for attempt in line["trail"]] == [("old", "429")]
        assert line["upstream"] == "old"


@pytest.mark.parametrize("lane", ["fast", "full"])
def test_a_reload_while_a_body_is_on_its_way_decides_by_the_new_upstreams(upstream: Upstream, lane: str) -> None:
    """Where they stand now: one that has come first since then is not taken for the one that was first before."""
    passed = provider(upstream.url, "passed", auth="passthrough", api_key=None, models=["other-*"])
    own = provider(upstream.url, "own", models=["gpt-*"])
    moved = provider(upstream.url, "moved", models=["later-*"])
    body = b'{"model":"later-1","messages":[],"x":"' + b"x" * 60 + b'"}'
    with Gateway(configuration(passed, timeouts=PATIENT)) as gateway:
        with half_sent(gateway, "x-request-id: half\r\n") as half:
            gateway.until(lambda: gateway.get("/health/ready", key=None).json["active"] == 2, "the body is not read")
            changed = configuration(own, passed, moved, timeouts=PATIENT)
            changed["server"]["lane"] = "auto" if lane == "fast" else "full"
            gateway.write(changed)
            gateway.process.send_signal(signal.SIGHUP)
            gateway.until(lambda: [line for line in gateway.logs() if line["event"] == "config.reloaded"], "no reload")
            half.sendall(body[1:])
            assert half.recv(65536).startswith(b"HTTP/1.1 200 ")
        assert (len(body), upstream.last.json["model"]) == (100, "later-1")
        line = gateway.receipt("half")
        assert (line["lane"], line["upstream"], line["outcome"]) == (lane, "moved", "ok")


def test_a_body_that_is_on_its_way_at_the_end_of_a_drain_is_answered(upstream: Upstream) -> None:
    config = configuration(provider(upstream.url), timeouts=PATIENT)
    config["server"] |= {"drain_seconds": 0.2, "body_seconds": 30}
    with Gateway(config) as gateway, half_sent(gateway, "x-request-id: half\r\nx-user-id: bob\r\n") as half:
        gateway.until(lambda: gateway.get("/health/ready", key=None).json["active"] == 2, "the body is not read")
        assert gateway.stop() == 0
        got = b"".join(iter(lambda: half.recv(65536), b""))
        assert got.startswith(b"HTTP/1.1 503 ")
        assert b"x-request-id: half\r\n" in got
        [line] = gateway.receipts("half")
        assert (line["outcome"], line["user"], line["key"]) == ("gateway_draining", "bob", "app")


def test_time_spent_by_the_client_is_not_the_gateways(upstream: Upstream) -> None:
    config = configuration(provider(upstream.url, retries={"attempts": 1}), timeouts=PATIENT)
    config["server"]["body_seconds"] = 0.4
    body = b'{"model":"gpt-4o-mini","messages":[],"x":"' + b"x" * 56 + b'"}'
    with Gateway(config) as gateway:
        assert gateway.get("/v1/models").status == 200
        upstream.script(failure(400))
        with half_sent(gateway, "x-request-id: slow\r\n") as slow:
            time.sleep(0.2)
            slow.sendall(body[1:])
            assert gateway.receipt("slow")["overhead_us"] < 150_000
        with half_sent(gateway, "x-request-id: never\r\n") as never:
            assert never.recv(65536).startswith(b"HTTP/1.1 408 ")
        line = gateway.receipt("never")
        assert line["overhead_us"] < 150_000
        assert line["duration_ms"] > 300


def test_a_refusal_has_no_part_in_the_time_of_the_answer_before(upstream: Upstream) -> None:
    config = configuration(provider(upstream.url), timeouts=PATIENT)
    config["limits"] = [{"per": "key", "requests": 1, "period": "24h"}]
    with Gateway(config) as gateway, gateway.connect() as connection:
        go, held = gate(answer(completion()))
        upstream.script(held)
        connection.send("POST", "/v1/chat/completions", chat_body(), gateway.headers())
        upstream.wait()
        time.sleep(0.1)
        go.set()
        assert connection.reply().status == 200
        connection.send("POST", "/v1/chat/completions", chat_body(), gateway.headers())
        reply = connection.reply()
        assert reply.status == 429
        assert gateway.receipt(reply.request_id)["overhead_us"] > 0
