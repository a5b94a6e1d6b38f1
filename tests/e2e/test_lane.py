"""Which lane requests take, and that the promises of the design hold on the fast one, however an exchange ends."""

import contextlib
import signal
import socket
import time
from collections.abc import Iterator

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.lane_cases import ANTHROPIC, ANTHROPIC_EVENTS
from tests.support.behaviours import DONE, answer, failure, raw, reset, silence, stream
from tests.support.fake_openai import ANSWER, called, completion, spoken, tool_call, words
from tests.support.gateway import ADMIN_KEY, APP_KEY, Gateway, Tree, chat_body, configuration, provider
from tests.support.upstream import Behaviour, Upstream, unreachable

GATE_KEY = "agw-lane-gate-27c0d5e81f9b4a63"
ONCE_KEY = "agw-lane-once-27c0d5e81f9b4a63"
NARROW_KEY = "agw-lane-narrow-27c0d5e81f9b4a63"
HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Say hello"}]
TOOL: ChatCompletionToolParam = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
MILLION = 1 << 20

Lanes = dict[tuple[str, str], float]


def policy(upstream: Upstream, *more: Tree) -> Tree:
    claude = {**provider(upstream.url, "claude", dialect="anthropic", models=["claude-*"]), "base_url": upstream.url}
    own = provider(upstream.url, "own", auth="passthrough", models=["own-*"])
    own.pop("api_key")
    config = configuration(provider(upstream.url), claude, own, *more)
    config["keys"] += [
        {"name": "gate", "key": GATE_KEY, "limits": [{"per": "key", "concurrent": 1}]},
        {"name": "once", "key": ONCE_KEY, "limits": [{"per": "key", "requests": 1, "period": "24h"}]},
        {"name": "narrow", "key": NARROW_KEY, "models": ["gpt-4o"]},
    ]
    return config


@pytest.fixture(scope="module")
def shared_gateway(shared_upstream: Upstream) -> Iterator[Gateway]:
    with unreachable() as nowhere, hanging() as stuck:
        dead = provider(nowhere, "dead", models=["dead-*"], retries={"attempts": 1})
        slow = provider(stuck, "slow", models=["slow-*"], timeouts={"connect": "10s"}, retries={"attempts": 1})
        with Gateway(policy(shared_upstream, dead, slow)) as running:
            yield running


@contextlib.contextmanager
def hanging() -> Iterator[str]:
    """The URL of a port that neither accepts nor refuses: its queue is full."""
    with contextlib.ExitStack() as open_sockets:
        listener = open_sockets.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(3):
            filler = open_sockets.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def lanes(gateway: Gateway) -> Lanes:
    """``agw_lane_total`` as it stands."""
    reply = gateway.get("/metrics/prometheus", key=ADMIN_KEY)
    assert reply.status == 200
    families = text_string_to_metric_families(reply.body.decode())
    samples = [sample for family in families for sample in family.samples if sample.name == "agw_lane_total"]
    return {(sample.labels["lane"], sample.labels["reason"]): sample.value for sample in samples}


def moved(gateway: Gateway, before: Lanes) -> Lanes:
    """How far each has gone; looking at the metrics is itself an exchange on the full lane, which is taken off."""
    after = lanes(gateway)
    after["full", "endpoint"] -= 1
    return {pair: count - before.get(pair, 0) for pair, count in after.items() if count != before.get(pair, 0)}


# -- which lane


def test_what_the_openai_sdk_sends_takes_the_fast_lane(gateway: Gateway, upstream: Upstream) -> None:
    before = lanes(gateway)
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=APP_KEY, max_retries=0, timeout=10) as client:
        for _ in range(10):
            assert client.chat.completions.create(model="gpt-4o", messages=HELLO).choices[0].message.content == ANSWER
            with client.chat.completions.create(model="gpt-4o", messages=HELLO, stream=True) as chunks:
                assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == ANSWER
        upstream.script(answer(completion(None, calls=[tool_call("f", "{}")])), stream(called("f", ["{", "}"])))
        plain = client.chat.completions.create(model="gpt-4o", messages=HELLO, tools=[TOOL])
        assert plain.choices[0].finish_reason == "tool_calls"
        with client.chat.completions.stream(model="gpt-4o", messages=HELLO, tools=[TOOL]) as events:
            assert events.get_final_completion().choices[0].finish_reason == "tool_calls"
        assert client.embeddings.create(model="text-embedding-3-small", input="x").data
        assert client.moderations.create(model="omni-moderation-latest", input="x").results
        assert client.completions.create(model="gpt-4o", prompt="x").choices[0].text == ANSWER
    assert moved(gateway, before) == {("fast", "taken"): 25}


async def test_what_the_async_sdk_sends_takes_the_fast_lane(gateway: Gateway) -> None:
    before = lanes(gateway)
    async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=APP_KEY, max_retries=0) as client:
        for _ in range(5):
            reply = await client.chat.completions.create(model="gpt-4o", messages=HELLO)
            assert reply.choices[0].message.content == ANSWER
            chunks = await client.chat.completions.create(
                model="gpt-4o", messages=HELLO, stream=True, stream_options={"include_usage": True}
            )
            assert [chunk.usage.total_tokens async for chunk in chunks if chunk.usage] == [18]
    assert moved(gateway, before) == {("fast", "taken"): 10}


def test_anthropic_traffic_takes_the_fast_lane_with_gzip_offered(gateway: Gateway, upstream: Upstream) -> None:
    before = lanes(gateway)
    more = {"x-api-key": APP_KEY, "anthropic-version": "2023-06-01", "accept-encoding": "gzip, deflate, br, zstd"}
    body = {"model": "claude-small", "max_tokens": 64, "messages": HELLO}
    for number in range(10):
        streamed = number % 2 == 1
        upstream.script(stream(ANTHROPIC_EVENTS) if streamed else answer(ANTHROPIC))
        reply = gateway.post("/v1/messages?beta=true", {**body, "stream": streamed}, key=None, headers=more)
        assert (reply.status, reply.complete) == (200, True)
        assert upstream.last.values("accept-encoding") == ["identity"]
    assert moved(gateway, before) == {("fast", "taken"): 10}


@pytest.mark.parametrize(
    ("reason", "status", "request_"),
    [
        ("body_type", 415, {"headers": {"content-type": "text/plain"}}),
        ("json", 400, {"body": b"{"}),
        ("escaped", 200, {"body": b'{"model":"gpt\\u002d4o","messages":[]}'}),
        ("key", 401, {"key": None}),
        ("no_route", 404, {"body": chat_body(model="no-such")}),
        ("no_model", 400, {"body": {"messages": []}}),
        ("model_name", 400, {"body": chat_body(model="a\x7f")}),
        ("model_forbidden", 403, {"key": NARROW_KEY}),
        ("in_process", 200, {"body": chat_body(model="agw/echo")}),
        ("own_credentials", 200, {"body": chat_body(model="own-1"), "headers": {"x-agw-key": APP_KEY}}),
        ("dialect", 400, {"body": chat_body(model="claude-small", n=2)}),
        ("body_size", 200, {"body": chat_body(messages=[{"role": "user", "content": "x" * MILLION}])}),
        ("no_body", 400, {"body": b""}),
        ("continue_expected", 200, {"headers": {"expect": "100-continue"}}),
        ("connection_option", 200, {"headers": {"connection": "keep-alive, x-hop"}}),
        ("upgrade_offered", 200, {"headers": {"upgrade": "h2c", "connection": "upgrade"}}),
        ("trailers_offered", 200, {"headers": {"te": "trailers"}}),
        ("upstream_failed", 502, {"body": chat_body(model="dead-1")}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_reason_for_the_full_lane_is_counted(gateway: Gateway, reason: str, status: int, request_: Tree) -> None:
    before = lanes(gateway)
    sent = {"body": chat_body(), **request_}
    reply = gateway.post("/v1/chat/completions", sent.pop("body"), **sent)
    assert reply.status == status
    assert gateway.receipt(reply.request_id)["lane_reason"] == reason
    found = moved(gateway, before)
    assert found.pop(("full", reason)) == 1
    assert set(found) <= {("full", "endpoint"), ("fast", "prompt")}, "the look-ups of this test"


@pytest.mark.parametrize(
    ("reason", "status", "head"),
    [
        ("http_1_0", 200, "POST /v1/chat/completions HTTP/1.0\r\nHost: x\r\n"),
        ("absolute_form", 200, "POST http://x/v1/chat/completions HTTP/1.1\r\nHost: x\r\n"),
        ("chunked_body", 200, "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"),
        ("endpoint", 404, "POST /v1/Chat/completions HTTP/1.1\r\nHost: x\r\n"),
        ("endpoint", 404, "POST /v1/chat/completions/ HTTP/1.1\r\nHost: x\r\n"),
        ("bare_lf", 400, "POST /v1/chat/completions HTTP/1.1\r\nHost: x\n"),
    ],
)
def test_a_head_in_another_form_has_its_reason(gateway: Gateway, reason: str, status: int, head: str) -> None:
    body = b'{"model":"gpt-4o","messages":[]}'
    chunked = "chunked" in head
    head += f"Authorization: Bearer {APP_KEY}\r\nContent-Type: application/json\r\n"
    head += "\r\n" if chunked else f"Content-Length: {len(body)}\r\n\r\n"
    if chunked:
        body = b"%x;ext=1\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    with gateway.connect() as connection:
        connection.socket.sendall(head.encode() + body)
        reply = connection.reply()
    assert reply.status == status
    assert gateway.receipt(reply.request_id)["lane_reason"] == reason


def test_a_limit_that_says_no_is_told_by_the_fast_lane(gateway: Gateway) -> None:
    replies = [gateway.chat(key=ONCE_KEY) for _ in range(2)]
    assert [reply.status for reply in replies] == [200, 429]
    found = [gateway.receipt(reply.request_id) for reply in replies]
    assert [(line["lane"], line.get("lane_reason")) for line in found] == [("fast", None), ("fast", "limited")]


def test_a_connection_changes_lanes_from_request_to_request(gateway: Gateway) -> None:
    paths = ["/v1/chat/completions", "/v1/models", "/v1/chat/completions", "/openapi.json", "/v1/chat/completions"]
    with gateway.connect() as connection:
        ids = []
        for path in paths:
            chat = path.endswith("completions")
            connection.send("POST" if chat else "GET", path, chat_body() if chat else None, gateway.headers())
            ids.append(connection.reply().request_id)
    assert [gateway.receipt(identity)["lane"] for identity in ids] == ["fast", "full", "fast", "full", "fast"]


# -- however it ends: one Receipt, the slot is back, the upstream is left alone

ENDINGS: dict[str, tuple[Behaviour | None, bool, str, str]] = {
    # behaviour, streamed, when the client goes ("": it stays), outcome
    "plain": (None, False, "", "ok"),
    "streamed": (None, True, "", "ok"),
    "gone-waiting": (silence(), False, "sent", "caller_gone"),
    "gone-holding-head": (raw(b"HTTP/1.1 200 OK\r\ncontent-ty", "hang"), True, "sent", "caller_gone"),
    "gone-holding-comment": (stream([b": wait\n\n"], ending="hang"), True, "sent", "caller_gone"),
    "gone-holding-error": (raw(b"HTTP/1.1 500 X\r\ncontent-length: 9\r\n\r\nx", "hang"), False, "sent", "caller_gone"),
    "gone-relaying": (stream(words()[:2], ending="hang"), True, "Hello", "caller_gone"),
    "gone-plain": (raw(b'HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{"a": 1', "hang"), False, '{"a"', "caller_gone"),
    "gone-in-tail": (stream(spoken(), ending="hang"), True, "[DONE]", "ok"),
    "reset": (reset(), False, "", "upstream_reset"),
    "refused": (failure(400), False, "", "upstream_rejected"),
    "silent": (silence(), False, "", "upstream_timeout"),
    "silent-within": (stream(words()[:2], ending="hang"), True, "", "upstream_timeout"),
    "cut": (stream(words()[:2], ending="rst"), True, "", "upstream_broken"),
    "unfinished": (stream(words()[:2]), True, "", "upstream_broken"),
}


WAYS = [(ending, leave) for ending, told in ENDINGS.items() for leave in (("fin", "rst") if told[2] else ("stay",))]


@pytest.mark.parametrize(("ending", "leave"), WAYS)
def test_every_exchange_ends_in_one_receipt_and_gives_its_slot_back(
    gateway: Gateway, upstream: Upstream, ending: str, leave: str
) -> None:
    behaviour, streamed, goes, outcome = ENDINGS[ending]
    if behaviour is not None:
        upstream.default = behaviour
    identity = f"lane-{ending}-{leave}"
    with gateway.connect() as connection:
        sent = gateway.headers(GATE_KEY, {"x-request-id": identity})
        connection.send("POST", "/v1/chat/completions", chat_body(stream=streamed), sent)
        seen = upstream.wait()[0]
        if goes:
            if goes != "sent":
                reply, body = connection.head(), b""
                for piece in connection.pieces(reply):
                    body += piece
                    if goes.encode() in body:
                        break
            (connection.reset if leave == "rst" else connection.close)()
            upstream.wait_gone(seen)
        else:
            connection.reply()
    assert gateway.receipts(identity)[0]["outcome"] == outcome
    upstream.reset()
    gateway.until(lambda: gateway.chat(key=GATE_KEY).status == 200, "the slot was not given back")
    assert gateway.receipt(identity)["outcome"] == outcome


def test_a_client_that_goes_while_the_upstream_is_dialed_has_its_receipt(gateway: Gateway) -> None:
    sent = gateway.headers(GATE_KEY, {"x-request-id": "lane-dialing"})
    with gateway.connect() as connection:
        connection.send("POST", "/v1/chat/completions", chat_body(model="slow-1"), sent)
        gateway.until(lambda: gateway.chat(key=GATE_KEY).status == 429, "the request was not taken")
    line = gateway.receipt("lane-dialing")
    assert (line["outcome"], line["lane"], line["status"]) == ("caller_gone", "fast", 499)
    gateway.until(lambda: gateway.chat(key=GATE_KEY).status == 200, "the slot was not given back")


def test_a_body_that_never_comes_whole_has_its_receipt(gateway: Gateway) -> None:
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {APP_KEY}\r\n"
    head += "Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
    with gateway.connect() as connection:
        connection.socket.sendall(head.encode())
        reply = connection.reply()
    assert (reply.status, reply.error["code"]) == (408, "request_timeout")
    assert gateway.receipt(reply.request_id)["key"] == "app"
    with gateway.connect() as connection:
        connection.socket.sendall(head.encode())
        time.sleep(0.05)

    def incomplete() -> list[Tree]:
        return [line for line in gateway.logs() if line.get("lane_reason") == "incomplete"]

    gateway.until(incomplete, "no receipt for a body that broke off")
    gateway.receipt(gateway.get("/health", key=None).request_id)
    assert [(line["outcome"], line["status"], line["key"]) for line in incomplete()] == [("caller_gone", 499, "app")]


@pytest.mark.parametrize("phase", ["waiting", "streaming"])
def test_a_drain_ends_what_runs_with_one_receipt(shared_upstream: Upstream, phase: str) -> None:
    shared_upstream.reset()
    long = {"connect": "300ms", "first_byte": "10s", "between_bytes": "10s", "total": "20s"}
    config = configuration(provider(shared_upstream.url), timeouts=long)
    config["server"]["drain_seconds"] = 0.2
    shared_upstream.script(silence() if phase == "waiting" else stream(words()[:2], ending="hang"))
    with Gateway(config) as gateway, gateway.connect() as connection, gateway.connect() as idle:
        sent = gateway.headers(more={"x-request-id": f"drained-{phase}"})
        connection.send("POST", "/v1/chat/completions", chat_body(stream=True), sent)
        seen = shared_upstream.wait()[0]
        reply = connection.head() if phase == "streaming" else None
        gateway.process.send_signal(signal.SIGTERM)
        if reply is None:
            reply = connection.reply()
            assert (reply.status, reply.error["code"]) == (503, "gateway_draining")
        else:
            body = b"".join(connection.pieces(reply))
            assert not reply.complete
            assert b"event: error" in body
            assert DONE not in body
        assert idle.socket.recv(1) == b""
        assert gateway.wait() == 0
        shared_upstream.wait_gone(seen)
        assert [line["outcome"] for line in gateway.receipts(f"drained-{phase}")] == ["gateway_draining"]
