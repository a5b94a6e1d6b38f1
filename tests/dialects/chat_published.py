"""Requests of this dialect for its tests, and OpenAI's published types, which every request that we write is held against."""

from collections.abc import Iterable, Mapping
from typing import Any

from openai.types.chat.completion_create_params import CompletionCreateParams
from pydantic import ConfigDict, TypeAdapter

from agw_proxy.dialects.base import (
    Block,
    Message,
    Request,
    Tree,
)
from agw_proxy.dialects.openai_chat_requests import read_request, write_request
from tests.dialects.chat_vectors import losses

PUBLISHED: TypeAdapter[Any] = TypeAdapter(CompletionCreateParams, config=ConfigDict(extra="forbid"))
SCHEMA = {"type": "object", "properties": {"x": {"type": "string"}}}
TOOLS = [{"type": "function", "function": {"name": name, "parameters": SCHEMA}} for name in "fg"]


def consume(value: Any) -> None:
    """Go through what pydantic checks only when it is read."""
    if isinstance(value, Mapping):
        for inner in value.values():
            consume(inner)
    elif isinstance(value, Iterable) and not isinstance(value, str | bytes):
        for inner in value:
            consume(inner)


def published(tree: Tree) -> Tree:
    """The same tree, which OpenAI's published types take, without a member that they do not know."""
    consume(PUBLISHED.validate_python(tree))
    return tree


def asked(*messages: Tree, **members: Any) -> Request:
    return read_request({"model": "m", "messages": list(messages) or [{"role": "user", "content": "Hi"}], **members})


def written(request: Request) -> tuple[Tree, list[str]]:
    lost = losses()
    return published(write_request(request, lost)), lost.dropped


def sent(*blocks: Block, role: Any = "user") -> tuple[list[Tree], list[str]]:
    tree, dropped = written(Request("m", [Message(role, list(blocks))]))
    return tree["messages"], dropped
