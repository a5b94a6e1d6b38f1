"""Conversations with agents: whose they are, one run at a time, how long, and the same in SQLite and in PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psycopg
import pytest

from agw_proxy.sdk.turns import Place, Turn
from agw_proxy.store import postgres, responses_file, sessions
from agw_proxy.store.postgres import Postgres
from agw_proxy.store.responses_file import File, Missing, StoreAway, TooLong
from agw_proxy.store.sessions import SESSIONS, Busy, Sessions
from tests.support.postgres_server import PostgresServer

DAY = 86400.0
MINE = Place("key:me", "default/clerk", "s1")


class Clock:
    """Seconds since 1970, as the test says."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer() as running:
        yield running


@pytest.fixture(params=["sqlite", "postgresql"])
async def pair(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> AsyncIterator[list[Sessions]]:
    """The same database as two workers have it."""
    if request.param == "sqlite":
        made = [Sessions(File(tmp_path / "s.db", 8 << 20, clock, SESSIONS), 30 * DAY, clock) for _ in range(2)]
    else:
        server: PostgresServer = request.getfixturevalue("server")
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute("DROP TABLE IF EXISTS agw_turn, agw_session")
        made = [Sessions(Postgres(server.url, SESSIONS, clock), 30 * DAY, clock) for _ in range(2)]
    yield made
    for each in made:
        await each.close()


def turn(name: str, size: int = 1) -> Turn:
    return Turn(f'["{name}"]'.encode(), b"[" + b" " * size + b"]", name.encode(), "clerk")


async def said(kept: Sessions, place: Place = MINE) -> list[bytes]:
    return [each.mark for each in (await kept.look(place)).turns]


async def run(kept: Sessions, *names: str, place: Place = MINE, before: int = 0) -> None:
    found = await kept.begin(place, "holder", 60)
    assert await kept.keep(place, found.version, before, [turn(name) for name in names], "holder")


async def test_a_session_goes_on_at_any_worker_and_may_go_back(pair: list[Sessions]) -> None:
    one, two = pair
    await run(one, "a", "b", "c")
    found = await two.begin(MINE, "second", 60)
    assert found.turns == (turn("a"), turn("b"), turn("c"))
    assert await two.keep(MINE, found.version, 1, [turn("d")], "second")
    assert await said(one) == [b"a", b"d"]
    (about,) = await one.about("key:me", "s1")
    assert (about.agent, about.turns, about.size) == ("default/clerk", 2, 2 * (5 + 3))


async def test_one_run_at_a_time_until_its_worker_is_dead(pair: list[Sessions], clock: Clock) -> None:
    one, two = pair
    await one.begin(MINE, "first", 30)
    with pytest.raises(Busy):
        await two.begin(MINE, "second", 30)
    clock.now += 20
    await one.renew([(MINE, "first"), (Place("nobody", "", ""), "first")], 30)
    clock.now += 20
    with pytest.raises(Busy):
        await two.begin(MINE, "second", 30)
    clock.now += 11
    assert (await two.begin(MINE, "second", 30)).turns == ()
    await one.end(MINE, "first")
    with pytest.raises(Busy):
        await one.begin(MINE, "third", 30)
    assert await two.keep(MINE, 0, 0, [turn("theirs")], "second")
    assert not await one.keep(MINE, 0, 0, [turn("late")], "first")
    assert await said(one) == [b"theirs"]


async def test_of_many_that_begin_at_once_one_is_in(pair: list[Sessions]) -> None:
    tried = [kept.begin(MINE, f"{at}-{number}", 30) for at in range(10) for number, kept in enumerate(pair)]
    found = await asyncio.gather(*tried, return_exceptions=True)
    assert sum(isinstance(each, Busy) for each in found) == 19
    assert sum(isinstance(each, sessions.Found) for each in found) == 1


async def test_a_run_that_fails_leaves_nothing_new(pair: list[Sessions]) -> None:
    one, two = pair
    await one.begin(MINE, "first", 30)
    await one.end(MINE, "first")
    with pytest.raises(Missing):
        await two.forget("key:me", "s1")
    await run(one, "a")
    await one.begin(MINE, "second", 30)
    await one.end(MINE, "second")
    assert await said(two) == [b"a"]


async def test_each_owner_and_agent_has_a_session_of_its_own(pair: list[Sessions]) -> None:
    one, _ = pair
    await run(one, "a")
    for other in (MINE._replace(owner="key:other"), MINE._replace(agent="default/other"), MINE._replace(name="s2")):
        assert await said(one, other) == []
    await run(one, "b", place=MINE._replace(agent="default/other"))
    assert [about.agent for about in await one.about("key:me", "s1")] == ["default/clerk", "default/other"]
    assert await one.about("key:other", "s1") == []
    with pytest.raises(Missing):
        await one.forget("key:other", "s1")
    await one.forget("key:me", "s1")
    assert await one.about("key:me", "s1") == []
    assert await said(one) == []


async def test_what_was_deleted_during_a_run_stays_so(pair: list[Sessions]) -> None:
    one, two = pair
    await run(one, "a")
    found = await one.begin(MINE, "first", 30)
    await two.forget("key:me", "s1")
    assert not await one.keep(MINE, found.version, 1, [turn("b")], "first")
    await one.end(MINE, "first")
    assert await said(one) == []


async def test_those_that_are_not_alone_keep_the_first(pair: list[Sessions]) -> None:
    one, two = pair
    assert await one.keep(MINE, 0, 0, [turn("a")])
    assert not await two.keep(MINE, 0, 0, [turn("b")])
    read = await one.look(MINE), await two.look(MINE)
    assert await two.keep(MINE, read[1].version, 1, [turn("c")])
    assert not await one.keep(MINE, read[0].version, 1, [turn("d")])
    assert await said(one) == [b"a", b"c"]


async def test_what_has_expired_is_gone(pair: list[Sessions], clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = pair
    await run(one, "a")
    clock.now += 20 * DAY
    await run(one, "b", before=1)
    clock.now += 20 * DAY
    assert await said(two) == [b"a", b"b"]
    clock.now += 11 * DAY
    assert await said(two) == []
    await run(two, "new")
    assert await said(one) == [b"new"]
    clock.now += 31 * DAY
    monkeypatch.setattr(responses_file, "SWEEP_SECONDS", 0.0)
    monkeypatch.setattr(postgres, "SWEEP_SECONDS", 0.0)
    with pytest.raises(Missing):
        await one.forget("key:me", "s1")


async def test_one_that_is_too_long_is_said_to_be(pair: list[Sessions], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "MAX_BYTES", 100)
    one, two = pair
    assert await one.keep(MINE, 0, 0, [turn("a", size=200)])
    for _ in range(2):  # the first try holds nobody up
        with pytest.raises(TooLong):
            await two.begin(MINE, "first", 30)
    with pytest.raises(TooLong):
        await two.look(MINE)


async def test_what_a_server_does_not_take_makes_it_be_away_for_nobody_else(
    server: PostgresServer, clock: Clock
) -> None:
    kept = Sessions(Postgres(server.url, SESSIONS, clock), 30 * DAY, clock)
    with pytest.raises(StoreAway):
        await kept.about("key:\0")
    assert await kept.about("key:nobody") == []
    await kept.close()


async def test_a_server_that_is_away_is_said_to_be_and_found_again(
    server: PostgresServer, clock: Clock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(postgres, "REST_SECONDS", 0.0)
    kept = Sessions(Postgres(server.url, SESSIONS, clock), 30 * DAY, clock)
    await run(kept, "kept", place=MINE._replace(owner="key:restart"))
    server.stop()
    try:
        with pytest.raises(StoreAway):
            await kept.look(MINE)
        assert "PostgreSQL does not answer: OperationalError" in caplog.text
        assert str(server.port) not in caplog.text
    finally:
        server.start()
    assert await said(kept, MINE._replace(owner="key:restart")) == [b"kept"]
    server.stop()
    server.start()
    await run(kept, "again", place=MINE._replace(owner="key:restart"), before=1)  # over a connection that is dead
    assert await said(kept, MINE._replace(owner="key:restart")) == [b"kept", b"again"]
    await kept.close()
