"""Anthropic's Messages API in somebody else's cloud: the model is in the path, versions and betas travel otherwise.

Anthropic documentation, "Claude on Amazon Bedrock" and "Claude on Vertex AI".
"""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import orjson

from agw_proxy.config.values import Dialect
from agw_proxy.errors import InvalidJSON, UpstreamRejected
from agw_proxy.types import Call

MESSAGES = "/messages"
COUNTING = "/messages/count_tokens"
BETA = "anthropic-beta"
AT_HOME = (
    "claude-code-", "code-execution-", "files-api-", "mcp-client-", "message-batches-", "oauth-", "prompt-caching-scope-",
    "skills-",
)  # fmt: skip
"""Betas that only Anthropic's own API has, by their beginnings: a cloud refuses a request that names one."""
KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


class Enveloped(NamedTuple):
    """``body``: as the cloud wants it. ``stream``: what it asked for."""

    body: bytes
    stream: bool


def enveloped(body: bytes, *, without: Sequence[str], put: dict[str, object]) -> Enveloped:
    """Take members out and put those in that are not there; what is in all others stays as it is, byte for byte.

    Raises InvalidJSON.
    """
    try:
        tree = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidJSON(f"The body is not a JSON object: {error}") from None
    stream = bytes(tree.get("stream", b"")) == b"true"
    for name in without:
        tree.pop(name, None)
    for name, value in put.items():
        tree.setdefault(name, msgspec.Raw(orjson.dumps(value)))
    return Enveloped(msgspec.json.encode(tree), stream)


def betas(headers: Sequence[tuple[str, str]]) -> list[str]:
    """The betas that a request names and a cloud may know, each once."""
    named = [beta.strip() for name, value in headers if name.lower() == BETA for beta in value.split(",")]
    return [beta for beta in dict.fromkeys(named) if beta and not beta.startswith(AT_HOME)]


def whole_body(call: Call, name: str, dialect: Dialect) -> bytes:
    """The body of a generation. Raises UpstreamRejected for all else that one may want of an upstream."""
    if not isinstance(call.body, bytes) or call.upgrade is not None or call.method != "POST":
        raise not_served(name, dialect)
    return call.body


def not_served(name: str, dialect: Dialect) -> UpstreamRejected:
    """The cloud has no such path."""
    return UpstreamRejected(
        f"Upstream '{name}' ({dialect}) serves generations and the counting of their tokens only.", status=404
    )


def fault(status: int, message: str) -> bytes:
    """An error in Anthropic's form (API reference, "Errors")."""
    kind = KINDS.get(status, "invalid_request_error" if status < 500 else "api_error")
    return orjson.dumps({"type": "error", "error": {"type": kind, "message": message}})
