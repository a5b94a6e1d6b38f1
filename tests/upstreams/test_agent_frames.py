"""Frames between workers: errors arrive as they were, and a read that is cancelled loses nothing."""

import asyncio

import pytest

from agw_proxy.errors import (
    CODES,
    AgentCallFailed,
    AgentTimeout,
    BudgetSpent,
    GatewayError,
    InternalError,
    UpstreamQueueFull,
)
from agw_proxy.types import Call, Caller, Stored
from agw_proxy.upstreams.agent_frames import (
    DATA,
    LAST,
    Frames,
    Known,
    Look,
    Raised,
    Wanted,
    error_of,
    first_of,
    frame,
    packed,
    raised,
    unpacked,
    wanted_of,
)

ERRORS = [
    AgentCallFailed("The model is away.", status=429, retry_after_ms=1500),
    AgentTimeout("Too late."),
    BudgetSpent("No more.", rule="keys/app/day", retry_after_ms=None),
    UpstreamQueueFull("Full.", retry_after_ms=3000),
    *(
        kind("x", param="p")
        for kind in CODES.values()
        if "__init__" not in vars(kind) and kind.__init__ is GatewayError.__init__
    ),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: str(error.code))
def test_an_error_arrives_as_it_was(error: GatewayError) -> None:
    found = error_of(unpacked(packed(raised(error)), Raised))
    assert type(found) is type(error)
    assert (vars(found), str(found)) == (vars(error), str(error))
    assert (found.status, found.message, found.retry_after_ms) == (error.status, error.message, error.retry_after_ms)


def test_an_error_of_no_known_kind_is_ours() -> None:
    assert isinstance(error_of(Raised("nobody_knows", {"message": "What?"})), InternalError)


def test_a_call_arrives_without_the_callers_key() -> None:
    caller = Caller(None, session="s", trace="t", user="u", channel="c")
    call = Call(
        "POST", "/responses", "", [], b"{}", None, "req_1", caller=caller, stored=Stored("abc", {"store": True})
    )
    wanted = wanted_of("default/sky", call, 7)
    assert first_of(packed(wanted)) == wanted
    assert wanted == Wanted(
        "default/sky",
        "POST",
        "/responses",
        b"{}",
        "req_1",
        None,
        "s",
        "t",
        "u",
        "c",
        7,
        ("abc", {"store": True}, False, ""),
    )
    assert isinstance(first_of(packed(Look())), Look)
    known = Known(("default/sky",), 3.0, ())
    assert unpacked(packed(known), Known) == known


async def test_frames_come_whole_however_they_are_cut_and_whoever_stops_reading() -> None:
    reader = asyncio.StreamReader()
    frames = Frames(reader)
    data = frame(DATA, b"one") + frame(LAST, b"two")
    reading = asyncio.create_task(frames.next())
    for byte in data[:6]:
        reader.feed_data(bytes([byte]))
        await asyncio.sleep(0)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    reader.feed_data(data[6:])
    assert [await frames.next(), await frames.next()] == [(DATA, b"one"), (LAST, b"two")]
    reader.feed_eof()
    with pytest.raises(EOFError):
        await frames.next()
