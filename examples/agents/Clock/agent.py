"""Tools of an MCP server: the gateway starts it, connects, and ends it with the agent.

    agw agents run clock "What time is it at +2?"

Runs offline; EXAMPLE_MODEL=fast takes a model of the gateway.
"""

import os
import re
import sys
from pathlib import Path

from agents import Agent
from agents.mcp import MCPServerStdio

from agw_proxy.sdk.function_model import Answer, FunctionModel, Turn


def reads(turn: Turn) -> Answer:
    """Ask the server's tool, and tell what it gave."""
    offset = int(found[0]) if (found := re.search(r"[+-]\d+", turn.said)) else 0
    return f"It is {turn.results[-1]}." if turn.results else turn.use("time_in", offset_hours=offset)


agent = Agent(
    name="Clock",
    instructions="Tell the time where you are asked for it. Use your tool.",
    model=os.environ.get("EXAMPLE_MODEL") or FunctionModel(reads),
    mcp_servers=[MCPServerStdio({"command": sys.executable, "args": [str(Path(__file__).parent / "server.py")]})],
)
