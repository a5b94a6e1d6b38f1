"""``gateway_tool``: what a model is shown, whose call it is, and what the model hears of one that gives nothing."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from agents import Agent, RunConfig, Runner
from agents.testing import ModelStep, ScriptedModel, assistant_message, function_call

import agw_proxy.sdk
from agw_proxy._hot.limit import PER_TOOL, REQUESTS, Limits, Rule, Table, subject
from agw_proxy._hot.route import Globs
from agw_proxy.config.tools import Tool as Settings
from agw_proxy.sdk import gateway_tool
from agw_proxy.sdk.entry import CURRENT, HOME, Run
from agw_proxy.tools.registry import REGISTRY, Registry
from agw_proxy.types import Principal
from tests.tools.test_registry import MINUTE, SOURCE, Heard

UNTRACED = RunConfig(tracing_disabled=True)


@pytest.fixture
async def tools(tmp_path: Path) -> Registry:
    (tmp_path / "tools.py").write_text(SOURCE)
    heard = Heard()
    registry = Registry(heard, heard)
    await registry.refresh(
        [
            Settings.model_validate({"name": f"my.{name}", "python": f"{tmp_path}/tools.py:{name}"})
            for name in ("add", "fails")
        ]
    )
    return registry


def run_of(*patterns: str, rules: tuple[Rule, ...] = ()) -> Run:
    limits = Limits(Table(), rules)
    principal = Principal("app", subject(b"key:app"), Globs(["*"]), Globs(list(patterns)), admin=False, limits=limits)
    return Run("req_1", principal, "default/clerk", user="ada", trace="0af7651916cd43dd8448eb211c80319c")


class Seen(ScriptedModel):
    """Which tools it was shown, call by call, and what it was told."""

    def __init__(self, calls: list[tuple[str, dict[str, Any]]]) -> None:
        steps = [ModelStep([function_call(name, given, call_id=f"call_{n}")]) for n, (name, given) in enumerate(calls)]
        super().__init__([*steps, [assistant_message("done")]])
        self.shown: list[list[str]] = []

    async def get_response(self, *args: Any, **more: Any) -> Any:
        self.shown.append([tool.name for tool in more["tools"]])
        return await super().get_response(*args, **more)


async def ran(registry: Registry, run: Run, *calls: tuple[str, dict[str, Any]]) -> tuple[Seen, list[str]]:
    """An agent with both tools that makes these calls: its model, and what the calls gave."""
    bound, current = REGISTRY.set(registry), CURRENT.set(run)
    try:
        model = Seen(list(calls))
        agent = Agent(
            name="clerk", model=model, tools=[gateway_tool("my.add"), gateway_tool("my.fails", called="broken")]
        )
        result = await Runner.run(agent, "go", max_turns=20, run_config=UNTRACED)
        return model, [str(item.output) for item in result.new_items if item.type == "tool_call_output_item"]
    finally:
        REGISTRY.reset(bound)
        CURRENT.reset(current)


async def test_it_is_a_tool_of_the_sdk_with_the_schema_of_the_gateways(tools: Registry) -> None:
    token = REGISTRY.set(tools)
    try:
        made = gateway_tool("my.add")
        assert (made.name, made.description) == ("my_add", "Add.")
        assert made.params_json_schema["properties"] == {
            "a": {"type": "integer"}, "b": {"type": "integer", "default": 1},
        }  # fmt: skip
        assert gateway_tool("my.add", called="plus", description="Sum.").name == "plus"
        with pytest.raises(LookupError, match=r"no tool 'my\.minus'; there are: my\.add, my\.fails"):
            gateway_tool("my.minus")
        tools.failed["my.minus"] = "it is broken"
        with pytest.raises(LookupError, match="it is broken"):
            gateway_tool("my.minus")
    finally:
        REGISTRY.reset(token)


async def test_a_call_is_the_runs_callers(tools: Registry) -> None:
    model, given = await ran(
        tools, run_of("my.*"), ("my_add", {"a": 1, "b": 2}), ("broken", {}), ("my_add", {"a": "x"})
    )
    assert model.shown[0] == ["my_add", "broken"]
    assert given[0] == "3"
    assert given[1] == "The tool 'my.fails' failed: LookupError: there is no such city"
    assert "a: Input should be a valid integer" in given[2]
    heard: Any = tools._events
    lines = heard.of("tool.invoked")
    assert [line["outcome"] for line in lines] == ["ok", "failed", "invalid"]
    first = {name: lines[0][name] for name in ("request_id", "agent", "key", "trace_id")}
    assert first == {
        "request_id": "req_1", "agent": "default/clerk", "key": "app", "trace_id": "0af7651916cd43dd8448eb211c80319c",
    }  # fmt: skip


async def test_a_model_is_not_shown_what_the_key_may_not_use(tools: Registry) -> None:
    model, given = await ran(tools, run_of("my.add"), ("my_add", {"a": 1}))
    assert (model.shown[0], given) == (["my_add"], ["2"])
    model, _ = await ran(tools, run_of())
    assert model.shown == [[]]
    heard: Any = tools._events
    assert {"tool": "my.fails", "key": "app"} in heard.of("tool.denied")


async def test_a_limit_per_tool_is_told_to_the_model_and_the_run_goes_on(tools: Registry) -> None:
    run = run_of("*", rules=(Rule("calls", PER_TOOL, REQUESTS, 1, MINUTE),))
    _, given = await ran(tools, run, ("my_add", {"a": 1}), ("my_add", {"a": 1}))
    assert given[0] == "2"
    assert given[1].startswith("The tool 'my.add' was not called: Limit 'calls' reached")


async def test_outside_of_a_gateway_it_can_be_made_and_says_what_is_missing() -> None:
    made = gateway_tool("my.add")
    assert not made.outdated
    agent = Agent(name="clerk", model=Seen([("my_add", {"a": 1})]), tools=[made])
    result = await Runner.run(agent, "go", run_config=UNTRACED)
    assert "There is no gateway here, and so no tool 'my.add'." in str(result.new_items)


def test_nothing_else_is_there_for_authors() -> None:
    with pytest.raises(AttributeError, match="nothing_else"):
        _ = agw_proxy.sdk.nothing_else


async def test_one_that_a_thread_of_an_author_asks_for_is_called_on_the_gateways_loop(tmp_path: Path) -> None:
    (tmp_path / "where.py").write_text(
        "import asyncio\nasync def at() -> int:\n    return id(asyncio.get_running_loop())\n"
    )
    heard = Heard()
    registry = Registry(heard, heard)
    await registry.refresh([Settings.model_validate({"name": "my.place", "python": f"{tmp_path}/where.py:at"})])
    REGISTRY.set(registry)
    CURRENT.set(run_of("my.*"))
    HOME.set(loop := asyncio.get_running_loop())
    made, context = gateway_tool("my.place"), object()

    async def elsewhere() -> object:
        return await made.on_invoke_tool(context, "{}")  # type: ignore[arg-type]  # nothing of it is looked at

    assert await asyncio.to_thread(lambda: asyncio.run(elsewhere())) == str(id(loop))
