"""What answers and streams of Responses have in common: the Response object, its items and its usage.

OpenAI API reference, Responses, "The response object". It repeats most of the request, and the official clients insist on it.
"""

from typing import NamedTuple

from agw_proxy.dialects import openai_responses_signatures as signatures
from agw_proxy.dialects.base import Answer, Finish, Request, Shown, Stop, Thinking, Tokens, Tool, ToolUse, Tree
from agw_proxy.dialects.openai_responses_history import instructions_of
from agw_proxy.dialects.openai_responses_requests import (
    EFFORTS,
    SUMMARIES,
    TIERS,
    VERBOSITIES,
    effort_of,
    format_tree,
    is_metadata,
)
from agw_proxy.dialects.openai_responses_tools import inner_name, write_choice, write_tools


class Called(NamedTuple):
    """How a call of a tool is shown to whoever has offered the tool. ``wrapped``: its input came packed in JSON arguments."""

    name: str
    namespace: str | None
    custom: bool
    wrapped: bool


def tools_of(shown: Shown) -> dict[str, Tool]:
    """What the caller has offered, by name."""
    return {tool.name: tool for tool in shown.request.tools} if shown.request is not None else {}


def called(use: ToolUse, tools: dict[str, Tool]) -> Called:
    """Names a call as its tool was named in the request."""
    tool = tools.get(use.name)
    namespace = use.namespace or (tool.namespace if tool is not None else None)
    offered_custom = tool is not None and tool.schema is None
    return Called(
        name=use.name if namespace is None else inner_name(namespace, use.name),
        namespace=namespace,
        custom=use.custom or offered_custom,
        wrapped=offered_custom and not use.custom,
    )


def response_id(given: str, shown: Shown) -> str:
    """The upstream's own, where it is one of Responses."""
    return given if given.startswith("resp_") else f"resp_{shown.id}"


def response_tree(answer_id: str, shown: Shown) -> Tree:
    """A Response that has just begun, with all that it repeats."""
    asked = shown.request if shown.request is not None else Request(model=shown.model, messages=[])
    extra = asked.extra
    reasoning = asked.reasoning
    conversation = extra.get("conversation")
    previous = extra.get("previous_response_id")
    effort = effort_of(reasoning) if reasoning is not None else None
    summary = reasoning.summary if reasoning is not None else None
    return {
        "id": response_id(answer_id, shown),
        "object": "response",
        "created_at": shown.now,
        "status": "in_progress",
        "background": False,
        "completed_at": None,
        "conversation": {"id": conversation} if isinstance(conversation, str) else conversation,
        "error": None,
        "incomplete_details": None,
        "instructions": instructions_of(asked.messages),
        "max_output_tokens": asked.max_tokens,
        "max_tool_calls": extra.get("max_tool_calls"),
        "metadata": asked.metadata if asked.metadata is not None and is_metadata(asked.metadata) else {},
        "model": shown.model,
        "output": [],
        "parallel_tool_calls": asked.parallel is not False,
        "previous_response_id": previous if isinstance(previous, str) else None,
        "prompt_cache_key": extra.get("prompt_cache_key"),
        "reasoning": {
            "effort": effort if effort in EFFORTS else None,
            "summary": summary if summary in SUMMARIES else None,
        },
        "safety_identifier": extra.get("safety_identifier"),
        "service_tier": asked.service_tier if asked.service_tier in TIERS else "auto",
        "store": bool(asked.store),
        "temperature": 1.0 if asked.temperature is None else asked.temperature,
        "text": {
            "format": {"type": "text"} if asked.format is None else format_tree(asked.format),
            "verbosity": asked.verbosity if asked.verbosity in VERBOSITIES else "medium",
        },
        "tool_choice": _choice(asked),
        "tools": [*write_tools(asked), *(each.tree for each in asked.hosted if each.spoken == "responses")],
        "top_logprobs": asked.logprobs or 0,
        "top_p": 1.0 if asked.top_p is None else asked.top_p,
        "truncation": "auto" if extra.get("truncation") == "auto" else "disabled",
        "usage": None,
        "user": asked.user,
        **shown.told,
    }


def _choice(asked: Request) -> str | Tree:
    if asked.tool_choice is not None:
        return write_choice(asked.tool_choice, asked.tools)
    hosted = asked.extra.get("tool_choice")
    return hosted if isinstance(hosted, dict) else "auto"


def finish(response: Tree, output: list[Tree], ended: Answer | Finish, shown: Shown, *, refused: bool) -> None:
    """Bring a Response to its end. ``refused``: the answer holds the model's own words of refusal."""
    cut = cut_by(ended.stop, refused=refused)
    response["status"] = "completed"
    if cut is not None:
        response["status"], response["incomplete_details"] = "incomplete", {"reason": cut}
    response["output"] = output
    response["usage"] = usage_tree(ended.tokens)
    if response["status"] == "completed" and shown.clock is not None:
        response["completed_at"] = max(int(shown.clock()), shown.now)
    # What the upstream says of the tier that it served in counts more than what was asked for.
    if ended.service_tier in TIERS:
        response["service_tier"] = ended.service_tier


def cut_by(stop: Stop, *, refused: bool) -> str | None:
    """What cut an answer short, as ``incomplete_details`` has it; its last item is incomplete then. None: it is whole."""
    if stop == "length":
        return "max_output_tokens"
    return "content_filter" if stop == "refusal" and not refused else None


def usage_tree(tokens: Tokens) -> Tree:
    """``usage``: what is not known is 0, since clients insist on the numbers."""
    given, made = tokens.given, max(0, tokens.output)
    return {
        "input_tokens": given,
        "input_tokens_details": {"cached_tokens": tokens.cached, "cache_write_tokens": tokens.written},
        "output_tokens": made,
        "output_tokens_details": {"reasoning_tokens": tokens.reasoning},
        "total_tokens": given + made,
    }


def tokens_of(usage: object) -> Tokens:
    """Read ``usage``, or as much of it as is there."""
    if not isinstance(usage, dict):
        return Tokens()
    details, made = usage.get("input_tokens_details"), usage.get("output_tokens_details")
    return Tokens(
        input=_count(usage, "input_tokens", -1),
        output=_count(usage, "output_tokens", -1),
        cached=_count(details, "cached_tokens", 0),
        written=_count(details, "cache_write_tokens", 0),
        reasoning=_count(made, "reasoning_tokens", 0),
    )


def _count(tree: object, name: str, absent: int) -> int:
    found = tree.get(name) if isinstance(tree, dict) else None
    return found if type(found) is int and found >= 0 else absent


def stop_of(tree: Tree, *, calls: bool, refused: bool) -> Stop:
    """Why a Response ended that is ``completed`` or ``incomplete``. ``calls``, ``refused``: what its output holds."""
    if tree.get("status") == "incomplete":
        details = tree.get("incomplete_details")
        reason = details.get("reason") if isinstance(details, dict) else None
        return {"content_filter": "refusal", "steered": "pause"}.get(str(reason), "length")  # type: ignore[return-value]
    if calls:
        return "tool"
    return "refusal" if refused else "stop"


def call_tree(use: ToolUse, shape: Called, item_id: str, content: str, status: str) -> Tree:
    """``content``: the arguments, or a custom tool's plain input."""
    made: Tree = {
        "id": item_id,
        "type": "custom_tool_call" if shape.custom else "function_call",
        "status": status,
        "call_id": use.id or f"call_{item_id}",
        "name": shape.name,
        "input" if shape.custom else "arguments": content,
    }
    if shape.namespace is not None:
        made["namespace"] = shape.namespace
    return made


def reasoning_tree(block: Thinking, item_id: str) -> Tree:
    """``item_id``: where the item has none of OpenAI's."""
    own_id, encrypted = (None, None) if block.signature is None else signatures.given(block.signature)
    if own_id is None and block.id is not None and block.id.startswith(signatures.ITEM_PREFIX):
        own_id = block.id
    made: Tree = {
        "id": own_id or item_id,
        "type": "reasoning",
        "summary": [{"type": "summary_text", "text": block.text}] if block.text else [],
    }
    if encrypted is not None:
        made["encrypted_content"] = encrypted
    return made


def attached_tree(signature: str, item_id: str) -> Tree:
    """The item that carries the signature of words or of a call, see ``openai_responses_signatures``."""
    return {"id": item_id, "type": "reasoning", "summary": [], "encrypted_content": signatures.attached(signature)}


def logprobs_tree(logprobs: list[Tree] | None) -> list[Tree]:
    """Chat's logprobs as Responses has them: the bytes are always there."""
    made = []
    for each in logprobs or ():
        entry = _token(each)
        if entry is not None:
            top = each.get("top_logprobs")
            others = [_token(other) for other in top] if isinstance(top, list) else []
            entry["top_logprobs"] = [other for other in others if other is not None]
            made.append(entry)
    return made


def _token(each: object) -> Tree | None:
    if not isinstance(each, dict):
        return None
    token, logprob, raw = each.get("token"), each.get("logprob"), each.get("bytes")
    if not isinstance(token, str) or not isinstance(logprob, int | float):
        return None
    return {"token": token, "bytes": raw if isinstance(raw, list) else list(token.encode()), "logprob": logprob}
