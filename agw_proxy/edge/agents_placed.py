"""The agents of a worker that only relays: others run them (``agents.workers``), and nothing of the SDK is imported here.

Which agents there are, the workers that run them say: when they have taken up a configuration, and when another process
has taken a worker's place, which shared memory shows.
"""

import asyncio
import contextlib
import socket
import time
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from agw_proxy.config.settings import Settings
from agw_proxy.edge.agents import RETRY_SECONDS, Agents, signature
from agw_proxy.edge.asking import SESSION
from agw_proxy.edge.lending import Lender
from agw_proxy.edge.server import Edge
from agw_proxy.edge.worker_link import TICK_SECONDS, WorkerLink
from agw_proxy.errors import UpstreamUnreachable
from agw_proxy.observe.log import Log
from agw_proxy.states import AgentState
from agw_proxy.upstreams.agent_frames import Known
from agw_proxy.upstreams.agents_apart import AgentsApart, look

LATE_SECONDS = 5 * TICK_SECONDS  # a loop that has not turned for so long gets no run that another one can take
LOOK_SECONDS = 0.25  # between two looks whether a worker's place was taken by another process
POLL_SECONDS = 0.02
ANSWER_SECONDS = 2.0  # for a worker to say which agents it has
LOADS = 2  # as the supervisor has it: agents are loaded at once, but for those that name others
START_SECONDS = 10.0  # for the process itself, on top
SEVERITY = ("ready", "blocked", "stale", "failed")


class Crew:
    """The workers that run agents, as shared memory shows them (``agents_apart.Crew``)."""

    def __init__(self, link: WorkerLink) -> None:
        self._link = link
        self._first = link.first_apart

    def __len__(self) -> int:
        return self._link.shared.workers - self._first

    def stands(self) -> list[tuple[int, int]]:
        """Of each: the version of the configuration that it serves by (0: it does not), and how many were there before."""
        return [self._link.shared.stands(self._first + place) for place in range(len(self))]

    def serves(self, place: int) -> bool:
        """See ``agents_apart.Crew``."""
        return bool(self._link.shared.stands(self._first + place)[0])

    def fails(self, place: int) -> bool:
        """It cannot be started."""
        return self._link.shared.fails(self._first + place)

    def turns(self, place: int) -> bool:
        """See ``agents_apart.Crew``."""
        late = time.monotonic_ns() - self._link.shared.ticked_ns(self._first + place)
        return self.serves(place) and late < LATE_SECONDS * 1e9

    def current(self, place: int) -> bool:
        """It goes by the configuration that this worker takes up, or has."""
        return self._link.shared.stands(self._first + place)[0] == self._link.taking

    def connect(self, place: int, kind: int = socket.SOCK_STREAM) -> socket.socket:
        """See ``agents_apart.Crew``. ``kind``: see ``Inboxes.put``."""
        if self._link.inboxes is None:
            raise OSError("there are no workers that run agents")
        return self._link.inboxes.put(place, kind)


class PlacedAgents(Agents):
    """As ``Agents``, but that others run them."""

    def __init__(self, link: WorkerLink, log: Log, on_change: Callable[[], Awaitable[None]]) -> None:
        """``on_change``: called when there are others than before."""
        super().__init__(lambda: log.events, _never)
        self._link, self._changed = link, on_change
        self._crew = Crew(link)
        self._apart = AgentsApart(self._crew, SESSION.get)
        self._known: list[Known | None] = [None] * len(self._crew)
        self._stands = [(0, 0)] * len(self._crew)
        self._following: asyncio.Task[None] | None = None
        self._lender: Lender | None = None

    async def start(self, settings: Settings) -> bool:
        """See ``Agents``. Waits for the workers that can be started."""
        await self._there(START_SECONDS + LOADS * settings.agents.load_seconds)
        self._taken = await signature(settings)
        await self._ask()
        self._following = asyncio.get_running_loop().create_task(self._follow())
        return self.upstream is not None

    async def refresh(self, settings: Settings) -> bool:
        """See ``Agents``. Nothing is waited for: what is new for relays is not to wait for an agent, see ``settle``."""
        self._taken = await signature(settings)
        return False

    def attend(self, edge: Edge) -> None:
        """See ``Agents``: those clients' connections are lent."""
        self._lender = Lender(
            edge.accounts,
            self._lends_to,
            lambda place: self._crew.connect(place, socket.SOCK_SEQPACKET),
            self._crew.turns,
        )
        edge.lane.lender = self._lender

    def _lends_to(self, agent: str) -> int | None:
        place = self._apart.place(agent)
        return place if place is not None and self._crew.turns(place) and self._crew.current(place) else None

    async def settle(self, settings: Settings) -> None:
        """See ``Agents``."""
        await self._there(LOADS * settings.agents.load_seconds)
        if await self._ask():
            await self._changed()

    async def look(self) -> list[AgentState]:
        """See ``Agents``: as all workers that run them have it."""
        if await self._ask():
            await self._changed()
        there = [
            (known.states, self._crew.serves(place)) for place, known in enumerate(self._known) if known is not None
        ]
        return merged([states if serves else idle(states) for states, serves in there])

    async def close(self) -> None:
        """See ``Agents``."""
        if self._lender is not None:
            self._lender.close()
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
        await super().close()

    async def _there(self, seconds: float) -> None:
        """Wait until each worker serves by the version that this one takes up, or cannot be started."""
        wanted = self._link.taking
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not all(  # noqa: ASYNC110  it is other processes that are waited for
                    version >= wanted or self._crew.fails(place)
                    for place, (version, _) in enumerate(self._crew.stands())
                ):
                    await asyncio.sleep(POLL_SECONDS)

    async def _ask(self) -> bool:
        """Ask all that serve which agents they have. Whether they are others than before."""
        stands = self._crew.stands()
        answers = await asyncio.gather(*(self._answer(place) for place in range(len(self._crew))))
        for place, known in enumerate(answers):
            if known is not None:
                self._known[place], self._stands[place] = known, stands[place]
        there = [known for known in self._known if known is not None]
        before = self._apart.ids, self._apart.longest_seconds
        self._apart.ids = tuple(sorted({name for known in there for name in known.ids}))
        self._apart.longest_seconds = max((known.longest_seconds for known in there), default=0.0)
        if self._apart.ids:
            self.upstream = self._apart
        return (self._apart.ids, self._apart.longest_seconds) != before

    async def _answer(self, place: int) -> Known | None:
        if not self._crew.serves(place):
            return None
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await look(self._crew, place)
        except (TimeoutError, UpstreamUnreachable):
            return None  # what it had last is what is known of it

    async def _follow(self) -> None:
        """Ask again whenever a worker has begun to serve, or was replaced; and now and then while an agent waits there."""
        asked = 0.0
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            now = self._crew.stands()
            new = any(stand[0] and stand != seen for stand, seen in zip(now, self._stands, strict=True))
            waits = any(state.waits for known in self._known if known is not None for state in known.states)
            new |= waits and time.monotonic() >= asked + RETRY_SECONDS
            try:
                if new:
                    asked = time.monotonic()
                    if await self._ask():
                        await self._changed()
            except Exception as error:  # noqa: BLE001  whatever it is: the next change is looked for, too
                self._events().warning("agents.not_taken_up", error=f"{type(error).__name__}: {error}")


def idle(states: Sequence[AgentState]) -> list[AgentState]:
    """The agents of a worker that has gone, and all its runs with it."""
    return [msgspec.structs.replace(state, running=0) for state in states]


def merged(told: Sequence[Sequence[AgentState]]) -> list[AgentState]:
    """The agents of several workers: each once, as the worker has it where it stands worst, with the runs of all."""
    found: dict[tuple[str, str], AgentState] = {}
    for states in told:
        for state in states:
            place = state.id, state.source if state.status == "blocked" else ""
            other = found.get(place, state)
            worst = max(other, state, key=lambda each: SEVERITY.index(each.status))
            running = state.running + (other.running if other is not state else 0)
            found[place] = msgspec.structs.replace(worst, running=running)
    blocked = [state for _, state in sorted(found.items()) if state.status == "blocked"]
    return [state for _, state in sorted(found.items()) if state.status != "blocked"] + blocked


async def _never(_: object) -> "AgentsApart":
    raise RuntimeError("agents are not run here")
