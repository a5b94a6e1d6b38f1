"""A user with no more rights than docs/redis.md asks for, with a password, over TLS, in another database."""

import asyncio
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trustme
from pydantic import SecretStr

from agw_proxy._hot.limit import BUCKET, CALENDAR, MONTH, PER_KEY, REQUESTS, SLIDING, TOTAL, Rule
from agw_proxy.store.kept import RedisStore
from agw_proxy.store.notices import Notices
from tests.store.conftest import redis_settings
from tests.store.node import Node, running
from tests.store.test_client import until
from tests.support.redis_server import RedisServer

PAGE = (Path(__file__).parents[2] / "docs" / "redis.md").read_text()
HOUR_NS = 3_600_000_000_000


@asynccontextmanager
async def over_tls(server: RedisServer, folder: Path) -> AsyncIterator[tuple[int, Path]]:
    """A port that speaks TLS and passes all on to the server, and the file of its authority."""
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    file = folder / "ca.pem"
    authority.cert_pem.write_to_path(str(file))

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
        except OSError:
            pass
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner, outer = await asyncio.open_unix_connection(server.path)
        await asyncio.gather(pump(reader, outer), pump(inner, writer))

    listening = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield listening.sockets[0].getsockname()[1], file
    finally:
        listening.close()


async def test_a_user_with_the_rights_of_the_page_can_do_all_there_is(server: RedisServer, tmp_path: Path) -> None:
    section = PAGE[PAGE.index("## What Redis must allow") :]
    first = section[: section.index("One server is spoken to")]
    commands = re.findall(r"`([A-Z|]+)`", first)
    assert len(commands) == 19
    rights = [f"+{command.lower()}" for command in commands]
    password = "p@ss/w#rd%"
    made = server.command(
        "ACL",
        "SETUSER",
        "agw",
        "reset",
        "on",
        f">{password}",
        "~agw:*",
        "resetchannels",
        "&agw:notices",
        "-@all",
        *rights,
    )
    assert made == b"+OK\r\n"
    heard: list[bool] = []

    async def hear(discover: bool) -> None:
        heard.append(discover)

    async with over_tls(server, tmp_path) as (port, authority):
        url = f"rediss://agw:p%40ss%2Fw%23rd%25@127.0.0.1:{port}/1?ssl_ca_certs={authority}"
        settings = redis_settings(server, url=SecretStr(url), timeout=1.0, lease={"seconds": 0.2})
        algorithms = (BUCKET, SLIDING, TOTAL)
        rules = [Rule(f"r{a}", PER_KEY, REQUESTS, 100, HOUR_NS, algorithm=a, leased=True) for a in algorithms]
        rules.append(Rule("month", PER_KEY, REQUESTS, 100, algorithm=CALENDAR, calendar=MONTH, leased=True))
        node, other = Node(settings, rules), Node(settings, rules, "other")
        async with running(node, other):
            listening = Notices(other.client, settings, "other", hear, other.told)
            telling = Notices(node.client, settings, "node", hear, node.told)
            listening.start()
            assert await node.spend(20) == 20
            await until(lambda: node.told.leases["returned"] > 3)
            store = RedisStore(node.client, "cache")
            assert await store.add("a", b"1", 10) is True
            assert await store.set("a", b"2", 10) is True
            assert await store.get("a") == b"2"
            await store.remove("a")
            async with asyncio.timeout(20):
                while not heard:
                    telling.tell(discover=True)
                    await asyncio.sleep(0.05)
            await listening.close()
            await telling.close()
        assert node.told.failures == other.told.failures == {}
        assert await asyncio.to_thread(server.command, "ACL", "DELUSER", "agw") == b":1\r\n"
