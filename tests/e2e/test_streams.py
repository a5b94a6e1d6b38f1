"""Streams: relayed byte for byte while all is well, plainly broken when it is not, cancelled when nobody listens."""

import gzip
import socket
import statistics
import time
from collections.abc import Callable
from typing import Any

import orjson
import pytest

from tests.support.behaviours import DONE, answer, event, huge, raw, silence, stream, zipped
from tests.support.client import Reply
from tests.support.fake_openai import ANSWER, completion, spoken, words
from tests.support.gateway import Gateway, chat_body
from tests.support.upstream import Behaviour, Recorded, Upstream

MEGABYTE = 1024 * 1024
HUGE_BYTES = 100 * MEGABYTE
KERNEL_BYTES = 30 * MEGABYTE  # what socket buffers may hold between upstream, gateway and client
GROWTH_BYTES = 20 * MEGABYTE
CANCEL_SECONDS = 0.1  # the named invariant
TRIES = 5
SETTLED_POLLS = 50


def streamed(gateway: Gateway, **members: Any) -> Reply:
    return gateway.chat(stream=True, **members)


def assert_broken(reply: Reply, sent: list[bytes]) -> None:
    """What was sent came through, then an error event, no terminator, no last chunk."""
    assert reply.status == 200
    assert not reply.complete
    before, marker, after = reply.body.partition(b"event: error\n")
    assert marker, reply.body
    assert b"".join(sent).startswith(before)
    assert b"[DONE]" not in reply.body
    line = after.partition(b"\n")[0]
    assert line.startswith(b"data: ")
    error = orjson.loads(line[6:])["error"]
    assert error["message"]
    assert after.endswith(b"\n\n")


@pytest.mark.parametrize("split", [0, 1, 7, 1000])
@pytest.mark.parametrize("framing", ["chunked", "close"])
def test_the_bytes_of_a_stream_are_relayed_untouched(
    gateway: Gateway, upstream: Upstream, split: int, framing: str
) -> None:
    events = [b": a comment\n\n", *spoken("na\u00efve \u2014 words"), b": after the end\n\n"]
    upstream.script(stream(events, split=split, framing="close" if framing == "close" else "chunked"))
    reply = streamed(gateway)
    assert reply.complete
    assert reply.body == b"".join(events)
    assert (reply.value("content-type") or "").startswith("text/event-stream")


def test_an_event_of_several_megabytes_comes_through(gateway: Gateway, upstream: Upstream) -> None:
    events = spoken("x" * (3 * MEGABYTE))
    upstream.script(stream(events, split=100_000))
    assert streamed(gateway).body == b"".join(events)


def test_usage_is_asked_for_and_stripped_when_the_client_did_not_ask(gateway: Gateway, upstream: Upstream) -> None:
    reply = streamed(gateway)
    assert upstream.last.json["stream_options"] == {"include_usage": True}
    assert reply.body == b"".join(spoken())
    assert gateway.receipt(reply.request_id)["prompt_tokens"] == 11


def test_usage_is_kept_when_the_client_asked(gateway: Gateway, upstream: Upstream) -> None:
    reply = streamed(gateway, stream_options={"include_usage": True})
    assert reply.body == b"".join(spoken(usage=True))
    assert gateway.receipt(reply.request_id)["completion_tokens"] == 7


def test_a_finish_reason_without_a_terminator_is_a_finished_stream(gateway: Gateway, upstream: Upstream) -> None:
    upstream.script(stream(words()))
    reply = streamed(gateway)
    assert reply.complete
    assert b"event: error" not in reply.body


@pytest.mark.parametrize(
    "broken",
    [
        stream(words()[:3], ending="fin"),
        stream(words()[:3], ending="rst"),
        stream(words()[:3], ending="hang"),
        stream(words()[:3]),
        stream(words()[:3], framing="close"),
        stream([*words()[:3], words()[3][:20]]),
    ],
    ids=["fin", "rst", "stall", "clean-end", "close-delimited", "half-event"],
)
def test_a_broken_stream_ends_in_an_error_event_and_without_a_last_chunk(
    gateway: Gateway, upstream: Upstream, broken: Behaviour
) -> None:
    upstream.script(broken)
    reply = streamed(gateway)
    assert_broken(reply, [*words()[:3], words()[3][:20]])
    assert len(upstream.requests) == 1, "no retry after the first byte"
    assert gateway.receipt(reply.request_id)["outcome"] != "ok"


def test_comments_do_not_keep_a_stalled_stream_alive(gateway: Gateway, upstream: Upstream) -> None:
    upstream.script(stream([*words()[:3], *[b": ping\n\n"] * 1000], pace_ms=50))
    reply = streamed(gateway)
    assert not reply.complete
    assert b"event: error\n" in reply.body
    upstream.wait_gone(upstream.last)


def test_a_stream_of_comments_alone_is_a_time_out_with_a_real_status(gateway: Gateway, upstream: Upstream) -> None:
    upstream.default = stream([b": ping\n\n"] * 1000, pace_ms=50)
    reply = streamed(gateway)
    assert reply.status == 504
    assert reply.error["code"] == "upstream_timeout"


def test_an_event_over_16_mb_ends_in_an_error_event(gateway: Gateway, upstream: Upstream) -> None:
    upstream.script(stream([*words()[:2], b"data: " + b"x" * (17 * MEGABYTE)], split=MEGABYTE))
    reply = streamed(gateway)
    assert not reply.complete
    assert reply.body.startswith(b"".join(words()[:2]))
    assert b"event: error\n" in reply.body[-2000:]


def test_an_error_event_of_the_upstream_is_passed_on_as_a_broken_stream(gateway: Gateway, upstream: Upstream) -> None:
    sick = event({"error": {"message": "overloaded", "type": "server_error", "code": None}})
    upstream.script(stream([*words()[:3], sick, DONE]))
    reply = streamed(gateway)
    assert not reply.complete
    assert b"event: error\n" in reply.body
    assert b"[DONE]" not in reply.body


def test_a_close_delimited_client_learns_of_a_broken_stream_by_a_reset(gateway: Gateway, upstream: Upstream) -> None:
    upstream.script(stream(words()[:3], ending="fin"))
    with gateway.connect() as connection:
        _send_http10(connection.socket, gateway.key)
        with pytest.raises(ConnectionResetError):
            _read_to_the_end(connection.socket)


def test_a_close_delimited_client_gets_a_whole_stream_and_then_the_end(gateway: Gateway, upstream: Upstream) -> None:
    with gateway.connect() as connection:
        _send_http10(connection.socket, gateway.key)
        reply = connection.reply()
    assert reply.value("transfer-encoding") is None
    assert reply.body == b"".join(spoken())


def _read_to_the_end(peer: socket.socket) -> None:
    while peer.recv(65536):
        pass


def _send_http10(peer: socket.socket, key: str) -> None:
    body = orjson.dumps(chat_body(stream=True))
    head = f"POST /v1/chat/completions HTTP/1.0\r\nHost: x\r\nAuthorization: Bearer {key}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    peer.sendall(head.encode() + body)


def test_a_first_event_that_is_an_error_becomes_a_real_status(gateway: Gateway, upstream: Upstream) -> None:
    limited = {"message": "too many", "type": "rate_limit_error", "param": None, "code": "rate_limit_exceeded"}
    upstream.default = stream([event({"error": limited})])
    reply = streamed(gateway)
    assert reply.status >= 400
    assert (reply.value("content-type") or "").startswith("application/json")
    assert reply.error["message"]


def test_a_first_event_that_is_an_error_is_tried_again(gateway: Gateway, upstream: Upstream) -> None:
    upstream.script(stream([event({"error": {"message": "overloaded", "type": "server_error"}})]))
    reply = streamed(gateway)
    assert reply.status == 200
    assert reply.body == b"".join(spoken())


@pytest.mark.parametrize(
    "broken",
    [
        raw(b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 999\r\n\r\n{"id":'),
        raw(b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n{"id\r\n'),
        raw(b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{"id\r\n'),
    ],
    ids=["length", "chunked", "bad-chunk"],
)
def test_a_cut_json_answer_never_looks_whole(gateway: Gateway, upstream: Upstream, broken: Behaviour) -> None:
    upstream.default = broken
    reply = gateway.chat()
    assert reply.status >= 500 or not reply.complete


def test_compressed_answers_pass_untouched_or_not_at_all(gateway: Gateway, upstream: Upstream) -> None:
    upstream.default = zipped(completion())
    reply = gateway.chat(headers={"accept-encoding": "gzip"})
    if reply.status == 200:
        assert reply.value("content-encoding") == "gzip"
        assert orjson.loads(gzip.decompress(reply.body)) == completion()
    else:
        assert reply.status == 502


def test_1xx_are_swallowed_and_bytes_after_an_answer_cost_only_the_connection(
    gateway: Gateway, upstream: Upstream
) -> None:
    early = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
    upstream.script(answer(completion(), before=early, after=b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"))
    first = gateway.chat()
    assert (first.status, first.informational) == (200, [])
    second = gateway.chat()
    assert ANSWER.encode() in second.body
    assert len({seen.connection for seen in upstream.requests}) == 2


def _leave_median(gateway: Gateway, upstream: Upstream, body: object, ready: Callable[[Recorded], None]) -> float:
    """The middle of several times between the client's close and the upstream seeing its request cut."""
    waits = []
    for _ in range(TRIES):
        count = len(upstream.requests)
        with gateway.connect() as connection:
            connection.send("POST", "/v1/chat/completions", body, gateway.headers())
            seen = upstream.wait(count + 1)[-1]
            if isinstance(body, dict) and body.get("stream") and upstream.default is not _SILENT:
                reply = connection.head()
                next(connection.pieces(reply))
            ready(seen)
            left = time.monotonic()
            connection.close()
            waits.append(upstream.wait_gone(seen) - left)
    return statistics.median(waits)


_SILENT = silence()


def _in_full_flow(seen: Recorded) -> None:
    assert seen.gone_at is None
    assert not seen.finished


@pytest.mark.parametrize(
    ("behaviour", "stream_asked"),
    [(_SILENT, True), (stream(words() * 1000, pace_ms=20), True), (_SILENT, False)],
    ids=["before-the-first-byte", "mid-stream", "plain-json"],
)
def test_when_the_client_leaves_the_upstream_request_is_cut_within_100_ms(
    gateway: Gateway, upstream: Upstream, behaviour: Behaviour, stream_asked: bool
) -> None:
    upstream.default = behaviour
    median = _leave_median(gateway, upstream, chat_body(stream=stream_asked), _in_full_flow)
    assert median < CANCEL_SECONDS


@pytest.mark.parametrize("kind", ["stream", "json"])
def test_a_slow_reader_pauses_the_upstream_and_costs_no_memory(gateway: Gateway, upstream: Upstream, kind: str) -> None:
    assert gateway.chat(model="agw/echo").status == 200
    before = gateway.rss_bytes
    upstream.script(huge(HUGE_BYTES, streamed=kind == "stream"))
    with gateway.connect(receive_buffer=64 * 1024) as connection:
        connection.send("POST", "/v1/chat/completions", chat_body(stream=kind == "stream"), gateway.headers())
        reply = connection.head()
        seen = upstream.wait()[0]
        _wait_settled(seen)
        assert seen.accepted < KERNEL_BYTES
        peak = gateway.rss_bytes
        body = 0
        for number, piece in enumerate(connection.pieces(reply)):
            body += len(piece)
            if number % 500 == 0:
                peak = max(peak, gateway.rss_bytes)
    assert reply.complete
    assert body >= HUGE_BYTES
    assert peak - before < GROWTH_BYTES


def _wait_settled(seen: Recorded) -> None:
    """Returns when the upstream has not been able to send more for a while (longer than the gateway's stall clock)."""
    last, still = -1, 0
    while still < SETTLED_POLLS:
        still = still + 1 if seen.accepted == last else 0
        last = seen.accepted
        time.sleep(0.015)
