"""The one place where an error becomes bytes: a reply in the caller's dialect, or an error event once bytes have left."""

from collections.abc import Mapping, Sequence
from email.utils import formatdate
from http import HTTPStatus
from urllib.parse import quote

import orjson

from agw_proxy.edge.exchange import Exchange
from agw_proxy.errors import (
    AgentError,
    BudgetSpent,
    GatewayError,
    IdempotencyConflict,
    MethodNotAllowed,
    NotCached,
    SessionSpent,
    ThreadUnsupported,
    UpgradeNeeded,
    UpgradeRefused,
    UpstreamError,
    UpstreamRejected,
    UpstreamUnavailable,
)
from agw_proxy.policy.limits import limit_headers
from agw_proxy.types import Answer, Attempt, Dialect
from agw_proxy.upstreams.failures import scrubbed

SERVER = "agw"
SHOWN = "/:@+~*"  # of a target's name in a header; the rest is percent-encoded
ANTHROPIC_KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    529: "overloaded_error",
}

WAITED_FOR = frozenset({408, 409, 425, 429, 503, 504})
GOOGLE_KINDS = {
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


def status_of(error: GatewayError, dialect: Dialect) -> int:
    """What the caller is told: Anthropic's clients know 529, and wait for longer or ask another model."""
    return 529 if dialect == "anthropic" and isinstance(error, UpstreamUnavailable) and error.crowded else error.status


def error_tree(error: GatewayError, dialect: Dialect, request_id: str) -> Mapping[str, object]:
    """The error in the caller's dialect (OpenAI API reference, Errors; Anthropic's; Google's API error model)."""
    if dialect == "anthropic":
        fallback = "invalid_request_error" if error.status < 500 else "api_error"
        kind = ANTHROPIC_KINDS.get(error.status, fallback)
        words: dict[str, object] = {"type": kind, "message": error.message}
        if isinstance(error, ThreadUnsupported):  # by this the SDK goes on with the whole conversation
            words["details"] = {"error_code": error.alias, "unsupported": ["model"]}
        return {"type": "error", "error": words, "request_id": request_id}
    if dialect == "gemini":
        status = GOOGLE_KINDS.get(error.status, "INVALID_ARGUMENT" if error.status < 500 else "INTERNAL")
        told: dict[str, object] = {"code": error.status, "message": error.message, "status": status}
        if error.retry_after_ms is not None and error.status in WAITED_FOR:  # Gemini CLI reads it here, and no header
            delay = f"{error.retry_after_ms / 1000:.3f}s"
            told["details"] = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay}]
        return {"error": told}
    return {
        "error": {
            "message": error.message,
            "type": error.kind,
            "param": error.param,
            "code": error.alias or error.code,
        }
    }


def error_body(error: GatewayError, dialect: Dialect, request_id: str) -> bytes:
    """The whole body; an upstream's own 4xx keeps the upstream's words."""
    if isinstance(error, UpstreamRejected) and error.payload is not None:
        return error.payload
    return orjson.dumps(error_tree(error, dialect, request_id))


def error_event(error: GatewayError, dialect: Dialect, request_id: str) -> bytes:
    """What ends a broken stream: only ``event: error`` with the dialect's error makes every official SDK raise.

    Google's SDKs know no names of events, and raise on the error alone. Clients of Responses go by ``type``.
    """
    tree = error_tree(error, dialect, request_id)
    if dialect == "gemini":
        return b"data: " + orjson.dumps(tree) + b"\n\n"
    return b"event: error\ndata: " + orjson.dumps({"type": "error", **tree}) + b"\n\n"


def common_headers(exchange: Exchange) -> list[tuple[str, str]]:
    """What every reply carries."""
    headers = [("Server", SERVER), ("x-request-id", exchange.request_id)]
    if exchange.dialect == "anthropic":
        headers.append(("request-id", exchange.request_id))
    headers.append(("Server-Timing", exchange.server_timing()))
    if len(exchange.trail) > 1:
        headers.append(("x-agw-attempts", attempts_text(exchange.trail)))
    if exchange.fallback is not None:
        headers.append(("x-agw-fallback", exchange.fallback))
    if exchange.cache is not None:
        headers.append(("x-agw-cache", exchange.cache))
    if exchange.reuse == "replayed":
        headers.append(("idempotent-replayed", "true"))
    notes: dict[str, str] = {}
    for name, value in exchange.notes:
        notes[name] = f"{notes[name]}, {value}" if name in notes else value
    headers += notes.items()
    if exchange.grant is not None:
        headers += limit_headers(exchange.grant, exchange.dialect)
    return headers


def attempts_text(trail: Sequence[Attempt]) -> str:
    """Targets and outcomes in order, without a word of an upstream's."""
    return ", ".join(f"{quote(attempt.target, safe=SHOWN)}={attempt.outcome}" for attempt in trail)


def refuse_unparsed(exchange: Exchange, error: GatewayError, *, close: bool = True) -> bytes:
    """The whole answer for a request that the full lane has not read. ``close``: the connection ends with it."""
    exchange.error = error
    exchange.status = error.status
    body = error_body(error, exchange.dialect, exchange.request_id)
    headers = error_headers(exchange, error)
    headers += [("Content-Type", "application/json"), *([("Connection", "close")] if close else [])]
    return whole(error.status, headers, body)


def whole(status: int, headers: Sequence[tuple[str, str]], body: bytes, *, bodiless: bool = False) -> bytes:
    """A whole answer with its framing. ``bodiless``: to a HEAD request, so without the body that it describes."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
    framing = f"Content-Length: {len(body)}\r\nDate: {formatdate(usegmt=True)}\r\n\r\n"
    head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n{lines}{framing}".encode()
    return head if bodiless else head + body


def error_headers(exchange: Exchange, error: GatewayError) -> list[tuple[str, str]]:
    """What a reply for an error carries besides its body's own headers."""
    headers = common_headers(exchange)
    headers.append(("x-agw-error", error.code))
    if error.retry_after_ms is not None and error.status in WAITED_FOR:
        headers.append(("Retry-After", str(-(-error.retry_after_ms // 1000))))
        headers.append(("retry-after-ms", str(error.retry_after_ms)))
    elif error.status == 503:
        headers += [("Retry-After", "1"), ("retry-after-ms", "1000")]
    if isinstance(error, BudgetSpent | SessionSpent | NotCached | IdempotencyConflict | AgentError) or (
        isinstance(error, UpstreamError) and not error.blameless
    ):
        headers.append(("x-should-retry", "false"))
    if isinstance(error, MethodNotAllowed):
        headers.append(("Allow", ", ".join(error.allowed)))
    if isinstance(error, UpgradeRefused):
        headers += [("Upgrade", "HTTP/1.1"), ("Connection", "Upgrade")]
    if isinstance(error, UpgradeNeeded):
        headers += [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Version", "13")]
    if error.status == 401 and not isinstance(error, UpstreamError):
        headers.append(("WWW-Authenticate", 'Bearer realm="agw"'))
    return headers


def answer_headers(exchange: Exchange, made: Answer) -> list[tuple[str, str]]:
    """What the reply of a local endpoint carries."""
    return [*common_headers(exchange), *made.headers, ("Content-Type", made.content_type)]


def last_words(chunk: bytes, data: bytes, secrets: Sequence[str], dialect: Dialect = "openai") -> bytes:
    """What ends a stream with an upstream's error event: the events before it in ``chunk``, then its ``data``."""
    at = chunk.find(data)
    before = chunk[: event_start(chunk, at)] if at >= 0 else b""
    line = b" ".join(scrubbed(data, secrets).splitlines())
    return before + (b"" if dialect == "gemini" else b"event: error\n") + b"data: " + line + b"\n\n"


def event_start(chunk: bytes, at: int) -> int:
    """Where the event around offset ``at`` begins: behind the last blank line before it."""
    lf, crlf = chunk.rfind(b"\n\n", 0, at), chunk.rfind(b"\r\n\r\n", 0, at)
    return max(lf + 2 if lf >= 0 else 0, crlf + 4 if crlf >= 0 else 0)
