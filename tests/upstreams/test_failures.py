"""An upstream's error becomes ours: what is passed on, what is said in our words, what may be tried again, and where."""

import orjson
import pytest

from agw_proxy._hot.circuit import BAD, GOOD, NEITHER
from agw_proxy.errors import (
    CallerGone,
    Draining,
    GatewayError,
    UpstreamBroken,
    UpstreamError,
    UpstreamFailed,
    UpstreamInvalid,
    UpstreamRefused,
    UpstreamRejected,
    UpstreamReset,
    UpstreamTimeout,
    UpstreamUnavailable,
    UpstreamUnreachable,
)
from agw_proxy.upstreams.failures import (
    MAX_ERROR_BYTES,
    TOO_DEEP,
    again,
    elsewhere,
    error_of,
    error_of_event,
    refused,
    verdict,
)
from tests.upstreams.scripted import Answered, call

SECRET = "upstream-key-of-the-test/with+signs"


def error(status: int, tree: object = None, **headers: str) -> UpstreamError:
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return error_of(status, b"" if tree is None else orjson.dumps(tree), raw, "up", [SECRET], ours=True)


def described(message: str = "no", **members: object) -> dict[str, object]:
    return {"error": {"message": message, **members}}


@pytest.mark.parametrize(
    ("status", "kind", "ours"),
    [
        (500, UpstreamFailed, 502),
        (502, UpstreamFailed, 502),
        (503, UpstreamUnavailable, 503),
        (529, UpstreamUnavailable, 503),
        (504, UpstreamTimeout, 504),
        (599, UpstreamFailed, 502),
        (401, UpstreamRefused, 401),
        (400, UpstreamRejected, 400),
        (403, UpstreamRejected, 403),
        (404, UpstreamRejected, 404),
        (418, UpstreamRejected, 418),
        (429, UpstreamRejected, 429),
    ],
)
def test_a_status_becomes_an_error_that_names_the_upstream(status: int, kind: type[UpstreamError], ours: int) -> None:
    found = error(status, described("internal words"))
    assert type(found) is kind
    assert found.status == ours
    assert "'up'" in found.message
    assert "internal words" not in found.message


def test_a_4xx_keeps_the_upstreams_words() -> None:
    tree = described("max_tokens is too large", code="invalid_value", param="max_tokens")
    found = error(400, tree)
    assert isinstance(found, UpstreamRejected)
    assert found.payload is not None
    assert orjson.loads(found.payload) == tree


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>upstream-internal.example</html>", b"[1]", b"[]", b"{}", b'{"status":"no"}', b'{"error":7}', b'"x"'],
)
def test_what_is_no_error_object_is_not_passed_on(body: bytes) -> None:
    found = error_of(400, body, (), "up", [SECRET], ours=True)
    assert isinstance(found, UpstreamRejected)
    assert found.payload is None
    assert (found.status, found.message) == (400, "Upstream 'up' refused the request (400).")


def test_an_error_that_is_a_text_is_passed_on() -> None:
    found = error(400, {"error": "model is loading"})
    assert isinstance(found, UpstreamRejected)
    assert found.payload == b'{"error":"model is loading"}'


@pytest.mark.parametrize(
    ("tree", "told"),
    [
        (
            {"object": "error", "message": "too long", "type": "BadRequestError", "param": None, "code": 400},
            {"message": "too long", "type": "BadRequestError", "param": None, "code": 400},
        ),
        (
            {"error": None, "message": "too long", "code": 7},
            {"message": "too long", "type": None, "param": None, "code": 7},
        ),
        ([{"error": {"code": 400, "message": "too long"}}], {"code": 400, "message": "too long"}),
        ({"detail": "too long"}, {"message": "too long", "type": None, "param": None, "code": None}),
        (
            {"detail": [{"loc": ["body"], "msg": "too long"}]},
            {"message": '[{"loc":["body"],"msg":"too long"}]', "type": None, "param": None, "code": None},
        ),
    ],
    ids=["flat", "flat beside none", "in a list", "detail", "details"],
)
def test_an_error_in_another_form_keeps_its_words(tree: object, told: dict[str, object]) -> None:
    found = error(400, tree)
    assert isinstance(found, UpstreamRejected)
    assert found.payload is not None
    assert orjson.loads(found.payload) == {"error": told}


def test_an_error_in_another_form_tells_no_key_and_no_depth() -> None:
    found = error(400, {"message": f"bad key {SECRET}"})
    assert isinstance(found, UpstreamRejected)
    assert found.payload is not None
    assert SECRET.encode() not in found.payload
    deep = error_of(400, b'{"detail":' + b"[" * 400 + b"]" * 400 + b"}", (), "up", (), ours=True)
    assert isinstance(deep, UpstreamRejected)
    assert deep.payload is None
    listed = error_of(400, b'[{"error":{"x":' + b"[" * 400 + b"]" * 400 + b"}}]", (), "up", (), ours=True)
    assert isinstance(listed, UpstreamRejected)
    assert listed.payload == TOO_DEEP


@pytest.mark.parametrize("escaped", [SECRET, SECRET.replace("/", "\\/"), SECRET.replace("+", "\\u002b")])
def test_the_upstreams_key_is_taken_out_however_json_spells_it(escaped: str) -> None:
    body = b'{"error":{"message":"bad key ' + escaped.encode() + b', get another"}}'
    assert orjson.loads(body)["error"]["message"].startswith(f"bad key {SECRET},")
    found = error_of(400, body, (), "up", [SECRET], ours=True)
    assert isinstance(found, UpstreamRejected)
    assert SECRET not in found.message
    if found.payload is not None:
        assert SECRET not in str(orjson.loads(found.payload))


def test_a_401_is_the_gateways_own_trouble_unless_the_credentials_were_the_callers() -> None:
    ours = error_of(401, b'{"error":{"message":"x"}}', (), "up", (), ours=True)
    theirs = error_of(401, b'{"error":{"message":"x"}}', (), "up", (), ours=False)
    assert isinstance(ours, UpstreamRefused)
    assert "api_key" in ours.message
    assert isinstance(theirs, UpstreamRejected)
    assert theirs.payload == b'{"error":{"message":"x"}}'


@pytest.mark.parametrize("status", [429, 500, 503, 504])
def test_when_to_come_again_is_kept(status: int) -> None:
    assert error(status, described(), retry_after="2").retry_after_ms == 2000
    assert error(status, described(), retry_after="later").retry_after_ms is None


def test_google_says_in_the_body_when_to_come_again_and_what_is_spent() -> None:
    details = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.5s"}]
    told = error(429, described(code=429, details=details))
    assert isinstance(told, UpstreamRejected)
    assert (told.retry_after_ms, told.elsewhere) == (30000, False)
    assert error(429, described(code=429, details=details), retry_after="2").retry_after_ms == 2000
    for period, spent in (("PerDay", True), ("PerMinute", False)):
        quota = {
            "@type": "type.googleapis.com/google.rpc.QuotaFailure",
            "violations": [{"quotaId": f"Requests{period}"}],
        }
        told = error(429, described(code=429, details=[quota]))
        assert isinstance(told, UpstreamRejected)
        assert told.elsewhere is spent


@pytest.mark.parametrize(
    ("found", "same", "other", "unrepeatable"),
    [
        (error(429, described()), True, True, True),
        (error(408), True, True, False),
        (error(409), True, True, False),
        (error(425), True, True, False),
        (error(500), True, True, False),
        (error(503), True, True, False),
        (error(504), False, True, False),
        (error(429, described(code="insufficient_quota")), False, True, True),
        (error(429, described(type="billing_hard_limit_reached")), False, True, True),
        (error(403, described(code="insufficient_quota")), False, False, False),
        (error(401), False, True, True),
        (error(400, described()), False, False, False),
        (error(404), False, False, False),
        (UpstreamUnreachable("x"), True, True, True),
        (UpstreamReset("x"), True, True, False),
        (UpstreamInvalid("x"), True, True, False),
        (UpstreamTimeout("x"), False, True, False),
        (UpstreamBroken("x"), False, False, False),
    ],
)
def test_what_may_be_tried_again_and_where(found: UpstreamError, same: bool, other: bool, unrepeatable: bool) -> None:
    generation, upload = call(), call(repeatable=False)
    assert (again(found, generation), elsewhere(found, generation)) == (same, other)
    assert elsewhere(found, upload) is unrepeatable
    assert again(found, upload) is (same and unrepeatable)


@pytest.mark.parametrize(
    ("found", "how"),
    [
        (None, GOOD),
        (error(400, described()), GOOD),
        (error(404), GOOD),
        (error(409), GOOD),
        (error(408), BAD),
        (error(429, described()), BAD),
        (error(429, described(), retry_after="2"), NEITHER),
        (error(429, described(code="insufficient_quota"), retry_after="2"), BAD),
        (error(401), BAD),
        (error(500), BAD),
        (error(503, retry_after="2"), BAD),
        (error(504), BAD),
        (UpstreamUnreachable("x"), BAD),
        (UpstreamReset("x"), BAD),
        (UpstreamInvalid("x"), BAD),
        (UpstreamTimeout("x"), BAD),
        (UpstreamBroken("x"), BAD),
        (CallerGone("x"), NEITHER),
        (Draining("x"), NEITHER),
    ],
)
def test_what_an_end_says_of_the_target(found: GatewayError | None, how: int) -> None:
    assert verdict(found) == how


@pytest.mark.parametrize(
    ("tree", "status"),
    [
        (described(code=429), 429),
        (described(code=503), 503),
        (described(type="overloaded_error"), 503),
        (described(type="invalid_request_error"), 400),
        (described(code="rate_limit_exceeded", type="requests"), 429),
        (described(code="insufficient_quota"), 429),
        (described(code=200), 502),
        (described(code=700), 502),
        (described(type="unheard_of"), 502),
        ({"error": "text"}, 502),
    ],
)
def test_a_stream_that_begins_with_an_error_gets_the_status_it_should_have_had(tree: object, status: int) -> None:
    assert error_of_event(orjson.dumps(tree), "up", [SECRET], ours=True).status == status


def test_a_stream_that_begins_with_an_error_nobody_can_read_is_invalid() -> None:
    assert isinstance(error_of_event(b'{"type":"error"}', "up", (), ours=True), UpstreamInvalid)
    assert isinstance(error_of_event(b"oops", "up", (), ours=True), UpstreamInvalid)


async def test_the_body_of_a_refusal_is_read_and_the_reply_closed() -> None:
    reply = Answered(b'{"error":', b'{"message":"m"}}', status=400)
    found = await refused(reply, "up", (), ours=True)
    assert isinstance(found, UpstreamRejected)
    assert found.payload == b'{"error":{"message":"m"}}'
    assert reply.closed


async def test_a_refusal_that_breaks_off_still_has_its_status() -> None:
    reply = Answered(b'{"error":', UpstreamBroken("cut"), status=429, headers=[("retry-after", "3")])
    found = await refused(reply, "up", (), ours=True)
    assert isinstance(found, UpstreamRejected)
    assert (found.status, found.payload, found.retry_after_ms) == (429, None, 3000)
    assert reply.closed


async def test_an_endless_refusal_is_read_to_a_bound() -> None:
    portions = [b'{"error":{"message":"'] + [b"x" * 32768] * 100
    reply = Answered(*portions, status=400)
    found = await refused(reply, "up", (), ours=True)
    assert isinstance(found, UpstreamRejected)
    assert found.payload is None
    assert len(reply.progress) <= MAX_ERROR_BYTES // 32768 + 2
    assert reply.closed


@pytest.mark.parametrize("depth", [300, 1000])
def test_an_error_that_is_nested_deeper_than_can_be_written_is_none_of_ours(depth: int) -> None:
    body = b'{"error":{"message":"sk-0123456789","x":' + b"[" * depth + b"]" * depth + b"}}"
    error = error_of(400, body, [], "up", ["sk-0123456789"], ours=True)
    assert isinstance(error, UpstreamRejected)
    assert error.status == 400
    assert error.payload is not None
    assert b"nested too deeply" in error.payload
    assert b"sk-" not in error.payload
