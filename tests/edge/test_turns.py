"""The gateway's side of a WebSocket with turns: what a relay's clocks and messages find there."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import AsyncMock

import orjson
import pytest
from aiohttp import WSMsgType
from aiohttp.test_utils import make_mocked_request

from agw_proxy.edge.accounts import Accounts
from agw_proxy.edge.body import Bodies
from agw_proxy.edge.exchange import Bounds, Exchange
from agw_proxy.edge.turns import (
    MAX_SESSION_SECONDS,
    MAX_WAITING,
    MAX_WAITING_BYTES,
    OUT_OF_TIME,
    Kept,
    Turns,
)
from agw_proxy.upstreams.websocket import AWAY

NOTHING: Any = None
"""What none of this comes to."""


def bodies(held: int = 0) -> Bodies:
    """All that is held, of at most 4000 bytes."""
    return Bodies(Bounds(32768, 1000, 4000, 1.0, 64), cast("Any", SimpleNamespace(held=held)), AsyncMock())


def turns() -> Turns:
    """Of a connection that serves nothing: no message gets that far."""
    request = make_mocked_request("GET", "/v1/responses", headers={"Authorization": "Bearer x"})
    accounts = Accounts(NOTHING, NOTHING)
    return Turns(NOTHING, Exchange("r", "GET", None), request, NOTHING, bodies(), accounts)


async def test_a_ping_of_the_relays_own_is_answered_so_that_a_long_turn_is_not_cut() -> None:
    side = turns()
    await side.send(WSMsgType.PING, b"x")
    await side.send(WSMsgType.PING, b"y")  # what waits already is a sign of life
    assert (await side.receive()).kind is WSMsgType.PONG
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(side.receive(), 0)


@pytest.mark.parametrize(("size", "most"), [(2, MAX_WAITING), (MAX_WAITING_BYTES // 4, 4), (MAX_WAITING_BYTES * 2, 1)])
async def test_as_many_messages_wait_as_there_are_lanes_and_of_long_ones_fewer(size: int, most: int) -> None:
    side = turns()
    message = b"{}".ljust(size)
    for _ in range(most):
        async with asyncio.timeout(10):
            await side.send(WSMsgType.TEXT, message)  # so that a ping behind them is heard
    late = asyncio.ensure_future(side.send(WSMsgType.TEXT, message))
    await asyncio.sleep(0)
    assert not late.done()
    work = asyncio.ensure_future(side._work())
    for _ in range(most + 1):
        assert orjson.loads((await side.receive()).data)["status"] == 400
    await late
    work.cancel()


async def test_after_its_time_a_connection_ends_by_the_code_on_which_clients_connect_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    side = turns()
    monkeypatch.setattr(side, "_until", side._until - MAX_SESSION_SECONDS - 1)
    await side.send(WSMsgType.TEXT, b"{}")
    work = asyncio.ensure_future(side._work())
    told = orjson.loads((await side.receive()).data)
    assert (told["type"], told["status"], told["error"]["code"]) == ("error", 400, OUT_OF_TIME)
    last = await side.receive()
    assert (last.kind, last.code) == (WSMsgType.CLOSE, AWAY)
    await work


def test_what_is_remembered_takes_no_more_than_half_of_what_bodies_may() -> None:
    held = bodies(1500)
    kept = Kept(held)
    assert kept.room == 500
    kept.keep(300)
    assert (held.held, kept.room) == (1800, 200)
    kept.keep(-300)
    assert held.held == 1500
