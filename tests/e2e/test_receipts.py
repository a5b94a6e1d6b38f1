"""Every exchange, whatever happened to either side, ends in exactly one canonical log line."""

import itertools
from collections.abc import Iterator

import msgspec
import pytest

from agw_proxy.types import Receipt
from tests.support.behaviours import failure, html_502, limited, raw, silence, stream
from tests.support.fake_openai import words
from tests.support.gateway import APP_KEY, UPSTREAM_KEY, Gateway, Tree, chat_body, configuration, provider
from tests.support.upstream import Behaviour, Upstream

LIMITED_KEY = "agw-bench-once-8e2b5d17c3f0496a"
TRACE_PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
CANARY = "canary-in-the-prompt-71c2"
_numbers = itertools.count()


@pytest.fixture(scope="module")
def shared_gateway(shared_upstream: Upstream) -> Iterator[Gateway]:
    config = configuration(provider(shared_upstream.url))
    once = [{"per": "key", "requests": 1, "period": "1h"}]
    config["keys"].append({"name": "once", "key": LIMITED_KEY, "limits": once})
    with Gateway(config) as running:
        yield running


def test_a_plain_answer_is_accounted_in_full(gateway: Gateway) -> None:
    line = gateway.receipt(gateway.chat(user="ann", headers={"x-channel-id": "web"}).request_id)
    assert line["status"] == 200
    assert line["outcome"] == "ok"
    assert (line["key"], line["user"], line["channel"]) == ("app", "ann", "web")
    assert (line["model"], line["upstream"], line["attempts"]) == ("gpt-4o-mini", "fake", 1)
    assert (line["prompt_tokens"], line["completion_tokens"]) == (11, 7)
    assert line["lane"] in {"full", "fast"}
    assert line["duration_ms"] > 0
    assert line["overhead_us"] > 0


def test_a_stream_is_accounted_with_its_timing_and_its_tokens(gateway: Gateway) -> None:
    line = gateway.receipt(gateway.chat(stream=True).request_id)
    assert (line["status"], line["outcome"], line["stream"]) == (200, "ok", True)
    assert (line["prompt_tokens"], line["completion_tokens"]) == (11, 7)
    assert line["finish_reason"] == "stop"
    assert 0 < line["ttft_ms"] <= line["duration_ms"]


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(
    ("user", "channel"),
    [("ann", "web"), ("ann", 'a "b" \\ c'), ("Zoë", "/~"), ("\x7f", "a" * 256), ("u" * 1000, "web")],
    ids=["plain", "quoted", "not-ascii", "delete", "long"],
)
def test_a_line_of_the_fast_lane_is_the_one_that_the_log_makes_of_its_receipt(
    gateway: Gateway, user: str, channel: str, streamed: bool
) -> None:
    reply = gateway.chat(user=user, stream=streamed, headers={"x-channel-id": channel, "traceparent": TRACE_PARENT})
    told = gateway.receipt(reply.request_id)
    [line] = [line for line in gateway.output.split("\n") if f'"{reply.request_id}"' in line]
    assert (told["user"], told["channel"], told["trace_id"]) == (user, channel, TRACE_PARENT[3:35])
    assert told["lane"] == "fast"
    assert msgspec.json.encode(msgspec.json.decode(line, type=Receipt)) == line.encode()


@pytest.mark.parametrize(
    ("body", "key", "status", "outcome"),
    [
        (chat_body(), None, 401, "caller_key_missing"),
        (chat_body(), "agw-not-a-known-key-5d20c7", 401, "caller_key_invalid"),
        (chat_body(model="no-such-model"), APP_KEY, 404, "caller_model_not_found"),
        (b"{", APP_KEY, 400, "caller_invalid_json"),
        ({"messages": []}, APP_KEY, 400, "caller_missing_parameter"),
    ],
    ids=["no-key", "wrong-key", "unknown-model", "bad-json", "no-model"],
)
def test_a_refused_request_has_its_line(
    gateway: Gateway, body: object, key: str | None, status: int, outcome: str
) -> None:
    reply = gateway.post("/v1/chat/completions", body, key=key)
    line = gateway.receipt(reply.request_id)
    assert (reply.status, line["status"], line["outcome"]) == (status, status, outcome)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/v1/no-such-endpoint", 404), ("GET", "/v1/chat/completions", 405), ("GET", "/v1/models", 200)],
)
def test_local_answers_have_their_line(gateway: Gateway, method: str, path: str, status: int) -> None:
    reply = gateway.get(path)
    assert gateway.receipt(reply.request_id)["status"] == reply.status == status


def test_a_limited_request_names_its_rule(gateway: Gateway) -> None:
    assert gateway.chat(key=LIMITED_KEY).status == 200
    line = gateway.receipt(gateway.chat(key=LIMITED_KEY).request_id)
    assert (line["status"], line["outcome"]) == (429, "policy_rate_limited")
    assert "once" in line["rule"]


@pytest.mark.parametrize(
    ("behaviour", "status", "attempts"),
    [
        (failure(500), 502, 3),
        (html_502(), None, 3),
        (limited(()), 429, 3),
        (raw(b""), 502, 3),
        (silence(), 504, 1),  # what took too long once is being generated already
    ],
    ids=["500", "html", "429", "fin", "silence"],
)
def test_a_failing_upstream_has_one_line_for_all_attempts(
    gateway: Gateway, upstream: Upstream, behaviour: Behaviour, status: int | None, attempts: int
) -> None:
    upstream.default = behaviour
    reply = gateway.chat()
    line = gateway.receipt(reply.request_id)
    assert line["status"] == reply.status
    assert status is None or reply.status == status
    assert line["attempts"] == len(upstream.requests) == attempts
    assert line["outcome"] != "ok"


@pytest.mark.parametrize("ending", ["fin", "rst", "hang", "clean"])
def test_a_broken_stream_has_one_line_that_says_so(gateway: Gateway, upstream: Upstream, ending: str) -> None:
    endings: dict[str, Behaviour] = {
        "fin": stream(words()[:3], ending="fin"),
        "rst": stream(words()[:3], ending="rst"),
        "hang": stream(words()[:3], ending="hang"),
        "clean": stream(words()[:3]),
    }
    upstream.script(endings[ending])
    line = gateway.receipt(gateway.chat(stream=True).request_id)
    assert line["status"] == 200
    assert line["outcome"].startswith("upstream_")


@pytest.mark.parametrize("phase", ["waiting", "streaming", "plain"])
def test_a_client_that_left_has_one_line(gateway: Gateway, upstream: Upstream, phase: str) -> None:
    upstream.default = stream(words() * 1000, pace_ms=20) if phase == "streaming" else silence()
    line = gateway.receipt(_leave(gateway, upstream, phase))
    assert line["outcome"] == "caller_gone"
    assert line["status"] == (200 if phase == "streaming" else 499)


def _leave(gateway: Gateway, upstream: Upstream, phase: str) -> str:
    identity = f"left-{next(_numbers)}"
    headers = gateway.headers(more={"x-request-id": identity})
    with gateway.connect() as connection:
        connection.send("POST", "/v1/chat/completions", chat_body(stream=phase != "plain"), headers)
        upstream.wait()
        if phase == "streaming":
            next(connection.pieces(connection.head()))
    return identity


def test_a_client_that_leaves_after_the_terminator_is_not_gone(gateway: Gateway) -> None:
    with gateway.connect() as connection:
        connection.send("POST", "/v1/chat/completions", chat_body(stream=True), gateway.headers())
        reply = connection.head()
        seen = b""
        for piece in connection.pieces(reply):
            seen += piece
            if b"[DONE]" in seen:
                break
    assert gateway.receipt(reply.request_id)["outcome"] == "ok"


def test_several_exchanges_on_one_connection_have_a_line_each(gateway: Gateway) -> None:
    with gateway.connect() as connection:
        ids = []
        for number in range(3):
            connection.send("POST", "/v1/chat/completions", chat_body(stream=number == 1), gateway.headers())
            ids.append(connection.reply().request_id)
    assert [gateway.receipt(identity)["status"] for identity in ids] == [200] * 3


def test_no_line_holds_a_key_or_a_prompt(gateway: Gateway, upstream: Upstream) -> None:
    upstream.script(failure(500, f"bad key {UPSTREAM_KEY}"))
    messages = [{"role": "user", "content": CANARY}]
    gateway.receipt(gateway.chat(messages=messages).request_id)
    gateway.receipt(gateway.chat(messages=messages, key="agw-stranger-with-a-key-01").request_id)
    lines: list[Tree] = gateway.logs()
    assert lines
    for secret in (APP_KEY, UPSTREAM_KEY, LIMITED_KEY, CANARY, "agw-stranger-with-a-key-01"):
        assert secret not in gateway.output
