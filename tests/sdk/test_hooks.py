"""Events of a run's tools and handoffs."""

from collections.abc import Mapping
from typing import Any

from agents import Agent, RunContextWrapper, function_tool

from agw_proxy.sdk.entry import Run
from agw_proxy.sdk.hooks import Watch, about


@function_tool
def look() -> str:
    return ""


async def test_a_tool_is_told_with_its_time_and_without_its_words() -> None:
    told: list[tuple[str, Mapping[str, object]]] = []
    watch = Watch(Run("r", None, "default/x", trace="t"), lambda event, members: told.append((event, members)))
    context, agent = RunContextWrapper[Any](None), Agent[Any](name="x")
    await watch.on_tool_start(context, agent, look)
    await watch.on_tool_end(context, agent, look, "secret")
    await watch.on_tool_end(context, agent, look, "never begun")
    (event, members), (_, odd) = told
    assert event == "tool.called"
    assert {**members, "duration_ms": 0} == {
        "request_id": "r", "agent": "default/x", "trace_id": "t", "tool": "look", "by": "x", "duration_ms": 0,
    }  # fmt: skip
    assert odd["duration_ms"] is None
    assert watch.tools == 1


async def test_a_handoff_is_told_by_keyword_as_the_sdk_calls_it() -> None:
    told: list[tuple[str, Mapping[str, object]]] = []
    watch = Watch(Run("r", None, "a"), lambda event, members: told.append((event, members)))
    one, other = Agent[Any](name="one"), Agent[Any](name="other")
    await watch.on_handoff(context=RunContextWrapper(None), from_agent=one, to_agent=other)
    assert told == [("sdk_agent.handoff", {**about(Run("r", None, "a")), "from": "one", "to": "other"})]
