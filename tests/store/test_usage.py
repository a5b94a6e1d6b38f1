"""Usage in its file: written once whoever is killed when, kept by day, and read with what is not in it yet."""

import os
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agw_proxy._hot.meter import Meter
from agw_proxy.observe.metrics import FAMILIES, USAGE, USED
from agw_proxy.store.recorder import Recorder
from agw_proxy.store.usage import COUNTED, NONE, UsageFile, differences, page
from agw_proxy.types import UsagePage, UsageWanted

DAY = 86400.0
NOON = 1_795_262_400.0  # 2026-11-21T12:00Z
EVER = UsageWanted("2000-01-01", "2999-12-31", ("day", "key"), 1000)


class Scene:
    """A gateway that is started and ended, with one file and a clock that is set."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "state" / "usage.db"
        self.now = NOON
        self.told: list[str | None] = []
        self.teams = {"app": "red"}
        self.start("run-1")

    def start(self, run: str, *, meter: Meter | None = None) -> None:
        """Anew; with the meter of before where only a worker has been replaced."""
        self.meter = meter if meter is not None else Meter(FAMILIES)
        self.recorder = Recorder(
            self.path,
            run,
            lambda: self.meter.collect(USAGE),
            lambda: self.teams,
            tell=self.told.append,
            now=lambda: self.now,
        )
        self.recorder._days = 3

    def use(self, key: str = "app", model: str = "m", *, count: int = 1, cost: int = 0) -> None:
        self.meter.tally(self.meter.series(USAGE, (key, model, "up")), count, 0, 0, 0, 0, cost, 0)

    def read(self) -> UsagePage:
        return self.recorder.read(EVER)

    def requests(self, *group: str, **only: str) -> dict[tuple[str, ...], int]:
        wanted = UsageWanted("2000-01-01", "2999-12-31", group or ("day", "key"), 1000, only)
        return {row: counts[0] for row, counts in self.recorder.read(wanted).rows}


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_both_sides_mean_the_same_columns() -> None:
    assert COUNTED == USED


def test_nothing_is_touched_before_something_was_used(scene: Scene) -> None:
    assert scene.recorder.write()
    assert scene.read().rows == ()
    assert not scene.path.parent.exists()


def test_what_is_not_written_yet_is_told_too(scene: Scene) -> None:
    scene.use(count=2, cost=7)
    assert scene.requests() == {("2026-11-21", "app"): 2}
    scene.recorder.write()
    assert scene.requests() == {("2026-11-21", "app"): 2}
    scene.use(count=3, cost=1)
    scene.use("dev")
    assert scene.requests() == {("2026-11-21", "app"): 5, ("2026-11-21", "dev"): 1}
    assert scene.read().total == (6, 0, 0, 0, 0, 8, 0)


def test_only_its_owner_may_read_the_file(scene: Scene) -> None:
    scene.use()
    scene.recorder.write()
    assert stat.S_IMODE(scene.path.stat().st_mode) == 0o600


def test_usage_outlives_the_gateway(scene: Scene) -> None:
    scene.use(count=2)
    scene.recorder.write()
    scene.start("run-2")
    scene.use()
    assert scene.requests() == {("2026-11-21", "app"): 3}
    scene.recorder.write()
    assert scene.requests() == {("2026-11-21", "app"): 3}


def test_a_worker_that_takes_over_writes_nothing_twice(scene: Scene) -> None:
    scene.use(count=2)
    scene.recorder.write()
    scene.use(count=5)  # counted, and then the worker is killed
    scene.start("run-1", meter=scene.meter)
    scene.recorder.write()
    scene.recorder.write()
    assert scene.requests() == {("2026-11-21", "app"): 7}


def test_a_process_that_dies_within_the_transaction_has_written_nothing(scene: Scene) -> None:
    scene.use(count=2)
    scene.recorder.write()
    scene.use(count=5)
    pid = os.fork()
    if pid == 0:
        original = UsageFile._marks

        def die(file: UsageFile, connection: sqlite3.Connection) -> dict[tuple[str, str, str], tuple[int, ...]]:
            marks = original(file, connection)
            connection.set_trace_callback(lambda sql: os._exit(9) if sql.startswith("INSERT OR REPLACE") else None)
            return marks

        UsageFile._marks = die  # type: ignore[method-assign, assignment]  # the child's own
        scene.recorder.write()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
    scene.recorder.write()
    assert scene.requests() == {("2026-11-21", "app"): 7}


def test_each_day_has_its_own(scene: Scene) -> None:
    scene.use()
    scene.recorder.write()
    scene.now += DAY / 2  # midnight, to the second
    scene.use(count=4)
    scene.recorder.write()
    assert scene.requests("day") == {("2026-11-21",): 1, ("2026-11-22",): 4}


def test_old_days_are_forgotten(scene: Scene) -> None:
    for _ in range(5):
        scene.use()
        scene.recorder.write()
        scene.now += DAY
    assert scene.requests("day") == {(f"2026-11-{day}",): 1 for day in (23, 24, 25)}


def test_rows_are_summed_by_what_is_asked_for(scene: Scene) -> None:
    for key, model, count in (("app", "m", 1), ("app", "n", 2), ("dev", "m", 4)):
        scene.use(key, model, count=count)
    for _ in range(2):  # as it waits to be written, and as it is
        assert scene.requests("model") == {("m",): 5, ("n",): 2}
        assert scene.requests("team", "key") == {("red", "app"): 3, ("", "dev"): 4}
        assert scene.requests("key", model="m") == {("app",): 1, ("dev",): 4}
        assert scene.requests("upstream", team="red") == {("up",): 3}
        scene.recorder.write()


def test_a_disk_that_fails_loses_nothing(scene: Scene) -> None:
    scene.path.parent.mkdir()
    scene.path.mkdir()  # a folder is no file
    scene.use(count=3)
    assert not scene.recorder.write()
    assert not scene.recorder.write()
    found = scene.read()
    assert found.total[0] == 3
    assert found.trouble is not None
    scene.path.rmdir()
    assert scene.recorder.write()
    assert scene.requests() == {("2026-11-21", "app"): 3}
    assert [told is None for told in scene.told] == [False, False, True]


def test_a_file_that_is_no_database_is_left_alone(scene: Scene) -> None:
    scene.path.parent.mkdir()
    scene.path.write_bytes(b"not a database, but somebody's" * 100)
    scene.use()
    assert not scene.recorder.write()
    assert scene.path.read_bytes().startswith(b"not a database")
    assert scene.read().trouble is not None


def test_a_file_of_another_version_is_left_alone(scene: Scene) -> None:
    scene.use()
    scene.recorder.write()
    with sqlite3.connect(scene.path) as connection:
        connection.execute("PRAGMA user_version = 2")
    connection.close()
    scene.use()
    assert not scene.recorder.write()
    assert "version 2" in (scene.told[-1] or "")


def test_a_file_that_was_only_just_begun_is_empty(scene: Scene) -> None:
    scene.path.parent.mkdir()
    scene.path.touch()
    scene.use()
    assert scene.read().trouble is None
    assert scene.requests() == {("2026-11-21", "app"): 1}


def test_the_thread_writes_the_last_of_it_when_it_ends(scene: Scene) -> None:
    scene.recorder.start(30)
    scene.use(count=9)
    scene.recorder.close()
    scene.start("run-2")
    assert scene.requests() == {("2026-11-21", "app"): 9}


names = st.sampled_from(["a", "b", "c"])
counts = st.tuples(*[st.integers(0, 5)] * 7)
books = st.dictionaries(st.tuples(names, names, names), counts, max_size=8)


@settings(max_examples=40)
@given(books, books, st.integers(1, 4), st.permutations(["day", "key", "team", "model", "upstream"]), st.integers(1, 5))
def test_pages_of_file_and_meter_together_are_the_whole(
    tmp_path_factory: pytest.TempPathFactory,
    written: dict[tuple[str, str, str], tuple[int, ...]],
    more: dict[tuple[str, str, str], tuple[int, ...]],
    limit: int,
    order: list[str],
    size: int,
) -> None:
    file = UsageFile(tmp_path_factory.mktemp("usage") / "usage.db", "run")
    teams = {"a": "red"}
    file.add("2026-11-20", written, teams)
    totals = {
        book: tuple(x + y for x, y in zip(written.get(book, NONE), more.get(book, NONE), strict=True))
        for book in {*written, *more}
    }
    group = tuple(order[:size])
    expected: dict[tuple[str, ...], tuple[int, ...]] = {}
    for day, part in (("2026-11-20", written), ("2026-11-21", more)):
        for (key, model, upstream), used in part.items():
            if any(used):
                told = {"day": day, "key": key, "team": teams.get(key, ""), "model": model, "upstream": upstream}
                row = tuple(told[name] for name in group)
                expected[row] = tuple(x + y for x, y in zip(expected.get(row, NONE), used, strict=True))
    found: list[tuple[tuple[str, ...], tuple[int, ...]]] = []
    after, going = None, True
    while going:
        wanted = UsageWanted("2026-11-20", "2026-11-21", group, limit, {}, after)
        rows, total, marks = file.read(wanted)
        got = page(wanted, rows, total, differences(totals, marks), "2026-11-21", teams)
        found += got.rows
        after, going = (got.rows[-1][0] if got.rows else None), got.more
        assert sum(got.total) == sum(sum(used) for used in expected.values())
    assert found == sorted(expected.items())


def test_two_gateways_may_share_a_file(scene: Scene, tmp_path: Path) -> None:
    other = Scene(tmp_path)
    other.start("another")
    steps: list[Callable[[], object]] = [scene.use, other.use, scene.recorder.write, other.recorder.write]
    for step in steps * 3:
        step()
    assert scene.requests() == other.requests() == {("2026-11-21", "app"): 6}


def test_what_is_counted_after_the_writer_has_ended_is_written_by_whoever_ends_last(scene: Scene) -> None:
    scene.use(count=2)
    scene.recorder.start(3)
    scene.recorder.close()
    first = scene.meter
    scene.start("run-1", meter=first)
    scene.recorder._days = 0  # as in a worker that does not write for all
    scene.use(count=3)
    scene.recorder.close()
    scene.start("run-2")
    assert scene.read().total[0] == 5


def test_a_mark_never_goes_back(tmp_path: Path) -> None:
    file, book = UsageFile(tmp_path / "usage.db", "run"), ("app", "m", "up")
    for totals in ((2, 0, 5, 0, 0, 0, 0), (3, 0, 4, 0, 0, 0, 0), (3, 0, 5, 0, 0, 0, 0)):
        file.add("2026-11-21", {book: totals}, {})
    assert file.read(EVER)[1] == (3, 0, 5, 0, 0, 0, 0)
