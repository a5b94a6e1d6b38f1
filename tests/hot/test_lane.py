"""What Python can reach of the lane: what its parts refuse to be made of, and the wheel of deadlines, on both loops.

Everything else of it is seen from outside (tests/e2e/test_lane*.py).
"""

import asyncio
import mmap
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from agw_proxy._hot.keys import KeyTable
from agw_proxy._hot.lane import Downstream, Lane, Names, Origin, Peer, Policy, odd_target
from agw_proxy._hot.meter import Meter
from agw_proxy._hot.route import RouteTable
from agw_proxy.observe.metrics import FAMILIES

TICK_SECONDS = 2**24 / 1e9
MAX_HELD = 1 << 20
FOREVER = 3600.0


def origin(headers: list[tuple[bytes, bytes]]) -> Origin:
    return Origin(
        "up",
        host="127.0.0.1",
        port=1,
        tls=None,
        authority=b"127.0.0.1:1",
        base=b"/v1",
        headers=headers,
        stream_usage=True,
        replays=True,
        health=None,
        kept=[],
    )


def policy(*, head: float = FOREVER, idle: float = FOREVER) -> Policy:
    return Policy(
        keys=KeyTable([]),
        callers=[],
        routes=RouteTable([], []),
        origins=[],
        doors={},
        terms=lambda _model, _upstream: (None, 1.0, 1.0, 1.0, 1.0, None, 1.0, 1.0, 1.0, False),
        state=None,
        json_depth=64,
        seconds=(head, FOREVER, idle, FOREVER),
    )


class Shell:
    """What the lane asks of Python, as far as a connection without a whole request needs it."""

    writes_receipts = True
    prompt: frozenset[bytes] = frozenset()
    writes_lines = True
    receipt = dict  # no exchange ends here

    def __init__(self) -> None:
        self.refused: list[tuple[int, str, float]] = []
        self.gone = 0

    def opened(self, downstream: Downstream) -> bool:
        return True

    def closed(self, downstream: Downstream) -> None:
        self.gone += 1

    def refuse(self, downstream: Downstream, status: int, name: str, told: str, started: int) -> bytes:
        self.refused.append((status, name, time.monotonic()))
        return b"refused"


class Timers:
    """A loop that counts the timers made on it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.made = 0

    def call_later(self, delay: float, callback: Callable[[], object]) -> asyncio.TimerHandle:
        self.made += 1
        return self._loop.call_later(delay, callback)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)


class Transport(asyncio.Transport):
    """A transport that keeps what happens to it, without a socket."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.ended = 0.0
        self.protocol: Downstream | None = None

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        assert high == 0

    def get_write_buffer_size(self) -> int:
        return 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)

    def write_eof(self) -> None:
        self.written += b"<EOF>"

    def close(self) -> None:
        self.ended = time.monotonic()
        protocol, self.protocol = self.protocol, None
        if protocol is not None:
            protocol.connection_lost(None)

    abort = close


def lane_of(loop: Any, rules: Policy) -> Lane:
    meter = Meter(FAMILIES, mmap.mmap(-1, Meter.size(FAMILIES, 1)))
    names = Names([b"host"], [b"content-type"], [b"x-safe-"])
    return Lane(loop, Shell(), names, meter, rules, max_line=8192, max_head=32768, max_held=MAX_HELD)


def connect(lane: Lane) -> Transport:
    transport = Transport()
    transport.protocol = lane()
    transport.protocol.connection_made(transport)
    return transport


@pytest.fixture
def lanes() -> Iterator[Callable[..., tuple[Lane, Timers]]]:
    made: list[Lane] = []

    def make(rules: Policy) -> tuple[Lane, Timers]:
        timers = Timers(asyncio.get_running_loop())
        made.append(lane_of(timers, rules))
        return made[-1], timers

    yield make
    for lane in made:
        lane.close()


# -- names, headers, parts


@pytest.mark.parametrize("name", [b"", b"Host", b"x" * 32, b"X-A"])
def test_a_name_that_is_not_one_in_lower_case_is_refused(name: bytes) -> None:
    with pytest.raises(ValueError, match="expected a lower-case header name of at most 31 bytes"):
        Names([name], [], [])
    with pytest.raises(ValueError, match="expected a lower-case header name of at most 31 bytes"):
        Names([], [name], [])


def test_a_name_may_be_kept_and_safe_and_as_long_as_the_table_allows() -> None:
    assert Names([b"x", b"x" * 31], [b"x"], []) is not None


@pytest.mark.parametrize("prefix", [b"", b"X-", b"-x", b"x" * 32])
def test_a_prefix_begins_a_name_in_lower_case(prefix: bytes) -> None:
    with pytest.raises(ValueError, match="expected the beginning of a header name in lower case"):
        Names([], [], [], [prefix])
    with pytest.raises(ValueError, match="at most 8 prefixes"):
        Names([], [], [], [b"x-"] * 9)


@pytest.mark.parametrize("what", [None, "x", [1]])
def test_names_are_bytes(what: object) -> None:
    with pytest.raises(TypeError):
        Names(what, [], [])  # type: ignore[arg-type]  # that is the point


@pytest.mark.parametrize(
    "header",
    [(b"x-a", b"1\r\nx-b: 2"), (b"x-a", b"1\n"), (b"x-a", b"\0"), (b"x-a\r\nx-b", b"1"), (b"x\n", b""), (b"\0", b"")],
)
def test_a_header_that_would_end_its_line_is_refused(header: tuple[bytes, bytes]) -> None:
    with pytest.raises(ValueError, match=r"upstream 'up': a header's value holds a line end or NUL"):
        origin([(b"authorization", b"Bearer x"), header])


def test_an_origin_without_connections_has_none() -> None:
    made = origin([(b"X-Team", b"edge")])
    assert (made.name, made.host, made.port, made.open, made.waiting) == ("up", "127.0.0.1", 1, 0, 0)
    made.close()
    assert made.waiting == 0


def test_connections_belong_to_a_lane() -> None:
    with pytest.raises(TypeError):
        Downstream(None)  # type: ignore[arg-type]  # that is the point
    with pytest.raises(TypeError):
        Peer(None, origin([]))  # type: ignore[arg-type]  # likewise


def test_a_policy_needs_its_tables() -> None:
    with pytest.raises(TypeError):
        Policy(
            keys=None,  # type: ignore[arg-type]  # that is the point
            callers=[],
            routes=RouteTable([], []),
            origins=[],
            doors={},
            terms=None,  # type: ignore[arg-type]  # likewise
            state=None,
            json_depth=64,
            seconds=(1.0, 1.0, 1.0, 1.0),
        )


# -- the wheel


@pytest.mark.both_loops
async def test_a_deadline_passes_once_and_not_early(lanes: Callable[..., tuple[Lane, Timers]]) -> None:
    lane, _ = lanes(policy(head=0.05))
    begun = time.monotonic()
    transport = connect(lane)
    assert transport.protocol is not None
    transport.protocol.data_received(b"POST / HTTP/1.1\r\nHo")
    while not transport.written:
        await asyncio.sleep(0.005)
    [(status, name, when)] = lane.shell.refused
    assert (status, name, transport.written) == (408, "head_timeout", b"refused<EOF>")
    assert when - begun >= 0.05
    await asyncio.sleep(4 * TICK_SECONDS)
    assert len(lane.shell.refused) == 1


@pytest.mark.both_loops
async def test_a_connection_that_asks_nothing_is_closed_at_its_deadline_and_not_early(
    lanes: Callable[..., tuple[Lane, Timers]],
) -> None:
    lane, _ = lanes(policy(head=0.05))
    begun = time.monotonic()
    transport = connect(lane)
    while not transport.ended:
        await asyncio.sleep(0.005)
    assert transport.ended - begun >= 0.05
    assert (lane.shell.gone, len(lane.connections), len(lane.wheel)) == (1, 0, 0)
    assert transport.written == b""


@pytest.mark.both_loops
async def test_deadlines_pass_in_their_order(lanes: Callable[..., tuple[Lane, Timers]]) -> None:
    lane, _ = lanes(policy(head=0.15))
    late = connect(lane)
    lane.swap(policy(head=0.03))
    early = connect(lane)
    while not late.ended:
        await asyncio.sleep(0.005)
    assert 0 < early.ended < late.ended


@pytest.mark.both_loops
async def test_a_defect_at_one_deadline_is_no_other_connections(lanes: Callable[..., tuple[Lane, Timers]]) -> None:
    lane, _ = lanes(policy(head=0.03))
    told: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: told.append(context["exception"]))
    defect = RuntimeError("in one connection's Receipt")
    refuse = lane.shell.refuse
    lane.shell.refuse = lambda *arguments: (_ for _ in ()).throw(defect) if not told else refuse(*arguments)
    transports = [connect(lane) for _ in range(4)]
    for transport in transports:
        assert transport.protocol is not None
        transport.protocol.data_received(b"POST / HTTP/1.1\r\nHo")
    while not all(transport.ended or transport.written for transport in transports):
        await asyncio.sleep(0.005)
    assert told == [defect]
    assert sorted(transport.written for transport in transports) == [b"", *[b"refused<EOF>"] * 3]


@pytest.mark.both_loops
async def test_many_connections_share_a_timer_and_one_more_costs_none(
    lanes: Callable[..., tuple[Lane, Timers]],
) -> None:
    lane, timers = lanes(policy())
    first = connect(lane)
    assert timers.made == 1
    transports = [connect(lane) for _ in range(500)]
    assert timers.made == 1
    assert (len(lane.wheel), len(lane.connections)) == (501, 501)
    for transport in [first, *transports]:
        transport.close()
    assert (len(lane.wheel), len(lane.connections), lane.shell.gone) == (0, 0, 501)
    assert timers.made == 1


@pytest.mark.both_loops
async def test_putting_a_deadline_off_costs_no_timer(lanes: Callable[..., tuple[Lane, Timers]]) -> None:
    lane, timers = lanes(policy())
    transport = connect(lane)
    assert transport.protocol is not None
    for _ in range(1000):
        transport.protocol.data_received(b"\r\n")
    assert (timers.made, len(lane.wheel)) == (1, 1)
    transport.close()


@pytest.mark.both_loops
async def test_an_earlier_deadline_moves_the_timer_and_a_closed_wheel_has_none(
    lanes: Callable[..., tuple[Lane, Timers]],
) -> None:
    lane, timers = lanes(policy())
    late = connect(lane)
    lane.swap(policy(head=0.03))
    early = connect(lane)
    assert timers.made == 2
    lane.wheel.close()
    assert len(lane.wheel) == 0
    await asyncio.sleep(0.03 + 4 * TICK_SECONDS)
    assert (early.ended, late.ended) == (0.0, 0.0)
    late.close()
    early.close()


@pytest.mark.both_loops
async def test_a_drain_closes_connections_without_a_request_and_takes_no_more(
    lanes: Callable[..., tuple[Lane, Timers]],
) -> None:
    lane, _ = lanes(policy())
    idle, busy = connect(lane), connect(lane)
    assert busy.protocol is not None
    busy.protocol.data_received(b"GET / HT")
    assert busy.protocol.state_name == "head"
    lane.drain()
    assert idle.ended
    assert not busy.ended
    assert lane.end_all() == 0
    lane.close()
    assert busy.ended


ONCE, STREAM = "/v1beta/models/gemini-1:generateContent", "/v1/models/gemini-1:streamGenerateContent"


@pytest.mark.parametrize(
    ("path", "query", "why"),
    [
        (ONCE, "", None),
        (ONCE, "alt=json&key=k&b&=&c=%20+", None),
        (STREAM, "alt=sse", None),
        (STREAM, "key=a%20b&alt=sse&x=alt=sse", None),
        ("/v1/models/up/a%2Fb:c%3a@(~)..:streamGenerateContent", "alt=sse", None),
        (f"/v1/models/{'m' * 1024}:generateContent", "", None),
        (f"/v1/models/{'m' * 1025}:generateContent", "", "model_name"),
        ("/v1/models/:generateContent", "", "model_name"),
        *[
            (f"/v1/models/{odd}:generateContent", "", "model_name")
            for odd in (
                "%C3%A9",
                "\xe9",
                "a%22",
                'a"',
                "a%5c",
                "%7F",
                "%00",
                "a%20b",
                "a%2",
                "%",
                "%zz",
                "a;b",
                "a%3Bb",
            )
        ],
        *[
            (f"/v1/models/{odd}:generateContent", "", "model_name")
            for odd in (".", "..", "%2E%2e", "a/../b", "a%2f.", "a//b", "/a", "a/", "%2fa")
        ],
        *[(ONCE, odd, "query") for odd in ("ke%79=1", "a+b=1", "a&&b", "&a", "a&")],
        *[(STREAM, odd, "query") for odd in ("", "alt", "alt=json", "alt=sse&alt=sse", "alt=sse&alt=", "alt=ss%65")],
        ("/v1beta/models/m:countTokens", "", "endpoint"),
        ("/v1beta/models/m:GenerateContent", "", "endpoint"),
        ("/v1beta/model/m:generateContent", "", "endpoint"),
        ("/V1/models/m:generateContent", "", "endpoint"),
        (":generateContent", "", "endpoint"),
        ("", "", "endpoint"),
    ],
)
def test_which_targets_in_googles_form_are_read(path: str, query: str, why: str | None) -> None:
    assert odd_target(path.encode(), query.encode()) == why
