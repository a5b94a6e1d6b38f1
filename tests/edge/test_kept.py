"""The limits' memory in a file: what was spent is there again, and one gateway has it at a time."""

import mmap
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from agw_proxy._hot.limit import CALENDAR, CONCURRENT, COST, MONTH, PER_KEY, Grant, Limits, Rule, Table
from agw_proxy.config.settings import Settings
from agw_proxy.config.tree import ConfigError
from agw_proxy.edge.kept import FILE, keep, kept_limits
from agw_proxy.edge.shared import Shared
from tests.hot.model_circuit import SECOND

RULES = (
    Rule("month", PER_KEY, COST, 1000, algorithm=CALENDAR, calendar=MONTH),
    Rule("day", PER_KEY, COST, 10_000, 86_400 * SECOND),
    Rule("gate", PER_KEY, CONCURRENT, 1),
)


def spend(memory: mmap.mmap, cost: int) -> Grant:
    """As at the same moment always: nothing refills meanwhile."""
    return Limits(Table(memory), RULES).admit(0, key=1, cost=cost)


def left(memory: mmap.mmap) -> list[int]:
    return [standing.remaining for standing in Limits(Table(memory), RULES).look(0, key=1)]


def test_what_was_spent_is_there_again_and_who_was_in_is_not(tmp_path: Path) -> None:
    memory = keep(tmp_path / "state" / FILE)
    grant = spend(memory, 300)
    assert grant.granted
    assert left(memory) == [700, 9700, 0]
    del grant
    memory.close()
    again = keep(tmp_path / "state" / FILE, 0)
    assert left(again) == [700, 9700, 1]
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "state" / FILE).stat().st_mode & 0o777 == 0o600


def test_a_gateway_that_is_killed_loses_nothing(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        granted = spend(keep(tmp_path / FILE), 300)
        os.write(writer, b"%d" % granted.granted)
        signal.pause()
    assert os.read(reader, 1) == b"1"
    with pytest.raises(ConfigError, match="another gateway"):
        keep(tmp_path / FILE, 0)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(reader)
    os.close(writer)
    memory = keep(tmp_path / FILE, 0)
    assert left(memory) == [700, 9700, 1]
    assert not spend(memory, 701).granted


def test_the_workers_keep_it_after_who_made_it(tmp_path: Path) -> None:
    memory = keep(tmp_path / FILE)
    child = os.fork()
    if not child:
        signal.pause()
        os._exit(0)
    memory.close()
    with pytest.raises(ConfigError, match="another gateway"):
        keep(tmp_path / FILE, 0)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    keep(tmp_path / FILE, 0).close()


def test_workers_share_it(tmp_path: Path) -> None:
    shared = Shared(2, keep(tmp_path / FILE))
    assert Limits(shared.table(1), RULES).admit(0, key=1, cost=400).granted
    assert Limits(shared.table(0), RULES).look(0, key=1)[0].remaining == 600


def a_link(path: Path) -> None:
    path.symlink_to(path.with_name("else"))


def a_folder(path: Path) -> None:
    path.mkdir()


def of_all(path: Path) -> None:
    path.touch()
    path.chmod(0o622)


def a_short_one(path: Path) -> None:
    path.write_bytes(bytes(4096))


def of_something_else(path: Path) -> None:
    path.write_bytes(b"x" * Table.size())


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (a_link, "cannot be kept here"),
        (a_folder, "cannot be kept here"),
        (of_all, "others may write"),
        (a_short_one, "another version"),
        (of_something_else, "another version"),
    ],
)
def test_a_file_that_is_not_ours_is_left_alone(tmp_path: Path, make: Callable[[Path], None], says: str) -> None:
    make(tmp_path / FILE)
    with pytest.raises(ConfigError, match=says):
        keep(tmp_path / FILE, 0)


BUDGET = {"budgets": [{"per": "key", "usd": 5}]}


@pytest.mark.parametrize(
    ("more", "kept"),
    [
        ({}, False),
        (BUDGET, True),
        ({"keys": [{"name": "a", "key_sha256": "ab" * 32, **BUDGET}]}, True),
        ({"teams": [{"name": "a", **BUDGET}]}, True),
        ({"keys": [{"name": "a", "key_sha256": "ab" * 32, "limits": [{"usd": 5}]}]}, False),
    ],
)
def test_only_budgets_need_a_file(tmp_path: Path, more: dict[str, object], kept: bool) -> None:
    settings = Settings.model_validate({"server": {"state_dir": str(tmp_path)}, **more})
    assert (kept_limits(settings, {}) is not None) is kept
    assert (tmp_path / FILE).exists() is kept
