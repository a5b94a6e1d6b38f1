"""Every error becomes one shape in the caller's dialect; the headers say when and whether to come again."""

import asyncio

import orjson
import pytest

from agw_proxy._hot.limit import PER_KEY, REQUESTS, Limits, Rule, Table
from agw_proxy.edge import respond
from agw_proxy.edge.exchange import Exchange
from agw_proxy.errors import (
    CODES,
    AdminOnly,
    Draining,
    GatewayError,
    InternalError,
    InvalidParameter,
    KeyMissing,
    MethodNotAllowed,
    ModelNotFound,
    Overloaded,
    RateLimited,
    ThreadUnsupported,
    UpgradeRefused,
    UpstreamRejected,
    UpstreamUnavailable,
)
from agw_proxy.types import Answer, Attempt, Dialect

SECOND = 1_000_000_000


def exchange(dialect: Dialect = "openai") -> Exchange:
    async def make() -> Exchange:
        return Exchange("req_1", "POST", None)

    made = asyncio.run(make())
    made.dialect = dialect
    return made


def an_error(kind: type[GatewayError]) -> GatewayError:
    more: dict[str, object] = {}
    if kind is MethodNotAllowed:
        more = {"allowed": ("GET",)}
    elif issubclass(kind, RateLimited):
        more = {"rule": "r", "retry_after_ms": 5}
    elif kind is UpstreamRejected:
        more = {"status": 422}
    return kind("What happened.", **more)  # type: ignore[arg-type]  # each class's own keywords


@pytest.mark.parametrize("code", sorted(CODES))
def test_every_error_has_both_shapes(code: str) -> None:
    error = an_error(CODES[code])
    tree = orjson.loads(orjson.dumps(respond.error_tree(error, "openai", "req_1")))
    assert set(tree) == {"error"}
    assert set(tree["error"]) == {"message", "type", "param", "code"}
    assert (tree["error"]["message"], tree["error"]["type"]) == ("What happened.", error.kind)
    assert tree["error"]["code"]
    other = orjson.loads(orjson.dumps(respond.error_tree(error, "anthropic", "req_1")))
    assert (other["type"], other["request_id"]) == ("error", "req_1")
    more = other["error"].pop("details", None)
    assert more == (
        {"error_code": error.alias, "unsupported": ["model"]} if isinstance(error, ThreadUnsupported) else None
    )
    assert set(other["error"]) == {"type", "message"}
    assert other["error"]["type"] in {"api_error", *respond.ANTHROPIC_KINDS.values()}


def test_google_says_in_the_body_when_to_come_again() -> None:
    for error, delay in ((Overloaded("x", retry_after_ms=1500), "1.500s"), (InternalError("x"), None)):
        tree = orjson.loads(orjson.dumps(respond.error_tree(error, "gemini", "req_1")))["error"]
        told = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay}
        assert tree.get("details") == (None if delay is None else [told])


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (InvalidParameter("x"), "invalid_request_error"),
        (KeyMissing("x"), "authentication_error"),
        (AdminOnly("x"), "permission_error"),
        (ModelNotFound("x"), "not_found_error"),
        (UpgradeRefused("x"), "invalid_request_error"),
        (RateLimited("x", rule="r", retry_after_ms=1), "rate_limit_error"),
        (InternalError("x"), "api_error"),
        (Overloaded("x"), "overloaded_error"),
        (UpstreamRejected("x", status=402), "billing_error"),
        (UpstreamRejected("x", status=413), "request_too_large"),
    ],
)
def test_anthropics_kinds_follow_the_status(error: GatewayError, kind: str) -> None:
    tree = orjson.loads(respond.error_body(error, "anthropic", "r"))
    assert tree["error"]["type"] == kind


def test_an_upstreams_own_refusal_keeps_its_words() -> None:
    payload = b'{"error":{"message":"theirs"}}'
    assert respond.error_body(UpstreamRejected("ours", status=400, payload=payload), "openai", "r") == payload
    assert b"ours" in respond.error_body(UpstreamRejected("ours", status=400), "openai", "r")


@pytest.mark.parametrize("dialect", ["openai", "anthropic"])
def test_the_error_of_a_stream_is_one_event(dialect: Dialect) -> None:
    event = respond.error_event(Draining("line\none\n\ntwo"), dialect, "r")
    assert event.startswith(b"event: error\ndata: {")
    assert event.endswith(b"}\n\n")
    assert event.count(b"\n") == 3
    assert "error" in orjson.loads(event.split(b"data: ")[1])


@pytest.mark.parametrize(
    ("error", "seconds", "milliseconds"),
    [
        (RateLimited("x", rule="r", retry_after_ms=1), "1", "1"),
        (RateLimited("x", rule="r", retry_after_ms=1001), "2", "1001"),
        (UpstreamUnavailable("x", retry_after_ms=0), "0", "0"),
        (UpstreamUnavailable("x"), "1", "1000"),
        (Draining("x"), "1", "1000"),
        (UpstreamRejected("x", status=429, retry_after_ms=30_000), "30", "30000"),
        (UpstreamRejected("x", status=400, retry_after_ms=30_000), None, None),
        (KeyMissing("x"), None, None),
    ],
)
def test_when_to_come_again_is_said_in_both_headers(
    error: GatewayError, seconds: str | None, milliseconds: str | None
) -> None:
    headers = dict(respond.error_headers(exchange(), error))
    assert (headers.get("Retry-After"), headers.get("retry-after-ms")) == (seconds, milliseconds)


def test_a_refusal_says_who_it_is_about() -> None:
    head, _, body = respond.refuse_unparsed(exchange(), KeyMissing("x")).partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    assert (status, headers["Content-Type"]) == ("HTTP/1.1 401 Unauthorized", "application/json")
    assert headers["x-agw-error"] == "caller_key_missing"
    assert headers["WWW-Authenticate"].startswith("Bearer")
    assert headers["x-request-id"] == "req_1"
    assert headers["Server"] == "agw"
    assert "x-should-retry" not in headers
    assert (headers["Connection"], int(headers["Content-Length"])) == ("close", len(body))


def test_what_has_been_tried_already_is_not_to_be_tried_again() -> None:
    assert dict(respond.error_headers(exchange(), UpstreamUnavailable("x")))["x-should-retry"] == "false"


def test_methods_and_upgrades_are_answered_as_http_wants() -> None:
    allowed = dict(respond.error_headers(exchange(), MethodNotAllowed("x", allowed=("GET", "HEAD"))))
    assert allowed["Allow"] == "GET, HEAD"
    upgrade = dict(respond.error_headers(exchange(), UpgradeRefused("x")))
    assert (upgrade["Upgrade"], upgrade["Connection"]) == ("HTTP/1.1", "Upgrade")


def test_what_is_told_twice_of_one_kind_is_told_in_one_header() -> None:
    made = exchange()
    made.notes = [("x-agw-dropped", "idempotency-key"), ("age", "7"), ("x-agw-dropped", "top_k, store")]
    headers = respond.common_headers(made)
    assert [item for item in headers if item[0] in {"age", "x-agw-dropped"}] == [
        ("x-agw-dropped", "idempotency-key, top_k, store"),
        ("age", "7"),
    ]


def test_common_headers_tell_of_attempts_limits_and_the_dialects_own_id() -> None:
    made = exchange("anthropic")
    made.trail = [Attempt("a/m", "a", "upstream_reset"), Attempt("b/m", "b", "200")]
    made.grant = Limits(Table(slots=8, gates=8), [Rule("r", PER_KEY, REQUESTS, 5, SECOND)]).admit(
        SECOND, key=1, user=2, model=3
    )
    headers = dict(respond.common_headers(made))
    assert headers["request-id"] == headers["x-request-id"] == "req_1"
    assert headers["x-agw-attempts"] == "a/m=upstream_reset, b/m=200"
    assert headers["x-ratelimit-limit-requests"] == "5"
    plain = dict(respond.common_headers(exchange()))
    assert set(plain) == {"Server", "x-request-id", "Server-Timing"}


def test_an_answer_of_our_own_carries_what_every_reply_does() -> None:
    made = Answer(201, b"text", "text/plain", (("Cache-Control", "no-store"),))
    headers = dict(respond.answer_headers(exchange(), made))
    assert (headers["Content-Type"], headers["Cache-Control"]) == ("text/plain", "no-store")
    assert headers["x-request-id"] == "req_1"
    answer = respond.whole(201, list(headers.items()), made.body)
    assert answer.startswith(b"HTTP/1.1 201 Created\r\n")
    assert answer.endswith(b"\r\n\r\ntext")
    bodiless = respond.whole(201, list(headers.items()), made.body, bodiless=True)
    assert bodiless == answer.removesuffix(b"text")
