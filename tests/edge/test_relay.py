"""An answer on its way: bytes as they come, and a broken stream that never looks like a finished one."""

import asyncio
from pathlib import Path

import pytest

from agw_proxy.edge.exchange import Exchange
from agw_proxy.edge.respond import event_start
from agw_proxy.types import Usage
from tests.edge.inprocess import Running, serving
from tests.support.behaviours import answer, event, raw, stream
from tests.support.client import Connection, Reply, bearer
from tests.support.fake_openai import USAGE, chunk, completion, spoken, words
from tests.support.gateway import APP_KEY, Tree, chat_body
from tests.support.upstream import Behaviour, Upstream

CUT = b'data: {"object":"chat.completion.chunk","choices":[{"ind'


@pytest.mark.parametrize(
    ("text", "at", "start"),
    [
        (b"data: x\n\n", 6, 0),
        (b"data: a\n\ndata: x\n\n", 15, 9),
        (b"data: a\r\n\r\ndata: x\r\n\r\n", 17, 11),
        (b": c\n\nevent: error\ndata: x\n\n", 25, 5),
    ],
)
def test_the_event_around_an_offset_begins_behind_the_last_blank_line(text: bytes, at: int, start: int) -> None:
    assert event_start(text, at) == start


async def streamed(running: Running, upstream: Upstream, behaviour: Behaviour) -> Reply:
    upstream.script(behaviour)
    return await running.chat(stream=True, stream_options={"include_usage": True})


@pytest.mark.both_loops
@pytest.mark.parametrize("split", [0, 1, 7])
async def test_a_stream_is_relayed_byte_for_byte(config: Tree, upstream: Upstream, split: int, tmp_path: Path) -> None:
    events = [b": hello\n\n", *spoken(usage=True)]
    async with serving(config, tmp_path) as running:
        reply = await streamed(running, upstream, stream(events, split=split))
        line = await running.receipt()
    assert (reply.body, reply.complete) == (b"".join(events), True)
    assert reply.value("content-type") == "text/event-stream"
    assert reply.value("x-accel-buffering") == "no"
    assert (line["outcome"], line["bytes_out"]) == ("ok", len(reply.body))
    assert (line["prompt_tokens"], line["completion_tokens"], line["finish_reason"]) == (11, 7, "stop")
    assert line["ttft_ms"] > 0


@pytest.mark.both_loops
@pytest.mark.parametrize(
    "broken",
    [
        stream(words()[:2]),
        stream(words()[:2], ending="fin"),
        stream(words()[:2], ending="rst"),
        stream(words()[:2], ending="hang"),
        stream([*words()[:2], CUT], ending="fin"),
        stream([words()[0], event({"error": {"message": "overloaded", "type": "server_error"}})]),
    ],
    ids=["clean", "fin", "rst", "hang", "within-an-event", "told"],
)
async def test_a_broken_stream_ends_in_one_error_event_and_no_last_chunk(
    config: Tree, upstream: Upstream, broken: Behaviour, tmp_path: Path
) -> None:
    config["timeouts"]["between_bytes"] = "150ms"
    async with serving(config, tmp_path) as running:
        reply = await streamed(running, upstream, broken)
        line = await running.receipt()
    assert not reply.complete
    assert reply.body.startswith(words()[0])
    assert reply.body.count(b"event: error\n") == 1
    assert reply.body.rindex(b"event: error\n") == reply.body.rindex(b"\n\n", 0, -2) + 2
    assert b"[DONE]" not in reply.body
    assert (line["status"], line["attempts"]) == (200, 1)
    assert line["outcome"] in {"upstream_broken", "upstream_timeout"}
    assert len(upstream.requests) == 1


@pytest.mark.both_loops
async def test_a_finished_answer_without_a_terminator_is_finished(
    config: Tree, upstream: Upstream, tmp_path: Path
) -> None:
    async with serving(config, tmp_path) as running:
        reply = await streamed(running, upstream, stream(words()))
        assert (await running.receipt())["outcome"] == "ok"
    assert (reply.body, reply.complete) == (b"".join(words()), True)


@pytest.mark.both_loops
async def test_the_last_event_without_its_blank_line_goes_out_too(
    config: Tree, upstream: Upstream, tmp_path: Path
) -> None:
    whole = b"".join(spoken())
    async with serving(config, tmp_path) as running:
        reply = await streamed(running, upstream, stream([whole[:-1]]))
        assert (await running.receipt())["outcome"] == "ok"
    assert reply.body.rstrip(b"\n") == whole.rstrip(b"\n")
    assert reply.complete


@pytest.mark.both_loops
@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_a_stream_ends_as_the_clients_version_needs(
    config: Tree, upstream: Upstream, version: str, tmp_path: Path
) -> None:
    upstream.script(stream(spoken()))
    body = b'{"model":"gpt-4o","stream":true,"stream_options":{"include_usage":true},"messages":[]}'
    head = (
        f"POST /v1/chat/completions HTTP/{version}\r\nHost: x\r\nAuthorization: Bearer {APP_KEY}\r\n"
        f"Connection: {'keep-alive' if version == '1.0' else 'close'}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    async with serving(config, tmp_path) as running:
        answered = await running.raw(head.encode() + body)
    head_bytes, _, rest = answered.partition(b"\r\n\r\n")
    assert (b"chunked" in head_bytes) is (version == "1.1")
    assert rest == b"".join(spoken()) if version == "1.0" else rest.endswith(b"\r\n0\r\n\r\n")


@pytest.mark.both_loops
async def test_a_plain_answer_keeps_its_length_its_status_and_its_bytes(
    config: Tree, upstream: Upstream, tmp_path: Path
) -> None:
    body = b'{ "usage": {"prompt_tokens": 5, "completion_tokens": 6}, "choices": [{"finish_reason": "length"}] }'
    upstream.script(answer(body, status=201, headers=(("x-ratelimit-remaining-tokens", "9"), ("set-cookie", "a=b"))))
    async with serving(config, tmp_path) as running:
        reply = await running.chat()
        line = await running.receipt()
    assert (reply.status, reply.body, reply.value("content-length")) == (201, body, str(len(body)))
    assert (reply.value("x-ratelimit-remaining-tokens"), reply.value("set-cookie")) == ("9", None)
    assert (line["prompt_tokens"], line["completion_tokens"], line["finish_reason"]) == (5, 6, "length")


@pytest.mark.both_loops
async def test_our_own_limits_replace_the_upstreams(config: Tree, upstream: Upstream, tmp_path: Path) -> None:
    config["limits"] = [{"per": "key", "requests": 5, "period": "1h"}]
    upstream.script(answer(completion(), headers=(("x-ratelimit-remaining-requests", "99"),)))
    async with serving(config, tmp_path) as running:
        assert (await running.chat()).value("x-ratelimit-remaining-requests") == "4"


@pytest.mark.both_loops
async def test_a_plain_answer_that_breaks_off_never_looks_whole(
    config: Tree, upstream: Upstream, tmp_path: Path
) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 200000\r\n\r\n"
    upstream.script(raw(head + b'{"a":"' + b"x" * 150_000))
    async with serving(config, tmp_path) as running:
        reply = await running.chat()
        line = await running.receipt()
    assert not reply.complete
    assert (line["status"], line["outcome"]) == (200, "upstream_broken")


@pytest.mark.both_loops
async def test_an_answer_without_a_body_has_none(config: Tree, upstream: Upstream, tmp_path: Path) -> None:
    upstream.default = raw(b"HTTP/1.1 204 No Content\r\n\r\n", "hang")
    async with serving(config, tmp_path) as running:
        reply = await running.ask("DELETE", "/v1/files/f")
        assert (await running.receipt())["outcome"] == "ok"
    assert (reply.status, reply.body, reply.value("transfer-encoding")) == (204, b"", None)


@pytest.mark.both_loops
async def test_a_client_that_leaves_has_its_tokens_accounted(config: Tree, upstream: Upstream, tmp_path: Path) -> None:
    upstream.script(stream([chunk({"content": "x"})] * 1000, pace_ms=10))
    async with serving(config, tmp_path) as running:

        def leave() -> None:
            with running.connect() as connection:
                headers = {"authorization": f"Bearer {APP_KEY}"}
                connection.send("POST", "/v1/chat/completions", chat_body(stream=True), headers)
                connection.upto(connection.head())

        await asyncio.to_thread(leave)
        line = await running.receipt()
        await asyncio.to_thread(upstream.wait_gone, upstream.last)
    assert (line["status"], line["outcome"]) == (200, "caller_gone")
    assert line["bytes_out"] > 0


async def test_who_pays_for_another_that_leaves_hears_what_that_one_was_told(
    config: Tree, upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[Usage] = []
    pays_for = Exchange.pays_for

    def noted(payer: Exchange, other: Exchange) -> None:
        left.append(other.usage)
        pays_for(payer, other)

    monkeypatch.setattr(Exchange, "pays_for", noted)
    config["cache"] = {"models": ["*"]}
    config["timeouts"]["between_bytes"] = "20s"  # the second one has to hear of it, too
    told = {"choices": [{"index": 0, "delta": {"content": "so far"}}], "usage": {**USAGE, "completion_tokens": 500}}
    upstream.script(stream([words()[0], event(told)], ending="hang"))
    body = chat_body(stream=True)
    async with serving(config, tmp_path) as running:
        with running.connect() as leader, running.connect() as follower:

            def read(client: Connection) -> None:
                client.send("POST", "/v1/chat/completions", body, bearer(APP_KEY))
                client.upto(client.head(), b"so far")

            for client in (leader, follower):
                await asyncio.to_thread(read, client)
            leader.close()
            await running.until(lambda: left)
    assert [(usage.prompt, usage.completion) for usage in left] == [(11, 500)]
