"""Probes are answered by the fast lane, and a gateway whose requests are all plain never imports aiohttp."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.behaviours import reset, stream
from tests.support.fake_openai import spoken
from tests.support.gateway import Gateway, chat_body, configuration, provider
from tests.support.upstream import Upstream

CHANGING = {"date", "x-request-id", "server-timing"}
OPTIONAL_IN_HEAD = {"content-length"}  # RFC 9110 section 9.3.2


@pytest.fixture
def fresh(upstream: Upstream) -> Iterator[Gateway]:
    with Gateway(configuration(provider(upstream.url)), fresh=True) as running:
        yield running


def imported(gateway: Gateway) -> bool:
    """aiohttp's compiled parser is mapped into the process."""
    return "/aiohttp/" in Path(f"/proc/{gateway.pid}/maps").read_text()


def test_plain_traffic_and_probes_do_without_aiohttp(fresh: Gateway, upstream: Upstream) -> None:
    for path in ("/health", "/health/ready", "/api/hello"):
        assert fresh.get(path, key=None).status == 200
    assert fresh.chat().status == 200
    upstream.script(stream(spoken()))
    assert fresh.chat(stream=True).complete
    assert not imported(fresh)
    assert fresh.get("/v1/models").status == 200
    assert imported(fresh)


def test_a_probe_has_its_receipt_and_counts_as_taken_by_the_fast_lane(fresh: Gateway) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    sent = {"X-Request-Id": "probe-1", "traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
    reply = fresh.get("/health/ready", key=None, headers=sent)
    assert (reply.status, reply.json["status"], reply.request_id) == (200, "ready", "probe-1")
    line = fresh.receipt("probe-1")
    assert (line["lane"], line["lane_reason"], line["endpoint"]) == ("fast", "prompt", "ready")
    assert (line["status"], line["outcome"], line["trace_id"], line["peer"]) == (200, "ok", trace, "127.0.0.1")


@pytest.mark.parametrize(("method", "path"), [("GET", "/health"), ("HEAD", "/health"), ("HEAD", "/api/hello")])
def test_both_lanes_answer_a_probe_alike(fresh: Gateway, method: str, path: str) -> None:
    """A query is not asked for here, so the full lane has the second one; then one that ends the connection."""
    found = []
    with fresh.connect() as connection:
        for target in (path, f"{path}?x=1"):
            connection.send(method, target, None, {})
            found.append(connection.head() if method == "HEAD" else connection.reply())
        connection.send(method, path, None, {"connection": "close"})
        last = connection.head() if method == "HEAD" else connection.reply()
        assert connection.socket.recv(1) == b""
    assert last.value("connection") == "close"
    ignored = CHANGING | (OPTIONAL_IN_HEAD if method == "HEAD" else set())
    prompt, full = (
        {name.lower(): value for name, value in reply.headers if name.lower() not in ignored} for reply in found
    )
    assert prompt == full
    assert found[0].status == found[1].status == last.status == 200
    assert found[0].body == found[1].body == last.body
    assert [fresh.receipt(reply.request_id)["lane"] for reply in found] == ["fast", "full"]


def test_probes_in_one_packet_are_answered_in_order(fresh: Gateway) -> None:
    probe = b"GET /health HTTP/1.1\r\nHost: x\r\nx-request-id: %d\r\n\r\n"
    with fresh.connect() as connection:
        connection.socket.sendall(b"".join(probe % number for number in range(50)))
        assert [connection.reply().request_id for _ in range(50)] == [str(number) for number in range(50)]


def test_requests_that_come_before_aiohttp_is_there_all_get_their_answers(fresh: Gateway) -> None:
    connections = [fresh.connect() for _ in range(20)]
    try:
        for number, connection in enumerate(connections):
            body = None if number % 2 else chat_body(model="agw/echo")
            connection.send(
                "GET" if number % 2 else "POST",
                "/v1/models" if number % 2 else "/v1/chat/completions",
                body,
                fresh.headers(),
            )
        assert [connection.reply().status for connection in connections] == [200] * 20
    finally:
        for connection in connections:
            connection.close()


def test_a_client_that_leaves_before_aiohttp_is_there_has_its_receipt(fresh: Gateway) -> None:
    connection = fresh.connect()
    connection.send("GET", "/v1/models", None, fresh.headers())
    connection.close()
    line = fresh.last_receipt(1)
    assert (line["outcome"], line["status"]) == ("caller_gone", 499)
    assert fresh.get("/v1/models").status == 200


def test_what_the_fast_lane_took_comes_back_when_the_client_leaves_meanwhile(upstream: Upstream) -> None:
    config = configuration(provider(upstream.url))
    config["limits"] = [{"per": "key", "concurrent": 1}]
    with Gateway(config, fresh=True) as gateway:
        upstream.script(reset())
        connection = gateway.connect()
        connection.send("POST", "/v1/chat/completions", chat_body(), gateway.headers(more={"x-request-id": "left"}))
        upstream.wait()
        connection.reset()
        gateway.until(lambda: gateway.chat().status == 200, "the slot was not given back")
        assert gateway.receipt("left")["outcome"] == "caller_gone"
