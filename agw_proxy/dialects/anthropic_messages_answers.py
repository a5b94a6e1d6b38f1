"""Answers and errors of the Messages API: whole messages, counts of tokens, error bodies.

Anthropic API reference, "Messages" (the Message object), "Count Message tokens" and "Errors".
"""

from typing import Any

import orjson

from agw_proxy.dialects.anthropic_messages_blocks import carrier, read_block
from agw_proxy.dialects.anthropic_messages_members import (
    branch,
    each_branch,
    items,
    required,
    words,
)
from agw_proxy.dialects.anthropic_messages_writing import input_of
from agw_proxy.dialects.base import (
    SEAL,
    Answer,
    Block,
    Fault,
    Malformed,
    Refusal,
    Shown,
    Stop,
    Text,
    Thinking,
    Tokens,
    ToolUse,
    Tree,
    unsealed,
)
from agw_proxy.dialects.custom_tools import arguments_of

MAX_SHOWN_LETTERS = 2000  # of an error body that is no JSON: a page of HTML helps nobody
STOPS: dict[str, Stop] = {
    "end_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool",
    "stop_sequence": "sequence",
    "refusal": "refusal",
    "pause_turn": "pause",
}
REASONS: dict[Stop, str] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool": "tool_use",
    "sequence": "stop_sequence",
    "refusal": "refusal",
    "pause": "pause_turn",
}
KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_OTHERS = {
    "invalid_api_key": "authentication_error",
    "insufficient_quota": "billing_error",
    "rate_limit_exceeded": "rate_limit_error",
    "tokens": "rate_limit_error",
    "requests": "rate_limit_error",
    "server_error": "api_error",
    "timeout": "timeout_error",
}
"""Words of other providers. What stands nowhere is ``api_error``."""
_TIERS = {"standard": "standard", "default": "standard", "priority": "priority", "batch": "batch"}


def read_answer(tree: Tree) -> Answer:
    """An upstream's message. Blocks that nothing here can say (a server tool's) are left out. Raises Malformed."""
    blocks: list[Block] = []
    for where, block in each_branch(required(items(tree, "content", ""), "", "content"), "content"):
        read = read_block(block, where, {})
        if isinstance(read, Text | Thinking | ToolUse):
            blocks.append(read)
    reason = words(tree, "stop_reason", "")
    called = any(isinstance(block, ToolUse) for block in blocks)
    usage = branch(tree, "usage", "") or {}
    stop = STOPS.get(reason or "", "tool" if called else "stop")
    declined = explanation_of(tree) if stop == "refusal" else ""
    if declined:
        blocks.append(Refusal(declined))
    return Answer(
        id=words(tree, "id", "") or "",
        model=words(tree, "model", "") or "",
        blocks=blocks,
        stop=stop,
        tokens=read_usage(usage, Tokens()),
        stop_sequence=words(tree, "stop_sequence", ""),
        service_tier=words(usage, "service_tier", "usage"),
    )


def explanation_of(tree: Tree) -> str:
    """Why the model declines, of a message or of a stream's ``message_delta.delta``; empty where it says nothing of it."""
    details = tree.get("stop_details")
    words = details.get("explanation") if isinstance(details, dict) else None
    return words if isinstance(words, str) else ""


def read_usage(usage: Tree, before: Tokens) -> Tokens:
    """Usage; in streams cumulative: on top of what was known ``before``. Anthropic's ``input_tokens`` leaves cached ones out."""
    cached = _count(usage, "cache_read_input_tokens", before.cached)
    written = _count(usage, "cache_creation_input_tokens", before.written)
    fresh_before = before.input - before.cached - before.written if before.input >= 0 else -1
    fresh = _count(usage, "input_tokens", fresh_before)
    details = usage.get("output_tokens_details")
    return Tokens(
        input=fresh + cached + written if fresh >= 0 else -1,
        output=_count(usage, "output_tokens", before.output),
        cached=cached,
        written=written,
        reasoning=_count(details if isinstance(details, dict) else {}, "thinking_tokens", before.reasoning),
    )


def _count(tree: Tree, name: str, before: int) -> int:
    value = tree.get(name)
    return max(value, before) if type(value) is int else before


def write_usage(tokens: Tokens, tier: str | None = None) -> Tree:
    """All members that clients add up; what is not known is 0, as the API has no word for it."""
    usage: Tree = {
        "input_tokens": max(0, tokens.input - tokens.cached - tokens.written),
        "cache_creation_input_tokens": tokens.written,
        "cache_read_input_tokens": tokens.cached,
        "output_tokens": max(0, tokens.output),
    }
    if tokens.reasoning:
        usage["output_tokens_details"] = {"thinking_tokens": tokens.reasoning}
    if tier in _TIERS:
        usage["service_tier"] = _TIERS[tier]
    return usage


def message_id(given: str, shown: Shown) -> str:
    """An id as clients of this API know it."""
    return given if given.startswith("msg_") else f"msg_{shown.id}"


def reason_of(stop: Stop, *, called: bool) -> str:
    """``stop_reason``; calls of tools make it ``tool_use`` even where the upstream says that it just stopped."""
    return "tool_use" if called and stop == "stop" else REASONS[stop]


def bare(signature: str | None) -> str:
    """A signature as it stands in a Messages tree: Anthropic's own bare, another's sealed."""
    whose, rest = unsealed(signature or "", "messages")
    return rest if whose == "messages" else signature or ""


def write_answer(answer: Answer, shown: Shown) -> Tree:
    """The message for a client."""
    content: list[Tree] = []
    for block in answer.blocks:
        if isinstance(block, Text | ToolUse) and block.signature is not None and block.signature.startswith(SEAL):
            # Gemini wants its signature back with the call: it travels as a hidden thought before it.
            content.append({"type": "redacted_thinking", "data": carrier(block.signature)})
        made = _block(block, shown, len(content))
        if made is not None:
            content.append(made)
    called = any(tree["type"] == "tool_use" for tree in content)
    usage = write_usage(answer.tokens, answer.service_tier)
    return {
        "id": message_id(answer.id, shown),
        "type": "message",
        "role": "assistant",
        "model": shown.model,
        "content": content,
        "stop_reason": reason_of(answer.stop, called=called),
        "stop_sequence": answer.stop_sequence if answer.stop == "sequence" else None,
        "usage": usage,
    }


def _block(block: Block, shown: Shown, index: int) -> Tree | None:
    if isinstance(block, Text):
        if not block.text:
            return None
        tree: Tree = {"type": "text", "text": block.text}
        return {**tree, "citations": block.citations} if block.citations else tree
    if isinstance(block, Refusal):
        return {"type": "text", "text": block.text} if block.text else None
    if isinstance(block, ToolUse):
        given = arguments_of(block.arguments) if block.custom else block.arguments
        return {"type": "tool_use", "id": call_id(block.id, shown, index), "name": block.name, "input": input_of(given)}
    if isinstance(block, Thinking):
        signature = bare(block.signature)
        if block.hidden:
            return {"type": "redacted_thinking", "data": signature} if signature else None
        if block.text or signature:
            return {"type": "thinking", "thinking": block.text, "signature": signature}
    return None


def call_id(given: str, shown: Shown, index: int) -> str:
    """The id of a call; one made of the answer's where the upstream gives none."""
    return given or f"toolu_{shown.id}_{index}"


def read_fault(status: int, body: bytes) -> Fault:
    """An error answer of any form."""
    try:
        tree: Any = orjson.loads(body)
    except orjson.JSONDecodeError:
        tree = None
    if isinstance(tree, dict):
        return fault_of(tree, status)
    text = body[: 4 * MAX_SHOWN_LETTERS].decode(errors="replace").strip()[:MAX_SHOWN_LETTERS]
    return Fault(text or f"The upstream answered {status}.", KINDS.get(status, "api_error"), status)


def fault_of(tree: Tree, status: int) -> Fault:
    """The error in a body or in an event of a stream (``status`` 0)."""
    error = tree.get("error")
    if isinstance(error, str):
        error = {"message": error}
    if not isinstance(error, dict):
        error = tree
    try:
        message, kind = words(error, "message", "error"), words(error, "type", "error")
    except Malformed:
        message, kind = None, None
    known = kind if kind and kind != "error" else KINDS.get(status, "api_error")
    return Fault(message or f"The upstream failed ({known}).", known, status)


def write_fault(fault: Fault, request_id: str) -> Tree:
    """The error for a client."""
    return {"type": "error", "error": {"type": kind_of(fault), "message": fault.message}, "request_id": request_id}


def kind_of(fault: Fault) -> str:
    """Anthropic's word for it: by its status, else by its own."""
    if fault.status:
        known = KINDS.get(fault.status)
        return known or ("invalid_request_error" if 400 <= fault.status < 500 else "api_error")
    for word in (fault.code, fault.kind):
        if word in _OTHERS:
            return _OTHERS[word]
    return fault.kind if fault.kind in KINDS.values() else "api_error"
