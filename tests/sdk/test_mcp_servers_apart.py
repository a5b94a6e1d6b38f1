"""MCP servers that are asked from another loop than the one that they were connected on: a test's, or a thread's."""

import asyncio
from pathlib import Path

import pytest
from agents import Agent

from agw_proxy.sdk.entry import Unconnected
from agw_proxy.sdk.mcp_servers import Held
from tests.sdk.test_mcp_servers import held_by, stdio, text, until
from tests.support.mcp_servers import Children


@pytest.fixture
def children(tmp_path: Path) -> Children:
    return Children(tmp_path)


async def test_one_may_be_asked_from_another_loop(children: Children) -> None:
    held, servers = await held_by(Agent(name="a", mcp_servers=[stdio(children)]))

    async def elsewhere() -> str:
        await held.connect()
        listed = [tool.name for tool in await held.list_tools()]
        return f"{listed[0]} {text(await held.call_tool('echo', {'text': 'hi'}))}"

    async def given_up() -> None:
        running = asyncio.ensure_future(held.call_tool("wait", {}))
        await until(lambda: children.waits)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    assert await asyncio.to_thread(lambda: asyncio.run(elsewhere())) == "echo hi"
    await asyncio.to_thread(lambda: asyncio.run(given_up()))
    assert text(await held.call_tool("echo", {"text": "here"})) == "here"
    await servers.close()


def test_one_whose_loop_has_ended_says_so(children: Children) -> None:
    async def made() -> Held:
        held, servers = await held_by(Agent(name="a", mcp_servers=[stdio(children)]))
        await servers.close()
        return held

    held = asyncio.run(made())
    with pytest.raises(Unconnected, match="not used any more"):
        asyncio.run(held.call_tool("echo", {}))
