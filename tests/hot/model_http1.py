"""How h11 and aiohttp's two parsers read HTTP/1.1, and the comparison with our reading.

The invariant: whatever ``parse_request_head`` takes, h11 and both parsers of aiohttp accept too, and read the same method,
target, fields, body and keep-alive; what it hands over they read the same way where they accept it. Likewise chunked
bodies against all three, and responses against h11. ``compare_*`` raise AssertionError where a reading differs.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from unittest.mock import Mock

import h11
from aiohttp import http_parser
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader

from agw_proxy._hot.http1 import ChunkDecoder, ParsedRequest, ParsedResponse, parse_request_head, parse_response_head

MAX_LINE = 8190  # aiohttp's default
MAX_HEAD = 32768
MAX_BODY = 4096  # longer ones are compared by their announced length only
NEXT = b"GET /next HTTP/1.1\r\nHost: b\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
KNOWN_METHODS = {b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"TRACE", b"PATCH"}
# In a trailer these may be refused by a reader that takes them for framing, or for two of what is there once.
SINGLE = {
    b"content-length", b"content-location", b"content-range", b"content-type", b"etag", b"host", b"max-forwards",
    b"server", b"transfer-encoding", b"user-agent", b"connection", b"upgrade",
    b"sec-websocket-key1", b"proxy-connection",
}  # fmt: skip

Fields = tuple[tuple[bytes, bytes], ...]


class RefusedError(Exception):
    """The other reader does not accept it."""


class Reading(NamedTuple):
    """One exchange as read; ``ended``: its body is whole. ``after``: what comes next is a request for ``/next``."""

    method: bytes
    target: bytes
    fields: Fields
    body: bytes
    ended: bool
    close: bool
    after: bool


def lowered(fields: Fields) -> Fields:
    """Fields with their names in lower case, and the names that Transfer-Encoding has for values: h11 gives it so."""
    return tuple(
        (name.lower(), value.lower() if name.lower() == b"transfer-encoding" else value) for name, value in fields
    )


def read_h11(data: bytes, followed: bool) -> Reading:
    """h11's reading of a request and, where it is ``followed`` by NEXT, of what comes behind it."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=2 * MAX_HEAD)
    body, ended, after = b"", False, False
    try:
        connection.receive_data(data)
        request = connection.next_event()
        if not isinstance(request, h11.Request):
            raise RefusedError("no whole head")
        while True:
            event = connection.next_event()
            if not isinstance(event, h11.Data):
                break
            body += bytes(event.data)
        ended = isinstance(event, h11.EndOfMessage)
        close = connection.their_state is h11.MUST_CLOSE
        if ended and followed and connection.their_state is h11.DONE:
            connection.send(h11.Response(status_code=204, headers=[]))
            connection.send(h11.EndOfMessage())
            connection.start_next_cycle()
            event = connection.next_event()
            after = isinstance(event, h11.Request) and event.target == b"/next"
    except h11.ProtocolError as error:
        raise RefusedError(str(error)) from error
    return Reading(
        bytes(request.method), bytes(request.target), tuple((bytes(n), bytes(v)) for n, v in request.headers),
        body, ended, close, after,
    )  # fmt: skip


def read_aiohttp(make: Any, data: bytes) -> Reading:
    """The reading of one of aiohttp's parsers."""
    parser = make(Mock(), Mock(), 1 << 24, max_line_size=MAX_LINE, max_field_size=MAX_LINE, auto_decompress=False)
    try:
        messages, _, _ = parser.feed_data(data)
    except HttpProcessingError as error:
        raise RefusedError(str(error)) from error
    if not messages:
        raise RefusedError("no whole head")
    message, payload = messages[0]
    ended, body = True, b""
    if payload is not EMPTY_PAYLOAD:
        assert isinstance(payload, StreamReader)
        if payload.exception() is not None:
            raise RefusedError(str(payload.exception()))
        ended, body = payload.is_eof(), payload.read_nowait()
    return Reading(
        message.method.encode(), message.path.encode("utf-8", "surrogateescape"), lowered(message.raw_headers), body,
        ended, message.should_close, len(messages) == 2 and messages[1][0].path == "/next",
    )  # fmt: skip


READERS: dict[str, Callable[[bytes, bool], Reading]] = {
    "h11": read_h11,
    "aiohttp in Python": lambda data, _: read_aiohttp(http_parser.HttpRequestParserPy, data),
    "aiohttp in C": lambda data, _: read_aiohttp(http_parser.HttpRequestParserC, data),
}


def readings(data: bytes, followed: bool) -> Iterator[tuple[str, Reading | RefusedError]]:
    """Each other reader's name and reading, or why it refuses."""
    for name, read in READERS.items():
        try:
            yield name, read(data, followed)
        except RefusedError as refused:
            yield name, refused


def body_of(parsed: ParsedRequest | ParsedResponse, data: bytes) -> tuple[bytes, bytes, bool]:
    """What the message is followed by on the wire, made whole where a length says so; its data; whether it is whole."""
    behind = data[parsed.size :]
    if parsed.chunked:
        decoder = ChunkDecoder()
        body = decoder.feed(behind)
        return behind[: len(behind) - len(decoder.rest)], body, decoder.ended
    if parsed.content_length > MAX_BODY:
        return b"", b"", False
    body = behind[: max(parsed.content_length, 0)].ljust(parsed.content_length, b"x")
    return body, body, True


def compare_request(data: bytes) -> str:
    """Hold our reading of a request against the others'; returns the verdict."""
    parsed = parse_request_head(data, MAX_LINE, MAX_HEAD)
    if parsed.verdict in {"more", "refuse"}:
        return parsed.verdict
    wire, body, ended = body_of(parsed, data)
    followed = ended and not parsed.close
    sent = data[: parsed.size] + wire + (NEXT if followed else b"")
    ours = Reading(parsed.method, parsed.target, lowered(parsed.fields), body, ended, parsed.close, followed)
    for name, theirs in readings(sent, followed):
        if isinstance(theirs, RefusedError):
            strange = name == "aiohttp in C" and parsed.method not in KNOWN_METHODS
            assert parsed.verdict == "hand_over" or strange, (name, "refuses", theirs, data)
        else:
            compare(name, parsed, ours, theirs)
    return parsed.verdict


def compare(name: str, parsed: ParsedRequest, ours: Reading, theirs: Reading) -> None:
    """Two readings of what we took, or handed over."""
    if name == "aiohttp in Python":  # it turns methods into upper case
        ours = ours._replace(method=ours.method.upper())
    if name == "h11" and not ours.ended:  # h11 knows whether a connection closes when the body has ended
        ours = ours._replace(close=False)
    if parsed.verdict == "take":
        assert theirs == ours, (name, theirs, ours)
    else:  # where a chunked body did not end, the others may have taken more of it than we do
        parts = 5 if ours.ended else 3
        assert theirs[:parts] == ours[:parts], (name, theirs, ours)


def compare_chunks(data: bytes) -> str:
    """Hold our reading of a chunked body against the others'; returns how it ended."""
    decoder = ChunkDecoder()
    body = decoder.feed(data)
    if decoder.broken:
        return "broken"
    wire = data[: len(data) - len(decoder.rest)]
    sent = CHUNKED + wire + (NEXT if decoder.ended else b"")
    for name, theirs in readings(sent, followed=True):
        if isinstance(theirs, RefusedError):
            assert not decoder.ended or is_strange(wire), (name, "refuses", theirs, data)
            continue
        assert (theirs.ended, theirs.after) == (decoder.ended, decoder.ended), (name, theirs, data)
        # Of an unfinished body a reader may hold some back.
        assert theirs.body == body or (not decoder.ended and body.startswith(theirs.body)), (name, theirs, body)
    return "ended" if decoder.ended else "more"


def is_strange(wire: bytes) -> bool:
    """Whether a whole body has what the grammar allows and others refuse.

    White space in a chunk's line (RFC 9112 section 7.1.1 has us accept it), or a trailer field that means something.
    """
    at = 0
    while True:
        end = wire.index(b"\r\n", at)
        row = wire[at:end]
        if b" " in row or b"\t" in row:
            return True
        size = int(row.partition(b";")[0], 16)
        at = end + 2
        if size == 0:
            names = [trailer.partition(b":")[0].lower() for trailer in wire[at:].split(b"\r\n")]
            return not SINGLE.isdisjoint(names)
        at += size + 2


def compare_response(data: bytes) -> str:
    """Hold our reading of a response to a GET against h11's; returns the verdict."""
    parsed = parse_response_head(data, MAX_LINE, MAX_HEAD)
    if parsed.verdict != "take":
        return parsed.verdict
    bodiless = parsed.status < 200 or parsed.status in {204, 304}
    wire, body, ended = (b"", b"", True) if bodiless else body_of(parsed, data)
    delimited = bodiless or parsed.chunked or parsed.content_length >= 0
    if not delimited:
        wire = body = data[parsed.size :]
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=2 * MAX_HEAD)
    connection.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
    connection.send(h11.EndOfMessage())
    try:
        connection.receive_data(data[: parsed.size] + wire)
        head = connection.next_event()
        got, event = b"", head
        if parsed.status >= 200:
            while isinstance(event := connection.next_event(), h11.Data):
                got += bytes(event.data)
            if not delimited:
                assert event is h11.NEED_DATA, (event, data)
                connection.receive_data(b"")
                event = connection.next_event()
    except h11.RemoteProtocolError as error:
        # h11 takes no 101 that it did not ask for; a chunked body may be broken, or have what others refuse.
        if parsed.status == 101 or (parsed.chunked and (not ended or is_strange(wire))):
            return parsed.verdict
        raise AssertionError("h11 refuses", data) from error
    assert isinstance(head, h11.Response | h11.InformationalResponse), (head, data)
    assert (head.status_code, head.http_version) == (parsed.status, b"1.%d" % parsed.minor)
    assert tuple((bytes(n), bytes(v)) for n, v in head.headers) == lowered(parsed.fields)
    if parsed.status >= 200:
        if ended or not parsed.chunked:
            assert isinstance(event, h11.EndOfMessage) == ended, (event, data)
            assert got == body, (got, body)
        if ended and delimited and parsed.minor == 1:  # h11 keeps no HTTP/1.0 connection
            assert (connection.their_state is h11.MUST_CLOSE) == parsed.close, data
    return parsed.verdict
