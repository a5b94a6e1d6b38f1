import json
from collections.abc import Iterable
from dataclasses import fields
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agw_proxy._hot.sse import Document, EventTooLong, Stream
from tests.hot import model_sse
from tests.hot.model_sse import Followed, follow
from tests.hot.vectors_sse import DIALECTS

DELTA = (
    b'data: {"id":"c1","choices":[{"index":0,"delta":{"content":"Hi \\"x\\" \\u00e9"},"finish_reason":'
    b'null}],"usage":null}\n\n'
)
ROLE = b'data: {"choices":[{"delta":{"role":"assistant","content":""}}]}\n\n'
STOP = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
USAGE = (
    b'data: {"id":"c1","choices":[],"usage":{"prompt_tokens":12,"completion_tokens":34,"total_tokens":46,'
    b'"prompt_tokens_details":{"cached_tokens":7}}}\n\n'
)
DONE = b"data: [DONE]\n\n"

VECTORS = [
    b"",
    DELTA + STOP + DONE,
    ROLE + DELTA + DELTA + STOP + USAGE + DONE,
    (DELTA + STOP + USAGE + DONE).replace(b"\n", b"\r\n"),
    (DELTA + STOP + USAGE + DONE).replace(b"\n", b"\r"),
    b"\xef\xbb\xbf" + DELTA + DONE,
    b"\xef\xbb\xbf\n" + DELTA,
    b"\xef\xbb\xbf: note\r\n\r\n" + DELTA,
    b": ping\n\n: ping\r\n\r\n" + DELTA + b":\n\n",
    b"id: 7\n\nretry: 100\r\n\r\nevent: ping\r\rx\n\n" + DELTA + b"id: 8\n",
    b"id: 7\r\n\r" + DELTA,
    b'id: 7\nevent: message\ndata:{"choices":[],\ndata: "usage":{"input_tokens":3,\r\ndata:"output_tokens":4,\n'
    b'data:"input_tokens_details":{"cached_tokens":1}}}\n: with a comment\n\n' + DONE,
    b'event: error\ndata: {"message":"no"}\n\ndata: {"error":{"code":1}}\n\n',
    b'data: {"error":\ndata: {"code":1}}\nevent: other\n\nevent: error\ndata\n\n',
    b"event: error\n\nevent: error \ndata: 1\n\nevent:error\r\ndata: x y\r\n\r\n",
    b'data: {"error":null,"choices":[{"text":"a"}]}\n\ndata: {"error":""}\n\n',
    b'data: {"choices":[],"usage":{"prompt_tokens":1},"error":{"code":2}}\n\n',
    b'event: error\ndata: {"choices":[],"usage":{"prompt_tokens":1}}\n\n',
    b'data: {"choices":[{"delta":{},"finish_reason":"length"}],"usage":{"prompt_tokens":5,"completion_tokens":6}}\n\n',
    (
        b'data: {"choices":[{"finish_reason":"a"},{"finish_reason":"tool_calls"},{"finish_reason":null},'
        b'{"finish_reason":""}]}\n\n'
    ),
    b'data: {"choices":[{"finish_reason":"' + b"x" * 63 + "é".encode() + b'"}]}\n\n',
    b'data: {"choices":[{"finish_reason":"' + b"\\u00e9" * 70 + b'"}]}\n\n',
    b'data: {"choices":[{"finish_reason":"' + b"y" * 500 + b'"}]}\n\n',
    b'data: {"ch\\u006fices":[{"f\\u0069nish_reason":"st\\u006fp"}],"us\\u0061ge":{"prompt_tokens":1}}\n\n',
    (
        b'data: {"choices":[{"delta":{"content":"\\"usage\\":{\\"prompt_tokens\\":9}, \\"finish_reason\\":'
        b'\\"stop\\""}}]}\n\n'
    ),
    (
        b'data: {"x":{"usage":{"prompt_tokens":9},"error":1},"choices":[{"logprobs":{"finish_reason":"x",'
        b'"delta":{"content":"a"}}}]}\n\n'
    ),
    b'data: {"x":[{"finish_reason":"x"}],"choices":{"finish_reason":"x"},"usage":[{"prompt_tokens":9}]}\n\n',
    b'data: {"usage":{"prompt_tokens":1.5,"completion_tokens":"2","prompt_tokens_details":{"cached_tokens":true}}}\n\n',
    (
        b'data: {"usage":{"prompt_tokens":9223372036854775807,"completion_tokens":9223372036854775808,'
        b'"output_tokens":1}}\n\n'
    ),
    b'data: {"usage":{"prompt_tokens":-1,"completion_tokens":99999999999999999999,"input_tokens":2}}\n\n',
    (
        b'data: {"usage":{"prompt_tokens":1,"completion_tokens":2}}\n\ndata: {"usage":{"prompt_tokens":3}}\n'
        b'\ndata: {"usage":null}\n\n'
    ),
    b'data: {"choices":[{"delta":{"tool_calls":[{"index":0}]}},{"delta":{"tool_calls":[]}}]}\n\n',
    (
        b'data: {"choices":[{"delta":{"tool_calls":[]}},{"delta":{"tool_calls":null,"reasoning_content":"",'
        b'"content":null}}]}\n\n'
    ),
    b'data: {"choices":[{"delta":{"reasoning_content":"hm"}}]}\n\ndata: {"choices":[{"text":"completions"}]}\n\n',
    (
        b'data: {"choices":[{"finish_reason":"stop"}]\n\ndata: {"choices":[{"finish_reason":"stop"}]}}\n\n'
        b"data: [DONE]x\n\n"
    ),
    b"data: not json\n\ndata: []\n\ndata\n\ndata:\n\ndata: 1\n\ndata: [DONE] \n\n",
    b"data: " + b"[" * 300 + b"]" * 300 + b"\n\n",
    b'data: {"x":' + b'{"a":' * 200 + b"1" + b"}" * 200 + b',"choices":[{"finish_reason":"stop"}]}\n\n',
    b'data: {"choices" : [ { "finish_reason" : "stop" } ] , "usage" : { "prompt_tokens" : 3 } }\n\n',
    b"datum: 1\n\ndata : 1\n\n data: 1\n\n" + DELTA,
    b"\n\n\r\n\r\r" + DELTA + b"\n" + DONE,
    DELTA + STOP[:-1],
    DELTA + STOP[:-2],
    STOP + USAGE[:-2],
    STOP + b"data: [DONE]",
    DELTA + STOP[:40],
    b"\xff\xfe\x00data: \xff\n\n",
    *DIALECTS,
]


def run(chunks: Iterable[bytes], **options: Any) -> Followed:
    """Feed, finish, and put what came of it in the model's terms."""
    stream = Stream(**options)
    out = b""
    boundary = True
    for chunk in chunks:
        passed = stream.feed(chunk)
        out += passed
        boundary = stream.at_boundary
    rest = stream.finish()
    assert stream.at_boundary == (boundary and not rest)
    assert stream.finish() == b""
    return Followed(
        out + rest, **{field.name: getattr(stream, field.name) for field in fields(Followed)[1:] if field.compare}
    )


def between_events(stream: Stream) -> bool:
    return stream.at_boundary


def pieces(body: bytes, cuts: Iterable[int]) -> list[bytes]:
    places = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    return [body[start:end] for start, end in pairwise(places)]


@pytest.mark.parametrize("strip", [False, True])
@pytest.mark.parametrize("hold", [0, 20, 65536])
@pytest.mark.parametrize("body", VECTORS)
def test_a_stream_reads_the_same_in_every_split(body: bytes, hold: int, strip: bool) -> None:
    expected = follow(body, strip_usage=strip, max_hold_bytes=hold)
    options = {"strip_usage": strip, "max_hold_bytes": hold}
    assert run([body], **options) == expected
    assert run([body[i : i + 1] for i in range(len(body))], **options) == expected
    for cut in range(0, len(body), 1 if len(body) < 300 else 7):
        assert run([body[:cut], body[cut:]], **options) == expected


@pytest.mark.parametrize("tail", [DELTA, DONE, b"\n", b"garbage", b": c\n\n", b"\xff\r"])
@pytest.mark.parametrize("body", VECTORS)
def test_a_stream_reads_the_same_with_more_behind_it(body: bytes, tail: bytes) -> None:
    assert run([body, tail]) == run([body + tail]) == follow(body + tail)


def test_whole_events_come_back_as_the_same_object() -> None:
    stream = Stream(strip_usage=True)
    for chunk in (DELTA, DELTA + DELTA, b": ping\n\n", b"", STOP, DONE):
        assert stream.feed(chunk) is chunk
        assert stream.at_boundary
    assert (stream.events, stream.content, stream.done, stream.complete) == (4, 3, True, True)


def test_an_unfinished_event_is_held() -> None:
    stream = Stream()
    assert stream.feed(DELTA + STOP[:30]) == DELTA
    assert between_events(stream)
    assert (stream.events, stream.complete) == (1, False)
    assert stream.feed(STOP[30:]) == STOP
    assert stream.finish_reason == "stop"
    assert stream.feed(b"data: x") == b""
    assert stream.finish() == b"data: x"
    assert not between_events(stream)
    assert stream.events == 3


def test_a_long_event_is_passed_on_as_it_comes() -> None:
    stream = Stream(max_hold_bytes=20)
    assert stream.feed(b"data: 345678901234") == b""
    assert stream.feed(b"56") == b""
    assert between_events(stream)
    assert stream.feed(b"7") == b"data: 34567890123456" + b"7"
    assert not between_events(stream)
    assert stream.feed(b"8\n") == b"8\n"
    assert not between_events(stream)
    assert stream.feed(b"\ndata") == b"\n"
    assert between_events(stream)
    assert stream.finish() == b"data"


def test_the_line_feed_of_a_split_line_end_goes_with_its_event() -> None:
    stream = Stream(strip_usage=True)
    assert stream.feed(DELTA[:-2] + b"\r\n\r") == DELTA[:-2] + b"\r\n\r"
    assert between_events(stream)
    assert stream.feed(b"\n" + USAGE[:-2] + b"\r\n\r") == b"\n"
    assert stream.feed(b"\n" + DONE) == DONE
    assert (stream.events, stream.prompt_tokens, stream.completion_tokens, stream.cached_tokens) == (1, 12, 34, 7)


def test_only_the_usage_event_is_stripped_and_it_is_read() -> None:
    out = run([ROLE + DELTA + STOP + USAGE + DONE], strip_usage=True)
    assert out.out == ROLE + DELTA + STOP + DONE
    assert (out.events, out.content, out.prompt_tokens) == (3, 1, 12)
    kept = (
        b'data: {"choices":[],"usage":null}\n\ndata: {"choices":[],"prompt_filter_results":[]}\n\ndata:'
        b' {"usage":{}}\n\n'
    )
    assert run([kept], strip_usage=True).out == kept
    assert run([USAGE]).out == USAGE


def test_a_usage_event_longer_than_the_hold_is_passed_on() -> None:
    long = USAGE.replace(b"c1", b"c" * 200)
    assert run([long], strip_usage=True, max_hold_bytes=len(long)).out == b""
    assert run([long], strip_usage=True, max_hold_bytes=len(long) - 1).out == long


def test_the_first_error_is_kept_up_to_its_bound() -> None:
    long = b'{"error":"' + b"e" * 70000 + b'"}'
    for chunks in ([b"data: " + long + b"\n\n"], [b"data: " + long[:300], long[300:] + b"\n\n"]):
        out = run([*chunks, b"event: error\ndata: second\n\n"])
        assert out.error == long[:65536]
        assert out.events == 2


def test_an_event_over_the_bound_ends_the_stream() -> None:
    for chunks in ([b"data: " + b"x" * 100 + b"\n\n"], [b"data: ", b"x" * 50, b"x" * 50], [b": " + b"x" * 99]):
        stream = Stream(max_event_bytes=100)
        for chunk in chunks[:-1]:
            stream.feed(chunk)
        with pytest.raises(EventTooLong, match="at most 100 bytes"):
            stream.feed(chunks[-1])
        with pytest.raises(ValueError, match="after the end"):
            stream.feed(b"x")
        assert stream.finish() == b""
    assert run([b"data: " + b"x" * 92 + b"\n\n"] * 3, max_event_bytes=100).events == 3


def test_a_megabyte_event_is_followed_without_being_held() -> None:
    body = b'data: {"choices":[{"delta":{"content":"' + b"a\\n" * 700_000 + b'"},"finish_reason":"stop"}]}\n\n'
    out = run([body[i : i + 65536] for i in range(0, len(body), 65536)])
    assert out.out == body
    assert (out.events, out.content, out.finish_reason) == (1, 1, "stop")


def test_nothing_is_fed_after_the_end() -> None:
    stream = Stream()
    assert stream.finish() == b""
    with pytest.raises(ValueError, match="after the end"):
        stream.feed(DELTA)


def test_bounds_are_checked() -> None:
    with pytest.raises(ValueError, match="bounds"):
        Stream(max_event_bytes=0)
    with pytest.raises(ValueError, match="bounds"):
        Stream(max_hold_bytes=-1)


@pytest.mark.parametrize("chunk", [None, "data", bytearray(b"x")])
def test_only_bytes_are_taken(chunk: Any) -> None:
    with pytest.raises(TypeError):
        Stream().feed(chunk)
    with pytest.raises(TypeError):
        Document().feed(chunk)


NUMBERS = st.integers(0, 1 << 64) | st.none() | st.booleans() | st.text(max_size=3)
FEW = st.integers(0, 3) | NUMBERS
DETAILS = st.none() | st.dictionaries(
    st.sampled_from(["cached_tokens", "audio_tokens", "reasoning_tokens"]), FEW, max_size=2
)
USAGES = st.none() | st.fixed_dictionaries(
    {},
    optional={
        "prompt_tokens": FEW, "completion_tokens": FEW, "input_tokens": NUMBERS, "output_tokens": NUMBERS,
        "prompt_tokens_details": DETAILS, "input_tokens_details": DETAILS, "completion_tokens_details": DETAILS,
        "total_tokens": FEW, "prompt_cache_hit_tokens": NUMBERS,
        "cache_read_input_tokens": NUMBERS, "cache_creation_input_tokens": NUMBERS,
    },
)  # fmt: skip
TEXTS = st.none() | st.text(max_size=6).filter(lambda text: text.isprintable())
DELTAS: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {},
    optional={
        "content": TEXTS,
        "reasoning_content": TEXTS,
        "refusal": TEXTS,
        "function_call": st.none() | st.just({}),
        "tool_calls": st.none() | st.lists(st.just({"usage": {}}), max_size=2),
        "images": st.none() | st.lists(st.just({"usage": {}}), max_size=2),
    },
)
CHOICE = st.fixed_dictionaries(
    {},
    optional={
        "delta": DELTAS | st.none(), "finish_reason": TEXTS, "text": TEXTS, "usage": USAGES, "message": DELTAS,
        "index": st.integers(-1, 2) | st.sampled_from([63, 64, 1 << 63, 1.5, "1", True, None]),
    },
)  # fmt: skip
TYPES = st.sampled_from(
    ["ping", "error", "message_delta", "message_stop", "content_block_delta", "response.a.delta", "response.failed"]
)
ANSWERS = st.fixed_dictionaries(
    {},
    optional={
        "id": TEXTS, "choices": st.lists(CHOICE, max_size=2) | st.none(), "usage": USAGES,
        "type": TYPES | TEXTS | st.just(1), "message": st.fixed_dictionaries({"usage": USAGES}) | TEXTS,
        "error": st.none() | st.just({"code": 1}), "x": USAGES | st.lists(CHOICE, max_size=1),
    },
)  # fmt: skip
JSON = st.builds(lambda tree, ascii_only: json.dumps(tree, ensure_ascii=ascii_only).encode(), ANSWERS, st.booleans())
LINES = st.one_of(
    JSON.map(lambda text: b"data: " + text),
    JSON.map(lambda text: b"data:" + text.replace(b", ", b",\ndata: ")),
    TYPES.map(lambda name: b"event: " + name.encode()),
    st.sampled_from(
        [b"data: [DONE]", b"event: error", b"event: x", b"id: 1", b"retry: 5", b": ping", b"", b"data", b"\xef\xbb\xbf"]
    ),
)
BODIES = st.builds(
    lambda lines, end, cut: end.join(b"\n".join(lines).split(b"\n")) + end * 2 * (not cut),
    st.lists(st.builds(lambda line, blank: line + b"\n" * blank, LINES, st.booleans()), max_size=8),
    st.sampled_from([b"\n", b"\r\n", b"\r"]),
    st.booleans(),
)
CUTS = st.lists(st.integers(0, 400), max_size=6)


@settings(max_examples=300, deadline=None)
@given(BODIES, CUTS, st.booleans(), st.sampled_from([0, 40, 65536]))
def test_generated_streams_read_as_the_model_reads_them(body: bytes, cuts: list[int], strip: bool, hold: int) -> None:
    expected = follow(body, strip_usage=strip, max_hold_bytes=hold)
    assert run(pieces(body, cuts), strip_usage=strip, max_hold_bytes=hold) == expected


@settings(max_examples=300, deadline=None)
@given(BODIES, st.integers(0, 300), st.binary(max_size=3), CUTS, st.booleans())
def test_a_damaged_stream_reads_the_same_in_any_split(
    body: bytes, at: int, new: bytes, cuts: list[int], strip: bool
) -> None:
    damaged = body[:at] + new + body[at + 1 :]
    whole = run([damaged], strip_usage=strip)
    assert run(pieces(damaged, cuts), strip_usage=strip) == whole
    assert run([damaged[i : i + 1] for i in range(len(damaged))], strip_usage=strip) == whole


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=80), CUTS)
def test_random_bytes_pass_untouched_but_for_events_without_data(body: bytes, cuts: list[int]) -> None:
    assert run(pieces(body, cuts)).out == follow(body).out


def read_document(chunks: Iterable[bytes]) -> tuple[int, int, int, str | None, bool]:
    document = Document()
    for chunk in chunks:
        document.feed(chunk)
    return (
        document.prompt_tokens,
        document.completion_tokens,
        document.cached_tokens,
        document.finish_reason,
        document.complete,
    )


def modelled_document(body: bytes) -> tuple[int, int, int, str | None, bool]:
    into = Followed()
    model_sse.read(json.loads(body), into)
    return (into.prompt_tokens, into.completion_tokens, into.cached_tokens, into.finish_reason, True)


@settings(max_examples=200, deadline=None)
@given(JSON, CUTS, st.sampled_from([b"", b" \r\n\t"]))
def test_a_document_reads_as_the_model_reads_it(body: bytes, cuts: list[int], space: bytes) -> None:
    body = space + body + space
    expected = modelled_document(body)
    assert read_document([body]) == expected
    assert read_document(pieces(body, cuts)) == expected
    assert read_document([body[i : i + 1] for i in range(len(body))]) == expected


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60) | JSON, st.integers(0, 200), st.binary(max_size=2), CUTS)
def test_a_damaged_document_reads_the_same_in_any_split(body: bytes, at: int, new: bytes, cuts: list[int]) -> None:
    damaged = body[:at] + new + body[at + 1 :]
    assert read_document(pieces(damaged, cuts)) == read_document([damaged])


COMPLETION = (
    b'{"choices":[{"message":{"content":"x}]"},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,'
    b'"completion_tokens":45}}'
)


def test_a_document_is_complete_at_its_last_byte_only() -> None:
    for end in range(len(COMPLETION)):
        assert not read_document([COMPLETION[:end]])[-1]
    assert read_document([COMPLETION]) == (3, 45, -1, "stop", True)
    assert read_document([COMPLETION, b" \n"])[-1]
    for tail in (b"x", b"{}", b'"', b"\x00"):
        assert not read_document([COMPLETION, tail])[-1]
    assert read_document([b'{"choices":[{"finish_reason":"stop"}],"usage":{"prompt_tokens":3']) == (
        -1,
        -1,
        -1,
        "stop",
        False,
    )


@pytest.mark.parametrize(
    "body", [b"", b"1", b'"x"', b"null", b"{]", b"[}", b"[1}", b'{"a" 1}', b'{"a":1 2}', b"{a:1}", b"[,]", b"[[]"]
)
def test_what_is_not_a_closed_object_or_array_is_not_complete(body: bytes) -> None:
    assert not read_document([body])[-1]


def test_any_closed_container_is_complete() -> None:
    for body in (b"{}", b"[]", b'[{"usage":{"prompt_tokens":1}}]', b'{"a":[{},[]],"b":NaN}'):
        assert read_document([body]) == (-1, -1, -1, None, True)
