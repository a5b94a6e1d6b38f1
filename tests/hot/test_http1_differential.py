"""Whatever our readers of HTTP/1.1 accept, h11 and aiohttp read the same way (``model_http1``); any split says the same."""

import math
import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agw_proxy._hot.http1 import ChunkDecoder, parse_request_head, parse_response_head
from tests.fuzz.fuzz_http1 import at_random
from tests.hot.model_http1 import compare_chunks, compare_request, compare_response
from tests.hot.vectors_http1 import BODIES, REQUESTS, RESPONSES, Body, Head

GET = b"GET / HTTP/1.1"
OK = b"HTTP/1.1 200 OK"
VALUES = st.sampled_from(
    [
        b"a", b"", b" ", b"5", b"05", b"0", b"+5", b"5, 5", b"3, 5", b"chunked", b"Chunked", b"gzip, chunked",
        b"chunked, chunked", b"close", b"keep-alive", b"Keep-Alive, close", b"Upgrade", b"upgrade, close", b"websocket",
        b"100-continue", b"100-Continue", b"a:80", b"a:", b"[::1]", b"[::1]:99999", b"a b", b"\tx\t", b"\xe9\xff", b"gzip",
        b"x\x00", b"a\rb", b"a\nb", b"9223372036854775808", b"18446744073709551616", b"\xc2\xa05", b"\x0c5",
    ]
)  # fmt: skip
NAMES = st.sampled_from(
    [
        b"Host", b"host", b"Content-Length", b"content-length", b"Transfer-Encoding", b"Connection", b"Expect",
        b"Upgrade", b"Content-Type", b"Content-Encoding", b"Authorization", b"TE", b"Trailer", b"X", b"X-Y_z", b"",
        b"User-Agent", b"ETag", b"Server", b"Content-Length ", b" Host", b"X\x00", b"\xc3\xa9", b"Sec-WebSocket-Key1",
        b"Keep-Alive", b"Proxy-Connection", b"Cookie", b"Content_Length", b"Max-Forwards", b"Content-Location",
    ]
)  # fmt: skip
METHODS = st.sampled_from(
    [
        b"GET",
        b"POST",
        b"OPTIONS",
        b"HEAD",
        b"DELETE",
        b"get",
        b"Post",
        b"M-SEARCH",
        b"XYZZY",
        b"G T",
        b"CONNECT",
        b"PRI",
    ]
)
TARGETS = st.sampled_from(
    [
        b"/", b"/v1/chat/completions", b"/?a", b"/a?b?c=%2f", b"*", b"http://a/b", b"https://a:1?b", b"http://u@a/",
        b"//a/b", b"/a#b", b"/\xc3\xa9", b"a:80", b"", b"/a b", b"/%zz", b'/{x}|\\^`"<>', b"http://[::1]:1/", b"ftp://a/",
    ]
)  # fmt: skip
VERSIONS = st.sampled_from(
    [b"HTTP/1.1"] * 6 + [b"HTTP/1.0", b"HTTP/1.2", b"HTTP/2.0", b"http/1.1", b"HTTP/1.10", b"", b"HTTP/1.1 "]
)
ENDS = st.sampled_from([b"\r\n"] * 30 + [b"\n", b"\r", b"\r\r\n", b"\n\r\n", b"\r\n "])
ROWS = st.one_of(
    st.builds(
        lambda name, space, value: name + b":" + space + value, NAMES, st.sampled_from([b" ", b"", b"\t "]), VALUES
    ),
    st.just(b"Host: a"),
    st.just(b"Content-Length: 5"),
    st.binary(max_size=12),
)
KNOWN_ROWS = st.sampled_from(
    [
        b"Content-Length: 5", b"Content-Length: 0", b"Content-Length: 0003", b"Transfer-Encoding: chunked",
        b"transfer-encoding:CHUNKED", b"Connection: close", b"Connection: Keep-Alive", b"Connection: keep-alive, X",
        b"Connection: upgrade", b"Upgrade: websocket", b"Upgrade: h2c", b"Expect: 100-continue", b"TE: trailers",
        b"Trailer: X", b"Content-Type: application/json", b"Content-Encoding: gzip", b"Authorization: Bearer a",
        b"User-Agent: a", b"Cookie: a=b", b"Proxy-Connection: close", b"Keep-Alive: timeout=5",
    ]
)  # fmt: skip
LAST = st.sampled_from([b"\r\n"] * 8 + [b"\n", b"\r", b""])
GOOD_ROWS = st.builds(
    lambda name, value: name + b": " + value,
    st.from_regex(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,12}", fullmatch=True),
    st.from_regex(rb"[\t\x20-\x7e\x80-\xff]{0,20}", fullmatch=True),
)
FIRST_ROWS = st.one_of(
    st.builds(lambda method, target, version: b" ".join([method, target, version]), METHODS, TARGETS, VERSIONS),
    st.just(b"POST /v1/x HTTP/1.1"),
    st.just(b"GET / HTTP/1.1"),
)
STATUS_ROWS = st.one_of(
    st.sampled_from(
        [b"HTTP/1.1 200 OK", b"HTTP/1.0 200 OK", b"HTTP/1.1 204 None", b"HTTP/1.1 304", b"HTTP/1.1 100 Go on"]
    ),
    st.builds(lambda status, text: b"HTTP/1.1 %d %b" % (status, text), st.integers(0, 1100), st.binary(max_size=6)),
)
SIZES = st.sampled_from(
    [b"0", b"1", b"5", b"05", b"a", b"A", b"00", b"", b"-1", b"0x1", b"7fffffffffffffff", b"8000000000000000"]
)
EXTENSIONS = st.sampled_from(
    [b""] * 6 + [b";a", b";a=b", b';a="b;\\"c"', b" ;a", b"; a = b", b";", b" ", b";a=", b';"', b";a\x00", b";\xe9"]
)
CHUNKS = st.builds(
    lambda size, extension, end, data, behind: size + extension + end + data + behind,
    SIZES, EXTENSIONS, ENDS, st.one_of(st.just(b"hello"), st.binary(max_size=10)), ENDS,
)  # fmt: skip
GOOD_CHUNKS = st.builds(lambda data: b"%x\r\n%b\r\n" % (len(data), data), st.binary(min_size=1, max_size=20))
BEHIND = st.binary(max_size=8)
TRAILERS = st.lists(st.one_of(GOOD_ROWS, ROWS), max_size=2).map(lambda rows: b"".join(row + b"\r\n" for row in rows))


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """Chunked bodies, right or nearly right."""
    right = draw(st.booleans())
    chunks = b"".join(draw(st.lists(GOOD_CHUNKS if right else st.one_of(GOOD_CHUNKS, CHUNKS), max_size=4)))
    last = draw(st.sampled_from([b"0\r\n", b"00\r\n", b"0;a\r\n"] if right else [b"0\n", b"\r\n", b"0 \r\n"]))
    return mutated(draw, chunks + last + draw(TRAILERS) + draw(st.just(b"\r\n") if right else LAST) + draw(BEHIND))


@st.composite
def heads(draw: st.DrawFn, first: st.SearchStrategy[bytes], plain: bytes) -> bytes:
    """Heads, right or nearly right, with something behind them; ``plain``: a first line that is right."""
    right = draw(st.booleans())
    ends = st.just(b"\r\n") if right else ENDS
    rows = draw(st.lists(st.one_of(GOOD_ROWS, KNOWN_ROWS, *([] if right else [ROWS])), max_size=6))
    rows.insert(draw(st.integers(0, len(rows))), b"Host: a:80")
    head = draw(st.one_of(st.just(plain), first)) + draw(ends) + b"".join(row + draw(ends) for row in rows)
    head += draw(st.just(b"\r\n") if right else LAST)
    return mutated(draw, head + draw(st.one_of(BEHIND, bodies())))


def mutated(draw: st.DrawFn, data: bytes) -> bytes:
    """Now and then a byte turned, put in or taken out, a line doubled or two swapped."""
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
        at = draw(st.integers(0, len(data)))
        byte = draw(st.one_of(st.sampled_from(list(b"\0\t\n\r :;,\x7f\x80\xff0A")), st.integers(0, 255)))
        way = draw(st.integers(0, 4))
        rows = data.split(b"\r\n")
        row = draw(st.integers(0, len(rows) - 1))
        if way == 0:
            data = data[:at] + bytes([byte]) + data[at + 1 :]
        elif way == 1:
            data = data[:at] + bytes([byte]) + data[at:]
        elif way == 2:
            data = data[:at] + data[at + 1 :]
        elif way == 3:
            data = b"\r\n".join([*rows[: row + 1], *rows[row:]])
        else:
            data = b"\r\n".join([*rows[:row], *rows[row + 1 :], rows[row]])
    return data


@settings(max_examples=400)
@given(heads(FIRST_ROWS, GET))
def test_what_is_taken_of_requests_all_read_the_same_way(data: bytes) -> None:
    compare_request(data)


@settings(max_examples=300)
@given(heads(STATUS_ROWS, OK))
def test_what_is_taken_of_responses_h11_reads_the_same_way(data: bytes) -> None:
    compare_response(data)


@settings(max_examples=400)
@given(bodies())
def test_what_is_taken_of_chunked_bodies_all_read_the_same_way(data: bytes) -> None:
    compare_chunks(data)


@pytest.mark.parametrize("vector", REQUESTS, ids=[vector.name for vector in REQUESTS])
def test_vectors_of_requests(vector: Head) -> None:
    assert compare_request(vector.data + b"1\r\nx\r\n0\r\n\r\n") == vector.verdict


@pytest.mark.parametrize("vector", RESPONSES, ids=[vector.name for vector in RESPONSES])
def test_vectors_of_responses(vector: Head) -> None:
    assert compare_response(vector.data + b"1\r\nx\r\n0\r\n\r\n") == vector.verdict


@pytest.mark.parametrize("vector", BODIES, ids=[vector.name for vector in BODIES])
def test_vectors_of_bodies(vector: Body) -> None:
    assert compare_chunks(vector.data) == vector.end


CUTS = st.lists(st.integers(0, 400), max_size=6).map(sorted)


@given(heads(FIRST_ROWS, GET) | heads(STATUS_ROWS, OK), CUTS)
@example(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", [1, 16, 17, 18, 25])
def test_any_split_of_a_head_says_the_same(data: bytes, cuts: list[int]) -> None:
    for parse in (parse_request_head, parse_response_head):
        whole = parse(data, 60, 200)
        scanned = 0
        for end in [*[cut for cut in cuts if cut < len(data)], len(data)]:
            parsed = parse(data[:end], 60, 200, scanned=scanned)
            scanned = parsed.scanned
            if parsed.verdict != "more":
                break
        assert (parsed.verdict, parsed.reason, parsed.size) == (whole.verdict, whole.reason, whole.size)
        assert parsed.fields == whole.fields


@given(bodies(), CUTS)
def test_any_split_of_a_body_says_the_same(data: bytes, cuts: list[int]) -> None:
    whole = ChunkDecoder()
    body = whole.feed(data)
    split, out, start = ChunkDecoder(), b"", 0
    for end in [*[cut for cut in cuts if cut < len(data)], len(data)]:
        out += split.feed(data[start:end])
        start = end
    assert (out, split.ended, split.broken, split.rest) == (body, whole.ended, whole.broken, whole.rest)


def test_vectors_changed_at_random_reach_every_verdict() -> None:
    verdicts = at_random(math.inf, random.Random(1), rounds=1500)
    assert verdicts.keys() == {"take", "hand_over", "refuse", "more", "ended", "broken"}
    assert sum(verdicts.values()) == 1500
