"""Everything that can go wrong, one tree. Status, code, retryability and fault stand on the class; the message says what to do.

Codes are a closed, stable set (``caller_*``, ``policy_*``, ``upstream_*``, ``gateway_*``); ``CODES`` is their one table.
How an error looks on the wire is decided in one place, ``edge/respond.py``.
"""

from typing import ClassVar

from agw_proxy.printable import printable

CODES: dict[str, type["GatewayError"]] = {}


class GatewayError(Exception):
    """Root. ``status``: HTTP status. ``kind``: the OpenAI error type. ``alias``: the public ``code`` where clients expect another than ours."""

    code: ClassVar[str] = ""
    status: int = 500
    kind: ClassVar[str] = "api_error"
    alias: ClassVar[str | None] = None
    retryable: ClassVar[bool] = False
    blameless: ClassVar[bool] = False
    """It says nothing about the upstream that was to be asked: neither its health nor its circuit hears of it."""

    def __init_subclass__(cls) -> None:
        """Enter the class into ``CODES``; a duplicate code is a programming error."""
        super().__init_subclass__()
        if "code" not in cls.__dict__:
            return
        if CODES.setdefault(cls.code, cls) is not cls:
            raise TypeError(f"error code {cls.code!r} is used twice: {CODES[cls.code].__name__} and {cls.__name__}")

    def __init__(self, message: str, *, param: str | None = None, retry_after_ms: int | None = None) -> None:
        """``message``: for the caller, without secrets. ``param``: the request member at fault. ``retry_after_ms``: how long to wait."""
        message = printable(message)
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after_ms = retry_after_ms


class CallerError(GatewayError):
    """The request cannot be served as it is."""

    code, status, kind = "caller_invalid_request", 400, "invalid_request_error"


class InvalidJSON(CallerError):
    """The body is not acceptable JSON."""

    code, alias = "caller_invalid_json", "invalid_json"


class InvalidParameter(CallerError):
    """A member of the body has the wrong type or value."""

    code, alias = "caller_invalid_parameter", "invalid_value"


class ThreadUnsupported(CallerError):
    """A conversation that Anthropic is to hold (`thread`), for a model that it does not serve. Its clients then send all of it."""

    code, alias = "caller_thread_unsupported", "thread_unsupported_request"


class MissingParameter(CallerError):
    """A required member is missing."""

    code, alias = "caller_missing_parameter", "missing_required_parameter"


class InvalidHTTP(CallerError):
    """The bytes on the connection are not a request we accept (RFC 9112)."""

    code, alias = "caller_invalid_http", "invalid_http"


class KeyMissing(CallerError):
    """No gateway key came with the request."""

    code, status, alias = "caller_key_missing", 401, "invalid_api_key"


class KeyInvalid(CallerError):
    """A key came, but none that is known."""

    code, status, alias = "caller_key_invalid", 401, "invalid_api_key"


class UnknownPath(CallerError):
    """No such endpoint."""

    code, status, alias = "caller_unknown_path", 404, "unknown_url"


class ModelNotFound(CallerError):
    """No route leads to this model."""

    code, status, alias = "caller_model_not_found", 404, "model_not_found"


class NotKept(CallerError):
    """Nothing of this id is kept for the caller: it never was, has been deleted, or its time is over."""

    code, status, alias = "caller_not_kept", 404, "not_found"


class PreviousNotFound(CallerError):
    """The response that a request goes on from is not kept for the caller, or one before it is not."""

    code, alias = "caller_previous_not_found", "previous_response_not_found"


class MethodNotAllowed(CallerError):
    """The endpoint exists, with another method. ``allowed`` lists them for the Allow header."""

    code, status, alias = "caller_method_not_allowed", 405, "method_not_allowed"

    def __init__(self, message: str, *, allowed: tuple[str, ...]) -> None:
        """``allowed``: methods, for the Allow header (RFC 9110 section 10.2.1)."""
        super().__init__(message)
        self.allowed = allowed


class RequestTimeout(CallerError):
    """The caller took too long to send its request."""

    code, status, alias = "caller_timeout", 408, "request_timeout"


class BodyTooLarge(CallerError):
    """The body is over the configured bound."""

    code, status, alias = "caller_body_too_large", 413, "request_too_large"


class HeadTooLarge(CallerError):
    """The request line or the header fields are over the configured bound (RFC 6585 section 5)."""

    code, status, alias = "caller_head_too_large", 431, "request_header_fields_too_large"


class UnsupportedMediaType(CallerError):
    """The body's type or encoding is not one that this endpoint reads."""

    code, status, alias = "caller_unsupported_media_type", 415, "unsupported_media_type"


class UpgradeRefused(CallerError):
    """A protocol upgrade was asked for that is not served here (426 lets coding tools fall back at once)."""

    code, status, alias = "caller_upgrade_refused", 426, "upgrade_refused"


class UpgradeNeeded(CallerError):
    """A WebSocket is served here, and the request asks for none (RFC 9110 section 15.5.22)."""

    code, status, alias = "caller_upgrade_needed", 426, "upgrade_required"


class NotCached(CallerError):
    """The caller wants a kept answer or none, and there is none (RFC 9111 section 5.2.1.7)."""

    code, status, alias = "caller_not_cached", 504, "not_cached"


class IdempotencyConflict(CallerError):
    """Another request came with this Idempotency-Key before."""

    code, status, alias = "caller_idempotency_conflict", 409, "idempotency_conflict"


class SessionBusy(CallerError):
    """Another run is in this session: one after the other, or each sees half of what was said. Official clients try again."""

    code, status, alias = "caller_session_busy", 409, "conversation_locked"


class CallerGone(CallerError):
    """The caller left before the answer; never sent, only accounted (nginx's 499)."""

    code, status = "caller_gone", 499


class PolicyError(GatewayError):
    """Understood, and refused by policy."""

    code, status, kind, alias = "policy_forbidden", 403, "permission_error", "permission_denied"


class ModelForbidden(PolicyError):
    """The key may not use this model."""

    code, alias = "policy_model_forbidden", "model_forbidden"


class AdminOnly(PolicyError):
    """The endpoint needs a key with ``admin: true``."""

    code, alias = "policy_admin_only", "admin_only"


class RateLimited(PolicyError):
    """A limit refused the request. ``rule`` names it."""

    code, status, kind, alias = "policy_rate_limited", 429, "rate_limit_error", "rate_limit_exceeded"

    def __init__(self, message: str, *, rule: str, retry_after_ms: int | None) -> None:
        """``rule``: the limit's configured name."""
        super().__init__(message, retry_after_ms=retry_after_ms)
        self.rule = rule


class SessionSpent(RateLimited):
    """A cap on one session is reached: the loop that it is a turn of should end, so no client tries again by itself."""

    code, alias = "policy_session_spent", "session_limit_exceeded"


class BudgetSpent(RateLimited):
    """A budget has too little left for the request. 402 for Anthropic's clients, whose API has a status for it."""

    code, status, kind, alias = "policy_budget_spent", 429, "insufficient_quota", "insufficient_quota"

    def __init__(self, message: str, *, rule: str, retry_after_ms: int | None, dialect: str = "openai") -> None:
        """``dialect``: of the caller."""
        super().__init__(message, rule=rule, retry_after_ms=retry_after_ms)
        if dialect == "anthropic":
            self.status = 402


class Unpriced(PolicyError):
    """Nobody has said what the model costs, and a budget of the caller's wants to know (``unpriced: refuse``)."""

    code, alias = "policy_unpriced", "model_unpriced"


class GuardrailTripped(PolicyError):
    """A guardrail of the agent's has stopped the run."""

    code, status, kind, alias = "policy_guardrail_tripped", 400, "invalid_request_error", "guardrail_tripped"


class UpstreamError(GatewayError):
    """The upstream did not give a usable answer."""

    code, status, kind, alias = "upstream_error", 502, "api_error", "upstream_error"
    out_of_time: bool = False
    """A clock of the gateway's has run out."""
    hurried: bool = False
    """It was not given the time that it may take: neither its health nor its circuit hears of it."""


class UpstreamUnreachable(UpstreamError):
    """No connection: refused, no route, name not found, TLS failed."""

    code, alias, retryable = "upstream_unreachable", "upstream_unreachable", True


class UpstreamReset(UpstreamError):
    """The connection broke before the answer began."""

    code, alias, retryable = "upstream_reset", "upstream_reset", True


class UpstreamInvalid(UpstreamError):
    """The answer is not HTTP or not what the endpoint speaks (HTML, a redirect, bad framing)."""

    code, alias, retryable = "upstream_invalid", "upstream_invalid_response", True


class UpstreamUnavailable(UpstreamError):
    """The upstream answered 5xx, in whatever form, or is left alone for a while. Its 529 is 529 to Anthropic's clients."""

    code, status, alias, retryable = "upstream_unavailable", 503, "upstream_unavailable", True
    crowded: bool = False  # it said 529


class UpstreamTimeout(UpstreamError):
    """The upstream did not answer in time."""

    code, status, kind, alias, retryable = "upstream_timeout", 504, "timeout", "upstream_timeout", True
    out_of_time = True


class UpstreamRefused(UpstreamError):
    """The upstream refused the gateway's own credentials (401); in our words, since its text may quote the key."""

    code, status, alias = "upstream_refused_key", 401, "upstream_authentication_failed"


class UpstreamFailed(UpstreamError):
    """The upstream answered 500 or another 5xx that says nothing about when to come back."""

    code, alias, retryable = "upstream_failed", "upstream_failed", True


class UpstreamRejected(UpstreamError):
    """The upstream's own 4xx, passed on with its status and, where it is JSON, its body.

    ``elsewhere``: another target may still serve the request although this one never will (quota, credentials).
    """

    code, alias, kind = "upstream_rejected", "upstream_rejected", "invalid_request_error"

    def __init__(
        self,
        message: str,
        *,
        status: int,
        payload: bytes | None = None,
        retry_after_ms: int | None = None,
        elsewhere: bool = False,
    ) -> None:
        """``status``: 400 to 499. ``payload``: the upstream's error object, encoded, without secrets."""
        super().__init__(message, retry_after_ms=retry_after_ms)
        self.status = status
        self.payload = payload
        self.elsewhere = elsewhere


class UpstreamBroken(UpstreamError):
    """A stream or body ended before its end, after bytes had gone to the caller."""

    code, alias = "upstream_broken", "upstream_stream_broken"


class UpstreamQueueFull(UpstreamError):
    """All places at the upstream are taken, and the queue for them is full or took too long (``max_concurrent``, ``queue``)."""

    code, status, alias, blameless = "upstream_queue_full", 503, "upstream_queue_full", True


class OutOfDescriptors(UpstreamError):
    """No connection to the upstream, since the gateway has no file descriptor left."""

    code, status, alias, blameless = "gateway_out_of_descriptors", 503, "gateway_overloaded", True


class AgentError(UpstreamError):
    """An agent did not give a usable answer. Nobody runs it again by himself: its tools have done what they did."""

    code, alias, blameless = "upstream_agent_error", "agent_error", True


class AgentFailed(AgentError):
    """The agent's own code failed, or its model did what makes no sense; the log says how, under the request id."""

    code, status, alias = "upstream_agent_failed", 500, "agent_failed"


class AgentTimeout(AgentError):
    """The run took longer than the agent's bound (``seconds``)."""

    code, status, kind, alias = "upstream_agent_timeout", 504, "timeout", "agent_timeout"


class AgentSpent(AgentError):
    """The run came to a bound of turns or tokens before it had said anything that its guardrails had seen."""

    code, status, alias = "upstream_agent_spent", 500, "agent_bound_reached"


class AgentNeedsApproval(AgentError):
    """The agent wants to use a tool that somebody has to approve first, which cannot be asked for here."""

    code, status, kind, alias = "upstream_agent_needs_approval", 409, "invalid_request_error", "agent_needs_approval"


class AgentCallFailed(AgentError):
    """A model call of the agent's failed, or was refused: the status is that call's, 502 where it has none."""

    code, alias = "upstream_agent_call_failed", "agent_model_call_failed"

    def __init__(self, message: str, *, status: int = 502, retry_after_ms: int | None = None) -> None:
        """``status``: 400 or above."""
        super().__init__(message, retry_after_ms=retry_after_ms)
        self.status = status


class AgentCallLimited(AgentError):
    """A model call of the agent's was refused since there were too many (429)."""

    code, status, kind, alias = "upstream_agent_call_limited", 429, "rate_limit_error", "rate_limit_exceeded"


class InternalError(GatewayError):
    """A defect of ours; details are in the log under the request id."""

    code, alias = "gateway_internal", "internal_error"


class Draining(GatewayError):
    """The gateway is shutting down."""

    code, status, alias, retryable = "gateway_draining", 503, "gateway_draining", True


class Overloaded(GatewayError):
    """A bound of the gateway's own (requests, memory, lateness, connections) is reached."""

    code, status, alias, retryable = "gateway_overloaded", 503, "gateway_overloaded", True


class LimitsUnavailable(GatewayError):
    """The limits are shared through Redis, which does not answer, and the policy for that is ``fail_closed``."""

    code, status, alias, retryable = "gateway_limits_unavailable", 503, "gateway_limits_unavailable", True


class StoreUnavailable(GatewayError):
    """What is kept cannot be read or written now: the disk is full or broken, or another process holds the file."""

    code, status, alias, retryable = "gateway_store_unavailable", 503, "store_unavailable", True


class ReloadFailed(GatewayError):
    """The new configuration was not accepted; the old one goes on serving."""

    code, status, alias = "gateway_reload_failed", 409, "reload_failed"
