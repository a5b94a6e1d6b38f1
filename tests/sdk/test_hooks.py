"""Events of a run's tools and handoffs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from agents import Agent, RunContextWrapper, function_tool
from agents.testing import ModelStep, ScriptedModel, function_call

from agw_proxy.sdk.entry import Run
from agw_proxy.sdk.hooks import Watch, about, at
from agw_proxy.tools.modules import import_file, new_package
from tests.sdk.agents_served import Served, said
from tests.sdk.folders import write


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


async def test_why_a_tool_has_failed_is_in_the_log_and_not_for_the_model(caplog: pytest.LogCaptureFixture) -> None:
    @function_tool
    def broken() -> str:
        raise LookupError("no such city")

    both = [function_call("broken", {}, call_id="c1"), function_call("look", {}, call_id="c2")]
    model = ScriptedModel([ModelStep(both), *said("Well.")])
    served = Served(Agent(name="helper", tools=[broken, look], model=model))
    await served.answer()
    errors = {members["tool"]: members.get("error") for event, members in served.told if event == "tool.called"}
    assert errors == {"broken": "LookupError", "look": None}
    (record,) = [record for record in caplog.records if record.name == "agw_proxy.sdk"]
    assert record.getMessage() == "tool 'broken' of agent 'default/helper' failed in request req-1"
    assert record.exc_info is not None
    assert "no such city" in str(record.exc_info[1])
    assert "no such city" not in str(model.calls[-1].input)


def test_an_error_is_told_with_its_place_in_the_authors_files(tmp_path: Path) -> None:
    write(tmp_path, {"a/agent.py": "import json\n\ndef fails():\n    json.loads('{')\n"})
    module = import_file(new_package(), tmp_path, "a.agent")
    with pytest.raises(ValueError, match="Expecting") as raised:
        module.fails()
    assert at(raised.value) == f" at {tmp_path / 'a' / 'agent.py'}:4"
    assert at(ValueError("never raised")) == ""
