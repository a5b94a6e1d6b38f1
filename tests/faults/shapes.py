"""Odd, but well: an answer in any shape that the wire allows is the same answer, and leaves nothing behind."""

from tests.faults.broken import EVENTS_HEAD, MODELS
from tests.faults.dialects import MESSAGE, MESSAGE_EVENTS, RESPONSE, RESPONSE_EVENTS
from tests.faults.fault import Api, Fault, Scene
from tests.support.behaviours import DONE, answer, raw, stream
from tests.support.fake_openai import completion, spoken, words

READER = "ext/agw_proxy/_hot/sse.pyx: the reader of events; bytes are relayed as they came"
EARLY = b"HTTP/1.1 103 Early Hints\r\nlink: </a>; rel=preload\r\n\r\n"
STRAY = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil"


def shaped(name: str, promise: str, events: list[bytes], *, split: int = 0, api: Api = "chat") -> Fault:
    """A stream that is read as ever."""
    return Fault(name, promise, READER, sse=Scene("whole", (stream(events, split=split),), api=api, model=MODELS[api]))


def in_chunks(events: list[bytes]) -> bytes:
    """A whole chunked body."""
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in events) + b"0\r\n\r\n"


def several_lines(data: bytes) -> bytes:
    """One event's JSON on two data lines."""
    return data.replace(b',"object"', b',\ndata: "object"', 1)


ROWS = (
    Fault(
        "whole-responses",
        "A Responses answer is relayed as it came.",
        READER,
        json=Scene("whole", (answer(RESPONSE),), api="responses"),
        sse=Scene("whole", (stream(RESPONSE_EVENTS),), api="responses"),
    ),
    Fault(
        "whole-messages",
        "A Messages answer is relayed as it came.",
        READER,
        json=Scene("whole", (answer(MESSAGE),), api="messages", model="claude-{}"),
        sse=Scene("whole", (stream(MESSAGE_EVENTS),), api="messages", model="claude-{}"),
    ),
    shaped("byte-by-byte", "A stream is read in any split.", spoken(), split=1),
    shaped("crlf", "Lines may end in CRLF.", [piece.replace(b"\n", b"\r\n") for piece in spoken()], split=5),
    shaped("comments", "Comments are fine anywhere.", [b": hi\n\n", *words(), b": bye\n\n", DONE]),
    shaped("data-lines", "An event may have several data lines.", [several_lines(words()[0]), *words()[1:], DONE]),
    shaped("no-blank-line", "The final blank line may be missing.", [*words(), DONE[:-1]]),
    shaped("no-done", "A finish reason without `[DONE]` is a finished stream.", words()),
    Fault(
        "early-hints",
        "A 1xx is swallowed.",
        "ext/agw_proxy/_hot/http1.pyx: 1xx",
        json=Scene("whole", (answer(completion(), before=EARLY),)),
    ),
    Fault(
        "stray-bytes",
        "Bytes behind an answer cost the connection, and never become the next answer.",
        "the lane's pool: a connection with bytes left is closed",
        json=Scene("whole", (answer(completion(), after=STRAY),), times=2, before=1),
        sse=Scene("whole", (raw(EVENTS_HEAD + in_chunks(spoken()) + STRAY, "hang"),), times=2, before=1),
    ),
)
