"""MCP servers of an author's own: entered and left by one task, and told of without a secret."""

import asyncio

import anyio
import pytest
from agents import Agent
from agents.exceptions import UserError
from mcp.shared.exceptions import MCPError

from agw_proxy.sdk import mcp_servers
from agw_proxy.sdk.entry import CURRENT, Run, Unconnected
from agw_proxy.sdk.mcp_servers import connect, is_lost, shown, words
from agw_proxy.spans import Tracer, enter
from tests.sdk.own_server import Own
from tests.sdk.test_mcp_servers import TRACE, held_by, lines_left
from tests.support.mcp_servers import SECONDS
from tests.test_spans import Kept


async def test_one_task_connects_and_closes_it_whoever_asks(caplog: pytest.LogCaptureFixture) -> None:
    own = Own()
    enter(Tracer(Kept()).begin("refresh", "server", None))
    held, servers = await held_by(Agent(name="a", mcp_servers=[own]))
    assert own.spans == [None], "it is not part of the request that has made it be loaded"
    assert held.line.name == "http://own.example/mcp"
    assert (await held.list_prompts(), await held.get_prompt("p"), await held.read_resource("r")) == (
        "prompts",
        "p",
        "r",
    )
    assert (await held.list_resources("1"), await held.list_resource_templates("2")) == ("1", "2")
    assert held.use_structured_content is False
    assert held.cached_tools is None
    token = CURRENT.set(Run("req_1", None, "default/a", trace=TRACE))
    for _ in range(2):
        with pytest.raises(UserError):
            await held.call_tool("any", {})
    CURRENT.reset(token)
    own.breaks = True
    with pytest.raises(Unconnected, match="cannot be reached: ConnectionResetError: gone"):
        await held.list_tools()
    await servers.close()
    assert len(set(map(id, own.tasks))) == 1
    assert "did not end as it should: RuntimeError: of its own" in caplog.text
    assert "secret" not in caplog.text


async def test_one_whose_connection_is_lost_as_it_is_asked_for_a_sign_of_life_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Silent(Own):
        session: object = None

        async def send_ping(self) -> None:
            raise MCPError(-32000, "Connection closed")

        async def call_tool(self, tool_name: str, arguments: object) -> object:  # type: ignore[override]  # as it was once
            raise TimeoutError

    monkeypatch.setattr(mcp_servers, "PING_SECONDS", 3600.0)
    own = Silent()
    held, servers = await held_by(Agent(name="a", mcp_servers=[own]))
    own.session = own
    async with asyncio.timeout(SECONDS):
        with pytest.raises(TimeoutError):
            await held.call_tool("any", {})
        await held.list_tools()
    assert held.line.number == 2
    await servers.close()


async def test_one_that_asks_for_the_end_of_the_process_fails_like_any_other() -> None:
    own = Own()
    own.quits = True
    with pytest.raises(Unconnected, match="cannot be reached: SystemExit: 3"):
        await connect(Agent(name="a", mcp_servers=[own]), SECONDS)
    assert not lines_left()


def test_what_is_told_holds_no_secret_of_an_address() -> None:
    assert shown("at 'https://me:pw@host/p?key=1' or http://a/b#c") == "at 'https://host/p' or http://a/b"
    assert words(BaseExceptionGroup("", [ValueError("x"), ValueError("y")])) == "ValueError: x"
    assert words(UserError("as it is")) == "as it is"
    assert words(OSError()) == "OSError: it gave no reason"


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (MCPError(-32000, "Connection closed"), True),
        (MCPError(-32600, "Session terminated"), True),
        (MCPError(-32000, "out of stock"), False),
        (MCPError(-32602, "no such session"), False),
        (anyio.ClosedResourceError(), True),
        (TimeoutError(), False),
        (UserError("Failed: Connection lost. The server may have disconnected."), True),
        (UserError("missing required parameters"), False),
    ],
)
def test_what_says_that_a_connection_is_lost(error: Exception, lost: bool) -> None:
    assert is_lost(error) is lost
