"""A file that cannot be used is told once, and that it can be used again; one that is only held is not told."""

import sqlite3
from pathlib import Path

from agw_proxy.store.base import Store
from agw_proxy.store.disk import DiskStore
from agw_proxy.store.file import FileStore
from agw_proxy.store.trouble import QUIET_SECONDS, Trouble

LONG = 1000.0


class Log:
    """What was said."""

    def __init__(self) -> None:
        self.said: list[tuple[str, dict[str, object]]] = []

    def info(self, event: str, **fields: object) -> None:
        self.said.append((event, fields))

    def warning(self, event: str, **fields: object) -> None:
        self.said.append((event, fields))

    @property
    def events(self) -> list[str]:
        return [event for event, _ in self.said]


async def test_a_place_that_breaks_and_is_mended_is_told_once_each(tmp_path: Path) -> None:
    for kind in ("disk", "file"):
        log, place = Log(), tmp_path / kind / "x"
        place.parent.write_text("in the way")
        store: Store = DiskStore(place, 1 << 20, log) if kind == "disk" else FileStore(place, 1 << 20, say=log)
        for number in range(5):
            assert await store.set(f"{number}", b"1", LONG) is False
        assert log.events == ["store.not_usable"], kind
        assert log.said[0][1]["path"] == str(place)
        assert "EEXIST" in str(log.said[0][1]["error"]) or "ENOTDIR" in str(log.said[0][1]["error"])
        place.parent.unlink()
        for number in range(5):
            assert await store.set(f"{number}", b"1", LONG) is True
        assert log.events == ["store.not_usable", "store.usable_again"], kind
        await store.close()  # type: ignore[attr-defined]


async def test_a_file_that_is_no_database_is_told(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    for name in ("kept/cache.db", "x.db"):
        (tmp_path / name).write_bytes(b"rubbish" * 1000)
    for make in (
        lambda log: DiskStore(tmp_path / "kept", 1 << 20, log),
        lambda log: FileStore(tmp_path / "x.db", 1 << 20, say=log),
    ):
        log = Log()
        store = make(log)
        assert await store.get("a") is None
        assert log.events == ["store.not_usable"]
        assert "not a database" in str(log.said[0][1]["error"])
        await store.close()


async def test_one_that_another_process_holds_is_a_miss_and_no_trouble(tmp_path: Path) -> None:
    log = Log()
    store = FileStore(tmp_path / "x.db", 1 << 20, say=log)
    assert await store.set("a", b"1", LONG)
    with sqlite3.connect(tmp_path / "x.db", isolation_level=None) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert await store.set("b", b"1", LONG) is False
        other.execute("ROLLBACK")
    assert await store.set("b", b"1", LONG) is True
    assert log.said == []
    await store.close()


def test_one_that_comes_and_goes_is_told_once_in_a_while() -> None:
    log, now = Log(), [100.0]
    trouble = Trouble(Path("x"), log, lambda: now[0])
    for _ in range(50):
        trouble.heard("broken")
        trouble.heard(None)
    assert log.events == ["store.not_usable", "store.usable_again"]
    now[0] += QUIET_SECONDS
    trouble.heard("broken")
    trouble.heard("broken")
    assert log.events == ["store.not_usable", "store.usable_again", "store.not_usable"]
