"""Hostile, broken and slow bytes on a connection: a clean refusal, one receipt, nothing left behind."""

import contextlib
import signal
import socket
from collections.abc import Iterator

import orjson
import pytest

from tests.support.behaviours import huge, raw
from tests.support.client import Reply
from tests.support.fake_openai import completion
from tests.support.gateway import ADMIN_KEY, APP_KEY, Gateway, chat_body, configuration, provider
from tests.support.upstream import Upstream

GATE_KEY = "agw-bench-gate-3b9d07e6c18f452a"
CHAT = orjson.dumps(chat_body())
JSON_TYPE = b"application/json"
MEGABYTE = 1024 * 1024
MESSAGES = b'"messages":[{"role":"user","content":"x"}]'


@pytest.fixture(scope="module")
def shared_gateway(shared_upstream: Upstream) -> Iterator[Gateway]:
    config = configuration(
        provider(shared_upstream.url, timeouts={"first_byte": "5s"}),
        provider(shared_upstream.url, "brisk", models=["brisk-*"], timeouts={"first_byte": "100ms"}),
    )
    config["server"] |= {"body_seconds": 0.5, "write_seconds": 0.5, "max_body_mb": 1, "max_header_kb": 8}
    config["keys"].append(
        {"name": "gate", "key": GATE_KEY, "models": ["*"], "limits": [{"per": "key", "concurrent": 1}]}
    )
    with Gateway(config) as running:
        yield running


def head(start: str, *fields: bytes, key: str | None = APP_KEY) -> bytes:
    """A request head, written without any check."""
    lines = [start.encode() + b" HTTP/1.1", *fields]
    if not any(line.lower().startswith(b"host:") for line in fields):
        lines.append(b"Host: x")
    if key is not None:
        lines.append(b"Authorization: Bearer " + key.encode())
    return b"\r\n".join(lines) + b"\r\n\r\n"


def with_length(body: bytes, content_type: bytes = JSON_TYPE, *more: bytes) -> bytes:
    """A chat request with any bytes for a Content-Type."""
    length = b"Content-Length: %d" % len(body)
    return head("POST /v1/chat/completions", length, b"Content-Type: " + content_type, *more) + body


def answer_to(gateway: Gateway, data: bytes) -> Reply:
    """The answer to these bytes on a connection of their own."""
    with gateway.connect() as connection:
        connection.socket.sendall(data)
        return connection.reply("GET" if data.startswith(b"GET") else "POST")


def in_flight(gateway: Gateway) -> tuple[object, str]:
    """Exchanges under way by the readiness probe and by the gauge; the one that asks is counted."""
    text = gateway.get("/metrics/prometheus", key=ADMIN_KEY).body.decode()
    gauge = next(line for line in text.splitlines() if line.startswith("agw_active_requests "))
    return gateway.get("/health/ready", key=None).json["active"], gauge.partition(" ")[2]


def settles(gateway: Gateway) -> bool:
    active, gauge = in_flight(gateway)
    return active == 1 and float(gauge) == 1


# -- malformed values


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (with_length(CHAT, b"text/\xff"), 415),
        (with_length(CHAT, b"\xff\xfe"), 415),
        (with_length(CHAT, b"text/\xe2\x98\x83"), 415),
        (with_length(CHAT, b"text/\x1b[31m"), 400),
        (with_length(CHAT, b"text/\x00"), 400),
        (with_length(CHAT, JSON_TYPE, b"Content-Encoding: \xff"), 415),
        (with_length(b'{"model":"gpt-\\ud800",' + MESSAGES + b"}"), 400),
        (with_length(b'{"model":"gpt-\\udc00\\ud800",' + MESSAGES + b"}"), 400),
        (with_length(b'{"model":"gpt-\xff",' + MESSAGES + b"}"), 400),
        (with_length(b'{"model":"gpt-\\u0000",' + MESSAGES + b"}"), 400),
        (with_length(b'{"model":"gpt-\\r\\nSet-Cookie: a=b",' + MESSAGES + b"}"), 400),
        (with_length(b'{"model":"gpt-\\u001b[31m",' + MESSAGES + b"}"), 400),
        (with_length(b'{"model":"gpt-\\u009b31m",' + MESSAGES + b"}"), 400),
    ],
    ids=[
        "type-latin-1",
        "type-no-text",
        "type-utf-8",
        "type-escape",
        "type-nul",
        "coding-latin-1",
        "model-surrogate",
        "model-surrogates",
        "model-no-utf-8",
        "model-nul",
        "model-line",
        "model-escape",
        "model-c1",
    ],
)
def test_bytes_that_are_no_text_are_refused_accounted_once_and_gone(
    gateway: Gateway, upstream: Upstream, data: bytes, status: int
) -> None:
    reply = answer_to(gateway, data)
    assert reply.status == status, reply.body
    assert reply.error["message"]
    assert reply.complete
    assert reply.value("set-cookie") is None
    receipt = gateway.receipt(reply.request_id)
    assert receipt["status"] == status
    assert receipt["outcome"] != "ok"
    assert upstream.requests == []
    gateway.until(lambda: settles(gateway), "an exchange stayed in flight")
    assert not [line for line in gateway.logs() if line.get("event") == "gateway.defect"]


@pytest.mark.parametrize("value", ["x/health?", "x:99999999", "x:65536", "a b", "user@x", "x#y"])
def test_a_host_that_is_none_is_400(gateway: Gateway, value: str) -> None:
    assert answer_to(gateway, head("GET /health", b"Host: localhost:65535", key=None)).status == 200
    assert answer_to(gateway, head("GET /health", b"Host: " + value.encode(), key=None)).status == 400


def test_a_head_too_large_in_all_is_431(gateway: Gateway) -> None:
    fields = [b"x-field-%d: " % number + b"a" * 1000 for number in range(12)]
    assert answer_to(gateway, head("GET /health", *fields[:4], key=None)).status == 200
    refused = answer_to(gateway, head("GET /health", *fields, key=None))
    assert refused.status == 431
    assert "max_header_kb" in str(refused.error["message"])


# -- upgrades


def test_an_offer_of_h2c_is_passed_over(gateway: Gateway, upstream: Upstream) -> None:
    offer = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA")
    reply = answer_to(gateway, with_length(CHAT, JSON_TYPE, *offer))
    assert reply.status == 200
    assert reply.json == completion()
    for name in ("upgrade", "http2-settings"):
        assert upstream.last.values(name) == []


def test_a_websocket_where_none_is_served_is_426(gateway: Gateway, upstream: Upstream) -> None:
    offer = (b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Key: AAAA")
    assert answer_to(gateway, head("GET /v1/files", *offer)).status == 426
    assert answer_to(gateway, with_length(CHAT, JSON_TYPE, *offer)).status == 426
    assert upstream.requests == []


# -- bodies that come late, wrong or in excess


def upload(*fields: bytes) -> bytes:
    return head("POST /v1/files", b"Content-Type: multipart/form-data; boundary=x", *fields)


CHUNKED = b"Transfer-Encoding: chunked"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


BAD_UPLOADS = [
    (upload(CHUNKED) + chunk(b"a" * (MEGABYTE // 2)) * 2 + chunk(b"a"), 413),
    (upload(CHUNKED) + chunk(b"abc") + b"ZZ\r\n", 400),
    (upload(CHUNKED) + b"ZZ\r\n", 400),
    (upload(CHUNKED) + chunk(b"abc"), 408),
    (upload(b"Content-Length: 1000") + b"abc", 408),
]


@pytest.mark.parametrize(
    ("data", "status"),
    BAD_UPLOADS,
    ids=["too-large", "bad-chunk", "bad-first-chunk", "stalled-chunks", "stalled-length"],
)
def test_a_bad_upload_is_the_callers_fault(gateway: Gateway, upstream: Upstream, data: bytes, status: int) -> None:
    reply = answer_to(gateway, data)
    assert reply.status == status, reply.body
    assert gateway.receipt(reply.request_id)["status"] == status
    gateway.until(lambda: settles(gateway), "an exchange stayed in flight")


def test_the_first_byte_clock_does_not_run_while_an_upload_still_comes(gateway: Gateway, upstream: Upstream) -> None:
    reply = answer_to(gateway, upload(b"x-agw-upstream: brisk", b"Content-Length: 1000") + b"abc")
    assert reply.status == 408, reply.body


def test_a_bad_upload_is_not_held_against_the_upstream(gateway: Gateway, upstream: Upstream) -> None:
    before = failures(gateway)
    for data, status in BAD_UPLOADS:
        assert answer_to(gateway, data).status == status
    assert failures(gateway) == before


def failures(gateway: Gateway) -> object:
    """What the gateway has counted against the upstream."""
    states = gateway.get("/upstreams", key=ADMIN_KEY).json["data"]
    assert isinstance(states, list)
    return next(state for state in states if state["name"] == "fake")["failures"]


@pytest.mark.parametrize("announced", [1000, 1_000_000, 999_999_999_999])
def test_a_probe_is_answered_without_waiting_for_its_body(gateway: Gateway, announced: int) -> None:
    request = head("GET /health", b"Content-Length: %d" % announced, key=None)
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            connection = stack.enter_context(gateway.connect())
            connection.socket.sendall(request + b"a" * 100)
            assert connection.reply("GET").status == 200
        assert gateway.chat().status == 200


# -- clients that do not read, or are too many


def test_a_client_that_reads_nothing_is_cut_and_its_slot_comes_back(gateway: Gateway, upstream: Upstream) -> None:
    upstream.script(huge(60 * MEGABYTE))
    with gateway.connect(receive_buffer=4096) as stuck:
        stuck.send("POST", "/v1/chat/completions", chat_body(stream=True), gateway.headers(GATE_KEY))
        reply = stuck.head()
        gateway.until(lambda: gateway.chat(key=GATE_KEY).status == 200, "the slot did not come back")
        upstream.wait_gone(upstream.requests[0])
        reply.body = b"".join(stuck.pieces(reply))
    assert not reply.complete
    assert gateway.receipt(reply.request_id)["outcome"] == "caller_gone"


def test_a_connection_over_the_bound_reads_a_503(upstream: Upstream) -> None:
    config = configuration(provider(upstream.url))
    config["server"]["max_connections"] = 2
    with Gateway(config) as gateway:
        with contextlib.ExitStack() as stack:
            for _ in range(2):
                kept = stack.enter_context(gateway.connect())
                kept.send("GET", "/health")
                assert kept.reply("GET").status == 200
            for talkative in (False, True) * 5:
                assert_full(gateway, talkative=talkative)
        gateway.until(lambda: chat_or_none(gateway) == 200, "the room did not come back")


def assert_full(gateway: Gateway, *, talkative: bool) -> None:
    """``talkative``: the client sends its request at once instead of waiting to be spoken to."""
    with gateway.connect() as connection:
        if talkative:
            connection.send("POST", "/v1/chat/completions", chat_body(), gateway.headers())
        reply = connection.reply()
    assert reply.status == 503
    assert reply.complete
    assert reply.error["code"] == "gateway_overloaded"
    assert reply.value("retry-after") == "1"
    assert reply.value("connection") == "close"


def chat_or_none(gateway: Gateway) -> int | None:
    try:
        return gateway.chat().status
    except (EOFError, OSError):
        return None


# -- ends


def refuses(gateway: Gateway) -> bool:
    try:
        gateway.connect().close()
    except ConnectionRefusedError:
        return True
    return False


def test_a_body_that_is_still_arriving_at_sigterm_is_waited_for_and_answered(upstream: Upstream) -> None:
    config = configuration(provider(upstream.url))
    config["server"] |= {"drain_seconds": 10, "body_seconds": 10}
    request = with_length(orjson.dumps(chat_body(pad="x" * 2000)))
    with Gateway(config) as gateway, gateway.connect() as connection:
        connection.socket.sendall(request[:-1000])
        gateway.until(lambda: gateway.get("/health/ready", key=None).json["active"] == 2, "it did not begin")
        gateway.process.send_signal(signal.SIGTERM)
        gateway.until(lambda: refuses(gateway), "the drain did not begin")
        connection.socket.sendall(request[-1000:])
        reply = connection.reply()
        assert gateway.wait() == 0
        assert gateway.receipts(reply.request_id)[0]["outcome"] == "ok"
    assert reply.status == 200
    assert reply.complete
    assert reply.json == completion()


WHOLE = orjson.dumps(completion())
CLOSE_DELIMITED = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n"


LONG = orjson.dumps(completion("long " * 40_000))  # more than is held back before an answer begins


def test_a_whole_json_without_a_length_passes(gateway: Gateway, upstream: Upstream) -> None:
    for body in (WHOLE, LONG):
        upstream.default = raw(CLOSE_DELIMITED + body)
        reply = gateway.chat()
        assert (reply.status, reply.complete, reply.body) == (200, True, body)
        assert gateway.receipt(reply.request_id)["outcome"] == "ok"


@pytest.mark.parametrize("cut", [1, len(WHOLE) // 2], ids=["last-byte", "half"])
def test_a_short_cut_json_without_a_length_is_tried_again_and_told(
    gateway: Gateway, upstream: Upstream, cut: int
) -> None:
    upstream.default = raw(CLOSE_DELIMITED + WHOLE[: len(WHOLE) - cut])
    reply = gateway.chat()
    line = gateway.receipt(reply.request_id)
    assert (reply.status, line["outcome"], line["attempts"]) == (502, "upstream_reset", 3)
    upstream.reset()
    upstream.script(raw(CLOSE_DELIMITED + WHOLE[: len(WHOLE) - cut]))
    assert gateway.chat().status == 200


def test_a_long_cut_json_without_a_length_never_looks_whole(gateway: Gateway, upstream: Upstream) -> None:
    upstream.default = raw(CLOSE_DELIMITED + LONG[:-1])
    reply = gateway.chat()
    assert (reply.status, reply.complete) == (200, False)
    assert gateway.receipt(reply.request_id)["outcome"] == "upstream_broken"


def test_a_cut_json_is_a_reset_for_a_client_that_reads_to_the_close(gateway: Gateway, upstream: Upstream) -> None:
    upstream.default = raw(CLOSE_DELIMITED + LONG[:-1])
    with gateway.connect() as connection:
        connection.socket.sendall(with_length(CHAT).replace(b" HTTP/1.1", b" HTTP/1.0", 1))
        with pytest.raises(ConnectionResetError):
            read_to_the_close(connection.socket)
    upstream.default = raw(CLOSE_DELIMITED + WHOLE)
    with gateway.connect() as again:
        again.socket.sendall(with_length(CHAT).replace(b" HTTP/1.1", b" HTTP/1.0", 1))
        assert read_to_the_close(again.socket).endswith(WHOLE)


def read_to_the_close(connection: socket.socket) -> bytes:
    data = b""
    while piece := connection.recv(65536):
        data += piece
    return data
