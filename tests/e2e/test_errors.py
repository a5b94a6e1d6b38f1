"""Whatever is wrong with a request, the answer is one JSON shape with an id, and it says what to do."""

import contextlib
from collections.abc import Iterator

import pytest

from tests.e2e.conftest import NARROW_KEY
from tests.support.behaviours import failure, html_502, raw, redirect, reset, silence
from tests.support.client import Reply
from tests.support.gateway import UPSTREAM_KEY, Gateway, chat_body, configuration, provider
from tests.support.upstream import Behaviour, Upstream, unreachable

CHAT = "/v1/chat/completions"
STRANGER = "agw-not-a-known-key-5d20c7"
MESSAGES = b'"messages":[{"role":"user","content":"x"}]'
MEGABYTE = 1024 * 1024


@pytest.fixture(scope="module")
def shared_gateway(shared_upstream: Upstream) -> Iterator[Gateway]:
    config = configuration(
        provider(shared_upstream.url), server={"port": 0, "drain_seconds": 1, "body_seconds": 1, "max_body_mb": 1}
    )
    config["keys"].append({"name": "narrow", "key": NARROW_KEY, "models": ["gpt-4o"]})
    with unreachable() as nowhere:
        config["upstreams"].append(provider(nowhere, "nowhere", models=["dead-*"]))
        with Gateway(config) as running:
            yield running


def assert_error(reply: Reply, status: int, code: str | None = None) -> None:
    assert reply.status == status, reply.body
    assert (reply.value("content-type") or "").startswith("application/json")
    assert reply.request_id
    error = reply.error
    assert set(error) == {"message", "type", "param", "code"}
    assert isinstance(error["message"], str)
    assert error["message"]
    if code is not None:
        assert error["code"] == code


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'"text"',
        b'{"model":"gpt-4o",' + MESSAGES + b"} trailing",
        b'{"model":"gpt-4o","model":"gpt-4o-mini",' + MESSAGES + b"}",
        b'{"model":"gpt-4o","temperature":NaN,' + MESSAGES + b"}",
        b'{"model":"gpt-4o","user":"\xff\xfe",' + MESSAGES + b"}",
        b'{"model":"gpt-4o","x":' + b"[" * 500 + b"]" * 500 + b"," + MESSAGES + b"}",
        b"{'model':'gpt-4o'}",
    ],
    ids=["empty", "open", "array", "string", "trailing", "duplicate", "nan", "utf-8", "deep", "quotes"],
)
def test_a_body_that_is_not_acceptable_json_is_400(gateway: Gateway, upstream: Upstream, body: bytes) -> None:
    assert_error(gateway.post(CHAT, body), 400)
    assert upstream.requests == []


@pytest.mark.parametrize(
    ("member", "body"),
    [
        ("model", {"messages": []}),
        ("model", {"model": 7, "messages": []}),
        ("model", {"model": None, "messages": []}),
        ("stream", {"model": "gpt-4o", "messages": [], "stream": "yes"}),
        ("max_tokens", {"model": "gpt-4o", "messages": [], "max_tokens": "many"}),
    ],
    ids=["no-model", "number", "null", "stream", "max-tokens"],
)
def test_a_missing_or_mistyped_member_is_400_and_named(
    gateway: Gateway, upstream: Upstream, member: str, body: dict[str, object]
) -> None:
    reply = gateway.post(CHAT, body)
    assert_error(reply, 400)
    assert reply.error["param"] == member
    assert upstream.requests == []


def test_an_unknown_model_is_404_and_a_forbidden_one_403(gateway: Gateway, upstream: Upstream) -> None:
    assert_error(gateway.chat(model="no-such-model"), 404, "model_not_found")
    refused = gateway.chat(model="gpt-4o-mini", key=NARROW_KEY)
    assert_error(refused, 403)
    assert "gpt-4o" in str(refused.error["message"])
    assert_error(gateway.chat(model="no-such-model", key=NARROW_KEY), 404, "model_not_found")
    assert upstream.requests == []


@pytest.mark.parametrize("key", [None, STRANGER, ""])
def test_without_a_known_key_it_is_401_and_no_key_is_echoed(
    gateway: Gateway, upstream: Upstream, key: str | None
) -> None:
    reply = gateway.chat(key=key)
    assert_error(reply, 401, "invalid_api_key")
    assert STRANGER.encode() not in reply.body
    assert upstream.requests == []


@pytest.mark.parametrize("name", ["x-api-key", "api-key", "x-goog-api-key", "x-agw-key", "X-API-KEY"])
def test_the_key_may_come_in_any_of_the_usual_headers(gateway: Gateway, name: str) -> None:
    assert gateway.chat(key=None, headers={name: gateway.key}).status == 200
    assert gateway.chat(key=None, headers={name: gateway.key.upper()}).status == 401


def test_a_body_over_the_bound_is_413_before_it_is_sent(gateway: Gateway, upstream: Upstream) -> None:
    with gateway.connect() as connection:
        connection.send("POST", CHAT, b"", gateway.headers(more={"content-length": str(8 * MEGABYTE)}))
        assert_error(connection.reply(), 413)
    assert upstream.requests == []


def test_a_chunked_body_over_the_bound_is_413(gateway: Gateway, upstream: Upstream) -> None:
    size = MEGABYTE + 65536
    with gateway.connect() as connection:
        head = gateway.headers(more={"content-length": "", "transfer-encoding": "chunked"})
        connection.send("POST", CHAT, b"", head)
        with contextlib.suppress(ConnectionError):
            connection.socket.sendall(f"{size:x}\r\n".encode() + b" " * size + b"\r\n0\r\n\r\n")
        assert_error(connection.reply(), 413)
    assert upstream.requests == []


def test_a_body_that_does_not_come_in_time_is_408(gateway: Gateway) -> None:
    with gateway.connect() as connection:
        connection.send("POST", CHAT, b"{", gateway.headers(more={"content-length": "10"}))
        assert_error(connection.reply(), 408)


@pytest.mark.parametrize("headers", [{"content-type": "text/plain"}, {"content-encoding": "gzip"}])
def test_another_content_type_or_encoding_is_415(gateway: Gateway, upstream: Upstream, headers: dict[str, str]) -> None:
    assert_error(gateway.chat(headers=headers), 415)
    assert upstream.requests == []


def test_the_wrong_method_is_405_with_allow_and_an_unknown_path_404(gateway: Gateway) -> None:
    reply = gateway.get(CHAT)
    assert_error(reply, 405)
    assert "POST" in (reply.value("allow") or "")
    assert_error(gateway.get("/v1/no-such-endpoint"), 404, "unknown_url")
    assert_error(gateway.post("/nothing/here", {}), 404, "unknown_url")


def test_an_upgrade_is_refused_with_426_so_that_coding_tools_fall_back_at_once(gateway: Gateway) -> None:
    upgrade = {"connection": "upgrade", "upgrade": "websocket", "sec-websocket-version": "13"}
    reply = gateway.get("/v1/embeddings/x", headers={**upgrade, "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ=="})
    assert_error(reply, 426)


@pytest.mark.parametrize(
    "extra",
    [
        b"Content-Length: 2\r\nContent-Length: 3\r\n",
        b"Content-Length: +2\r\n",
        b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n",
        b"Host: other\r\nContent-Length: 2\r\n",
        b"Content-Length: 2\r\nX-Bad : 1\r\n",
        b"Content-Length: 2\r\nX-Folded: 1\r\n 2\r\n",
        b"Content-Length: 2\r\nX-Nul: a\0b\r\n",
        b"Content-Length: 2\r\nAuthorization: Bearer other\r\n",
    ],
    ids=["two-lengths", "signed", "length-and-chunked", "two-hosts", "space", "fold", "nul", "two-keys"],
)
def test_ambiguous_http_is_400_and_the_connection_ends(gateway: Gateway, upstream: Upstream, extra: bytes) -> None:
    with gateway.connect() as connection:
        host = connection.host.encode()
        key = gateway.key.encode()
        head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: " + host + b"\r\nAuthorization: Bearer " + key + b"\r\n"
        connection.socket.sendall(head + b"Content-Type: application/json\r\n" + extra + b"\r\n{}")
        reply = connection.reply()
    assert reply.status == 400
    assert upstream.requests == []


@pytest.mark.parametrize(
    ("behaviour", "statuses"),
    [
        (failure(500), {502}),
        (failure(503), {503}),
        (html_502(), {502, 503}),
        (redirect("http://127.0.0.1:9/steal"), {502}),
        (raw(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"), {502}),
        (raw(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"), {502}),
        (raw(b"HTTP/1.1 200 OK\r\nContent-Le"), {502}),
        (raw(b""), {502}),
        (reset(), {502}),
        (silence(), {504}),
        (failure(401, f"Incorrect API key provided: {UPSTREAM_KEY}", code="invalid_api_key"), {401}),
    ],
    ids=["500", "503", "html", "redirect", "garbage", "101", "half-head", "fin", "rst", "silence", "refused-key"],
)
@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "stream"])
def test_an_upstream_that_fails_before_the_first_byte_has_an_exact_status(
    gateway: Gateway, upstream: Upstream, behaviour: Behaviour, statuses: set[int], streamed: bool
) -> None:
    upstream.default = behaviour
    reply = gateway.chat(stream=streamed)
    assert reply.status in statuses, reply.body
    assert_error(reply, reply.status)
    assert reply.value("x-should-retry") == "false"
    assert b"<html" not in reply.body
    assert b"upstream-internal" not in reply.body
    assert UPSTREAM_KEY.encode() not in reply.body
    assert reply.value("location") is None


def test_an_unreachable_upstream_is_502_or_503(gateway: Gateway) -> None:
    reply = gateway.chat(model="dead-1")
    assert reply.status in {502, 503}
    assert_error(reply, reply.status)


def test_the_connection_serves_on_after_an_error(gateway: Gateway) -> None:
    with gateway.connect() as connection:
        for body, status in ((b"{", 400), (chat_body(), 200), (chat_body(model="no-such-model"), 404)):
            connection.send("POST", CHAT, body, gateway.headers())
            assert connection.reply().status == status
