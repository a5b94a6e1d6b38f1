"""Who hears of whose reloads, also after the connection was lost; over a real server."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from agw_proxy.store.client import Client
from agw_proxy.store.notices import Notices
from tests.store.conftest import redis_settings
from tests.store.test_client import connected, until
from tests.support.redis_server import RedisServer
from tests.support.told import ToldRedis


class Node:
    """What one node has heard: True for a notice that asks to discover, False for others."""

    def __init__(self, server: RedisServer, client: Client, name: str) -> None:
        self.heard: list[bool] = []
        self.told = ToldRedis()
        self.notices = Notices(client, redis_settings(server), name, self.hear, self.told)

    async def hear(self, discover: bool) -> None:
        self.heard.append(discover)


def listeners(server: RedisServer) -> int:
    """How many listen, as the server knows."""
    return int(server.command("PUBSUB", "NUMSUB", "agw:notices").rpartition(b":")[2])


@asynccontextmanager
async def nodes(server: RedisServer, *names: str) -> AsyncIterator[list[Node]]:
    async with connected(server, ToldRedis()) as client:
        made = [Node(server, client, name) for name in names]
        for node in made:
            node.notices.start()
        try:
            await until(lambda: listeners(server) == len(made))
            yield made
        finally:
            for node in made:
                await node.notices.close()


async def test_all_others_hear_of_it_and_the_teller_does_not(server: RedisServer) -> None:
    async with nodes(server, "one", "two", "three") as (one, two, three):
        one.notices.tell(discover=False)
        await until(lambda: two.heard == [False] and three.heard == [False])
        three.notices.tell(discover=True)
        await until(lambda: one.heard == [True] and two.heard == [False, True])
        assert three.heard == [False]
        assert two.told.events == ["config.notice"] * 2


async def test_what_is_no_notice_is_passed_over(server: RedisServer) -> None:
    async with nodes(server, "one", "two") as (one, two):
        for junk in (b"", b"reload!", b'{"node": 3}', b"[]", b"\xff"):
            server.command("PUBLISH", "agw:notices", junk)
        one.notices.tell(discover=False)
        await until(lambda: two.heard == [False])


async def test_who_was_cut_off_reads_its_files_once_it_listens_again(server: RedisServer) -> None:
    async with nodes(server, "one", "two") as (one, two):
        server.kill()
        server.start()
        await until(lambda: one.heard == [False] and two.heard == [False])


async def test_what_could_not_be_told_is_told_later(server: RedisServer) -> None:
    async with connected(server, ToldRedis()) as client:
        one, two = Node(server, client, "one"), Node(server, client, "two")
        client.trip()
        assert not client.up
        two.notices.start()
        await until(lambda: listeners(server) == 1)
        one.notices.tell(discover=True)
        one.notices.tell(discover=False)
        await until(lambda: two.heard == [True])
        await one.notices.close()
        await two.notices.close()


async def test_one_question_that_fails_loses_no_news(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    async with nodes(server, "one", "two") as (one, two):
        publish, failed = Redis.publish, 0

        async def once(redis: Redis, *args: Any) -> Any:
            nonlocal failed
            failed += 1
            if failed == 1:
                raise RedisConnectionError("an idle connection was cut")
            return await publish(redis, *args)

        monkeypatch.setattr(Redis, "publish", once)
        one.notices.tell(discover=True)
        await until(lambda: two.heard == [True])
        assert one.notices._client.up


async def test_news_that_come_late_come_once(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    async with nodes(server, "one", "two") as (one, two):
        publish = Redis.publish

        async def slow(redis: Redis, *args: Any) -> Any:
            await asyncio.sleep(one.notices._client.timeout * 1.5)
            return await publish(redis, *args)

        monkeypatch.setattr(Redis, "publish", slow)
        one.notices.tell(discover=False)
        await until(lambda: bool(two.heard))
        one.notices.tell(discover=True)
        await until(lambda: len(two.heard) > 1)
        assert two.heard == [False, True]


async def test_who_begins_while_there_is_no_server_reads_its_files_once_there_is(server: RedisServer) -> None:
    async with connected(server, ToldRedis()) as client:
        server.kill()
        node = Node(server, client, "late")
        node.notices.start()
        await asyncio.sleep(0)
        assert node.heard == []
        server.start()
        await until(lambda: node.heard == [False])
        await node.notices.close()


async def test_a_reload_that_breaks_does_not_end_the_listening(server: RedisServer) -> None:
    async with nodes(server, "one", "two") as (one, two):
        heard = two.notices._heard

        async def broken(discover: bool) -> None:
            two.notices._heard = heard
            raise RuntimeError(discover)

        two.notices._heard = broken
        one.notices.tell(discover=True)
        await until(lambda: "config.notice_failed" in two.told.events)
        one.notices.tell(discover=False)
        await until(lambda: two.heard == [False])
