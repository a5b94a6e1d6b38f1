"""An upstream's error answer -> our error: what is passed on, what is said in our own words, and what may be tried again."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime

import orjson

from agw_proxy._hot.circuit import BAD, GOOD, NEITHER, Circuit
from agw_proxy.errors import (
    GatewayError,
    UpstreamError,
    UpstreamFailed,
    UpstreamInvalid,
    UpstreamQueueFull,
    UpstreamRefused,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnavailable,
    UpstreamUnreachable,
)
from agw_proxy.policy.retry_after import told_ms, wait_ms
from agw_proxy.types import Call, RawHeaders, Reply

MAX_ERROR_BYTES = 65536  # an error body beyond this is not a message for people
RESTING = frozenset({429, 503})  # statuses with which a named time means the whole target
EARLY_NS = 2_000_000  # what rests does so a little shorter than told: our own next try comes at that very time
AGAIN = frozenset({408, 409, 425, 429})
SPENT = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"})
QUOTA = b"type.googleapis.com/google.rpc.QuotaFailure"
"""Of Google's errors, which say of a day's quota what others have a code for."""
TOO_DEEP = b'{"error":{"message":"The upstream\'s error is nested too deeply to be shown.","type":"upstream_error"}}'
STATUS_OF_KIND = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "permission_error": 403,
    "not_found_error": 404,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "insufficient_quota": 429,
    "overloaded_error": 529,
}


async def refused(reply: Reply, name: str, secrets: Sequence[str], *, ours: bool) -> UpstreamError:
    """The error for an answer with status 400 or above; reads (a bounded part of) its body and closes it.

    ``secrets``: taken out of what is passed on. ``ours``: the request carried the gateway's own
    credentials and not the caller's.
    """
    body = bytearray()
    try:
        while not reply.ended and len(body) <= MAX_ERROR_BYTES:
            body += await reply.read()
    except UpstreamError:
        body.clear()  # the status alone still says what happened
    finally:
        reply.close()
    return error_of(reply.status, bytes(body), reply.headers, name, secrets, ours=ours)


def error_of(
    status: int, body: bytes, headers: RawHeaders, name: str, secrets: Sequence[str], *, ours: bool
) -> UpstreamError:
    """The same for a body that is here."""
    wait = wait_ms(headers, datetime.fromtimestamp(time.time(), UTC))
    if wait is None:
        wait = told_ms(body)
    if status >= 500:
        if status in {503, 529}:
            away = UpstreamUnavailable(f"Upstream '{name}' is overloaded or down ({status}).", retry_after_ms=wait)
            away.crowded = status == 529
            return away
        if status == 504:
            error = UpstreamTimeout(f"Upstream '{name}' ran into a time-out of its own (504).", retry_after_ms=wait)
            error.out_of_time = False
            return error
        return UpstreamFailed(f"Upstream '{name}' failed to answer ({status}).", retry_after_ms=wait)
    if status == 401 and ours:
        return UpstreamRefused(
            f"Upstream '{name}' refused the gateway's own credentials (401). Set its api_key in the gateway's configuration."
        )
    tree = _error_tree(body)
    payload = scrubbed(_enclosed(body, tree), secrets) if tree is not None else None
    code = str((tree or {}).get("code") or (tree or {}).get("type") or "")
    return UpstreamRejected(
        f"Upstream '{name}' refused the request ({status}).",
        status=status,
        payload=payload,
        retry_after_ms=wait,
        elsewhere=status == 429 and (code in SPENT or (QUOTA in body and b"PerDay" in body)),
    )


def error_of_event(data: bytes, name: str, secrets: Sequence[str], *, ours: bool) -> UpstreamError:
    """The error for a stream whose very first event is one: it gets the status that it should have had."""
    tree = _error_tree(data)
    if tree is None:
        return UpstreamInvalid(f"Upstream '{name}' began its stream with an error.")
    status = tree.get("code")
    if not isinstance(status, int) or not 400 <= status <= 599:
        status = STATUS_OF_KIND.get(str(tree.get("code")), STATUS_OF_KIND.get(str(tree.get("type")), 502))
    return error_of(status, data, (), name, secrets, ours=ours)


def again(error: UpstreamError, call: Call) -> bool:
    """The same target may be asked again: it did not take the request, or a generation may begin anew.

    Not after a time-out: what took too long once is being generated, and billed, already.
    """
    if isinstance(error, UpstreamTimeout):
        return False
    if isinstance(error, UpstreamRejected):
        return (error.status in AGAIN if call.repeatable else error.status == 429) and not error.elsewhere
    return error.retryable and (call.repeatable or isinstance(error, UpstreamUnreachable))


def elsewhere(error: UpstreamError, call: Call) -> bool:
    """Another target may be asked."""
    if again(error, call) or isinstance(error, UpstreamRefused | UpstreamQueueFull):
        return True
    if isinstance(error, UpstreamRejected):
        return error.elsewhere
    return isinstance(error, UpstreamTimeout) and call.repeatable


def verdict(error: GatewayError | None) -> int:
    """How an attempt that ended so was, for the circuit of its target.

    GOOD: an answer, also one that refuses what the caller asked for. NEITHER: it says nothing of the target (the caller
    has gone, the gateway shuts down, it was hurried), or the target said itself when to come again (then it rests). BAD: all else.
    """
    if error is None:
        return GOOD
    if not isinstance(error, UpstreamError) or error.blameless or error.hurried:
        return NEITHER
    if not isinstance(error, UpstreamRejected):
        return BAD
    if error.status == 429 and error.retry_after_ms is not None and not error.elsewhere:
        return NEITHER
    return BAD if error.elsewhere or error.status in {408, 429} else GOOD


def rest(circuit: Circuit, error: UpstreamError) -> None:
    """Leave a target alone that named the time until which it can serve nobody: one with a 429, or a 503."""
    if error.retry_after_ms is not None and error.status in RESTING:
        circuit.rest(time.monotonic_ns() + error.retry_after_ms * 1_000_000 - EARLY_NS)


def scrubbed(data: bytes, secrets: Sequence[str]) -> bytes:
    """A JSON text without the secrets, however they are spelt in it."""
    if not secrets:
        return data
    try:
        tree = orjson.loads(data)
    except orjson.JSONDecodeError:
        tree = None
    try:
        plain = orjson.dumps(tree) if tree is not None else data
    except orjson.JSONEncodeError:  # it reads deeper than it writes
        return TOO_DEEP
    found = [secret.encode() for secret in secrets if secret.encode() in plain or secret.encode() in data]
    if not found:
        return data
    for secret in found:
        plain = plain.replace(secret, b"***")
    return plain


def _error_tree(body: bytes) -> dict[str, object] | None:
    """What an error body tells of it, or None.

    Known forms: OpenAI's and Anthropic's ``error``, with only words instead of the object (Ollama), in a list (Google),
    flat (Mistral, vLLM), and FastAPI's ``detail``.
    """
    try:
        tree = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if isinstance(tree, list) and tree:
        tree = tree[0]
    if not isinstance(tree, dict):
        return None
    found = tree.get("error")
    if isinstance(found, str):
        return {"message": found}
    if found is None:
        return _flat(tree)
    return found if isinstance(found, dict) else None


def _flat(tree: dict[str, object]) -> dict[str, object] | None:
    words = tree.get("message") or tree.get("detail")
    if not words:
        return None
    if not isinstance(words, str):
        try:
            words = orjson.dumps(words).decode()
        except orjson.JSONEncodeError:
            return None
    return {"message": words, **{name: tree.get(name) for name in ("type", "param", "code")}}


def _enclosed(body: bytes, tree: dict[str, object]) -> bytes:
    """The body, or what it tells as the member ``error`` that clients look for."""
    whole = orjson.loads(body)
    if isinstance(whole, dict) and whole.get("error") is not None:
        return body
    try:
        return orjson.dumps({"error": tree})
    except orjson.JSONEncodeError:
        return TOO_DEEP
