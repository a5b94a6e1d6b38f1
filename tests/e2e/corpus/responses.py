"""What an upstream may answer, rightly framed and wrongly, to a JSON request and to a stream (RFC 9112 sections 4 to 8).

What may become of it at the client:

- ``relay``: status 200, the same body, ended as its framing says;
- ``refused``: a clean JSON error of the gateway's own (502, 503 or 504);
- ``broken``: begun, and visibly not ended: no last chunk, and in a stream an error event and no terminator;
- a bare status: that status without a body.
"""

import gzip
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from tests.support.strict import STREAM, WHOLE, Reaction

Kind = Literal["json", "sse"]
End = Literal["keep", "fin", "rst", "hang"]
Framing = Literal["length", "chunked", "close", "none"]
Edit = Callable[[bytes], bytes]

BODIES: dict[Kind, bytes] = {"json": WHOLE, "sse": STREAM}
TYPES: dict[Kind, bytes] = {"json": b"application/json", "sse": b"text/event-stream"}
SIZE = b"{n}"
"""Stands in a field for the size of the body."""

RELAY = ("relay",)
REFUSED = ("refused",)
BROKEN = ("refused", "broken")
LENIENT = ("relay", "refused")
"""The RFC leaves it to the recipient; what the client gets must be whole and right all the same."""


@dataclass(frozen=True)
class Response:
    """An upstream's answer, and what must become of it."""

    name: str
    section: str
    """The section of RFC 9112 (or 9110, then named) that speaks of it."""
    outcomes: frozenset[str]
    start: bytes = b"HTTP/1.1 200 OK"
    fields: tuple[bytes, ...] = ()
    framing: Framing = "length"
    before: bytes = b""
    """Bytes ahead of the status line: interim answers."""
    after: bytes = b""
    """Bytes behind the body."""
    edit: Edit | None = None
    """A last change of all the bytes."""
    body: Edit | None = None
    """A change of the body, before it is framed."""
    typed: bool = True
    """With a Content-Type."""
    end: End = "keep"
    reusable: bool = False
    """Whole and harmless: its connection may serve again."""
    hidden: tuple[str, ...] = ()
    """Field names (lower case) that must not reach the client."""

    def content(self, kind: Kind) -> bytes:
        """The body that the client must get, if it gets any."""
        return BODIES[kind] if self.body is None else self.body(BODIES[kind])

    def reaction(self, kind: Kind, *, bytewise: bool) -> Reaction:
        """What the upstream does."""
        body = self.content(kind)
        fields = [field.replace(SIZE, b"%d" % len(body)) for field in self.fields]
        if self.typed:
            fields.insert(0, b"Content-Type: " + TYPES[kind])
        if self.framing == "length":
            fields.append(b"Content-Length: %d" % len(body))
        elif self.framing == "chunked":
            fields.append(b"Transfer-Encoding: chunked")
            half = len(body) // 2
            pieces = [body[:half], body[half:], b""] if half else [body, b""]
            body = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
        head = b"".join(line + b"\r\n" for line in (self.start, *fields)) + b"\r\n"
        data = self.before + head + body + self.after
        return Reaction(data if self.edit is None else self.edit(data), self.end, bytewise)


def response(
    name: str,
    section: str,
    outcomes: tuple[str, ...],
    *fields: bytes,
    start: bytes = b"HTTP/1.1 200 OK",
    framing: Framing = "length",
    before: bytes = b"",
    after: bytes = b"",
    edit: Edit | None = None,
    body: Edit | None = None,
    typed: bool = True,
    end: End = "keep",
    reusable: bool = False,
    hidden: tuple[str, ...] = (),
) -> Response:
    """See ``Response``."""
    return Response(
        name, section, frozenset(outcomes), start, fields, framing, before, after, edit, body, typed, end, reusable, hidden,
    )  # fmt: skip


def replaced(old: bytes, new: bytes) -> Edit:
    """The first ``old`` becomes ``new``."""
    return lambda data: data.replace(old, new, 1)


def in_head(old: bytes, new: bytes) -> Edit:
    """Every ``old`` of the head becomes ``new``."""

    def edit(data: bytes) -> bytes:
        at = data.index(b"\r\n\r\n") + 4
        return data[:at].replace(old, new) + data[at:]

    return edit


def without_end(size: int) -> Edit:
    """The last bytes are missing."""
    return lambda data: data[:-size]


def nothing(_: bytes) -> bytes:
    """No body."""
    return b""


def size_line(change: Edit) -> Edit:
    """The size of the first chunk is written otherwise."""

    def edit(data: bytes) -> bytes:
        at = data.index(b"\r\n\r\n") + 4
        end = data.index(b"\r\n", at)
        return data[:at] + change(data[at:end]) + data[end:]

    return edit


def interim(status: int, *fields: bytes) -> bytes:
    """An interim answer."""
    return b"".join(line + b"\r\n" for line in (b"HTTP/1.1 %d Interim" % status, *fields)) + b"\r\n"


def _status(name: str, start: bytes, outcomes: tuple[str, ...] = REFUSED, *, reusable: bool = False) -> Response:
    return response(f"status-{name}", "4", outcomes, start=start, reusable=reusable)


OTHER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 4\r\n\r\nevil"
HINT = interim(103, b"Link: </a>; rel=preload")

GOOD = (
    response("length", "6.3", RELAY, reusable=True),
    response("chunked", "7.1", RELAY, framing="chunked", reusable=True),
    response("chunked-other-case", "7", RELAY, framing="chunked", edit=replaced(b": chunked", b": CHUNKED"), reusable=True),
    response("chunk-extension", "7.1.1", RELAY, framing="chunked", edit=size_line(lambda line: line + b";a=b"), reusable=True),
    response("chunk-leading-zeros", "7.1", RELAY, framing="chunked", edit=size_line(lambda line: b"000" + line), reusable=True),
    response("chunk-upper-case", "7.1", RELAY, framing="chunked", edit=size_line(bytes.upper), reusable=True),
    response("chunked-trailer", "7.1.2", RELAY, framing="chunked", edit=replaced(b"\r\n0\r\n", b"\r\n0\r\nx-a: b\r\n"), reusable=True, hidden=("x-a",)),
    response("close-delimited", "6.3", RELAY, framing="close", end="fin"),
    response("close-announced-and-held-open", "9.6", RELAY, b"Connection: close"),
    response("close-announced-and-closed", "9.6", RELAY, b"Connection: close", end="fin"),
    response("close-announced-chunked", "9.6", RELAY, b"Connection: close", framing="chunked"),
    response("no-type", "9110 8.3", LENIENT, typed=False, reusable=True),
    response("length-leading-zero", "9110 8.6", LENIENT, b"Content-Length: 0{n}", framing="none", reusable=True),
    response("names-in-upper-case", "5.1", RELAY, edit=in_head(b"Content-Length", b"CONTENT-LENGTH"), reusable=True),
    response("obs-text-in-a-value", "5.5", RELAY, b"x-a: caf\xe9", reusable=True),
    response("empty-value", "5.5", RELAY, b"x-a:", reusable=True),
)  # fmt: skip

INTERIM = (
    response("interim-100", "9110 15.2.1", RELAY, before=interim(100), reusable=True),
    response("interim-102", "9110 15.2", RELAY, before=interim(102), reusable=True),
    response("interim-103", "8297", RELAY, before=HINT, reusable=True),
    response("interim-103-three-times", "8297", RELAY, before=HINT * 3, reusable=True),
    response("interim-100-and-103", "9110 15.2", RELAY, before=interim(100) + HINT, reusable=True),
    response("interim-unknown", "9110 15.2", RELAY, before=interim(199), reusable=True),
    response("interim-a-thousand-times", "9110 15.2", LENIENT, before=HINT * 1000, reusable=True),
    response("interim-with-a-length", "6.3", LENIENT, before=interim(103, b"Content-Length: 5"), reusable=True),
    response("interim-with-a-cookie", "9110 15.2", RELAY, before=interim(103, b"Set-Cookie: a=b"), hidden=("set-cookie",), reusable=True),
    response("interim-malformed", "4", REFUSED, before=interim(103, b"no colon")),
    response("interim-and-nothing-more", "9110 15.2", REFUSED, edit=lambda _: HINT, end="fin"),
    response("interim-and-silence", "9110 15.2", REFUSED, edit=lambda _: HINT, end="hang"),
    response("switching-protocols", "9110 15.2.2", REFUSED, b"Connection: Upgrade", b"Upgrade: websocket", start=b"HTTP/1.1 101 Switching"),
    response("switching-protocols-then-200", "9110 15.2.2", REFUSED, before=interim(101, b"Connection: Upgrade", b"Upgrade: h2c")),
)  # fmt: skip

BODILESS = (
    response("204", "9110 15.3.5", ("204", *REFUSED), start=b"HTTP/1.1 204 No Content", framing="none", body=nothing, reusable=True),
    response("204-with-length", "9110 8.6", ("204", *REFUSED), start=b"HTTP/1.1 204 No Content"),
    response("204-with-body", "6.3", ("204", *REFUSED), start=b"HTTP/1.1 204 No Content", framing="none"),
    response("204-chunked", "6.1", ("204", *REFUSED), start=b"HTTP/1.1 204 No Content", framing="chunked"),
    response("304", "9110 15.4.5", ("304", *REFUSED), start=b"HTTP/1.1 304 Not Modified", framing="none", body=nothing, reusable=True),
    response("304-with-length-and-body", "6.3", ("304", *REFUSED), start=b"HTTP/1.1 304 Not Modified"),
    response("304-with-body", "6.3", ("304", *REFUSED), start=b"HTTP/1.1 304 Not Modified", framing="none"),
)  # fmt: skip

STATUSES = (
    _status("reason-empty", b"HTTP/1.1 200 ", RELAY, reusable=True),
    _status("reason-absent", b"HTTP/1.1 200", LENIENT, reusable=True),
    _status("reason-long", b"HTTP/1.1 200 " + b"very " * 200, LENIENT, reusable=True),
    _status("reason-obs-text", b"HTTP/1.1 200 caf\xe9", RELAY, reusable=True),
    _status("reason-nul", b"HTTP/1.1 200 O\x00K", LENIENT),
    _status("reason-bare-cr", b"HTTP/1.1 200 O\rK", LENIENT),
    _status("99", b"HTTP/1.1 99 Low"),
    _status("099", b"HTTP/1.1 099 Low"),
    _status("000", b"HTTP/1.1 000 None"),
    _status("600", b"HTTP/1.1 600 High"),
    _status("999", b"HTTP/1.1 999 High"),
    _status("1000", b"HTTP/1.1 1000 High"),
    _status("20", b"HTTP/1.1 20 Short"),
    _status("2000", b"HTTP/1.1 2000 Long"),
    _status("negative", b"HTTP/1.1 -200 OK"),
    _status("plus", b"HTTP/1.1 +200 OK"),
    _status("hexadecimal", b"HTTP/1.1 0xc8 OK"),
    _status("word", b"HTTP/1.1 OK"),
    _status("fullwidth", b"HTTP/1.1 \xef\xbc\x92\xef\xbc\x90\xef\xbc\x90 OK"),
    _status("two-spaces", b"HTTP/1.1  200 OK"),
    _status("space-before", b" HTTP/1.1 200 OK"),
    _status("version-1.0", b"HTTP/1.0 200 OK", RELAY),
    _status("version-1.2", b"HTTP/1.2 200 OK", LENIENT, reusable=True),
    _status("version-2.0", b"HTTP/2.0 200 OK"),
    _status("version-0.9", b"HTTP/0.9 200 OK"),
    _status("version-lower-case", b"http/1.1 200 OK"),
    _status("version-of-another-protocol", b"ICY 200 OK"),
    _status("redirect", b"HTTP/1.1 302 Found", reusable=True),
    response("1.0-close-delimited", "6.3", RELAY, start=b"HTTP/1.0 200 OK", framing="close", end="fin"),
    response("1.0-keep-alive", "9.3", RELAY, b"Connection: keep-alive", start=b"HTTP/1.0 200 OK", reusable=True),
    response("1.0-chunked", "6.1", LENIENT, start=b"HTTP/1.0 200 OK", framing="chunked"),
    response("0.9", "2.3", REFUSED, edit=lambda _: WHOLE, end="fin"),
    response("empty", "4", REFUSED, edit=nothing, end="fin"),
    response("rubbish", "4", REFUSED, edit=lambda _: b"\x16\x03\x01\x00" * 50, end="fin"),
    response("rubbish-held-open", "4", REFUSED, edit=lambda _: b"\x16\x03\x01\x00\r\n\r\n"),
    response("request-as-answer", "4", REFUSED, edit=lambda _: b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
)  # fmt: skip

LENGTHS = (
    response("length-and-chunked", "6.3", LENIENT, b"Content-Length: {n}", framing="chunked"),
    response("length-and-chunked-contradicting", "6.3", LENIENT, b"Content-Length: 5", framing="chunked"),
    response("chunked-and-length-zero", "6.3", LENIENT, b"Content-Length: 0", framing="chunked"),
    response("length-twice-same", "6.3", LENIENT, b"Content-Length: {n}"),
    response("length-twice-different", "6.3", REFUSED, b"Content-Length: 5"),
    response("length-list-same", "6.3", LENIENT, b"Content-Length: {n}, {n}", framing="none"),
    response("length-list-different", "6.3", REFUSED, b"Content-Length: {n}, 5", framing="none"),
    *(
        response(f"length-{name}", "6.3, 9110 8.6", REFUSED, b"Content-Length: " + value, framing="none")
        for name, value in (
            ("negative", b"-1"), ("plus", b"+{n}"), ("word", b"many"), ("empty", b""), ("hexadecimal", b"0x10"),
            ("underscore", b"1_0"), ("decimal", b"{n}.0"), ("inner-space", b"1 0"), ("quoted", b'"{n}"'),
            ("arabic-digits", b"\xd9\xa1"), ("superscript", b"1\xb2"),
        )
    ),
    response("length-over-int64", "6.3", BROKEN, b"Content-Length: 99999999999999999999", framing="none", end="fin"),
    response("coding-gzip", "6.1", BROKEN, b"Transfer-Encoding: gzip", framing="none"),
    response("coding-identity", "6.1", BROKEN, b"Transfer-Encoding: identity", framing="none"),
    response("coding-chunked-twice", "6.1", REFUSED, b"Transfer-Encoding: chunked", framing="chunked"),
    response("coding-chunked-then-gzip", "6.1", BROKEN, b"Transfer-Encoding: chunked, gzip", framing="none"),
    response("coding-disguised", "6.1", REFUSED, b"Transfer-Encoding: xchunked"),
    response("coding-disguised-by-a-tab", "6.1", REFUSED, b"Transfer-Encoding: \x0bchunked"),
)  # fmt: skip

CUTS_AT: tuple[tuple[str, Framing, Edit, tuple[str, ...]], ...] = (
    ("head", "length", lambda data: data[:30], REFUSED),
    ("status-line", "length", lambda data: data[:10], REFUSED),
    ("before-the-body", "length", lambda data: data[: data.index(b"\r\n\r\n") + 4], BROKEN),
    ("half-a-length", "length", without_end(60), BROKEN),
    ("last-byte-of-a-length", "length", without_end(1), ("relay", *BROKEN)),
    ("within-a-chunk", "chunked", without_end(60), BROKEN),
    ("before-the-last-chunk", "chunked", without_end(5), ("relay", *BROKEN)),
    ("within-the-last-chunk", "chunked", without_end(2), ("relay", *BROKEN)),
    ("within-a-size", "chunked", lambda data: data[: data.index(b"\r\n\r\n") + 5], BROKEN),
)
ENDS: tuple[End, ...] = ("fin", "rst", "hang")
CUTS = tuple(
    response(f"cut-{name}-{end}", "8", outcomes, framing=framing, edit=edit, end=end)
    for end in ENDS
    for name, framing, edit, outcomes in CUTS_AT
)
"""Where all of the answer has come and only its framing has not, a stream that has had its terminator is whole."""

CHUNKS = tuple(
    response(f"chunk-{name}", "7.1", BROKEN, framing="chunked", edit=size_line(change))
    for name, change in (
        ("overflow", lambda _: b"f" * 17),
        ("wraps-at-64-bit", lambda line: b"1" + line.rjust(16, b"0")),
        ("all-ones", lambda _: b"f" * 16),
        ("negative", lambda line: b"-" + line),
        ("plus", lambda line: b"+" + line),
        ("prefixed", lambda line: b"0x" + line),
        ("underscore", lambda line: line[:1] + b"_" + line[1:]),
        ("no-number", lambda _: b"zz"),
        ("empty", lambda _: b""),
        ("space-behind", lambda line: line + b" "),
        ("space-before", lambda line: b" " + line),
        ("nul", lambda line: line + b"\x00"),
        ("too-small", lambda line: b"%x" % (int(line, 16) - 1)),
        ("too-large", lambda line: b"%x" % (int(line, 16) + 1)),
        ("extension-of-70-kilobytes", lambda line: line + b";" + b"a" * 70_000),
        ("bare-lf", lambda line: line + b";a\nb"),
        ("bare-cr", lambda line: line + b";a\rb"),
    )
)

SURPLUS = (
    response("surplus-bytes", "6.3", RELAY, after=b"xyz"),
    response("surplus-crlf", "2.2", RELAY, after=b"\r\n"),
    response("surplus-answer", "9.3", RELAY, after=OTHER),
    response("surplus-behind-chunked", "9.3", RELAY, framing="chunked", after=OTHER),
    response("surplus-interim", "9.3", RELAY, after=HINT),
    response("surplus-megabyte", "6.3", RELAY, after=b"x" * 1_000_000),
)

HEADS = (
    response("head-lf-only", "2.2", LENIENT, edit=in_head(b"\r\n", b"\n")),
    response("head-lf-after-the-status", "2.2", LENIENT, edit=replaced(b"OK\r\n", b"OK\n")),
    response("head-cr-only", "2.2", REFUSED, edit=in_head(b"\r\n", b"\r"), end="fin"),
    response("head-bare-cr-in-a-value", "2.2", LENIENT, b"x-request-cost: a\rSet-Cookie: b=c", hidden=("set-cookie",)),
    response("head-bare-cr-in-the-type", "2.2", LENIENT, b"Content-Language: en\rSet-Cookie: b=c", hidden=("set-cookie",)),
    response("head-bare-lf-in-a-value", "2.2", LENIENT, b"Content-Language: en\nSet-Cookie: b=c", hidden=("set-cookie",)),
    response("head-folded", "5.2", LENIENT, b"Content-Language: en,\r\n de"),
    response("head-folded-coding", "5.2", LENIENT, b"x-a: b\r\n Transfer-Encoding: chunked"),
    response("head-first-line-folded", "2.2", LENIENT, edit=replaced(b"OK\r\n", b"OK\r\n ")),
    response("head-no-colon", "5", REFUSED, b"no colon here"),
    response("head-no-name", "5.1", REFUSED, b": value"),
    response("head-space-before-colon", "5.1", LENIENT, b"x-a : b"),
    response("head-space-before-colon-of-the-length", "5.1", LENIENT, b"Content-Length : {n}", framing="none"),
    response("head-space-in-a-name", "5.1", REFUSED, b"x a: b"),
    response("head-delimiter-in-a-name", "5.1", REFUSED, b"x(a): b"),
    response("head-nul-in-a-value", "5.5", LENIENT, b"Content-Language: e\x00n", hidden=("content-language",)),
    response("head-nul-in-a-name", "5.1", REFUSED, b"x\x00a: b"),
    response("head-control-in-a-value", "5.5", LENIENT, b"Content-Language: e\x1bn", hidden=("content-language",)),
    response("head-large-value", "5", REFUSED, b"x-a: " + b"a" * 300_000),
    response("head-large-in-all", "5", REFUSED, *(b"x-%d: " % number + b"a" * 1000 for number in range(300))),
    response("head-of-ten-thousand-fields", "5", REFUSED, *(b"x-%d: a" % number for number in range(10_000))),
    response("head-endless", "5", REFUSED, edit=lambda _: b"HTTP/1.1 200 OK\r\n" + b"a" * 1_000_000),
)  # fmt: skip

FOREIGN = (
    response(
        "foreign-fields", "9110 7.6", RELAY, b"Set-Cookie: a=b", b"Set-Cookie2: a=b", b"Server: upstream-x", b"openai-organization: org-1",
        b"openai-project: proj-1", b"Via: 1.1 inner", b"X-Powered-By: y", b"Strict-Transport-Security: max-age=1", b"Alt-Svc: h3=a",
        b"CF-Ray: 1", b"Location: http://inner/", b"WWW-Authenticate: Basic", b"x-request-id: theirs", b"Refresh: 0", reusable=True,
        hidden=("set-cookie", "set-cookie2", "openai-organization", "openai-project", "via", "x-powered-by", "alt-svc",
                "strict-transport-security", "cf-ray", "location", "www-authenticate", "refresh"),
    ),
    response(
        "foreign-hop-by-hop", "9110 7.6.1", RELAY, b"Keep-Alive: timeout=5", b"Proxy-Authenticate: Basic", b"Upgrade: h2c",
        b"Proxy-Connection: keep-alive", b"TE: trailers", b"Trailer: x-a",
        reusable=True, hidden=("keep-alive", "proxy-authenticate", "upgrade", "proxy-connection", "te", "trailer"),
    ),
    response("foreign-named-by-connection", "9110 7.6.1", RELAY, b"Connection: x-codex-a", b"x-codex-a: b", hidden=("x-codex-a",), reusable=True),
    response("foreign-named-in-other-case", "9110 7.6.1", RELAY, b"connection: keep-alive, X-CODEX-A", b"x-codex-a: b", hidden=("x-codex-a",), reusable=True),
    response("foreign-names-its-length", "9110 7.6.1", LENIENT, b"Connection: Content-Length", reusable=True),
    response("foreign-names-its-type", "9110 7.6.1", LENIENT, b"Connection: Content-Type", reusable=True),
    response("foreign-limits-twice", "9110 5.3", RELAY, b"x-ratelimit-limit-requests: 1", b"x-ratelimit-limit-requests: 2", reusable=True),
    response("foreign-gzip", "9110 8.4", LENIENT, b"Content-Encoding: gzip", body=partial(gzip.compress, mtime=0), reusable=True),
    response("foreign-coding-unknown", "9110 8.4", LENIENT, b"Content-Encoding: cow", reusable=True),
    response("foreign-html", "9110 8.3", REFUSED, b"Content-Type: text/html", typed=False, body=lambda _: b"<html>inner.example</html>", reusable=True),
)  # fmt: skip

VECTORS = GOOD + INTERIM + BODILESS + STATUSES + LENGTHS + CUTS + CHUNKS + SURPLUS + HEADS + FOREIGN
