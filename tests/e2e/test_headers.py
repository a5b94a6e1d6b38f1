"""What passes between client and upstream, and what must never."""

from collections.abc import Iterator

import pytest

from tests.support.behaviours import answer, stream
from tests.support.client import bearer
from tests.support.fake_openai import completion, spoken
from tests.support.gateway import APP_KEY, UPSTREAM_KEY, Gateway, chat_body, configuration, provider
from tests.support.upstream import Recorded, Upstream

OWN_LOGIN = "own-subscription-login-88c1"


@pytest.fixture(scope="module")
def shared_gateway(shared_upstream: Upstream) -> Iterator[Gateway]:
    through = provider(shared_upstream.url, "through", auth="passthrough", models=["sub-*"])
    del through["api_key"]
    extra = provider(shared_upstream.url, "extra", models=["ex-*"], headers={"x-team": "blue"})
    bare = provider(shared_upstream.url, "bare", models=["bare-*"], auth="none")
    del bare["api_key"]
    with Gateway(configuration(provider(shared_upstream.url), through, extra, bare)) as running:
        yield running


def assert_no_gateway_key(seen: Recorded) -> None:
    assert all(APP_KEY not in value for _, value in seen.headers)
    assert APP_KEY.encode() not in seen.body
    assert APP_KEY not in seen.target


@pytest.mark.parametrize("name", ["authorization", "x-api-key", "api-key", "x-goog-api-key", "x-agw-key"])
def test_the_clients_key_stays_here_and_the_upstreams_own_goes_there(
    gateway: Gateway, upstream: Upstream, name: str
) -> None:
    value = f"Bearer {APP_KEY}" if name == "authorization" else APP_KEY
    assert gateway.chat(key=None, headers={name: value}).status == 200
    assert upstream.last.value("authorization") == f"Bearer {UPSTREAM_KEY}"
    assert_no_gateway_key(upstream.last)


def test_other_credentials_and_cookies_of_the_client_are_dropped(gateway: Gateway, upstream: Upstream) -> None:
    sent = {"cookie": "session=1", "proxy-authorization": "Basic eA==", "x-api-key": "another-one-of-mine"}
    assert gateway.chat(headers=sent).status == 200
    for name in sent:
        assert upstream.last.value(name) is None


def test_the_gateway_key_travels_beside_an_own_login_only_where_the_upstream_says_so(
    gateway: Gateway, upstream: Upstream
) -> None:
    both = {"x-agw-key": APP_KEY, **bearer(OWN_LOGIN)}
    assert gateway.chat(key=None, headers=both, model="sub-1").status == 200
    assert upstream.last.value("authorization") == f"Bearer {OWN_LOGIN}"
    assert_no_gateway_key(upstream.last)
    assert gateway.chat(key=None, headers=both).status == 200
    assert upstream.last.value("authorization") == f"Bearer {UPSTREAM_KEY}"


def test_passthrough_without_an_own_login_sends_no_credential(gateway: Gateway, upstream: Upstream) -> None:
    reply = gateway.chat(model="sub-1")
    assert reply.status in {200, 401}
    for seen in upstream.requests:
        assert seen.value("authorization") is None
        assert_no_gateway_key(seen)


def test_an_upstream_without_auth_gets_none_and_configured_headers_are_added(
    gateway: Gateway, upstream: Upstream
) -> None:
    assert gateway.chat(model="bare-1").status == 200
    assert upstream.last.value("authorization") is None
    assert gateway.chat(model="ex-1", headers={"x-team": "red"}).status == 200
    assert upstream.last.value("x-team") == "blue"


def test_hop_by_hop_headers_end_here(gateway: Gateway, upstream: Upstream) -> None:
    sent = {
        "connection": "keep-alive, x-only-for-you",
        "x-only-for-you": "1",
        "keep-alive": "timeout=5",
        "te": "trailers",
        "proxy-connection": "keep-alive",
    }
    assert gateway.chat(headers=sent).status == 200
    for name in ("x-only-for-you", "keep-alive", "te", "proxy-connection"):
        assert upstream.last.value(name) is None
    assert "x-only-for-you" not in (upstream.last.value("connection") or "")


@pytest.mark.parametrize("streamed", [False, True])
def test_what_an_upstream_says_to_us_alone_does_not_reach_the_client(
    gateway: Gateway, upstream: Upstream, streamed: bool
) -> None:
    private = (
        ("set-cookie", "id=1"),
        ("server", "upstream/1.0"),
        ("openai-organization", "org-internal"),
        ("connection", "keep-alive, x-hop"),
        ("x-hop", "1"),
        ("keep-alive", "timeout=9"),
    )
    upstream.script(stream(spoken(), headers=private) if streamed else answer(completion(), headers=private))
    reply = gateway.chat(stream=streamed)
    assert reply.status == 200
    for name in ("set-cookie", "openai-organization", "x-hop", "keep-alive"):
        assert reply.values(name) == []
    assert "upstream" not in (reply.value("server") or "")


def test_unknown_headers_and_the_trace_context_pass(gateway: Gateway, upstream: Upstream) -> None:
    sent = {
        "x-anything": "goes",
        "openai-beta": "assistants=v2",
        "anthropic-beta": "one,two",
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "tracestate": "vendor=1",
    }
    reply = gateway.chat(headers={**sent, "idempotency-key": "once-1"})
    assert reply.status == 200
    for name, value in sent.items():
        if name != "traceparent":
            assert upstream.last.value(name) == value
    assert (upstream.last.value("traceparent") or "").split("-")[1] == "0af7651916cd43dd8448eb211c80319c"
    assert upstream.last.value("idempotency-key") is None  # it is the gateway's: two callers may have the same
    assert gateway.receipt(reply.request_id)["trace_id"] == "0af7651916cd43dd8448eb211c80319c"


def test_the_upstream_is_addressed_by_its_own_name(gateway: Gateway, upstream: Upstream) -> None:
    assert gateway.chat().status == 200
    assert upstream.last.value("host") == upstream.url.removeprefix("http://")
    assert upstream.last.value("accept-encoding") in {None, "identity"}


@pytest.mark.parametrize("path", ["/health", "/v1/models", "/v1/no-such-endpoint"])
def test_every_answer_has_an_id_and_its_timing(gateway: Gateway, path: str) -> None:
    reply = gateway.get(path)
    assert reply.request_id
    assert reply.values("server-timing")


@pytest.mark.parametrize("streamed", [False, True])
def test_a_relayed_answer_tells_where_the_time_went(gateway: Gateway, streamed: bool) -> None:
    timing = ",".join(gateway.chat(stream=streamed).values("server-timing"))
    names = {part.split(";")[0].strip() for part in timing.split(",")}
    assert {"auth", "limit", "connect", "ttfb"} <= names


def test_a_sane_request_id_is_taken_over(gateway: Gateway) -> None:
    reply = gateway.chat(headers={"x-request-id": "my-request.42_a"})
    assert reply.request_id == "my-request.42_a"
    assert gateway.receipt("my-request.42_a")["status"] == 200


@pytest.mark.parametrize("insane", ["a" * 1000, 'quo"te', "with space", "<b>", "{}"])
def test_an_insane_request_id_is_replaced(gateway: Gateway, insane: str) -> None:
    assert gateway.chat(headers={"x-request-id": insane}).request_id not in {insane, ""}


def test_ids_differ_from_request_to_request(gateway: Gateway) -> None:
    ids = {gateway.get("/health", key=None).request_id for _ in range(20)}
    assert len(ids) == 20


def test_two_requests_on_one_connection_get_their_own_answers(gateway: Gateway) -> None:
    with gateway.connect() as connection:
        for number in range(3):
            headers = gateway.headers(more={"x-request-id": f"row-{number}"})
            connection.send("POST", "/v1/chat/completions", chat_body(stream=number == 1), headers)
        ids = [connection.reply().request_id for _ in range(3)]
    assert ids == ["row-0", "row-1", "row-2"]
