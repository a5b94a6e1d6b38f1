"""Paths of an upstream's own: relayed as they come, by the keys that may use all of it."""

import asyncio
import threading
from collections.abc import Iterator

import pytest

from tests.e2e.conftest import NARROW_KEY
from tests.support.behaviours import answer, event, stream
from tests.support.client import bearer, request
from tests.support.gateway import APP_KEY, UPSTREAM_KEY, Gateway, configuration, provider
from tests.support.upstream import Exchange, Upstream

LIMITED_KEY = "agw-bench-limited-6c0d2e91ab57f384"
GATE_SECONDS = 0.005  # between two looks whether the test has set its event
FORM = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n\0\xff\r\n--x--\r\n'


@pytest.fixture(scope="module")
def shared_gateway(shared_upstream: Upstream) -> Iterator[Gateway]:
    claude = provider(
        shared_upstream.url, "claude", dialect="anthropic", base_url=f"{shared_upstream.url}/far", models=["claude-*"]
    )
    google = provider(
        shared_upstream.url, "google", dialect="gemini", base_url=f"{shared_upstream.url}/v1beta", models=["gemini-*"]
    )
    config = configuration(provider(shared_upstream.url), claude, google)
    config["keys"].append({"name": "narrow", "key": NARROW_KEY, "models": ["gpt-4o", "claude-*"]})
    limits = [{"per": "key", "requests": 2, "period": "1h"}]
    config["keys"].append({"name": "limited", "key": LIMITED_KEY, "models": ["*"], "limits": limits})
    with Gateway(config) as running:
        yield running


@pytest.fixture
def upstream(shared_upstream: Upstream) -> Upstream:
    shared_upstream.reset()
    shared_upstream.default = answer()
    return shared_upstream


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"])
def test_any_method_goes_on_as_it_came(gateway: Gateway, upstream: Upstream, method: str) -> None:
    upstream.script(answer({"id": "file-1"}, headers=[("etag", "1")]))
    body = FORM if method in {"POST", "PUT", "PATCH"} else None
    sent = {
        "content-type": "multipart/form-data; boundary=x",
        "x-anything": "goes",
        "cookie": "no",
        "x-request-id": f"raw-{method}",
    }
    path = "/passthrough/fake/some%20files/a+b;v=1?purpose=a%2Fb&after="
    reply = request(gateway.url, method, path, body, {**bearer(APP_KEY), **sent})
    assert reply.status == 200
    assert reply.value("etag") == "1"
    assert reply.body == (b"" if method == "HEAD" else b'{"id":"file-1"}')
    seen = upstream.last
    assert (seen.method, seen.target) == (method, "/v1/some%20files/a+b;v=1?purpose=a%2Fb&after=")
    assert seen.body == (body or b"")
    assert seen.value("authorization") == f"Bearer {UPSTREAM_KEY}"
    assert (seen.value("x-anything"), seen.value("cookie")) == ("goes", None)
    assert not any(APP_KEY in value for _, value in seen.headers)
    receipt = gateway.receipt(f"raw-{method}")
    endpoint = "raw_get" if method == "HEAD" else f"raw_{method.lower()}"
    told = [receipt[name] for name in ("endpoint", "upstream", "status", "outcome", "key", "lane")]
    assert told == [endpoint, "fake", 200, "ok", "app", "full"]


def test_the_path_stands_behind_the_base_url_as_it_is_configured(gateway: Gateway, upstream: Upstream) -> None:
    for name, base, header in (("claude", "/far", "x-api-key"), ("google", "/v1beta", "x-goog-api-key")):
        assert gateway.get(f"/passthrough/{name}/v1/files/x").status == 200
        assert upstream.last.target == f"{base}/v1/files/x"
        assert upstream.last.value(header) == UPSTREAM_KEY
        assert upstream.last.value("authorization") is None


def test_only_a_key_for_the_whole_upstream_may(gateway: Gateway, upstream: Upstream) -> None:
    for body in (None, {"model": "gpt-4o"}):
        reply = request(gateway.url, "POST", "/passthrough/fake/chat/completions", body, bearer(NARROW_KEY))
        assert (reply.status, reply.error["code"]) == (403, "model_forbidden")
    reply = request(gateway.url, "GET", "/passthrough/claude/v1/files", None, bearer(NARROW_KEY))
    assert (reply.status, reply.json["type"]) == (403, "error")
    assert gateway.get("/passthrough/fake/files", key=None).status == 401
    assert gateway.get("/passthrough/fake/files", headers={"x-agw-upstream": "claude"}).status == 200
    assert [seen.target for seen in upstream.requests] == ["/v1/files"]


@pytest.mark.parametrize("name", ["nobody", "agw", "Fake", "fa%2Fke"])
def test_an_unknown_upstream_is_404_in_the_callers_dialect(gateway: Gateway, upstream: Upstream, name: str) -> None:
    path = f"/passthrough/{name}/files"
    plain = gateway.get(path)
    assert (plain.status, plain.error["code"]) == (404, "unknown_url")
    claude = gateway.get(path, headers={"anthropic-version": "2023-06-01"})
    assert (claude.status, claude.json["type"], claude.error["type"]) == (404, "error", "not_found_error")
    google = gateway.get(path, key=None, headers={"x-goog-api-key": APP_KEY})
    assert (google.status, google.error["status"]) == (404, "NOT_FOUND")
    assert upstream.requests == []


@pytest.mark.parametrize(
    "rest",
    [
        "../x",
        "a/../../x",
        "%2e%2e/x",
        "a%2fb",
        "a%2F..%2Fb",
        "a%5Cb",
        "a\\b",
        "..;/x",
        "a/..%3b/x",
        "a//b",
        "./x",
        "",
        "%zz",
    ],
)
def test_a_path_that_could_be_read_as_another_is_not_relayed(gateway: Gateway, upstream: Upstream, rest: str) -> None:
    assert gateway.get(f"/passthrough/fake/{rest}").status == 404
    assert upstream.requests == []


def test_limits_hold(gateway: Gateway, upstream: Upstream) -> None:
    statuses = [gateway.get("/passthrough/fake/files", key=LIMITED_KEY).status for _ in range(3)]
    assert statuses == [200, 200, 429]
    assert len(upstream.requests) == 2


@pytest.mark.parametrize(("name", "kind"), [("fake", "error"), ("claude", "error"), ("google", "error")])
def test_an_upstreams_error_keeps_its_status_and_message(
    gateway: Gateway, upstream: Upstream, name: str, kind: str
) -> None:
    upstream.script(answer({"error": {"message": "no such file", "type": "x"}}, status=404))
    reply = gateway.get(f"/passthrough/{name}/files/x", headers={"x-request-id": f"missing-{name}"})
    assert reply.status == 404
    assert "no such file" in str(reply.json[kind])
    assert gateway.receipt(f"missing-{name}")["attempts"] == 1


def test_a_write_is_not_tried_twice(gateway: Gateway, upstream: Upstream) -> None:
    upstream.script(answer({"error": {"message": "busy"}}, status=503), answer())
    assert gateway.post("/passthrough/fake/files", FORM).status == 503
    assert len(upstream.requests) == 1


def test_an_answer_comes_as_it_is_made(gateway: Gateway, upstream: Upstream) -> None:
    rest = threading.Event()

    async def behave(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Type: audio/mpeg\r\nContent-Length: 6\r\n\r\nabc")
        while not rest.is_set():
            await asyncio.sleep(GATE_SECONDS)
        await exchange.send(b"def")

    upstream.script(behave)
    with gateway.connect() as connection:
        connection.send("GET", "/passthrough/fake/audio", None, bearer(APP_KEY))
        reply = connection.head()
        pieces = connection.pieces(reply)
        assert next(pieces) == b"abc"
        rest.set()
        assert b"".join(pieces) == b"def"
    assert reply.complete


def test_events_pass_untouched(gateway: Gateway, upstream: Upstream) -> None:
    events = [event({"any": "thing"}, "named"), b": a comment\n\n", b"id: 7\r\ndata: x\r\n\r\n"]
    upstream.script(stream(events, split=3))
    reply = gateway.post("/passthrough/fake/threads/runs", {"stream": True})
    assert reply.body == b"".join(events)
    assert reply.value("content-type") == "text/event-stream"
    assert reply.complete


@pytest.mark.parametrize(
    ("method", "path", "target"),
    [
        ("POST", "/v1/chat/completions?key={}&a=b", "/v1/chat/completions?a=b"),
        ("POST", "/v1/chat/completions?beta=true", "/v1/chat/completions?beta=true"),
        ("GET", "/v1/files?limit=2&api_key={}", "/v1/files?limit=2"),
        ("GET", "/passthrough/google/models?key={}&pageSize=5", "/v1beta/models?pageSize=5"),
    ],
)
def test_the_callers_key_in_the_query_stays_here_in_both_lanes(
    gateway: Gateway, upstream: Upstream, method: str, path: str, target: str
) -> None:
    body = {"model": "gpt-4o", "messages": []} if method == "POST" else None
    reply = request(gateway.url, method, path.format(APP_KEY), body, bearer(APP_KEY))
    assert reply.status == 200
    assert upstream.last.target == target
