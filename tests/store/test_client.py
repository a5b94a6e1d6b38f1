"""The bound, the breaker and the way back, against a real server that is frozen, killed and started again."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from pydantic import SecretStr
from redis.asyncio import Redis

from agw_proxy.store.client import FAILURES, MAX_CONNECTIONS, Away, Client
from agw_proxy.store.scripts import beat
from tests.store.conftest import redis_settings
from tests.support.redis_server import RedisServer
from tests.support.told import ToldRedis


@asynccontextmanager
async def connected(server: RedisServer, told: ToldRedis, **fields: object) -> AsyncIterator[Client]:
    client = Client(redis_settings(server, **fields), told, told)
    try:
        client.start()
        await until(lambda: client.up)
        yield client
    finally:
        await client.close()


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not true():
            await asyncio.sleep(0.005)


async def echo(client: Client, word: str) -> bytes:
    async def ask(redis: Redis) -> bytes:
        said = await redis.echo(word)
        assert isinstance(said, bytes)
        return said

    return await client.ask(ask)


async def test_answers_come_through(server: RedisServer, told: ToldRedis) -> None:
    async with connected(server, told) as client:
        assert await echo(client, "hello") == b"hello"
        assert told.up == 1
        assert told.events == []
    assert told.up == 0


async def test_a_unix_socket_does_as_well(server: RedisServer, told: ToldRedis) -> None:
    async with connected(server, told, url=SecretStr(f"unix://{server.path}")) as client:
        assert await echo(client, "hello") == b"hello"


async def test_nothing_is_asked_before_it_is_known_to_be_there(server: RedisServer, told: ToldRedis) -> None:
    client = Client(redis_settings(server), told, told)
    with pytest.raises(Away):
        await echo(client, "hello")
    assert told.failures == {"away": 1}
    assert server.command("CLIENT", "LIST").count(b"id=") == 1  # the one that asks
    await client.close()


async def test_a_frozen_server_is_given_up_after_two_late_answers_and_found_again(
    server: RedisServer, told: ToldRedis
) -> None:
    async with connected(server, told, timeout=0.05) as client:
        turns: list[bool] = []
        client.watch(turns.append)
        server.freeze()
        for _ in range(FAILURES):
            with pytest.raises(Away):
                await echo(client, "late")
        await until(lambda: not client.up)
        asked = told.failures["late"]
        for _ in range(100):  # now nobody waits
            with pytest.raises(Away):
                await echo(client, "late")
        assert told.failures["away"] == 100
        assert told.failures["late"] - asked <= 1  # that of the one who looks whether it is back
        assert told.events == ["redis.lost"]
        server.thaw()
        await until(lambda: client.up)
        assert told.events == ["redis.lost", "redis.back"]
        assert turns == [False, True]
        assert told.up == 1


async def test_answers_never_go_to_another_question_after_late_ones(server: RedisServer, told: ToldRedis) -> None:
    async with connected(server, told, timeout=0.05) as client:
        server.freeze()
        results = await asyncio.gather(*(echo(client, f"late{i}") for i in range(40)), return_exceptions=True)
        assert all(isinstance(result, Away) for result in results)
        server.thaw()
        await until(lambda: client.up)
        for i in range(3 * MAX_CONNECTIONS):
            assert await echo(client, f"word{i}") == b"word%d" % i


async def test_a_frozen_server_is_never_asked_by_more_than_the_pool(server: RedisServer, told: ToldRedis) -> None:
    async with connected(server, told, timeout=0.05) as client:
        server.freeze()
        await asyncio.gather(*(echo(client, "late") for _ in range(100)), return_exceptions=True)
        assert len(client.pool._in_use_connections) <= MAX_CONNECTIONS
        server.thaw()
        await until(lambda: client.up)


async def test_a_server_that_is_killed_is_found_again(server: RedisServer, told: ToldRedis) -> None:
    async with connected(server, told) as client:
        server.kill()
        for _ in range(FAILURES):
            with pytest.raises(Away):
                await echo(client, "nobody")
        assert not client.up
        assert client.error == "ConnectionError"
        assert told.failures["unreachable"] >= FAILURES
        server.start()
        await until(lambda: client.up)
        assert await echo(client, "again") == b"again"


async def test_where_the_primary_has_become_a_replica_its_address_is_asked_anew(
    server: RedisServer, told: ToldRedis, tmp_path: Path
) -> None:
    """The address follows the primary; the connections there are lead to what was one."""
    address, moved = tmp_path / "primary", tmp_path / "moved"
    address.symlink_to(server.path)

    async def note(redis: Redis) -> None:
        await beat(redis, "agw", "one", 5)

    with RedisServer() as promoted:
        client = Client(redis_settings(server, url=SecretStr(f"unix://{address}")), told, told)
        try:
            client.start(note)
            await until(lambda: client.up)
            assert server.command("REPLICAOF", "127.0.0.1", str(promoted.port)) == b"+OK\r\n"
            for _ in range(FAILURES):
                with pytest.raises(Away):
                    await client.ask(note)
            assert not client.up
            moved.symlink_to(promoted.path)
            moved.replace(address)
            await until(lambda: client.up)
            assert promoted.command("ZCARD", "agw:nodes") == b":1\r\n"
        finally:
            await client.close()
            server.command("REPLICAOF", "NO", "ONE")


async def test_a_server_that_is_not_there_at_the_start_is_told_once_and_found_later(
    server: RedisServer, told: ToldRedis
) -> None:
    server.kill()
    client = Client(redis_settings(server), told, told)
    client.start()
    await until(lambda: bool(told.failures["unreachable"] > 1))
    assert told.events == ["redis.lost"]
    assert told.up == 0
    server.start()
    await until(lambda: client.up)
    assert told.events == ["redis.lost", "redis.back"]
    await client.close()


async def test_a_refused_command_is_a_failure_too(server: RedisServer, told: ToldRedis) -> None:
    async with connected(server, told) as client:

        async def wrong(redis: Redis) -> object:
            return await redis.eval("return nothing(", 0)

        with pytest.raises(Away):
            await client.ask(wrong)
        assert told.failures == {"refused": 1}
        assert client.up
        assert await echo(client, "fine") == b"fine"
        with pytest.raises(Away):
            await client.ask(wrong)
        assert client.up, "failures in a row are counted, not all there ever were"


async def test_a_client_that_stumbles_counts_as_a_failure_and_is_told(server: RedisServer, told: ToldRedis) -> None:
    async with connected(server, told) as client:

        async def stumble(_: Redis) -> None:
            raise TypeError("an unexpected keyword")

        for _ in range(FAILURES):
            with pytest.raises(Away):
                await client.ask(stumble)
        assert told.failures == {"refused": FAILURES}
        assert told.events == ["redis.lost"]


async def test_a_late_answer_does_not_cost_its_connection(server: RedisServer, told: ToldRedis) -> None:
    async with connected(server, told, timeout=0.05) as client:
        seen: list[object] = []

        async def slow(redis: Redis) -> None:
            seen.append(await redis.echo("first"))

        server.freeze()
        with pytest.raises(Away):
            await client.ask(slow)
        server.thaw()
        await until(lambda: seen == [b"first"])
        assert told.failures == {"late": 1}
        assert server.command("CLIENT", "LIST").count(b"id=") == 2
