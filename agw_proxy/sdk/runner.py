"""Begins runs of agents, each with what its caller brings, and knows them until nothing is left of them."""

import asyncio
import time
from collections.abc import Callable, Sequence

import agents
from agents import ModelProvider

from agw_proxy.sdk.bridge import Bridge
from agw_proxy.sdk.carried import Carried
from agw_proxy.sdk.entry import Entry, Run
from agw_proxy.sdk.equipped import Equipped
from agw_proxy.sdk.hooks import Say
from agw_proxy.sdk.lookout import Counts, Lookout
from agw_proxy.sdk.nested import Within
from agw_proxy.sdk.requests import Asked, choice_of, settings_of
from agw_proxy.sdk.results import Outcome, done, named
from agw_proxy.sdk.running import Running
from agw_proxy.sdk.threads import DEFAULT, divide
from agw_proxy.sdk.tracing import Traces, unrecorded
from agw_proxy.sdk.turns import Talk
from agw_proxy.sdk.whole import tells_all


class Runner:
    """Starts runs, and knows them until they have ended. Used on one loop."""

    def __init__(
        self,
        provider: ModelProvider,
        say: Say,
        threads: Callable[[], int] = lambda: DEFAULT,
        blocked: Counts = lambda agent, seconds: None,  # noqa: ARG005  told by place
        traces: Traces | None = None,
    ) -> None:
        """``provider``: of the models that agents name. ``say``: writes events to the log.

        ``threads``: how many synchronous tools may run at a time. ``blocked``: hears who has blocked the loop. ``traces``:
        None: there are none. To be made on the loop.
        """
        # What agents do is the gateway's to tell; the SDK would send it to its vendor.
        agents.set_tracing_disabled(True)
        if traces is not None:
            traces.install()
        self._over = traces.over if traces is not None else unrecorded
        self._provider = provider
        Within(provider).install()
        self._say = say
        self._carried = Carried()
        divide(asyncio.get_running_loop(), threads)
        self._lookout = Lookout(say, blocked)
        self._runs: set[Running] = set()

    def start(
        self, entry: Entry, run: Run, asked: Asked, on_end: Callable[[], None], talk: Talk | None = None
    ) -> Running:
        """Begin a run. ``on_end`` is called once, when nothing of it is left. Raises InvalidParameter, and has not begun then.

        ``talk``: the conversation that it goes on from, where one is kept; the run ends it.
        """
        owner = run.principal.owner if run.principal is not None else ""
        place = owner, f"{entry.id}@{entry.version}"
        if talk is None:
            items, agent = self._carried.restore(place, asked.items, time.monotonic())
        else:
            items, agent = talk.fresh, named(talk.agent, entry.agent)
        equipped = Equipped(asked.tools, asked.format, settings_of(asked.request))
        first = equipped.first(agent or entry.agent, choice_of(asked.request, asked.names))

        def keep(result: Outcome, call_ids: Sequence[str]) -> None:
            turn = done(result, frozenset(call_ids))
            last = equipped.own(result.last_agent)
            self._carried.keep(place, call_ids, asked.items, turn, last, time.monotonic())

        def ended(running: Running) -> None:
            self._runs.discard(running)
            on_end()

        bridge, whole = Bridge(asked.names, entry.shows), not asked.request.stream and tells_all(first)
        running = Running(entry, run, bridge, self._say, keep, ended, talk, self._over, whole=whole)
        self._runs.add(running)
        running.begin(first, items, self._provider)
        return running

    async def close(self) -> None:
        """Cancel all runs, and wait for their ends."""
        for running in tuple(self._runs):
            running.cancel()
        while self._runs:
            await asyncio.wait([running.task for running in self._runs])
        self._lookout.close()
