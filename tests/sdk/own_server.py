"""An MCP server of an author's own."""

import asyncio
from typing import Any

import anyio
from agents.exceptions import UserError
from agents.mcp import MCPServer

from agw_proxy import spans


class Own(MCPServer):
    """A server of an author's own: what it holds has to be left by the task that has entered it."""

    def __init__(self) -> None:
        super().__init__()
        self.scope: anyio.CancelScope | None = None
        self.tasks: list[object] = []
        self.breaks = False
        self.quits = False
        self.ends: asyncio.Event | None = None
        self.there: list[Any] = []
        self.spans: list[object] = []

    @property
    def name(self) -> str:
        return "http://user:secret@own.example/mcp?token=secret"

    async def connect(self) -> None:
        self.spans.append(spans.CURRENT.get())
        if self.quits:
            raise SystemExit(3)
        self.scope = anyio.CancelScope().__enter__()
        self.tasks.append(asyncio.current_task())

    async def cleanup(self) -> None:
        self.tasks.append(asyncio.current_task())
        if self.ends is not None:
            await self.ends.wait()
        if self.scope is not None:
            self.scope.__exit__(None, None, None)
            self.scope = None
        if self.breaks:
            raise BaseExceptionGroup("odd", [RuntimeError("of its own")])

    async def list_tools(self, run_context: Any = None, agent: Any = None) -> list[Any]:
        if self.breaks:
            raise ConnectionResetError("gone")
        return self.there

    async def call_tool(self, tool_name: str, arguments: Any) -> Any:  # type: ignore[override]  # as it was once
        raise UserError("Server not initialized. Make sure you call `connect()` first.")

    async def list_prompts(self) -> Any:
        return "prompts"

    async def get_prompt(self, name: str, arguments: Any = None) -> Any:
        return name

    async def list_resources(self, cursor: str | None = None) -> Any:
        return cursor

    async def list_resource_templates(self, cursor: str | None = None) -> Any:
        return cursor

    async def read_resource(self, uri: str) -> Any:
        return uri
