"""Heartbeats of streams in one form: both lanes begin such an answer, go on with it and end it alike."""

import os
import signal
import socket
from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from tests.e2e.test_heartbeats import COMMENT, PATHS, PING, Waiting, asked
from tests.e2e.test_translation import upstreams
from tests.support.behaviours import answer, event, failure, gate, head_bytes, silence, stream
from tests.support.client import Connection
from tests.support.fake_openai import spoken
from tests.support.gateway import Gateway, chat_body, configuration, provider
from tests.support.providers import FORMS, SCENES, plays
from tests.support.upstream import Behaviour, Exchange, Upstream

Tree = dict[str, Any]
ONCE = {"attempts": 1}


@pytest.fixture(scope="module")
def mute() -> Iterator[str]:
    """Where connections are made, and no handshake is ever answered."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"https://127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture(scope="module", params=["fast", "full"])
def lane(request: pytest.FixtureRequest) -> str:
    """Where an exchange in one form is to be found that goes well."""
    return str(request.param)


@pytest.fixture(scope="module")
def gateway(lane: str, shared_upstream: Upstream, mute: str) -> Iterator[Gateway]:
    url = shared_upstream.url
    config = configuration(
        *upstreams(url),
        provider(url, "again", models=["again-*"], retries={"attempts": 2, "base": "1ms", "max": "5ms"}),
        provider(mute, "mute", models=["mute-*"], timeouts={"connect": "300ms"}),
        retries=ONCE,
    )
    config["server"] |= {"ping_seconds": "20ms", "lane": "auto" if lane == "fast" else lane}
    config["timeouts"] = {"connect": "20s", "first_byte": "60s", "between_bytes": "60s", "total": "120s"}
    first, second = {"upstream": "chat", "model": "chat-slow"}, {"upstream": "again", "model": "again-1"}
    config["models"] = [
        {"name": "hasty", "targets": [first, second], "balance": "first", "timeouts": {"first_byte": "200ms"}},
        {"name": "alone", "targets": [first], "timeouts": {"first_byte": "200ms"}},
    ]
    with Gateway(config) as running:
        yield running


def whole(connection: Connection, gateway: Gateway, form: str, model: str) -> bytes:
    """The bytes of a stream on a connection that has been used before, without what a slow machine may make it wait for."""
    connection.send("POST", PATHS[form], asked(form, model), gateway.headers())
    reply = connection.head()
    text = b"".join(connection.pieces(reply))
    assert reply.complete
    return text.replace(PING if form == "messages" else COMMENT, b"")


@pytest.mark.parametrize("form", PATHS)
def test_an_answer_goes_on_from_its_heartbeats_and_its_connection_serves_again(
    gateway: Gateway, upstream: Upstream, form: str, lane: str
) -> None:
    go, behaviour = gate(plays(SCENES["text"]))
    upstream.script(behaviour, plays(SCENES["text"]))
    waiting = Waiting(gateway, form, f"{form}-1")
    beat = PING if form == "messages" else COMMENT
    waiting.until(beat * 3)
    go.set()
    for piece in waiting.pieces:
        waiting.text += piece
    line = gateway.receipt(waiting.reply.request_id)
    told = waiting.reply
    assert (told.status, told.complete, line["lane"], line["outcome"]) == (200, True, lane, "ok")
    assert told.value("cache-control") == "no-cache"
    assert told.value("x-content-type-options") == "nosniff"
    assert told.value("x-request-id") == (told.value("request-id") if form == "messages" else told.request_id)
    assert line["status"] == 200
    assert line["overhead_us"] < line["duration_ms"] * 1000
    rest = waiting.text.replace(beat, b"")
    assert (line["bytes_out"], line["completion_tokens"]) == (len(rest), SCENES["text"].output)
    assert whole(waiting.connection, gateway, form, f"{form}-1") == rest
    waiting.close()


def test_heartbeats_go_on_while_another_try_is_made(gateway: Gateway, upstream: Upstream) -> None:
    fails, first = gate(failure(503, "worn out"))
    go, second = gate(plays(SCENES["text"]))
    upstream.script(first, second, plays(SCENES["text"]))
    waiting = Waiting(gateway, "chat", "again-1")
    waiting.until(COMMENT * 2)
    fails.set()
    upstream.wait(2)
    waiting.until(waiting.text + COMMENT * 2)
    go.set()
    for piece in waiting.pieces:
        waiting.text += piece
    line = gateway.receipt(waiting.reply.request_id)
    assert (waiting.reply.complete, line["status"], line["outcome"], line["attempts"]) == (True, 200, "ok", 2)
    assert whole(waiting.connection, gateway, "chat", "again-1") == waiting.text.replace(COMMENT, b"")
    waiting.close()


def test_who_is_out_of_time_behind_a_heartbeat_has_another_asked(gateway: Gateway, upstream: Upstream) -> None:
    upstream.script(silence(), plays(SCENES["text"]))
    waiting = Waiting(gateway, "chat", "hasty")
    text = waiting.rest()
    assert waiting.reply.complete
    assert text.startswith(COMMENT)
    line = gateway.receipt(waiting.reply.request_id)
    assert (line["status"], line["attempts"], line["trail"][0]["outcome"]) == (200, 2, "upstream_timeout")


@pytest.mark.parametrize(
    ("model", "outcome"),
    [("alone", "upstream_timeout"), ("mute-1", "upstream_unreachable")],
    ids=["no-answer", "no-connection"],
)
def test_a_time_that_runs_out_behind_a_heartbeat_is_told_in_the_stream(
    gateway: Gateway, upstream: Upstream, model: str, outcome: str
) -> None:
    upstream.script(silence())
    waiting = Waiting(gateway, "chat", model)
    text = waiting.rest()
    assert (waiting.reply.status, waiting.reply.complete) == (200, False)
    assert text.startswith(COMMENT)
    assert text.count(b"event: error\n") == 1
    assert orjson.loads(text.rpartition(b"data: ")[2])["error"]["code"]
    line = gateway.receipt(waiting.reply.request_id)
    assert (line["status"], line["outcome"], line["attempts"]) == (200, outcome, 1)


def test_an_answer_that_is_no_stream_is_not_paid_for_twice(gateway: Gateway, upstream: Upstream) -> None:
    go, behaviour = gate(answer({"object": "chat.completion"}))
    upstream.script(behaviour)
    waiting = Waiting(gateway, "chat", "again-1")
    waiting.until(COMMENT)
    go.set()
    text = waiting.rest()
    assert not waiting.reply.complete
    assert text.count(b"event: error\n") == 1
    assert gateway.receipt(waiting.reply.request_id)["outcome"] == "upstream_invalid"
    assert len(upstream.requests) == 1


def test_an_answer_that_breaks_behind_a_heartbeat_is_told_of_once(
    gateway: Gateway, upstream: Upstream, lane: str
) -> None:
    go, behaviour = gate(stream(spoken()[:3], ending="rst"))
    upstream.script(behaviour)
    waiting = Waiting(gateway, "chat", "chat-1")
    waiting.until(COMMENT)
    go.set()
    text = waiting.rest()
    assert not waiting.reply.complete
    assert text.count(b"event: error\n") == 1
    line = gateway.receipt(waiting.reply.request_id)
    assert (line["status"], line["outcome"], line["lane"]) == (200, "upstream_broken", lane)


def test_no_heartbeat_comes_within_an_event_nor_behind_the_first_token(gateway: Gateway, upstream: Upstream) -> None:
    opening = event({"type": "response.created", "sequence_number": 0, "response": {}}, "response.created")
    long = {"type": "response.in_progress", "sequence_number": 1, "response": {"instructions": "x" * 200_000}}
    rest = event(long, "response.in_progress") + FORMS["responses"][1](SCENES["text"]).split(b"\n\n", 2)[2]
    cut, token = 150_000, rest.index(b"\n\n", rest.index(b"response.output_text.delta")) + 2
    within, begin = _held(opening + rest[:cut])
    behind, more = _held(rest[cut:token])

    async def end(exchange: Exchange) -> None:
        await exchange.send(rest[token:])
        exchange.end()

    upstream.script(_in_turn(begin, more, end))
    waiting = Waiting(gateway, "responses", "responses-1")
    waiting.until(rest[:cut])
    _pass_some_beats(gateway, upstream)
    within.set()
    waiting.until(rest[cut:token])
    _pass_some_beats(gateway, upstream)
    behind.set()
    text = waiting.rest()
    assert waiting.reply.complete
    assert text.partition(opening)[2] == rest


def _held(data: bytes) -> "tuple[Any, Behaviour]":
    """Send ``data``, then wait for the event."""

    async def begin(exchange: Exchange) -> None:
        await exchange.send(data)

    async def nothing(exchange: Exchange) -> None:
        """It goes on."""

    return gate(begin, nothing)


def _in_turn(*behaviours: Behaviour) -> Behaviour:
    """A stream that ends with its connection, made of these."""

    async def behave(exchange: Exchange) -> None:
        await exchange.send(head_bytes(200, [("content-type", "text/event-stream")]))
        for behaviour in behaviours:
            await behaviour(exchange)

    return behave


def _pass_some_beats(gateway: Gateway, upstream: Upstream) -> None:
    """As long as another stream takes for some."""
    go, behaviour = gate(plays(SCENES["text"]))
    upstream.script(behaviour)
    waiting = Waiting(gateway, "chat", "chat-1")
    waiting.until(COMMENT * 4)
    go.set()
    waiting.rest()


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1beta/models/gemini-1:streamGenerateContent?alt=sse", {"contents": [{"parts": [{"text": "x"}]}]}),
        ("/v1/completions", {"model": "again-1", "prompt": "x", "stream": True}),
    ],
    ids=["gemini", "completions"],
)
def test_other_forms_have_none_and_their_real_status(
    gateway: Gateway, upstream: Upstream, path: str, body: Tree
) -> None:
    go, behaviour = gate(failure(400, "oops"))
    upstream.script(behaviour)
    with gateway.connect() as connection:
        connection.send("POST", path, body, gateway.headers())
        upstream.wait(1)
        _pass_some_beats(gateway, upstream)
        go.set()
        assert connection.reply().status == 400


def test_a_mark_at_the_stream_s_beginning_does_not_hide_its_first_event(gateway: Gateway, upstream: Upstream) -> None:
    go, behaviour = gate(stream([b"\xef\xbb\xbf" + spoken()[0], *spoken()[1:]]))
    upstream.script(behaviour)
    waiting = Waiting(gateway, "chat", "chat-1")
    waiting.until(COMMENT)
    go.set()
    assert waiting.rest().replace(COMMENT, b"") == b"".join(spoken())


def test_a_client_that_leaves_is_told_of_as_one_whose_answer_had_begun(
    gateway: Gateway, upstream: Upstream, lane: str
) -> None:
    upstream.script(silence())
    waiting = Waiting(gateway, "chat", "chat-1")
    waiting.until(COMMENT * 2)
    waiting.close()
    upstream.wait_gone(upstream.last)
    line = gateway.receipt(waiting.reply.request_id)
    assert (line["status"], line["outcome"], line["lane"]) == (200, "caller_gone", lane)
    assert line["overhead_us"] < line["duration_ms"] * 1000


def test_a_worker_that_dies_within_heartbeats_leaves_a_stream_that_is_seen_to_be_cut(upstream: Upstream) -> None:
    config = configuration(provider(upstream.url))
    config["server"] |= {"ping_seconds": "20ms", "workers": 2}
    upstream.script(silence())
    with Gateway(config) as gateway:
        waiting = Waiting(gateway, "chat", "gpt-4o-mini")
        waiting.until(COMMENT * 2)
        for line in gateway.logs():
            if line.get("event") == "worker.ready":
                os.kill(line["pid"], signal.SIGKILL)
        assert b"error" not in waiting.rest()
        assert not waiting.reply.complete
        upstream.wait_gone(upstream.last)
        upstream.script(answer({"ok": True}))
        gateway.until(lambda: _answers(gateway), "nobody has taken the worker's place")


def _answers(gateway: Gateway) -> bool:
    try:
        return gateway.post("/v1/chat/completions", chat_body()).status == 200
    except ConnectionError:
        return False
