"""Header sections: line ends, folding, names, values, bounds, and fields that may come once (RFC 9112 section 5)."""

from tests.e2e.corpus.vector import (
    BAD,
    BAD_OR_GONE,
    CHAT,
    LENIENT,
    SERVED,
    TOO_LARGE,
    Vector,
    get,
    lines,
    post,
    sized,
    vector,
)
from tests.support.gateway import APP_KEY

START = b"GET /health HTTP/1.1"
BEARER = b"Authorization: Bearer " + APP_KEY.encode()


def _ends(name: str, data: bytes, ends: tuple[str, ...] = BAD, *, split: bool = True) -> Vector:
    return vector(f"line-{name}", "2.2", data, ends, split=split)


LINE_ENDS = (
    _ends("lf-after-the-request-line", START + b"\nHost: a\r\n\r\n"),
    _ends("lf-after-a-field", START + b"\r\nHost: a\nx-a: b\r\n\r\n"),
    _ends("lf-after-the-last-field", START + b"\r\nHost: a\n\r\n"),
    _ends("lf-for-the-empty-line", START + b"\r\nHost: a\r\n\n"),
    _ends("lf-lf-at-the-end", START + b"\r\nHost: a\n\n"),
    _ends("lf-everywhere", START + b"\nHost: a\n\n"),
    _ends("cr-after-the-request-line", START + b"\rHost: a\r\n\r\n"),
    _ends("cr-after-a-field", START + b"\r\nHost: a\rx-a: b\r\n\r\n"),
    _ends("cr-for-the-empty-line", START + b"\r\nHost: a\r\n\rx\r\n\r\n"),
    _ends("cr-everywhere", START + b"\rHost: a\r\r", ("400 closed", "408 closed", "closed"), split=False),
    _ends("cr-cr-lf-after-the-request-line", START + b"\r\r\nHost: a\r\n\r\n"),
    _ends("cr-cr-lf-after-a-field", START + b"\r\nHost: a\r\r\n\r\n"),
    _ends("lf-cr-after-a-field", START + b"\r\nHost: a\n\r\n\r\n"),
    _ends("cr-inside-the-target", b"GET /hea\rlth HTTP/1.1\r\nHost: a\r\n\r\n"),
    _ends("lf-inside-the-target", b"GET /hea\nlth HTTP/1.1\r\nHost: a\r\n\r\n"),
    _ends("cr-before-the-version", b"GET /health \rHTTP/1.1\r\nHost: a\r\n\r\n"),
    _ends("crlf-before-the-request", b"\r\n" + get(), SERVED),
    _ends("two-crlf-before-the-request", b"\r\n\r\n" + get(), LENIENT),
    _ends("lf-before-the-request", b"\n" + get(), BAD_OR_GONE),
    _ends("cr-before-the-request", b"\r" + get(), BAD_OR_GONE),
    _ends("many-crlf-before-the-request", b"\r\n" * 20_000 + get(), BAD_OR_GONE, split=False),
    _ends("crlf-between-requests", get() + b"\r\n" + get(), ("200 200 open",)),
    vector("line-crlf-behind-a-body", "2.2", post() + b"\r\n" + get(), ("200 200 open",), relayed=1),
    _ends("space-before-the-request", b" " + get(), BAD_OR_GONE),
    _ends("tab-before-the-request", b"\t" + get(), BAD_OR_GONE),
    _ends("nul-before-the-request", b"\x00" + get(), BAD_OR_GONE),
    _ends("unicode-line-separator", START + b"\r\nHost: a\xe2\x80\xa8x-a: b\r\n\r\n"),
    _ends("next-line-byte", START + b"\r\nHost: a\x85x-a: b\r\n\r\n"),
)


def _fold(name: str, *fields: bytes) -> Vector:
    return vector(f"fold-{name}", "5.2", lines(START, *fields), BAD, split=True)


FOLDS = (
    _fold("by-space", b"Host: a", b"x-a: b", b" c"),
    _fold("by-tab", b"Host: a", b"x-a: b", b"\tc"),
    _fold("of-the-last-field", b"x-a: b", b"Host: a", b" c"),
    _fold("of-the-host", b"Host: a", b" b"),
    _fold("before-the-first-field", b" Host: a"),
    _fold("before-the-first-field-by-tab", b"\tx-a: b", b"Host: a"),
    _fold("that-is-only-space", b"Host: a", b" "),
    _fold("that-looks-like-a-field", b"Host: a", b" x-a: b"),
)


def _name(name: str, line: bytes, ends: tuple[str, ...] = BAD, *, split: bool = False) -> Vector:
    return vector(f"name-{name}", "5.1, 9110 5.1", get(line), ends, split=split)


DELIMITERS = b'"(),/;<=>?@[\\]{}'
NAMES = (
    _name("space-before-colon", b"x-a : b", split=True),
    _name("tab-before-colon", b"x-a\t: b", split=True),
    _name("space-inside", b"x a: b"),
    _name("empty", b": b", split=True),
    _name("empty-and-value-empty", b":"),
    _name("without-colon", b"x-a", split=True),
    _name("only-a-space", b" "),
    _name("nul", b"x\x00a: b"),
    _name("delete", b"x\x7fa: b"),
    _name("control", b"x\x1ba: b"),
    _name("latin-1", b"x\xe9a: b"),
    _name("utf-8", b"x\xc3\xa9a: b"),
    _name("no-break-space-behind", b"x-a\xa0: b"),
    _name("two-colons", b"x-a:: b", SERVED),
    _name("all-token-characters", b"!#$%&'*+-.^_`|~09azAZ: b", SERVED),
    _name("one-letter", b"a: b", SERVED),
    _name("pseudo", b":method: GET"),
    _name("that-is-a-request-line", b"GET /health HTTP/1.1"),
    *(_name(f"delimiter-{byte:02x}", b"x%ca: b" % byte) for byte in DELIMITERS),
)


def _value(name: str, value: bytes, ends: tuple[str, ...] = BAD, *, split: bool = False) -> Vector:
    return vector(f"value-{name}", "5.5, 9110 5.5", get(b"x-a:" + value), ends, split=split)


CONTROLS = [byte for byte in (*range(0x20), 0x7F) if byte not in b"\t\r\n"]
VALUES = (
    _value("empty", b"", SERVED),
    _value("only-space", b"  \t ", SERVED),
    _value("without-space", b"b", SERVED),
    _value("tab-inside", b" b\tc", SERVED, split=True),
    _value("space-behind", b" b  \t", SERVED),
    _value("colons", b" b: c: d", SERVED),
    _value("all-visible", b" " + bytes(range(0x21, 0x7F)), SERVED),
    _value("cr", b" b\rc", split=True),
    _value("lf", b" b\nc", split=True),
    _value("cr-behind", b" b\r\r\n"),
    _value("nul-behind", b" b\x00"),
    _value("nul-before", b"\x00 b"),
    *(_value(f"control-{byte:02x}", b" b%cc" % byte, split=byte == 0) for byte in CONTROLS),
    vector("value-obs-text", "5.5, 9110 5.5", post(b"x-a: caf\xe9 \xff\x80"), SERVED, shown=((b"x-a", b"caf\xe9 \xff\x80"),)),
    vector("value-utf-8", "5.5, 9110 5.5", post(b"x-a: caf\xc3\xa9"), SERVED, shown=((b"x-a", b"caf\xc3\xa9"),)),
    vector("value-no-break-space-at-its-ends", "5.5", post(b"x-a: \xa0b\xa0"), SERVED, shown=((b"x-a", b"\xa0b\xa0"),)),
    vector("value-tab-inside-goes-on", "5.5", post(b"x-a: b\tc"), SERVED, shown=((b"x-a", b"b\tc"),)),
    vector("value-quotes-go-on", "5.5", post(b'x-a: "b, c";d'), SERVED, shown=((b"x-a", b'"b, c";d'),)),
    vector("value-percent-crlf-goes-on-as-it-is", "5.5", post(b"x-a: %0d%0aSet-Cookie: a"), SERVED, shown=((b"x-a", b"%0d%0aSet-Cookie: a"),)),
    vector("value-nul-of-a-chat", "5.5", post(b"x-a: b\x00c"), BAD, split=True),
    vector("value-cr-of-a-chat", "5.5", post(b"x-a: b\rx-b: c"), BAD, split=True),
    vector("value-request-id-with-a-line", "5.5", post(b"x-request-id: a\nx-b: c"), BAD),
)  # fmt: skip

BOUNDS = (
    vector("bound-fifty-fields", "5", get(*(b"x-%d: a" % number for number in range(50))), SERVED),
    vector("bound-three-hundred-fields", "5, 6585 5", get(*(b"x-%d: a" % number for number in range(300))), TOO_LARGE),
    vector("bound-five-thousand-fields", "5, 6585 5", get(*(b"a:" for _ in range(5000))), TOO_LARGE),
    vector("bound-three-kilobytes-of-value", "5", get(b"x-a: " + b"b" * 3000), SERVED),
    vector("bound-large-value", "5, 6585 5", get(b"x-a: " + b"b" * 40_000), TOO_LARGE),
    vector("bound-huge-value", "5, 6585 5", get(b"x-a: " + b"b" * 1_000_000), TOO_LARGE),
    vector("bound-large-name", "5, 6585 5", get(b"x" * 40_000 + b": b"), TOO_LARGE),
    vector("bound-endless-name", "5, 6585 5", START + b"\r\n" + b"x" * 300_000, TOO_LARGE),
    vector("bound-large-in-all", "5, 6585 5", get(*(b"x-%d: " % number + b"a" * 1000 for number in range(12))), TOO_LARGE),
    vector("bound-large-white-space", "5", get(b"x-a:" + b" " * 40_000 + b"b"), TOO_LARGE),
    vector("bound-large-head-of-a-chat", "5, 6585 5", post(b"x-a: " + b"b" * 40_000), TOO_LARGE),
)  # fmt: skip


def _single(name: str, data: bytes, ends: tuple[str, ...] = BAD) -> Vector:
    return vector(f"single-{name}", "9110 5.3", data, ends)


REFUSED_KEY = (*BAD, "400 open", "401 open", "401 closed")
SINGLE = (
    _single("authorization-twice-same", post(BEARER)),
    _single("authorization-twice-other-last", post(b"Authorization: Bearer another")),
    _single("authorization-twice-other-first", lines(
        b"POST /v1/chat/completions HTTP/1.1", b"Host: a", b"Authorization: Bearer another", BEARER,
        b"Content-Type: application/json", b"x-vector: 00000000", sized(),
    ) + CHAT),
    _single("authorization-twice-on-an-open-endpoint", get(b"Authorization: a b", b"Authorization: c d")),
    _single("content-type-twice-different", post(b"Content-Type: text/plain")),
    _single("content-type-twice-same", post(b"Content-Type: application/json")),
    _single("authorization-list", post(b"Authorization: Bearer a, Bearer b", key=None), ends=REFUSED_KEY),
    _single("authorization-empty", post(b"Authorization:", key=None), ends=REFUSED_KEY),
    _single("authorization-none", post(key=None), ends=("401 open", "401 closed")),
    _single("authorization-obs-text", post(b"Authorization: Bearer \xff\xfe", key=None), ends=REFUSED_KEY),
    _single("content-type-none", post(kind=None), ends=SERVED),
    _single("content-type-list", post(kind=b"application/json, text/plain"), ends=("415 open", "415 closed")),
    _single("content-type-plain", post(kind=b"text/plain"), ends=("415 open", "415 closed")),
    _single("content-type-with-charset", post(kind=b"application/json; charset=utf-8"), ends=SERVED),
    _single("content-type-upper-case", post(kind=b"APPLICATION/JSON"), ends=SERVED),
    vector("single-others-may-repeat", "9110 5.3", post(b"x-a: b", b"x-a: c"), SERVED, shown=((b"x-a", b"b"), (b"x-a", b"c"))),
    vector("coding-of-content-gzip", "9110 8.4", post(b"Content-Encoding: gzip"), ("415 open", "415 closed")),
    vector("coding-of-content-identity", "9110 8.4", post(b"Content-Encoding: identity"), ("200 open", "415 open")),
    vector("coding-of-content-list", "9110 8.4", post(b"Content-Encoding: identity, gzip"), ("415 open", "415 closed")),
    vector("coding-of-content-twice", "9110 8.4", post(b"Content-Encoding: identity", b"Content-Encoding: gzip"), ("415 open", "415 closed", *BAD)),
    vector("coding-of-content-unknown", "9110 8.4", post(b"Content-Encoding: cow"), ("415 open", "415 closed")),
)  # fmt: skip


def _host(name: str, line: bytes, ends: tuple[str, ...] = BAD, *, split: bool = False) -> Vector:
    return vector(f"host-{name}", "3.2, 9110 7.2", lines(START, line), ends, split=split)


HOSTS = (
    vector("host-missing", "3.2", get(host=None), BAD, split=True),
    vector("host-missing-of-a-chat", "3.2", post(host=None), BAD),
    vector("host-twice-same", "3.2", get(b"Host: gateway.test"), BAD, split=True),
    vector("host-twice-different", "3.2", get(b"Host: elsewhere"), BAD),
    vector("host-twice-other-case", "3.2", get(b"hOsT: elsewhere"), BAD),
    vector("host-twice-far-apart", "3.2", get(*(b"x-%d: a" % number for number in range(20)), b"Host: b"), BAD),
    vector("host-last", "3.2", get(b"x-a: b", b"Host: a", host=None), SERVED),
    _host("empty", b"Host:", LENIENT),
    _host("name", b"Host: a", SERVED),
    _host("name-and-port", b"Host: a:8080", SERVED),
    _host("name-and-empty-port", b"Host: a:", SERVED),
    _host("port-65535", b"Host: a:65535", SERVED),
    _host("port-65536", b"Host: a:65536", split=True),
    _host("port-99999999", b"Host: a:99999999"),
    _host("port-negative", b"Host: a:-1"),
    _host("port-plus", b"Host: a:+80"),
    _host("port-hexadecimal", b"Host: a:0x50"),
    _host("port-letters", b"Host: a:http"),
    _host("port-twice", b"Host: a:80:80"),
    _host("port-with-space", b"Host: a: 80"),
    _host("ip-v4", b"Host: 127.0.0.1:80", SERVED),
    _host("ip-v6", b"Host: [::1]:80", SERVED),
    _host("ip-v6-open", b"Host: [::1"),
    _host("ip-v6-bare", b"Host: ::1"),
    _host("ip-v6-none", b"Host: [zz]"),
    _host("ip-v6-empty", b"Host: []"),
    _host("ip-v6-too-long", b"Host: [1:2:3:4:5:6:7:8:9]"),
    _host("ip-v6-trailing", b"Host: [::1]a"),
    _host("percent", b"Host: a%41", SERVED),
    _host("percent-broken", b"Host: a%zz"),
    _host("userinfo", b"Host: user@a", split=True),
    _host("userinfo-and-password", b"Host: user:word@a"),
    _host("path", b"Host: a/health"),
    _host("path-and-query", b"Host: a/health?"),
    _host("query", b"Host: a?b"),
    _host("fragment", b"Host: a#b"),
    _host("backslash", b"Host: a\\b"),
    _host("url", b"Host: http://a"),
    _host("space", b"Host: a b"),
    _host("tab", b"Host: a\tb"),
    _host("list", b"Host: a, b"),
    _host("quoted", b'Host: "a"'),
    _host("angle-brackets", b"Host: <a>"),
    _host("latin-1", b"Host: caf\xe9"),
    _host("utf-8", b"Host: caf\xc3\xa9"),
    _host("nul", b"Host: a\x00b"),
    _host("space-before-colon", b"Host : a"),
    _host("space-before-name", b" Host: a"),
)

VECTORS = LINE_ENDS + FOLDS + NAMES + VALUES + BOUNDS + SINGLE + HOSTS
