"""Pieces of the full lane's work beside relays: one in a turn of the loop, more only where many relays had the turn before."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from agw_proxy.edge.pace import RELAYS, Pace
from tests.edge.inprocess import serving
from tests.support.client import bearer
from tests.support.gateway import APP_KEY, Tree, configuration, provider
from tests.support.providers import TEXT, plays
from tests.support.upstream import Upstream

MESSAGES = [{"role": "user", "content": "Hi"}]


class Turns:
    """Counts the loop's turns."""

    def __init__(self) -> None:
        self.now = 0
        self._loop = asyncio.get_running_loop()
        self._loop.call_soon(self._turn)
        self.over = False

    def _turn(self) -> None:
        self.now += 1
        if not self.over:
            self._loop.call_soon(self._turn)


def paced(**lane: int) -> tuple[Pace, Any]:
    made = SimpleNamespace(**{"active": 0, "begun": 0, **lane})
    return Pace(cast("Any", made)), made


async def work(pace: Pace, turns: Turns, pieces: int) -> list[int]:
    """In which turn each of a request's pieces was done."""
    done = []
    for _ in range(pieces):
        await pace.piece()
        done.append(turns.now)
    return done


async def test_each_piece_has_a_turn_of_its_own_while_relays_are_under_way() -> None:
    pace, _ = paced(active=1)
    turns = Turns()
    done = await asyncio.gather(*(work(pace, turns, 3) for _ in range(5)))
    turns.over = True
    all_done = [turn for each in done for turn in each]
    assert len(set(all_done)) == len(all_done) == 15
    assert [each[0] for each in done] == sorted(each[0] for each in done), "first come, first served"
    assert max(all_done) - min(all_done) <= 3 * 15, "no turns are lost"


async def test_nothing_is_waited_for_where_no_relay_comes() -> None:
    pace, _ = paced()
    turns = Turns()
    done = await asyncio.gather(*(work(pace, turns, 3) for _ in range(5)))
    turns.over = True
    assert len({turn for each in done for turn in each}) == 1


async def test_where_many_relays_come_in_a_turn_more_pieces_have_the_next() -> None:
    pace, lane = paced(active=1)
    turns = Turns()

    def relays() -> None:
        lane.begun += 3 * RELAYS
        if not turns.over:
            asyncio.get_running_loop().call_soon(relays)

    relays()
    done = await asyncio.gather(*(work(pace, turns, 1) for _ in range(40)))
    turns.over = True
    counts = [sum(each == [turn] for each in done) for turn in range(turns.now + 1)]
    assert max(counts) == 4


async def test_a_request_that_was_cancelled_takes_no_turn_from_others() -> None:
    pace, _ = paced(active=1)
    turns = Turns()
    await pace.piece()
    assert pace.late_ns() == 0
    waits = [asyncio.ensure_future(work(pace, turns, 1)) for _ in range(3)]
    await asyncio.sleep(0)
    assert pace.late_ns() > 0
    for each in waits[:2]:
        each.cancel()
    await asyncio.wait([waits[2]], timeout=5)
    turns.over = True
    assert waits[2].done()
    assert not waits[2].cancelled()


@pytest.fixture
def config(upstream: Upstream) -> Tree:
    return configuration(provider(upstream.url, models=["gpt-chat"], speaks=["chat"]))


@pytest.mark.parametrize(
    ("path", "model", "pieces"), [("/v1/messages", "gpt-chat", 6), ("/v1/chat/completions", "agw/echo", 5)]
)
async def test_a_request_of_the_full_lane_is_done_in_pieces(
    path: str,
    model: str,
    pieces: int,
    config: Tree,
    upstream: Upstream,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At its begin, with its body, before it goes upstream, before what came is translated, with that, and before it goes out."""
    done = 0
    piece = Pace.piece

    async def counted(pace: Pace) -> None:
        nonlocal done
        done += 1
        await piece(pace)

    monkeypatch.setattr(Pace, "piece", counted)
    upstream.script(plays(TEXT))
    async with serving(config, tmp_path) as running:
        reply = await running.ask("POST", path, {"model": model, "max_tokens": 9, "messages": MESSAGES})
        assert reply.status == 200
    assert done == pieces


@pytest.mark.parametrize("last_piece", range(1, 7))
async def test_a_client_that_leaves_between_two_pieces_has_gone(
    last_piece: int, config: Tree, upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached = 0
    last = asyncio.Event()

    async def stays(_: Pace) -> None:
        nonlocal reached
        reached += 1
        if reached == last_piece:
            last.set()
            await asyncio.Event().wait()

    monkeypatch.setattr(Pace, "piece", stays)
    upstream.script(plays(TEXT))
    async with serving(config, tmp_path) as running:
        asked = {"model": "gpt-chat", "max_tokens": 9, "messages": MESSAGES}
        with running.connect() as connection:
            await asyncio.to_thread(connection.send, "POST", "/v1/messages", asked, bearer(APP_KEY))
            await last.wait()
        assert (await running.receipt())["outcome"] == "caller_gone"
