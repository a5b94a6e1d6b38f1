"""The nine promises of the design, each once, against the running gateway. Their many cases are tested elsewhere."""

import asyncio
import json
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.edge.inprocess import serving
from tests.support.behaviours import DONE, failure, huge, silence, stream
from tests.support.client import Reply, request
from tests.support.fake_openai import spoken, words
from tests.support.gateway import ADMIN_KEY, APP_KEY, UPSTREAM_KEY, Gateway, chat_body, configuration, provider
from tests.support.upstream import Recorded, Upstream

GATE_KEY = "agw-gate-8c51e07fb2d94a36"
THRIFTY_KEY = "agw-thrifty-8c51e07fb2d94a36"
CANCEL_SECONDS = 0.1
TRIES = 3
KERNEL_BYTES = 16 << 20  # what both sockets' buffers may have swallowed


@pytest.fixture(scope="module")
def shared_gateway(shared_upstream: Upstream) -> Iterator[Gateway]:
    first = provider(shared_upstream.url)
    second = provider(shared_upstream.url, "second", models=["other"])
    both = {"name": "both", "targets": ["fake/gpt-4o", "second/other"], "balance": "first"}
    config = configuration(first, second, models=[both])
    config["keys"] += [
        {"name": "gate", "key": GATE_KEY, "limits": [{"per": "key", "concurrent": 1}]},
        {"name": "thrifty", "key": THRIFTY_KEY, "limits": [{"per": "key", "tokens": 1000, "period": "1h"}]},
    ]
    with Gateway(config) as running:
        yield running


def leave(gateway: Gateway, upstream: Upstream, identity: str, *, key: str = APP_KEY) -> tuple[Recorded, float]:
    """A client goes while its answer is under way or awaited; the upstream's request, and when the client went."""
    count = len(upstream.requests)
    headers = gateway.headers(key, {"x-request-id": identity})
    with gateway.connect() as connection:
        connection.send("POST", "/v1/chat/completions", chat_body(stream=True), headers)
        seen = upstream.wait(count + 1)[-1]
        if upstream.default is not SILENT:
            connection.upto(connection.head())
        connection.close()
        return seen, time.monotonic()


SILENT = silence()


def test_invariant_1_every_exchange_ends_in_exactly_one_receipt(gateway: Gateway, upstream: Upstream) -> None:
    ids = [gateway.chat().request_id, gateway.chat(stream=True).request_id, gateway.chat(key=None).request_id]
    upstream.script(stream(words()[:2], ending="rst"), *[failure(500)] * 3)
    ids += [gateway.chat(stream=True).request_id, gateway.chat().request_id]
    upstream.default = stream(words() * 1000, pace_ms=20)
    leave(gateway, upstream, "invariant-1-left")
    outcomes = [gateway.receipt(identity)["outcome"] for identity in [*ids, "invariant-1-left"]]
    assert outcomes == ["ok", "ok", "caller_key_missing", "upstream_broken", "upstream_failed", "caller_gone"]


def test_invariant_2_a_reservation_is_settled_once_and_a_slot_held_until_the_stream_has_ended(
    gateway: Gateway, upstream: Upstream
) -> None:
    upstream.script(stream(spoken(), pace_ms=30))
    with gateway.connect() as connection:
        connection.send("POST", "/v1/chat/completions", chat_body(stream=True), gateway.headers(GATE_KEY))
        reply = connection.head()
        assert gateway.chat(key=GATE_KEY).status == 429
        assert b"".join(connection.pieces(reply)).endswith(DONE)
    assert gateway.chat(key=GATE_KEY).status == 200
    left = [gateway.chat(key=THRIFTY_KEY, max_tokens=100).value("x-ratelimit-remaining-tokens") for _ in range(3)]
    reserved = 1000 - int(left[0] or 0)  # for later ones a little more: what a prompt comes to was learnt
    assert [int(value or 0) for value in left] == pytest.approx([1000 - reserved - used for used in (0, 18, 36)], abs=6)


def test_invariant_3_no_other_try_after_the_first_byte_has_gone_to_the_client(
    gateway: Gateway, upstream: Upstream
) -> None:
    upstream.script(stream(words()[:2], ending="rst"))
    reply = gateway.chat(model="both", stream=True)
    assert reply.status == 200
    assert not reply.complete
    assert len(upstream.requests) == 1
    upstream.script(failure(500))
    assert gateway.chat(model="both", stream=True).complete
    assert [seen.json["model"] for seen in upstream.requests[1:]] == ["gpt-4o", "other"]


@pytest.mark.parametrize("phase", ["waiting", "streaming"])
def test_invariant_4_a_client_that_goes_cancels_its_upstream_request_within_100_ms(
    gateway: Gateway, upstream: Upstream, phase: str
) -> None:
    upstream.default = SILENT if phase == "waiting" else stream(words() * 1000, pace_ms=20)
    waits = []
    for number in range(TRIES):
        seen, gone = leave(gateway, upstream, f"invariant-4-{phase}-{number}")
        waits.append(upstream.wait_gone(seen) - gone)
    assert statistics.median(waits) < CANCEL_SECONDS


def test_invariant_5_neither_sides_secrets_reach_the_other(gateway: Gateway, upstream: Upstream) -> None:
    sent = {"cookie": "session=canary-cookie", "connection": "x-hop", "x-hop": "canary-hop", "x-agw-key": APP_KEY}
    upstream.script(failure(400, f"your key {UPSTREAM_KEY} is wrong", headers=(("set-cookie", UPSTREAM_KEY),)))
    reply = gateway.chat(headers=sent)
    towards = repr((upstream.last.headers, upstream.last.body, upstream.last.target))
    for canary in (APP_KEY, "canary-cookie", "canary-hop"):
        assert canary not in towards
    metrics = gateway.get("/metrics/prometheus", key=ADMIN_KEY)
    assert (reply.status, metrics.status) == (400, 200)
    gateway.receipt(reply.request_id)
    for place in (repr(reply.headers), reply.body.decode(), metrics.body.decode(), gateway.output):
        assert UPSTREAM_KEY not in place


def test_invariant_6_a_slow_reader_stops_the_reading_from_its_upstream(gateway: Gateway, upstream: Upstream) -> None:
    upstream.script(huge(64 << 20))
    with gateway.connect(receive_buffer=64 * 1024) as connection:
        connection.send("POST", "/v1/chat/completions", chat_body(stream=True), gateway.headers())
        connection.head()
        seen, before = upstream.wait()[0], -1
        while seen.accepted != before:
            before = seen.accepted
            time.sleep(0.1)
        assert 0 < seen.accepted < KERNEL_BYTES


@pytest.mark.parametrize("ending", ["whole", "fin", "rst", "hang"])
def test_invariant_7_a_broken_stream_never_looks_finished(gateway: Gateway, upstream: Upstream, ending: str) -> None:
    broken = {
        "whole": stream(words()[:2]),
        "fin": stream(words()[:2], ending="fin"),
        "rst": stream(words()[:2], ending="rst"),
        "hang": stream(words()[:2], ending="hang"),
    }
    upstream.script(broken[ending])
    reply = gateway.chat(stream=True)
    assert not reply.complete
    assert b"[DONE]" not in reply.body
    last = reply.body.rstrip(b"\n").rsplit(b"\n\n", 1)[1]
    assert last.startswith(b"event: error\ndata: ")
    assert "error" in json.loads(last.split(b"data: ")[1])


@pytest.mark.both_loops
async def test_invariant_8_nothing_on_the_path_of_a_request_blocks_the_loop(upstream: Upstream, tmp_path: Path) -> None:
    models = ["gpt-4o-mini"]
    by_name = upstream.url.replace("127.0.0.1", "localhost")
    config = configuration(provider(upstream.url, models=models), provider(by_name, "named", models=["gpt-4o"]))
    config["limits"] = [{"per": "key", "requests": 1000, "period": "1m"}]
    asked: tuple[tuple[str, str, object], ...] = (
        ("POST", "/v1/chat/completions", chat_body()),
        ("POST", "/v1/chat/completions", chat_body(stream=True)),
        ("POST", "/v1/chat/completions", chat_body(model="gpt-4o")),
        ("POST", "/v1/chat/completions", chat_body(model="agw/echo", stream=True)),
        ("POST", "/v1/chat/completions", b"{"),
        ("POST", "/v1/embeddings", {"model": "gpt-4o-mini", "input": "x"}),
        ("GET", "/v1/models", None),
        ("GET", "/health/ready", None),
        ("GET", "/openapi.json", None),
        ("GET", "/docs", None),
        ("GET", "/metrics/prometheus", None),
        ("POST", "/upstreams/refresh", None),
    )
    async with serving(config, tmp_path) as running:

        def ask() -> list[Reply]:
            sent = {"authorization": f"Bearer {ADMIN_KEY}"}
            return [request(running.url, method, path, body, sent) for method, path, body in asked]

        replies = await asyncio.to_thread(ask)
        defects = running.log.trees("gateway.defect")
    assert defects == []
    assert [reply.status for reply in replies] == [200, 200, 200, 200, 400, *[200] * 7]


def test_invariant_9_labels_have_a_bounded_set_of_values(gateway: Gateway) -> None:
    def series() -> set[str]:
        text = gateway.get("/metrics/prometheus", key=ADMIN_KEY).body.decode()
        return {line.rsplit(" ", 1)[0] for line in text.splitlines() if line and not line.startswith("#")}

    def ask(number: int) -> None:
        assert gateway.chat(model=f"made-up-{number}", user=f"user-{number}").status == 404
        assert gateway.chat(model=f"gpt-{number}", user=f"user-{number}").status == 200
        assert gateway.get(f"/v1/made-up-{number}").status == 404
        assert gateway.get(f"/made-up-{number}").status == 404

    ask(0)
    series()
    before = series()
    for number in range(1, 6):
        ask(number)
    assert series() == before
    assert not any("made-up" in line or "user-" in line for line in before)
    assert any('model="other"' in line and 'status="404"' in line for line in before)
