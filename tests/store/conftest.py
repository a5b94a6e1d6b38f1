from collections.abc import Iterator

import pytest
from pydantic import SecretStr

from agw_proxy.config.storage import Redis
from tests.support.redis_server import RedisServer
from tests.support.told import ToldRedis


@pytest.fixture(scope="module")
def running() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def server(running: RedisServer) -> Iterator[RedisServer]:
    """A running, empty server, whatever the test before has done to it."""
    if running.process.poll() is not None:
        running.start()
    running.command("FLUSHALL")
    yield running
    if running.process.poll() is None:
        running.thaw()


@pytest.fixture
def told() -> ToldRedis:
    return ToldRedis()


def redis_settings(server: RedisServer, **fields: object) -> Redis:
    return Redis.model_validate({"url": SecretStr(server.url), "timeout": 0.25, **fields})
