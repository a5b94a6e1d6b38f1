"""A name in trouble takes one look-up at a time, however many ask for it, and rests for a moment when it is not found."""

import asyncio
import socket
import threading

import pytest

from agw_proxy.config.resilience import Timeouts
from agw_proxy.config.settings import Upstream as UpstreamSettings
from agw_proxy.errors import UpstreamUnreachable
from agw_proxy.types import Call
from agw_proxy.upstreams.http import HttpUpstream
from agw_proxy.upstreams.names import MISSING_SECONDS, Names, literal
from tests.upstreams.scripted import plan

TARGET = plan("up")[0]
MISSING = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
ASKING = 200


class Servers:
    """Name servers whose next answers are given, or wait until they are."""

    def __init__(self) -> None:
        self.now = 100.0
        self.asked: list[tuple[str, int]] = []
        self.answers: list[asyncio.Future[str]] = []
        self.names = Names(self.look, lambda: self.now)

    async def look(self, host: str, port: int) -> str:
        self.asked.append((host, port))
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.answers.append(answer)
        return await answer

    async def crowd(self, host: str = "a", size: int = ASKING) -> "list[asyncio.Task[str]]":
        """So many ask; all of them wait when this returns."""
        tasks = [asyncio.create_task(self.names.find(host, 80)) for _ in range(size)]
        for _ in range(3):
            await asyncio.sleep(0)
        return tasks


async def test_all_who_ask_at_once_share_one_look_up() -> None:
    servers = Servers()
    tasks = await servers.crowd()
    assert servers.asked == [("a", 80)]
    servers.answers[0].set_result("found")
    assert set(await asyncio.gather(*tasks)) == {"found"}


async def test_what_was_found_is_not_kept() -> None:
    servers = Servers()
    for _ in range(2):
        tasks = await servers.crowd(size=1)
        servers.answers[-1].set_result("found")
        await tasks[0]
    assert len(servers.asked) == 2


async def test_a_name_that_is_not_found_is_not_looked_up_again_for_a_moment() -> None:
    servers = Servers()
    tasks = await servers.crowd()
    servers.answers[0].set_exception(MISSING)
    errors = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(error) for error in errors} == {socket.gaierror}
    assert len({id(error) for error in errors}) == ASKING  # none of them keeps the traces of the others
    servers.now += MISSING_SECONDS * 0.9
    for _ in range(ASKING):
        with pytest.raises(socket.gaierror, match="not known"):
            await servers.names.find("a", 80)
    assert len(servers.asked) == 1
    servers.now += MISSING_SECONDS * 0.2
    tasks = await servers.crowd(size=1)
    servers.answers[1].set_result("found")
    assert await tasks[0] == "found"


async def test_only_a_name_that_is_not_found_rests() -> None:
    servers = Servers()
    tasks = await servers.crowd(size=1)
    servers.answers[0].set_exception(OSError(24, "Too many open files"))
    with pytest.raises(OSError, match="Too many"):
        await tasks[0]
    tasks = await servers.crowd(size=1)
    servers.answers[1].set_result("found")
    assert (await tasks[0], len(servers.asked)) == ("found", 2)


async def test_who_gives_up_leaves_the_look_up_to_the_next() -> None:
    servers = Servers()
    tasks = await servers.crowd()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    tasks = await servers.crowd(size=1)
    assert len(servers.asked) == 1
    servers.answers[0].set_result("found")
    assert await tasks[0] == "found"


async def test_names_do_not_wait_for_each_other() -> None:
    servers = Servers()
    stuck = await servers.crowd("a", 1)
    tasks = await servers.crowd("b", 1)
    servers.answers[1].set_result("found")
    assert await tasks[0] == "found"
    assert not stuck[0].done()
    servers.answers[0].set_result("found late")
    assert await stuck[0] == "found late"


@pytest.mark.parametrize(
    ("host", "expected"), [("127.0.0.1", True), ("::1", True), ("localhost", False), ("1.2.3", False), ("", False)]
)
def test_an_address_is_no_name(host: str, expected: bool) -> None:
    assert literal(host) is expected


def test_a_crowd_at_an_upstream_with_a_dead_name_takes_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """On asyncio's own loop, whose look-ups are Python's."""
    asked: list[object] = []
    go = threading.Event()

    def dead(host: object, *_: object, **__: object) -> object:
        asked.append(host)
        assert go.wait(10)
        raise MISSING

    async def crowd() -> None:
        settings = UpstreamSettings.model_validate({"name": "up", "base_url": "http://no-such-name.invalid/v1"})
        up = HttpUpstream(settings, Timeouts())

        async def ask() -> str:
            with pytest.raises(UpstreamUnreachable) as caught:
                await up.open(TARGET, Call("GET", "/models", "", [], None, None, "req-1"))
            return caught.value.message

        asking = [asyncio.create_task(ask()) for _ in range(ASKING)]
        async with asyncio.timeout(10):
            while not asked:
                await asyncio.sleep(0.001)
        for _ in range(100):
            await asyncio.sleep(0)
        go.set()
        told = set(await asyncio.gather(*asking))
        assert told == {"No connection to upstream 'up': its name was not found."}
        await up.close()

    monkeypatch.setattr(socket, "getaddrinfo", dead)
    try:
        asyncio.run(crowd())
    finally:
        go.set()
    assert len(asked) == 1
