"""One run of an agent: a task that makes the hub's events, and gives back all that it took, however it ends.

The SDK goes on running when nobody reads its events, so every end of a run cancels it, and waits until nothing of it is
left. What has been said cannot be taken back: words are held until the guardrails that may forbid them have spoken.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import agents
import orjson
from agents import Agent, ModelProvider, ModelSettings, RunConfig, RunResultStreaming
from agents.exceptions import ModelRefusalError
from pydantic import BaseModel

from agw_proxy.dialects.base import Event, Stop, Tokens, Tree
from agw_proxy.errors import AgentNeedsApproval, AgentTimeout, GatewayError, UpstreamBroken
from agw_proxy.sdk.bridge import Bridge
from agw_proxy.sdk.carried import Carried
from agw_proxy.sdk.contained import Contained, contain
from agw_proxy.sdk.entry import CURRENT, HOME, SERVING, Entry, Run
from agw_proxy.sdk.equipped import Equipped, known, tells_no_usage
from agw_proxy.sdk.faults import TokensSpent, error_of, is_bound
from agw_proxy.sdk.hooks import Say, Watch, about, at
from agw_proxy.sdk.lookout import Counts, Lookout
from agw_proxy.sdk.nested import Within
from agw_proxy.sdk.requests import Asked, choice_of, settings_of
from agw_proxy.sdk.sessions import Memory
from agw_proxy.sdk.threads import DEFAULT, divide
from agw_proxy.sdk.tracing import Members, Traces, unrecorded
from agw_proxy.sdk.turns import Talk

MAX_WAITING_EVENTS = 1024
"""That a caller has not read; then the run's events wait, though the SDK itself goes on to the end of its turn."""
LAST_SECONDS = 5.0
"""For a run that was cancelled to end; a tool that does not end then is named in the log."""

TELLS_USAGE = ModelSettings(include_usage=True)
"""Only where it is needed: settings of a run cost the SDK more than all that is done here."""

log = logging.getLogger("agw_proxy.sdk")


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
    ) -> "Running":
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

        def keep(result: RunResultStreaming, call_ids: Sequence[str]) -> None:
            turn = done(result, frozenset(call_ids))
            last = equipped.own(result.current_agent)
            self._carried.keep(place, call_ids, asked.items, turn, last, time.monotonic())

        def ended(running: Running) -> None:
            self._runs.discard(running)
            on_end()

        running = Running(entry, run, Bridge(asked.names, entry.shows), self._say, keep, ended, talk, self._over)
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


class Running:
    """A run, under way. One task reads it."""

    task: asyncio.Task[None]

    def __init__(
        self,
        entry: Entry,
        run: Run,
        bridge: Bridge,
        say: Say,
        keep: Callable[[RunResultStreaming, Sequence[str]], None],
        on_end: "Callable[[Running], None]",
        talk: Talk | None = None,
        over: Callable[[Run], AbstractContextManager[Members]] = unrecorded,
    ) -> None:
        """``keep``: hears of a run that ends with calls of the caller's tools. ``over``: see ``Traces``."""
        self._entry, self._run, self._bridge = entry, run, bridge
        self._say, self._keep, self._on_end, self._over = say, keep, on_end, over
        self._talk = talk
        self._watch = Watch(run, say)
        self._events: list[Event] = []
        self._held: list[Event] = []
        self._news, self._room = asyncio.Event(), asyncio.Event()
        self._guarded = False
        self._tokens = Tokens()
        self.error: GatewayError | None = None
        self.over = False
        """There will be no more events."""
        self._complete = False
        self._cancelled = False

    def begin(self, agent: Agent[Any], items: list[Tree], provider: ModelProvider) -> None:
        """Start the task."""
        loop = asyncio.get_running_loop()
        contain(loop)
        self.task = loop.create_task(
            Contained(self._drive(agent, items, provider), self._run), name=f"agent {self._entry.id}"
        )
        self.task.add_done_callback(lambda _: self._ended())  # also where it was cancelled before its first step

    def cancel(self) -> None:
        """Nobody wants it any more. Ends all of it, soon; nothing where the answer is whole."""
        if not self._complete and not self._cancelled:
            self._cancelled = self._run.broken_off = True
            self.task.cancel()

    async def read(self) -> list[Event]:
        """The next events, at least one, up to a Finish. Raises GatewayError where the run has failed, or was ended."""
        while not self._events and not self.over:
            self._news.clear()
            await self._news.wait()
        events, self._events = self._events, []
        self._room.set()
        if not events:
            raise self.error or UpstreamBroken(f"The run of '{self._entry.id}' was ended before its answer was whole.")
        return events

    def _ended(self) -> None:
        if not self.over:
            self.over = True
            self._news.set()
        if self._talk is not None:
            self._talk.end()
        self._on_end(self)

    async def _drive(self, agent: Agent[Any], items: list[Tree], provider: ModelProvider) -> None:
        CURRENT.set(self._run)
        HOME.set(asyncio.get_running_loop())
        SERVING.set(False)
        begun = time.monotonic_ns()
        bounds = self._entry.bounds
        self._say("sdk_agent.start", {**about(self._run), "version": self._entry.version})
        outcome = "cancelled"
        clock = asyncio.timeout(bounds.seconds or None)
        try:
            async with clock:
                with self._over(self._run) as traced:
                    await self._stream(agent, items, provider, traced)
            outcome = "ok"
        except Exception as failure:
            if isinstance(failure, TimeoutError) and clock.expired():
                self.error = AgentTimeout(f"The agent '{self._entry.id}' did not end within {bounds.seconds:g} s.")
            else:
                self.error = error_of(failure, self._bridge.fault)
                if self.error.status >= 500:
                    where = self._entry.id, self._run.request_id, at(failure)
                    log.warning("agent '%s' failed in request %s%s", *where, exc_info=failure)
            outcome = self.error.code
            self._run.broken_off = True
            if self._talk is not None:
                await self._talk.leave()
        finally:
            self.over = True
            self._news.set()
            told = {
                **about(self._run),
                "duration_ms": round((time.monotonic_ns() - begun) / 1e6, 3),
                "tools": self._watch.tools,
                "prompt_tokens": self._tokens.input,
                "completion_tokens": self._tokens.output,
            }
            if outcome == "ok":
                self._say("sdk_agent.success", told)
            else:
                self._say("sdk_agent.failure", {**told, "outcome": outcome})

    async def _stream(self, agent: Agent[Any], items: list[Tree], provider: ModelProvider, traced: Members) -> None:
        """Run, and end with a Finish. Raises whatever the run raises. ``traced``: of the RunConfig."""
        bounds = self._entry.bounds
        config = RunConfig(
            model_settings=TELLS_USAGE if tells_no_usage(agent) else None,
            model_provider=provider,
            workflow_name=self._entry.id,
            tool_not_found_behavior="return_error_to_model",
            tool_error_formatter=self._watch.failed,
            **traced,
        )
        sent: Any = items
        talk = self._talk
        memory = Memory(self._run.session or self._run.request_id, talk) if talk is not None and talk.past else None
        result = agents.Runner.run_streamed(
            agent,
            sent,
            context=self._run,
            max_turns=bounds.turns or None,
            hooks=self._watch,
            run_config=config,
            session=memory,
        )
        self._guarded = bool(agent.output_guardrails)
        waits = len(agent.input_guardrails)
        try:
            async for event in result.stream_events():
                self._push(self._told(event), len(result.input_guardrail_results) >= waits)
                if self._bridge.stop == "tool" and 0 < bounds.tokens <= self._used(result) and not self._bridge.calls:
                    raise TokensSpent(f"{self._used(result)} tokens of {bounds.tokens}")
                while len(self._events) >= MAX_WAITING_EVENTS:
                    self._room.clear()
                    await self._room.wait()
            stop = self._stop_of(result)
            await self._remember(result, cut=False)
            self._finish(result, stop)
        except Exception as failure:
            cut = self._cut(failure)
            if cut is None:
                raise
            await self._remember(result, cut=True)
            self._finish(result, cut)
        finally:
            self._tokens = self._sum(result)
            await _settled(result, self._entry.id)

    def _told(self, event: agents.StreamEvent) -> list[Event]:
        if event.type == "raw_response_event":
            return self._bridge.raw(event.data)
        if event.type == "agent_updated_stream_event":
            self._guarded = bool(event.new_agent.output_guardrails)
        elif event.name == "tool_output":
            made: Any = event.item
            return self._bridge.result(_member(made.raw_item, "call_id"), made.output)
        elif event.name == "handoff_occured":
            item: Any = event.item
            return self._bridge.handed(item.source_agent.name, item.target_agent.name)
        return []

    def _push(self, events: list[Event], free: bool) -> None:
        """``free``: no guardrail can forbid them any more."""
        self._hold(events)
        if free and not self._guarded and self._held:
            self._release()

    def _hold(self, events: list[Event]) -> None:
        self._held += events
        if self._talk is not None:
            self._talk.hear(events)

    async def _remember(self, result: RunResultStreaming, *, cut: bool) -> None:
        """Before its last event is told: who has read it may go on at once. ``cut``: the SDK has no whole answer."""
        if self._talk is not None:
            made = self._talk.told if cut else items_of(result)
            await self._talk.keep(made, result.current_agent.name)

    def _release(self) -> None:
        self._events += self._held
        self._held = []
        self._news.set()

    def _stop_of(self, result: RunResultStreaming) -> Stop:
        """How a run that has come to its end has ended. Raises AgentNeedsApproval."""
        bridge = self._bridge
        if result.interruptions:
            waiting = [item for item in result.interruptions if not self._is_callers(item)]
            if waiting:
                name = waiting[0].tool_name
                raise AgentNeedsApproval(f"The agent '{self._entry.id}' needs an approval for its tool '{name}'.")
            self._keep(result, [str(_member(item.raw_item, "call_id")) for item in result.interruptions])
            return "tool"
        if bridge.stop in {None, "tool"} and result.final_output is not None:
            self._hold(bridge.words(_text(result.final_output)))
            return "stop"
        return "stop" if bridge.stop in {None, "tool"} else bridge.stop

    def _is_callers(self, item: Any) -> bool:
        return item.tool_name in self._bridge.names

    def _cut(self, failure: Exception) -> Stop | None:
        """How an answer ends that a failure has cut; None: it is none. Words that a guardrail has not seen are none."""
        bridge = self._bridge
        if isinstance(failure, ModelRefusalError):
            return "refusal"
        if self._guarded:
            return None
        if bridge.stop in {"length", "refusal", "pause"}:
            return bridge.stop  # the SDK takes a model's answer that is cut for a failure
        return "length" if is_bound(failure) and bridge.said else None

    def _finish(self, result: RunResultStreaming, stop: Stop) -> None:
        self._held += self._bridge.finish(stop, self._sum(result))
        self._complete = True
        self._release()

    def _sum(self, result: RunResultStreaming) -> Tokens:
        """Usage of all model calls: as the SDK has summed it (runs within the run, too), or as they have said themselves."""
        own, usage = self._bridge.tokens, result.context_wrapper.usage
        if usage.input_tokens + usage.output_tokens <= max(own.input, 0) + max(own.output, 0):
            return own
        return Tokens(
            input=usage.input_tokens,
            output=usage.output_tokens,
            cached=usage.input_tokens_details.cached_tokens or 0,
            written=own.written,
            reasoning=usage.output_tokens_details.reasoning_tokens or 0,
        )

    def _used(self, result: RunResultStreaming) -> int:
        tokens = self._sum(result)
        return max(tokens.input, 0) + max(tokens.output, 0)


async def _settled(result: RunResultStreaming, name: str) -> None:
    """End what is left of a run, and wait for it."""
    result.cancel()
    task = result.run_loop_task
    if task is None or task.done():
        return
    _, left = await asyncio.wait([task], timeout=LAST_SECONDS)
    if left:
        log.error("a tool of agent '%s' has not ended %g s after its run was cancelled", name, LAST_SECONDS)


def done(result: RunResultStreaming, call_ids: frozenset[str]) -> list[Tree]:
    """The agent's own calls and their results, as input items, but for the caller's ``call_ids``; without ids of a provider's."""
    found: list[Tree] = []
    for item in result.new_items:
        if item.type in {"tool_call_item", "tool_call_output_item", "handoff_call_item", "handoff_output_item"}:
            tree: Any = item.to_input_item()
            if tree.get("call_id") not in call_ids:
                found.append({name: value for name, value in tree.items() if name not in {"id", "status"}})
    return found


def items_of(result: RunResultStreaming) -> list[Tree]:
    """All items of a run, as input for the next one."""
    made: list[Any] = [item.to_input_item() for item in result.new_items if item.type != "tool_approval_item"]
    return made


def named(name: str | None, agent: Agent[Any]) -> Agent[Any] | None:
    """The agent of that name among those that this one knows, as they are now; None: there is none."""
    return next((each for each in known(agent) if each.name == name), None) if name is not None else None


def _member(raw: Any, name: str) -> Any:
    return raw.get(name) if isinstance(raw, dict) else getattr(raw, name, None)


def _text(output: object) -> str:
    """A final output as words: JSON where it is no string."""
    if isinstance(output, str):
        return output
    if isinstance(output, BaseModel):
        return output.model_dump_json()
    try:
        return orjson.dumps(output).decode()
    except TypeError:
        return str(output)
