"""What a provider wants back with a model's thoughts, and how it travels in Responses' ``encrypted_content``.

OpenAI's own: with the reasoning item's id in front of it, since OpenAI looks at both (OpenAI API reference, Responses,
reasoning items). Foreign ones: sealed, as they are. Signatures of other blocks (Gemini's, on words and calls) have no place in
Responses: each travels in a reasoning item without words that stands right after the item that it belongs to.
"""

from agw_proxy.dialects.base import SEAL, sealed, unsealed

ITEM_PREFIX = "rs_"
"""How the ids of OpenAI's reasoning items begin."""
AFTER = f"{SEAL}after:"
"""Before a signature of the block before."""


def taken(item_id: str | None, encrypted: str) -> str:
    """The neutral signature for what a reasoning item has as ``encrypted_content``."""
    if encrypted.startswith(SEAL):
        return encrypted
    if item_id is not None and item_id.startswith(ITEM_PREFIX):
        return sealed("responses", f"{item_id}:{encrypted}")
    return sealed("responses", encrypted)


def given(signature: str) -> tuple[str | None, str]:
    """Id and ``encrypted_content`` to show a caller: OpenAI's own opened, others sealed and without an id."""
    spoken, rest = unsealed(signature, "responses")
    return _opened(rest) if spoken == "responses" else (None, signature)


def own(signature: str | None) -> tuple[str | None, str] | None:
    """Id and ``encrypted_content`` to send to OpenAI; None: it is not OpenAI's."""
    if signature is None:
        return None
    spoken, rest = unsealed(signature, "responses")
    return _opened(rest) if spoken == "responses" and not rest.startswith(SEAL) else None


def attached(signature: str) -> str:
    """``encrypted_content`` of the item that carries the signature of the block before it."""
    return AFTER + signature


def detached(encrypted: str | None) -> str | None:
    """The signature that belongs to the block before; None: this is a thought of its own."""
    return encrypted[len(AFTER) :] if encrypted is not None and encrypted.startswith(AFTER) else None


def _opened(rest: str) -> tuple[str | None, str]:
    head, colon, encrypted = rest.partition(":")
    return (head, encrypted) if colon and head.startswith(ITEM_PREFIX) else (None, rest)
