"""Kept answers: whatever the chunks, the kept bytes are those that were relayed."""

import itertools
import tracemalloc
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agw_proxy._hot.route import Target
from agw_proxy._hot.sse import Stream
from agw_proxy.edge.answers import PIECE_BYTES, Entry, Recording, Replay, decode, replayed
from agw_proxy.types import RawHeaders
from agw_proxy.upstreams.opening import Opened
from tests.support.behaviours import DONE, encode, event
from tests.support.fake_openai import chunk, completion, spoken, usage_event, words
from tests.support.gateway import Tree

MOST = 1 << 20


class Source:
    """An answer whose end is known."""

    connect_ms = 0.0
    began_ns = 0

    def __init__(self, kind: bytes, status: int = 200, more: RawHeaders = ()) -> None:
        self.status = status
        self.headers: RawHeaders = [(b"Content-Type", kind), (b"Date", b"x"), *more]
        self.ended = True

    async def read(self, *, progress: bool = True) -> bytes:
        raise AssertionError("the test hands the pieces over itself")

    def close(self) -> None:
        """Nothing to close."""


CUT_FIRST = [
    {"index": 0, "message": {"role": "assistant", "content": "cut"}, "finish_reason": "length"},
    {"index": 1, "message": {"role": "assistant", "content": "whole"}, "finish_reason": "stop"},
]
QUOTING = [
    {
        "index": 0,
        "message": {"role": "assistant", "content": 'it said "finish_reason": "length" and "error"'},
        "finish_reason": "stop",
    }
]
CUT_ONE = [
    event({"choices": [{"index": 0, "delta": {"content": "a"}}, {"index": 1, "delta": {"content": "b"}}]}),
    event({"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]}),
    event({"choices": [{"index": 1, "delta": {}, "finish_reason": "stop"}]}),
    DONE,
]
"""Two choices, of which one was cut short."""
TARGET = cast("Target", object())  # whose answer it is does not matter here


JSON, EVENTS = Source(b"application/json"), Source(b"text/event-stream")
ENDS = ("STOP", "MAX_TOKENS", "SAFETY", "MALFORMED_FUNCTION_CALL", "A_WORD_OF_TOMORROW")


def googles(*reasons: str) -> Tree:
    """An answer of a Gemini model."""
    return {"candidates": [{"index": index, "finishReason": reason} for index, reason in enumerate(reasons)]}


def recorded(
    pieces: list[bytes], source: Source, *, strips: bool = False, picky: bool = True, most: int = MOST
) -> Entry | None:
    stream = Stream() if source.headers[0][1] == b"text/event-stream" else None
    opened = Opened(source, TARGET, stream, b"", strips=strips)
    recording = Recording(opened, known_end=True, most=most, picky=picky)
    for piece in pieces:
        recording.feed(piece)
    return recording.end(5.0)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    marks = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    return [data[one:other] for one, other in itertools.pairwise(marks)]


@given(st.lists(st.integers(0, 5000)), st.booleans(), st.booleans())
def test_a_kept_stream_is_what_was_relayed(places: list[int], strips: bool, crlf: bool) -> None:
    data = b": hello\n\n" + b"".join(spoken(usage=True))
    data = data.replace(b"\n", b"\r\n") if crlf else data
    pieces = cut(data, places)
    stream = Stream(strip_usage=strips)
    relayed = b"".join(stream.feed(piece) for piece in pieces) + stream.finish()
    entry = recorded(pieces, Source(b"text/event-stream"), strips=strips)
    assert entry is not None
    assert entry.body == relayed
    assert (usage_event() in entry.body.replace(b"\r\n", b"\n")) is not strips


@given(st.lists(st.integers(0, 5000)))
def test_a_kept_document_is_what_was_relayed(places: list[int]) -> None:
    data = encode(completion())
    entry = recorded(cut(data, places), Source(b"application/json"))
    assert entry is not None
    assert entry.body == data
    assert entry.headers == ((b"Content-Type", b"application/json"),)


@pytest.mark.parametrize(
    ("pieces", "source", "kept", "kept_all"),
    [
        ([encode(completion())], Source(b"application/json", 201), False, False),
        ([encode(completion())], Source(b"application/json", more=[(b"Content-Encoding", b"gzip")]), False, True),
        ([encode(completion())[:-1]], Source(b"application/json"), False, False),
        ([b'{"error":null,"object":"response","status":"completed"}'], Source(b"application/json"), True, True),
        ([b'{"object":"response","status":"incomplete"}'], Source(b"application/json"), False, True),
        ([b'{"error":{"message":"x"}}'], Source(b"application/json"), False, True),
        ([encode({"choices": CUT_FIRST})], Source(b"application/json"), False, True),
        ([encode({"choices": CUT_FIRST[::-1]})], Source(b"application/json"), False, True),
        ([encode({"choices": QUOTING})], Source(b"application/json"), True, True),
        ([encode({**completion("x" * 5000), "error": {"message": "late"}})], Source(b"application/json"), False, True),
        (CUT_ONE, Source(b"text/event-stream"), False, True),
        ([b"sound"], Source(b"audio/mpeg"), False, True),
        ([*words()[:-1], chunk({}, "length"), DONE], Source(b"text/event-stream"), False, True),
        (words()[:2], Source(b"text/event-stream"), False, False),
        ([*words()[:2], event({"error": {"message": "x"}}), DONE], Source(b"text/event-stream"), False, False),
        *(([encode(googles(reason))], JSON, reason == "STOP", True) for reason in ENDS),
        *(([event(googles(reason))], EVENTS, reason == "STOP", True) for reason in ENDS),
        ([encode(googles("STOP", "MAX_TOKENS"))], JSON, False, True),
        ([event(googles("MAX_TOKENS", "STOP"))], EVENTS, False, True),
        ([encode({"promptFeedback": {"blockReason": "SAFETY"}})], JSON, False, True),
        ([event({"promptFeedback": {"blockReason": "SAFETY"}})], EVENTS, False, True),
    ],
)
def test_what_is_kept(pieces: list[bytes], source: Source, kept: bool, kept_all: bool) -> None:
    assert (recorded(pieces, source) is not None, recorded(pieces, source, picky=False) is not None) == (kept, kept_all)


def test_a_long_answer_is_not_kept_nor_its_bytes() -> None:
    data = encode(completion("x" * 1000))
    assert recorded([data[:10], data[10:]], Source(b"application/json"), most=1000) is None


@given(st.binary(max_size=300), st.booleans(), st.integers(0, 2**40))
def test_an_entry_survives_its_encoding(body: bytes, stream: bool, made: int) -> None:
    entry = Entry(float(made), 200, ((b"content-type", b"x"),), body, stream)
    assert decode(entry.encode()) == entry


@given(st.binary(max_size=40))
def test_rubbish_is_no_entry(data: bytes) -> None:
    found = decode(data)
    assert found is None or found.encode() == data


@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES])
async def test_a_replay_gives_all_of_it_in_pieces(size: int) -> None:
    body = bytes(size)
    reply = Replay(Entry(0.0, 200, (), body, stream=False))
    pieces = []
    while not reply.ended:
        pieces.append(await reply.read())
    assert b"".join(pieces) == body
    assert max(map(len, pieces), default=0) <= PIECE_BYTES
    assert await reply.read() == b""
    assert (b"content-length", b"%d" % size) in reply.headers


async def test_a_replayed_stream_is_read_as_a_stream() -> None:
    opened = replayed(Entry(0.0, 200, (), b"".join(spoken()), stream=True), TARGET)
    assert opened.stream is not None
    opened.stream.feed(await opened.reply.read())
    assert opened.stream.done
    opened.end(None)


def test_a_kept_answer_takes_no_more_memory_than_it_counts_for() -> None:
    text = "x" * 100_000
    tracemalloc.start()
    try:
        entry = recorded([encode(completion(text))], JSON)
        taken = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert entry is not None
    assert taken < 2 * entry.size
