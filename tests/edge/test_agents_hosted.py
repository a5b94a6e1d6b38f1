"""A worker that runs agents for others: whose runs they are, how their answers go back, and what ends them."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from agw_proxy.config.values import Dialect
from agw_proxy.edge.agents import Find
from agw_proxy.edge.asking import SESSION
from agw_proxy.errors import AgentTimeout, InternalError, ModelNotFound, UpstreamBroken, UpstreamUnreachable
from agw_proxy.spans import CURRENT, Tracer
from agw_proxy.types import Call, Caller, RawHeaders, Stored, Upstream
from agw_proxy.upstreams.agents_apart import AgentsApart
from tests.edge.apart import Apart, apart
from tests.edge.test_agents import target
from tests.sdk.folders import says, write
from tests.test_spans import Kept

AGENT = "default/sky"
Script = Callable[[Call], Awaitable["Answer"]]


class Answer:
    """Pieces, the last of which may be an error; without any it stays silent."""

    status = 200
    headers: RawHeaders = ((b"content-type", b"text/event-stream"),)
    connect_ms = 0.0
    began_ns = 0
    dropped = ("seed",)

    def __init__(self, *pieces: bytes | Exception) -> None:
        self._pieces = list(pieces)
        self._silent = not pieces
        self.closed = asyncio.Event()

    @property
    def ended(self) -> bool:
        return not self._pieces and not self._silent

    async def read(self, *, progress: bool = True) -> bytes:
        if self._silent:
            await asyncio.Event().wait()
        piece = self._pieces.pop(0)
        if isinstance(piece, Exception):
            raise piece
        return piece

    def close(self) -> None:
        self.closed.set()


class Scripted:
    """What runs agents."""

    name = "agents"
    dialect: Dialect = "openai"

    def __init__(self, script: Script) -> None:
        self.script = script

    async def open(self, _: Any, call: Call) -> Answer:
        return await self.script(call)

    async def close(self) -> None:
        """Nothing is open."""


def making(script: Script) -> Callable[[Find], Awaitable[Upstream]]:
    async def make(_: Find) -> Upstream:
        return Scripted(script)

    return make


def answering(answer: Answer) -> Script:
    async def script(_: Call) -> Answer:
        return answer

    return script


async def begun(here: Apart) -> AgentsApart:
    """Both workers serve."""
    assert await here.hosted.start(here.settings)
    here.stand()
    assert await here.placed.start(here.settings)
    assert isinstance(here.placed.upstream, AgentsApart)
    assert here.placed.upstream.ids == (AGENT,)
    return here.placed.upstream


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("agents"), {"sky/agent.py": says("blue")})


async def test_a_run_is_the_callers_and_its_answer_goes_back_piece_by_piece(root: Path) -> None:
    seen: list[tuple[Call, int]] = []
    answer = Answer(b"one", b"two")

    async def script(call: Call) -> Answer:
        seen.append((call, SESSION.get()))
        assert call.on_wait is not None
        assert call.on_sent is not None
        call.on_wait(9)
        call.on_sent()
        call.on_sent()
        return answer

    async with apart(root, making(script)) as here:
        upstream = await begun(here)
        principal = here.hosted._keys().named("app")
        caller = Caller(principal, session="s", trace="t", user="u", channel="c")
        heard: list[object] = []
        asked = Call("POST", "/responses", "", [], b"{}", None, "req_1", caller=caller, stored=Stored("abc", {"a": 1}))
        asked.on_wait, asked.on_sent = heard.append, lambda: heard.append("sent")
        before = SESSION.set(77)
        try:
            reply = await upstream.open(target(AGENT), asked)
        finally:
            SESSION.reset(before)
        assert (reply.status, reply.headers, reply.dropped) == (200, Answer.headers, ("seed",))
        assert [await reply.read(), await reply.read()] == [b"one", b"two"]
        reply.close()
        await answer.closed.wait()
        assert heard == [9, "sent"]
        (call, session) = seen[0]
        assert (call.method, call.path, call.body, call.request_id) == ("POST", "/responses", b"{}", "req_1")
        assert (call.caller, call.stored, session) == (caller, Stored("abc", {"a": 1}), 77)


async def test_what_a_run_traces_is_below_what_is_under_way_where_it_was_asked_for(root: Path) -> None:
    seen: list[str | None] = []

    async def script(_: Call) -> Answer:
        span = CURRENT.get()
        seen.append(span.traceparent if span is not None else None)
        return Answer(b"one")

    async with apart(root, making(script)) as here:
        upstream = await begun(here)
        tracer = here.hosted._tracer = Tracer(Kept())
        span = tracer.begin("request", "server", None)
        before = CURRENT.set(span)
        try:
            (await upstream.open(target(AGENT), asked())).close()
        finally:
            CURRENT.reset(before)
        (await upstream.open(target(AGENT), asked())).close()
        assert seen == [span.traceparent, None]


def asked() -> Call:
    return Call("POST", "/responses", "", [], b"{}", None, "req_1")


async def test_what_a_run_raises_is_raised_where_it_was_asked_for_and_a_defect_is_in_the_log(root: Path) -> None:
    async def fails(_: Call) -> Answer:
        raise failure

    async with apart(root, making(fails)) as here:
        upstream = await begun(here)
        failure: Exception = AgentTimeout("Too late.")
        with pytest.raises(AgentTimeout, match="Too late"):
            await upstream.open(target(AGENT), asked())
        failure = LookupError("of ours")
        with pytest.raises(InternalError):
            await upstream.open(target(AGENT), asked())
        (line,) = here.lines.trees("gateway.defect")
        assert (line["request_id"], line["error"]) == ("req_1", "LookupError('of ours')")


async def test_an_answer_that_breaks_off_says_how(root: Path) -> None:
    async with apart(root, making(answering(Answer(b"one", UpstreamBroken("It broke."))))) as here:
        reply = await (await begun(here)).open(target(AGENT), asked())
        assert await reply.read() == b"one"
        with pytest.raises(UpstreamBroken, match="It broke"):
            await reply.read()
        reply.close()


@pytest.mark.parametrize("whose", ["who asked", "the worker"])
async def test_a_run_ends_with_who_asked_for_it_and_with_its_worker(root: Path, whose: str) -> None:
    answer = Answer()
    async with apart(root, making(answering(answer))) as here:
        reply = await (await begun(here)).open(target(AGENT), asked())
        if whose == "who asked":
            reply.close()
        else:
            await here.hosted.close()
            with pytest.raises(UpstreamBroken, match="has ended"):
                await reply.read()
            reply.close()
        await answer.closed.wait()


async def test_without_an_agent_there_is_none_to_be_found(tmp_path: Path) -> None:
    async with apart(tmp_path, making(answering(Answer(b"one")))) as here:
        assert not await here.hosted.start(here.settings)
        here.stand()
        assert not await here.placed.start(here.settings)
        with pytest.raises(ModelNotFound):
            await here.placed._apart.open(target(AGENT), asked())


async def test_a_connection_that_says_nothing_or_nonsense_hurts_nobody(root: Path) -> None:
    async with apart(root, making(answering(Answer(b"one")))) as here:
        upstream = await begun(here)
        here.inboxes.put(0).close()
        with here.inboxes.put(0) as sock:
            sock.send(b"\x02\x00\x00\x00\x01\x00")
        reply = await upstream.open(target(AGENT), asked())
        assert await reply.read() == b"one"
        reply.close()


async def test_when_nobody_is_left_who_could_ask_it_drains(root: Path) -> None:
    async with apart(root, making(answering(Answer()))) as here:
        upstream = await begun(here)
        assert here.stops == []
        for ends in here.inboxes._pairs:
            for end in ends:
                end.close()
        await here.until(lambda: here.stops == [False])
        with pytest.raises(UpstreamUnreachable):
            await upstream.open(target(AGENT), asked())
