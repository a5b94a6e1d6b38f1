"""Names of tools that a target does not take: each stands under another one there, and comes back under its own.

OpenAI takes 64 letters, digits, ``_`` and ``-``, Anthropic 128, Google also dots and colons (their API references, tools).
Names of MCP servers' tools are often longer. The other name hangs on the first alone, so that a conversation's turns agree.
"""

import hashlib
import re

import msgspec

from agw_proxy.dialects.base import (
    Answer,
    Block,
    BlockStart,
    Event,
    Message,
    Reader,
    Request,
    Spoken,
    ToolResult,
    ToolUse,
)

DIGEST_LENGTH = 8
"""Hexadecimal digits that tell names apart of which the same is left."""
_PLAIN = re.compile(r"[^A-Za-z0-9_-]")
_GOOGLE = re.compile(r"[^A-Za-z0-9_.:-]")
_TAKEN: dict[Spoken, tuple[re.Pattern[str], int]] = {
    "chat": (_PLAIN, 64), "responses": (_PLAIN, 64), "messages": (_PLAIN, 128), "gemini": (_GOOGLE, 64),
}  # fmt: skip
"""By target: what must not be in a name, and how long it may be."""


def fitting(name: str, target: Spoken) -> str:
    """The name, if the target takes it; else one that it takes, which is always the same for this one."""
    odd, most = _TAKEN[target]
    if target == "gemini" and name and not (name[0].isalpha() or name[0] == "_"):
        return fitting(f"_{name}", target)
    if len(name) <= most and odd.search(name) is None:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:DIGEST_LENGTH]
    return f"{odd.sub('_', name)[: most - DIGEST_LENGTH - 1]}_{digest}"


def renamed(request: Request, target: Spoken) -> Request:
    """The request with names that the target takes; itself where it takes all of them."""
    names = _names(request)
    others = {name: fit for name in names if (fit := fitting(name, target)) != name}
    if not others:
        return request
    choice = request.tool_choice
    if choice is not None:
        allowed = None if choice.allowed is None else [others.get(name, name) for name in choice.allowed]
        choice = msgspec.structs.replace(choice, name=others.get(choice.name or "", choice.name), allowed=allowed)
    return msgspec.structs.replace(
        request,
        tools=[msgspec.structs.replace(tool, name=others.get(tool.name, tool.name)) for tool in request.tools],
        tool_choice=choice,
        messages=[
            Message(message.role, [_named(block, others) for block in message.blocks], message.name)
            for message in request.messages
        ],
    )


def _names(request: Request) -> set[str]:
    names = {tool.name for tool in request.tools}
    for message in request.messages:
        names |= {block.name for block in message.blocks if isinstance(block, ToolUse | ToolResult) and block.name}
    return names


def _named(block: Block, others: dict[str, str]) -> Block:
    if isinstance(block, ToolUse | ToolResult) and block.name in others:
        return msgspec.structs.replace(block, name=others[block.name])
    return block


def own_names(request: Request | None, target: Spoken) -> dict[str, str]:
    """The caller's names of its tools by those that the target was given, where they differ."""
    tools = request.tools if request is not None else []
    return {fit: tool.name for tool in tools if (fit := fitting(tool.name, target)) != tool.name}


def restored(answer: Answer, names: dict[str, str]) -> Answer:
    """The answer with the caller's own names. ``names``: see ``own_names``."""
    if names:
        answer.blocks = [_named(block, names) for block in answer.blocks]
    return answer


class Restoring:
    """A Reader whose calls have the caller's own names."""

    def __init__(self, reader: Reader, names: dict[str, str]) -> None:
        """``names``: see ``own_names``."""
        self._reader = reader
        self._names = names

    def read(self, name: str, data: bytes) -> list[Event]:
        """See ``base.Reader``."""
        return [renamed_back(event, self._names) for event in self._reader.read(name, data)]

    def end(self) -> list[Event]:
        """See ``base.Reader``."""
        return [renamed_back(event, self._names) for event in self._reader.end()]


def renamed_back(event: Event, names: dict[str, str]) -> Event:
    """The event with the caller's own name, if it begins a call. ``names``: see ``own_names``."""
    return BlockStart(event.index, _named(event.block, names)) if isinstance(event, BlockStart) else event
