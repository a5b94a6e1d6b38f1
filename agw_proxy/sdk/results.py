"""What the SDK gives at a run's end, as items and as words."""

from typing import Any

import orjson
from agents import Agent, RunResult, RunResultStreaming
from pydantic import BaseModel

from agw_proxy.dialects.base import Tree
from agw_proxy.sdk.equipped import known

Outcome = RunResult | RunResultStreaming


def done(result: Outcome, call_ids: frozenset[str]) -> list[Tree]:
    """The agent's own calls and their results, as input items, but for the caller's ``call_ids``; without ids of a provider's."""
    found: list[Tree] = []
    for item in result.new_items:
        if item.type in {"tool_call_item", "tool_call_output_item", "handoff_call_item", "handoff_output_item"}:
            tree: Any = item.to_input_item()
            if tree.get("call_id") not in call_ids:
                found.append({name: value for name, value in tree.items() if name not in {"id", "status"}})
    return found


def items_of(result: Outcome) -> list[Tree]:
    """All items of a run, as input for the next one."""
    made: list[Any] = [item.to_input_item() for item in result.new_items if item.type != "tool_approval_item"]
    return made


def named(name: str | None, agent: Agent[Any]) -> Agent[Any] | None:
    """The agent of that name among those that this one knows, as they are now; None: there is none."""
    return next((each for each in known(agent) if each.name == name), None) if name is not None else None


def member(raw: Any, name: str) -> Any:
    """Of an item that is one of the OpenAI client's, or a dict; None: it has none."""
    return raw.get(name) if isinstance(raw, dict) else getattr(raw, name, None)


def text_of(output: object) -> str:
    """A final output as words: JSON where it is no string."""
    if isinstance(output, str):
        return output
    if isinstance(output, BaseModel):
        return output.model_dump_json()
    try:
        return orjson.dumps(output).decode()
    except TypeError:
        return str(output)


def dumped(found: Any) -> Any:
    """A pydantic model as JSON's types; made by hand, some are not quite of their types."""
    return found.model_dump(mode="json", exclude_none=True, warnings=False) if hasattr(found, "model_dump") else found
