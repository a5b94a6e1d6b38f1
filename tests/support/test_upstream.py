"""The scripted upstream keeps its word; without that no test of the gateway means anything."""

from collections.abc import Iterator

import pytest

from tests.support.behaviours import answer, huge, raw, redirect, reset, silence, stream
from tests.support.client import Connection, request
from tests.support.fake_openai import ANSWER, USAGE, spoken, words
from tests.support.upstream import Upstream, unreachable

MEGABYTE = 1024 * 1024


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream() as running:
        yield running


def test_the_default_is_a_small_openai(upstream: Upstream) -> None:
    plain = request(upstream.url, "POST", "/v1/chat/completions", {"model": "m"})
    assert plain.json["usage"] == USAGE
    body = {"model": "gpt-4o-mini", "stream": True}
    assert request(upstream.url, "POST", "/v1/chat/completions", body).body == b"".join(spoken())
    wanted = {**body, "stream_options": {"include_usage": True}}
    assert request(upstream.url, "POST", "/v1/chat/completions", wanted).body == b"".join(spoken(usage=True))


def test_it_records_what_it_was_asked(upstream: Upstream) -> None:
    request(upstream.url, "POST", "/v1/embeddings?a=b", b'{"model": "e"}', {"x-one": "1"})
    seen = upstream.last
    assert (seen.method, seen.path, seen.target) == ("POST", "/v1/embeddings", "/v1/embeddings?a=b")
    assert seen.value("x-one") == "1"
    assert seen.body == b'{"model": "e"}'
    upstream.wait_finished(seen)
    assert seen.gone_at is None


def test_scripted_behaviours_come_before_the_default_and_connections_are_kept(upstream: Upstream) -> None:
    upstream.script(answer(b"one", framing="chunked"), redirect("/elsewhere"))
    with Connection(upstream.url) as connection:
        bodies = []
        for _ in range(3):
            connection.send("POST", "/v1/chat/completions", {"model": "m"})
            bodies.append(connection.reply().body)
    assert bodies[:2] == [b"one", b""]
    assert ANSWER.encode() in bodies[2]
    assert {seen.connection for seen in upstream.requests} == {1}


@pytest.mark.parametrize("ending", ["fin", "rst"])
def test_a_cut_stream_lacks_its_last_chunk(upstream: Upstream, ending: str) -> None:
    upstream.script(stream(words()[:2], ending="fin" if ending == "fin" else "rst", pace_ms=1, split=9))
    reply = request(upstream.url, "POST", "/", {})
    assert reply.body == b"".join(words()[:2])
    assert not reply.complete


def test_a_reset_comes_before_any_byte(upstream: Upstream) -> None:
    upstream.script(reset())
    with pytest.raises((EOFError, ConnectionError)):
        request(upstream.url, "POST", "/", {})


def test_raw_bytes_before_and_after_an_answer_are_sent_as_they_are(upstream: Upstream) -> None:
    upstream.script(answer(b"x", before=b"HTTP/1.1 103 Early Hints\r\n\r\n", after=b"tail", close=True))
    with Connection(upstream.url) as connection:
        connection.send("GET", "/")
        reply = connection.reply()
        assert reply.informational == [103]
        assert reply.body == b"x"
        assert connection.socket.recv(10) in {b"", b"tail"}
    upstream.script(raw(b"garbage\r\n\r\n"))
    with pytest.raises((ValueError, IndexError)):
        request(upstream.url, "GET", "/")


def test_leaving_is_seen_in_every_phase(upstream: Upstream) -> None:
    for behaviour in (silence(), stream(words(), ending="hang"), huge(100 * MEGABYTE)):
        upstream.reset()
        upstream.script(behaviour)
        with Connection(upstream.url) as connection:
            connection.send("POST", "/", {})
            seen = upstream.wait()[0]
        assert upstream.wait_gone(seen) >= seen.received_at
        assert not seen.finished


def test_a_slow_reader_pauses_a_huge_answer(upstream: Upstream) -> None:
    upstream.script(huge(100 * MEGABYTE))
    with Connection(upstream.url, receive_buffer=64 * 1024) as connection:
        connection.send("POST", "/", {})
        reply = connection.head()
        seen = upstream.wait()[0]
        assert seen.accepted < 50 * MEGABYTE
        body = sum(len(piece) for piece in connection.pieces(reply))
        upstream.wait_finished(seen)
    assert reply.complete
    assert seen.accepted > body > 100 * MEGABYTE


def test_an_unreachable_address_refuses() -> None:
    with unreachable() as url, pytest.raises(ConnectionRefusedError):
        request(url, "GET", "/")
