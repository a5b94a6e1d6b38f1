"""One call for several readers: who pays for it, and that nobody waits for what will never come."""

import asyncio
from typing import cast

import pytest

from agw_proxy._hot.reserve import PARTED, SERVED
from agw_proxy._hot.route import Target
from agw_proxy._hot.sse import Stream
from agw_proxy.edge.answers import Entry
from agw_proxy.edge.exchange import Exchange
from agw_proxy.edge.finishing import Ending
from agw_proxy.edge.flights import Flight, Tap
from agw_proxy.errors import CallerGone, UpstreamBroken
from agw_proxy.types import RawHeaders, Usage
from agw_proxy.upstreams.opening import Opened
from tests.support.fake_openai import spoken

TARGET = cast("Target", object())  # whose answer it is does not matter here
PATIENCE = 10.0  # seconds; only what hangs comes to it


class Source:
    """An upstream's answer, piece by piece; ``error`` comes where the pieces end."""

    connect_ms = 0.0
    began_ns = 0
    status = 200
    headers: RawHeaders = ((b"content-type", b"text/event-stream"),)

    def __init__(self, pieces: list[bytes], error: Exception | None = None) -> None:
        self._pieces = list(pieces)
        self._error = error
        self.closed = False

    @property
    def ended(self) -> bool:
        return not self._pieces and self._error is None

    async def read(self, *, progress: bool = True) -> bytes:
        await asyncio.sleep(0)
        if not self._pieces and self._error is not None:
            raise self._error
        return self._pieces.pop(0)

    def close(self) -> None:
        self.closed = True


def flight_of(source: Source) -> Flight:
    kept: list[Entry | None] = []

    async def ask() -> Opened:
        return Opened(source, TARGET, Stream(), b"")

    return Flight(ask, kept.append, known_end=True, most=1 << 20)


def payer(flight: Flight) -> Tap:
    return flight.join(Exchange("first", "POST", None))


def follower(flight: Flight) -> Tap:
    exchange = Exchange("other", "POST", None)
    exchange.reuse = "joined"
    return flight.join(exchange)


async def read_out(tap: Tap) -> bytes:
    """As a client that reads everything."""
    got = b""
    async with asyncio.timeout(PATIENCE):
        await tap.open()
        while not tap.ended:
            got += await tap.read()
    tap.exchange.complete = True
    tap.close()
    return got


def gone(tap: Tap) -> Exchange:
    """As a client that leaves before it has everything."""
    tap.exchange.error = CallerGone("The client has gone.")
    tap.close()
    return tap.exchange


async def test_a_payer_that_leaves_what_another_has_got_whole_pays_for_all_of_it() -> None:
    """Else two requests at once, of which the first reads nothing, would cost hardly anything."""
    flight = flight_of(Source(spoken(usage=True)))
    first, other = payer(flight), follower(flight)
    await first.open()
    assert await read_out(other) == b"".join(spoken(usage=True))
    left = gone(first)
    assert other.exchange.reuse == "joined"
    assert left.ending_kind() == SERVED
    assert (left.usage.prompt, left.usage.completion) == (11, 7)


async def test_who_still_reads_pays_although_the_upstream_has_ended() -> None:
    flight = flight_of(Source(spoken(usage=True)))
    first, second, slow = payer(flight), follower(flight), follower(flight)
    await first.open()
    await read_out(second)
    left = gone(first)
    assert (slow.exchange.reuse, left.owes_all) == (None, False)
    assert (left.reuse, left.charged()) == ("joined", (0, 0, 0))
    await read_out(slow)
    assert second.exchange.reuse == "joined"


async def test_the_last_to_leave_pays_for_what_those_before_it_had() -> None:
    """Else one that reads nothing could be sent along with each, and take the bill away with it."""
    flight = flight_of(Source(spoken()[:3], UpstreamBroken("cut")))
    first, second, third = payer(flight), follower(flight), follower(flight)
    await first.open()
    first.exchange.usage, first.exchange.tokens_seen, first.exchange.bytes_out = Usage(11, -1), 9, 900
    first.exchange.asked = True
    second.exchange.tokens_seen, second.exchange.bytes_out = 2, 200
    assert gone(first).charged() == (0, 0, 0)
    assert gone(second).charged() == (0, 0, 0)
    last = gone(third)
    assert (last.reuse, last.ending_kind(), last.tokens_seen, last.bytes_out) == (None, PARTED, 0, 0)
    assert last.charged()[:2] == (11, 9)


async def test_who_goes_on_pays_for_no_less_than_was_told_to_the_one_who_left() -> None:
    """Some tell the usage so far in each event: who has read one of them knows less."""
    flight = flight_of(Source(spoken()[:3], UpstreamBroken("cut")))
    first, slow = payer(flight), follower(flight)
    await first.open()
    first.exchange.usage, first.exchange.bytes_out, first.exchange.asked = Usage(11, 500, 4), 900, True
    gone(first)
    slow.exchange.usage, slow.exchange.tokens_seen = Usage(11, 3), 1
    assert gone(slow).charged()[:2] == (11, 500)


async def test_what_a_budget_has_ended_is_paid_for_by_its_own_though_another_goes_on() -> None:
    flight = flight_of(Source(spoken(usage=True)))
    first, other = payer(flight), follower(flight)
    await first.open()
    first.exchange.end_by(Ending(rule="daily", reason="budget", prompt_tokens=11, completion_tokens=3))
    first.exchange.bytes_out = 100
    first.close()
    assert (first.exchange.reuse, other.exchange.reuse) == (None, None)
    assert first.exchange.charged()[:2] == (11, 3)


async def test_what_is_paid_for_is_not_paid_for_again() -> None:
    flight = flight_of(Source(spoken(usage=True)))
    first, second, third = payer(flight), follower(flight), follower(flight)
    await read_out(first)
    gone(second)
    assert third.exchange.reuse == "joined"
    await read_out(third)
    assert (third.exchange.reuse, second.exchange.reuse) == ("joined", "joined")


async def test_an_answer_that_breaks_is_paid_for_by_one_only() -> None:
    flight = flight_of(Source(spoken()[:2], UpstreamBroken("cut")))
    taps = [payer(flight), follower(flight), follower(flight)]
    for tap in taps:
        with pytest.raises(UpstreamBroken):
            await read_out(tap)
    for tap in taps:
        tap.exchange.error = flight.error if isinstance(flight.error, UpstreamBroken) else None
        tap.exchange.bytes_out = 10
        tap.close()
    assert [tap.exchange.reuse for tap in taps] == [None, "joined", "joined"]
    assert taps[0].exchange.ending_kind() == PARTED


async def test_a_defect_in_the_reading_reaches_everybody_who_listens() -> None:
    source = Source(spoken()[:2], RuntimeError("a defect"))
    flight = flight_of(source)
    for tap in (payer(flight), follower(flight)):
        with pytest.raises(RuntimeError, match="a defect"):
            await read_out(tap)
        gone(tap)
    assert source.closed
