"""One run of an agent: a task that makes the hub's events, and gives back all that it took, however it ends.

The SDK goes on running when nobody reads its events, so every end of a run cancels it, and waits until nothing of it is
left. What has been said cannot be taken back: words are held until the guardrails that may forbid them have spoken. Where
nobody reads before the end, the run is not streamed (``whole``).
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import agents
from agents import Agent, ModelProvider, ModelResponse, ModelSettings, RunConfig, RunResult, RunResultStreaming, Usage
from agents.exceptions import InputGuardrailTripwireTriggered, ModelBehaviorError, ModelRefusalError

from agw_proxy.dialects.base import Event, Stop, Tokens, Tree
from agw_proxy.errors import AgentNeedsApproval, AgentSpent, AgentTimeout, GatewayError, UpstreamBroken
from agw_proxy.sdk.bridge import Bridge
from agw_proxy.sdk.contained import Contained, contain
from agw_proxy.sdk.entry import CURRENT, HOME, SERVING, Entry, Run
from agw_proxy.sdk.equipped import tells_no_usage
from agw_proxy.sdk.faults import TRIPWIRES, TokensSpent, error_of, is_bound
from agw_proxy.sdk.hooks import Say, Watch, about, at
from agw_proxy.sdk.results import Outcome, dumped, items_of, member, text_of
from agw_proxy.sdk.sessions import Memory
from agw_proxy.sdk.tracing import Members, unrecorded
from agw_proxy.sdk.turns import Talk
from agw_proxy.sdk.whole import Listening, end_of, is_cut, noted_of

MAX_WAITING_EVENTS = 1024
"""That a caller has not read; then the run's events wait, though the SDK itself goes on to the end of its turn."""
LAST_SECONDS = 5.0
"""For a run that was cancelled to end; a tool that does not end then is named in the log."""

TELLS_USAGE = ModelSettings(include_usage=True)
"""Only where it is needed: settings of a run cost the SDK more than all that is done here."""

log = logging.getLogger("agw_proxy.sdk")


class Running:
    """A run, under way. One task reads it."""

    task: asyncio.Task[None]

    def __init__(
        self,
        entry: Entry,
        run: Run,
        bridge: Bridge,
        say: Say,
        keep: Callable[[Outcome, Sequence[str]], None],
        on_end: "Callable[[Running], None]",
        talk: Talk | None = None,
        over: Callable[[Run], AbstractContextManager[Members]] = unrecorded,
        *,
        whole: bool = False,
    ) -> None:
        """``keep``: hears of a run that ends with calls of the caller's tools. ``over``: see ``Traces``.

        ``whole``: nobody reads its events before the last one.
        """
        self._entry, self._run, self._bridge = entry, run, bridge
        self._say, self._keep, self._on_end, self._over = say, keep, on_end, over
        self._talk = talk
        self._whole = whole
        self._watch = Listening(run, say, self) if whole else Watch(run, say)
        self._agent: Agent[Any] = entry.agent
        self._usage = Usage()
        self._asking = False
        self._task: asyncio.Task[Any] | None = None
        self._events: list[Event] = []
        self._held: list[Event] = []
        self._news, self._room = asyncio.Event(), asyncio.Event()
        self._guarded = False
        self._free = True
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
                    await self._go(agent, items, provider, traced)
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

    async def _go(self, agent: Agent[Any], items: list[Tree], provider: ModelProvider, traced: Members) -> None:
        """Run, and end with a Finish. Raises whatever the run raises. ``traced``: of the RunConfig."""
        config = RunConfig(
            model_settings=TELLS_USAGE if not self._whole and tells_no_usage(agent) else None,
            model_provider=provider,
            workflow_name=self._entry.id,
            tool_not_found_behavior="return_error_to_model",
            tool_error_formatter=self._watch.failed,
            **traced,
        )
        talk, run = self._talk, self._run
        memory = Memory(run.session or run.request_id, talk) if talk is not None and talk.past else None
        asked: dict[str, Any] = {
            "context": run,
            "max_turns": self._entry.bounds.turns or None,
            "hooks": self._watch,
            "run_config": config,
            "session": memory,
        }
        self._turn_to(agent)
        try:
            result = await (self._at_once if self._whole else self._streamed)(agent, items, asked)
            stop = self._stop_of(result)
            await self._remember(items_of(result))
            self._finish(stop)
        except Exception as failure:
            if self._asking and (noted := noted_of(failure)) is not None:
                self._hold(self._bridge.whole(noted.output, dumped(noted)))
            cut = self._cut(failure)
            if cut is None:
                raise
            await self._remember(talk.told if talk is not None else [])
            self._finish(cut)
        finally:
            self._tokens = self._sum()
            if self._task is not None:
                await _settled(self._task, self._entry.id)

    async def _at_once(self, agent: Agent[Any], items: Any, asked: dict[str, Any]) -> RunResult:
        """Its models are asked for one piece. What they give, ``heard`` and its like hear."""
        task: asyncio.Task[RunResult]
        task = self._task = asyncio.get_running_loop().create_task(agents.Runner.run(agent, items, **asked))
        try:
            await asyncio.wait([task])
        finally:
            task.cancel()  # nothing, where it has ended
        return task.result()

    async def _streamed(self, agent: Agent[Any], items: Any, asked: dict[str, Any]) -> RunResultStreaming:
        result = agents.Runner.run_streamed(agent, items, **asked)
        self._usage = result.context_wrapper.usage
        waits = len(agent.input_guardrails)
        self._free = not waits
        try:
            async for event in result.stream_events():
                self._free = len(result.input_guardrail_results) >= waits
                self._push(self._told(event))
                self._bound()
                while len(self._events) >= MAX_WAITING_EVENTS:
                    self._room.clear()
                    await self._room.wait()
        except ModelBehaviorError as failure:
            # Guardrails beside the call have been waited for; the SDK tells what it has heard first.
            self._free = len(result.input_guardrail_results) >= waits
            for each in result.input_guardrail_results:
                if each.output.tripwire_triggered:
                    raise InputGuardrailTripwireTriggered(each) from failure
            raise
        finally:
            result.cancel()
            self._task = result.run_loop_task
        return result

    # -- what hooks tell (``whole.Hears``)

    def asked(self) -> None:
        """See ``whole.Hears``."""
        self._asking = True

    def heard(self, agent: Agent[Any], response: ModelResponse, usage: Usage) -> None:
        """See ``whole.Hears``."""
        self._asking = False
        self._turn_to(agent)
        self._usage = usage
        self._hold(self._bridge.whole(response.output, end_of(response)))
        if is_cut(response):
            raise ModelBehaviorError("The model's answer is not whole.")  # as the SDK has it of a stream
        self._bound()

    def gave(self, call_id: str, output: object) -> None:
        """See ``whole.Hears``."""
        self._hold(self._bridge.result(call_id, output))

    def handed(self, source: Agent[Any], target: Agent[Any]) -> None:
        """See ``whole.Hears``."""
        self._turn_to(target)
        self._hold(self._bridge.handed(source.name, target.name))

    # -- events

    def _turn_to(self, agent: Agent[Any]) -> None:
        """It has the conversation now."""
        self._agent = agent
        self._guarded = bool(agent.output_guardrails)

    def _bound(self) -> None:
        """Raises TokensSpent where a model would be asked again, and has used what the run may."""
        most, bridge = self._entry.bounds.tokens, self._bridge
        if most > 0 and bridge.stop == "tool" and not bridge.calls and most <= (used := self._used()):
            raise TokensSpent(f"{used} tokens of {most}")

    def _told(self, event: agents.StreamEvent) -> list[Event]:
        if event.type == "raw_response_event":
            return self._bridge.raw(event.data)
        if event.type == "agent_updated_stream_event":
            self._turn_to(event.new_agent)
        elif event.name == "tool_output":
            made: Any = event.item
            return self._bridge.result(member(made.raw_item, "call_id"), made.output)
        elif event.name == "handoff_occured":
            item: Any = event.item
            return self._bridge.handed(item.source_agent.name, item.target_agent.name)
        return []

    def _push(self, events: list[Event]) -> None:
        """They are told as soon as no guardrail can forbid them any more."""
        self._hold(events)
        if self._free and not self._guarded and self._held:
            self._release()

    def _hold(self, events: list[Event]) -> None:
        self._held += events
        if self._talk is not None:
            self._talk.hear(events)

    async def _remember(self, made: list[Tree]) -> None:
        """Before its last event is told: who has read it may go on at once. ``made``: what the caller has been told where it was cut."""
        if self._talk is not None:
            await self._talk.keep(made, self._agent.name)

    def _release(self) -> None:
        self._events += self._held
        self._held = []
        self._news.set()

    def _stop_of(self, result: Outcome) -> Stop:
        """How a run that has come to its end has ended. Raises AgentNeedsApproval."""
        bridge = self._bridge
        if result.interruptions:
            waiting = [item for item in result.interruptions if not self._is_callers(item)]
            if waiting:
                name = waiting[0].tool_name
                raise AgentNeedsApproval(f"The agent '{self._entry.id}' needs an approval for its tool '{name}'.")
            self._keep(result, [str(member(item.raw_item, "call_id")) for item in result.interruptions])
            return "tool"
        if bridge.stop in {None, "tool"} and result.final_output is not None:
            self._hold(bridge.words(text_of(result.final_output)))
            return "stop"
        return "stop" if bridge.stop in {None, "tool"} else bridge.stop

    def _is_callers(self, item: Any) -> bool:
        return item.tool_name in self._bridge.names

    def _cut(self, failure: Exception) -> Stop | None:
        """How an answer ends that a failure has cut; None: it is none. Words that a guardrail has not seen are none.

        Raises AgentSpent for them.
        """
        bridge = self._bridge
        if isinstance(failure, ModelRefusalError):
            return "refusal"
        if isinstance(failure, TRIPWIRES):
            return None
        if self._guarded or not self._free:
            if bridge.stop == "length":
                raise AgentSpent("A model's answer was cut before the agent's guardrails had seen it.") from failure
            return None
        if bridge.stop in {"length", "refusal", "pause"}:
            return bridge.stop  # the SDK takes a model's answer that is cut for a failure
        return "length" if is_bound(failure) and bridge.said else None

    def _finish(self, stop: Stop) -> None:
        self._held += self._bridge.finish(stop, self._sum())
        self._complete = True
        self._release()

    def _sum(self) -> Tokens:
        """Usage of all model calls: as the SDK has summed it (runs within the run, too), or as they have said themselves."""
        own, usage = self._bridge.tokens, self._usage
        if usage.input_tokens + usage.output_tokens <= max(own.input, 0) + max(own.output, 0):
            return own
        return Tokens(
            input=usage.input_tokens,
            output=usage.output_tokens,
            cached=usage.input_tokens_details.cached_tokens or 0,
            written=own.written,
            reasoning=usage.output_tokens_details.reasoning_tokens or 0,
        )

    def _used(self) -> int:
        tokens = self._sum()
        return max(tokens.input, 0) + max(tokens.output, 0)


async def _settled(task: asyncio.Task[Any], name: str) -> None:
    """Wait for the end of what is left of a run that was cancelled."""
    if task.done():
        return
    _, left = await asyncio.wait([task], timeout=LAST_SECONDS)
    if left:
        log.error("a tool of agent '%s' has not ended %g s after its run was cancelled", name, LAST_SECONDS)
