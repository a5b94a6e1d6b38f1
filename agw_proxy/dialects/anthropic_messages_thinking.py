"""How a request asks an Anthropic model to think, and when it must not.

Anthropic documentation, "Extended thinking" (``enabled`` with a budget) and "Adaptive thinking" (with an effort). Thinking
is refused, so it is left out and told as a loss "reasoning", where
- a tool must be called (``tool_choice`` any or tool),
- the conversation ends with the model's own words (a prefill),
- ``max_tokens`` leaves no room for the least budget (by budget only),
- the model is amid a chain of tool calls whose first message has no thought of its own (by budget only).
"""

import msgspec

from agw_proxy.dialects.anthropic_messages_models import highest_effort, thinks_adaptively
from agw_proxy.dialects.anthropic_messages_writing import THOUGHTS
from agw_proxy.dialects.base import Losses, Reasoning, Tree
from agw_proxy.dialects.efforts import budget_of, effort_of

DEFAULT_MAX_TOKENS = 8192
"""For callers that set none, where Anthropic insists: the most that every current model can write."""
LEAST_BUDGET = 1024
EFFORTS = frozenset({"minimal", "low", "medium", "high", "xhigh", "max"})


class Thought(msgspec.Struct):
    """Members to write: ``thinking``, ``output_config.effort``, ``max_tokens``. ``on``: the model will think."""

    max_tokens: int
    thinking: Tree | None = None
    effort: str | None = None
    on: bool = False


def thought(
    reasoning: Reasoning | None,
    model: str,
    max_tokens: int | None,
    messages: list[Tree],
    *,
    forced: bool,
    losses: Losses,
) -> Thought:
    """What to write. ``messages``: as they will be sent. ``forced``: a tool must be called."""
    bound = DEFAULT_MAX_TOKENS if max_tokens is None else max_tokens
    if reasoning is None:
        return Thought(bound)
    if reasoning.enabled is False or reasoning.effort == "none":
        return Thought(bound, {"type": "disabled"})
    adaptive = thinks_adaptively(model)
    effort = reasoning.effort if reasoning.effort in EFFORTS else None
    wanted = reasoning.enabled or reasoning.adaptive or effort is not None or reasoning.budget is not None
    if not wanted:
        return Thought(bound)
    if forced or (messages and messages[-1]["role"] == "assistant"):
        losses.of("reasoning")
        return Thought(bound)
    if adaptive:
        if effort is None and reasoning.budget is not None:
            effort = effort_of(reasoning.budget)
        thinking: Tree = {"type": "adaptive"}
        if reasoning.summary is not None:
            thinking["display"] = "summarized"  # newer models leave the words out unless asked
        return Thought(bound, thinking, highest_effort(model, effort) if effort is not None else None, on=True)
    return _by_budget(reasoning, effort, max_tokens, messages, losses)


def _by_budget(
    reasoning: Reasoning, effort: str | None, max_tokens: int | None, messages: list[Tree], losses: Losses
) -> Thought:
    budget, bound = reasoning.budget, max_tokens
    if bound is None:
        budget = max(budget or budget_of(effort), LEAST_BUDGET)
        bound = DEFAULT_MAX_TOKENS + budget  # the bound counts thoughts too, the answer keeps its room
    elif budget is None:
        budget = min(budget_of(effort), bound // 2)
    else:
        budget = min(budget, bound - 1)
    if budget < LEAST_BUDGET or not chain_begins_with_thought(messages):
        losses.of("reasoning")
        return Thought(DEFAULT_MAX_TOKENS if max_tokens is None else max_tokens)
    return Thought(bound, {"type": "enabled", "budget_tokens": budget}, on=True)


def chain_begins_with_thought(messages: list[Tree]) -> bool:
    """The last messages are no results of tools, or the model's turn that asked for them begins with its signed thought."""
    first: Tree | None = None
    at = len(messages) - 1
    while at > 0 and messages[at]["role"] == "user" and _has_results(messages[at]):
        first = messages[at - 1]
        at -= 2
    if first is None:
        return True
    content = first["content"]
    return isinstance(content, list) and bool(content) and content[0]["type"] in THOUGHTS


def _has_results(message: Tree) -> bool:
    content = message["content"]
    return isinstance(content, list) and any(block["type"] == "tool_result" for block in content)
