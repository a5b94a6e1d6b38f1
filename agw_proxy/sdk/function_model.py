"""A model that is a function: for examples that run offline, and for tests of agents that are to come out alike each time."""

import json
import re
import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
import orjson
from agents import Model, ModelResponse, Usage
from agents.items import TResponseOutputItem
from agents.testing import ModelCall, ModelStep, ScriptedModel, assistant_message, function_call
from pydantic import BaseModel

HANDED = re.compile(r'\{"assistant": ".*"\}')
"""What the SDK says in place of a tool's result when one agent has handed over to another."""
CHARACTERS_A_TOKEN = 4
"""What usage is told by."""


class ToolCall(msgspec.Struct, frozen=True):
    """One that the model wants."""

    name: str
    arguments: dict[str, Any]


Said = str | ToolCall | BaseModel | dict[str, Any]
"""Words, a call of a tool, or structured output."""
Answer = Said | Sequence[Said]


class Turn:
    """What a model is asked, as far as such a function wants to know it."""

    def __init__(self, call: ModelCall) -> None:
        """``call``: as the SDK makes it."""
        self.call = call
        self.said = ""
        """The user's last words."""
        self.before: list[str] = []
        """The user's words before, the oldest first."""
        self.results: list[str] = []
        """What tools have given since the user's last words."""
        items: Any = call.input if isinstance(call.input, list) else [{"role": "user", "content": call.input}]
        for item in items:
            if item.get("role") == "user":
                self.before.append(_text(item.get("content")))
                self.results = []
            elif item.get("type") == "function_call_output":
                output = _text(item.get("output"))
                if HANDED.fullmatch(output) is None:
                    self.results.append(output)
        if self.before:
            self.said = self.before.pop()

    @property
    def instructions(self) -> str:
        """The agent's."""
        return self.call.system_instructions or ""

    @property
    def tools(self) -> list[str]:
        """The names of the tools that may be called."""
        return [tool.name for tool in self.call.tools]

    def use(self, tool: str, /, **arguments: Any) -> ToolCall:
        """A call of a tool."""
        return ToolCall(tool, arguments)

    def hand_to(self, agent: str) -> ToolCall:
        """Hand over to the agent of that name. Raises ValueError where this one does not know it."""
        for handoff in self.call.handoffs:
            if handoff.agent_name == agent:
                return ToolCall(handoff.tool_name, {})
        known = ", ".join(handoff.agent_name for handoff in self.call.handoffs) or "nobody"
        raise ValueError(f"expected an agent to hand over to ({known}), got {agent!r}")


class FunctionModel(Model):
    """A model for ``Agent(model=...)`` that answers what a function of a ``Turn`` gives."""

    def __init__(self, answer: Callable[[Turn], Answer | Awaitable[Answer]]) -> None:
        """``answer``: ``async`` or not; what it raises is the model's error. Called once for each call of the model."""
        self._answer = answer

    async def get_response(  # noqa: D102  see the SDK
        self, *args: Any, **named: Any
    ) -> ModelResponse:
        return await self._once().get_response(*args, **named)

    def stream_response(self, *args: Any, **named: Any) -> Any:  # noqa: D102  see the SDK
        return self._once().stream_response(*args, **named)

    def _once(self) -> ScriptedModel:
        return ScriptedModel([ModelStep.respond(self._respond)], emit_traces=True)

    async def _respond(self, call: ModelCall) -> ModelStep:
        answer = self._answer(Turn(call))
        if isinstance(answer, Awaitable):
            answer = await answer
        parts = answer if isinstance(answer, Sequence) and not isinstance(answer, str) else [answer]
        output = [_item(part) for part in parts]
        asked = len(call.system_instructions or "") + len(json.dumps(call.input, default=str))
        said = sum(len(part if isinstance(part, str) else repr(part)) for part in parts)
        given, made = asked // CHARACTERS_A_TOKEN + 1, said // CHARACTERS_A_TOKEN + 1
        usage = Usage(requests=1, input_tokens=given, output_tokens=made, total_tokens=given + made)
        return ModelStep(output, usage)


def _item(part: Said) -> TResponseOutputItem:
    if isinstance(part, ToolCall):
        return function_call(part.name, part.arguments, call_id=f"call_{secrets.token_hex(8)}")
    if isinstance(part, BaseModel):
        return assistant_message(part.model_dump_json())
    if part is None:
        raise TypeError("expected words, a call of a tool or structured output from the model's function, got None")
    return assistant_message(part if isinstance(part, str) else orjson.dumps(part).decode())


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return " ".join(str(part["text"]) for part in parts if isinstance(part, dict) and "text" in part)


__all__ = ["Answer", "FunctionModel", "ToolCall", "Turn"]
