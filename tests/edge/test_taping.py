"""Which secrets there are: all that the settings declare, in every section."""

from pathlib import Path

import pytest

from agw_proxy import tape
from agw_proxy._hot.meter import Meter
from agw_proxy.config.settings import Settings
from agw_proxy.edge.taping import secrets_of, taping
from agw_proxy.observe.log import Log
from agw_proxy.observe.metrics import FAMILIES, Metrics
from agw_proxy.store import tapes
from tests.edge.inprocess import Lines, serving, write
from tests.support.gateway import APP_KEY, configuration, provider
from tests.support.upstream import Upstream

LATER_KEY = "agw-bench-later-0f9e8d7c6b5a4938"

TREE = {
    "upstreams": [
        {
            "name": "a",
            "base_url": "http://x",
            "api_key": "secret-of-a",
            "headers": {"x-team": "Token secret-of-a-header"},
        },
        {"name": "b", "base_url": "http://x", "api_keys": ["secret-of-b-1", "secret-of-b-2"]},
    ],
    "keys": [{"name": "k", "key": "secret-of-a-key-0123456789"}],
    "metrics": {"key": "secret-of-metrics-0123456789"},
    "redis": {"url": "redis://user:secret%3Aof-redis@127.0.0.1:6379/0"},
}


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(Meter(FAMILIES), "0")


@pytest.fixture
def log() -> Log:
    return Log(Lines())


def test_all_secrets_of_the_settings_are_known() -> None:
    settings = Settings.model_validate({**configuration(), **TREE})
    found = set(secrets_of(settings))
    expected = {"secret-of-a", "secret-of-a-header", "secret-of-b-1", "secret-of-b-2", "secret:of-redis"}
    assert expected | {"secret-of-a-key-0123456789", "secret-of-metrics-0123456789"} <= found


def test_a_folder_that_cannot_be_made_is_told_in_words(tmp_path: Path, metrics: Metrics, log: Log) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="recordings cannot be kept in"):
        taping(tmp_path / "file" / "below", metrics, log)


def test_secrets_stay_secret_after_a_reload(tmp_path: Path, metrics: Metrics, log: Log) -> None:
    made = taping(tmp_path / "tapes", metrics, log)
    made.know(Settings.model_validate({**configuration(), **TREE}), "agw-development-key")
    made.know(Settings.model_validate(configuration()), None)
    mask = made.keeper._mask()
    assert mask(b"secret-of-a agw-development-key") == b"*********** *******************"


async def test_a_gateway_records_and_replays_without_blocking_its_loop(tmp_path: Path) -> None:
    folder = tmp_path / "tapes"
    with Upstream() as upstream:
        entry = provider(upstream.url)
        config = configuration(entry, server={"port": 0, "record": str(folder), "drain_seconds": 1})
        async with serving(config, tmp_path) as running:
            first = await running.chat(stream=True)
            config["keys"].append({"name": "later", "key": LATER_KEY})
            config["server"]["record"] = str(tmp_path / "elsewhere")
            write(running.file, config)
            told = await running.gateway.reload()
            assert told["needs_restart"] == ["server.record"]
            assert (await running.chat(user=f"{APP_KEY} {LATER_KEY}")).status == 200
        made = [tape.read(file.read_bytes()) for file in sorted(folder.iterdir())]
        made = [one for one in made if one.request.method == "POST"]
        assert [one.answer.end for one in made] == ["whole", "whole"]
        assert b"*" * len(APP_KEY) + b" " + b"*" * len(LATER_KEY) in made[1].request.body.data
        assert not (tmp_path / "elsewhere").exists()
        del entry["base_url"], entry["api_key"]
        upstream.reset()
        async with serving(configuration({**entry, "replay": str(folder), "replay_speed": 0}), tmp_path) as running:
            again = await running.chat(stream=True)
            assert again.body == first.body
            (line, _) = running.gateway.upstreams()
            assert (line.name, line.base_url, line.state) == ("fake", f"replay of {folder}", "up")
        assert upstream.requests == []


async def test_what_goes_and_what_is_not_kept_is_in_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "tapes"
    monkeypatch.setattr(tapes.Folder.__init__, "__defaults__", (1 << 30, 2))
    with Upstream() as upstream:
        config = configuration(
            provider(upstream.url, models=["gpt-4o-mini"]), server={"port": 0, "record": str(folder)}
        )
        async with serving(config, tmp_path) as running:
            for _ in range(3):
                await running.chat()
            await running.until(lambda: running.log.trees("recording.oldest_removed"))
            assert len(list(folder.glob("*.json"))) == 2
            for file in folder.iterdir():
                file.unlink()
            folder.rmdir()
            assert (await running.chat()).status == 200
            (line,) = await running.until(lambda: running.log.trees("recording.not_written"))
            assert (line["folder"], line["exchanges"]) == (str(folder), 1)
            assert "recording" in str(running.gateway.metrics_tree()["agw_dropped_total"])
