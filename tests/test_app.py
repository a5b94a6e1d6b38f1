"""The composition root: what a reload swaps and what it keeps, and what the gateway tells of itself."""

import asyncio
import os
import signal
from pathlib import Path
from typing import cast

import pytest

from agw_proxy.config.devkey import NAME
from agw_proxy.config.loader import ConfigError
from agw_proxy.edge.replicas import Replicas
from agw_proxy.errors import ReloadFailed
from tests.edge.conftest import config, shared_upstream, upstream
from tests.edge.inprocess import serving, write
from tests.support.behaviours import answer, failure, stream
from tests.support.client import Reply, bearer
from tests.support.fake_openai import MODELS, spoken
from tests.support.gateway import ADMIN_KEY, APP_KEY, Tree, chat_body, provider
from tests.support.upstream import Upstream, unreachable

__all__ = ["config", "shared_upstream", "upstream"]  # fixtures

NEW_KEY = "agw-new-0123456789abcdef"
pytestmark = pytest.mark.both_loops


def with_key(config: Tree) -> Tree:
    return {**config, "keys": [*config["keys"], {"name": "new", "key": NEW_KEY}]}


async def test_sighup_swaps_the_configuration(config: Tree, tmp_path: Path) -> None:
    async with serving(config, tmp_path) as running:
        before = running.gateway.state
        assert (await running.chat(key=NEW_KEY)).status == 401
        write(running.file, with_key(config))
        os.kill(os.getpid(), signal.SIGHUP)
        await running.until(lambda: running.log.trees("config.reloaded"))
        assert (await running.chat(key=NEW_KEY)).status == 200
        told = running.gateway.configuration()
        after = running.gateway.state
    assert (told["version"], told["keys"], told["last_error"]) == (2, 3, None)
    assert told["files"] == [str(running.file)]
    assert after is not before
    assert [new.upstream is old.upstream for new, old in zip(after.services, before.services, strict=True)] == [
        True
    ] * 2


@pytest.mark.parametrize("text", ["keys: [", "keys: [{name: a}]\nserver: {prot: 1}\n"])
async def test_a_bad_file_changes_nothing_and_says_why(config: Tree, text: str, tmp_path: Path) -> None:
    async with serving(config, tmp_path) as running:
        before = running.gateway.state
        running.file.write_text(text)
        os.kill(os.getpid(), signal.SIGHUP)
        await running.until(lambda: running.log.trees("config.rejected"))
        with pytest.raises(ReloadFailed, match=r"gateway\.yaml"):
            await running.gateway.reload()
        assert running.gateway.state is before
        assert (await running.chat()).status == 200
        told = running.gateway.configuration()
        assert "gateway.yaml" in str(told["last_error"])
        assert told["version"] == 1
        write(running.file, config)
        assert (await running.gateway.reload())["last_error"] is None


async def test_an_upstream_that_changed_gets_a_pool_of_its_own_and_the_old_one_finishes(
    config: Tree, upstream: Upstream, tmp_path: Path
) -> None:
    upstream.script(stream(spoken(), pace_ms=30))
    async with serving(config, tmp_path) as running:

        def finish() -> Reply:
            with running.connect() as connection:
                connection.send("POST", "/v1/chat/completions", chat_body(stream=True), bearer(APP_KEY))
                reply = connection.head()
                reply.body = b"".join(connection.pieces(reply))
            return reply

        going = asyncio.create_task(asyncio.to_thread(finish))
        await asyncio.to_thread(upstream.wait)
        old = running.gateway.state.services[0]
        config["upstreams"][0]["api_key"] = "another-upstream-key-01"
        write(running.file, config)
        await running.gateway.reload()
        new = running.gateway.state.services[0]
        assert (await running.chat()).status == 200
        reply = await going
    assert new.upstream is not old.upstream
    assert new.health is old.health
    assert (reply.complete, reply.body) == (True, b"".join(spoken()))
    assert upstream.last.value("authorization") == "Bearer another-upstream-key-01"


async def test_a_stream_keeps_the_time_that_it_began_with(config: Tree, upstream: Upstream, tmp_path: Path) -> None:
    upstream.script(stream(spoken(), pace_ms=30))
    config["server"]["lane"] = "full"
    async with serving(config, tmp_path) as running:
        going = asyncio.create_task(running.chat(stream=True))
        await asyncio.to_thread(upstream.wait)
        config["timeouts"]["total"] = "1ms"  # every upstream's pool is replaced by this
        write(running.file, config)
        await running.gateway.reload()
        reply = await going
    assert (reply.complete, reply.body) == (True, b"".join(spoken()))


async def test_reloads_at_once_end_with_the_newest_file(config: Tree, tmp_path: Path) -> None:
    async with serving(config, tmp_path) as running:
        first = asyncio.create_task(running.gateway.reload())
        await asyncio.sleep(0)
        fresh = running.file.with_suffix(".new")
        write(fresh, with_key(config))
        fresh.replace(running.file)  # in one step: a file that is read while it is written may be found empty
        await asyncio.gather(first, running.gateway.reload())
        assert (await running.chat(key=NEW_KEY)).status == 200


class Others:
    """The gateways that hear of reloads."""

    def __init__(self) -> None:
        self.told: list[bool] = []

    def tell(self, *, discover: bool) -> None:
        self.told.append(discover)

    async def close(self) -> None:
        pass


async def test_a_reload_that_others_have_told_is_not_told_again_and_hides_none(config: Tree, tmp_path: Path) -> None:
    async with serving(config, tmp_path) as running:
        gateway, others = running.gateway, Others()
        gateway._replicas = cast("Replicas", others)
        heard = (
            asyncio.create_task(gateway.reload(heard=True)),
            asyncio.create_task(gateway.refresh_upstreams(heard=True)),
        )
        await asyncio.sleep(0)
        await asyncio.gather(*heard, gateway.reload(), gateway.refresh_upstreams())
    assert sorted(others.told) == [False, True]


async def test_what_a_reload_cannot_change_is_said(config: Tree, tmp_path: Path) -> None:
    async with serving(config, tmp_path) as running:
        assert running.gateway.configuration()["needs_restart"] == []
        changed = {
            **config,
            "server": {**config["server"], "max_body_mb": 7, "drain_seconds": 2},
            "log": {"level": "debug"},
            "usage": {"days": 7},
            "redis": {"url": "redis://127.0.0.1:1"},
            "budgets": [{"usd": 1}],
        }
        write(running.file, changed)
        told = await running.gateway.reload()
        assert told["needs_restart"] == ["server.max_body_mb", "log.level", "redis", "usage", "budgets"]
        (line,) = running.log.trees("config.needs_restart")
        assert line["settings"] == told["needs_restart"]
        write(running.file, config)
        assert (await running.gateway.reload())["needs_restart"] == []
        write(running.file, changed)
        await running.gateway.reload()
    assert [line["seconds"] for line in running.log.trees("server.draining")] == [2]  # as it is now


async def test_a_reload_ends_whole_though_nobody_waits_for_it(config: Tree, tmp_path: Path) -> None:
    async with serving(config, tmp_path) as running:
        write(running.file, with_key(config))
        asked = asyncio.create_task(running.gateway.reload())
        for _ in range(3):  # until the file is being read
            await asyncio.sleep(0)
        asked.cancel()  # as when the client of /security/refresh goes
        with pytest.raises(asyncio.CancelledError):
            await asked
        await running.until(lambda: running.gateway.configuration()["version"] == 2)
        await running.until(lambda: running.log.trees("config.reloaded"))
        assert running.gateway.configuration()["keys"] == 3
        assert (await running.chat(key=NEW_KEY)).status == 200


async def test_models_are_discovered_where_they_are_given_by_pattern(
    config: Tree, upstream: Upstream, tmp_path: Path
) -> None:
    with unreachable() as nowhere:
        config["upstreams"] = [provider(upstream.url, models=["gpt-*"]), provider(nowhere, "dead", models=["dead-*"])]
        async with serving(config, tmp_path) as running:
            await running.until(lambda: running.log.trees("upstream.models_unknown"))
            listed = await running.ask("GET", "/v1/models")
            refreshed = await running.ask("POST", "/upstreams/refresh", key=ADMIN_KEY)
            told = running.log.trees("upstream.models_unknown")[0]
            assert (told["upstream"], told["error"]) == ("dead", "upstream_unreachable")
    data = listed.json["data"]
    assert isinstance(data, list)
    assert [model["id"] for model in data] == ["gpt-4o-mini", "gpt-4o", "agw/echo"]
    assert refreshed.json["models"] == {"fake": len(MODELS)}
    assert refreshed.json["errors"] == {"dead": "upstream_unreachable"}


async def test_the_upstreams_state_follows_its_traffic(config: Tree, upstream: Upstream, tmp_path: Path) -> None:
    config["retries"]["attempts"] = 1
    async with serving(config, tmp_path) as running:
        states = [running.gateway.upstreams()[0].state]
        for behaviour in (answer({}), failure(500), failure(400)):
            upstream.script(behaviour)
            await running.chat()
            states.append(running.gateway.upstreams()[0].state)
        echo = running.gateway.upstreams()[-1]
    assert states == ["unused", "up", "failing", "up"]
    assert (echo.name, echo.base_url) == ("agw", "in process")


async def test_without_keys_one_is_generated_and_kept(config: Tree, tmp_path: Path) -> None:
    del config["keys"]
    config["server"]["state_dir"] = str(tmp_path / "state")
    keys = []
    for _ in range(2):
        async with serving(config, tmp_path) as running:
            keys.append(running.gateway.development_key)
            assert (await running.chat(key=keys[0])).status == 200
            assert (await running.receipt())["key"] == NAME
            assert (await running.ask("GET", "/upstreams", key=keys[0])).status == 200
    assert keys[0] is not None
    assert keys == [keys[0]] * 2


async def test_a_bad_configuration_does_not_start(config: Tree, tmp_path: Path) -> None:
    config["upstreams"][0]["base_url"] = "ftp://nowhere"
    with pytest.raises(ConfigError, match="base_url"):
        async with serving(config, tmp_path):
            raise AssertionError


async def test_the_log_tells_of_the_end(config: Tree, tmp_path: Path) -> None:
    async with serving(config, tmp_path) as running:
        await running.stop()
        assert running.gateway.draining
        assert [len(running.log.trees(event)) for event in ("server.draining", "server.stopped")] == [1, 1]
