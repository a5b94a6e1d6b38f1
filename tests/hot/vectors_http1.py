"""Heads and chunked bodies as data: what arrives, and what is to be said of it."""

from typing import NamedTuple


class Head(NamedTuple):
    """A head, its verdict, and the reason's name where it is not plainly taken."""

    name: str
    data: bytes
    verdict: str
    reason: str = ""


class Body(NamedTuple):
    """A chunked body and its data; ``end``: "ended", "broken" or "more"."""

    name: str
    data: bytes
    end: str
    content: bytes = b""


SDK = (
    b"POST /v1/chat/completions HTTP/1.1\r\n"
    b"Host: gateway.internal:8080\r\n"
    b"Accept-Encoding: gzip, deflate, br, zstd\r\n"
    b"Connection: keep-alive\r\n"
    b"Accept: application/json\r\n"
    b"Content-Type: application/json\r\n"
    b"User-Agent: AsyncOpenAI/Python 2.8.1\r\n"
    b"X-Stainless-Lang: python\r\n"
    b"X-Stainless-Package-Version: 2.8.1\r\n"
    b"X-Stainless-OS: Linux\r\n"
    b"X-Stainless-Arch: x64\r\n"
    b"X-Stainless-Runtime: CPython\r\n"
    b"X-Stainless-Runtime-Version: 3.11.7\r\n"
    b"Authorization: Bearer sk-agw-0123456789abcdef0123456789abcdef0123456789abcdef\r\n"
    b"X-Stainless-Async: async:asyncio\r\n"
    b"OpenAI-Organization: org-0123456789abcdefghijklmn\r\n"
    b"OpenAI-Project: proj_0123456789abcdefghijklmn\r\n"
    b"x-stainless-retry-count: 0\r\n"
    b"x-stainless-read-timeout: 600\r\n"
    b"X-Request-ID: 7e0c1a52-1f2b-4d2c-9f5e-0a1b2c3d4e5f\r\n"
    b"Idempotency-Key: stainless-python-retry-7e0c1a52-1f2b-4d2c\r\n"
    b"Content-Length: 1500\r\n\r\n"
)
MAX_FIELDS = 100
MAX_TRAILER_BYTES = 4096
MAX_CHUNK_LINE = 64


def line(start: bytes) -> bytes:
    """A request with this request line and a Host."""
    return start + b"\r\nHost: a\r\n\r\n"


def fields(*lines: bytes) -> bytes:
    """A POST with a Host and these field lines."""
    return b"\r\n".join([b"POST /v1/x HTTP/1.1", b"Host: a", *lines]) + b"\r\n\r\n"


def hosted(value: bytes) -> bytes:
    """A GET with this Host."""
    return b"GET / HTTP/1.1\r\nHost: " + value + b"\r\n\r\n"


def answered(*lines: bytes, start: bytes = b"HTTP/1.1 200 OK") -> bytes:
    """A response with these field lines."""
    return b"\r\n".join([start, *lines]) + b"\r\n\r\n"


TAKEN = [
    Head("sdk", SDK, "take"),
    Head("least", line(b"GET / HTTP/1.1"), "take"),
    Head("query", line(b"GET /v1/models?a=b&c=%20?d HTTP/1.1"), "take"),
    Head("two slashes", line(b"GET //evil.example/x HTTP/1.1"), "take"),
    Head("all target bytes", line(b"GET /!\"$%&'()*+,-./09:;<=>?@AZ[\\]^_`az{|}~ HTTP/1.1"), "take"),
    Head("other method", line(b"DELETE /v1/files/1 HTTP/1.1"), "take"),
    Head("made-up method", line(b"!#$%&'*+-.^_`|~aZ09 / HTTP/1.1"), "take"),
    Head("length", fields(b"Content-Length: 5"), "take"),
    Head("no length", fields(b"Content-Length: 0"), "take"),
    Head("length with zeros", fields(b"Content-Length: 0000000000000000005"), "take"),
    Head("greatest length", fields(b"content-LENGTH: 9223372036854775807"), "take"),
    Head("length with a GET", b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n", "take"),
    Head("close", fields(b"Connection: close"), "take"),
    Head("CLOSE", fields(b"CONNECTION:CLOSE"), "take"),
    Head("keep-alive", fields(b"Connection: Keep-Alive"), "take"),
    Head("spaces around a value", fields(b"X: \t a \t b\t "), "take"),
    Head("empty value", fields(b"X:", b"Y: ", b"Z:\t"), "take"),
    Head("obs-text", fields(b"X: \x80\xff caf\xc3\xa9"), "take"),
    Head("all token bytes", fields(b"!#$%&'*+-.^_`|~09azAZ: x"), "take"),
    Head("a colon in a value", fields(b"X: y: z"), "take"),
    Head("names that look alike", fields(b"Content_Length: x", b"Hosts: b", b"Content-Lengths: y"), "take"),
    Head("repeated list", fields(b"Accept: a", b"Accept: b", b"Cookie: c", b"cookie: d"), "take"),
    Head("port", hosted(b"a:65535"), "take"),
    Head("port with zeros", hosted(b"a:00080"), "take"),
    Head("empty port", hosted(b"a:"), "take"),
    Head("address", hosted(b"127.0.0.1:8080"), "take"),
    Head("IPv6", hosted(b"[::1]"), "take"),
    Head("IPv6 and port", hosted(b"[2001:db8::192.0.2.33]:443"), "take"),
    Head("host bytes", hosted(b"a-._~!$&'()*+,;=%2f"), "take"),
    Head("coding of a body", fields(b"Content-Encoding: gzip"), "take"),
    Head("host last", b"GET / HTTP/1.1\r\nX: y\r\nHost: a\r\n\r\n", "take"),
    Head(
        "most fields",
        b"GET / HTTP/1.1\r\nHost: a\r\n" + b"".join(b"X-%d: y\r\n" % i for i in range(MAX_FIELDS - 1)) + b"\r\n",
        "take",
    ),
]

HANDED_OVER = [
    Head("1.0", b"GET / HTTP/1.0\r\n\r\n", "hand_over", "http_1_0"),
    Head("1.0 with host", line(b"GET / HTTP/1.0"), "hand_over", "http_1_0"),
    Head("1.0 kept", b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "hand_over", "http_1_0"),
    Head("1.0 expects", b"POST / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n", "hand_over", "http_1_0"),
    Head("absolute", line(b"GET http://a:80/b?c HTTP/1.1"), "hand_over", "absolute_form"),
    Head("absolute https", line(b"GET HTTPS://[::1]?c HTTP/1.1"), "hand_over", "absolute_form"),
    Head("absolute without path", line(b"GET http://a HTTP/1.1"), "hand_over", "absolute_form"),
    Head("absolute, @ in path", line(b"GET http://a/@b HTTP/1.1"), "hand_over", "absolute_form"),
    Head("asterisk", line(b"OPTIONS * HTTP/1.1"), "hand_over", "asterisk_form"),
    Head("empty host", hosted(b""), "hand_over", "empty_host"),
    Head("port alone", hosted(b":80"), "hand_over", "empty_host"),
    Head("chunked", fields(b"Transfer-Encoding: chunked"), "hand_over", "chunked_body"),
    Head("CHUNKED", fields(b"transfer-encoding:\tCHUNKED "), "hand_over", "chunked_body"),
    Head("expects", fields(b"Expect: 100-Continue", b"Content-Length: 1"), "hand_over", "continue_expected"),
    Head("upgrade", fields(b"Connection: upgrade", b"Upgrade: websocket"), "hand_over", "connection_option"),
    Head("upgrade alone", fields(b"Upgrade: h2c"), "hand_over", "upgrade_offered"),
    Head("old websocket", fields(b"Sec-WebSocket-Key1: x"), "hand_over", "upgrade_offered"),
    Head("option", fields(b"Connection: close, X-Hop"), "hand_over", "connection_option"),
    Head("two options", fields(b"Connection: close", b"Connection: keep-alive"), "hand_over", "connection_option"),
    Head("empty options", fields(b"Connection: ,close ,"), "hand_over", "connection_option"),
    Head("no option", fields(b"Connection:"), "hand_over", "connection_option"),
    Head("old option", fields(b"Proxy-Connection: close"), "hand_over", "connection_option"),
    Head("TE", fields(b"TE: trailers"), "hand_over", "trailers_offered"),
    Head("Trailer", fields(b"Trailer: x"), "hand_over", "trailers_offered"),
    Head(
        "codings of a body", fields(b"Content-Encoding: gzip", b"Content-Encoding: br"), "hand_over", "several_codings"
    ),
]

REFUSED = [
    Head("empty line first", b"\r\n" + line(b"GET / HTTP/1.1"), "refuse", "bad_request_line"),
    Head("LF first", b"\n" + line(b"GET / HTTP/1.1"), "refuse", "bare_lf"),
    Head("TLS", b"\x16\x03\x01\x02\x00\x01", "refuse", "control_byte"),
    Head("space first", b" GET / HTTP/1.1\r\n", "refuse", "bad_method"),
    Head("no token", b"G(T / HTTP/1.1\r\n", "refuse", "bad_method"),
    Head("method beyond ASCII", b"G\xc3\x89T / HTTP/1.1\r\n", "refuse", "bad_method"),
    Head("tab for a space", b"GET\t/ HTTP/1.1\r\n", "refuse", "bad_request_line"),
    Head("tab behind the target", b"GET /\tHTTP/1.1\r\n", "refuse", "bad_request_line"),
    Head("two spaces", b"GET  / HTTP/1.1\r\n", "refuse", "bad_request_line"),
    Head("two more spaces", b"GET /  HTTP/1.1\r\n", "refuse", "bad_version"),
    Head("space at the end", b"GET / HTTP/1.1 \r\n", "refuse", "bad_request_line"),
    Head("0.9", b"GET /\r\n", "refuse", "bad_request_line"),
    Head("only a method", b"GET\r\n", "refuse", "bad_request_line"),
    Head("lower-case version", b"GET / http/1.1\r\n", "refuse", "bad_version"),
    Head("long version", b"GET / HTTP/1.10\r\n", "refuse", "bad_request_line"),
    Head("longer version", b"GET / HTTP/11.1\r\n", "refuse", "bad_version"),
    Head("short version", b"GET / HTTP/1\r\n", "refuse", "bad_version"),
    Head("2.0", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "refuse", "unknown_version"),
    Head("1.2", b"GET / HTTP/1.2\r\n", "refuse", "unknown_version"),
    Head("0.9 in full", b"GET / HTTP/0.9\r\n", "refuse", "unknown_version"),
    Head("fragment", b"GET /a#b HTTP/1.1\r\n", "refuse", "bad_target"),
    Head("target beyond ASCII", b"GET /\xc3\xa9 HTTP/1.1\r\n", "refuse", "bad_target"),
    Head("control in the target", b"GET /\x01 HTTP/1.1\r\n", "refuse", "control_byte"),
    Head("DEL in the target", b"GET /\x7f HTTP/1.1\r\n", "refuse", "control_byte"),
    Head("no slash", b"GET v1 HTTP/1.1\r\n", "refuse", "bad_target"),
    Head("asterisk without OPTIONS", b"GET * HTTP/1.1\r\n", "refuse", "bad_target"),
    Head("authority", b"CONNECT a:443 HTTP/1.1\r\n", "refuse", "connect"),
    Head("authority without CONNECT", b"GET a:443 HTTP/1.1\r\n", "refuse", "bad_target"),
    Head("CONNECT with a path", b"CONNECT / HTTP/1.1\r\n", "refuse", "connect"),
    Head("user information", b"GET http://u:p@a/ HTTP/1.1\r\n", "refuse", "userinfo"),
    Head("another scheme", b"GET ftp://a/ HTTP/1.1\r\n", "refuse", "bad_target"),
    Head("scheme alone", b"GET http:// HTTP/1.1\r\n", "refuse", "bad_target"),
    Head("no authority", b"GET http:///a HTTP/1.1\r\n", "refuse", "bad_target"),
    Head("no host in the target", b"GET http://:80/ HTTP/1.1\r\n", "refuse", "bad_target"),
    Head("wrong port in the target", b"GET http://a:65536/ HTTP/1.1\r\n", "refuse", "bad_target"),
    Head("no host", b"GET / HTTP/1.1\r\n\r\n", "refuse", "no_host"),
    Head("two hosts", fields(b"host: a"), "refuse", "repeated_field"),
    Head("slash in the host", hosted(b"a/b"), "refuse", "bad_host"),
    Head("query in the host", hosted(b"x/health?"), "refuse", "bad_host"),
    Head("user in the host", hosted(b"a@b"), "refuse", "bad_host"),
    Head("two hosts in one", hosted(b"a b"), "refuse", "bad_host"),
    Head("host beyond ASCII", hosted(b"\xc3\xa9"), "refuse", "bad_host"),
    Head("half an escape", hosted(b"a%2"), "refuse", "bad_host"),
    Head("no escape", hosted(b"a%zz"), "refuse", "bad_host"),
    Head("great port", hosted(b"a:65536"), "refuse", "bad_host"),
    Head("long port", hosted(b"a:000080"), "refuse", "bad_host"),
    Head("port of letters", hosted(b"a:8o"), "refuse", "bad_host"),
    Head("two ports", hosted(b"a:1:2"), "refuse", "bad_host"),
    Head("open bracket", hosted(b"[::1"), "refuse", "bad_host"),
    Head("behind the bracket", hosted(b"[::1]a"), "refuse", "bad_host"),
    Head("no address", hosted(b"[::1::]"), "refuse", "bad_host"),
    Head("zone", hosted(b"[fe80::1%25eth0]"), "refuse", "bad_host"),
    Head("empty brackets", hosted(b"[]"), "refuse", "bad_host"),
    Head("long address", hosted(b"[" + b"0" * 46 + b"]"), "refuse", "bad_host"),
    Head("signed length", fields(b"Content-Length: +5"), "refuse", "bad_length"),
    Head("negative length", fields(b"Content-Length: -5"), "refuse", "bad_length"),
    Head("length with an underscore", fields(b"Content-Length: 1_0"), "refuse", "bad_length"),
    Head("hexadecimal length", fields(b"Content-Length: 0x5"), "refuse", "bad_length"),
    Head("list of lengths", fields(b"Content-Length: 5, 5"), "refuse", "bad_length"),
    Head("empty length", fields(b"Content-Length:"), "refuse", "bad_length"),
    Head("length and more", fields(b"Content-Length: 5 x"), "refuse", "bad_length"),
    Head("too great a length", fields(b"Content-Length: 9223372036854775808"), "refuse", "bad_length"),
    Head("greater length", fields(b"Content-Length: 18446744073709551621"), "refuse", "bad_length"),
    Head("length beyond ASCII", fields(b"Content-Length: \xd9\xa5"), "refuse", "bad_length"),
    Head("two lengths", fields(b"Content-Length: 5", b"Content-Length: 6"), "refuse", "repeated_field"),
    Head("one length twice", fields(b"Content-Length: 5", b"content-length: 5"), "refuse", "repeated_field"),
    Head(
        "length, then coding",
        fields(b"Content-Length: 5", b"Transfer-Encoding: chunked"),
        "refuse",
        "length_and_coding",
    ),
    Head(
        "coding, then length",
        fields(b"Transfer-Encoding: chunked", b"Content-Length: 5"),
        "refuse",
        "length_and_coding",
    ),
    Head(
        "coding in 1.0",
        b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
        "refuse",
        "coding_in_1_0",
    ),
    Head("gzip before chunked", fields(b"Transfer-Encoding: gzip, chunked"), "refuse", "unknown_coding"),
    Head("parameter, chunked", fields(b"Transfer-Encoding: gzip;q=1,chunked"), "refuse", "unknown_coding"),
    Head("chunked before gzip", fields(b"Transfer-Encoding: chunked, gzip"), "refuse", "bad_coding"),
    Head("chunked twice", fields(b"Transfer-Encoding: chunked, chunked"), "refuse", "bad_coding"),
    Head(
        "chunked on two lines",
        fields(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
        "refuse",
        "repeated_field",
    ),
    Head("identity", fields(b"Transfer-Encoding: identity"), "refuse", "bad_coding"),
    Head("xchunked", fields(b"Transfer-Encoding: xchunked"), "refuse", "bad_coding"),
    Head("chunked with a parameter", fields(b"Transfer-Encoding: chunked;a=b"), "refuse", "bad_coding"),
    Head("quoted chunked", fields(b'Transfer-Encoding: "chunked"'), "refuse", "bad_coding"),
    Head("list with a hole", fields(b"Transfer-Encoding: , chunked"), "refuse", "bad_coding"),
    Head("empty coding", fields(b"Transfer-Encoding:"), "refuse", "bad_coding"),
    Head("vertical tab before chunked", fields(b"Transfer-Encoding: \x0bchunked"), "refuse", "control_byte"),
    Head("space before a colon", fields(b"Transfer-Encoding : chunked"), "refuse", "space_before_colon"),
    Head("tab before a colon", fields(b"Content-Length\t: 5"), "refuse", "space_before_colon"),
    Head("space in a name", fields(b"Transfer Encoding: chunked"), "refuse", "space_before_colon"),
    Head("folded", fields(b"X: a", b" b"), "refuse", "obs_fold"),
    Head("folded by a tab", fields(b"X: a", b"\tb"), "refuse", "obs_fold"),
    Head("space before the first field", b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", "refuse", "obs_fold"),
    Head("no name", fields(b": x"), "refuse", "bad_name"),
    Head("no colon", fields(b"X"), "refuse", "bad_name"),
    Head("name beyond ASCII", fields(b"X\xff: y"), "refuse", "bad_name"),
    Head("name in quotes", fields(b'"X": y'), "refuse", "bad_name"),
    Head("bare LF behind a name", b"GET / HTTP/1.1\r\nHost\n: a\r\n\r\n", "refuse", "bare_lf"),
    Head("bare LF", b"GET / HTTP/1.1\r\nHost: a\n\r\n", "refuse", "bare_lf"),
    Head("bare LF behind the line", b"GET / HTTP/1.1\nHost: a\r\n\r\n", "refuse", "bare_lf"),
    Head("bare LF at the end", b"GET / HTTP/1.1\r\nHost: a\r\n\n", "refuse", "bare_lf"),
    Head("bare CR", fields(b"X: a\rb"), "refuse", "bare_cr"),
    Head("CR CR LF", fields(b"X: a\r"), "refuse", "bare_cr"),
    Head("bare CR behind the line", b"GET / HTTP/1.1\rHost: a\r\n\r\n", "refuse", "bare_cr"),
    Head("bare CR at the end", b"GET / HTTP/1.1\r\nHost: a\r\n\rX", "refuse", "bare_cr"),
    Head("NUL in a value", fields(b"X: a\0b"), "refuse", "control_byte"),
    Head("NUL in a name", fields(b"X\0: a"), "refuse", "control_byte"),
    Head(
        "control in a long value",
        fields(b"X: aaaaaaaaaaaaaaaaaaaaaaaaaaaa\x1baaaaaaaaaaaaaaaaa"),
        "refuse",
        "control_byte",
    ),
    Head("DEL in a value", fields(b"X: 0123456789\x7f0123456789"), "refuse", "control_byte"),
    Head("another expectation", fields(b"Expect: 200-ok"), "refuse", "unknown_expectation"),
    Head("empty expectation", fields(b"Expect:"), "refuse", "unknown_expectation"),
    Head("two expectations", fields(b"Expect: 100-continue", b"Expect: 100-continue"), "refuse", "repeated_field"),
    Head("no token in Connection", fields(b"Connection: close, a b"), "refuse", "bad_connection"),
    Head("two keys", fields(b"Authorization: Bearer a", b"authorization: Bearer b"), "refuse", "repeated_field"),
    Head("two types", fields(b"Content-Type: a/b", b"Content-Type: a/b"), "refuse", "repeated_field"),
    *(
        Head(
            f"two of {name}", fields(name.encode() + b": 1", name.upper().encode() + b": 1"), "refuse", "repeated_field"
        )
        for name in ("user-agent", "etag", "server", "max-forwards", "content-range", "content-location")
    ),
    Head("fields without end", fields(*[b"X: y"] * MAX_FIELDS), "refuse", "many_fields"),
]
REQUESTS = [*TAKEN, *HANDED_OVER, *REFUSED]

RESPONSES = [
    Head("plain", answered(b"Content-Length: 2", b"Content-Type: application/json"), "take"),
    Head("chunked", answered(b"Transfer-Encoding: Chunked", b"Connection: keep-alive"), "take"),
    Head("neither", answered(b"Content-Type: text/event-stream"), "take"),
    Head("nothing", answered(), "take"),
    Head("empty reason", answered(start=b"HTTP/1.1 200 "), "take"),
    Head("no reason", answered(start=b"HTTP/1.1 200"), "take"),
    Head("reason beyond ASCII", answered(start=b"HTTP/1.1 404 Pas trouv\xc3\xa9\t!"), "take"),
    Head("1.0", answered(start=b"HTTP/1.0 200 OK"), "take"),
    Head("1.0 kept", answered(b"Connection: Keep-Alive", start=b"HTTP/1.0 200 OK"), "take"),
    Head("close", answered(b"Connection: x, close"), "take"),
    Head("informational", answered(start=b"HTTP/1.1 103 Early Hints"), "take"),
    Head("greatest status", answered(start=b"HTTP/1.1 599 X"), "take"),
    Head("two types", answered(b"Content-Type: a", b"Content-Type: b"), "take"),
    Head("cookies", answered(b"Set-Cookie: a", b"Set-Cookie: b"), "take"),
    Head("lower-case version", answered(start=b"http/1.1 200 OK"), "refuse", "bad_version"),
    Head("2", answered(start=b"HTTP/2 200"), "refuse", "bad_version"),
    Head("2.0", answered(start=b"HTTP/2.0 200 OK"), "refuse", "unknown_version"),
    Head("ICY", answered(start=b"ICY 200 OK"), "refuse", "bad_version"),
    Head("two spaces", answered(start=b"HTTP/1.1  200 OK"), "refuse", "bad_status"),
    Head("status 600", answered(start=b"HTTP/1.1 600 X"), "refuse", "bad_status"),
    Head("status 099", answered(start=b"HTTP/1.1 099 X"), "refuse", "bad_status"),
    Head("status of two digits", answered(start=b"HTTP/1.1 20 OK"), "refuse", "bad_status"),
    Head("status of four digits", answered(start=b"HTTP/1.1 2000 OK"), "refuse", "bad_status_line"),
    Head("no status", answered(start=b"HTTP/1.1"), "refuse", "bad_status_line"),
    Head("control in the reason", answered(start=b"HTTP/1.1 200 O\x00K"), "refuse", "control_byte"),
    Head("bare LF", b"HTTP/1.1 200 OK\n\n", "refuse", "bare_lf"),
    Head("bare CR", b"HTTP/1.1 200 OK\rX: y\r\n\r\n", "refuse", "bare_cr"),
    Head("folded", answered(b"X: a", b" b"), "refuse", "obs_fold"),
    Head("space before a colon", answered(b"X : a"), "refuse", "space_before_colon"),
    Head("two lengths", answered(b"Content-Length: 2", b"Content-Length: 2"), "refuse", "repeated_field"),
    Head("list of lengths", answered(b"Content-Length: 2, 2"), "refuse", "bad_length"),
    Head("both", answered(b"Content-Length: 2", b"Transfer-Encoding: chunked"), "refuse", "length_and_coding"),
    Head("both, turned", answered(b"Transfer-Encoding: chunked", b"Content-Length: 2"), "refuse", "length_and_coding"),
    Head("gzip, chunked", answered(b"Transfer-Encoding: gzip, chunked"), "refuse", "unknown_coding"),
    Head("identity", answered(b"Transfer-Encoding: identity"), "refuse", "bad_coding"),
    Head("coding in 1.0", answered(b"Transfer-Encoding: chunked", start=b"HTTP/1.0 200 OK"), "refuse", "coding_in_1_0"),
    Head("fields without end", answered(*[b"X: y"] * (MAX_FIELDS + 1)), "refuse", "many_fields"),
]

TRAILER = b"X: " + b"y" * (MAX_TRAILER_BYTES - 5) + b"\r\n"
BODIES = [
    Body("one chunk", b"5\r\nhello\r\n0\r\n\r\n", "ended", b"hello"),
    Body(
        "three chunks",
        b"1\r\na\r\n0A\r\n0123456789\r\n00b\r\n01234567890\r\n000\r\n\r\n",
        "ended",
        b"a" + b"0123456789" * 2 + b"0",
    ),
    Body("nothing", b"0\r\n\r\n", "ended"),
    Body("CR LF in the data", b"4\r\n\r\n\r\n\r\n0\r\n\r\n", "ended", b"\r\n\r\n"),
    Body("unfinished", b"5\r\nhel", "more", b"hel"),
    Body("no last line", b"5\r\nhello\r\n0\r\n", "more", b"hello"),
    Body("extension", b'1;a\r\nx\r\n0;b=c;d="e;\\"\xff\tf"\r\n\r\n', "ended", b"x"),
    Body("white space around an extension", b"1 \t; a = b ; c\r\nx\r\n0\r\n\r\n", "ended", b"x"),
    Body("longest line", b"1;" + b"a" * (MAX_CHUNK_LINE - 2) + b"\r\nx\r\n0\r\n\r\n", "ended", b"x"),
    Body("longest size", b"000000000000000A\r\n0123456789\r\n0\r\n\r\n", "ended", b"0123456789"),
    Body("greatest size", b"7fffffffffffffff\r\nab", "more", b"ab"),
    Body("trailers", b"1\r\nx\r\n0\r\nX: y\r\nA-b:\t\xff\r\nC:\r\n\r\n", "ended", b"x"),
    Body("longest trailer", b"0\r\n" + TRAILER + b"\r\n", "ended"),
    Body("too great a size", b"8000000000000000\r\n", "broken"),
    Body("too long a size", b"00000000000000001\r\nx\r\n0\r\n\r\n", "broken"),
    Body("no size", b"\r\nx\r\n0\r\n\r\n", "broken"),
    Body("extension without size", b";a\r\nx\r\n", "broken"),
    Body("no digit", b"g\r\n", "broken"),
    Body("0x", b"0x1\r\nx\r\n0\r\n\r\n", "broken"),
    Body("sign", b"+1\r\nx\r\n0\r\n\r\n", "broken"),
    Body("minus", b"-1\r\nx\r\n0\r\n\r\n", "broken"),
    Body("underscore", b"1_0\r\n", "broken"),
    Body("space before a size", b" 1\r\nx\r\n0\r\n\r\n", "broken"),
    Body("space behind a size", b"1 \r\nx\r\n0\r\n\r\n", "broken"),
    Body("bare LF behind a size", b"1\nx\r\n0\r\n\r\n", "broken"),
    Body("bare CR behind a size", b"1\rx\r\n0\r\n\r\n", "broken"),
    Body("bare LF in an extension", b"1;a\nx\r\n0\r\n\r\n", "broken"),
    Body("bare CR in an extension", b"1;a\rb\r\nx\r\n0\r\n\r\n", "broken"),
    Body("LF in quotes", b'1;a="\n"\r\nx\r\n0\r\n\r\n', "broken"),
    Body("escaped LF in quotes", b'1;a="\\\n"\r\nx\r\n0\r\n\r\n', "broken"),
    Body("open quotes", b'1;a="b\r\nx\r\n0\r\n\r\n', "broken"),
    Body("behind quotes", b'1;a="b"c\r\nx\r\n0\r\n\r\n', "broken"),
    Body("empty extension", b"1;\r\nx\r\n0\r\n\r\n", "broken"),
    Body("two semicolons", b"1;;a\r\nx\r\n0\r\n\r\n", "broken"),
    Body("empty value", b"1;a=\r\nx\r\n0\r\n\r\n", "broken"),
    Body("space behind a name", b"1;a \r\nx\r\n0\r\n\r\n", "broken"),
    Body("space behind a value", b"1;a=b \r\nx\r\n0\r\n\r\n", "broken"),
    Body("NUL in an extension", b"1;a\0\r\nx\r\n0\r\n\r\n", "broken"),
    Body("too long a line", b"1;" + b"a" * (MAX_CHUNK_LINE - 1) + b"\r\nx\r\n0\r\n\r\n", "broken"),
    Body("too long white space", b"1" + b" " * MAX_CHUNK_LINE + b";a\r\nx\r\n0\r\n\r\n", "broken"),
    Body("more data than said", b"1\r\nxy\r\n0\r\n\r\n", "broken", b"x"),
    Body("less data than said", b"3\r\nx\r\n0\r\n\r\n", "broken", b"x\r\n"),
    Body("bare LF behind data", b"1\r\nx\n0\r\n\r\n", "broken", b"x"),
    Body("bare CR behind data", b"1\r\nx\r0\r\n\r\n", "broken", b"x"),
    Body("trailer without colon", b"0\r\nX\r\n\r\n", "broken"),
    Body("trailer without name", b"0\r\n: x\r\n\r\n", "broken"),
    Body("space before a trailer's colon", b"0\r\nX : y\r\n\r\n", "broken"),
    Body("folded trailer", b"0\r\nX: y\r\n z\r\n\r\n", "broken"),
    Body("control in a trailer", b"0\r\nX: \x01\r\n\r\n", "broken"),
    Body("bare LF in a trailer", b"0\r\nX: y\n\r\n", "broken"),
    Body("bare CR in a trailer", b"0\r\nX: y\rz\r\n\r\n", "broken"),
    Body("bare LF at the end", b"0\r\n\n", "broken"),
    Body("bare CR at the end", b"0\r\n\rX", "broken"),
    Body("too long a trailer", b"0\r\nX" + TRAILER + b"\r\n", "broken"),
    Body("a request for a trailer", b"0\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "broken"),
]
