"""Streams of Messages and Responses by either lane: their ends, their errors, what the log says of them."""

from collections.abc import Callable, Iterator

import orjson
import pytest

from tests.e2e.lane_cases import ANTHROPIC_EVENTS, RESPONSE, RESPONSE_EVENTS
from tests.e2e.lane_ends import FAILED, INCOMPLETE, OVERLOADED, SICK
from tests.support.behaviours import answer, event, stream
from tests.support.client import Reply
from tests.support.gateway import ADMIN_KEY, APP_KEY, UPSTREAM_KEY, Gateway, configuration, provider
from tests.support.upstream import Behaviour, Upstream

PING = ANTHROPIC_EVENTS[2]
STRANGER = "agw-not-a-known-key-5d20c7"
CACHED = event(
    {
        "type": "message_start",
        "message": {"usage": {"input_tokens": 4, "cache_read_input_tokens": 90, "cache_creation_input_tokens": 6}},
    },
    "message_start",
)


@pytest.fixture(scope="module", params=["auto", "full"])
def shared_gateway(shared_upstream: Upstream, request: pytest.FixtureRequest) -> Iterator[Gateway]:
    url = shared_upstream.url
    claude = provider(url, "claude", dialect="anthropic", models=["claude-*"])
    claude["base_url"] = url
    settings = {"port": 0, "drain_seconds": 1, "lane": request.param}
    seconds = {"connect": "300ms", "first_byte": "400ms", "between_bytes": "400ms", "total": "20s"}
    with Gateway(configuration(provider(url), claude, server=settings, timeouts=seconds)) as running:
        yield running


def message(gateway: Gateway, upstream: Upstream, behaviour: Behaviour) -> Reply:
    upstream.script(behaviour)
    return gateway.post("/v1/messages", {"model": "claude-small", "max_tokens": 9, "messages": [], "stream": True})


def response(gateway: Gateway, upstream: Upstream, behaviour: Behaviour, path: str = "/v1/responses") -> Reply:
    upstream.script(behaviour)
    return gateway.post(path, {"model": "gpt-4o", "input": "x", "stream": True})


def last_event(reply: Reply) -> dict[str, object]:
    """The data of the error event that ends a broken stream."""
    assert not reply.complete
    start, marker, data = reply.body.rpartition(b"event: error\ndata: ")
    assert marker, reply.body
    assert data.endswith(b"\n\n")
    assert start.endswith(b"\n\n")
    tree: dict[str, object] = orjson.loads(data)
    return tree


def test_a_whole_message_is_relayed_untouched_and_counted(gateway: Gateway, upstream: Upstream) -> None:
    reply = message(gateway, upstream, stream(ANTHROPIC_EVENTS, split=17))
    assert reply.complete
    assert reply.body == b"".join(ANTHROPIC_EVENTS)
    receipt = gateway.receipt(reply.request_id)
    told = [receipt[name] for name in ("endpoint", "outcome", "prompt_tokens", "completion_tokens", "finish_reason")]
    assert told == ["messages", "ok", 11, 7, "end_turn"]


@pytest.mark.parametrize("ask", [message, response], ids=["messages", "responses"])
def test_they_are_operations_of_the_genai_metrics(
    gateway: Gateway, upstream: Upstream, ask: Callable[[Gateway, Upstream, Behaviour], Reply]
) -> None:
    before = chats(gateway)
    assert ask(gateway, upstream, stream(ANTHROPIC_EVENTS if ask is message else RESPONSE_EVENTS)).complete
    gateway.until(lambda: chats(gateway) == before + 1, "it is not counted")


def chats(gateway: Gateway) -> int:
    """Operations of the kind ``chat`` so far."""
    found = gateway.get("/metrics", key=ADMIN_KEY).json.get("gen_ai_client_operation_duration_seconds", [])
    assert isinstance(found, list)
    return sum(entry["count"] for entry in found if entry["labels"]["gen_ai_operation_name"] == "chat")


def test_what_a_cache_gave_belongs_to_the_prompt(gateway: Gateway, upstream: Upstream) -> None:
    reply = message(gateway, upstream, stream([CACHED, *ANTHROPIC_EVENTS[1:]]))
    receipt = gateway.receipt(reply.request_id)
    assert (receipt["prompt_tokens"], receipt["cached_tokens"], receipt["completion_tokens"]) == (100, 90, 7)


@pytest.mark.parametrize("kept", [1, 4, 6])
def test_a_message_without_its_stop_ends_in_anthropics_own_error(
    gateway: Gateway, upstream: Upstream, kept: int
) -> None:
    reply = message(gateway, upstream, stream(ANTHROPIC_EVENTS[:kept]))
    assert reply.body.startswith(b"".join(ANTHROPIC_EVENTS[:kept]))
    told = last_event(reply)
    assert told["type"] == "error"
    assert isinstance(told["error"], dict)
    assert told["error"]["type"] == "api_error"
    assert told["request_id"] == reply.request_id
    assert gateway.receipt(reply.request_id)["outcome"] == "upstream_broken"


@pytest.mark.parametrize("kept", [1, 2])
def test_a_response_without_its_end_ends_in_an_error(gateway: Gateway, upstream: Upstream, kept: int) -> None:
    reply = response(gateway, upstream, stream(RESPONSE_EVENTS[:kept]))
    assert reply.body.startswith(b"".join(RESPONSE_EVENTS[:kept]))
    told = last_event(reply)
    assert isinstance(told["error"], dict)
    assert told["error"]["code"] == "upstream_stream_broken"
    assert gateway.receipt(reply.request_id)["outcome"] == "upstream_broken"


@pytest.mark.parametrize(
    ("end", "outcome", "reason"), [(FAILED, "upstream_failed", "failed"), (INCOMPLETE, "ok", "incomplete")]
)
def test_a_failed_or_incomplete_response_is_whole(
    gateway: Gateway, upstream: Upstream, end: bytes, outcome: str, reason: str
) -> None:
    events = [*RESPONSE_EVENTS[:2], end]
    reply = response(gateway, upstream, stream(events, pace_ms=5))
    assert reply.complete
    assert reply.body == b"".join(events)
    receipt = gateway.receipt(reply.request_id)
    assert (receipt["outcome"], receipt["status"], receipt["finish_reason"]) == (outcome, 200, reason)


def test_the_usage_of_a_response_is_in_its_end_or_in_the_document(gateway: Gateway, upstream: Upstream) -> None:
    reply = response(gateway, upstream, stream(RESPONSE_EVENTS))
    receipt = gateway.receipt(reply.request_id)
    assert (receipt["endpoint"], receipt["prompt_tokens"], receipt["completion_tokens"]) == ("responses", 11, 7)
    reply = response(gateway, upstream, answer({**RESPONSE, "status": "completed"}))
    receipt = gateway.receipt(reply.request_id)
    assert (receipt["prompt_tokens"], receipt["finish_reason"]) == (11, "completed")


def test_an_error_within_is_passed_on_by_name_and_without_our_key(gateway: Gateway, upstream: Upstream) -> None:
    reply = message(gateway, upstream, stream([*ANTHROPIC_EVENTS[:4], OVERLOADED, ANTHROPIC_EVENTS[-1]], pace_ms=5))
    told = last_event(reply)
    assert isinstance(told["error"], dict)
    assert told["error"]["type"] == "overloaded_error"
    assert UPSTREAM_KEY.encode() not in reply.body
    reply = response(gateway, upstream, stream([*RESPONSE_EVENTS[:2], SICK, RESPONSE_EVENTS[-1]], pace_ms=5))
    assert last_event(reply)["code"] == "server_error"
    assert gateway.receipt(reply.request_id)["outcome"] == "upstream_broken"


def test_pings_do_not_keep_a_stalled_message_alive(gateway: Gateway, upstream: Upstream) -> None:
    reply = message(gateway, upstream, stream([*ANTHROPIC_EVENTS[:2], *[PING] * 1000], pace_ms=50))
    assert last_event(reply)["type"] == "error"
    assert gateway.receipt(reply.request_id)["outcome"] == "upstream_timeout"
    assert reply.body.count(PING) < 100
    upstream.wait_gone(upstream.last)


def test_a_stream_of_no_known_form_may_end_as_it_likes(gateway: Gateway, upstream: Upstream) -> None:
    for events in (RESPONSE_EVENTS[:2], ANTHROPIC_EVENTS[:3], [*RESPONSE_EVENTS, RESPONSE_EVENTS[1]]):
        reply = response(gateway, upstream, stream(events, pace_ms=5), "/v1/images/generations")
        assert reply.complete
        assert reply.body == b"".join(events)
        assert gateway.receipt(reply.request_id)["outcome"] == "ok"


def test_a_client_that_leaves_behind_the_last_event_has_got_everything(gateway: Gateway, upstream: Upstream) -> None:
    upstream.script(stream(ANTHROPIC_EVENTS, ending="hang"))
    with gateway.connect() as connection:
        body = {"model": "claude-small", "max_tokens": 9, "messages": [], "stream": True}
        connection.send("POST", "/v1/messages", body, gateway.headers())
        reply, seen = connection.head(), b""
        pieces = connection.pieces(reply)
        while ANTHROPIC_EVENTS[-1] not in seen:
            seen += next(pieces)
    upstream.wait_gone(upstream.last)
    receipt = gateway.receipt(reply.request_id)
    assert (receipt["outcome"], receipt["completion_tokens"]) == ("ok", 7)


def test_refusals_on_messages_have_anthropics_form(gateway: Gateway) -> None:
    reply = gateway.post("/v1/messages", {"model": "no-such"}, key=None)
    assert (reply.status, reply.json["type"], reply.error["type"]) == (401, "error", "authentication_error")
    assert reply.json["request_id"] == reply.value("request-id") == reply.request_id


COUNT = "/v1/messages/count_tokens"


@pytest.mark.parametrize(
    ("path", "body", "key", "status", "kind"),
    [
        (COUNT, {"model": "claude-small", "messages": []}, STRANGER, 401, "authentication_error"),
        (COUNT, b"{", APP_KEY, 400, "invalid_request_error"),
        (COUNT, {"model": "nowhere-1", "messages": []}, APP_KEY, 404, "not_found_error"),
        ("/v1/messages/batches", {"requests": []}, STRANGER, 401, "authentication_error"),
    ],
    ids=["key", "json", "model", "batches"],
)
def test_what_lies_below_messages_is_refused_in_anthropics_form(
    gateway: Gateway, upstream: Upstream, path: str, body: object, key: str, status: int, kind: str
) -> None:
    reply = gateway.post(path, body, key=key, headers={"Content-Type": "application/json"})
    assert (reply.status, reply.json["type"], reply.error["type"]) == (status, "error", kind)
    assert reply.json["request_id"] == reply.value("request-id") == reply.request_id
    assert upstream.requests == []


def test_counting_tokens_is_relayed_to_the_models_upstream(gateway: Gateway, upstream: Upstream) -> None:
    upstream.script(answer({"input_tokens": 9}))
    reply = gateway.post(f"{COUNT}?beta=true", {"model": "claude/claude-small", "messages": []})
    assert (reply.status, reply.json) == (200, {"input_tokens": 9})
    assert (upstream.last.target, upstream.last.json["model"]) == (
        "/v1/messages/count_tokens?beta=true",
        "claude-small",
    )
    assert gateway.receipt(reply.request_id)["endpoint"] == "messages_below_post"
