"""The file of what is kept for Responses: away, it says so at once; what is deleted or has expired is not in it."""

import asyncio
import sqlite3
import stat
from pathlib import Path

import pytest

from agw_proxy.store import responses_file
from agw_proxy.store.responses_file import File, Missing, StoreAway

SECRET = b"what nobody is to find again"


def put(file: sqlite3.Connection, due: float = 10.0) -> None:
    row = ("me", "a", 0, 0, due, len(SECRET), None, -1, SECRET)
    file.execute(
        "INSERT INTO thing (owner, id, kind, made, due, size, before, upto, head) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        row,
    )
    file.execute("INSERT INTO item (thing, place, answered, id, body) SELECT n, 0, 0, 'i', ? FROM thing", (SECRET,))


def counted(file: sqlite3.Connection) -> tuple[int, int]:
    things, items = (file.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in ("thing", "item"))
    return things, items


async def test_what_has_expired_goes_and_leaves_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, now = tmp_path / "f.db", [0.0]
    file = File(path, 1 << 20, lambda: now[0])
    await file.write(put, 0)
    now[0] = 11.0
    monkeypatch.setattr(responses_file, "SWEEP_SECONDS", 0.0)
    assert await file.read(counted) == (0, 0)
    await file.read(lambda opened: opened.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone())
    assert SECRET not in path.read_bytes()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    await file.close()


async def test_much_that_has_expired_goes_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = File(tmp_path / "a.db", 1 << 20, lambda: 1.0)

    def fill(opened: sqlite3.Connection) -> None:
        for number in range(5):
            row = ("me", str(number), 0, 0, 10.0, 0, None, -1, b"")
            opened.execute(
                "INSERT INTO thing (owner, id, kind, made, due, size, before, upto, head) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                row,
            )

    await file.write(fill, 0)
    await file.close()
    monkeypatch.setattr(responses_file, "SWEPT_AT_ONCE", 2)
    late = File(tmp_path / "a.db", 1 << 20, lambda: 11.0)
    assert [(await late.read(counted))[0] for _ in range(4)] == [3, 1, 0, 0]
    await late.close()


async def test_a_locked_file_is_waited_for_once_by_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(responses_file, "WAIT_SECONDS", 0.05)
    monkeypatch.setattr(responses_file, "REST_SECONDS", 3600.0)
    file = File(tmp_path / "f.db", 1 << 20, lambda: 0.0)
    await file.write(put, 0)
    holder = sqlite3.connect(tmp_path / "f.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    tried: list[int] = []

    def work(opened: sqlite3.Connection) -> None:
        tried.append(1)
        put(opened)

    found = await asyncio.gather(*(file.write(work, 0) for _ in range(50)), return_exceptions=True)
    assert all(isinstance(each, StoreAway) for each in found)
    assert tried == []  # the transaction could not begin, and nobody after the first has tried
    holder.close()
    monkeypatch.setattr(file, "_rests_until", 0.0)
    assert await file.read(counted) == (1, 1)
    await file.close()


async def test_what_fails_is_undone_and_said(tmp_path: Path) -> None:
    file = File(tmp_path / "f.db", 1 << 20, lambda: 0.0)

    def work(opened: sqlite3.Connection) -> None:
        put(opened)
        raise Missing("b")

    with pytest.raises(Missing):
        await file.write(work, 0)
    assert await file.read(counted) == (0, 0)
    await file.close()


@pytest.mark.parametrize("kind", ["folder", "no database"])
async def test_where_there_can_be_no_file_it_is_away(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "f.db"
    if kind == "folder":
        path.mkdir()
    else:
        path.write_text(kind * 2000)
    file = File(path, 1 << 20, lambda: 0.0)
    with pytest.raises(StoreAway):
        await file.read(counted)
    await file.close()
