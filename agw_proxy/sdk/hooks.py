"""A run's tools and handoffs as events of the log (``tool.called``, ``sdk_agent.handoff``), under the request's id."""

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from agents import Agent, RunContextWrapper, RunHooks, Tool
from agents.run_config import ToolErrorFormatterArgs

from agw_proxy.sdk.entry import Run
from agw_proxy.tools.modules import PREFIX

Say = Callable[[str, Mapping[str, object]], None]
"""Writes an event to the log: its name, and its members. Never raises."""
MAX_UNDERWAY = 1024
"""Tool calls of one run that are timed at once."""

log = logging.getLogger("agw_proxy.sdk")


class Watch(RunHooks[Any]):
    """Hears of one run. Arguments and results are never told: they are the caller's."""

    def __init__(self, run: Run, say: Say) -> None:
        self._run = run
        self._say = say
        self._begun: dict[str, int] = {}
        self._failed: dict[str, str] = {}
        self.tools = 0
        """Calls so far."""

    async def on_tool_start(self, context: RunContextWrapper[Any], agent: Agent[Any], tool: Tool) -> None:  # noqa: ARG002  the SDK's signature
        """See the SDK."""
        self.tools += 1
        if len(self._begun) < MAX_UNDERWAY:
            self._begun[call_of(context, tool)] = time.monotonic_ns()

    async def on_tool_end(self, context: RunContextWrapper[Any], agent: Agent[Any], tool: Tool, result: object) -> None:  # noqa: ARG002  likewise
        """See the SDK."""
        begun = self._begun.pop(call_of(context, tool), None)
        error = self._failed.pop(call_of(context, tool), None)
        spent = None if begun is None else round((time.monotonic_ns() - begun) / 1e6, 3)
        told: dict[str, object] = {"tool": tool.name, "by": agent.name, "duration_ms": spent}
        if error is not None:
            told["error"] = error
        self._say("tool.called", {**about(self._run), **told})

    def failed(self, told: ToolErrorFormatterArgs[Any]) -> None:
        """The SDK's ``tool_error_formatter``: hears of an exception of which the model is told that there was one, and no more.

        Without it nobody would know why. What the model is told stays as it is; a tool with a formatter of its own never comes here.
        """
        if told.error is None:
            return
        if told.call_id in self._begun:
            self._failed[told.call_id] = type(told.error).__name__
        where = told.tool_name, self._run.agent, self._run.request_id
        log.warning("tool '%s' of agent '%s' failed in request %s%s", *where, at(told.error), exc_info=told.error)

    async def on_handoff(self, context: RunContextWrapper[Any], from_agent: Agent[Any], to_agent: Agent[Any]) -> None:  # noqa: ARG002  likewise
        """See the SDK."""
        self._say("sdk_agent.handoff", {**about(self._run), "from": from_agent.name, "to": to_agent.name})


def about(run: Run) -> dict[str, object]:
    """Whose an event is."""
    told: dict[str, object] = {"request_id": run.request_id, "agent": run.agent}
    if run.principal is not None:
        told["key"] = run.principal.name
    if run.trace is not None:
        told["trace_id"] = run.trace
    return told


def at(error: BaseException) -> str:
    """Where in its author's files an error was raised, or what they called that raised it; nothing where it was elsewhere."""
    place, trace = "", error.__traceback__
    while trace is not None:
        if str(trace.tb_frame.f_globals.get("__name__", "")).startswith(PREFIX):
            place = f" at {trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place


def call_of(context: RunContextWrapper[Any], tool: Tool) -> str:
    """The id of the call that a tool's hook is about."""
    return str(getattr(context, "tool_call_id", tool.name))
