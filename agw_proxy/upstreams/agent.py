"""Agents as an upstream that speaks Responses, in this process. Each has places of its own, and a queue for them."""

import asyncio
import re
import time
from collections.abc import Callable

import orjson

from agw_proxy._hot.route import Target
from agw_proxy.config.values import Dialect
from agw_proxy.dialects import openai_responses_answers
from agw_proxy.dialects.base import Event, Finish, Shown
from agw_proxy.dialects.openai_responses_streams import Writer
from agw_proxy.dialects.openai_responses_writer import HEARTBEAT
from agw_proxy.errors import InvalidParameter, ModelNotFound, UpstreamBroken
from agw_proxy.sdk.bridge import gathered
from agw_proxy.sdk.entry import CURRENT, Bounds, Entry, Run
from agw_proxy.sdk.equipped import own_names
from agw_proxy.sdk.requests import Asked, read
from agw_proxy.sdk.runner import Runner
from agw_proxy.sdk.running import Running
from agw_proxy.sdk.turns import Books, Talk, has_past, place_of, thread_of
from agw_proxy.types import Call, Caller, RawHeaders
from agw_proxy.upstreams.agent_waits import Waits
from agw_proxy.upstreams.queue import Places, Told

PATH = "/responses"
NOT_OF_IDS = re.compile(r"[^A-Za-z0-9_-]")
LONGEST_WAIT_SECONDS = 60.0
"""For a place at an agent, where its runs may take longer."""
SILENT_SECONDS = 15.0
"""Then a stream gives a sign of life: tools may take long, and those between us and the caller cut what is silent."""


class Agents:
    """The upstream ``agents``."""

    name: str = "agents"
    dialect: Dialect = "openai"

    def __init__(
        self, find: Callable[[str], Entry | None], runner: Runner, told: Told | None = None, books: Books | None = None
    ) -> None:
        """``find``: the agent of an id, as it is served now. ``told``: hears of the queues. ``books``: where conversations are kept."""
        self._find, self._runner, self._told, self._books = find, runner, told, books
        self._places: dict[str, Places] = {}
        self._waits = Waits()

    async def open(self, target: Target, call: Call) -> "AgentReply":
        """Run the agent that the target names, until there is something to pass on.

        Raises ModelNotFound, InvalidParameter, UpstreamQueueFull, what ``Books`` raise, and what becomes of the run:
        AgentError, PolicyError.
        """
        entry = self._find(target.model)
        if entry is None:
            raise ModelNotFound(f"There is no agent '{target.model}' any more.")
        if call.path != PATH or call.method != "POST" or not isinstance(call.body, bytes):
            raise InvalidParameter(f"'{entry.id}' is an agent: it takes part in conversations, and does nothing else.")
        asked = read(call.body, own_names(entry.agent))
        talk = await self._talk(entry, call, asked)  # first: who waits for a session takes no place from others
        try:
            running = await self._start(entry, call, asked, talk)
        except BaseException:
            if talk is not None:
                talk.end()
            raise
        if call.on_sent is not None:
            call.on_sent()
        reply = AgentReply(running, asked, shown_of(asked, call))
        try:
            await reply.begin()
        except BaseException:
            reply.close()
            raise
        return reply

    async def close(self) -> None:
        """End all runs."""
        await self._runner.close()
        if self._books is not None:
            await self._books.close()

    async def _start(self, entry: Entry, call: Call, asked: Asked, talk: Talk | None) -> Running:
        """Begin the run, in a place of the agent's."""
        run = run_of(entry, call)
        places = self._places_of(entry)
        waited = await self._waits.place(places, run)
        if waited and call.on_wait is not None:
            call.on_wait(waited)
        try:
            return self._runner.start(entry, run, asked, lambda: self._waits.leave(places, run), talk)
        except BaseException:
            self._waits.leave(places, run)
            raise

    async def _talk(self, entry: Entry, call: Call, asked: Asked) -> Talk | None:
        """The conversation that a request goes on from, where one is kept. Raises what ``Books`` raise.

        A run that asks an agent as its model sends all of what it knows, and shares the headers of its own caller.
        """
        caller, stored = call.caller or Caller(None), call.stored
        principal = caller.principal
        if self._books is None or principal is None or CURRENT.get() is not None:
            return None
        rebuilt = stored is not None and stored.plain is not None
        if caller.session:
            place = place_of(principal.name, entry.id, caller.session)
            book = await self._books.open(place, alone=True, begins=False)
        elif stored is not None and stored.thread and (rebuilt or not has_past(asked.items)):
            place = thread_of(principal.owner, entry.id, stored.thread)
            book = await self._books.open(place, alone=False, begins=not rebuilt)
        else:
            return None
        if book is None:
            return None
        try:
            return Talk(book, asked.items, whole=rebuilt or not caller.session, always=bool(caller.session))
        except BaseException:  # what is kept cannot be read
            book.end()
            raise

    def _places_of(self, entry: Entry) -> Places:
        """The agent's places. After a change of its bounds, whoever has one keeps it."""
        bounds: Bounds = entry.bounds
        wait = min(bounds.seconds or LONGEST_WAIT_SECONDS, LONGEST_WAIT_SECONDS)
        places = self._places.get(entry.id)
        if places is None or not places.like(most=bounds.concurrent, size=bounds.queue, wait=wait):
            places = self._places[entry.id] = Places(
                entry.id, most=bounds.concurrent, size=bounds.queue, wait=wait, told=self._told, before=places
            )
        return places


def run_of(entry: Entry, call: Call) -> Run:
    """Who the run is for."""
    caller = call.caller or Caller(None)
    return Run(
        call.request_id,
        caller.principal,
        entry.id,
        session=caller.session,
        trace=caller.trace,
        user=caller.user,
        channel=caller.channel,
        most_cost=entry.bounds.cost,
        within=CURRENT.get(),
    )


def shown_of(asked: Asked, call: Call) -> Shown:
    """What the answer repeats of the request."""
    stored = call.stored
    return Shown(
        id=NOT_OF_IDS.sub("-", call.request_id) if stored is None else stored.id,
        model=asked.request.model,
        now=int(time.time()),
        request=asked.request,
        told={} if stored is None else dict(stored.told),
        clock=time.time,
    )


class AgentReply:
    """A Reply. A read that is cancelled loses nothing; ``close`` ends the run."""

    connect_ms: float = 0.0
    began_ns: int = 0
    status: int = 200

    def __init__(self, running: Running, asked: Asked, shown: Shown) -> None:
        """``asked``: what the run was begun for."""
        self.headers: RawHeaders = ()
        self.ended: bool = False
        self.dropped = asked.dropped
        """What the request has lost."""
        self._running, self._shown = running, shown
        self._stream = asked.request.stream
        self._writer = Writer(shown)
        self._ready = b""
        self._whole = not self._stream
        self._closed = False

    async def begin(self) -> None:
        """Wait for the first event of a stream, or for all of an answer. Raises GatewayError where the run fails before."""
        if self._stream:
            self.headers = ((b"content-type", b"text/event-stream"),)
            self._ready = await self._next()
            return
        events: list[Event] = []
        while not (events and isinstance(events[-1], Finish)):
            events += await self._running.read()
        answer = gathered(events, "", self._shown.model)
        self._ready = orjson.dumps(openai_responses_answers.write_answer(answer, self._shown))
        self.headers = ((b"content-type", b"application/json"), (b"content-length", b"%d" % len(self._ready)))

    async def read(self, *, progress: bool = True) -> bytes:  # noqa: ARG002  what is silent is alive
        """See ``types.Reply``. Raises GatewayError where the run has failed."""
        if self._ready:
            ready, self._ready = self._ready, b""
            self.ended = self._whole
            return ready
        if self.ended:
            return b""
        if self._closed:
            raise UpstreamBroken("The run was ended before its answer was whole.")
        try:
            async with asyncio.timeout(SILENT_SECONDS):
                made = await self._next()
        except TimeoutError:
            return HEARTBEAT
        self.ended = self._whole
        return made

    async def _next(self) -> bytes:
        made = b""
        while not made:
            events = await self._running.read()
            self._whole = isinstance(events[-1], Finish)
            made = b"".join([self._writer.write(event) for event in events])
        return made

    def close(self) -> None:
        """See ``types.Reply``."""
        self._closed = True
        self._running.cancel()
