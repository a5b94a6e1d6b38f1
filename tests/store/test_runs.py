"""The file of runs in the background: what is said of them, who finds them, and what becomes of those that nobody runs."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agw_proxy.store import responses_file, runs
from agw_proxy.store.responses_file import Missing, StoreAway
from agw_proxy.store.runs import Begun, Kept, Listed, Runs, Said
from tests.support.gateway import PACKAGE_ROOT

ME, YOU = "key:me", "key:you"
EVERYTHING = Listed(100, ascending=True, after=None, status=None, model=None)
CHILD = """
import asyncio, sys
from pathlib import Path
from agw_proxy.store.runs import Begun, Runs

async def main():
    store = Runs(Path(sys.argv[1]), 8 << 20, 60.0, lambda row, now: (b"", b"", b""))
    await store.begin(Begun("theirs", "key:me", "me", "m", b"{}", 1, b"events"))
    print("begun", flush=True)
    sys.stdin.readline()

asyncio.run(main())
"""


def buried(row: Kept, now: int) -> tuple[bytes, bytes, bytes]:
    return b"last of %d" % row[10], b'{"status":"failed"}', b'{"code":"lost"}'


def begun(seed: str, owner: str = ME, size: int = 6, model: str = "m") -> Begun:
    return Begun(seed, owner, owner.partition(":")[2], model, b"{}", 1, b"e" * size)


async def seeds(store: Runs, owner: str | None, wanted: Listed = EVERYTHING) -> list[str]:
    rows, _ = await store.page(owner, wanted)
    return [row[1] for row in rows]


@pytest.fixture
def now() -> list[float]:
    return [1000.0]


@pytest.fixture
async def store(tmp_path: Path, now: list[float]) -> AsyncIterator[Runs]:
    made = Runs(tmp_path / "runs.db", 8 << 20, 60.0, buried, lambda: now[0])
    yield made
    await made.close()


async def test_what_is_said_of_a_run_is_found_in_order_and_nothing_after_its_end(store: Runs) -> None:
    await store.begin(begun("a"))
    await store.say([Said("a", "in_progress", 3, b"two more", b'{"n":1}', None, 1001, None)])
    await store.say([Said("a", "in_progress", 4, b"one")])
    await store.say([Said("a", "completed", 5, b"last", b'{"n":2}', None, 1002, 1003)])
    await store.say([Said("a", "failed", 6, b"too late", b"{}", b"{}", None, 1004)])
    await store.say([Said("gone", "failed", 6, b"of none")])
    row = await store.find(ME, "a")
    assert row[5:] == ("completed", 1000, 1001, 1003, store.holder, 5, b'{"n":2}', None)
    assert await store.events("a", -1, 1000) == ([(1, b"eeeeee"), (3, b"two more"), (4, b"one"), (5, b"last")], True)
    assert await store.events("a", 3, 1000) == ([(4, b"one"), (5, b"last")], True)
    assert await store.events("a", 1, 9) == ([(3, b"two more")], False)
    assert await store.events("a", 5, 9) == ([], True)


async def test_it_is_its_owners_and_everybodys_who_may_see_all(store: Runs) -> None:
    for seed, owner, model in (("a", ME, "m"), ("b", YOU, "m"), ("c", ME, "n")):
        await store.begin(begun(seed, owner, model=model))
    await store.say([Said("c", "failed", 2, b"x", None, b"{}", None, 1000)])
    assert await seeds(store, ME) == ["a", "c"]
    assert await seeds(store, None) == ["a", "b", "c"]
    assert await seeds(store, None, EVERYTHING._replace(ascending=False, after="c")) == ["b", "a"]
    assert await seeds(store, None, EVERYTHING._replace(status="failed")) == ["c"]
    assert await seeds(store, None, EVERYTHING._replace(model="m", after="a")) == ["b"]
    assert (await store.page(None, EVERYTHING._replace(limit=2)))[1]
    for work in (store.find(YOU, "a"), store.forget(YOU, "a"), store.page(YOU, EVERYTHING._replace(after="a"))):
        with pytest.raises(Missing):
            await work
    await store.forget(None, "a")
    with pytest.raises(Missing):
        await store.events("a", -1, 1)


async def test_a_wish_reaches_who_runs_it(store: Runs) -> None:
    await store.begin(begun("a"))
    await store.begin(begun("b"))
    assert await store.going_on() == {"a", "b"}
    await store.wish("a")
    assert await store.going_on() == {"b"}
    await store.begin(begun("c"))
    await store.forget(ME, "b")
    assert await store.going_on() == {"c"}
    await store.say([Said("c", "completed", 2, b"x", None, None, None, 1000)])
    assert await store.going_on() == set()


async def test_what_has_ended_expires_and_what_is_under_way_does_not(
    store: Runs, now: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(responses_file, "SWEEP_SECONDS", 0.0)
    for seed in ("a", "b"):
        await store.begin(begun(seed))
    await store.say([Said("a", "completed", 2, b"x", None, None, None, 1000)])
    now[0] += 59.0
    assert await seeds(store, ME) == ["a", "b"]
    now[0] += 2.0
    assert await seeds(store, ME) == ["b"]


async def test_a_full_file_forgets_what_has_ended_of_whoever_has_the_most(tmp_path: Path) -> None:
    store = Runs(tmp_path / "runs.db", 1 << 20, 60.0, buried)
    for number in range(6):
        await store.begin(begun(f"a{number}", size=100_000))
        if number < 4:
            await store.say([Said(f"a{number}", "completed", 2, b"", None, None, None, 1 << 40)])
    await store.begin(begun("yours", YOU))
    for number in range(3):
        await store.begin(begun(f"b{number}", YOU, size=200_000))
    left = await seeds(store, None)
    assert {"a4", "a5", "yours", "b2"} <= set(left)
    assert "a0" not in left
    with pytest.raises(StoreAway):  # nothing is left that may go
        await store.begin(begun("c", size=250_000))
    await store.close()


async def test_runs_that_fill_the_file_can_end_all_the_same(tmp_path: Path) -> None:
    store = Runs(tmp_path / "runs.db", 1 << 20, 60.0, buried)
    await fill(store)
    more, last = (
        Said("r0", "in_progress", 2, b"m" * 100_000),
        Said("r1", "failed", 2, b"l" * 9000, None, b"{}", None, 1 << 40),
    )
    with pytest.raises(StoreAway):
        await store.say([more])
    with pytest.raises(StoreAway):  # whoever could not write all of it tries it again
        await store.say([Said("r2", "in_progress", 2, b"m" * 250_000), last])
    assert await store.events("r1", -1, 1000) == ([(2, b"l" * 9000)], True)
    await store.say([more, last])
    assert (await store.find(None, "r0"))[10] == 2
    await store.close()


async def test_a_file_full_of_runs_that_nobody_runs_any_more_is_of_use_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "LOOK_SECONDS", 0.0)
    store = Runs(tmp_path / "runs.db", 1 << 20, 60.0, lambda row, _: (b"b" * 90_000, row[11], b"{}"))
    await fill(store)
    monkeypatch.setattr(store, "_alive", lambda _: False)
    store.holder += 1  # it is another process from here on
    assert (await store.find(None, "r0"))[5] == "failed"
    await store.begin(begun("next"))
    await store.close()


async def fill(store: Runs) -> None:
    """With runs that are under way."""
    size, number = 200_000, 0
    while size > 2000:
        try:
            await store.begin(begun(f"r{number}", size=size))
            number += 1
        except StoreAway:
            size //= 2


async def test_a_run_whose_process_has_gone_has_failed_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "LOOK_SECONDS", 0.0)
    path = tmp_path / "runs.db"
    store = Runs(path, 8 << 20, 60.0, buried)
    await store.begin(begun("mine"))
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(path)],
        env={"PYTHONPATH": str(PACKAGE_ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert child.stdout is not None
        assert await asyncio.to_thread(child.stdout.readline) == b"begun\n"
        for _ in range(2):  # a look takes nobody's number away
            assert (await store.find(None, "theirs"))[5] == "queued"
    finally:
        child.kill()
        child.communicate()
    row = await store.find(None, "theirs")
    assert (row[5], row[10], row[12]) == ("failed", 2, b'{"code":"lost"}')
    assert await store.events("theirs", 1, 100) == ([(2, b"last of 1")], True)
    assert (await store.find(None, "mine"))[5] == "queued"
    await store.close()
