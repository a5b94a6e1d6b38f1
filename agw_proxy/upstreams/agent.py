"""Agents as an upstream that speaks Responses, in this process."""

import secrets
import time
from collections.abc import Callable

import orjson

from agw_proxy._hot.route import Target
from agw_proxy.config.values import Dialect
from agw_proxy.errors import ModelNotFound
from agw_proxy.sdk.entry import Entry
from agw_proxy.types import Call, RawHeaders


class Agents:
    """The upstream ``agents``: one answer, whole."""

    name: str = "agents"
    dialect: Dialect = "openai"

    def __init__(self, find: Callable[[str], Entry | None]) -> None:
        """``find``: the agent of an id, as it is served now."""
        self._find = find

    async def open(self, target: Target, call: Call) -> "AgentReply":
        """Run the agent that the target names. Raises ModelNotFound."""
        from agents import RunConfig, Runner  # noqa: PLC0415  there is an agent, so that it is there

        entry = self._find(target.model)
        if entry is None or not isinstance(call.body, bytes):
            raise ModelNotFound(f"There is no agent '{target.model}' any more.")
        asked = orjson.loads(call.body)
        result = await Runner.run(entry.agent, asked["input"], run_config=RunConfig(tracing_disabled=True))
        text = {"type": "output_text", "text": str(result.final_output), "annotations": []}
        message = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [text]}
        return AgentReply(
            orjson.dumps(
                {
                    "id": f"resp_{secrets.token_hex(16)}",
                    "object": "response",
                    "created_at": int(time.time()),
                    "status": "completed",
                    "model": asked["model"],
                    "output": [message],
                    "usage": {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2},
                }
            )
        )

    async def close(self) -> None:
        """Nothing is open."""


class AgentReply:
    """A Reply of one piece."""

    status: int = 200
    headers: RawHeaders = ((b"content-type", b"application/json"),)
    connect_ms: float = 0.0
    began_ns: int = 0

    def __init__(self, body: bytes) -> None:
        """``body``: JSON."""
        self._body = body
        self.ended = False

    async def read(self, *, progress: bool = True) -> bytes:  # noqa: ARG002  nothing here is silent
        """All of it at once; b"" then."""
        body, self._body, self.ended = self._body, b"", True
        return body

    def close(self) -> None:
        """Nothing is open."""
