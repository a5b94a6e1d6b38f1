"""Ids of calls in Chat requests: OpenAI takes 40 characters, and Mistral nine letters and digits, neither more nor less.

Other forms have longer ones (64 in Responses), and conversations move from model to model. The other id hangs on the first
alone, so that a call and its result, and each turn of a conversation, agree.
"""

import hashlib

import msgspec

from agw_proxy.dialects.base import Block, Message, ToolResult, ToolUse

MOST = 40
PREFIX = "call_"


def fitting(given: str, exactly: int | None = None) -> str:
    """The id, if it is taken; else one that is. ``exactly``: of so many letters and digits it has to be; None: of up to 40 characters."""
    if exactly is None:
        return given if len(given) <= MOST else PREFIX + _digest(given)[: MOST - len(PREFIX)]
    plain = len(given) == exactly and given.isascii() and given.isalnum()
    return given if plain else _digest(given)[:exactly]


def _digest(given: str) -> str:
    return hashlib.sha256(given.encode("utf-8", "surrogatepass")).hexdigest()


def fitted(messages: list[Message], exactly: int | None) -> list[Message]:
    """The conversation with ids that are taken; itself where all are. ``exactly``: see ``fitting``."""
    ids = {block.id for message in messages for block in message.blocks if isinstance(block, ToolUse | ToolResult)}
    others = {given: fit for given in ids if (fit := fitting(given, exactly)) != given}
    if not others:
        return messages

    def renamed(block: Block) -> Block:
        if isinstance(block, ToolUse | ToolResult) and block.id in others:
            return msgspec.structs.replace(block, id=others[block.id])
        return block

    return [Message(message.role, [renamed(block) for block in message.blocks], message.name) for message in messages]
