"""What both lanes are asked, and which of them takes it (tests/e2e/test_lane_parity.py)."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tests.support.behaviours import (
    CURSED_PAGE,
    DONE,
    answer,
    event,
    failure,
    html_502,
    limited,
    raw,
    redirect,
    reset,
    silence,
    stream,
    zipped,
)
from tests.support.fake_openai import called, completion, spoken, tool_call, usage_event, words
from tests.support.gateway import APP_KEY, UPSTREAM_KEY, Tree, chat_body
from tests.support.providers import SCENES, plays
from tests.support.upstream import Behaviour, Exchange

COUNTED_KEY = "agw-parity-counted-5e0b8d13f7a2496c"
ONCE_KEY = "agw-parity-once-5e0b8d13f7a2496c"
FORBIDDEN_KEY = "agw-parity-narrow-5e0b8d13f7a2496c"
# Refilled so slowly that no unit comes back while the tests run: what is left is exact.
COUNTED_LIMITS = [
    {"per": "key", "requests": 1, "period": "1h", "burst": 5000},
    {"per": "key", "tokens": 1, "period": "1h", "burst": 16000},
]
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
UPSTREAM_LIMITS = (("x-ratelimit-remaining-requests", "77"), ("x-ratelimit-reset-requests", "1s"))
ANTHROPIC = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-small",
    "content": [{"type": "text", "text": "Hello"}],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 11, "output_tokens": 7},
}
ANTHROPIC_EVENTS = [
    event({"type": "message_start", "message": {**ANTHROPIC, "content": [], "stop_reason": None}}, "message_start"),
    event(
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        "content_block_start",
    ),
    event({"type": "ping"}, "ping"),
    event(
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello"}},
        "content_block_delta",
    ),
    event({"type": "content_block_stop", "index": 0}, "content_block_stop"),
    event(
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 7}}, "message_delta"
    ),
    event({"type": "message_stop"}, "message_stop"),
]
RESPONSE = {"id": "resp_1", "object": "response", "output": [], "usage": {"input_tokens": 11, "output_tokens": 7}}
RESPONSE_EVENTS = [
    event({"type": "response.created", "response": {"id": "resp_1"}}, "response.created"),
    event({"type": "response.output_text.delta", "delta": "Hello"}, "response.output_text.delta"),
    event({"type": "response.completed", "response": RESPONSE}, "response.completed"),
]
ERROR_EVENT = event({"error": {"message": f"overloaded {UPSTREAM_KEY}", "type": "server_error", "code": "x"}})
CUT_LENGTH = b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 500\r\n\r\n{"id": "x", "cho'
CUT_CLOSE = b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{"id": "x", "cho'
CUT_CHUNK = b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n8\r\n{"id": 1\r\n'
EVENTS_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
BAD_CHUNK = b"zz\r\n"
EARLY = b"HTTP/1.1 103 Early Hints\r\nlink: </a>; rel=preload\r\n\r\n"
LONG_TEXT = "word " * 4000


@dataclass(frozen=True)
class Case:
    """Requests one after the other on connections of their own; the counted key pays, so that buckets tell too."""

    name: str
    lane: str = "fast"
    """``fast``, or the reason why the full one."""
    status: int = 200
    """Of the last answer."""
    body: object = field(default_factory=chat_body)
    times: int = 1
    path: str = "/v1/chat/completions"
    headers: Mapping[str, str] = field(default_factory=dict)
    key: str | None = COUNTED_KEY
    script: Sequence[Behaviour] = ()
    always: Behaviour | None = None

    @property
    def silent(self) -> bool:
        """Whether its upstream falls silent, so that only patience's end ends it."""
        return any(word in self.name for word in ("hang", "silen", "stalled"))

    @property
    def bodies(self) -> list[object]:
        """What is sent."""
        return [self.body] * self.times


def broken(name: str, always: Behaviour, status: int, **more: Tree) -> Case:
    """An upstream that never gives an answer to pass on: the full lane tells the client."""
    return Case(name, "upstream_failed", status, always=always, **more)  # type: ignore[arg-type]  # body alone


def in_two(first: bytes, second: bytes) -> Behaviour:
    """Raw bytes that arrive apart, then a FIN."""

    async def behave(exchange: Exchange) -> None:
        await exchange.send(first)
        await asyncio.sleep(0.03)
        await exchange.send(second)
        exchange.end()

    return behave


def chats() -> Iterator[Case]:
    """Answers that are passed on."""
    streaming = chat_body(stream=True)
    yield Case("plain")
    yield Case("plain-own-key", key=APP_KEY, script=[answer(completion(), headers=UPSTREAM_LIMITS)])
    yield Case("upstream-limits-hidden", script=[answer(completion(), headers=UPSTREAM_LIMITS)])
    yield Case("stream-usage-injected", body=streaming)
    yield Case("stream-usage-injected-split", body=streaming, script=[stream(spoken(usage=True), split=11, pace_ms=1)])
    yield Case("stream-usage-asked", body=chat_body(stream=True, stream_options={"include_usage": True}))
    yield Case("stream-options-other", body=chat_body(stream=True, stream_options={"include_obfuscation": False}))
    yield Case("stream-usage-null", body=chat_body(stream=True, stream_options=None))
    yield Case("stream-usage-off", body=chat_body(stream=True, model="local-a"))
    yield Case("stream-usage-in-last-chunk", body=streaming, script=[stream([*words(), usage_event(), DONE])])
    yield Case("stream-without-usage", body=chat_body(stream=True, max_tokens=40), script=[stream(spoken())])
    yield Case("stream-of-tools", body=streaming, script=[stream(called("f", ['{"a":', "1}"]), split=5)])
    yield Case(
        "stream-with-comments", body=streaming, script=[stream([b": hi\n\n", *spoken(), b": bye\n\n"], pace_ms=5)]
    )
    yield Case("stream-crlf", body=streaming, script=[stream([part.replace(b"\n", b"\r\n") for part in spoken()])])
    yield Case("stream-until-close", body=streaming, script=[stream(spoken(), framing="close")])
    yield Case("stream-tail-hangs", body=streaming, script=[stream(spoken(), ending="hang")])
    yield Case("stream-answered-plainly", body=streaming, script=[answer(completion())])
    yield Case("stream-nobody-asked-for", script=[stream(spoken(usage=True))])
    yield Case("tools", script=[answer(completion(None, calls=[tool_call("f", "{}")]))])
    yield Case("chunked", script=[answer(completion(), framing="chunked")])
    yield Case("until-close", script=[answer(completion(), framing="close")])
    yield Case("no-usage", body=chat_body(max_tokens=25), script=[answer({"choices": []})])
    yield Case("no-content-type", script=[raw(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")])
    yield Case("no-content", status=204, script=[raw(b"HTTP/1.1 204 No Content\r\n\r\n")])
    yield Case("created", status=201, script=[answer(completion(), status=201)])
    yield Case("odd-success", status=299, script=[answer(completion(), status=299)])
    yield Case("gzip-unasked", script=[zipped(completion())])
    yield Case("early-hints", script=[answer(completion(), before=EARLY)])
    yield Case("safe-headers", script=[answer(completion(), headers=SAFE_AND_NOT)])
    yield Case("stream-cache-control", body=streaming, script=[stream(spoken(), headers=(("cache-control", "x"),))])
    yield Case("large", body=chat_body(messages=[{"role": "user", "content": LONG_TEXT}]))
    yield Case("large-answer", script=[answer(completion(LONG_TEXT * 4))])
    yield Case("unicode", body=chat_body(messages=[{"role": "user", "content": "é \U0001f600"}]))
    yield Case("spaced", body=b' {\n "messages" : [ ] ,\t"model" : "gpt-4o-mini" , "stream" : false } \r\n')


SAFE_AND_NOT = (
    ("openai-processing-ms", "12"),
    ("Openai-Version", "2020-10-01"),
    ("x-groq-region", "eu"),
    ("set-cookie", "a=b"),
    ("server", "secret/1"),
    ("x-request-id", "theirs"),
    ("etag", '"1"'),
    ("etag", '"2"'),
    ("x-vllm-odd", "caf\xe9"),
    ("connection", "keep-alive"),
)


def routes() -> Iterator[Case]:
    """Names of models, and headers."""
    yield Case("virtual", body=chat_body(model="swift"))
    yield Case("virtual-stream", body=chat_body(model="swift", stream=True))
    yield Case("virtual-model-last", body=b'{"messages":[],"stream":true,"model":"swift"}')
    yield Case("virtual-unicode", body={"messages": [], "model": "\xe9t\xe9"})
    yield Case("weighted", body=chat_body(model="spread"))
    yield Case("direct", body=chat_body(model="fake/gpt-4o"))
    yield Case("direct-unlisted", body=chat_body(model="fake/never-heard-of"))
    yield Case("configured-headers", body=chat_body(model="plain/local-b"), headers={"X-Team": "mine", "x-tier": "tin"})
    yield Case("moderation-default", path="/v1/moderations", body={"input": "kind words"})
    yield Case("moderation", path="/v1/moderations", body={"input": "x", "model": "omni-moderation-latest"})
    yield Case("completions", path="/v1/completions", body={"model": "gpt-4o-mini", "prompt": "Say"})
    yield Case("embeddings", path="/v1/embeddings", body={"model": "text-embedding-3-small", "input": ["a", "b"]})
    yield Case("responses", path="/v1/responses", body={"model": "gpt-4o", "input": "x"}, script=[answer(RESPONSE)])
    yield Case(
        "responses-stream",
        path="/v1/responses",
        body={"model": "gpt-4o", "input": "x", "stream": True},
        script=[stream(RESPONSE_EVENTS)],
    )
    message = {"model": "claude-small", "max_tokens": 64, "messages": []}
    yield Case("messages", path="/v1/messages?beta=true", body=message, script=[answer(ANTHROPIC)], headers=VERSION)
    yield Case(
        "messages-stream",
        path="/v1/messages?beta=true",
        body={**message, "stream": True},
        script=[stream(ANTHROPIC_EVENTS)],
        headers=VERSION,
    )
    yield Case("messages-refused", "upstream_failed", 400, path="/v1/messages", body=message, always=failure(400))
    yield Case("query", path="/v1/chat/completions?api-version=2024&x=%20")
    spelt = "".join(f"%{ord(char):02x}" for char in APP_KEY[:3]) + APP_KEY[3:]
    yield Case("key-in-the-query", "key", path=f"/v1/chat/completions?x=1&api-key={COUNTED_KEY}")
    yield Case("key-spelt-in-the-query", "key", path=f"/v1/chat/completions?x=1&api-key={spelt}+&y=%zz")
    yield Case("key-nearly-in-the-query", path=f"/v1/chat/completions?api-key={spelt}x&{spelt}&y=+{spelt[:-1]}")
    yield Case("user", body=chat_body(user="ann"), headers={"x-user-id": "bob", "x-channel-id": "web"})
    yield Case("user-header", headers={"x-user-id": "bob"})
    yield Case("user-odd", headers={"x-user-id": "b\xf6b", "x-channel-id": "w" * 257})
    yield Case("traced", headers={"traceparent": TRACE, "tracestate": "a=1", "x-request-id": "parity-one/1"})
    yield Case("badly-traced", headers={"traceparent": TRACE.replace("-01", "-0"), "x-request-id": "a b"})
    yield Case("kept-headers", headers=KEPT)
    yield Case("gzip-offered", headers={"accept-encoding": "gzip, br", "accept": "*/*"})
    yield Case("closing", headers={"connection": "close"})
    yield Case("keep-alive", headers={"connection": "keep-alive"})
    yield Case("json-with-charset", headers={"content-type": "application/json; charset=utf-8"})
    yield Case("key-in-x-api-key", key=None, headers={"x-api-key": COUNTED_KEY})
    yield Case("two-credentials", headers={"x-api-key": "sk-other-provider-key"})


VERSION = {"anthropic-version": "2023-06-01", "anthropic-beta": "tools"}
KEPT = {
    "cookie": "a=b",
    "x-forwarded-for": "10.0.0.1",
    "x-real-ip": "10.0.0.1",
    "forwarded": "for=10.0.0.1",
    "via": "1.1 proxy",
    "openai-organization": "org",
    "x-agw-cache": "no",
    "sec-websocket-key": "x",
    "x-stainless-lang": "python",
    "X-Mixed-Case": "  spaced\tvalue  ",
    "user-agent": "OpenAI/Python",
}


def refusals() -> Iterator[Case]:
    """What the gateway itself says no to."""
    yield Case("limited", "fast", 429, key=ONCE_KEY, body=chat_body(user="limited"), times=2)
    yield Case("unknown-key", "key", 401, key="agw-stranger-5e0b8d13f7a2496c")
    yield Case("no-key", "key", 401, key=None)
    yield Case("empty-key", "key", 401, key=None, headers={"authorization": "Bearer "})
    yield Case("unknown-model", "no_route", 404, body=chat_body(model="no-such"))
    yield Case("forbidden-model", "model_forbidden", 403, key=FORBIDDEN_KEY)
    yield Case("no-model", "no_model", 400, body={"messages": []})
    yield Case("empty-model", "no_model", 400, body=chat_body(model=""))
    yield Case("model-no-text", "json", 400, body=chat_body(model=7))
    yield Case("odd-model", "model_name", 400, body=chat_body(model="a\x7fb"))
    yield Case("bad-json", "json", 400, body=b"{")
    yield Case("bad-utf8", "json", 400, body=b'{"model":"gpt-4o-mini","x":"\xff"}')
    yield Case("duplicate-members", "json", 400, body=b'{"model":"gpt-4o-mini","model":"gpt-4o"}')
    yield Case("too-deep", "json", 400, body=b'{"model":"gpt-4o-mini","x":' + b"[" * 70 + b"]" * 70 + b"}")
    yield Case("an-array", "json", 400, body=b"[]")
    yield Case("no-body", "no_body", 400, body=b"")
    yield Case("not-json", "body_type", 415, headers={"content-type": "text/plain"})
    yield Case("zipped", "body_type", 415, headers={"content-encoding": "gzip"})
    yield Case("other-dialect", "dialect", body=chat_body(model="claude-small"), always=plays(SCENES["text"]))
    yield Case("escaped-model", "escaped", 200, body=b'{"messages":[],"model":"gpt\\u002d4o"}')
    yield Case("in-process", "in_process", 200, body=chat_body(model="agw/echo"))


def failures() -> Iterator[Case]:
    """Upstreams that fail before, and within, their answer."""
    streaming = chat_body(stream=True)
    for status in (400, 401, 403, 404, 409, 413, 422):
        yield broken(f"upstream-{status}", failure(status, f"no, {UPSTREAM_KEY}", headers=RETRY), status)
    yield broken("upstream-429", limited((("retry-after", "7"), ("x-ratelimit-reset-requests", "7s"))), 429)
    yield broken("upstream-429-quota", limited((), "insufficient_quota"), 429)
    for status, told in ((500, 502), (502, 502), (503, 503), (504, 504), (529, 503)):
        yield broken(f"upstream-{status}", failure(status), told)
    yield Case("upstream-503-once", "upstream_failed", script=[failure(503)])
    yield Case("upstream-503-once-stream", "upstream_failed", body=streaming, script=[failure(503)])
    yield Case("unreachable", "upstream_failed", 502, body=chat_body(model="dead-1"))
    yield Case("misnamed", "upstream_failed", 502, body=chat_body(model="misnamed-1"))
    yield broken("reset", reset(), 502)
    yield broken("fin", raw(b""), 502)
    yield broken("half-a-head", raw(b"HTTP/1.1 200 OK\r\ncontent-ty"), 502)
    yield broken("garbage", raw(b"SSH-2.0-OpenSSH_9.2\r\n", "hang"), 502)
    yield broken("html", answer(CURSED_PAGE, content_type="text/html"), 502)
    yield broken("html-502", html_502(), 502)
    yield broken("redirect", redirect("http://127.0.0.1:9/x"), 502)
    yield Case("unmodified", status=304, script=[raw(b"HTTP/1.1 304 Not Modified\r\n\r\n")])
    yield broken("silence", silence(), 504)
    yield broken("cut-unframed", raw(CUT_CLOSE), 502)
    yield broken("error-is-first-event", stream([ERROR_EVENT, DONE]), 502, body=streaming)
    yield broken("no-event", stream([b": hi\n\n"]), 502, body=streaming)
    yield broken("no-event-at-all", stream([]), 502, body=streaming)
    yield broken("silent-before-event", stream([b": hi\n\n"], ending="hang"), 504, body=streaming)
    yield Case("fallback", "upstream_failed", body=chat_body(model="safe"), script=[failure(500)])
    half = raw(b"HTTP/1.1 200 OK\r\ncontent-ty")
    yield Case("fallback-half-a-head", "upstream_failed", body=chat_body(model="safe", stream=True), script=[half])
    yield broken("fallback-fails", failure(500), 502, body=chat_body(model="safe"))
    yield Case("cut-length", script=[raw(CUT_LENGTH)])
    yield Case("cut-chunk", script=[raw(CUT_CHUNK)])
    yield Case("bad-chunk", "upstream_failed", script=[raw(CUT_CHUNK + BAD_CHUNK)])
    yield Case("bad-chunk-later", script=[in_two(CUT_CHUNK, BAD_CHUNK)])
    yield Case("stalled-plain", script=[raw(CUT_LENGTH, "hang")])
    yield Case("error-mid-stream", body=streaming, script=[stream([*words()[:2], ERROR_EVENT, DONE], pace_ms=20)])
    yield Case("error-in-one-write", body=streaming, script=[stream([b"".join([*words()[:2], ERROR_EVENT, DONE])])])
    for ending in ("fin", "rst", "hang", "whole"):
        yield Case(f"stream-{ending}", body=streaming, script=[stream(words()[:3], pace_ms=5, ending=ending)])
    cut = b"".join(words()[:3])[:-40]
    yield Case("stream-cut-event", body=streaming, script=[stream([cut], ending="fin")])
    yield Case("stream-cut-event-whole", body=streaming, script=[stream([cut])])
    yield Case("stream-ends-unfinished", body=streaming, script=[stream(words()[:3], framing="close")])
    whole = b"".join(words()[:3])
    framed = b"%x\r\n%b\r\n0\r\n\r\n" % (len(whole), whole)
    yield Case("stream-unfinished-in-one-write", body=streaming, script=[raw(EVENTS_HEAD + framed)])
    yield Case("stream-no-done", body=streaming, script=[stream(words())])


RETRY = (("retry-after", "1"), ("x-request-id", "theirs"), ("set-cookie", "a=b"))
CASES = [*chats(), *routes(), *refusals(), *failures()]
