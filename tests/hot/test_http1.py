"""Heads and chunked bodies: every vector whole, byte by byte, in every split in two, and with bytes behind it."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from agw_proxy._hot.http1 import (
    ChunkDecoder,
    ParsedRequest,
    ParsedResponse,
    list_has_token,
    parse_request_head,
    parse_response_head,
)
from tests.hot.vectors_http1 import (
    BODIES,
    HANDED_OVER,
    REFUSED,
    REQUESTS,
    RESPONSES,
    SDK,
    TAKEN,
    Body,
    Head,
    answered,
    fields,
    line,
)

BEHIND = b"GET /smuggled HTTP/1.1\r\nHost: b\r\n\r\n\0\n\r"
RESPONSE_PARTS = (
    "verdict",
    "reason",
    "detail",
    "status",
    "size",
    "minor",
    "content_length",
    "chunked",
    "close",
    "known",
    "fields",
)
REQUEST_PARTS = (*RESPONSE_PARTS, "method", "target", "path", "has_body", "expect")
# Seen at the end of the line, or of the head, and not at a byte.
MEANT = {
    "connect", "bad_target", "userinfo", "no_host", "bad_host", "repeated_field", "bad_length", "length_and_coding",
    "coding_in_1_0", "bad_coding", "unknown_coding", "bad_connection", "unknown_expectation", "unknown_version",
}  # fmt: skip

Parsed = ParsedRequest | ParsedResponse


def parts(parsed: Parsed) -> dict[str, Any]:
    """All that the parser says; of a refusal only the refusal."""
    names: Sequence[str] = REQUEST_PARTS if isinstance(parsed, ParsedRequest) else RESPONSE_PARTS
    if parsed.verdict == "refuse":
        names = [name for name in ("verdict", "reason", "detail", "size") if name in names]
    return {name: getattr(parsed, name) for name in names}


def feed(parse: Callable[..., Parsed], data: bytes, ends: list[int]) -> tuple[Parsed, int]:
    """The first verdict when the bytes come up to each of ``ends``, and how many had come by then."""
    parsed, scanned, end = parse(b""), 0, 0
    for end in ends:
        parsed = parse(data[:end], scanned=scanned)
        if parsed.verdict != "more":
            break
        assert scanned <= parsed.scanned <= end
        scanned = parsed.scanned
    return parsed, end


def ids(vectors: list[Any]) -> list[str]:
    return [vector.name for vector in vectors]


def check(parse: Callable[..., Parsed], vector: Head) -> None:
    """All ways to feed one vector."""
    data = vector.data
    whole = parse(data)
    assert (whole.verdict, whole.reason) == (vector.verdict, vector.reason)
    assert bool(whole.detail) == bool(vector.reason)
    if whole.verdict != "refuse":
        assert whole.size == len(data)
    assert parts(parse(data + BEHIND)) == parts(whole)
    single, came = feed(parse, data, list(range(1, len(data) + 1)))
    assert parts(single) == parts(whole)
    if whole.verdict == "refuse":
        newline = data.find(b"\n", whole.size)
        assert came <= (len(data) if newline < 0 else newline + 1)
        if whole.reason not in MEANT:
            assert came <= whole.size + 2
    step = 1 if len(data) < 2000 else 97
    for split in range(1, len(data), step):
        assert parts(feed(parse, data, [split, len(data)])[0]) == parts(whole)


@pytest.mark.parametrize("vector", REQUESTS, ids=ids(REQUESTS))
def test_request_in_any_split(vector: Head) -> None:
    check(parse_request_head, vector)


@pytest.mark.parametrize("vector", RESPONSES, ids=ids(RESPONSES))
def test_response_in_any_split(vector: Head) -> None:
    check(parse_response_head, vector)


def test_names_of_vectors_differ() -> None:
    for vectors in (REQUESTS, RESPONSES, BODIES):
        assert len(set(ids(vectors))) == len(vectors)


def test_every_reason_has_a_vector_or_a_test_here() -> None:
    seen = {vector.reason for vector in [*REQUESTS, *RESPONSES]}
    assert seen >= MEANT
    assert {"long_request_line", "long_field", "large_head"}.isdisjoint(seen)  # they are tested by their bounds below


def test_what_is_read_of_a_request() -> None:
    parsed = parse_request_head(SDK)
    assert (parsed.method, parsed.target, parsed.path) == (
        b"POST", b"/v1/chat/completions", b"/v1/chat/completions",
    )  # fmt: skip
    assert parsed.minor == 1
    assert parsed.content_length == 1500
    assert (parsed.chunked, parsed.has_body, parsed.close, parsed.expect) == (False, True, False, False)
    names = [name.lower() for name, _ in parsed.fields]
    assert parsed.known == (names.index(b"host"), names.index(b"content-type"), -1, names.index(b"connection"))
    assert parsed.fields == tuple(
        (name, value) for name, value in (row.split(b": ", 1) for row in SDK.split(b"\r\n")[1:-2])
    )


def test_path_ends_at_the_question_mark() -> None:
    parsed = parse_request_head(line(b"GET /a?b?c HTTP/1.1"))
    assert (parsed.target, parsed.path) == (b"/a?b?c", b"/a")


@pytest.mark.parametrize(
    ("row", "value"),
    [(b"X:", b""), (b"X: \t ", b""), (b"X:a", b"a"), (b"X:\t a\tb \t", b"a\tb"), (b"X: \xff ", b"\xff")],
)
def test_values_come_without_the_space_around_them(row: bytes, value: bytes) -> None:
    assert parse_request_head(fields(row)).fields[1] == (b"X", value)
    assert parse_response_head(answered(row)).fields[0] == (b"X", value)


@pytest.mark.parametrize(
    ("head", "close"),
    [
        (fields(), False),
        (fields(b"Connection: keep-alive"), False),
        (fields(b"Connection: Close"), True),
        (fields(b"Connection: keep-alive, close"), True),
        (fields(b"Connection: keep-alive", b"Connection: close"), True),
        (fields(b"Connection: closed"), False),
        (b"GET / HTTP/1.0\r\n\r\n", True),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", False),
        (b"GET / HTTP/1.0\r\nConnection: close, keep-alive\r\n\r\n", True),
    ],
)
def test_request_says_when_the_connection_ends(head: bytes, close: bool) -> None:
    assert parse_request_head(head).close is close
    response = head.replace(b"POST /v1/x HTTP/1.1", b"HTTP/1.1 200").replace(b"GET / HTTP/1.0", b"HTTP/1.0 200")
    assert parse_response_head(response).close is close


def test_expectation_counts_in_1_1_only() -> None:
    assert parse_request_head(fields(b"Expect: 100-continue")).expect
    assert not parse_request_head(b"POST / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n").expect


def test_framing_of_requests() -> None:
    for head, length, chunked, body in (
        (fields(), -1, False, False),
        (fields(b"Content-Length: 0"), 0, False, False),
        (fields(b"Content-Length: 007"), 7, False, True),
        (fields(b"Content-Length: 9223372036854775807"), 2**63 - 1, False, True),
        (fields(b"Transfer-Encoding: chunked"), -1, True, True),
    ):
        parsed = parse_request_head(head)
        assert (parsed.content_length, parsed.chunked, parsed.has_body) == (length, chunked, body)


def test_what_is_read_of_a_response() -> None:
    head = answered(b"A: b", b"Connection: x", b"Content-Type: t", b"Content-Length: 3", start=b"HTTP/1.0 404 No")
    parsed = parse_response_head(head)
    assert (parsed.status, parsed.minor, parsed.content_length, parsed.chunked) == (404, 0, 3, False)
    assert parsed.known == (2, 1)
    assert parse_response_head(answered(b"Transfer-Encoding: chunked")).chunked


def test_statuses_to_refuse_with() -> None:
    by_reason = {vector.reason: parse_request_head(vector.data).status for vector in REFUSED}
    expected = {"unknown_version": 505, "unknown_coding": 501, "many_fields": 431, "unknown_expectation": 417}
    assert by_reason == dict.fromkeys(by_reason, 400) | expected
    assert {parse_request_head(vector.data).status for vector in [*TAKEN, *HANDED_OVER]} == {0}


@pytest.mark.parametrize("size", [20, 21, 28, 100])
def test_bound_on_the_request_line(size: int) -> None:
    start = b"GET /" + b"a" * (size - 14) + b" HTTP/1.1"
    assert len(start) == size
    assert parse_request_head(line(start), size).verdict == "take"
    assert parse_request_head(start + b"\r", size).verdict == "more"
    refused = parse_request_head(start, size - 1)
    assert (refused.verdict, refused.reason, refused.status) == ("refuse", "long_request_line", 414)
    for start in (b"G" * (size + 1), b"GET /" + b"a" * (size - 4)):
        assert parse_request_head(start[:-1], size).verdict == "more"
        assert parse_request_head(start, size).reason == "long_request_line"


@pytest.mark.parametrize("size", [20, 21, 28, 100])
@pytest.mark.parametrize("start", [b"X: ", b"", b"X:\t\t"])
def test_bound_on_a_field_line(start: bytes, size: int) -> None:
    row = start + b"a" * (size - len(start))
    if b":" in row:
        assert parse_request_head(fields(row), size).verdict == "take"
        assert parse_response_head(answered(row), size).verdict == "take"
    before = fields()[:-2]
    assert parse_request_head(before + row, size).verdict == "more"
    for head in (before + row + b"a", before + row + b"a\r\n\r\n"):
        refused = parse_request_head(head, size)
        assert (refused.verdict, refused.reason, refused.status) == ("refuse", "long_field", 431)
        resumed = parse_request_head(head, size, scanned=parse_request_head(before + row, size).scanned)
        assert parts(resumed) == parts(refused)


def test_bound_on_the_head() -> None:
    head = fields(b"X: y", b"Y: z")
    assert parse_request_head(head + BEHIND, max_head=len(head)).verdict == "take"
    assert parse_request_head(head[:-2], max_head=len(head) - 1).verdict == "more"
    for data in (head, head[:-1]):
        refused = parse_request_head(data, max_head=len(head) - 1)
        assert (refused.verdict, refused.reason, refused.status) == ("refuse", "large_head", 431)
    assert parse_response_head(answered(b"X: y"), max_head=24).reason == "large_head"
    assert parse_response_head(answered(b"X: y"), max_head=25).verdict == "take"


def test_a_head_that_never_ends_is_refused_at_its_bound() -> None:
    head = b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 50
    parsed, came = feed(lambda data, **how: parse_request_head(data, 100, 200, **how), head, list(range(1, len(head))))
    assert (parsed.verdict, parsed.reason, came) == ("refuse", "large_head", 200)


@pytest.mark.parametrize(
    ("max_line", "max_head", "scanned"), [(0, 9, 0), (9, 0, 0), (9, 2**31, 0), (9, 9, 4), (9, 9, -1)]
)
def test_wrong_arguments(max_line: int, max_head: int, scanned: int) -> None:
    for parse in (parse_request_head, parse_response_head):
        with pytest.raises(ValueError, match="expected"):
            parse(b"GET", max_line, max_head, scanned=scanned)


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (b"close", True),
        (b"a, CLOSE ,b", True),
        (b"closed", False),
        (b"a close", False),
        (b"", False),
        (b",\tclose", True),
    ],
)
def test_token_in_a_list(value: bytes, found: bool) -> None:
    assert list_has_token(value, b"close") is found


def decode(data: bytes, ends: list[int]) -> tuple[bytes, str, bytes]:
    """The data, how it ended, and what came behind the end."""
    decoder, out, start = ChunkDecoder(), b"", 0
    for end in ends:
        out += decoder.feed(data[start:end])
        start = end
    return out, "ended" if decoder.ended else "broken" if decoder.broken else "more", decoder.rest


@pytest.mark.parametrize("vector", BODIES, ids=ids(BODIES))
def test_body_in_any_split(vector: Body) -> None:
    data = vector.data
    expected = (vector.content, vector.end, b"")
    assert decode(data, [len(data)]) == expected
    assert decode(data, list(range(1, len(data) + 1))) == expected
    step = 1 if len(data) < 2000 else 97
    for split in range(1, len(data), step):
        assert decode(data, [split, len(data)]) == expected
    if vector.end != "more":
        behind = BEHIND if vector.end == "ended" else b""
        assert decode(data + BEHIND, [len(data) + len(BEHIND)]) == (vector.content, vector.end, behind)
        assert decode(data + BEHIND, list(range(1, len(data) + len(BEHIND) + 1))) == (
            vector.content,
            vector.end,
            behind,
        )


def test_a_broken_body_stays_broken() -> None:
    decoder = ChunkDecoder()
    assert decoder.feed(b"zz") == b""
    assert decoder.feed(b"1\r\nx\r\n0\r\n\r\n") == b""
    assert (decoder.broken, decoder.ended, decoder.rest) == (True, False, b"")
