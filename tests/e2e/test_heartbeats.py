"""Heartbeats while a stream waits for its first token: the official SDKs pass them over, and what fails after one is told.

Streams in one form are the fast lane's here, others the full lane's; what is to be the same in both of one form is in
tests/e2e/test_lane_heartbeats.py.
"""

import threading
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import orjson
import pytest

from tests.e2e.test_translation import QUESTION, UPSTREAMS, upstreams
from tests.support.behaviours import answer, failure, gate, raw, silence
from tests.support.gateway import Gateway, configuration
from tests.support.providers import FORMS, SCENES, plays
from tests.support.upstream import Behaviour, Exchange, Upstream

Tree = dict[str, Any]
COMMENT, PING = b": ping\n\n", b'event: ping\ndata: {"type": "ping"}\n\n'
PATHS = {"chat": "/v1/chat/completions", "responses": "/v1/responses", "messages": "/v1/messages"}
TEXT = "".join(SCENES["text"].text)


@pytest.fixture(scope="module")
def gateway(shared_upstream: Upstream) -> Iterator[Gateway]:
    config = configuration(*upstreams(shared_upstream.url), retries={"attempts": 1})
    config["server"] |= {"ping_seconds": "20ms"}
    config["timeouts"] = {"connect": "5s", "first_byte": "60s", "between_bytes": "60s", "total": "120s"}
    config["models"] = [
        {"name": "two", "balance": "first",
         "targets": [{"upstream": "chat", "model": "chat-bad"}, {"upstream": "messages", "model": "messages-good"}]},
    ]  # fmt: skip
    with Gateway(config) as running:
        yield running


def asked(form: str, model: str) -> Tree:
    """A streamed request."""
    turns = [{"role": "user", "content": QUESTION}]
    said: Tree = {"input": QUESTION} if form == "responses" else {"messages": turns}
    bound = {"max_tokens": 99} if form == "messages" else {}
    return {"model": model, "stream": True, **said, **bound}


class Waiting:
    """A stream as it comes, of which the upstream has sent nothing yet."""

    def __init__(self, gateway: Gateway, form: str, model: str) -> None:
        self.connection = gateway.connect()
        self.connection.send("POST", PATHS[form], asked(form, model), gateway.headers())
        self.reply = self.connection.head()
        self.pieces = self.connection.pieces(self.reply)
        self.text = b""

    def until(self, what: bytes) -> None:
        """Read until it is there."""
        while what not in self.text:
            self.text += next(self.pieces)

    def rest(self) -> bytes:
        """All of it, to the end or to the cut."""
        for piece in self.pieces:
            self.text += piece
        self.close()
        return self.text

    def close(self) -> None:
        """Leave."""
        self.connection.close()


@pytest.mark.parametrize("spoken", UPSTREAMS)
@pytest.mark.parametrize("form", PATHS)
def test_heartbeats_come_until_the_first_token(gateway: Gateway, upstream: Upstream, form: str, spoken: str) -> None:
    go, behaviour = gate(plays(SCENES["text"]))
    upstream.script(behaviour)
    waiting = Waiting(gateway, form, f"{spoken}-1")
    beat = PING if form == "messages" else COMMENT
    waiting.until(beat * 3)
    go.set()
    text = waiting.rest()
    assert (waiting.reply.status, waiting.reply.complete) == (200, True)
    assert waiting.reply.value("content-type") == "text/event-stream"
    assert text.startswith(beat)
    assert form != spoken or beat not in text.partition(b"Hel")[2]  # a translator may have some of its own
    assert waiting.reply.value("server-timing")
    line = gateway.receipt(waiting.reply.request_id)
    assert (line["status"], line["outcome"], line["overhead_us"] < 20_000_000) == (200, "ok", True)
    assert line["lane"] == ("fast" if form == spoken else "full")
    assert line["bytes_out"] < len(text)


def test_the_sdks_have_their_stream_before_anything_of_it_and_read_it_whole(
    gateway: Gateway, upstream: Upstream
) -> None:
    turns: Any = [{"role": "user", "content": QUESTION}]
    for chat, responses, messages in (("chat-1", "responses-1", "messages-1"), ("gemini-1", "gemini-1", "gemini-1")):
        go, behaviour = gate(plays(SCENES["text"]))
        upstream.script(behaviour)
        with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key, max_retries=0) as client:
            chunks = client.chat.completions.create(model=chat, messages=turns, stream=True)
            go.set()  # it came for the heartbeat: the upstream was silent
            assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == TEXT
            go, behaviour = gate(plays(SCENES["text"]))
            upstream.script(behaviour)
            events = client.responses.create(model=responses, input=QUESTION, stream=True)
            go.set()
            assert "".join(item.delta for item in events if item.type == "response.output_text.delta") == TEXT
        go, behaviour = gate(plays(SCENES["text"]))
        upstream.script(behaviour)
        with anthropic.Anthropic(base_url=gateway.url, api_key=gateway.key, max_retries=0) as other:
            found = other.messages.create(model=messages, messages=turns, max_tokens=9, stream=True)
            go.set()
            deltas = [item.delta for item in found if item.type == "content_block_delta"]
            assert "".join(getattr(delta, "text", "") for delta in deltas) == TEXT


def test_what_fails_after_a_heartbeat_is_told_in_the_stream_and_every_sdk_raises(
    gateway: Gateway, upstream: Upstream
) -> None:
    turns: Any = [{"role": "user", "content": QUESTION}]
    go, behaviour = gate(failure(503, "worn out"))
    upstream.script(behaviour)
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key, max_retries=0) as client:
        chunks = client.chat.completions.create(model="chat-1", messages=turns, stream=True)
        go.set()
        with pytest.raises(openai.APIError):
            list(chunks)
        go, behaviour = gate(failure(401, "no"))
        upstream.script(behaviour)
        events = client.responses.create(model="messages-1", input="x", stream=True)
        go.set()
        with pytest.raises(openai.APIError):
            list(events)
    go, behaviour = gate(answer({"object": "no stream"}))
    upstream.script(behaviour)
    with anthropic.Anthropic(base_url=gateway.url, api_key=gateway.key, max_retries=0) as other:
        found = other.messages.create(model="messages-1", messages=turns, max_tokens=9, stream=True)
        go.set()
        with pytest.raises(anthropic.APIError):
            list(found)


@pytest.mark.parametrize(
    ("form", "behaviour", "outcome"),
    [
        ("chat", failure(500, "oops"), "upstream_failed"),
        ("responses", raw(b""), "upstream_reset"),
        ("messages", answer({"id": "x"}), "upstream_invalid"),
    ],
    ids=["refused", "reset", "no-stream"],
)
def test_a_stream_that_fails_behind_a_heartbeat_ends_in_one_error_event_and_one_receipt(
    gateway: Gateway, upstream: Upstream, form: str, behaviour: Behaviour, outcome: str
) -> None:
    go, gated = gate(behaviour)
    upstream.script(gated)
    waiting = Waiting(gateway, form, f"{form}-1")
    waiting.until(b"ping")
    go.set()
    text = waiting.rest()
    assert not waiting.reply.complete
    assert text.count(b"event: error\n") == 1
    tree = orjson.loads(text.rpartition(b"data: ")[2])
    assert tree["error"]["message"]
    line = gateway.receipt(waiting.reply.request_id)
    assert (line["status"], line["outcome"]) == (200, outcome)
    assert gateway.get("/health").status == 200


def test_another_upstream_may_answer_while_only_heartbeats_have_gone_out(gateway: Gateway, upstream: Upstream) -> None:
    go, behaviour = gate(failure(503, "worn out"))
    upstream.script(behaviour, plays(SCENES["text"]))
    waiting = Waiting(gateway, "responses", "two")
    waiting.until(COMMENT)
    go.set()
    text = waiting.rest()
    assert waiting.reply.complete
    assert b"response.completed" in text
    assert gateway.receipt(waiting.reply.request_id)["attempts"] == 2


def test_heartbeats_go_on_between_events_until_the_first_token(gateway: Gateway, upstream: Upstream) -> None:
    frames = FORMS["responses"][1](SCENES["text"]).partition(b"\n\n")
    first, rest = frames[0] + b"\n\n", frames[2]
    half = rest[: len(rest) // 3]
    go, behaviour = _three(first, half, rest[len(half) :])
    upstream.script(behaviour)
    waiting = Waiting(gateway, "responses", "responses-1")
    waiting.until(b"response.created")
    waiting.until(first + COMMENT * 2)
    go.set()
    text = waiting.rest()
    assert waiting.reply.complete
    assert text.replace(COMMENT, b"") == first + rest


def _three(first: bytes, half: bytes, rest: bytes) -> tuple[threading.Event, Behaviour]:
    """The head and the first event; the others once the event is set, cut within one."""
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\n\r\n"
    length = head % (len(first) + len(half) + len(rest))

    async def begin(exchange: Exchange) -> None:
        await exchange.send(length + first)

    async def end(exchange: Exchange) -> None:
        await exchange.send(half)
        await exchange.send(rest)

    return gate(begin, end)


def test_geminis_form_and_what_is_no_stream_get_none(gateway: Gateway, upstream: Upstream) -> None:
    for path, body in (
        ("/v1beta/models/chat-1:streamGenerateContent?alt=sse", {"contents": [{"parts": [{"text": "x"}]}]}),
        ("/v1/chat/completions", {"model": "chat-1", "messages": [{"role": "user", "content": "x"}]}),
    ):
        upstream.reset()
        go, behaviour = gate(failure(500, "oops"))
        other_go, other = gate(plays(SCENES["text"]))
        upstream.script(behaviour, other)
        with gateway.connect() as connection:
            connection.send("POST", path, body, gateway.headers())
            upstream.wait(1)
            waiting = Waiting(gateway, "chat", "chat-1")
            waiting.until(COMMENT * 3)  # so long nothing comes on the other
            other_go.set()
            waiting.rest()
            go.set()
            assert connection.reply().status >= 500


def test_a_client_that_leaves_within_heartbeats_cancels_its_upstream(gateway: Gateway, upstream: Upstream) -> None:
    upstream.script(silence())
    waiting = Waiting(gateway, "chat", "chat-1")
    waiting.until(COMMENT * 2)
    waiting.close()
    upstream.wait_gone(upstream.last)
    assert gateway.receipt(waiting.reply.request_id)["outcome"] == "caller_gone"
