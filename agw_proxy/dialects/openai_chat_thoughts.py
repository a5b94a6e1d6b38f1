"""Reasoning in Chat messages, which OpenAI's own API does not show: what other servers have made of it.

``reasoning_content`` (DeepSeek, vLLM) or ``reasoning`` (OpenRouter, newer vLLM) is the text. ``reasoning_details``
(OpenRouter's API reference, "Reasoning tokens") is a list of ``reasoning.text`` with a signature, ``reasoning.summary`` and
``reasoning.encrypted``, which the server wants back unchanged: all of an entry but its text is our signature of it.
"""

from typing import Any

import orjson

from agw_proxy.dialects.base import SEAL, Thinking, Tree, sealed, unsealed
from agw_proxy.dialects.openai_chat_fields import json_of

_TEXT, _SUMMARY, _ENCRYPTED = "reasoning.text", "reasoning.summary", "reasoning.encrypted"


def own_signature(raw: str) -> str:
    """Sealed as Chat's, unless it already carries somebody's seal."""
    return raw if raw.startswith(SEAL) else sealed("chat", raw)


def words_of(tree: Tree) -> str:
    """The reasoning text of a message or a delta; servers that give it under both names give it twice."""
    found = tree.get("reasoning_content") or tree.get("reasoning")
    return found if isinstance(found, str) else ""


def read_detail(entry: Any) -> Thinking | None:
    """One of ``reasoning_details``; None for what is no such thing."""
    if not isinstance(entry, dict):
        return None
    kind = entry.get("type")
    if kind == _ENCRYPTED:
        return Thinking(signature=_signature(entry, "data"), hidden=True) if entry.get("data") else None
    name = "summary" if kind == _SUMMARY else "text"
    words = entry.get(name)
    return Thinking(text=words if isinstance(words, str) else "", signature=_signature(entry, "signature", name))


def _signature(entry: Tree, bare: str, *left_out: str) -> str | None:
    """All of an entry that has to come back; only ``bare``, where that is all."""
    rest = {key: value for key, value in entry.items() if value is not None and key not in {"index", *left_out}}
    kind = rest.get("type")
    alone = rest.get(bare)
    if isinstance(alone, str) and (not alone or alone.startswith(SEAL)):
        return alone or None
    if isinstance(alone, str) and len(rest) == 1 + ("type" in rest) and kind != _SUMMARY:
        return own_signature(alone)
    if len(rest) == ("type" in rest):
        return None
    return sealed("chat", json_of(rest, "reasoning_details"))


def read_thoughts(message: Tree) -> list[Thinking]:
    """All reasoning of a whole message, in order."""
    entries = message.get("reasoning_details")
    details = [read_detail(entry) for entry in entries] if isinstance(entries, list) else []
    found = [detail for detail in details if detail is not None and (detail.text or detail.signature)]
    words = words_of(message)
    if words and not any(thought.text for thought in found):
        shown = [thought for thought in found if not thought.hidden]
        if len(shown) == 1:
            shown[0].text = words
        else:
            found.insert(0, Thinking(text=words))
    return found


def write_detail(thought: Thinking, index: int) -> Tree:
    """An entry of ``reasoning_details`` for a thought with a signature: Chat's own as it was; another provider's sealed."""
    raw = thought.signature or ""
    owner, inner = unsealed(raw, "chat")
    if owner == "chat":
        raw = inner
        if raw.startswith("{"):
            made = _folded(raw)
            if made is not None:
                if made.get("type") != _ENCRYPTED:
                    made["summary" if made.get("type") == _SUMMARY else "text"] = thought.text
                return {**made, "index": index}
    if thought.hidden:
        return {"type": _ENCRYPTED, "data": raw, "index": index}
    return {"type": _TEXT, "text": thought.text, "signature": raw, "index": index}


def _folded(raw: str) -> Tree | None:
    """The entry that a signature has been made of; None where it only looks like one."""
    try:
        tree = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None
    return tree if isinstance(tree, dict) else None


def is_own(signature: str | None) -> bool:
    """Whether a Chat upstream has made it, so that it may go back to one."""
    return signature is not None and unsealed(signature, "chat")[0] == "chat"


def tool_signature(call: Tree) -> str | None:
    """Gemini's thought signature at a tool call, where Google's OpenAI-compatible endpoint puts it; sealed."""
    extra = call.get("extra_content")
    google = extra.get("google") if isinstance(extra, dict) else None
    found = google.get("thought_signature") if isinstance(google, dict) else None
    return own_signature(found) if isinstance(found, str) and found else None


def write_tool_signature(signature: str) -> Tree:
    """The member ``extra_content`` of a tool call; Chat's own signature is unsealed."""
    owner, inner = unsealed(signature, "chat")
    return {"google": {"thought_signature": inner if owner == "chat" else signature}}
