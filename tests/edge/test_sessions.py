"""Sessions of one worker: who is in them and for how long, what a caller hears, and the database of the settings."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from agw_proxy.config.settings import Settings
from agw_proxy.edge import sessions
from agw_proxy.edge.sessions import Sessions
from agw_proxy.errors import BodyTooLarge, NotKept, SessionBusy, StoreUnavailable
from agw_proxy.sdk.turns import Turn, place_of
from agw_proxy.store import sessions as kept
from tests.support.postgres_server import PostgresServer

MINE = place_of("app", "default/clerk", "s1")
TURN = Turn(b"[]", b"[]", b"m", "clerk")


class Worker:
    """One worker's sessions. ``settings`` may be changed, as by a reload."""

    def __init__(self, folder: Path, **sections: Any) -> None:
        self.dropped: list[str] = []
        self.settings = Settings.model_validate({"server": {"state_dir": str(folder)}, **sections})
        self.sessions = Sessions(lambda: self.settings, {}, self.dropped.append)

    async def turn(self, turn: Turn = TURN) -> int:
        """One run that ends well; how many turns there were before."""
        book = await self.sessions.open(MINE, alone=True, begins=False)
        assert book is not None
        before = len(book.turns)
        await book.keep(before, [turn])
        return before


@pytest.fixture
async def workers(tmp_path: Path) -> AsyncIterator[list[Worker]]:
    """Two of one gateway."""
    made = [Worker(tmp_path), Worker(tmp_path)]
    yield made
    for each in made:
        await each.sessions.close()


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer() as running:
        yield running


async def test_one_run_at_a_time_over_workers(
    workers: list[Worker], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = workers
    book = await one.sessions.open(MINE, alone=True, begins=False)
    assert book is not None
    monkeypatch.setattr(sessions, "WAIT_SECONDS", 0.0)
    with pytest.raises(SessionBusy) as caught:
        await two.sessions.open(MINE, alone=True, begins=False)
    assert (caught.value.status, caught.value.retry_after_ms) == (409, 1000)
    await book.leave()
    book.end()
    await one.turn()
    assert await two.turn() == 1
    assert (tmp_path / "sessions.db").is_file()


async def test_a_long_run_stays_in(workers: list[Worker], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "RENEW_SECONDS", 0.01)
    one, two = workers
    renewed = asyncio.Event()
    book = await one.sessions.open(MINE, alone=True, begins=False)
    assert book is not None
    database = await one.sessions.kept(one.settings)
    renew = database.renew

    async def noted(*given: Any) -> None:
        await renew(*given)
        renewed.set()

    monkeypatch.setattr(database, "renew", noted)
    await renewed.wait()
    monkeypatch.setattr(sessions, "WAIT_SECONDS", 0.0)
    with pytest.raises(SessionBusy):
        await two.sessions.open(MINE, alone=True, begins=False)
    monkeypatch.setattr(sessions, "WAIT_SECONDS", 60.0)
    waiting = asyncio.create_task(two.turn())
    await asyncio.sleep(0)
    book.end()
    assert await waiting == 0


async def test_a_caller_that_leaves_on_its_way_in_is_not_in(workers: list[Worker]) -> None:
    one, two = workers
    await one.turn()
    entering = asyncio.create_task(one.sessions.open(MINE, alone=True, begins=False))
    await asyncio.sleep(0)
    entering.cancel()
    await asyncio.wait([entering])
    assert entering.cancelled()
    assert await two.turn() == 1


async def test_those_that_are_not_alone_read_what_there_is(workers: list[Worker]) -> None:
    one, two = workers
    new = await one.sessions.open(MINE, alone=False, begins=True)
    other = await two.sessions.open(MINE, alone=False, begins=False)
    assert new is not None
    assert other is not None
    await new.keep(0, [TURN])
    await other.keep(0, [TURN, TURN])
    new.end()
    other.end()
    assert await one.turn() == 1
    assert one.dropped + two.dropped == []


async def test_a_store_that_is_away_is_said_to_be(tmp_path: Path) -> None:
    (tmp_path / "sessions.db").mkdir()
    worker = Worker(tmp_path)
    with pytest.raises(StoreUnavailable):
        await worker.sessions.open(MINE, alone=True, begins=False)
    assert await worker.sessions.open(MINE, alone=False, begins=False) is None
    for asking in (worker.sessions.about("app", None, ("", ""), 9), worker.sessions.forget("app", "s1")):
        with pytest.raises(StoreUnavailable):
            await asking
    await worker.sessions.close()


async def test_an_answer_that_cannot_be_kept_is_counted(workers: list[Worker]) -> None:
    one, two = workers
    book = await one.sessions.open(MINE, alone=True, begins=False)
    assert book is not None
    with pytest.raises(NotKept):
        await two.sessions.forget("app", "none")
    await two.sessions.forget("app", "s1")
    await book.keep(0, [TURN])
    book.end()
    assert one.dropped == ["session"]
    assert await two.turn() == 0


async def test_one_that_is_too_long_is_refused(workers: list[Worker], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "MAX_TURNS", 1)
    one, _ = workers
    await one.turn()
    with pytest.raises(BodyTooLarge):
        await one.sessions.open(MINE, alone=True, begins=False)
    assert await one.sessions.open(MINE, alone=False, begins=False) is None


async def test_settings_are_those_in_force(tmp_path: Path) -> None:
    worker = Worker(tmp_path, store={"path": str(tmp_path / "deep" / "responses.db")})
    await worker.turn()
    assert (tmp_path / "deep" / "sessions.db").is_file()
    (told,) = await worker.sessions.about("app", "s1", ("", ""), 9)
    assert (told.id, told.agent, told.turns, told.created_at[-1]) == ("s1", "default/clerk", 1, "Z")
    worker.settings = Settings.model_validate({"agents": {"sessions": False}})
    assert await worker.sessions.open(MINE, alone=True, begins=False) is None
    await worker.sessions.close()


async def test_gateways_share_a_postgresql(server: PostgresServer, tmp_path: Path) -> None:
    made = [Worker(tmp_path / name, store={"url": server.url}) for name in ("a", "b")]
    assert [await each.turn() for each in (*made, *made)] == [0, 1, 2, 3]
    with psycopg.connect(server.url) as connection:
        assert connection.execute("SELECT count(*) FROM agw_turn").fetchone() == (4,)
    assert not (tmp_path / "a").exists()
    for each in made:
        await each.sessions.close()


async def test_those_of_one_worker_wait_in_line(workers: list[Worker], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "WAIT_SECONDS", 60.0)
    one, _ = workers
    assert await asyncio.gather(*(one.turn() for _ in range(10))) == list(range(10))
    book = await one.sessions.open(MINE, alone=True, begins=False)
    assert book is not None
    left = asyncio.create_task(one.turn())
    await asyncio.sleep(0)
    left.cancel()
    await asyncio.wait([left])
    monkeypatch.setattr(sessions, "WAIT_SECONDS", 0.0)
    with pytest.raises(SessionBusy):
        await one.turn()
    await book.leave()
    assert await one.turn() == 10
    assert (one.sessions._doors._locks, one.sessions._held) == ({}, set())
