from agw_proxy.store.kept import RedisStore
from tests.store.test_client import connected
from tests.support.redis_server import RedisServer
from tests.support.told import ToldRedis


async def test_what_is_kept_is_given_until_it_is_removed(server: RedisServer, told: ToldRedis) -> None:
    async with connected(server, told) as client:
        store, other = RedisStore(client, "cache"), RedisStore(client, "idempotency")
        assert await store.get("a") is None
        assert await store.set("a", b"\x00one", 60)
        assert await store.get("a") == b"\x00one"
        assert await other.get("a") is None
        assert await store.set("a", b"two", 60)
        assert await store.get("a") == b"two"
        await store.remove("a")
        assert await store.get("a") is None


async def test_only_the_first_adds(server: RedisServer, told: ToldRedis) -> None:
    async with connected(server, told) as client:
        store = RedisStore(client, "cache")
        assert await store.add("a", b"one", 60) is True
        assert await store.add("a", b"two", 60) is False
        assert await store.get("a") == b"one"


async def test_it_is_kept_for_its_time_in_milliseconds(server: RedisServer, told: ToldRedis) -> None:
    async with connected(server, told) as client:
        store = RedisStore(client, "cache")
        await store.set("a", b"one", 60)
        left = int(server.command("PTTL", "agw:cache:a")[1:])
        assert 59_000 < left <= 60_000


async def test_a_server_that_is_away_is_a_miss(server: RedisServer, told: ToldRedis) -> None:
    async with connected(server, told) as client:
        store = RedisStore(client, "cache")
        await store.set("a", b"one", 60)
        server.kill()
        assert await store.get("a") is None
        assert await store.add("a", b"one", 60) is None
        assert await store.set("a", b"one", 60) is False
        await store.remove("a")
