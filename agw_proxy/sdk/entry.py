"""The records of agents and their runs, and how a run's model calls reach the gateway."""

import asyncio
from collections.abc import Coroutine, Sequence
from contextvars import ContextVar
from typing import Any, Literal, Protocol, TypeVar

import msgspec

from agw_proxy.types import Principal, Reply

T = TypeVar("T")
Shows = Literal["hidden", "annotated", "visible"]
"""What a caller sees of an agent's own tool calls and handoffs: nothing, thoughts, or words in the answer."""


class Bounds(msgspec.Struct, frozen=True):
    """What one agent may use. 0: no bound, but for ``concurrent`` and ``queue``."""

    concurrent: int = 16
    """Runs at a time."""
    queue: int = 64
    """How many wait for one of these."""
    seconds: float = 300.0
    """Of one run."""
    turns: int = 10
    """Model calls of one run."""
    tokens: int = 0
    """Of all model calls of one run."""
    cost: int = 0
    """Of one run, in micro-dollars."""


class Entry(msgspec.Struct, frozen=True):
    """One agent as it is served. Kept by a run for its whole life, so that a reload never changes one under way."""

    id: str
    """Its namespace and name, in lower case."""
    agent: Any
    """An ``agents.Agent``."""
    version: str
    """A short hash of its source."""
    source: str
    """Its file, for people."""
    description: str = ""
    bounds: Bounds = Bounds()
    shows: Shows = "hidden"


class Run(msgspec.Struct):
    """Who a run is for: what its model calls are charged to."""

    request_id: str
    principal: Principal | None
    agent: str
    session: str | None = None
    trace: str | None = None
    user: str | None = None
    channel: str | None = None
    cost: int = 0
    """Micro-dollars that its model calls have come to so far, and those of the runs that it has caused."""
    most_cost: int = 0
    """With so much it may ask models no more; 0: no bound."""
    within: "Run | None" = None
    """The run that has caused it by a model call of its own, and waits for it."""
    broken_off: bool = False
    """It was cancelled, or has failed. What a thread of it still does is not on its caller's account."""

    def waits_for(self, agent: str) -> bool:
        """Among the runs that wait for it is one of that agent."""
        above = self.within
        while above is not None:
            if above.agent == agent:
                return True
            above = above.within
        return False


class Unconnected(Exception):
    """An MCP server of an agent's cannot be reached. The message is for whoever writes the agent."""


CURRENT: ContextVar[Run | None] = ContextVar("agw_agent_run", default=None)
"""Set around each run, read by the model provider."""
HOME: ContextVar[asyncio.AbstractEventLoop | None] = ContextVar("agw_agent_home", default=None)
"""Set with it: the loop that the gateway is on. Code of the run's may be on another, in a thread of its own."""
SERVING: ContextVar[bool] = ContextVar("agw_agent_serving", default=False)
"""Set within a run around each model call of its own: what is done there is the gateway's doing, not its author's."""


async def at_home(work: Coroutine[Any, Any, T], home: asyncio.AbstractEventLoop | None = None) -> T:
    """Do it on the gateway's loop, where all is that it needs. ``home``: that loop; None: as the run says."""
    home = home or HOME.get()
    if home is None or asyncio.get_running_loop() is home:
        return await work
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, home))


class ModelCalls(Protocol):
    """Serves a run's model calls as the gateway serves its callers."""

    async def open(self, run: Run, method: str, path: str, headers: Sequence[tuple[str, str]], body: bytes) -> Reply:
        """Ask for what a caller would ask ``path`` for, charged to ``run``. Raises GatewayError."""
        ...
