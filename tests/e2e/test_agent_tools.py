"""Tools of agents in a gateway: its own, under keys and limits, and those of MCP servers, which live as long as their agents."""

import re
from collections.abc import Iterator
from pathlib import Path

import openai
import orjson
import pytest

from tests.sdk.folders import write
from tests.support.gateway import ADMIN_KEY, APP_KEY, Gateway, Tree, configuration
from tests.support.mcp_servers import SECONDS, Children

BARE_KEY = "agw-bench-bare-5d0c7e1f42a96b38"
TOOLS = """\
def add(a: int, b: int) -> int:
    "Add two numbers."
    return a + b
"""
CLERK = """\
from agents import Agent
from agents.testing import ScriptedModel, function_call
from agw_proxy.sdk import gateway_tool

steps = [[function_call("math_add", {{"a": 40, "b": {b}}}, call_id=f"call_{{n}}")] for n in range(50)]
agent = Agent(name="Clerk", model=ScriptedModel(steps), tools=[gateway_tool("math.add")],
    tool_use_behavior="stop_on_first_tool")
"""
ASKER = """\
from agents import Agent
from agents.mcp import MCPServerStdio
from agents.testing import ScriptedModel, function_call

steps = [[function_call("echo", {{"text": "{said}"}}, call_id=f"call_{{n}}")] for n in range(50)]
agent = Agent(name="Asker", model=ScriptedModel(steps), mcp_servers=[{server}], tool_use_behavior="stop_on_first_tool")
"""


def with_tools(folder: Path) -> Tree:
    """The application may use what is of mathematics, twice an hour each; a bare key nothing."""
    config = configuration(
        tools=[{"name": "math.add", "python": str(folder / "tools.py") + ":add"}],
        limits=[{"per": ["key", "tool"], "requests": 2, "period": "1h", "name": "calls"}],
    )
    config["keys"] = [
        {"name": "app", "key": APP_KEY, "tools": ["math.*"]},
        {"name": "boss", "key": ADMIN_KEY, "admin": True, "tools": ["*"]},
        {"name": "bare", "key": BARE_KEY},
    ]
    return config


@pytest.fixture(scope="module")
def children(tmp_path_factory: pytest.TempPathFactory) -> Children:
    return Children(tmp_path_factory.mktemp("mcp"))


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, children: Children) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("tools")
    write(folder, {"tools.py": TOOLS})
    gateway = Gateway(with_tools(folder))
    broken = children.source.replace(str(children.script), "/nowhere/server.py")
    files = {
        "clerk/agent.py": CLERK.format(b=2),
        "asker/agent.py": ASKER.format(said="hi", server=children.source),
        "broken/agent.py": ASKER.format(said="no", server=broken),
        "lost/agent.py": CLERK.format(b=2).replace("math.add", "math.minus"),
    }
    write(gateway.folder / "work" / "agents", files)
    with gateway:
        yield gateway
        gateway.stop()
        assert not children.alive, "nothing is left of what it has begun"


def asked(gateway: Gateway, model: str, key: str = APP_KEY) -> str:
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=key, max_retries=0) as client:
        reply = client.chat.completions.create(model=model, messages=[{"role": "user", "content": "hi"}])
    return reply.choices[0].message.content or ""


def told(gateway: Gateway, event: str) -> list[Tree]:
    return [line for line in gateway.logs() if line["event"] == event]


def listed(gateway: Gateway) -> dict[str, Tree]:
    data = orjson.loads(gateway.get("/agents", key=ADMIN_KEY).body)["data"]
    return {item["id"]: item for item in data}


def test_an_agent_uses_a_tool_of_the_gateways_under_its_callers_key_and_limits(gateway: Gateway) -> None:
    assert [asked(gateway, "default/clerk") for _ in range(2)] == ["42", "42"]
    assert "The tool 'math.add' was not called: Limit 'global/calls' reached" in asked(gateway, "default/clerk")
    assert asked(gateway, "default/clerk", ADMIN_KEY) == "42", "another key has a bucket of its own"
    lines = gateway.until(lambda: told(gateway, "tool.invoked")[3:] and told(gateway, "tool.invoked"), "not in the log")
    assert [(line["key"], line["outcome"]) for line in lines] == [
        ("app", "ok"), ("app", "ok"), ("app", "limited"), ("boss", "ok"),
    ]  # fmt: skip
    assert (lines[0]["tool"], lines[0]["agent"]) == ("math.add", "default/clerk")
    receipts = {line["request_id"] for line in told(gateway, "request")}
    assert {line["request_id"] for line in lines} <= receipts
    text = gateway.get("/metrics/prometheus", key=ADMIN_KEY).body.decode()
    counted = dict(re.findall(r'agw_tool_seconds_count\{outcome="(\w+)",tool="math\.add"\} (\d+)', text))
    assert {name: int(count) for name, count in counted.items()} == {"ok": 3, "limited": 1}


def test_a_key_that_may_not_use_a_tool_has_agents_without_it(gateway: Gateway) -> None:
    with pytest.raises(openai.InternalServerError):  # the script knows one call only, until it may make no more
        asked(gateway, "default/clerk", BARE_KEY)
    denied = gateway.until(lambda: told(gateway, "tool.denied"), "it was not said")
    assert [(line["tool"], line["key"]) for line in denied] == [("math.add", "bare")]
    assert "42" not in str([line for line in told(gateway, "tool.invoked") if line["key"] == "bare"])


def test_an_agent_whose_server_or_tool_is_not_there_fails_alone(gateway: Gateway) -> None:
    states = listed(gateway)
    assert {name: state["status"] for name, state in states.items()} == {
        "default/asker": "ready", "default/broken": "failed", "default/clerk": "ready", "default/lost": "failed",
    }  # fmt: skip
    assert states["default/broken"]["error"].startswith("MCP server 'plain' cannot be reached")
    assert "the gateway has no tool 'math.minus'; there are: math.add" in states["default/lost"]["error"]
    assert states["default/asker"]["tools"] == ["echo", "end", "wait", "meta"]


def test_an_mcp_server_goes_with_the_version_of_its_agent(gateway: Gateway, children: Children) -> None:
    assert "'hi'" in asked(gateway, "default/asker")
    first = children.alive
    assert len(first) == 1
    source = ASKER.format(said="ho", server=children.source)
    write(gateway.folder / "work" / "agents", {"asker/agent.py": source})
    assert gateway.post("/agents/refresh", key=ADMIN_KEY).status == 200
    assert "'ho'" in asked(gateway, "default/asker")
    gateway.until(lambda: len(children.alive) == 1 and children.alive != first, "the old one is still there", SECONDS)


def test_a_tool_that_changes_is_taken_up_by_a_refresh(gateway: Gateway) -> None:
    file = Path(gateway.file.read_text().split("python: ")[1].split(":add")[0].strip("'\""))
    write(file.parent, {"tools.py": TOOLS.replace("a + b", "a + b + 100")})
    assert gateway.post("/agents/refresh", key=ADMIN_KEY).status == 200
    assert asked(gateway, "default/clerk", ADMIN_KEY) == "142"
    write(file.parent, {"tools.py": TOOLS.replace("a: int", "c: int")})
    assert gateway.post("/agents/refresh", key=ADMIN_KEY).status == 200
    loaded = [line["tool"] for line in told(gateway, "tool.loaded")]
    assert loaded == ["math.add"] * 3
