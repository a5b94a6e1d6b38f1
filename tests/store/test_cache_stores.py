"""Values on disk, in a folder and in a file: the same contract, off the loop, and nothing that is read runs."""

import asyncio
import pickle
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from agw_proxy.store.base import Store
from agw_proxy.store.disk import DiskStore
from agw_proxy.store.file import FileStore
from agw_proxy.store.threads import Threads

LONG = 1000.0
ROUNDS = 40


@pytest_asyncio.fixture(params=["disk", "file"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    made: DiskStore | FileStore
    made = (
        DiskStore(tmp_path / "kept", 1 << 20) if request.param == "disk" else FileStore(tmp_path / "kept.db", 1 << 20)
    )
    yield made
    await made.close()


async def test_what_is_set_is_there_until_it_is_removed_or_replaced(store: Store) -> None:
    assert await store.get("a") is None
    assert await store.set("a", b"1", LONG) is True
    assert await store.get("a") == b"1"
    assert await store.set("a", bytes(range(256)) * 300, LONG) is True
    assert await store.get("a") == bytes(range(256)) * 300
    await store.remove("a")
    await store.remove("never")
    assert await store.get("a") is None


async def test_add_keeps_the_first(store: Store) -> None:
    done = await asyncio.gather(*[store.add("a", b"%d" % number, LONG) for number in range(8)])
    assert done.count(True) == 1
    assert await store.get("a") == b"%d" % done.index(True)
    await store.remove("a")
    assert await store.add("a", b"new", LONG) is True


async def test_what_has_expired_is_not_there_and_can_be_added(store: Store) -> None:
    assert await store.set("a", b"1", -1.0) is True
    assert await store.get("a") is None
    assert await store.add("a", b"2", LONG) is True
    assert await store.get("a") == b"2"


async def test_a_place_that_cannot_be_used_is_a_miss(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    for away in (DiskStore(tmp_path / "taken" / "x", 1 << 20), FileStore(tmp_path / "taken" / "x.db", 1 << 20)):
        assert await away.get("a") is None
        assert await away.set("a", b"1", LONG) is False
        assert await away.add("a", b"1", LONG) is None
        await away.remove("a")
        await away.close()


async def test_a_file_that_is_no_database_is_a_miss(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_bytes(b"rubbish" * 1000)
    store = FileStore(tmp_path / "x.db", 1 << 20)
    assert await store.add("a", b"1", LONG) is None
    await store.close()


async def test_workers_that_open_a_new_file_at_once_all_can(tmp_path: Path) -> None:
    for number in range(ROUNDS):
        stores = [FileStore(tmp_path / f"{number}.db", 1 << 20) for _ in range(6)]
        done = await asyncio.gather(*[store.add(f"{place}", b"1", LONG) for place, store in enumerate(stores)])
        assert done == [True] * len(stores)
        for store in stores:
            await store.close()


async def test_a_burst_is_waited_for(tmp_path: Path) -> None:
    """Who is not told whether a key has run runs it."""
    store = FileStore(tmp_path / "x.db", 1 << 20)
    assert await asyncio.gather(*[store.add(f"{number}", b"1", LONG) for number in range(500)]) == [True] * 500
    await store.close()


async def test_a_full_file_keeps_nothing_new_until_something_expires(tmp_path: Path) -> None:
    now = [1000.0]
    store = FileStore(tmp_path / "x.db", 64 << 10, clock=lambda: now[0])
    kept = [await store.set(f"{number}", b"x" * 8000, 10.0) for number in range(12)]
    assert (kept[0], kept[-1]) == (True, False)
    assert await store.get("0") == b"x" * 8000
    now[0] += 11
    later = [await store.set("late", b"x" * 8000, 10.0) for _ in range(64)]
    assert later[-1] is True
    await store.close()


async def test_the_files_are_their_owners(tmp_path: Path) -> None:
    disk, file = DiskStore(tmp_path / "kept", 1 << 20), FileStore(tmp_path / "kept.db", 1 << 20)
    for store in (disk, file):
        await store.set("a", b"1", LONG)
        await store.close()
    assert (tmp_path / "kept").stat().st_mode & 0o077 == 0
    assert (tmp_path / "kept.db").stat().st_mode & 0o077 == 0


class Trap:
    """Unpickled, it would leave a file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (open, (self.path, "w"))


async def test_nothing_that_is_read_is_unpickled(tmp_path: Path) -> None:
    """Whoever may write to the folder plants a value that runs when it is read the library's usual way."""
    disk = DiskStore(tmp_path / "kept", 1 << 20)
    await disk.set("a", b"1", LONG)
    trap = pickle.dumps(Trap(str(tmp_path / "sprung")))
    with sqlite3.connect(tmp_path / "kept" / "cache.db") as file:
        file.execute("UPDATE Cache SET mode = 4, value = ?", (sqlite3.Binary(trap),))
    assert await disk.get("a") is None
    assert not (tmp_path / "sprung").exists()
    await disk.close()


async def test_the_folder_is_bounded(tmp_path: Path) -> None:
    disk = DiskStore(tmp_path / "kept", 400_000)
    for number in range(40):
        await disk.set(f"{number}", b"x" * 40_000, LONG)
    size = sum(path.stat().st_size for path in (tmp_path / "kept").rglob("*.val"))
    assert 0 < size <= 500_000
    assert await disk.get("39") is not None
    await disk.close()


async def test_large_answers_behind_many_small_ones_are_bounded_too(tmp_path: Path) -> None:
    disk = DiskStore(tmp_path / "kept", 400_000)
    for number in range(150):
        await disk.set(f"small {number}", b"x" * 500, LONG)
    for number in range(30):
        await disk.set(f"{number}", b"x" * 40_000, LONG)
    size = sum(path.stat().st_size for path in (tmp_path / "kept").rglob("*.val"))
    assert 0 < size <= 500_000
    assert await disk.get("29") is not None
    await disk.close()


async def test_what_would_wait_too_long_is_not_done() -> None:
    pool = Threads(1, "test", 2)
    loop = asyncio.get_running_loop()
    go = asyncio.Event()

    def work() -> str:
        asyncio.run_coroutine_threadsafe(go.wait(), loop).result()
        return "done"

    first = [asyncio.ensure_future(pool.do(work, "missed")) for _ in range(2)]
    await asyncio.sleep(0)
    assert await pool.do(work, "missed") == "missed"
    go.set()
    assert await asyncio.gather(*first) == ["done", "done"]
    assert await pool.do(lambda: "again", "missed") == "again"
    pool.close()


async def test_a_full_file_forgets_what_expires_first_where_it_may(tmp_path: Path) -> None:
    clock = [0.0]
    full = FileStore(tmp_path / "full.db", 1 << 16, lambda: clock[0])
    rolling = FileStore(tmp_path / "rolling.db", 1 << 16, lambda: clock[0], oldest_goes=True)
    told = {id(store): [await _later(store, clock, at) for at in range(1500)] for store in (full, rolling)}
    assert told[id(full)].count(False) > 0
    assert told[id(rolling)].count(False) == 0
    assert await rolling.get("0") is None
    assert await rolling.get("1499") == b"x" * 100
    assert (tmp_path / "rolling.db").stat().st_size <= 1 << 16
    for store in (full, rolling):
        await store.close()


async def _later(store: Store, clock: list[float], at: int) -> bool:
    clock[0] += 0.001
    return await store.set(f"{at}", b"x" * 100, LONG)
