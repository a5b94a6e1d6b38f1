"""MCP servers of agents: connected, made anew when they are lost, bounded, and closed without leaving anything behind."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from agents import Agent, function_tool, handoff
from agents.mcp import MCPServerStdio, MCPServerStreamableHttp
from mcp.shared.exceptions import MCPError
from mcp.types import Tool

from agw_proxy.sdk import mcp_servers
from agw_proxy.sdk.entry import CURRENT, Run, Unconnected
from agw_proxy.sdk.equipped import own_names, reached
from agw_proxy.sdk.mcp_servers import Held, Line, Servers, connect
from agw_proxy.spans import Tracer, enter
from tests.sdk.own_server import Own
from tests.support.mcp_servers import LIBRARY, PLAIN, SECONDS, Children, OverHTTP
from tests.test_spans import Kept

SILENT = """\
import os, pathlib, sys, time
pathlib.Path(sys.argv[1]).write_text(f"{os.getpid()}\\n")
time.sleep(600)
"""
TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture
def children(tmp_path: Path) -> Children:
    return Children(tmp_path)


@pytest.fixture(scope="module")
def remote() -> Iterator[OverHTTP]:
    made = OverHTTP()
    yield made
    made.stop()


def stdio(children: Children, **more: Any) -> MCPServerStdio:
    params: Any = children.params
    return MCPServerStdio(params, name="plain", client_session_timeout_seconds=SECONDS, **more)


async def held_by(agent: Agent[Any]) -> tuple[Held, Servers]:
    servers = await connect(agent, SECONDS)
    held = agent.mcp_servers[0]
    assert isinstance(held, Held)
    return held, servers


def text(result: Any) -> str:
    return str(result.content[0].text)


async def until(there: Callable[[], object]) -> None:
    async with asyncio.timeout(SECONDS):
        while not there():
            await asyncio.sleep(0.01)


def lines_left() -> list[str]:
    return [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("mcp ")]


async def test_one_is_connected_before_it_is_asked_and_gone_when_it_is_closed(children: Children) -> None:
    inner = Agent(name="inner", mcp_servers=[server := stdio(children)])
    other = Agent(name="other", mcp_servers=[server])
    agent = Agent(name="outer", handoffs=[handoff(other)], tools=[inner.as_tool("ask", "Ask."), function_tool(text)])
    assert {each.name for each in reached(agent)} == {"inner", "other", "outer"}
    servers = await connect(agent, SECONDS)
    assert len(children.alive) == 1, "one that several agents name is connected once"
    held = inner.mcp_servers[0]
    assert isinstance(held, Held)
    assert other.mcp_servers[0].name == held.name == "plain"
    assert held.line.tools == ("echo", "end", "wait", "meta")
    assert own_names(inner) == {"echo", "end", "wait", "meta"}
    assert text(await held.call_tool("echo", {"text": "hi"})) == "hi"
    await held.connect()
    await held.cleanup()
    assert await connect(agent, SECONDS), "what is connected already stays as it is"
    assert len(children.pids) == 1
    await asyncio.gather(servers.close(), servers.close())
    assert not children.alive
    assert not lines_left()
    with pytest.raises(Unconnected, match="not used any more"):
        await held.list_tools()


async def test_the_runs_trace_goes_along(children: Children) -> None:
    held, servers = await held_by(Agent(name="a", mcp_servers=[stdio(children)]))
    token = CURRENT.set(Run("req_1", None, "default/a", trace=TRACE))
    try:
        assert f'"traceparent": "00-{TRACE}-' in text(await held.call_tool("meta", {}))
        assert '"mine"' in text(await held.call_tool("meta", {}, {"traceparent": "mine"}))
    finally:
        CURRENT.reset(token)
    assert "traceparent" not in text(await held.call_tool("meta", {}))
    for sample in (1.0, 0.0):
        span = Tracer(Kept(), sample).begin("request", "server", None)
        enter(span)
        assert f'"traceparent": "{span.traceparent}"' in text(await held.call_tool("meta", {}))
    await servers.close()


async def test_what_tools_there_are_is_looked_up_when_it_may_have_changed(children: Children) -> None:
    held, servers = await held_by(agent := Agent(name="a", mcp_servers=[stdio(children, cache_tools_list=True)]))
    children.write(PLAIN.replace('"echo"', '"louder"'))
    os.kill(children.pids[0], signal.SIGKILL)
    await until(lambda: not children.alive)
    with pytest.raises(MCPError):
        await held.call_tool("echo", {"text": "lost"})
    assert text(await held.call_tool("louder", {"text": "hi"})) == "hi"
    assert [tool.name for tool in await held.list_tools()] == ["louder", "end", "wait", "meta"]
    assert "louder" in own_names(agent)
    await servers.close()
    own = Own()
    held, servers = await held_by(agent := Agent(name="a", mcp_servers=[own]))
    own.there = [Tool(name="late", input_schema={})]
    await held.list_tools()
    assert own_names(agent) == {"late"}, "one that is there only later"
    await servers.close()


async def test_one_that_has_died_is_begun_anew_and_no_call_is_made_twice(children: Children) -> None:
    held, servers = await held_by(Agent(name="a", mcp_servers=[stdio(children)]))
    os.kill(children.pids[0], signal.SIGKILL)
    await until(lambda: not children.alive)
    assert [tool.name for tool in await held.list_tools()] == ["echo", "end", "wait", "meta"]
    assert len(children.pids) == 2
    with pytest.raises(MCPError, match="Connection closed"):
        await held.call_tool("end", {})
    assert len(children.pids) == 2, "nobody knows what it has done"
    both = await asyncio.gather(held.call_tool("echo", {"text": "one"}), held.call_tool("echo", {"text": "two"}))
    assert [text(each) for each in both] == ["one", "two"]
    assert len(children.pids) == 3, "all that wait for it share the new one"
    held.line.lost(1)
    assert text(await held.call_tool("echo", {"text": "three"})) == "three"
    assert len(children.pids) == 3, "an older connection's end says nothing of this one"
    await servers.close()
    assert not children.alive


async def test_one_that_cannot_be_begun_again_is_told_of_at_once_for_a_while(
    children: Children, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, servers = await held_by(Agent(name="a", mcp_servers=[stdio(children)]))
    monkeypatch.setattr(mcp_servers, "PAUSE_SECONDS", 3600.0)
    children.write("raise SystemExit(1)")
    os.kill(children.pids[0], signal.SIGKILL)
    with pytest.raises(Unconnected, match="MCP server 'plain' cannot be reached: MCPError: Connection closed"):
        await held.list_tools()
    children.write()
    with pytest.raises(Unconnected):
        await held.list_tools()
    assert len(children.pids) == 1, "a request does not begin a process each"
    monkeypatch.setattr(mcp_servers, "PAUSE_SECONDS", 0.0)
    assert text(await held.call_tool("echo", {"text": "back"})) == "back"
    await servers.close()


async def test_a_call_has_its_bound_and_one_that_is_given_up_harms_no_other(
    children: Children, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mcp_servers, "CALL_SECONDS", 0.1)
    params: Any = children.params
    agent = Agent(name="a", mcp_servers=[MCPServerStdio(params, name="plain", client_session_timeout_seconds=None)])
    held, servers = await held_by(agent)
    with pytest.raises(TimeoutError):
        await held.call_tool("wait", {})
    held._seconds = SECONDS
    running = asyncio.ensure_future(held.call_tool("wait", {}))
    await until(lambda: children.waits)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert text(await held.call_tool("echo", {"text": "still"})) == "still"
    assert len(children.pids) == 1
    await servers.close()


@pytest.mark.parametrize(("bound", "ping"), [("call", 0.2), ("client", 0.2), ("client", 1.5)])
async def test_one_that_answers_nothing_any_more_is_begun_anew(
    children: Children, monkeypatch: pytest.MonkeyPatch, bound: str, ping: float
) -> None:
    children.write(PLAIN.replace('if name == "wait":', 'if name == "wait" and __import__("time").sleep(600) is None:'))
    params: Any = children.params
    server = MCPServerStdio(params, name="plain", client_session_timeout_seconds=None if bound == "call" else 1.0)
    held, servers = await held_by(Agent(name="a", mcp_servers=[server]))
    assert text(await held.call_tool("echo", {"text": "there"})) == "there"
    held._seconds = 0.2 if bound == "call" else SECONDS
    monkeypatch.setattr(mcp_servers, "PING_SECONDS", ping)
    with pytest.raises((TimeoutError, MCPError)):
        await held.call_tool("wait", {})
    held._seconds = SECONDS
    children.write()
    assert text(await held.call_tool("echo", {"text": "back"})) == "back"
    assert len(children.pids) == 2
    assert children.alive == children.pids[1:], "the one that hung is gone"
    await servers.close()


async def test_one_that_is_only_slow_stays_however_short_its_clients_bound_is(children: Children) -> None:
    children.write(PLAIN.replace('if name == "wait":', 'if name == "wait" and __import__("time").sleep(0.6) is None:'))
    params: Any = children.params
    server: Any = MCPServerStdio(params, name="plain", client_session_timeout_seconds=SECONDS)
    held, servers = await held_by(Agent(name="a", mcp_servers=[server]))
    server.session._session_read_timeout_seconds = 0.2
    with pytest.raises(MCPError):
        await held.call_tool("wait", {})
    server.session._session_read_timeout_seconds = SECONDS
    assert text(await held.call_tool("echo", {"text": "still there"})) == "still there"
    assert len(children.pids) == 1
    await servers.close()


@pytest.mark.parametrize(
    ("command", "arguments", "told"),
    [
        ("/nowhere/at/all", [], "FileNotFoundError"),
        ("/bin/true", [], "Connection closed"),
        ("/bin/sleep", ["600"], "did not answer within"),
    ],
)
async def test_one_that_does_not_begin_fails_and_takes_the_others_with_it(
    children: Children, command: str, arguments: list[str], told: str
) -> None:
    bad = MCPServerStdio({"command": command, "args": arguments}, name="bad", client_session_timeout_seconds=SECONDS)
    agent = Agent(name="a", mcp_servers=[stdio(children), bad])
    seconds = 0.2 if "within" in told else SECONDS
    with pytest.raises(Unconnected, match=rf"MCP server '(bad|plain)' .*{told}"):
        await connect(agent, seconds)
    await until(lambda: not children.alive)  # one that was just being begun ends when it finds its pipes closed
    assert not lines_left()
    assert agent.mcp_servers[1] is bad


async def test_to_give_up_while_it_is_connected_leaves_nothing(children: Children) -> None:
    children.write(SILENT)
    task = asyncio.ensure_future(connect(Agent(name="a", mcp_servers=[stdio(children)]), SECONDS))
    await until(lambda: children.pids)
    task.cancel()
    assert isinstance((await asyncio.gather(task, return_exceptions=True))[0], asyncio.CancelledError)
    assert not children.alive
    assert not lines_left()


async def test_to_close_one_that_is_just_given_up_does_not_interrupt_its_end(children: Children) -> None:
    children.write(SILENT)
    line = Line(stdio(children), 0.5)
    waiting = asyncio.ensure_future(line.ready())
    await until(lambda: line._given_up)
    await asyncio.gather(line.close(), line.close())
    with pytest.raises(Unconnected, match=r"did not answer within 0\.5 s"):
        await waiting
    assert not children.alive
    assert not lines_left()


async def test_one_that_does_not_end_holds_nobody_up_for_ever(
    children: Children, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(mcp_servers, "CLOSE_SECONDS", 0.05)
    own = Own()
    own.ends = asyncio.Event()
    held, servers = await held_by(Agent(name="a", mcp_servers=[own]))
    await servers.close()
    assert "has not ended 0.05 s after it was told to" in caplog.text
    own.ends.set()
    await until(lambda: not lines_left())
    assert held.line.tools == ()


async def test_one_of_the_official_package_over_pipes_and_over_http(tmp_path: Path, remote: OverHTTP) -> None:
    script = tmp_path / "server.py"
    script.write_text(LIBRARY)
    near = MCPServerStdio(
        {"command": sys.executable, "args": [str(script)]}, name="near", client_session_timeout_seconds=SECONDS
    )
    far = MCPServerStreamableHttp({"url": remote.url}, name="far", client_session_timeout_seconds=SECONDS)
    agent = Agent(name="a", mcp_servers=[near, far])
    servers = await connect(agent, SECONDS)
    assert text(await agent.mcp_servers[0].call_tool("add", {"a": 1, "b": 2})) == "3"
    assert text(await agent.mcp_servers[1].call_tool("shout", {"text": "hi"})) == "HI"
    remote.stop()
    with pytest.raises(Exception):  # noqa: B017  what it is depends on how the client hears of it
        await agent.mcp_servers[1].call_tool("shout", {"text": "hi"})
    remote.start()
    assert [tool.name for tool in await agent.mcp_servers[1].list_tools()] == ["shout"]
    assert text(await agent.mcp_servers[1].call_tool("shout", {"text": "again"})) == "AGAIN"
    await servers.close()
    assert not lines_left()


async def test_what_an_author_has_connected_himself_is_his(children: Children) -> None:
    server: Any = stdio(children)
    await server.connect()
    agent = Agent(name="a", mcp_servers=[server])
    servers = await connect(agent, SECONDS)
    assert agent.mcp_servers == [server]
    await servers.close()
    assert children.alive
    await server.cleanup()
