"""What a connection carries: persistence, pipelining, options, expectations, upgrades, and clients that leave or dawdle."""

from tests.e2e.corpus.vector import (
    BAD,
    CHAT,
    CHUNKED,
    LAST,
    LENIENT,
    SERVED,
    SERVED_AND_CLOSED,
    STREAMED,
    WHOLE_CHUNK,
    Drip,
    HalfClose,
    Interim,
    Leave,
    Step,
    Vector,
    Wait,
    get,
    lines,
    post,
    post_head,
    sized,
    vector,
)

V1_0 = b"HTTP/1.0"
EITHER = ("200 open", "200 closed")


def _persistence(name: str, data: bytes, ends: tuple[str, ...], *, split: bool = False) -> Vector:
    return vector(f"persistence-{name}", "9.3", data, ends, split=split)


PERSISTENCE = (
    _persistence("default", post(), SERVED, split=True),
    _persistence("close", post(b"Connection: close"), SERVED_AND_CLOSED, split=True),
    _persistence("close-of-a-stream", post(b"Connection: close", body=STREAMED), SERVED_AND_CLOSED),
    _persistence("close-other-case", get(b"cOnNeCtIoN: cLoSe"), SERVED_AND_CLOSED),
    _persistence("keep-alive", get(b"Connection: keep-alive"), SERVED),
    _persistence("keep-alive-other-case", get(b"Connection: Keep-Alive"), SERVED),
    _persistence("close-and-keep-alive", get(b"Connection: close, keep-alive"), SERVED_AND_CLOSED),
    _persistence("keep-alive-and-close", get(b"Connection: keep-alive, close"), SERVED_AND_CLOSED),
    _persistence("close-in-a-second-field", get(b"Connection: keep-alive", b"Connection: close"), SERVED_AND_CLOSED),
    _persistence("close-in-a-first-field", get(b"Connection: close", b"Connection: keep-alive"), SERVED_AND_CLOSED),
    _persistence("close-behind-an-option", get(b"Connection: x-a, close"), SERVED_AND_CLOSED),
    _persistence("close-by-tabs", get(b"Connection:\tx-a\t,\tclose\t"), SERVED_AND_CLOSED),
    _persistence("close-among-empty-elements", get(b"Connection: , ,close,"), (*SERVED_AND_CLOSED, *BAD)),
    _persistence("closed", get(b"Connection: closed"), SERVED),
    _persistence("empty", get(b"Connection:"), LENIENT),
    _persistence("malformed", get(b"Connection: close; x"), (*EITHER, *BAD)),
    _persistence("1.0", get(version=V1_0), SERVED_AND_CLOSED, split=True),
    _persistence("1.0-without-host", get(version=V1_0, host=None), SERVED_AND_CLOSED, split=True),
    _persistence("1.0-keep-alive", get(b"Connection: keep-alive", version=V1_0), EITHER),
    _persistence("1.0-close", get(b"Connection: close", version=V1_0), SERVED_AND_CLOSED),
    _persistence("1.0-chat", post(version=V1_0), SERVED_AND_CLOSED),
    _persistence("1.0-stream", post(version=V1_0, body=STREAMED), SERVED_AND_CLOSED),
    _persistence("1.0-stream-keep-alive", post(b"Connection: keep-alive", version=V1_0, body=STREAMED), EITHER),
    _persistence("1.0-bad-host", get(version=V1_0, host=b"a b"), BAD),
    _persistence("1.0-two-hosts", get(b"Host: a", version=V1_0), BAD),
    vector("persistence-bytes-after-close", "9.6", post(b"Connection: close") + post(), SERVED_AND_CLOSED, relayed=1),
    vector("persistence-rubbish-after-close", "9.6", get(b"Connection: close") + b"\x00" * 5000, SERVED_AND_CLOSED),
    vector("persistence-bytes-after-1.0", "9.6", post(version=V1_0) + post(), SERVED_AND_CLOSED, relayed=1),
)


def _options(
    name: str, *fields: bytes, ends: tuple[str, ...] = SERVED, hidden: tuple[bytes, ...] = (), split: bool = False
) -> Vector:
    return vector(f"options-{name}", "9110 7.6.1", post(*fields), ends, hidden=hidden, split=split)


OPTIONS = (
    _options("one-name", b"Connection: x-secret", b"x-secret: 1", hidden=(b"x-secret",), split=True),
    _options("names-and-keep-alive", b"Connection: keep-alive, x-a, X-B", b"x-a: 1", b"x-b: 2", hidden=(b"x-a", b"x-b")),
    _options("names-in-two-fields", b"Connection: x-a", b"x-a: 1", b"Connection: x-b", b"x-b: 2", hidden=(b"x-a", b"x-b")),
    _options("name-behind-the-field", b"x-a: 1", b"Connection: x-a", hidden=(b"x-a",)),
    _options("name-of-two-fields", b"x-a: 1", b"x-A: 2", b"Connection: X-a", hidden=(b"x-a",)),
    _options("close-and-name", b"Connection: close, x-a", b"x-a: 1", ends=SERVED_AND_CLOSED, hidden=(b"x-a",)),
    _options("names-content-length", b"Connection: Content-Length", ends=LENIENT),
    _options("names-host", b"Connection: Host", ends=LENIENT),
    _options("names-authorization", b"Connection: Authorization", ends=LENIENT),
    _options("names-content-type", b"Connection: Content-Type", ends=LENIENT),
    _options("names-cache-control", b"Connection: Cache-Control", b"Cache-Control: no-cache", hidden=(b"cache-control",)),
    _options("names-itself", b"Connection: Connection", ends=LENIENT),
    _options("names-nothing-that-came", b"Connection: x-none"),
    _options("keep-alive-field", b"Connection: keep-alive", b"Keep-Alive: timeout=5", hidden=(b"keep-alive",)),
    _options("keep-alive-field-unnamed", b"Keep-Alive: timeout=5", hidden=(b"keep-alive",)),
    _options("proxy-connection", b"Proxy-Connection: keep-alive", hidden=(b"proxy-connection",)),
    _options("proxy-authorization", b"Proxy-Authorization: Basic eA==", hidden=(b"proxy-authorization",)),
    _options("te", b"Connection: TE", b"TE: trailers", hidden=(b"te",)),
    _options("te-unnamed", b"TE: trailers, gzip;q=0.5", hidden=(b"te",)),
    _options("trailer", b"Trailer: x-a", hidden=(b"trailer",)),
    _options("cookie", b"Cookie: a=b", hidden=(b"cookie",)),
    vector(
        "options-name-the-coding", "9110 7.6.1", post_head(CHUNKED, b"Connection: Transfer-Encoding") + WHOLE_CHUNK + LAST,
        LENIENT,
    ),
)  # fmt: skip

H2C = (
    b"Connection: Upgrade, HTTP2-Settings",
    b"Upgrade: h2c",
    b"HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA",
)
UPGRADE_REFUSED = ("426 open", "426 closed", "400 closed", "404 open", "405 open")
SOCKET = (
    b"Connection: Upgrade",
    b"Upgrade: websocket",
    b"Sec-WebSocket-Version: 13",
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
)
UPGRADES = (
    _options("h2c", *H2C, hidden=(b"upgrade", b"http2-settings"), split=True),
    _options("h2c-without-connection", b"Upgrade: h2c", hidden=(b"upgrade",)),
    _options("upgrade-to-tls", b"Connection: Upgrade", b"Upgrade: TLS/1.0", hidden=(b"upgrade",)),
    _options("upgrade-to-several", b"Connection: Upgrade", b"Upgrade: a/1, b/2", hidden=(b"upgrade",)),
    _options("upgrade-named-but-absent", b"Connection: Upgrade"),
    vector("upgrade-websocket", "9110 7.8", get(*SOCKET), (*UPGRADE_REFUSED, "200 open")),
    vector("upgrade-websocket-of-a-chat", "9110 7.8", post(*SOCKET), UPGRADE_REFUSED),
    vector("upgrade-h2c-of-a-get", "9110 7.8", get(*H2C), SERVED),
)  # fmt: skip

CONTINUE = b"Expect: 100-continue"
ONCE = ((100,),)
MAYBE = ((), (100,))
NEVER: tuple[tuple[int, ...], ...] = ((),)
REFUSED_EXPECTATION = ("400 closed", "400 open", "417 closed", "417 open")


def _expect(
    name: str, steps: bytes | tuple[Step, ...], ends: tuple[str, ...], interim: tuple[tuple[int, ...], ...] | None
) -> Vector:
    return vector(f"expect-{name}", "9110 10.1.1", steps, ends, interim=interim)


EXPECTATIONS = (
    _expect("and-wait", (post_head(CONTINUE, sized()), Interim(100), CHAT), SERVED, ONCE),
    _expect("and-wait-chunked", (post_head(CONTINUE, CHUNKED), Interim(100), WHOLE_CHUNK + LAST), SERVED, ONCE),
    _expect("other-case", (post_head(b"Expect: 100-Continue", sized()), Interim(100), CHAT), SERVED, ONCE),
    _expect("for-a-stream", (post_head(CONTINUE, sized(STREAMED)), Interim(100), STREAMED), SERVED, ONCE),
    _expect(
        "and-close", (post_head(CONTINUE, b"Connection: close", sized()), Interim(100), CHAT), SERVED_AND_CLOSED, ONCE
    ),
    _expect(
        "second-on-a-connection", (post() + post_head(CONTINUE, sized()), Interim(100), CHAT), ("200 200 open",), ONCE
    ),
    _expect("and-do-not-wait", post(CONTINUE), SERVED, MAYBE),
    _expect("without-a-body", get(CONTINUE), SERVED, MAYBE),
    _expect("in-1.0", post(CONTINUE, version=V1_0), SERVED_AND_CLOSED, NEVER),
    _expect("then-nothing", (post_head(CONTINUE, sized()), Interim(100)), ("408 closed",), ONCE),
    _expect("without-a-key", post_head(CONTINUE, sized(), key=None), ("401 closed",), NEVER),
    _expect("too-large", post_head(CONTINUE, b"Content-Length: 99999999"), ("413 closed",), NEVER),
    _expect("of-a-bad-head", post_head(CONTINUE, sized(), sized()), BAD, NEVER),
    _expect("twice", post(CONTINUE, CONTINUE), LENIENT, None),
    _expect("something-else", post(b"Expect: 200-ok"), REFUSED_EXPECTATION, NEVER),
    _expect("something-more", post(b"Expect: 100-continue, x=y"), REFUSED_EXPECTATION, NEVER),
    _expect("something-else-without-a-body", get(b"Expect: tea"), REFUSED_EXPECTATION, NEVER),
    _expect("empty", post(b"Expect:"), ("200 open", *REFUSED_EXPECTATION), NEVER),
)


def _numbered(number: int) -> bytes:
    return b"x-request-id: n-%d" % number


def _ids(count: int) -> tuple[str, ...]:
    return tuple(f"n-{number}" for number in range(count))


def _gets(count: int) -> bytes:
    return b"".join(get(_numbered(number)) for number in range(count))


def _mixed(count: int) -> bytes:
    """Probes, chats, streams and chunked chats in turn."""
    kinds = (
        lambda number: get(_numbered(number)),
        lambda number: post(_numbered(number)),
        lambda number: post(_numbered(number), body=STREAMED),
        lambda number: post_head(_numbered(number), CHUNKED) + WHOLE_CHUNK + LAST,
    )
    return b"".join(kinds[number % 4](number) for number in range(count))


def _served(count: int) -> tuple[str, ...]:
    return ("200 " * count + "open",)


def _pipeline(
    name: str, data: bytes, ends: tuple[str, ...], *, relayed: int | None = None, count: int = 0, split: bool = False
) -> Vector:
    return vector(f"pipeline-{name}", "9.3.2", data, ends, relayed=relayed, order=_ids(count), split=split)


RUBBISH = b"ab cd\r\n\r\n"
PIPELINES = (
    _pipeline("of-2", _gets(2), _served(2), count=2, split=True),
    _pipeline("of-20", _gets(20), _served(20), count=20),
    _pipeline("of-2-chats", post(_numbered(0)) + post(_numbered(1)), _served(2), count=2),
    _pipeline("of-20-chats", b"".join(post(_numbered(number)) for number in range(20)), _served(20), count=20),
    _pipeline("of-4-kinds", _mixed(4), _served(4), relayed=3, count=4, split=True),
    _pipeline("of-20-kinds", _mixed(20), _served(20), relayed=15, count=20),
    _pipeline("stream-then-chat", post(_numbered(0), body=STREAMED) + post(_numbered(1)), _served(2), count=2),
    _pipeline("ends-with-close", _gets(3) + get(_numbered(3), b"Connection: close"), ("200 200 200 200 closed",), count=4),
    _pipeline("close-in-the-middle", get() + get(b"Connection: close") + get(), ("200 200 closed",)),
    _pipeline("good-then-rubbish", get() + RUBBISH, ("200 400 closed",), split=True),
    _pipeline("chat-then-rubbish", post() + RUBBISH, ("200 400 closed",), split=True),
    _pipeline("stream-then-rubbish", post(body=STREAMED) + RUBBISH, ("200 400 closed",)),
    _pipeline("ten-then-rubbish", _gets(10) + RUBBISH, ("200 " * 10 + "400 closed",), count=10),
    _pipeline("good-bad-good", post() + RUBBISH + post(), ("200 400 closed",), relayed=1),
    _pipeline("bad-then-good", RUBBISH + post(), ("400 closed",), relayed=0),
    _pipeline("good-then-two-lengths", post() + post_head(sized(), sized()) + CHAT, ("200 400 closed",)),
    _pipeline("good-then-no-host", post() + post(host=None), ("200 400 closed",)),
    _pipeline("good-then-lf", post() + get()[:-3] + b"\n\n", ("200 400 closed",), relayed=1),
    _pipeline("good-then-bad-chunk", post() + post_head(CHUNKED) + b"zz\r\n", ("200 400 closed",)),
    _pipeline("refused-then-good", post(key=None) + get(), ("401 200 open", "401 closed"), relayed=0),
    _pipeline("not-found-then-good", get(target=b"/nowhere") + get(), ("404 200 open",)),
    _pipeline("bad-json-then-good", post(body=b"{") + post(), ("400 200 open",)),
    vector("pipeline-head-then-get", "9.3.2, 9110 9.3.2", lines(b"HEAD /health HTTP/1.1", b"Host: a") + get(), _served(2), heads=frozenset({0}), split=True),
    vector(
        "pipeline-while-a-chat-runs", "9.3.2", (post(_numbered(0)), Wait(0.002), post(_numbered(1)), Wait(0.002), get(_numbered(2))),
        _served(3), relayed=2, order=_ids(3),
    ),
    vector("pipeline-head-in-pieces", "9.3.2", (get() + get()[:20], Wait(0.02), get()[20:]), _served(2)),
)  # fmt: skip

LEFT = ("left",)
ANSWERED = Interim(200)  # no interim answer: the final one ends the waiting
GONE = ("closed", "400 closed", "408 closed")
LEAVERS = (
    vector("leave-at-once", "9.5", Leave(reset=False), LEFT),
    vector("leave-at-once-by-reset", "9.5", Leave(reset=True), LEFT),
    vector("leave-within-the-head", "9.5", (get()[:20], Leave(reset=False)), LEFT),
    vector("leave-within-the-head-by-reset", "9.5", (get()[:20], Leave(reset=True)), LEFT),
    vector("leave-within-the-body", "9.5", (post()[:-10], Wait(0.01), Leave(reset=False)), LEFT, relayed=0),
    vector("leave-within-the-body-by-reset", "9.5", (post()[:-10], Wait(0.01), Leave(reset=True)), LEFT, relayed=0),
    vector("leave-within-a-chunk", "9.5", (post_head(CHUNKED) + WHOLE_CHUNK[:20], Wait(0.01), Leave(reset=False)), LEFT, relayed=0),
    vector("leave-within-a-chunk-by-reset", "9.5", (post_head(CHUNKED) + WHOLE_CHUNK[:20], Wait(0.01), Leave(reset=True)), LEFT, relayed=0),
    vector("leave-instead-of-continuing", "9110 10.1.1", (post_head(CONTINUE, sized()), Interim(100), Leave(reset=False)), LEFT, relayed=0),
    vector("half-close-at-once", "9.6", HalfClose(), ("closed",)),
    vector("half-close-within-the-head", "9.6", (get()[:20], HalfClose()), GONE),
    vector("half-close-within-the-body", "9.6", (post()[:-10], HalfClose()), GONE, relayed=0),
    vector("half-close-after-a-get", "9.6", (get(), HalfClose()), ("200 closed", "closed")),
    vector("half-close-after-an-answer", "9.6", (get(), ANSWERED, HalfClose()), ("200 closed",)),
    vector("half-close-after-rubbish", "9.6", (RUBBISH, HalfClose()), ("400 closed", "closed")),
)  # fmt: skip

DROPPED = ("closed", "408 closed")
STALLED = ("408 closed",)
SLOW = (
    vector("slow-nothing-at-all", "9.5", b"", DROPPED),
    vector("slow-half-a-request-line", "9.5", b"GET /hea", DROPPED),
    vector("slow-request-line-only", "9.5", b"GET /health HTTP/1.1\r\n", DROPPED),
    vector("slow-all-but-the-empty-line", "9.5", get()[:-2], DROPPED),
    vector("slow-fields-for-ever", "9.5", (get()[:-2], Drip(b"x-a: b\r\n", 0.05)), DROPPED),
    vector("slow-letters-for-ever", "9.5", (get()[:-2] + b"x-a: ", Drip(b"b", 0.05)), DROPPED),
    vector("slow-empty-lines-for-ever", "2.2", Drip(b"\r\n", 0.05), ("closed", "400 closed", "408 closed")),
    vector("slow-second-head", "9.5", (get(), ANSWERED, Drip(b"G", 0.05)), ("200 closed", "200 408 closed", "200 400 closed")),
    vector("slow-second-head-of-fields", "9.5", (get(), ANSWERED, get()[:-2], Drip(b"x-a: b\r\n", 0.05)), ("200 closed", "200 408 closed")),
    vector("slow-body-that-stops", "9110 15.5.9", post()[:-10], STALLED, relayed=0),
    vector("slow-body-for-ever", "9110 15.5.9", (post_head(b"Content-Length: 100000"), Drip(b" ", 0.05)), STALLED),
    vector("slow-chunks-for-ever", "9110 15.5.9", (post_head(CHUNKED), Drip(b"1\r\n \r\n", 0.05)), STALLED),
    vector("slow-chunk-size", "9110 15.5.9", (post_head(CHUNKED), Drip(b"0", 0.05)), ("400 closed", *STALLED)),
    vector("slow-chunk-extension", "9110 15.5.9", (post_head(CHUNKED) + b"1;", Drip(b"a", 0.05)), ("400 closed", *STALLED)),
    vector("slow-trailers-for-ever", "9110 15.5.9", (post_head(CHUNKED) + WHOLE_CHUNK + b"0\r\n", Drip(b"x-a: b\r\n", 0.05)), STALLED),
    vector("slow-but-whole-head", "9.5", (get()[:10], Wait(0.05), get()[10:]), SERVED),
    vector("slow-but-whole-body", "9.5", (post()[:-10], Wait(0.05), post()[-10:]), SERVED),
)  # fmt: skip
"""For a gateway with short deadlines of its own; its heads and bodies have 0.3 s each."""

VECTORS = PERSISTENCE + OPTIONS + UPGRADES + EXPECTATIONS + PIPELINES + LEAVERS
