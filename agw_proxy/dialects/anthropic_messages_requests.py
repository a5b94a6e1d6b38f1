"""Requests of the Messages API, read; ``write_request`` writes them.

Anthropic API reference, "Messages" (``POST /v1/messages``) and "Count Message tokens" (the same without ``max_tokens``).
What the reference names and ``base.Request`` does not is kept in ``extra`` under its own name; members inside of others
under ``outer.name``.
"""

from typing import Any

from agw_proxy.dialects.anthropic_messages_asking import write_request
from agw_proxy.dialects.anthropic_messages_blocks import read_content
from agw_proxy.dialects.anthropic_messages_members import (
    branch,
    each_branch,
    flag,
    items,
    needed_branch,
    needed_words,
    path,
    required,
    rest,
    share,
    whole,
    words,
    wrong,
)
from agw_proxy.dialects.base import (
    Block,
    Format,
    Hosted,
    Malformed,
    Message,
    Reasoning,
    Request,
    Text,
    Tool,
    ToolChoice,
    ToolResult,
    Tree,
    Unthreadable,
)
from agw_proxy.dialects.efforts import effort_of

__all__ = ["read_request", "write_request"]

_KNOWN = frozenset({
    "model", "messages", "system", "tools", "tool_choice", "max_tokens", "temperature", "top_p", "top_k",
    "stop_sequences", "stream", "thinking", "output_config", "output_format", "metadata", "service_tier",
})  # fmt: skip
_TOOL = frozenset({"type", "name", "description", "input_schema", "strict", "cache_control"})
_MODES = {"auto": "auto", "any": "required", "none": "none", "tool": "one"}
_TIERS = {"auto": "auto", "standard_only": "default"}


def read_request(tree: Tree, *, counting: bool = False) -> Request:
    """A client's request. ``counting``: it is for ``/v1/messages/count_tokens``. Raises Malformed, Unthreadable."""
    if tree.get("thread") is not None:
        raise Unthreadable(
            "The model's upstream cannot hold a conversation: send all of it, without 'thread'.", "thread"
        )
    extra: Tree = {}
    rest(tree, _KNOWN, "", extra)
    model = needed_words(tree, "model", "")
    max_tokens = whole(tree, "max_tokens", "", 1)
    if max_tokens is None and not counting:
        required(None, "", "max_tokens")
    request = Request(
        model=model,
        messages=_system(tree, extra) + _messages(tree, extra),
        max_tokens=max_tokens,
        temperature=share(tree, "temperature", ""),
        top_p=share(tree, "top_p", ""),
        top_k=whole(tree, "top_k", ""),
        stop=_stop(tree),
        stream=flag(tree, "stream", "") or False,
        reasoning=_reasoning(tree, max_tokens, extra),
        format=_format(tree, extra),
        extra=extra,
    )
    _read_tools(tree, request)
    metadata = branch(tree, "metadata", "") or {}
    request.user = words(metadata, "user_id", "metadata")
    rest(metadata, frozenset({"user_id"}), "metadata", extra)
    tier = words(tree, "service_tier", "")
    if tier is not None:
        if tier not in _TIERS:
            raise wrong("", "service_tier", "auto or standard_only")
        request.service_tier = _TIERS[tier]
    return request


def _system(tree: Tree, extra: Tree) -> list[Message]:
    """The system prompt as a first message."""
    system = tree.get("system")
    if system is None:
        return []
    blocks = read_content(system, "system", extra)
    if not all(isinstance(block, Text) for block in blocks):
        raise wrong("", "system", "a string or a list of text blocks")
    return [Message("system", blocks)] if blocks else []


def _messages(tree: Tree, extra: Tree) -> list[Message]:
    found = []
    for where, message in each_branch(required(items(tree, "messages", ""), "", "messages"), "messages"):
        rest(message, frozenset({"role", "content"}), "messages", extra)
        role = needed_words(message, "role", where)
        inner = path(where, "content")
        blocks = read_content(required(message.get("content"), where, "content"), inner, extra)
        if role == "user":
            found.append(Message("user", _results_first(blocks)))
        elif role == "assistant":
            if any(isinstance(block, ToolResult) for block in blocks):
                raise Malformed(f"'{inner}': tool_result blocks stand in user messages only.", inner)
            found.append(Message("assistant", blocks))
        elif role == "system":
            found.append(Message("system", blocks))
        else:
            raise wrong(where, "role", "user, assistant or system")
    if not found:
        raise wrong("", "messages", "a list of at least one message")
    return found


def _results_first(blocks: list[Block]) -> list[Block]:
    return sorted(blocks, key=lambda block: not isinstance(block, ToolResult))


def _stop(tree: Tree) -> list[str]:
    found: list[str] = []
    for position, sequence in enumerate(items(tree, "stop_sequences", "") or []):
        if not isinstance(sequence, str):
            raise wrong("", f"stop_sequences[{position}]", "a string")
        found.append(sequence)
    return found


def _reasoning(tree: Tree, max_tokens: int | None, extra: Tree) -> Reasoning | None:
    """``thinking`` and ``output_config.effort`` together."""
    config = branch(tree, "output_config", "") or {}
    rest(config, frozenset({"effort", "format"}), "output_config", extra)
    effort = words(config, "effort", "output_config")
    thinking = branch(tree, "thinking", "")
    if thinking is None:
        return None if effort is None else Reasoning(effort=effort)
    rest(thinking, frozenset({"type", "budget_tokens", "display"}), "thinking", extra)
    kind = needed_words(thinking, "type", "thinking")
    # What is thought is shown unless the caller says otherwise: that is what clients of this API are made for.
    summary = None if words(thinking, "display", "thinking") == "omitted" else "auto"
    if kind == "disabled":
        return Reasoning(effort=effort, enabled=False)
    if kind == "adaptive":
        return Reasoning(effort=effort, summary=summary, enabled=True, adaptive=True)
    if kind == "between_tools":
        extra["thinking.between_tools"] = True
        return Reasoning(effort=effort, summary=summary)
    if kind != "enabled":
        raise wrong("thinking", "type", "enabled, disabled, adaptive or between_tools")
    budget: int = required(whole(thinking, "budget_tokens", "thinking", 1024), "thinking", "budget_tokens")
    if max_tokens is not None and budget >= max_tokens:
        raise wrong("thinking", "budget_tokens", "below max_tokens")
    return Reasoning(effort=effort or effort_of(budget), budget=budget, summary=summary, enabled=True)


def _format(tree: Tree, extra: Tree) -> Format | None:
    """``output_config.format``; also ``output_format``, its name in the API's earlier beta."""
    config = branch(tree, "output_config", "") or {}
    where, found = "output_config.format", branch(config, "format", "output_config")
    if found is None:
        where, found = "output_format", branch(tree, "output_format", "")
    if found is None:
        return None
    rest(found, frozenset({"type", "schema"}), where, extra)
    if needed_words(found, "type", where) != "json_schema":
        raise wrong(where, "type", "json_schema")
    return Format(schema=needed_branch(found, "schema", where), strict=True)


def _read_tools(tree: Tree, request: Request) -> None:
    for where, tool in each_branch(items(tree, "tools", "") or [], "tools"):
        kind = words(tool, "type", where)
        if kind not in (None, "custom"):
            request.hosted.append(Hosted(kind or "", "messages", tool))
            continue
        rest(tool, _TOOL, "tools", request.extra)
        request.tools.append(
            Tool(
                needed_words(tool, "name", where),
                words(tool, "description", where),
                needed_branch(tool, "input_schema", where),
                strict=flag(tool, "strict", where),
                cache=branch(tool, "cache_control", where),
            )
        )
    choice = branch(tree, "tool_choice", "")
    if choice is not None:
        request.tool_choice = _tool_choice(choice)
        serial = flag(choice, "disable_parallel_tool_use", "tool_choice")
        request.parallel = None if serial is None else not serial


def _tool_choice(choice: Tree) -> ToolChoice:
    kind = needed_words(choice, "type", "tool_choice")
    mode: Any = _MODES.get(kind)
    if mode is None:
        raise wrong("tool_choice", "type", "auto, any, tool or none")
    return ToolChoice(mode, needed_words(choice, "name", "tool_choice") if mode == "one" else None)
