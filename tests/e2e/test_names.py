"""Upstreams' names: looked up off the loop, every address of every family tried, and anew for each new connection."""

import asyncio
import contextlib
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.edge.inprocess import serving
from tests.support.client import bearer, request
from tests.support.gateway import APP_KEY, Gateway, chat_body, configuration, provider
from tests.support.upstream import Upstream


@pytest.fixture(params=["auto", "full"])
def lane(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def families(name: str) -> set[socket.AddressFamily]:
    with contextlib.suppress(socket.gaierror):
        return {found[0] for found in socket.getaddrinfo(name, 80, type=socket.SOCK_STREAM)}
    return set()


def test_a_name_with_addresses_of_both_families_is_reached_at_the_one_that_answers(
    upstream: Upstream, lane: str
) -> None:
    """``localhost`` is ::1 first on most systems; the upstream listens on 127.0.0.1 only."""
    port = upstream.url.rsplit(":", 1)[1].split("/")[0]
    config = configuration(provider(upstream.url, base_url=f"http://localhost:{port}/v1", retries={"attempts": 1}))
    config["server"]["lane"] = lane
    with Gateway(config) as gateway:
        assert families("localhost")
        assert [gateway.chat().status for _ in range(3)] == [200] * 3


def test_a_name_that_is_not_found_is_an_error_of_its_own_and_is_looked_up_again(upstream: Upstream, lane: str) -> None:
    """A name that comes into being is found a second later; nobody waits for a look-up but those who need it."""
    dead = provider(upstream.url, "dead", base_url="http://no-such-name.invalid/v1", models=["dead-*"])
    config = configuration(provider(upstream.url), {**dead, "retries": {"attempts": 1}})
    config["server"]["lane"] = lane
    with Gateway(config) as gateway:
        for _ in range(3):
            reply = gateway.chat(model="dead-1")
            assert (reply.status, reply.error["code"]) == (502, "upstream_unreachable")
            assert "its name was not found" in str(reply.error["message"])
            assert gateway.chat().status == 200


def test_a_crowd_that_asks_for_a_dead_name_takes_no_thread_each(
    lane: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On asyncio's own loop, whose look-ups are Python's. Each lane looks up for itself."""
    name, most = "no-such-name.invalid", 3
    asked: list[object] = []
    go = threading.Event()
    look = socket.getaddrinfo

    def dead(host: Any, *rest: Any, **options: Any) -> object:
        if host != name:
            return look(host, *rest, **options)
        asked.append(host)
        assert go.wait(10)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async def crowd() -> None:
        config = configuration(provider(f"http://{name}", retries={"attempts": 1}), breaker={"enabled": False})
        config["server"]["lane"] = lane
        async with serving(config, tmp_path) as gateway:
            loop = asyncio.get_running_loop()
            with ThreadPoolExecutor(20) as pool:
                asking = [
                    loop.run_in_executor(
                        pool, request, gateway.url, "POST", "/v1/chat/completions", chat_body(), bearer(APP_KEY)
                    )
                    for _ in range(40)
                ]
                await gateway.until(lambda: gateway.gateway.active == 20)
                go.set()
                replies = await asyncio.gather(*asking)
            assert {(reply.status, reply.error["code"]) for reply in replies} == {(502, "upstream_unreachable")}

    monkeypatch.setattr(socket, "getaddrinfo", dead)
    try:
        asyncio.run(crowd())
    finally:
        go.set()
    assert 1 <= len(asked) <= most
