"""Clients that vanish, read too slowly or know little: nobody works for them any more, and nothing looks whole."""

import gzip
import time
from functools import cache

from tests.faults.fault import Fault, Scene
from tests.support.behaviours import answer, failure, huge, raw, silence, stream
from tests.support.fake_openai import words
from tests.support.gateway import Gateway, Tree
from tests.support.upstream import Exchange, Upstream

MEGABYTE = 1024 * 1024
BOMB_BYTES = 50 * MEGABYTE
HUGE_BYTES = 100 * MEGABYTE
KERNEL_BYTES = 30 * MEGABYTE  # what socket buffers may hold between upstream, gateway and client
SETTLED_POLLS = 20
POLL_SECONDS = 0.015
WATCH = "agw_proxy/edge/hangup.py; the lane's `connection_lost`"
PART = b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 500\r\n\r\n{"id": "x", "cho'
CUT_CHUNKED = (
    b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n8\r\n{"id": 1\r\n'
)
FLOW = stream(words() * 1000, pace_ms=20)
WAITS = 60  # seconds that an upstream asks to wait, longer than the test


def leave_unanswered(gateway: Gateway, upstream: Upstream, body: Tree, headers: dict[str, str]) -> float:
    """Send, wait until the upstream has it, go."""
    with gateway.connect() as connection:
        connection.send("POST", "/v1/chat/completions", body, headers)
        upstream.wait()
        return time.monotonic()


def leave_retried(gateway: Gateway, upstream: Upstream, body: Tree, headers: dict[str, str]) -> float:
    """Go when the second attempt has begun."""
    with gateway.connect() as connection:
        connection.send("POST", "/v1/chat/completions", body, headers)
        upstream.wait(2)
        return time.monotonic()


def leave_with_reset(gateway: Gateway, upstream: Upstream, body: Tree, headers: dict[str, str]) -> float:
    """Likewise, with an RST."""
    with gateway.connect() as connection:
        connection.send("POST", "/v1/chat/completions", body, headers)
        upstream.wait()
        left = time.monotonic()
        connection.reset()
    return left


def leave_half_way(gateway: Gateway, upstream: Upstream, body: Tree, headers: dict[str, str]) -> float:
    """Go after the first bytes of the answer."""
    with gateway.connect() as connection:
        connection.send("POST", "/v1/chat/completions", body, headers)
        next(connection.pieces(connection.head()))
        return time.monotonic()


def read_slowly(gateway: Gateway, upstream: Upstream, body: Tree, headers: dict[str, str]) -> float:
    """Read nothing of a long answer until the upstream has been held up, then go."""
    with gateway.connect(receive_buffer=64 * 1024) as connection:
        connection.send("POST", "/v1/chat/completions", body, headers)
        connection.head()
        seen = upstream.wait()[0]
        last, still = -1, 0
        while still < SETTLED_POLLS:
            still = still + 1 if seen.accepted == last else 0
            last = seen.accepted
            time.sleep(POLL_SECONDS)
        assert 0 < seen.accepted < KERNEL_BYTES
        return time.monotonic()


@cache
def bomb() -> bytes:
    """A little gzip that is much JSON."""
    return gzip.compress(b'{"x": "' + b"x" * BOMB_BYTES + b'"}')


async def send_bomb(exchange: Exchange) -> None:
    """Whole, and well framed."""
    await answer(bomb(), headers=(("content-encoding", "gzip"),))(exchange)


def read_bomb(gateway: Gateway, upstream: Upstream, body: Tree, headers: dict[str, str]) -> float:
    """Get what the upstream sent, byte for byte."""
    assert len(bomb()) < BOMB_BYTES // 100
    with gateway.connect() as connection:
        connection.send("POST", "/v1/chat/completions", body, {**headers, "accept-encoding": "gzip"})
        reply = connection.reply()
    assert (reply.complete, reply.value("content-encoding"), reply.body) == (True, "gzip", bomb())
    return time.monotonic()


def read_to_the_end(gateway: Gateway, upstream: Upstream, body: Tree, headers: dict[str, str]) -> float:
    """Know nothing of error events, only of framing: that alone must tell that the answer is not whole."""
    with gateway.connect() as connection:
        connection.send("POST", "/v1/chat/completions", body, headers)
        reply = connection.reply()
    assert reply.status == 200
    assert reply.body
    assert not reply.complete
    return time.monotonic()


ROWS = (
    Fault(
        "gzip-bomb",
        "A compressed answer is passed on as it came and never unpacked, so that a bomb costs the gateway nothing.",
        "agw_proxy/upstreams/client.py: no decompression; the lane never has one",
        json=Scene("left", (send_bomb,), client=read_bomb, heavy=True, begun=True),
    ),
    Fault(
        "last-chunk",
        "A broken answer never gets its last chunk, so that a client that looks at the framing alone sees it, too.",
        "agw_proxy/edge/relayed.py: `Relayed.write_eof`; the lane's end of a stream",
        json=Scene("left", (raw(CUT_CHUNKED),), client=read_to_the_end, begun=True, outcome="upstream_broken"),
        sse=Scene(
            "left", (stream(words()[:3], ending="fin"),), client=read_to_the_end, begun=True, outcome="upstream_broken"
        ),
    ),
    Fault(
        "leaves-waiting",
        "A client that leaves before the first byte ends the upstream's request within 100 ms.",
        WATCH,
        json=Scene("left", always=silence(), client=leave_unanswered, outcome="caller_gone", cut=True),
        sse=Scene("left", always=silence(), client=leave_unanswered, outcome="caller_gone", cut=True),
    ),
    Fault(
        "leaves-with-reset",
        "So does one that resets its connection.",
        WATCH,
        json=Scene("left", always=silence(), client=leave_with_reset, outcome="caller_gone", cut=True),
        sse=Scene("left", always=silence(), client=leave_with_reset, outcome="caller_gone", cut=True),
    ),
    Fault(
        "leaves-half-way",
        "So does one that leaves amid the answer.",
        WATCH,
        json=Scene("left", (raw(PART, "hang"),), client=leave_half_way, begun=True, outcome="caller_gone", cut=True),
        sse=Scene("left", (FLOW,), client=leave_half_way, begun=True, outcome="caller_gone", cut=True),
    ),
    Fault(
        "leaves-retrying",
        "A client that leaves during a later attempt ends that one, and no other is made.",
        WATCH,
        json=Scene("left", (failure(503),), always=silence(), client=leave_retried, outcome="caller_gone", attempts=2),
        sse=Scene("left", (failure(503),), always=silence(), client=leave_retried, outcome="caller_gone", attempts=2),
    ),
    Fault(
        "reads-slowly",
        "A client that does not read stops the reading from its upstream; memory stays flat.",
        "agw_proxy/edge/relay.py: the high-water marks; the lane's `pause_writing`",
        json=Scene(
            "left",
            (huge(HUGE_BYTES, streamed=False),),
            client=read_slowly,
            outcome="caller_gone",
            cut=True,
            heavy=True,
            begun=True,
        ),
        sse=Scene(
            "left", (huge(HUGE_BYTES),), client=read_slowly, outcome="caller_gone", cut=True, heavy=True, begun=True
        ),
    ),
)
