"""Limits in the configuration -> compiled rules, and refusals -> errors and headers."""

from collections.abc import Sequence

from agw_proxy._hot.limit import (
    CONCURRENT,
    PER_GLOBAL,
    PER_KEY,
    PER_MODEL,
    PER_USER,
    REQUESTS,
    TOKENS,
    Grant,
    Rule,
)
from agw_proxy._hot.peek import Peek
from agw_proxy.config.settings import Limit
from agw_proxy.errors import RateLimited

PER = {"global": PER_GLOBAL, "key": PER_KEY, "user": PER_USER, "model": PER_MODEL}
UNITS = {REQUESTS: "requests", TOKENS: "tokens", CONCURRENT: "concurrent requests"}
BYTES_PER_TOKEN = 4  # an English-and-code average, only for the reservation: the upstream's usage settles it
NANOSECONDS = 1_000_000_000


def compile_rules(limits: Sequence[Limit], scope: str) -> list[Rule]:
    """Rules named ``scope/per-unit`` (or ``scope/name``): stable over reloads, bounded as metric labels."""
    rules: list[Rule] = []
    taken: set[str] = set()
    for limit in limits:
        if limit.requests is not None:
            unit, amount, word = REQUESTS, limit.requests, "requests"
        elif limit.tokens is not None:
            unit, amount, word = TOKENS, limit.tokens, "tokens"
        else:
            unit, amount, word = CONCURRENT, limit.concurrent or 0, "concurrent"
        name = base = f"{scope}/{limit.name or f'{word}-per-{limit.per}'}"
        number = 2
        while name in taken:
            name, number = f"{base}-{number}", number + 1
        taken.add(name)
        period_ns = 0 if unit == CONCURRENT else round(limit.period * NANOSECONDS)
        rules.append(Rule(name, PER[limit.per], unit, amount, period_ns, 0 if unit == CONCURRENT else limit.burst or 0))
    return rules


def estimate_tokens(body_bytes: int, seen: Peek | None) -> int:
    """What to reserve for a request: its prompt by size and the answer it allows itself."""
    answer = max(seen.max_tokens, 0) if seen is not None else 0
    return body_bytes // BYTES_PER_TOKEN + answer


def refusal(grant: Grant) -> RateLimited:
    """The error for a request that was not granted."""
    rule = grant.rule
    if rule is None:
        raise ValueError("the request was granted")
    if rule.unit == CONCURRENT:
        message = (
            f"Limit '{rule.name}' reached: {rule.amount} concurrent requests. Wait for one to finish and try again."
        )
        return RateLimited(message, rule=rule.name, retry_after_ms=1000)
    wait_ms = -(-grant.retry_after_ns // 1_000_000)
    message = (
        f"Limit '{rule.name}' reached: {rule.amount} {UNITS[rule.unit]} per {duration(rule.period_ns)}. "
        f"Try again in {duration(wait_ms * 1_000_000)}."
    )
    return RateLimited(message, rule=rule.name, retry_after_ms=wait_ms)


def limit_headers(grant: Grant) -> list[tuple[str, str]]:
    """``x-ratelimit-*`` of the tightest rule in requests and in tokens."""
    headers: list[tuple[str, str]] = []
    if grant.requests_limit >= 0:
        headers += [
            ("x-ratelimit-limit-requests", str(grant.requests_limit)),
            ("x-ratelimit-remaining-requests", str(grant.requests_remaining)),
            ("x-ratelimit-reset-requests", duration(grant.requests_reset_ns)),
        ]
    if grant.tokens_limit >= 0:
        headers += [
            ("x-ratelimit-limit-tokens", str(grant.tokens_limit)),
            ("x-ratelimit-remaining-tokens", str(grant.tokens_remaining)),
            ("x-ratelimit-reset-tokens", duration(grant.tokens_reset_ns)),
        ]
    return headers


def duration(nanoseconds: int) -> str:
    """As OpenAI writes it: ``2m30s``, ``1.5s``, ``120ms``; rounded up to whole milliseconds."""
    milliseconds = -(-max(nanoseconds, 0) // 1_000_000)
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    hours, rest = divmod(milliseconds, 3_600_000)
    minutes, rest = divmod(rest, 60_000)
    seconds = f"{rest / 1000:.3f}".rstrip("0").rstrip(".")
    text = f"{hours}h" if hours else ""
    text += f"{minutes}m" if minutes else ""
    return text + (f"{seconds}s" if rest or not text else "")
