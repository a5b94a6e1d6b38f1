"""An MCP server with one tool; the agent beside it starts it as a child that speaks over standard input and output."""

from datetime import UTC, datetime, timedelta

from mcp.server.mcpserver import MCPServer

server = MCPServer("clock")


@server.tool()
def time_in(offset_hours: int) -> str:
    """Tell the time at so many hours from UTC."""
    return (datetime.now(UTC) + timedelta(hours=offset_hours)).strftime("%H:%M")


if __name__ == "__main__":
    server.run("stdio")
