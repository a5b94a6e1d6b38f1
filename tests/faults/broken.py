"""Answers that break after they have begun: the official SDK raises, and never takes a part for the whole."""

from tests.e2e.lane_cases import in_two
from tests.faults.dialects import MESSAGE, MESSAGE_EVENTS, RESPONSE, RESPONSE_EVENTS
from tests.faults.fault import Api, Fault, Scene
from tests.support.behaviours import DONE, Ending, Framing, answer, event, raw, stream, zipped
from tests.support.fake_openai import completion, words
from tests.support.gateway import Tree

MEGABYTE = 1024 * 1024
RELAY = "agw_proxy/edge/relay.py: the honest end; the lane's end of a stream"
JSON_END = "agw_proxy/upstreams/attempts.py: `whole`; the lane's framing of an answer"
OVERLOADED: dict[Api, bytes] = {
    "chat": event({"error": {"message": "overloaded", "type": "server_error", "code": "overloaded"}}),
    "responses": event({"type": "error", "code": "server_error", "message": "overloaded", "param": None}, "error"),
    "messages": event({"type": "error", "error": {"type": "overloaded_error", "message": "overloaded"}}, "error"),
}
BARE = event({"error": {"message": "overloaded", "type": "server_error", "code": "overloaded"}})
EVENTS: dict[Api, list[bytes]] = {
    "chat": [*words(), DONE],
    "responses": RESPONSE_EVENTS,
    "messages": MESSAGE_EVENTS,
}
BEGUN = {"chat": 3, "responses": 4, "messages": 4}
"""Events of each dialect after which content has passed and the end has not."""
MODELS: dict[Api, str] = {"chat": "gpt-{}", "responses": "gpt-{}", "messages": "claude-{}"}
ANSWERS: dict[Api, Tree] = {"chat": completion(), "responses": RESPONSE, "messages": MESSAGE}
LENGTH = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 500\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
CLOSED = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n"
TEXT = b"".join(words()[:3])
EVENTS_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def begun(api: Api) -> list[bytes]:
    """The first events, some of them content."""
    return EVENTS[api][: BEGUN[api]]


def cut(
    api: Api,
    name: str,
    promise: str,
    *more: bytes,
    ending: Ending = "whole",
    framing: Framing = "chunked",
    pace_ms: float = 0,
    stalls: bool = False,
    outcome: str = "upstream_broken",
    guard: str = RELAY,
) -> Fault:
    """A stream of this dialect that begins well, then has ``more``, then ends so."""
    scene = Scene(
        "broken",
        (stream([*begun(api), *more], ending=ending, framing=framing, pace_ms=pace_ms),),
        api=api,
        model=MODELS[api],
        outcome=outcome,
        cut=stalls,
    )
    return Fault(f"{name}-{api}", promise, guard, sse=scene)


def streams(api: Api) -> tuple[Fault, ...]:
    """Every way in which a stream of this dialect breaks."""
    half = EVENTS[api][BEGUN[api]][:20]
    return (
        cut(api, "clean-end", "A stream that ends cleanly without its terminator is broken."),
        cut(api, "close-delimited", "So is one that ends with its connection.", framing="close"),
        cut(api, "chunk-cut", "A stream without its last chunk is broken.", ending="fin"),
        cut(api, "rst", "A stream that is reset is broken.", ending="rst"),
        cut(api, "half-event", "A stream that ends within an event is broken.", half),
        cut(
            api,
            "stall",
            "A stream that stalls after its first token ends with an error event, and its upstream is cancelled.",
            ending="hang",
            stalls=True,
            outcome="upstream_timeout",
            guard="agw_proxy/upstreams/client.py: between_bytes; the lane's deadlines",
        ),
        cut(
            api,
            "pings",
            "Pings and comments do not keep a stalled stream alive.",
            *[b": ping\n\n"] * 100,
            *EVENTS[api][BEGUN[api] :],
            pace_ms=20,
            stalls=True,
            outcome="upstream_timeout",
            guard="ext/agw_proxy/_hot/sse.pyx: events that are no pings",
        ),
        cut(api, "error-inside", "An error event inside a 200 is a broken stream.", OVERLOADED[api], ending="whole"),
        cut(api, "bare-error", "Also where it comes as a data line alone.", BARE, DONE),
    )


def cut_json(name: str, promise: str, data: bytes, **more: str) -> Fault:
    """A plain answer that comes in part, each time."""
    scene = Scene("refused", always=raw(data), status=502, code="upstream_reset", attempts=3, outcome="upstream_reset")
    return Fault(name, promise, more.get("guard", JSON_END), json=scene)


PARTS = (
    cut_json("json-close", "JSON that ends with its connection before it is whole is no answer.", CLOSED + b'{"id": 1'),
    Fault(
        "json-length",
        "JSON shorter than its Content-Length never looks whole.",
        JSON_END,
        json=Scene("broken", (raw(LENGTH + b'{"id": "x", "cho'),), outcome="upstream_broken"),
    ),
    Fault(
        "json-chunk",
        "Chunked JSON without its last chunk never looks whole.",
        JSON_END,
        json=Scene("broken", (raw(CHUNKED + b'8\r\n{"id": 1\r\n'),), outcome="upstream_broken"),
    ),
    Fault(
        "json-stall",
        "JSON that stalls half-way is cut, and its upstream cancelled.",
        "agw_proxy/upstreams/client.py: between_bytes; the lane's deadlines",
        json=Scene("broken", (raw(LENGTH + b'{"id": "x", "cho', "hang"),), outcome="upstream_timeout", cut=True),
    ),
    Fault(
        "json-bad-chunk",
        "A chunk size that is none ends the answer as broken.",
        "ext/agw_proxy/_hot/http1_chunks.pxi",
        json=Scene("broken", (in_two(CHUNKED + b'8\r\n{"id": 1\r\n', b"zz\r\n"),), outcome="upstream_broken"),
        sse=Scene(
            "broken",
            (in_two(EVENTS_HEAD + b"%x\r\n%s\r\n" % (len(TEXT), TEXT), b"zz\r\n"),),
            outcome="upstream_broken",
        ),
    ),
    Fault(
        "total",
        "A stream that never stops ends with an error event when the time for the whole exchange is over.",
        "agw_proxy/upstreams/client.py: total; the lane's deadlines",
        sse=Scene(
            "broken",
            (stream([*words()[:-1], *words()[:1] * 500], pace_ms=20),),
            model="brief-{}",
            outcome="upstream_timeout",
            cut=True,
        ),
    ),
    Fault(
        "gzip-cut",
        "A compressed answer that was cut does not pass for good.",
        "agw_proxy/upstreams/http.py: answers pass untouched, so the client's own check holds",
        json=Scene("broken", (zipped(completion(), cut=12),), outcome="ok"),
    ),
    Fault(
        "huge-event",
        "An event over 16 MB ends the stream with an error.",
        "ext/agw_proxy/_hot/sse.pyx: the bound of an event",
        sse=Scene(
            "broken",
            (stream([*words()[:3], b"data: " + b"x" * (17 * MEGABYTE)], split=MEGABYTE),),
            outcome="upstream_broken",
        ),
    ),
    Fault(
        "empty-json",
        "An empty 200 where JSON was asked for is passed on as it is, and the SDK does not take it for an answer.",
        JSON_END,
        json=Scene("broken", (answer(b""),)),
    ),
)
ROWS = (*streams("chat"), *streams("responses"), *streams("messages"), *PARTS)
