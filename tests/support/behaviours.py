"""What the scripted upstream can do to a request: answer, stream, misframe, stall, cut, lie.

Every function returns a ``Behaviour``. Endings of a stream: ``whole`` (as the framing wants it), ``fin`` (the
connection closes, a chunked body lacks its last chunk), ``rst``, ``hang`` (nothing more comes; the peer has to leave).
"""

import asyncio
import gzip
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import orjson

from tests.support.upstream import Behaviour, Exchange

Framing = Literal["length", "chunked", "close"]
Ending = Literal["whole", "fin", "rst", "hang"]
Headers = Sequence[tuple[str, str]]

REASONS = {200: "OK", 302: "Found", 400: "Bad Request", 429: "Too Many Requests", 502: "Bad Gateway"}
FOREVER_SECONDS = 3600.0  # the peer leaves first, or the test has failed
GATE_SECONDS = 0.005  # between two looks whether a test has set its event
RST_GRACE_SECONDS = 0.05  # an RST destroys what the peer has not read yet: let it read first
CURSED_PAGE = b"<html><head><title>502 Bad Gateway</title></head><body>upstream-internal.example</body></html>"


def encode(tree: object) -> bytes:
    """A JSON body; bytes are taken as they are."""
    return tree if isinstance(tree, bytes) else orjson.dumps(tree)


def event(tree: object, name: str | None = None) -> bytes:
    """One server-sent event."""
    head = b"" if name is None else b"event: " + name.encode() + b"\n"
    return head + b"data: " + encode(tree) + b"\n\n"


DONE = b"data: [DONE]\n\n"


def head_bytes(status: int, headers: Headers) -> bytes:
    """A response head, written without any check."""
    lines = [f"HTTP/1.1 {status} {REASONS.get(status, 'Status')}", *(f"{name}: {value}" for name, value in headers)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def answer(
    body: object = b"{}",
    *,
    status: int = 200,
    headers: Headers = (),
    content_type: str = "application/json",
    framing: Framing = "length",
    delay_ms: float = 0,
    before: bytes = b"",
    after: bytes = b"",
    close: bool = False,
) -> Behaviour:
    """A whole answer.

    ``before``: raw bytes ahead of the head (a 1xx); ``after``: raw bytes behind the body; ``close``: with a FIN right
    after it, unannounced.
    """
    content = encode(body)
    fields = [("content-type", content_type), *headers]
    if framing == "length":
        fields.append(("content-length", str(len(content))))
    elif framing == "chunked":
        fields.append(("transfer-encoding", "chunked"))
        content = _chunk(content) + b"0\r\n\r\n"

    async def behave(exchange: Exchange) -> None:
        if delay_ms:
            await asyncio.sleep(delay_ms / 1000)
        await exchange.send(before + head_bytes(status, fields) + content + after)
        if close or framing == "close":
            exchange.end()

    return behave


def stream(
    events: Iterable[bytes],
    *,
    pace_ms: float = 0,
    split: int = 0,
    ending: Ending = "whole",
    framing: Framing = "chunked",
    headers: Headers = (),
    delay_ms: float = 0,
) -> Behaviour:
    """An event stream.

    ``split``: cut the bytes into pieces of that size, whatever the events; ``delay_ms``: before the head; ``pace_ms``:
    between writes.
    """
    pieces = list(events)
    if split:
        whole = b"".join(pieces)
        pieces = [whole[at : at + split] for at in range(0, len(whole), split)]
    fields = [("content-type", "text/event-stream"), *headers]
    if framing == "chunked":
        fields.append(("transfer-encoding", "chunked"))

    async def behave(exchange: Exchange) -> None:
        if delay_ms:
            await asyncio.sleep(delay_ms / 1000)
        await exchange.send(head_bytes(200, fields))
        for number, piece in enumerate(pieces):
            if number and pace_ms:
                await asyncio.sleep(pace_ms / 1000)
            await exchange.send(_chunk(piece) if framing == "chunked" else piece)
        if ending == "whole" and framing == "chunked":
            await exchange.send(b"0\r\n\r\n")
        else:
            await _end(exchange, "fin" if ending == "whole" else ending)

    return behave


def raw(data: bytes, ending: Ending = "fin") -> Behaviour:
    """These bytes and nothing else: garbage, half a head, a body shorter than announced."""

    async def behave(exchange: Exchange) -> None:
        if data:
            await exchange.send(data)
        await _end(exchange, ending)

    return behave


def silence() -> Behaviour:
    """Never a byte; the peer has to leave."""
    return raw(b"", "hang")


def reset() -> Behaviour:
    """RST before any byte of the answer."""

    async def behave(exchange: Exchange) -> None:
        exchange.reset()

    return behave


def gate(*behaviours: Behaviour) -> tuple[threading.Event, Behaviour]:
    """One behaviour after the other; before the last, wait for the event, which the test sets."""
    go = threading.Event()

    async def behave(exchange: Exchange) -> None:
        for behaviour in behaviours[:-1]:
            await behaviour(exchange)
        while not go.is_set():
            await asyncio.sleep(GATE_SECONDS)
        await behaviours[-1](exchange)

    return go, behave


def counting(behaviour: Behaviour) -> tuple[Callable[[], int], Behaviour]:
    """The same, and the most that were under way at once so far."""
    running, most = 0, 0

    async def behave(exchange: Exchange) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        try:
            await behaviour(exchange)
        finally:
            running -= 1

    return lambda: most, behave


async def close(exchange: Exchange) -> None:
    """End the connection."""
    exchange.end()


def failure(status: int, message: str = "scripted", *, code: str | None = None, headers: Headers = ()) -> Behaviour:
    """An error in the OpenAI shape."""
    kind = "insufficient_quota" if code == "insufficient_quota" else "scripted_error"
    tree = {"error": {"message": message, "type": kind, "param": None, "code": code}}
    return answer(tree, status=status, headers=headers)


def limited(headers: Headers = (("retry-after", "1"),), code: str | None = "rate_limit_exceeded") -> Behaviour:
    """A 429; ``headers`` say when to come again."""
    return failure(429, "slow down", code=code, headers=headers)


def html_502() -> Behaviour:
    """A load balancer's error page."""
    return answer(CURSED_PAGE, status=502, content_type="text/html")


def redirect(location: str) -> Behaviour:
    """A 302 that must not be followed."""
    return answer(b"", status=302, headers=(("location", location),))


def zipped(body: object, *, cut: int = 0) -> Behaviour:
    """A gzip body; ``cut`` takes that many bytes off its end, with a Content-Length that hides it."""
    content = gzip.compress(encode(body))
    return answer(content[: len(content) - cut], headers=(("content-encoding", "gzip"),))


def huge(total_bytes: int, piece_bytes: int = 64 * 1024, *, streamed: bool = True) -> Behaviour:
    """A long stream of content events (or one long JSON text), made as the socket takes it (``Recorded.accepted``)."""
    text = b"x" * piece_bytes
    chunk = b'data: {"object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"' + text + b'"}}]}\n\n'
    kind = "text/event-stream" if streamed else "application/json"

    async def behave(exchange: Exchange) -> None:
        await exchange.send(head_bytes(200, [("content-type", kind), ("transfer-encoding", "chunked")]))
        if not streamed:
            await exchange.send(_chunk(b'{"object":"chat.completion","text":"'))
        for _ in range(total_bytes // piece_bytes):
            await exchange.send(_chunk(chunk if streamed else text))
        tail = event({"object": "chat.completion.chunk", "choices": [_stop()]}) + DONE if streamed else b'"}'
        await exchange.send(_chunk(tail) + b"0\r\n\r\n")

    return behave


def _stop() -> dict[str, object]:
    return {"index": 0, "delta": {}, "finish_reason": "stop"}


def _chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


async def _end(exchange: Exchange, ending: Ending) -> None:
    if ending == "hang":
        await asyncio.sleep(FOREVER_SECONDS)
    elif ending == "rst":
        await asyncio.sleep(RST_GRACE_SECONDS)
        exchange.reset()
    else:
        exchange.end()
