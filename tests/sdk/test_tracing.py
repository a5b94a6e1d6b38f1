"""What the SDK tells of a run, as spans below its request: which there are, what they tell, and that all of them end."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import agents
import orjson
import pytest
from agents import Agent, GuardrailFunctionOutput, custom_span, function_tool, input_guardrail
from agents.mcp import MCPServerStdio
from agents.testing import ModelStep, ScriptedModel, function_call
from agents.tracing import CustomSpanData, FunctionSpanData, GenerationSpanData, MCPListToolsSpanData, SpanData

from agw_proxy.errors import GuardrailTripped
from agw_proxy.sdk import track
from agw_proxy.sdk.mcp_servers import connect
from agw_proxy.sdk.runner import Runner
from agw_proxy.sdk.tracing import CONTENT_CHARACTERS, Traces, _content, _named, _told
from agw_proxy.spans import CURRENT, Span, Tracer, enter
from tests.sdk.agents_served import Served, asking, said, used, weather, with_weather
from tests.support.mcp_servers import SECONDS, Children


class Kept:
    def __init__(self) -> None:
        self.over: list[Span] = []

    def ended(self, span: Span) -> None:
        self.over.append(span)

    def entered(self, span: Span) -> None:
        pass

    def close(self) -> None:
        pass

    def named(self, name: str) -> Span:
        return next(span for span in self.over if span.name == name)


@pytest.fixture
def kept() -> Iterator[Kept]:
    agents.set_trace_processors([])
    yield Kept()
    agents.set_trace_processors([])
    agents.set_tracing_disabled(True)


class Traced(Served):
    """An agent whose runs are traced."""

    def __init__(self, agent: Agent[Any], tracer: Tracer) -> None:
        super().__init__(agent)
        self.traces = Traces(tracer)
        self.upstream._runner = self.runner = Runner(agents.MultiProvider(), self._say, traces=self.traces)


def served(agent: Agent[Any], kept: Kept, *, content: bool = False, sample: float = 1.0) -> tuple[Traced, Span]:
    """The agent, traced below a request's span."""
    tracer = Tracer(kept, sample, content=content)
    made = Traced(agent, tracer)
    request = tracer.begin("request", "server", None)
    enter(request)
    return made, request


async def test_a_runs_spans_are_below_its_request(kept: Kept) -> None:
    seen: list[Span | None] = []

    @function_tool
    def look() -> str:
        seen.append(CURRENT.get())
        return "secret"

    other = Agent(name="other", model=ScriptedModel(said("Done."), emit_traces=True), handoff_description="knows")
    first = Agent(
        name="first",
        model=ScriptedModel(
            [
                ModelStep([function_call("look", {}, call_id="c1")], used(3, 4)),
                ModelStep([function_call("transfer_to_other", {}, call_id="c2")], used(1, 1)),
            ],
            emit_traces=True,
        ),
        tools=[look],
        handoffs=[other],
    )
    helper, request = served(first, kept)
    await helper.answer()
    agent, tool = kept.named("invoke_agent first"), kept.named("execute_tool look")
    assert {span.trace_id for span in kept.over} == {request.trace_id}
    assert agent.parent_id == kept.named("invoke_agent other").parent_id == request.span_id
    assert tool.parent_id == kept.named("handoff other").parent_id == agent.span_id
    assert seen == [tool], "a tool is within its span"
    assert agent.attributes == {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "first"}
    assert tool.attributes == {
        "gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "look", "gen_ai.tool.type": "function",
    }  # fmt: skip
    calls = [span for span in kept.over if span.kind == "client"]
    assert [span.parent_id for span in calls] == [agent.span_id] * 2 + [kept.named("invoke_agent other").span_id]
    assert b"secret" not in orjson.dumps([span.attributes for span in kept.over])
    assert CURRENT.get() is request, "a run leaves its caller's context alone"


async def test_what_is_said_is_told_where_so_configured(kept: Kept) -> None:
    helper, _ = served(Agent(name="a", model=with_weather(*said("Wet.")), tools=[weather]), kept, content=True)
    await helper.answer("How is Oslo?")
    tool = kept.named("execute_tool weather").attributes
    assert tool["gen_ai.tool.call.arguments"] == '{"city":"Oslo"}'
    assert tool["gen_ai.tool.call.result"] == "Rain in Oslo"


async def test_a_request_that_is_not_recorded_costs_no_spans(kept: Kept) -> None:
    seen: list[object] = []

    @function_tool
    def look() -> str:
        seen.append(agents.get_current_trace())
        with custom_span("author's"):
            return ""

    model = ScriptedModel([ModelStep([function_call("look", {}, call_id="c1")]), *said("Done.")])
    helper, _ = served(Agent(name="a", model=model, tools=[look]), kept, sample=0.0)
    await helper.answer()
    assert kept.over == []
    assert [getattr(trace, "trace_id", None) for trace in seen] == ["no-op"]


async def test_a_run_that_is_cancelled_leaves_no_span_open(kept: Kept) -> None:
    begun = asyncio.Event()

    @function_tool
    async def wait() -> str:
        begun.set()
        await asyncio.sleep(3600)
        return ""

    model = ScriptedModel([ModelStep([function_call("wait", {}, call_id="c1")])])
    helper, request = served(Agent(name="a", model=model, tools=[wait]), kept)
    asked = asyncio.ensure_future(helper.open({**asking("x", "responses"), "stream": False}))
    await begun.wait()
    asked.cancel()
    await asyncio.gather(asked, return_exceptions=True)
    await helper.runner.close()
    assert {"invoke_agent a", "execute_tool wait"} <= {span.name for span in kept.over}
    assert {span.trace_id for span in kept.over} == {request.trace_id}
    assert helper.traces._open == {}


async def test_a_tool_that_fails_and_a_guardrail_that_trips_are_marked(kept: Kept) -> None:
    @function_tool
    def broken() -> str:
        raise RuntimeError("my password")

    @input_guardrail
    async def never(*_: object) -> GuardrailFunctionOutput:
        return GuardrailFunctionOutput(None, tripwire_triggered=True)

    model = ScriptedModel([ModelStep([function_call("broken", {}, call_id="c1")]), *said("Well.")])
    helper, _ = served(Agent(name="a", model=model, tools=[broken]), kept)
    await helper.answer()
    assert kept.named("execute_tool broken").error == "tool_failed"
    helper, _ = served(Agent(name="b", model=ScriptedModel(said("x")), input_guardrails=[never]), kept)
    with pytest.raises(GuardrailTripped):
        await helper.answer()
    assert kept.named("guardrail never").attributes["agw.guardrail.triggered"] is True
    assert kept.named("invoke_agent b").error == "guardrail_tripped"
    assert b"password" not in orjson.dumps([[span.error, span.attributes] for span in kept.over])


async def test_an_authors_own_spans_and_traces_are_in_their_place(kept: Kept) -> None:
    @function_tool
    async def look() -> str:
        with custom_span("lookup", {"sql": "secret"}) as span:
            span.set_error({"message": "secret", "data": None})
        with agents.trace("of its own"), custom_span("second"):
            pass
        return ""

    model = ScriptedModel([ModelStep([function_call("look", {}, call_id="c1")]), *said("Done.")])
    helper, _ = served(Agent(name="a", model=model, tools=[look]), kept)
    await helper.answer()
    tool, lookup, second = (kept.named(name) for name in ("execute_tool look", "lookup", "second"))
    assert {lookup.parent_id, second.parent_id} == {tool.span_id}
    assert (lookup.error, lookup.attributes) == ("_OTHER", {})


async def test_what_is_tracked_stands_between(kept: Kept) -> None:
    @track("lookup")
    async def lookup() -> None:
        with custom_span("first"):
            pass
        with custom_span("second"), track("innermost")(custom_span)("third"):
            pass

    @function_tool
    async def look() -> str:
        await lookup()
        with custom_span("last"):
            return ""

    model = ScriptedModel([ModelStep([function_call("look", {}, call_id="c1")]), *said("Done.")])
    helper, _ = served(Agent(name="a", model=model, tools=[look]), kept)
    await helper.answer()
    tool, tracked = kept.named("execute_tool look"), kept.named("lookup")
    assert tracked.parent_id == kept.named("last").parent_id == tool.span_id
    assert kept.named("first").parent_id == kept.named("second").parent_id == tracked.span_id
    assert kept.named("third").parent_id == kept.named("second").span_id


async def test_a_server_of_mcp_is_told_of_the_tools_span(kept: Kept, tmp_path: Path) -> None:
    params: Any = Children(tmp_path).params
    model = ScriptedModel([ModelStep([function_call("meta", {}, call_id="c1")]), *said("Done.")])
    agent = Agent(name="a", model=model, mcp_servers=[MCPServerStdio(params, client_session_timeout_seconds=SECONDS)])
    servers = await connect(agent, SECONDS)
    helper, _ = served(agent, kept, content=True)
    await helper.answer()
    tool = kept.named("execute_tool meta")
    assert tool.traceparent in str(tool.attributes["gen_ai.tool.call.result"])
    await servers.close()


@pytest.mark.parametrize(
    ("data", "name", "told"),
    [
        (
            GenerationSpanData(model="m", usage={"input_tokens": 2, "input_tokens_details": {"cached_tokens": 1}}),
            "chat m",
            {"gen_ai.request.model": "m", "gen_ai.usage.input_tokens": 2, "gen_ai.usage.cache_read.input_tokens": 1},
        ),
        (MCPListToolsSpanData("files", ["a", "b"]), "tools/list", {"agw.mcp.server": "files", "agw.mcp.tools": 2}),
    ],
)
def test_other_spans_by_the_conventions(data: SpanData, name: str, told: dict[str, object]) -> None:
    assert _named(data)[0] == name
    assert told.items() <= _told(data).items()


def test_content_is_cut() -> None:
    told = _content(GenerationSpanData(input=[{"role": "user", "content": "x" * CONTENT_CHARACTERS}]))
    assert len(str(told["gen_ai.input.messages"])) == CONTENT_CHARACTERS


def test_content_is_what_can_be_sent() -> None:
    circle: dict[str, Any] = {"n": 1}
    circle["self"] = circle
    for data in ({"n": 2**70}, {"text": "\ud800"}, circle):
        assert str(_content(CustomSpanData("c", data))["agw.data"]).startswith("{'")
    assert _content(FunctionSpanData("f", "\ud800", None)) == {"gen_ai.tool.call.arguments": "?"}
