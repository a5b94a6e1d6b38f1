"""Errors as Chat has them (OpenAI API reference, "Error codes"), and what other servers of the dialect make of them."""

from contextlib import suppress

import orjson

from agw_proxy.dialects.base import Fault, Malformed, Tree
from agw_proxy.dialects.openai_chat_fields import json_of

MAX_MESSAGE_CHARS = 4000
"""Of an upstream's words: some answer an error with the whole prompt."""

KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "insufficient_quota",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout",
    409: "conflict_error",
    413: "request_too_large",
    422: "invalid_request_error",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout",
    529: "overloaded_error",
}
CODES = {
    "authentication_error": "invalid_api_key",
    "permission_error": "permission_denied",
    "not_found_error": "model_not_found",
    "rate_limit_error": "rate_limit_exceeded",
    "billing_error": "insufficient_quota",
    "insufficient_quota": "insufficient_quota",
    "overloaded_error": "overloaded",
    "timeout_error": "timeout",
    "timeout": "timeout",
}
"""OpenAI's code for an error of which only the kind is known; clients look at it (a spent quota is not tried again)."""


def kind_of(status: int) -> str:
    """The kind of an error that does not name one, by its status; 0: not known."""
    return KINDS.get(status, "invalid_request_error" if 400 <= status < 500 else "api_error")


def read_fault(status: int, body: bytes) -> Fault:
    """The error in an answer with a bad status, whatever its body is."""
    try:
        tree = orjson.loads(body)
    except orjson.JSONDecodeError:
        tree = None
    with suppress(Malformed):
        fault = fault_in(tree, status)
        if fault is not None:
            return fault
    return Fault(f"The upstream answered with status {status}.", kind_of(status), status)


def fault_in(tree: object, status: int = 0) -> Fault | None:
    """The error that a tree tells of; None where it is none.

    Known forms: OpenAI's ``{"error": {...}}``, with only words instead of the object (Ollama), in a list (Google), flat
    (Mistral, vLLM), and FastAPI's ``detail``. Raises Malformed for one that is nested too deeply.
    """
    if isinstance(tree, list) and tree:
        tree = tree[0]
    if not isinstance(tree, dict):
        return None
    inner = tree.get("error")
    if not inner and status == 0 and tree.get("object") != "error":
        return None
    found = inner if isinstance(inner, dict) else tree
    words = found.get("message") or (inner if isinstance(inner, str) else None) or found.get("detail")
    if not isinstance(words, str):
        words = json_of(words or found, "error")
    code, param = found.get("code"), found.get("param")
    # Google and llama.cpp say the status as the code.
    numeric = code if isinstance(code, int) and not isinstance(code, bool) and 400 <= code < 600 else 0
    status = status or numeric
    kind = found.get("type")
    if not isinstance(kind, str) or not kind or kind == "error":
        kind = kind_of(status)
    return Fault(
        message=words[:MAX_MESSAGE_CHARS],
        kind=kind,
        status=status,
        code=None if code is None or numeric else str(code),
        param=param if isinstance(param, str) else None,
    )


def write_fault(fault: Fault, request_id: str) -> Tree:  # noqa: ARG001 - other dialects' errors carry the id, OpenAI's do not
    """OpenAI's error object. Its code is guessed from the kind where the upstream gave none."""
    kind = fault.kind or kind_of(fault.status)
    code = fault.code or CODES.get(kind)
    return {"error": {"message": fault.message, "type": kind, "param": fault.param, "code": code}}
