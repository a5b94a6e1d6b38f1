"""Request lines: method, target, version, and what is no HTTP/1 at all (RFC 9112 section 3)."""

from tests.e2e.corpus.vector import (
    BAD,
    BAD_OR_GONE,
    BAD_VERSION,
    HOST,
    LENIENT,
    NOWHERE,
    SERVED,
    TOO_LARGE,
    Vector,
    get,
    lines,
    post,
    vector,
)

FIELD = b"Host: " + HOST
REFUSED_METHOD = ("400 closed", "404 open", "404 closed", "405 open", "405 closed", "501 open", "501 closed")


def _line(name: str, start: bytes, ends: tuple[str, ...] = BAD, *, split: bool = True) -> Vector:
    return vector(f"start-{name}", "3", lines(start, FIELD), ends, split=split)


STARTS = (
    _line("two-spaces-first", b"GET  /health HTTP/1.1"),
    _line("two-spaces-second", b"GET /health  HTTP/1.1"),
    _line("tab-first", b"GET\t/health HTTP/1.1"),
    _line("tab-second", b"GET /health\tHTTP/1.1"),
    _line("vertical-tab", b"GET\x0b/health HTTP/1.1"),
    _line("no-break-space", b"GET\xa0/health HTTP/1.1"),
    _line("space-behind", b"GET /health HTTP/1.1 "),
    _line("tab-behind", b"GET /health HTTP/1.1\t"),
    _line("word-behind", b"GET /health HTTP/1.1 x"),
    _line("no-version", b"GET /health", BAD_VERSION),
    _line("no-version-but-space", b"GET /health ", BAD_VERSION),
    _line("no-target", b"GET HTTP/1.1"),
    _line("empty-target", b"GET  HTTP/1.1"),
    _line("method-only", b"GET"),
    _line("method-and-space", b"GET "),
    _line("one-word", b"hello"),
    _line("no-space", b"GET/health HTTP/1.1"),
    _line("only-spaces", b"   "),
    _line("nul-behind", b"GET /health HTTP/1.1\x00"),
    vector("start-0.9", "2.3", b"GET /health\r\n", (*BAD_OR_GONE, "505 closed"), split=True),
    vector("start-0.9-lf", "2.3", b"GET /health\n", (*BAD_OR_GONE, "505 closed"), split=True),
    vector("start-0.9-chat", "2.3", b"POST /v1/chat/completions\r\n\r\n", (*BAD_OR_GONE, "505 closed")),
)


def _version(name: str, version: bytes, ends: tuple[str, ...] = BAD_VERSION, *, split: bool = False) -> Vector:
    return vector(f"version-{name}", "2.3", get(version=version), ends, split=split)


VERSIONS = (
    _version("1.1", b"HTTP/1.1", SERVED, split=True),
    _version("1.2", b"HTTP/1.2", ("200 open", *BAD_VERSION)),
    _version("1.9", b"HTTP/1.9", ("200 open", *BAD_VERSION)),
    _version("0.9", b"HTTP/0.9"),
    _version("2.0", b"HTTP/2.0", split=True),
    _version("3.0", b"HTTP/3.0"),
    _version("9.9", b"HTTP/9.9"),
    _version("lower-case", b"http/1.1", split=True),
    _version("mixed-case", b"Http/1.1"),
    _version("two-digits", b"HTTP/1.10"),
    _version("leading-zero", b"HTTP/01.1"),
    _version("no-minor", b"HTTP/1"),
    _version("no-minor-but-dot", b"HTTP/1."),
    _version("no-major", b"HTTP/.1"),
    _version("comma", b"HTTP/1,1"),
    _version("no-slash", b"HTTP1.1"),
    _version("space-for-slash", b"HTTP 1.1"),
    _version("space-inside", b"HTTP/ 1.1"),
    _version("negative", b"HTTP/-1.1"),
    _version("plus", b"HTTP/+1.1"),
    _version("three-parts", b"HTTP/1.1.1"),
    _version("fullwidth", b"HTTP/\xef\xbc\x91.1"),
    _version("other-protocol", b"HTTPS/1.1"),
    _version("sip", b"SIP/2.0"),
    _version("rtsp", b"RTSP/1.0"),
)


def _method(name: str, method: bytes, ends: tuple[str, ...] = REFUSED_METHOD, *, split: bool = False) -> Vector:
    return vector(f"method-{name}", "3.1, 9110 9.1", lines(method + b" /health HTTP/1.1", FIELD), ends, split=split)


METHODS = (
    _method("lower-case", b"get", split=True),
    _method("mixed-case", b"Get"),
    _method("unknown", b"BREW"),
    _method("all-token-characters", b"!#$%&'*+-.^_`|~09AZ"),
    _method("trace", b"TRACE"),
    _method("put", b"PUT"),
    _method("delete", b"DELETE"),
    _method("track", b"TRACK"),
    _method("pri", b"PRI", (*REFUSED_METHOD, "505 closed")),
    _method("long", b"A" * 1000, (*REFUSED_METHOD, "414 closed")),
    _method("over-long", b"A" * 40_000, (*TOO_LARGE, "501 closed")),
    vector("method-endless", "3", b"A" * 300_000, (*TOO_LARGE, "501 closed")),
    _method("parenthesis", b"GET()", BAD),
    _method("slash", b"GET/", BAD),
    _method("quoted", b'"GET"', BAD),
    _method("at-sign", b"@GET", BAD_OR_GONE),
    _method("latin-1", b"G\xc9T", BAD),
    _method("utf-8", b"G\xc3\x89T", BAD),
    _method("nul", b"GET\x00", BAD),
    _method("escape", b"\x1b[31mGET", BAD_OR_GONE),
    vector("method-head", "9110 9.3.2", lines(b"HEAD /health HTTP/1.1", FIELD), SERVED, heads=frozenset({0}), split=True),
    vector("method-head-nowhere", "9110 9.3.2", lines(b"HEAD /nowhere HTTP/1.1", FIELD), NOWHERE, heads=frozenset({0})),
    vector("method-get-of-a-chat", "9110 15.5.6", get(target=b"/v1/chat/completions"), REFUSED_METHOD, relayed=0),
    vector("method-lower-case-of-a-chat", "3.1", post().replace(b"POST", b"post", 1), REFUSED_METHOD, relayed=0),
    vector("method-connect", "3.2.3, 9110 9.3.6", lines(b"CONNECT a:443 HTTP/1.1", FIELD), REFUSED_METHOD, split=True),
    vector("method-connect-to-a-path", "3.2.3", lines(b"CONNECT /health HTTP/1.1", FIELD), REFUSED_METHOD),
)  # fmt: skip


def _target(name: str, target: bytes, ends: tuple[str, ...] = BAD, *, split: bool = False) -> Vector:
    return vector(f"target-{name}", "3.2", get(target=target), ends, split=split)


def _chat_at(name: str, target: bytes, ends: tuple[str, ...] = NOWHERE, relayed: int | None = 0) -> Vector:
    return vector(f"target-{name}", "3.2, 9110 4.2.3", post(target=target), ends, relayed=relayed)


OPTIONS_ENDS = ("200 open", "204 open", "404 open", "404 closed", "405 open", "405 closed", "501 open", "501 closed")
TARGETS = (
    _target("query", b"/health?a=b", SERVED),
    _target("empty-query", b"/health?", SERVED),
    _target("two-question-marks", b"/health?a?b", SERVED),
    _target("fragment", b"/health#a", split=True),
    _target("empty-fragment", b"/health#"),
    _target("fragment-behind-query", b"/health?a#b"),
    _target("space", b"/hea lth"),
    _target("space-in-query", b"/health?a b"),
    _target("without-slash", b"health", split=True),
    _target("backslash", b"\\health"),
    _target("query-only", b"?a=b"),
    _target("delete", b"/health\x7f"),
    _target("nul", b"/health\x00", split=True),
    _target("control", b"/health\x01"),
    _target("latin-1", b"/health\xe9"),
    _target("utf-8", b"/health?\xc3\xa9"),
    _target("quotes-in-query", b'/health?"<>', LENIENT),
    _target("brackets-in-query", b"/health?[]{}|^`", LENIENT),
    _target("bad-percent-in-query", b"/health?%zz", LENIENT),
    _target("encoded-nul", b"/health%00", NOWHERE),
    _target("encoded-line", b"/health%0d%0ax:y", NOWHERE),
    _target("bad-percent", b"/%zz", NOWHERE),
    _target("cut-percent", b"/health%", NOWHERE),
    _target("dot-segment", b"/./health", NOWHERE),
    _target("dot-dot-segment", b"/a/../health", NOWHERE),
    _target("dot-dot-at-the-root", b"/../health", NOWHERE),
    _target("encoded-dot-dot", b"/a/%2e%2e/health", NOWHERE),
    _target("half-encoded-dot-dot", b"/a/.%2E/health", NOWHERE),
    _target("double-slash", b"//health", NOWHERE),
    _target("double-slash-host", b"//elsewhere/health", NOWHERE),
    _target("trailing-slash", b"/health/", NOWHERE),
    _target("parameter", b"/health;a=b", NOWHERE),
    _target("upper-case", b"/HEALTH", NOWHERE),
    _target("encoded-letter", b"/%68ealth", ("200 open", *NOWHERE)),
    _target("long", b"/health?" + b"a" * 3000, SERVED),
    _target("over-long", b"/health?" + b"a" * 40_000, TOO_LARGE),
    _target("huge", b"/health?" + b"a" * 1_000_000, TOO_LARGE),
    _chat_at("of-a-chat-with-dots", b"/v1/../v1/chat/completions"),
    _chat_at("of-a-chat-with-encoded-dots", b"/v1/%2e%2e/v1/chat/completions"),
    _chat_at("of-a-chat-that-leaves-the-api", b"/v1/files/../../admin"),
    _chat_at("of-a-chat-with-encoded-slash", b"/v1/chat%2fcompletions"),
    _chat_at("of-a-chat-with-double-slash", b"/v1//chat/completions"),
    _chat_at("of-a-chat-with-backslash", b"/v1/chat\\completions"),
    _chat_at("of-a-chat-in-upper-case", b"/v1/CHAT/completions"),
    _chat_at("of-a-chat-with-trailing-slash", b"/v1/chat/completions/"),
    _chat_at("of-a-chat-with-encoded-nul", b"/v1/chat/completions%00"),
    _chat_at("of-a-chat-with-a-fragment", b"/v1/chat/completions#a", BAD),
    _chat_at("of-a-chat-with-query", b"/v1/chat/completions?a=b", SERVED, 1),
    vector("target-asterisk", "3.2.4", lines(b"OPTIONS * HTTP/1.1", FIELD), OPTIONS_ENDS, split=True),
    vector("target-asterisk-of-a-get", "3.2.4", get(target=b"*"), NOWHERE),
    vector("target-asterisk-and-more", "3.2.4", lines(b"OPTIONS *a HTTP/1.1", FIELD), NOWHERE),
    vector("target-authority-of-a-get", "3.2.3", get(target=b"a:80"), BAD),
)

MISMATCH = ("200 open", "400 closed", "400 open", "421 open", "421 closed")
ABSOLUTE = (
    _target("absolute", b"http://gateway.test/health", SERVED, split=True),
    _target("absolute-other-case", b"HTTP://GATEWAY.test/health", LENIENT),
    _target("absolute-with-port", b"http://gateway.test:80/health", MISMATCH),
    _target("absolute-other-authority", b"http://elsewhere/health", MISMATCH),
    _target("absolute-https", b"https://gateway.test/health", MISMATCH),
    _target("absolute-without-path", b"http://gateway.test", ("404 open", "404 closed", "400 closed")),
    _target("absolute-query-without-path", b"http://gateway.test?a=/health", ("404 open", "404 closed", "400 closed")),
    _target("absolute-userinfo", b"http://user@gateway.test/health", split=True),
    _target("absolute-userinfo-and-password", b"http://user:word@gateway.test/health"),
    _target("absolute-empty-host", b"http:///health"),
    _target("absolute-port-over-range", b"http://gateway.test:65536/health"),
    _target("absolute-port-negative", b"http://gateway.test:-1/health"),
    _target("absolute-bad-host", b"http://gate way/health"),
    _target("absolute-bad-address", b"http://[::1/health"),
    _target("absolute-backslash-host", b"http://a\\b/health"),
    _target("absolute-fragment", b"http://gateway.test/health#a"),
    _target("absolute-other-scheme", b"ftp://gateway.test/health", NOWHERE),
    _target("absolute-file", b"file:///health", NOWHERE),
    _target("absolute-one-slash", b"http:/health", NOWHERE),
    _target("absolute-dots", b"http://gateway.test/a/../health", NOWHERE),
    _chat_at("absolute-of-a-chat", b"http://gateway.test/v1/chat/completions", SERVED, 1),
    vector("target-absolute-without-host", "3.2.2", get(target=b"http://gateway.test/health", host=None), BAD),
    vector("target-absolute-bad-host-field", "3.2.2", get(target=b"http://a/health", host=b"a b"), BAD),
)

HELLO = bytes.fromhex(
    "16030100c4010000c00303000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
    "20e0e1e2e3e4e5e6e7e8e9eaebecedeeeff0f1f2f3f4f5f6f7f8f9fafbfcfdfeff000813021303130100ff01000077"
)
OTHERS = (
    vector("other-http-2-preface", "9113 3.4", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", (*BAD_VERSION, "closed"), split=True),
    vector("other-tls-hello", "3", HELLO, BAD_OR_GONE, split=True),
    vector("other-tls-hello-with-line", "3", HELLO + b"\r\n\r\n", BAD_OR_GONE),
    vector("other-old-ssl", "3", b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10", BAD_OR_GONE),
    vector("other-socks", "3", b"\x05\x01\x00", BAD_OR_GONE),
    vector("other-proxy-protocol", "3", b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n" + get(), (*BAD_VERSION, "closed"), split=True),
    vector("other-proxy-protocol-2", "3", b"\r\n\r\n\x00\r\nQUIT\n", BAD_OR_GONE),
    vector("other-ssh", "3", b"SSH-2.0-OpenSSH_9.6\r\n", (*BAD_VERSION, "closed"), split=True),
    vector("other-smtp", "3", b"EHLO a.example\r\n", (*BAD_VERSION, "closed")),
    vector("other-redis", "3", b"*1\r\n$4\r\nPING\r\n", BAD_OR_GONE),
    vector("other-response", "3", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", (*BAD_VERSION, "closed"), split=True),
    vector("other-nuls", "3", bytes(1000), BAD_OR_GONE),
    vector("other-high-bytes", "3", b"\xff" * 1000, BAD_OR_GONE),
    vector("other-shell", "3", b"() { :;}; echo a\r\n\r\n", BAD_OR_GONE),
    vector("other-json", "3", b'{"jsonrpc":"2.0"}\n', BAD_OR_GONE),
    vector("other-chunk", "3", b"0\r\n\r\n" + get(), BAD_OR_GONE, split=True),
)  # fmt: skip

VECTORS = STARTS + VERSIONS + METHODS + TARGETS + ABSOLUTE + OTHERS
