"""How long is this body? Lengths and transfer codings that contradict, repeat or disguise themselves."""

from tests.e2e.corpus.vector import (
    BAD,
    BAD_CODING,
    BAD_OR_GONE,
    CHAT,
    CHUNKED,
    LAST,
    LENIENT,
    SERVED,
    WHOLE_CHUNK,
    HalfClose,
    Vector,
    get,
    post,
    post_head,
    sized,
    vector,
)

N = len(CHAT)
SMUGGLED = post()
ENCODED = WHOLE_CHUNK + LAST


def _length(name: str, value: bytes, ends: tuple[str, ...] = BAD, *, split: bool = False) -> Vector:
    return vector(f"length-{name}", "6.3, 9110 8.6", post_head(b"Content-Length:" + value) + CHAT, ends, split=split)


LENGTHS = (
    _length("plain", b" %d" % N, SERVED, split=True),
    _length("no-space", b"%d" % N, SERVED),
    _length("tabs-around", b"\t%d\t" % N, SERVED),
    _length("many-spaces-around", b"    %d    " % N, SERVED),
    _length("leading-zeros", b" 000%d" % N, LENIENT),
    _length("forty-zeros", b" " + b"0" * 40 + b"%d" % N, LENIENT),
    _length("negative", b" -%d" % N, split=True),
    _length("minus-one", b" -1"),
    _length("plus", b" +%d" % N, split=True),
    _length("hexadecimal", b" 0x%x" % N),
    _length("letters", b" %x" % N),
    _length("underscore", b" 6_1"),
    _length("inner-space", b" 6 1"),
    _length("decimal", b" %d.0" % N),
    _length("exponent", b" 6e1"),
    _length("comma-only", b" ,"),
    _length("trailing-comma", b" %d," % N),
    _length("list-same", b" %d, %d" % (N, N), split=True),
    _length("list-different", b" %d, 0" % N),
    _length("quoted", b' "%d"' % N),
    _length("empty", b""),
    _length("word", b" many"),
    _length("semicolon", b" %d;a=b" % N),
    _length("arabic-digits", b" \xd9\xa6\xd9\xa1"),
    _length("fullwidth-digits", b" \xef\xbc\x96\xef\xbc\x91"),
    _length("superscript", b" 6\xb2"),
    _length("vertical-tab", b" \x0b%d" % N),
    _length("form-feed", b" \x0c%d" % N),
    _length("no-break-space", b" \xa0%d" % N),
    _length("nul-behind", b" %d\x00" % N),
    _length("bare-cr-behind", b" %d\r" % N + b" "),
    _length("over-int64", b" 9223372036854775808"),
    _length("wraps-at-64-bit", b" %d" % (2**64 + N)),
    _length("wraps-at-32-bit", b" %d" % (2**32 + N), ("400 closed", "413 closed")),
    _length("forty-digits", b" " + b"9" * 40),
    vector("length-twice-same", "6.3, 9110 8.6", post_head(sized(), sized()) + CHAT, BAD, split=True),
    vector("length-twice-different", "6.3, 9110 8.6", post_head(sized(), b"Content-Length: 0") + CHAT, BAD),
    vector("length-twice-shorter-first", "6.3", post_head(b"Content-Length: 5", sized()) + CHAT, BAD),
    vector("length-twice-other-case", "6.3", post_head(sized(), b"content-LENGTH: 0") + CHAT, BAD),
    vector("length-twice-second-broken", "6.3", post_head(sized(), b"Content-Length: x") + CHAT, BAD),
    vector("length-name-other-case", "5", post_head(b"cOnTeNt-lEnGtH: %d" % N) + CHAT, SERVED),
    vector("length-zero-of-a-chat", "6.3", post(body=b""), ("400 open", "400 closed")),
    vector("length-none-of-a-chat", "6.3", post_head(), ("400 open", "400 closed", "411 open", "411 closed")),
    vector("length-zero-of-a-get", "9110 9.3.1", get(b"Content-Length: 0"), SERVED),
    vector("length-of-a-get-with-body", "9110 9.3.1", get(b"Content-Length: 2") + b"{}", ("200 open", "200 closed", "400 closed")),
    vector("length-over-the-bound", "9110 15.5.14", post_head(b"Content-Length: 99999999"), ("413 closed",)),
    vector("length-too-short", "6.3", post() + b"ab cd\r\n\r\n", ("200 400 closed",), split=True),
    vector("length-too-short-by-json", "6.3", post(body=CHAT[:-1]) + b"} \r\n\r\n", ("400 400 closed", "400 closed")),
    vector("length-too-long", "6.3", post_head(b"Content-Length: %d" % (N + 9)) + CHAT, ("408 closed",)),
    vector(
        "length-too-long-and-half-closed", "8",
        (post_head(b"Content-Length: %d" % (N + 9)) + CHAT, HalfClose()), ("400 closed", "408 closed", "closed"),
    ),
    vector("length-by-an-underscored-name", "9110 5.1", post_head(b"Content_Length: %d" % N, b"Content-Length: 0"), ("400 open", *BAD)),
)  # fmt: skip


def _coding(
    name: str, *fields: bytes, ends: tuple[str, ...] = BAD_CODING, body: bytes = ENCODED, split: bool = False
) -> Vector:
    return vector(f"coding-{name}", "6.1, 7", post_head(*fields) + body, ends, split=split)


def _te(name: str, value: bytes, ends: tuple[str, ...] = BAD_CODING, *, split: bool = False) -> Vector:
    return _coding(name, b"Transfer-Encoding:" + value, ends=ends, split=split)


CODINGS = (
    _te("chunked", b" chunked", SERVED, split=True),
    _te("chunked-no-space", b"chunked", SERVED),
    _te("chunked-other-case", b" cHuNkEd", SERVED),
    _te("chunked-tabs-around", b"\tchunked\t", SERVED),
    _te("chunked-spaces-behind", b" chunked    ", SERVED),
    _te("trailing-comma", b" chunked,", ("200 open", *BAD_CODING)),
    _te("leading-comma", b" , chunked", ("200 open", *BAD_CODING)),
    _te("chunked-twice-in-a-list", b" chunked, chunked", split=True),
    _te("gzip-then-chunked", b" gzip, chunked"),
    _te("chunked-then-gzip", b" chunked, gzip"),
    _te("identity", b" identity"),
    _te("identity-then-chunked", b" identity, chunked"),
    _te("chunked-then-identity", b" chunked, identity", split=True),
    _te("empty", b""),
    _te("comma-only", b" ,"),
    _te("unknown", b" cow"),
    _te("unknown-then-chunked", b" cow, chunked"),
    _te("prefix", b" xchunked"),
    _te("suffix", b" chunkedx"),
    _te("cut", b" chunke"),
    _te("parameter", b" chunked;q=1"),
    _te("bare-parameter", b" chunked;"),
    _te("quoted", b' "chunked"'),
    _te("single-quoted", b" 'chunked'"),
    _te("by-spaces", b" chunked chunked"),
    _te("vertical-tab", b" \x0bchunked", split=True),
    _te("form-feed", b" \x0cchunked"),
    _te("nul-behind", b" chunked\x00"),
    _te("nul-inside", b" chu\x00nked"),
    _te("no-break-space", b" \xa0chunked"),
    _te("no-break-space-behind", b" chunked\xa0"),
    _te("em-space", b" \xe2\x80\x83chunked"),
    _te("byte-order-mark", b" \xef\xbb\xbfchunked"),
    _te("kelvin-sign", b" chun\xe2\x84\xaaed"),
    _te("folded", b"\r\n chunked"),
    _te("folded-by-tab", b"\r\n\tchunked"),
    _te("bare-lf-before", b"\n chunked"),
    _te("bare-cr-before", b"\r chunked"),
    _coding("twice", CHUNKED, CHUNKED),
    _coding("twice-second-identity", CHUNKED, b"Transfer-Encoding: identity"),
    _coding("twice-first-identity", b"Transfer-Encoding: identity", CHUNKED),
    _coding("twice-second-broken", CHUNKED, b"Transfer-Encoding: x"),
    _coding("space-before-colon", b"Transfer-Encoding : chunked", ends=BAD, split=True),
    _coding("tab-before-colon", b"Transfer-Encoding\t: chunked", ends=BAD),
    _coding("folded-name", b"x-a: b", b" Transfer-Encoding: chunked", ends=BAD),
    _coding("behind-bare-cr", b"x-a: b\rTransfer-Encoding: chunked", ends=BAD),
    _coding("behind-bare-lf", b"x-a: b\nTransfer-Encoding: chunked", ends=BAD),
    _coding("nul-in-name", b"Transfer-Encoding\x00: chunked", ends=BAD),
    _coding("underscored-name", b"Transfer_Encoding: chunked", sized(), ends=LENIENT, body=CHAT),
    _coding("other-header", b"X-Transfer-Encoding: chunked", sized(), ends=SERVED, body=CHAT),
)

CONTRADICTIONS = (
    vector(
        "cl-te", "6.3, 11.2", post_head(b"Content-Length: %d" % (len(LAST + SMUGGLED)), CHUNKED) + LAST + SMUGGLED,
        BAD, split=True,
    ),
    vector("te-cl", "6.3, 11.2", post_head(CHUNKED, b"Content-Length: 4") + b"%x\r\n%s\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED), BAD),
    vector("cl-te-agreeing", "6.3", post_head(b"Content-Length: %d" % len(ENCODED), CHUNKED) + ENCODED, BAD),
    vector("te-cl-agreeing", "6.3", post_head(CHUNKED, b"Content-Length: %d" % len(ENCODED)) + ENCODED, BAD),
    vector("cl-zero-te", "6.3", post_head(b"Content-Length: 0", CHUNKED) + ENCODED, BAD),
    vector("te-cl-broken", "6.3", post_head(CHUNKED, b"Content-Length: x") + ENCODED, BAD),
    vector("te-identity-cl", "6.1", post_head(b"Transfer-Encoding: identity", sized()) + CHAT, BAD_CODING),
    vector("te-empty-cl", "6.1", post_head(b"Transfer-Encoding:", sized()) + CHAT, BAD_CODING),
    vector("te-disguised-cl", "6.3", post_head(b"Transfer-Encoding: xchunked", sized()) + CHAT, BAD_CODING),
    vector("te-no-break-space-cl", "6.3", post_head(b"Transfer-Encoding:\xa0chunked", sized()) + CHAT, BAD_CODING),
    vector("cl-te-spaced", "5.1", post_head(sized(), b"Transfer-Encoding : chunked") + CHAT, BAD),
    vector("cl-te-behind-bare-lf", "2.2", post_head(sized(), b"x: y\nTransfer-Encoding: chunked") + CHAT, BAD),
    vector("cl-twice-te", "6.3", post_head(sized(), CHUNKED, sized()) + ENCODED, BAD),
    vector("te-in-1.0", "6.1", post_head(CHUNKED, version=b"HTTP/1.0") + ENCODED, BAD, split=True),
    vector("te-in-1.0-kept-alive", "6.1", post_head(CHUNKED, b"Connection: keep-alive", version=b"HTTP/1.0") + ENCODED, BAD),
    vector("te-and-cl-in-1.0", "6.1", post_head(CHUNKED, sized(), version=b"HTTP/1.0") + CHAT, BAD),
    vector("te-of-a-get", "9110 9.3.1", get(CHUNKED) + b"2\r\n{}\r\n" + LAST, ("200 open", "200 closed", "400 closed")),
    vector("te-of-a-get-smuggling", "9110 9.3.1", get(CHUNKED) + LAST + get(), ("200 200 open", "200 closed", "400 closed")),
    vector("body-that-is-a-request", "6.3", post(body=b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n"), ("400 open", "400 closed")),
    vector("bytes-of-a-body-nobody-announced", "6.3", get() + CHAT, ("200 400 closed",)),
    vector("nothing-but-a-body", "3", CHAT + b"\r\n\r\n", BAD_OR_GONE),
)  # fmt: skip

VECTORS = LENGTHS + CODINGS + CONTRADICTIONS
