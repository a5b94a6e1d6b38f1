"""Which headers cross the gateway, in both directions; everything else stays on its side (invariant 5)."""

import re
import secrets
from collections.abc import Iterable, Mapping, Sequence

from multidict import CIMultiDictProxy

from agw_proxy.errors import InvalidParameter
from agw_proxy.spans import CURRENT, PARENT
from agw_proxy.types import RawHeaders

HOP_BY_HOP = frozenset(
    {
        "connection", "keep-alive", "proxy-connection", "proxy-authenticate", "proxy-authorization", "te", "trailer",
        "transfer-encoding", "upgrade", "http2-settings",
    }
)  # fmt: skip
CREDENTIALS = frozenset(
    {"authorization", "x-api-key", "api-key", "x-goog-api-key", "openai-organization", "openai-project"}
)
"""The caller's own provider credentials: sent on only where an upstream has ``auth: passthrough``."""
MADE_ANEW = frozenset({"host", "content-length", "expect", "accept-encoding", "x-request-id"})
TO_THE_GATEWAY = frozenset(
    {
        "x-agw-key", "x-agw-upstream", "x-agw-cache", "idempotency-key", "x-user-id", "x-channel-id", "x-session-id",
    }
)  # fmt: skip
SIGNED_IN = frozenset(
    {
        "cookie", "cookie2", "set-cookie", "x-auth-token", "x-access-token", "x-amz-security-token", "x-csrf-token",
        "x-serverless-authorization", "ocp-apim-subscription-key", "cf-access-client-id", "cf-access-client-secret",
        "cf-access-jwt-assertion", "x-goog-iap-jwt-assertion", "x-amzn-oidc-data", "x-amzn-oidc-accesstoken",
    }
)  # fmt: skip
"""Cookies, and what doors in front of a gateway have let the caller in by."""
NETWORK = frozenset(
    {
        "forwarded", "via", "x-real-ip", "x-forwarded", "forwarded-for", "x-client-ip", "x-cluster-client-ip",
        "true-client-ip", "cf-connecting-ip", "cf-connecting-ipv6", "fastly-client-ip", "x-original-forwarded-for",
        "x-envoy-external-address",
    }
)  # fmt: skip
OURS = MADE_ANEW | TO_THE_GATEWAY | SIGNED_IN | NETWORK
KEPT_IN = HOP_BY_HOP | CREDENTIALS | OURS
KEPT_PREFIXES = ("proxy-", "sec-websocket-", "x-agw-", "x-forwarded-")
"""Of the connection, meant for the gateway, or about the caller's network as well, whatever follows."""

SAFE_OUT = frozenset(
    {
        b"content-type", b"content-encoding", b"content-language", b"content-disposition", b"cache-control", b"etag",
        b"last-modified", b"expires", b"accept-ranges", b"content-range", b"openai-processing-ms", b"openai-version",
        b"openai-model", b"x-models-etag", b"x-reasoning-included", b"x-inference-time", b"x-compute-time",
    }
)  # fmt: skip
LIMITS_OUT = (b"x-ratelimit-", b"anthropic-ratelimit-")
SAFE_OUT_PREFIXES = (b"x-codex-", b"x-openrouter-", b"x-groq-", b"x-vllm-", *LIMITS_OUT[1:])

REQUEST_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/+=-]{0,127}")
TRACEPARENT = "traceparent"
SURROGATE = re.compile("[\ud800-\udfff]")
IDEMPOTENCY_KEY = "Idempotency-Key"
PRINTABLE = re.compile(r"[\x20-\x7e]{1,256}")


def request_id(headers: Mapping[str, str]) -> str:
    """The caller's ``x-request-id`` where it is a sane one, else a new one."""
    sent = headers.get("x-request-id", "")
    return sent if REQUEST_ID.fullmatch(sent) else f"req_{secrets.token_hex(12)}"


def trace_id(headers: Mapping[str, str]) -> str | None:
    """The trace of a W3C ``traceparent`` (Trace Context section 3.2), or None."""
    found = PARENT.fullmatch(headers.get(TRACEPARENT, ""))
    return found[1] if found else None


def label(headers: Mapping[str, str], name: str) -> str | None:
    """A header that names a subject (user, channel): printable ASCII of at most 256 characters, else None."""
    sent = headers.get(name, "")
    return sent if PRINTABLE.fullmatch(sent) else None


def idempotency_key(values: Sequence[str]) -> str:
    """The request's one Idempotency-Key, which may have come several times. Raises InvalidParameter."""
    if len(values) > 1 or not PRINTABLE.fullmatch(values[0]):
        raise InvalidParameter(
            f"The header {IDEMPOTENCY_KEY} is one key of 1 to 256 printable characters.", param=IDEMPOTENCY_KEY
        )
    return values[0]


def towards_upstream(headers: CIMultiDictProxy[str]) -> list[tuple[str, str]]:
    """The caller's headers without credentials, cookies, hop-by-hop headers and what is meant for the gateway.

    Nor those whose value is not UTF-8: aiohttp's client could send them shortened only (the fast lane sends them whole).
    Where the request is traced here, the upstream goes on below its span.
    """
    named = named_by_connection(headers)
    span = CURRENT.get()
    traced = [(TRACEPARENT, span.traceparent)] if span is not None and span.recorded else []
    if traced:
        named = {*named, TRACEPARENT}
    return traced + [
        (name, value)
        for name, value in headers.items()
        if (lower := name.lower()) not in KEPT_IN
        and lower not in named
        and not lower.startswith(KEPT_PREFIXES)
        and not SURROGATE.search(value)
    ]


def named_by_connection(headers: CIMultiDictProxy[str]) -> set[str]:
    """What a Connection header makes hop-by-hop (RFC 9110 section 7.6.1), in lower case."""
    return {token.strip().lower() for value in headers.getall("Connection", ()) for token in value.split(",")}


def own_credentials(headers: CIMultiDictProxy[str]) -> list[tuple[str, str]]:
    """The caller's provider credentials, for an upstream with ``auth: passthrough``."""
    named = named_by_connection(headers)
    return [
        (name, value)
        for name, value in headers.items()
        if (lower := name.lower()) in CREDENTIALS and lower not in named and not SURROGATE.search(value)
    ]


def towards_client(headers: RawHeaders, *, limits: bool) -> Iterable[tuple[str, str]]:
    """An upstream's safe headers. ``limits``: those of its limits too (where no limit of ours says more)."""
    named = {
        token.strip().lower() for name, value in headers if name.lower() == b"connection" for token in value.split(b",")
    }
    for name, value in headers:
        lower = name.lower()
        if lower in named:
            continue
        of_limits = lower.startswith(LIMITS_OUT)
        if (limits and of_limits) or lower in SAFE_OUT or (lower.startswith(SAFE_OUT_PREFIXES) and not of_limits):
            try:
                yield name.decode("ascii"), value.decode("utf-8")
            except UnicodeDecodeError:
                continue  # bytes in no encoding that can be named: nothing a client could read
