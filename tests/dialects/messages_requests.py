"""Conversations in nobody's dialect, and what becomes of them in a request to the Messages API."""

from typing import Any

import orjson

from agw_proxy.dialects.anthropic_messages_requests import write_request
from agw_proxy.dialects.base import Losses, Message, Request, Tree
from agw_proxy.dialects.features import decide
from tests.dialects.messages_schema import accept

OLD, MIDDLE, NEW = "claude-sonnet-4-5", "claude-opus-4-6", "claude-opus-5"


def written(request: Request, *lost: str, counting: bool = False) -> Tree:
    """As it is sent, accepted by the published schema; it loses just what is named."""
    losses = Losses("messages", decide)
    tree = write_request(request, losses, counting=counting)
    assert sorted(losses.dropped) == sorted(lost)
    accept(tree)
    orjson.dumps(tree)
    return tree


def talk(*messages: Message, **members: Any) -> Request:
    return Request(members.pop("model", OLD), list(messages), **members)


def user(*blocks: Any) -> Message:
    return Message("user", list(blocks))


def model(*blocks: Any) -> Message:
    return Message("assistant", list(blocks))
