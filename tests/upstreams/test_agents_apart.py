"""Agents in other workers, from the side of one that relays: where a run goes, what comes back, and what breaks."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from agw_proxy.errors import (
    AgentError,
    AgentFailed,
    GatewayError,
    UpstreamBroken,
    UpstreamError,
    UpstreamReset,
    UpstreamUnreachable,
)
from agw_proxy.types import Call
from agw_proxy.upstreams import agents_apart
from agw_proxy.upstreams.agent_frames import (
    DATA,
    ERROR,
    HEAD,
    LAST,
    SENT,
    Frames,
    Head,
    Known,
    Look,
    Sent,
    first_of,
    frame,
    packed,
    raised,
)
from agw_proxy.upstreams.agents_apart import AgentsApart, look
from agw_proxy.upstreams.failures import elsewhere
from tests.sdk.agents_served import NAME, target

PATIENCE_SECONDS = 30.0
HEADERS = ((b"content-type", b"text/event-stream"),)
Script = Callable[[Frames, asyncio.StreamWriter], Awaitable[None]]


class Scripted:
    """Workers that run agents, each with a script for whoever comes."""

    def __init__(self, script: Script, count: int = 1) -> None:
        self.script = script
        self.there = [True] * count
        self.late = [False] * count
        self.asked: list[int] = []
        self.tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self.there)

    def serves(self, place: int) -> bool:
        return self.there[place]

    def turns(self, place: int) -> bool:
        return self.there[place] and not self.late[place]

    def connect(self, place: int) -> socket.socket:
        self.asked.append(place)
        ours, theirs = socket.socketpair()
        task = asyncio.get_running_loop().create_task(self._serve(theirs))
        self.tasks.add(task)
        return ours

    async def _serve(self, sock: socket.socket) -> None:
        reader, writer = await asyncio.open_unix_connection(sock=sock)
        try:
            await self.script(Frames(reader), writer)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


@asynccontextmanager
async def crew(script: Script, count: int = 1) -> AsyncIterator[Scripted]:
    made = Scripted(script, count)
    async with asyncio.timeout(PATIENCE_SECONDS):
        yield made
        await asyncio.gather(*made.tasks)
        await asyncio.sleep(0.01)  # connections are closed in the turns that follow


def call(**more: object) -> Call:
    made = Call("POST", "/responses", "", [], b"{}", None, "req_1")
    for name, value in more.items():
        setattr(made, name, value)
    return made


async def speaks(frames: Frames, writer: asyncio.StreamWriter) -> None:
    _, data = await frames.next()
    if isinstance(first_of(data), Look):
        writer.write(frame(LAST, packed(Known((NAME,), 9.0, ()))))
        return
    writer.write(frame(SENT, packed(Sent(5))) + frame(HEAD, packed(Head(200, HEADERS, ("seed",)))))
    writer.write(frame(DATA, b"one") + frame(LAST, b"two"))


async def test_an_answer_comes_as_it_is_sent_and_the_clocks_hear_when_the_run_begins() -> None:
    heard: list[object] = []
    async with crew(speaks) as scripted:
        apart = AgentsApart(scripted, lambda: 7)
        reply = await apart.open(target(), call(on_wait=heard.append, on_sent=lambda: heard.append("sent")))
        assert (reply.status, reply.headers, reply.dropped, reply.ended) == (200, HEADERS, ("seed",), False)
        assert [await reply.read(), await reply.read(), await reply.read()] == [b"one", b"two", b""]
        assert (reply.ended, heard) == (True, [5, "sent"])
        reply.close()
        assert await look(scripted, 0) == Known((NAME,), 9.0, ())
        assert not apart._open


async def test_an_error_of_the_run_is_raised_here() -> None:
    async def fails(frames: Frames, writer: asyncio.StreamWriter) -> None:
        await frames.next()
        writer.write(frame(ERROR, packed(raised(AgentFailed("It failed.")))))

    async with crew(fails) as scripted:
        with pytest.raises(AgentFailed, match="It failed"):
            await AgentsApart(scripted, int).open(target(), call())


@pytest.mark.parametrize(("told", "kind"), [(0, UpstreamReset), (1, AgentError), (2, AgentError)])
async def test_a_worker_that_ends_in_the_midst_is_told_as_that_and_a_run_that_has_begun_is_not_begun_elsewhere(
    told: int, kind: type[GatewayError]
) -> None:
    async def ends(frames: Frames, writer: asyncio.StreamWriter) -> None:
        await frames.next()
        if told:
            writer.write(frame(SENT, packed(Sent(0))))
        if told > 1:
            writer.write(frame(HEAD, packed(Head(200, HEADERS, ()))) + frame(DATA, b"one") + frame(DATA, b"tw")[:6])

    async def all_of() -> None:
        reply = await AgentsApart(scripted, int).open(target(), call())
        try:
            while not reply.ended:
                await reply.read()
        finally:
            reply.close()

    async with crew(ends) as scripted:
        with pytest.raises(kind, match=f"ran agent '{NAME}' has ended") as caught:
            await all_of()
    assert (type(caught.value), caught.value.status) == (kind, 502)
    assert isinstance(caught.value, UpstreamError)
    assert elsewhere(caught.value, call()) is (told == 0)


async def test_who_leaves_is_seen_by_the_worker() -> None:
    seen: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    async def waits(frames: Frames, writer: asyncio.StreamWriter) -> None:
        await frames.next()
        writer.write(frame(HEAD, packed(Head(200, HEADERS, ()))))
        with pytest.raises((EOFError, ConnectionError)):
            await frames.next()
        seen.set_result(True)

    async with crew(waits) as scripted:
        apart = AgentsApart(scripted, int)
        reply = await apart.open(target(), call())
        await apart.close()
        assert await seen
        with pytest.raises(UpstreamBroken):
            await reply.read()


async def test_an_agent_keeps_its_worker_and_goes_elsewhere_only_while_that_is_late_or_away() -> None:
    async with crew(speaks, 3) as scripted:
        apart = AgentsApart(scripted, int)

        async def goes() -> int:
            (await apart.open(target(), call())).close()
            return scripted.asked[-1]

        home = await goes()
        assert {await goes() for _ in range(3)} == {home}
        scripted.late[home] = True
        other = await goes()
        assert other != home
        scripted.there[other] = False
        assert await goes() not in {home, other}
        scripted.late = [True] * 3
        assert await goes() == home, "it is late, but it is there"


async def test_where_too_many_wait_for_a_worker_already_it_is_asked_a_little_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with crew(speaks) as scripted:
        connect, turns = scripted.connect, [BlockingIOError(), BlockingIOError()]

        def full(place: int) -> socket.socket:
            if turns:
                raise turns.pop()
            return connect(place)

        monkeypatch.setattr(scripted, "connect", full)
        (await AgentsApart(scripted, int).open(target(), call())).close()
        turns = [BlockingIOError()]
        monkeypatch.setattr(agents_apart, "WAIT_SECONDS", 0.0)
        with pytest.raises(UpstreamUnreachable, match="takes no more"):
            await AgentsApart(scripted, int).open(target(), call())


async def test_a_worker_that_comes_back_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    async with crew(speaks) as scripted:
        apart = AgentsApart(scripted, int)
        scripted.there[0] = False
        asked = asyncio.create_task(apart.open(target(), call()))
        await asyncio.sleep(0)
        scripted.there[0] = True
        reply = await asked
        assert await reply.read() == b"one"
        reply.close()
        scripted.there[0] = False
        monkeypatch.setattr(agents_apart, "WAIT_SECONDS", 0.0)
        with pytest.raises(UpstreamUnreachable, match="No worker"):
            await apart.open(target(), call())
