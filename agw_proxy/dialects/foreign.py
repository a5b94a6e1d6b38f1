"""Thoughts of another provider's model, in a request that goes on in its own form: who is asked now would refuse them.

A conversation may move from a model that was asked in another form to one that is asked in its caller's. What has travelled
sealed (see ``base.sealed``) means nothing to that one: Anthropic, OpenAI and Google answer foreign signatures with 400.
"""

from collections.abc import Callable
from typing import Any

import orjson

from agw_proxy.config.values import Form
from agw_proxy.dialects.anthropic_messages_thinking import chain_begins_with_thought
from agw_proxy.dialects.base import SEAL, Malformed, Tree
from agw_proxy.dialects.gemini_names import BASE64_SEAL, SKIP_VALIDATION, before_three, decoded

_SIGNATURES = ("thoughtSignature", "thought_signature")


def without_foreign(form: Form, body: bytes, model: str) -> bytes | None:
    """The body without them, for an upstream that calls the model ``model``; None: there is nothing to be taken out.

    What is no request of this form is left as it is: that is the upstream's to judge.
    """
    clean = _CLEANERS.get(form)
    try:
        tree: Any = orjson.loads(body)
        if clean is None or not isinstance(tree, dict) or not clean(tree, model):
            return None
        return orjson.dumps(tree)
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        return None


def _messages(tree: Tree, model: str) -> bool:
    """Anthropic API reference, "Messages". A turn that was nothing else goes, and thinking by a budget where it needs one of its own."""
    unsigned = "claude" in model.lower()  # other vendors' models behind this API sign nothing
    kept: list[Any] = []
    changed = False
    for message in _list(tree.get("messages")):
        content = message.get("content") if isinstance(message, dict) else None
        if not isinstance(content, list) or message.get("role") != "assistant":
            kept.append(message)
            continue
        own = [block for block in content if not _is_foreign(block, unsigned=unsigned)]
        changed = changed or len(own) < len(content)
        if own or not content:
            kept.append({**message, "content": own})
    if not changed:
        return False
    tree["messages"] = kept
    thinking = tree.get("thinking")
    if isinstance(thinking, dict) and thinking.get("type") == "enabled" and not _may_think(kept):
        del tree["thinking"]
    return True


def _is_foreign(block: Any, *, unsigned: bool) -> bool:
    kind = block.get("type") if isinstance(block, dict) else None
    if kind == "redacted_thinking":
        return _starts(block.get("data"), SEAL)
    if kind != "thinking":
        return False
    return _starts(block.get("signature"), SEAL) or (unsigned and not block.get("signature"))


def _may_think(messages: list[Any]) -> bool:
    try:
        return chain_begins_with_thought(messages)
    except (KeyError, TypeError, AttributeError):  # no conversation of this form
        return True


def _responses(tree: Tree, _: str) -> bool:
    """OpenAI API reference, Responses, ``input``."""
    items = _list(tree.get("input"))
    own = [item for item in items if not (isinstance(item, dict) and _is_foreign_item(item))]
    if len(own) == len(items):
        return False
    tree["input"] = own
    return True


def _is_foreign_item(item: Tree) -> bool:
    if item.get("type") != "reasoning":
        return False
    encrypted = item.get("encrypted_content")
    # One that nobody has signed is looked up by its id, and it was given here.
    return _starts(encrypted, SEAL) or (not encrypted and _starts(item.get("id"), "rs_req_"))


def _gemini(tree: Tree, model: str) -> bool:
    """Gemini API, "Thought signatures": foreign calls have a signature of their own that is always taken."""
    changed = False
    for content in _list(tree.get("contents")):
        parts = content.get("parts") if isinstance(content, dict) else None
        if not isinstance(parts, list):
            continue
        own: list[Any] = []
        for part in parts:
            named = [name for name in _SIGNATURES if isinstance(part, dict) and _is_sealed(part.get(name))]
            if not named:
                own.append(part)
                continue
            changed = True
            bare = {name: value for name, value in part.items() if name not in _SIGNATURES}
            if not before_three(model) and not bare.keys().isdisjoint({"functionCall", "function_call"}):
                bare["thoughtSignature"] = SKIP_VALIDATION
            if not bare.get("thought"):
                own.append(bare)
        content["parts"] = own
    if changed:
        tree["contents"] = [each for each in tree["contents"] if not isinstance(each, dict) or each.get("parts") != []]
    return changed


def _is_sealed(signature: object) -> bool:
    if not isinstance(signature, str) or not signature.startswith(BASE64_SEAL):
        return False
    try:
        return decoded(signature, "").startswith(SEAL.encode())
    except Malformed:
        return False


def _starts(value: object, start: str) -> bool:
    return isinstance(value, str) and value.startswith(start)


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


_CLEANERS: dict[Form, Callable[[Tree, str], bool]] = {
    "messages": _messages,
    "responses": _responses,
    "gemini": _gemini,
}
