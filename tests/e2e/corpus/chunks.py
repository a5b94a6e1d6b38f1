"""Chunked bodies (RFC 9112 section 7.1): sizes, extensions, line ends, trailers."""

from tests.e2e.corpus.vector import (
    BAD,
    CHAT,
    CHUNKED,
    LAST,
    LENIENT,
    MARK,
    SERVED,
    WHOLE_CHUNK,
    HalfClose,
    Vector,
    chunked,
    get,
    lines,
    post,
    vector,
)
from tests.support.gateway import APP_KEY

N = len(CHAT)
HEX = b"%x" % N
LATE = ("408 closed",)
TOO_MUCH = ("400 closed", "413 closed", "431 closed")


def _size(name: str, line: bytes, ends: tuple[str, ...] = BAD, *, split: bool = False) -> Vector:
    """One chunk with this for its size line, CR LF included."""
    return vector(f"chunk-{name}", "7.1", chunked(line + CHAT + b"\r\n" + LAST), ends, split=split)


SIZES = (
    _size("plain", HEX + b"\r\n", SERVED, split=True),
    _size("upper-case", HEX.upper() + b"\r\n", SERVED),
    _size("leading-zeros", b"000" + HEX + b"\r\n", SERVED),
    _size("sixteen-digits", HEX.rjust(16, b"0") + b"\r\n", SERVED),
    _size("seventeen-digits-of-zeros", HEX.rjust(17, b"0") + b"\r\n", LENIENT),
    _size("four-hundred-zeros", HEX.rjust(400, b"0") + b"\r\n", LENIENT),
    _size("all-ones", b"f" * 16 + b"\r\n", TOO_MUCH, split=True),
    _size("over-int63", b"8000000000000000\r\n", TOO_MUCH),
    _size("wraps-at-64-bit", b"1" + HEX.rjust(16, b"0") + b"\r\n", TOO_MUCH),
    _size("wraps-at-32-bit", b"1" + HEX.rjust(8, b"0") + b"\r\n", (*TOO_MUCH, *LATE)),
    _size("prefixed", b"0x" + HEX + b"\r\n", split=True),
    _size("plus", b"+" + HEX + b"\r\n"),
    _size("minus", b"-" + HEX + b"\r\n"),
    _size("underscore", HEX[:1] + b"_" + HEX[1:] + b"\r\n"),
    _size("space-before", b" " + HEX + b"\r\n"),
    _size("tab-before", b"\t" + HEX + b"\r\n"),
    _size("space-behind", HEX + b" \r\n", split=True),
    _size("tab-behind", HEX + b"\t\r\n"),
    _size("empty", b"\r\n"),
    _size("no-digit", b"g\r\n"),
    _size("letter-behind", HEX + b"h\r\n"),
    _size("nul-behind", HEX + b"\x00\r\n"),
    _size("quoted", b'"' + HEX + b'"\r\n'),
    _size("two-numbers", HEX + b" " + HEX + b"\r\n"),
    _size("no-break-space", b"\xa0" + HEX + b"\r\n"),
    _size("decimal-point", HEX + b".0\r\n"),
    _size("comma", HEX + b",\r\n"),
    _size("lf-only", HEX + b"\n", split=True),
    _size("cr-only", HEX + b"\r", BAD),
    _size("cr-cr-lf", HEX + b"\r\r\n"),
    _size("crlf-before", b"\r\n" + HEX + b"\r\n"),
)

EXTENSIONS = (
    _size("extension", HEX + b";a=b\r\n", SERVED, split=True),
    _size("extension-without-value", HEX + b";a\r\n", SERVED),
    _size("extension-quoted", HEX + b';a="b;c"\r\n', SERVED),
    _size("extensions-two", HEX + b";a=b;c=d\r\n", SERVED),
    _size("extension-with-spaces", HEX + b" ; a = b\r\n", LENIENT),
    _size("extension-empty", HEX + b";\r\n", LENIENT),
    _size("extension-without-size", b";a=b\r\n"),
    _size("extension-nul", HEX + b";a=\x00\r\n"),
    _size("extension-control", HEX + b";a=\x1b\r\n"),
    _size("extension-lf-only", HEX + b";a=b\n"),
    _size("extension-bare-lf-inside", HEX + b";a\nb\r\n", split=True),
    _size("extension-bare-cr-inside", HEX + b";a\rb\r\n", split=True),
    _size("extension-quoted-crlf", HEX + b';a="\r\n"\r\n', BAD),
    _size("extension-of-a-kilobyte", HEX + b";a=" + b"b" * 1024 + b"\r\n", TOO_MUCH),
    _size("extension-of-70-kilobytes", HEX + b";a=" + b"b" * 70_000 + b"\r\n", TOO_MUCH),
    vector(
        "chunk-extensions-that-never-end", "7.1.1",
        chunked(b"".join(b"1;a=" + b"b" * 1024 + b"\r\n%c\r\n" % byte for byte in CHAT) + LAST), TOO_MUCH,
    ),
    vector(
        "chunk-last-extension", "7.1", chunked(WHOLE_CHUNK + b"0;a=b\r\n\r\n"), SERVED,
    ),
)  # fmt: skip

HALF = N // 2
EDGES = (
    vector("chunks-two", "7.1", chunked(b"%x\r\n%s\r\n%x\r\n%s\r\n" % (HALF, CHAT[:HALF], N - HALF, CHAT[HALF:]) + LAST), SERVED),
    vector("chunks-of-one-byte", "7.1", chunked(b"".join(b"1\r\n%c\r\n" % byte for byte in CHAT) + LAST), SERVED),
    vector("chunk-data-longer", "7.1", chunked(b"%x\r\n%s\r\n" % (N - 1, CHAT) + LAST), BAD, split=True),
    vector("chunk-data-shorter", "7.1", chunked(b"%x\r\n%s\r\n" % (N + 1, CHAT) + LAST), BAD),
    vector("chunk-data-shorter-by-two", "7.1", chunked(b"%x\r\n%s\r\n" % (N + 2, CHAT) + LAST), BAD),
    vector("chunk-data-end-missing", "7.1", chunked(HEX + b"\r\n" + CHAT + LAST), BAD, split=True),
    vector("chunk-data-end-lf", "7.1", chunked(HEX + b"\r\n" + CHAT + b"\n" + LAST), BAD, split=True),
    vector("chunk-data-end-cr", "7.1", chunked(HEX + b"\r\n" + CHAT + b"\r" + LAST), BAD),
    vector("chunk-data-end-other", "7.1", chunked(HEX + b"\r\n" + CHAT + b"xx" + LAST), BAD),
    vector("chunk-data-end-lf-lf", "7.1", chunked(HEX + b"\r\n" + CHAT + b"\n\n" + LAST), BAD),
    vector("chunk-last-two-zeros", "7.1", chunked(WHOLE_CHUNK + b"00\r\n\r\n"), SERVED),
    vector("chunk-last-prefixed", "7.1", chunked(WHOLE_CHUNK + b"0x0\r\n\r\n"), BAD),
    vector("chunk-last-minus-zero", "7.1", chunked(WHOLE_CHUNK + b"-0\r\n\r\n"), BAD),
    vector("chunk-last-lf-only", "7.1", chunked(WHOLE_CHUNK + b"0\n\n"), BAD),
    vector("chunk-last-lf-then-crlf", "7.1", chunked(WHOLE_CHUNK + b"0\n\r\n"), BAD),
    vector("chunk-last-crlf-then-lf", "7.1", chunked(WHOLE_CHUNK + b"0\r\n\n"), BAD, split=True),
    vector("chunk-last-ends-in-cr", "7.1", chunked(WHOLE_CHUNK + b"0\r\n\rX"), BAD),
    vector("chunk-last-missing", "7.1", chunked(WHOLE_CHUNK), LATE),
    vector("chunk-last-without-its-empty-line", "7.1", chunked(WHOLE_CHUNK + b"0\r\n"), LATE),
    vector("chunk-last-missing-and-half-closed", "8", (chunked(WHOLE_CHUNK), HalfClose()), ("400 closed", "408 closed", "closed")),
    vector("chunk-cut-and-half-closed", "8", (chunked(WHOLE_CHUNK[:20]), HalfClose()), ("400 closed", "408 closed", "closed")),
    vector("chunks-none", "7.1", chunked(LAST), ("400 open", "400 closed")),
    vector("chunks-then-a-request", "9.3.2", chunked(WHOLE_CHUNK + LAST) + get(), ("200 200 open",), relayed=1, split=True),
    vector("chunks-then-a-bad-request", "9.3.2", chunked(WHOLE_CHUNK + LAST) + b"ab cd\r\n\r\n", ("200 400 closed",)),
    vector("chunks-then-a-chat", "9.3.2", chunked(WHOLE_CHUNK + LAST) + post(), ("200 200 open",)),
    vector("chunks-over-the-bound", "9110 15.5.14", chunked(b"100000\r\n" + b"a" * 0x100000 + b"\r\n1\r\na\r\n" + LAST), ("413 open", "413 closed")),
    vector("chunk-that-announces-too-much", "9110 15.5.14", chunked(b"7fffffff\r\n" + CHAT), ("413 closed", "408 closed", "400 closed")),
)  # fmt: skip


def _trailer(name: str, text: bytes, ends: tuple[str, ...] = LENIENT, *, split: bool = False) -> Vector:
    """A chunked body with this trailer section; whatever it says, none of it may count or go on."""
    hidden = (b"x-trailer", b"cookie")
    return vector(f"trailer-{name}", "7.1.2", chunked(WHOLE_CHUNK + b"0\r\n" + text), ends, hidden=hidden, split=split)


TRAILERS = (
    _trailer("one", b"x-trailer: a\r\n\r\n", SERVED, split=True),
    _trailer("two", b"x-trailer: a\r\nx-trailer: b\r\n\r\n", SERVED),
    _trailer("empty-value", b"x-trailer:\r\n\r\n", SERVED),
    _trailer("length", b"Content-Length: 5\r\n\r\n"),
    _trailer("coding", b"Transfer-Encoding: chunked\r\n\r\n"),
    _trailer("host", b"Host: elsewhere\r\n\r\n"),
    _trailer("authorization", b"Authorization: Bearer nobody\r\n\r\n"),
    _trailer("cookie", b"Cookie: a=b\r\n\r\n"),
    _trailer("connection", b"Connection: close\r\n\r\n", ("200 open", "200 closed", "400 closed")),
    _trailer("content-type", b"Content-Type: text/plain\r\n\r\n"),
    _trailer("of-seventy-kilobytes", b"x-trailer: " + b"a" * 70_000 + b"\r\n\r\n", TOO_MUCH),
    _trailer("of-ten-thousand-lines", b"x-trailer: a\r\n" * 10_000 + b"\r\n", TOO_MUCH),
    _trailer("without-colon", b"x-trailer\r\n\r\n", BAD),
    _trailer("without-name", b": a\r\n\r\n", BAD),
    _trailer("space-before-colon", b"x-trailer : a\r\n\r\n", BAD, split=True),
    _trailer("folded", b"x-trailer: a\r\n b\r\n\r\n", BAD),
    _trailer("first-line-folded", b" x-trailer: a\r\n\r\n", BAD),
    _trailer("lf-only", b"x-trailer: a\n\r\n", BAD, split=True),
    _trailer("bare-cr", b"x-trailer: a\rb\r\n\r\n", BAD),
    _trailer("nul", b"x-trailer: a\x00b\r\n\r\n", BAD),
    _trailer("bad-name", b"x(trailer): a\r\n\r\n", BAD),
    _trailer("that-is-a-request", b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    vector(
        "trailer-announced", "9110 6.6.2",
        chunked(WHOLE_CHUNK + b"0\r\nx-trailer: a\r\n\r\n", b"Trailer: x-trailer", b"TE: trailers", b"Connection: TE"),
        SERVED, hidden=(b"x-trailer", b"trailer", b"te"),
    ),
)  # fmt: skip


def _upload(name: str, body: bytes, ends: tuple[str, ...], relayed: int | None = None) -> Vector:
    """A body that is streamed on as it comes: what reached the upstream before the fault must not look whole."""
    head = lines(
        b"POST /v1/files HTTP/1.1", b"Host: a", b"Authorization: Bearer " + APP_KEY.encode(),
        b"Content-Type: multipart/form-data; boundary=x", b"x-vector: " + MARK, CHUNKED,
    )  # fmt: skip
    return vector(f"upload-{name}", "7.1", head + body, ends, relayed=relayed)


UPLOADS = (
    _upload("chunked", b"3\r\nabc\r\n" + LAST, SERVED, 1),
    _upload("chunked-with-extension", b"3;a=b\r\nabc\r\n" + LAST, SERVED, 1),
    _upload("chunked-with-trailer", b"3\r\nabc\r\n0\r\nx-trailer: a\r\n\r\n", SERVED, 1),
    _upload("bad-first-size", b"zz\r\nabc\r\n" + LAST, BAD, 0),
    _upload("bad-second-size", b"3\r\nabc\r\nzz\r\n" + LAST, BAD, 0),
    _upload("bad-end", b"3\r\nabcd\r\n" + LAST, BAD, 0),
    _upload("lf-only", b"3\nabc\r\n" + LAST, BAD, 0),
    _upload("bad-trailer", b"3\r\nabc\r\n0\r\nx trailer: a\r\n\r\n", BAD, 0),
    _upload("never-ended", b"3\r\nabc\r\n", LATE, 0),
)

VECTORS = SIZES + EXTENSIONS + EDGES + TRAILERS + UPLOADS
