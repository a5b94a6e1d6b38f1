"""The development key: made once, private, the same for all who ask at once."""

import os
import stat
import threading
from pathlib import Path

import pytest

from agw_proxy.config import devkey
from agw_proxy.config.tree import ConfigError


def test_the_key_is_made_once_and_private(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "state"
    key = devkey.ensure(folder)
    assert devkey.KEY.fullmatch(key)
    assert stat.S_IMODE((folder / "dev.key").stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert devkey.ensure(folder) == key
    assert [item.name for item in folder.iterdir()] == ["dev.key"]


def test_all_who_ask_at_once_get_the_same_key(tmp_path: Path) -> None:
    barrier = threading.Barrier(8)
    keys: list[str] = []

    def ask() -> None:
        barrier.wait()
        keys.append(devkey.ensure(tmp_path / "state"))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(keys) == 8
    assert len(set(keys)) == 1


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_a_file_that_others_may_open_is_refused(tmp_path: Path, mode: int) -> None:
    key = devkey.ensure(tmp_path)
    (tmp_path / "dev.key").chmod(mode)
    with pytest.raises(ConfigError, match="others may read or write the development key") as caught:
        devkey.ensure(tmp_path)
    assert key not in str(caught.value)


def test_a_directory_that_others_may_write_in_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(ConfigError, match="others may write in it"):
        devkey.ensure(tmp_path)


@pytest.mark.parametrize("content", ["", "agw-short\n", "x" * 5000])
def test_a_file_without_a_key_is_refused_without_being_shown(tmp_path: Path, content: str) -> None:
    path = tmp_path / "dev.key"
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(ConfigError, match="does not hold a development key"):
        devkey.ensure(tmp_path)


def test_links_and_pipes_are_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir(mode=0o700)
    target = tmp_path / "elsewhere"
    target.write_text(devkey.generate())
    target.chmod(0o600)
    (tmp_path / "a" / "dev.key").symlink_to(target)
    os.mkfifo(tmp_path / "b" / "dev.key", 0o600)
    for name in ("a", "b"):
        with pytest.raises(ConfigError, match=r"dev\.key"):
            devkey.ensure(tmp_path / name)


def test_a_state_directory_that_cannot_be_made_says_what_to_set(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"set server\.state_dir"):
        devkey.ensure(tmp_path / "file" / "state")


@pytest.mark.parametrize(
    ("configured", "environ", "expected"),
    [
        (Path("/x"), {"XDG_STATE_HOME": "/s", "HOME": "/h"}, "/x"),
        (None, {"XDG_STATE_HOME": "/s", "HOME": "/h"}, "/s/agw"),
        (None, {"XDG_STATE_HOME": "rel", "HOME": "/h"}, "/h/.local/state/agw"),
        (None, {"HOME": "/h"}, "/h/.local/state/agw"),
    ],
)
def test_the_state_directory(configured: Path | None, environ: dict[str, str], expected: str) -> None:
    assert devkey.state_dir(configured, environ) == Path(expected)
