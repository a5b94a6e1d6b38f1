"""The reloader keeps what works."""

import pytest

from agw_proxy.config.loader import Loaded
from agw_proxy.config.reload import Reloader, needs_restart, with_fixed
from agw_proxy.config.tree import ConfigError
from tests.config.conftest import Folder


def test_a_good_reload_replaces_and_a_bad_one_keeps_the_old_and_says_why(folder: Folder) -> None:
    now = [10.0]

    def load() -> Loaded:
        return folder.load()

    folder.write("server: {port: 1}")
    reloader = Reloader(load, load(), clock=lambda: now[0])
    assert (reloader.version, reloader.last_success, reloader.last_error) == (1, 10.0, None)

    folder.write("server: {port: 2}")
    now[0] = 11.0
    assert reloader.reload() is reloader.current
    assert (reloader.current.settings.server.port, reloader.version, reloader.last_success) == (2, 2, 11.0)

    folder.write("server: {port: x}")
    now[0] = 12.0
    with pytest.raises(ConfigError, match=r"server\.port"):
        reloader.reload()
    assert (reloader.current.settings.server.port, reloader.version, reloader.last_success) == (2, 2, 11.0)
    assert "server.port" in str(reloader.last_error)
    assert reloader.last_error_at == 12.0

    folder.write("server: {port: 3}")
    assert reloader.reload().settings.server.port == 3
    assert reloader.version == 3
    assert [reloader.last_error, reloader.last_error_at] == [None, None]


def test_a_file_that_is_just_being_written_is_no_configuration(folder: Folder) -> None:
    """Emptied, then written: read in between it would be a valid configuration without a key."""
    folder.write("server: {port: 1}")
    reloader = Reloader(folder.load, folder.load())
    for text in ("", "\n \n"):
        folder.write(text)
        with pytest.raises(ConfigError, match="empty, and was not before"):
            reloader.reload()
        assert (reloader.current.settings.server.port, reloader.version) == (1, 1)
    folder.write("server: {port: 2}")
    assert reloader.reload().settings.server.port == 2


def test_a_file_that_was_always_empty_stays_a_configuration(folder: Folder) -> None:
    folder.write("")
    reloader = Reloader(folder.load, folder.load())
    assert reloader.reload() is reloader.current


def test_what_is_read_at_the_start_only_stays_for_later_processes(folder: Folder) -> None:
    folder.write("server: {port: 1, max_body_mb: 3}\nredis: {url: 'redis://one'}")
    started = folder.load().settings
    folder.write("server: {port: 2, drain_seconds: 7}\nlog: {level: debug}\nusage: {days: 3}\ncache: {ttl: 9}")
    current = folder.load().settings
    kept = with_fixed(started, current)
    assert (kept.server.port, kept.server.max_body_mb, kept.server.drain_seconds) == (1, 3, 7)
    assert (kept.redis, kept.usage, kept.log, kept.cache) == (started.redis, started.usage, started.log, current.cache)
    assert needs_restart(started, current) == ["server.port", "server.max_body_mb", "log.level", "redis", "usage"]
    assert needs_restart(started, kept) == []
