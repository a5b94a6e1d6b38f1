"""What a realtime session's events say of usage, and the event by which the gateway itself says that a session ends.

OpenAI API reference, Realtime server events: ``response.done`` carries the usage of one answer, which has read the
whole conversation before it.
"""

import re
import secrets
from typing import Any

import orjson

from agw_proxy.edge.respond import error_tree
from agw_proxy.errors import GatewayError
from agw_proxy.types import Usage

TYPE_BYTES = 256  # an event's type stands at its beginning
DONE, CREATED = b'"response.done"', b'"response.created"'
DELTA = re.compile(rb'"type"\s*:\s*"[\w.]+\.delta"')


class Book:
    """The usage of one session. ``deltas``: pieces of answers so far."""

    def __init__(self) -> None:
        self.total = Usage(0, 0, 0)
        self.deltas = 0
        self._unsettled = 0

    def read(self, event: bytes) -> Usage | None:
        """Take an event of the upstream's in; the usage of the answer that ends with it."""
        if is_delta(event):
            self.deltas += 1
            self._unsettled += 1
            return None
        if event.find(CREATED, 0, TYPE_BYTES) >= 0:
            self._unsettled = 0
        if DONE not in event:
            return None
        try:
            tree = orjson.loads(event)
        except orjson.JSONDecodeError:
            return None
        if not isinstance(tree, dict) or tree.get("type") != "response.done":
            return None
        self._unsettled = 0
        used = _usage(tree)
        if used is not None:
            total = self.total
            self.total = Usage(
                total.prompt + used.prompt, total.completion + used.completion, total.cached + used.cached
            )
        return used

    @property
    def used(self) -> Usage:
        """All of it; an answer that was cut before its usage was told counts a token for each of its pieces."""
        return Usage(self.total.prompt, self.total.completion + self._unsettled, self.total.cached)


def is_delta(event: bytes) -> bool:
    """A piece of an answer: content, and nothing that an upstream says about itself."""
    return DELTA.search(event, 0, TYPE_BYTES) is not None


def _usage(event: dict[str, Any]) -> Usage | None:
    response = event.get("response")
    usage = response.get("usage") if isinstance(response, dict) else None
    if not isinstance(usage, dict):
        return None
    details = usage.get("input_token_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else 0
    return Usage(_count(usage.get("input_tokens")), _count(usage.get("output_tokens")), _count(cached))


def _count(value: object) -> int:
    return value if isinstance(value, int) and 0 <= value < 1 << 40 else 0


def error_message(error: GatewayError, request_id: str) -> bytes:
    """The error as a server event."""
    told = error_tree(error, "openai", request_id)["error"]
    inner = {**told, "event_id": None} if isinstance(told, dict) else {}
    return orjson.dumps({"type": "error", "event_id": f"event_{secrets.token_hex(12)}", "error": inner})
