"""The agents as a worker sees them that only relays: an upstream whose models run in workers of their own.

Each agent has a worker where its runs go, so that its places, and what it remembers of a conversation, are in one place. Where
that one is not there, or its loop has not turned for a while, they go to the next.
"""

import asyncio
import functools
import hashlib
import socket
from collections.abc import Callable, Sequence
from typing import Protocol

from agw_proxy._hot.route import Target
from agw_proxy.config.values import Dialect
from agw_proxy.errors import AgentError, GatewayError, UpstreamBroken, UpstreamReset, UpstreamUnreachable
from agw_proxy.types import Call, RawHeaders
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
    Raised,
    Sent,
    error_of,
    frame,
    packed,
    unpacked,
    wanted_of,
)

WAIT_SECONDS = 10.0
"""For a worker to be there: so long a request waits while one is replaced."""
POLL_SECONDS = 0.05
RETRY_AFTER_MS = 1000


class Crew(Protocol):
    """The workers that run agents, by their places."""

    def __len__(self) -> int: ...

    def serves(self, place: int) -> bool:
        """It is there."""
        ...

    def turns(self, place: int) -> bool:
        """It is there, and its loop does its work."""
        ...

    def connect(self, place: int) -> socket.socket:
        """A connection to it. Raises OSError."""
        ...


class AgentsApart:
    """The upstream ``agents``. ``ids``, ``longest_seconds``: see ``services.AgentUpstream``; whoever asks the workers puts them in."""

    name: str = "agents"
    dialect: Dialect = "openai"

    def __init__(self, crew: Crew, counted: Callable[[], int]) -> None:
        """``counted``: the session under which what is asked now counts."""
        self.ids: Sequence[str] = ()
        self.longest_seconds: float = 0.0
        self._crew, self._counted = crew, counted
        self._open: set[Reply] = set()

    async def open(self, target: Target, call: Call) -> "Reply":
        """Have the agent run that the target names, until there is something to pass on. Raises what ``upstreams.agent`` does.

        Raises UpstreamUnreachable where there is no worker for it, UpstreamReset where it has ended before the run began,
        AgentError where it did so afterwards.
        """
        reply = Reply(target.model, *await self._connected(target.model), self._open.discard)
        self._open.add(reply)
        try:
            await reply.begin(packed(wanted_of(target.model, call, self._counted())), call)
        except BaseException:
            reply.close()
            raise
        return reply

    async def close(self) -> None:
        """End all runs that were asked for here."""
        for reply in tuple(self._open):
            reply.close()

    async def _connected(self, agent: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        loop = asyncio.get_running_loop()
        until = loop.time() + WAIT_SECONDS
        while True:
            try:
                if (place := self.place(agent)) is not None:
                    return await connected(self._crew, place)
                raise Away(
                    "No worker that runs agents is there at the moment. Try again.", retry_after_ms=RETRY_AFTER_MS
                )
            except Away:
                if loop.time() >= until:
                    raise
            await asyncio.sleep(POLL_SECONDS)

    def place(self, agent: str) -> int | None:
        """Where it is to run; None where nobody is there."""
        there: int | None = None
        for place in _order(agent, len(self._crew)):
            if self._crew.turns(place):
                return place
            if there is None and self._crew.serves(place):
                there = place
        return there


class Away(UpstreamUnreachable):
    """A worker may be there, or have room for one who comes, in a moment."""


async def connected(crew: Crew, place: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection to the worker there. Raises UpstreamUnreachable, Away where too many wait there already."""
    try:
        sock = crew.connect(place)
    except OSError as error:
        kind = Away if isinstance(error, BlockingIOError) else UpstreamUnreachable
        raise kind(
            f"The worker that runs this agent takes no more at the moment ({error.strerror or error}). Try again.",
            retry_after_ms=RETRY_AFTER_MS,
        ) from None
    try:
        return await asyncio.open_unix_connection(sock=sock)
    except BaseException:
        sock.close()
        raise


async def look(crew: Crew, place: int) -> Known:
    """The agents of the worker there. Raises UpstreamUnreachable."""
    reader, writer = await connected(crew, place)
    try:
        writer.write(frame(HEAD, packed(Look())))
        _, data = await Frames(reader).next()
    except (EOFError, ConnectionError):
        raise UpstreamUnreachable("The worker has ended.") from None
    finally:
        writer.close()
    known: Known = unpacked(data, Known)
    return known


@functools.lru_cache(1024)
def _order(agent: str, places: int) -> Sequence[int]:
    """The places where it may run, the first ones first."""
    return sorted(range(places), key=lambda place: _rank(agent, place))


def _rank(agent: str, place: int) -> bytes:
    """Rendezvous: the place with the lowest one is the agent's, and stays so when others come or go."""
    return hashlib.blake2b(f"{place} {agent}".encode(), digest_size=8).digest()


class Reply:
    """A Reply from another worker. A read that is cancelled loses nothing; ``close`` ends the run there."""

    connect_ms: float = 0.0
    began_ns: int = 0

    def __init__(
        self,
        agent: str,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        on_close: "Callable[[Reply], None]",
    ) -> None:
        self.status: int = 0
        self.headers: RawHeaders = ()
        self.dropped: tuple[str, ...] = ()
        self.ended: bool = False
        self._agent = agent
        self._frames, self._writer, self._on_close = Frames(reader), writer, on_close
        self._begun = self._closed = False

    async def begin(self, wanted: bytes, call: Call) -> None:
        """Ask, and wait for the head. Raises GatewayError."""
        try:
            self._writer.write(frame(HEAD, wanted))
            await self._writer.drain()
        except ConnectionError:
            raise UpstreamReset(self._gone()) from None
        while not self.status:
            kind, data = await self._next(UpstreamReset)
            if kind == SENT:
                self._begun = True
                sent: Sent = unpacked(data, Sent)
                if sent.waited and call.on_wait is not None:
                    call.on_wait(sent.waited)
                if call.on_sent is not None:
                    call.on_sent()
            elif kind == HEAD:
                head: Head = unpacked(data, Head)
                self.status, self.headers, self.dropped = head.status, head.headers, head.dropped

    async def read(self, *, progress: bool = True) -> bytes:  # noqa: ARG002  what is silent is alive
        """See ``types.Reply``. Raises GatewayError where the run has failed."""
        if self.ended:
            return b""
        if self._closed:
            raise UpstreamBroken("The run was ended before its answer was whole.")
        kind, data = await self._next(UpstreamBroken)
        self.ended = kind == LAST
        return data

    def close(self) -> None:
        """See ``types.Reply``."""
        if not self._closed:
            self._closed = True
            self._writer.transport.abort()
            self._on_close(self)

    async def _next(self, broken: type[GatewayError]) -> tuple[int, bytes]:
        try:
            kind, data = await self._frames.next()
        except (EOFError, ConnectionError):
            # What has begun is not to be begun again by anybody, and who shares a worker with an agent is not at fault.
            raise (AgentError if self._begun else broken)(self._gone()) from None
        if kind == ERROR:
            raise error_of(unpacked(data, Raised))
        if kind not in {SENT, HEAD, DATA, LAST}:
            raise broken(self._gone())
        return kind, data

    def _gone(self) -> str:
        return f"The worker that ran agent '{self._agent}' has ended, and the run with it."
