"""Real MCP servers for tests: children that speak over their pipes, and one that serves streamable HTTP from a thread."""

import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import uvicorn
from mcp.server.mcpserver import MCPServer

SECONDS = 60.0
"""Of whatever a test waits for: machines may be slow."""

PLAIN = """\
import json, os, pathlib, sys

NOTES = pathlib.Path(sys.argv[1])
with NOTES.open("a") as opened:
    opened.write(f"{os.getpid()}\\n")
TOOLS = [
    {"name": name, "description": name, "inputSchema": {"type": "object", "properties": {"text": {"type": "string"}}}}
    for name in ("echo", "end", "wait", "meta")
]

def answered(method, params):
    if method == "initialize":
        told = {"protocolVersion": params["protocolVersion"], "capabilities": {"tools": {}}}
        return {**told, "serverInfo": {"name": "plain", "version": "1"}}
    if method == "tools/list":
        return {"tools": TOOLS}
    if method == "tools/call":
        name, given = params["name"], params.get("arguments") or {}
        if name == "end":
            os._exit(3)
        if name == "wait":
            NOTES.with_suffix(".waits").touch()
            return None
        said = json.dumps(params.get("_meta")) if name == "meta" else given.get("text", "")
        return {"content": [{"type": "text", "text": said}]}
    return {} if method == "ping" else None

for line in sys.stdin:
    asked = json.loads(line)
    if "id" not in asked or "method" not in asked:
        continue
    result = answered(asked["method"], asked.get("params") or {})
    reply = {"jsonrpc": "2.0", "id": asked["id"]}
    if result is not None:
        reply["result"] = result
    elif asked["method"] == "tools/call":
        continue
    else:
        reply["error"] = {"code": -32601, "message": "Method not found"}
    print(json.dumps(reply), flush=True)
"""
"""A server that begins at once, since it needs no package: what it notes is the process of each beginning."""

LIBRARY = """\
from mcp.server.mcpserver import MCPServer

server = MCPServer("library")

@server.tool()
def add(a: int, b: int) -> int:
    "Add two numbers."
    return a + b

server.run("stdio")
"""
"""One of the official package."""


class Children:
    """What a server has noted of its processes."""

    def __init__(self, folder: Path) -> None:
        self.notes = folder / "processes"
        self.script = folder / "server.py"
        self.write()

    def write(self, source: str = PLAIN) -> None:
        """What it is from its next beginning on."""
        self.script.write_text(source)

    @property
    def params(self) -> dict[str, object]:
        """Of ``MCPServerStdio``."""
        return {"command": sys.executable, "args": ["-I", str(self.script), str(self.notes)]}

    @property
    def source(self) -> str:
        """Of an expression that makes the SDK's server, within a module of an agent's."""
        return f'MCPServerStdio({self.params!r}, name="plain", client_session_timeout_seconds={SECONDS})'

    @property
    def agent(self) -> str:
        """The module of an agent that has it."""
        return (
            "from agents import Agent\nfrom agents.mcp import MCPServerStdio\n"
            f"agent = Agent('asks', mcp_servers=[{self.source}])\n"
        )

    @property
    def pids(self) -> list[int]:
        return [int(line) for line in self.notes.read_text().split()] if self.notes.exists() else []

    @property
    def alive(self) -> list[int]:
        return [pid for pid in self.pids if _is_alive(pid)]

    @property
    def waits(self) -> bool:
        """Somebody has asked it for what never comes."""
        return self.notes.with_suffix(".waits").exists()


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


class OverHTTP:
    """A server of the official package at a port of its own, which can be ended and begun again there."""

    def __init__(self) -> None:
        self.port = 0
        self._stop: Callable[[], None] = lambda: None
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/mcp"

    def start(self) -> None:
        made = MCPServer("remote", log_level="CRITICAL")

        @made.tool()
        def shout(text: str) -> str:
            """Say it louder."""
            return text.upper()

        app = made.streamable_http_app()
        config = uvicorn.Config(app, host="127.0.0.1", port=self.port, log_level="critical", ws="none")
        server = uvicorn.Server(config)
        server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]  # of older versions
        thread = threading.Thread(target=server.run, name="mcp over http", daemon=True)
        thread.start()
        deadline = time.monotonic() + SECONDS
        while not server.started:
            assert thread.is_alive()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        self.port = server.servers[0].sockets[0].getsockname()[1]

        def stop() -> None:
            server.force_exit = server.should_exit = True
            thread.join(SECONDS)
            assert not thread.is_alive()

        self._stop = stop

    def stop(self) -> None:
        """It answers no more."""
        self._stop()
