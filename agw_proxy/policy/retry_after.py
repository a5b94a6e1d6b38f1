"""When an upstream says to come back: Retry-After in both forms, retry-after-ms, x-ratelimit-reset-*, Google's RetryInfo."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from agw_proxy.types import RawHeaders

MAX_WAIT_MS = 30_000  # SDKs obey whatever they are told; one slept 200 s, twice
PART = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)(ms|s|m|h)")
UNIT_MS = {"ms": 1.0, "s": 1000.0, "m": 60_000.0, "h": 3_600_000.0}
NUMBER = re.compile(r"\d{1,9}(?:\.\d{1,9})?")
EPOCH_SECONDS = re.compile(r"\d{10}(?:\.\d{1,9})?")
EPOCH_MS = re.compile(r"\d{13}")
RETRY_INFO = b"type.googleapis.com/google.rpc.RetryInfo"
DELAY = re.compile(rb'"retryDelay"\s*:\s*"(\d{1,9}(?:\.\d{1,9})?)s"')


def wait_ms(headers: RawHeaders, now: datetime, most_ms: int = MAX_WAIT_MS) -> int | None:
    """Milliseconds to wait, 0 to ``most_ms``, or None where the answer says nothing usable (RFC 9110 section 10.2.3).

    ``now``: an aware time; a date in the past is 0, rubbish is nothing.
    """
    found = {name.lower(): value.decode("latin-1").strip() for name, value in headers}
    for wait in (
        _number(found.get(b"retry-after-ms"), 1.0),
        _number(found.get(b"retry-after"), 1000.0),
        _date(found, now),
        _reset(found, now),
    ):
        if wait is not None:
            return min(max(round(wait), 0), most_ms)
    return None


def told_ms(body: bytes) -> int | None:
    """The same out of an error's body: Google says it there, in ``google.rpc.RetryInfo``, and in no header."""
    found = DELAY.search(body) if RETRY_INFO in body else None
    return None if found is None else min(round(float(found[1]) * 1000.0), MAX_WAIT_MS)


def _number(text: str | None, unit_ms: float) -> float | None:
    return float(text) * unit_ms if text and NUMBER.fullmatch(text) else None


def _date(found: Mapping[bytes, str], now: datetime) -> float | None:
    try:
        when = parsedate_to_datetime(found[b"retry-after"])
    except (KeyError, ValueError, OverflowError):
        return None
    return (when.replace(tzinfo=when.tzinfo or UTC) - now).total_seconds() * 1000.0


def _reset(found: Mapping[bytes, str], now: datetime) -> float | None:
    """The reset of what has run out; where nothing says it has, none."""
    waits = [
        wait
        for unit in (b"requests", b"tokens")
        if found.get(b"x-ratelimit-remaining-" + unit) == "0"
        and (wait := _duration(found.get(b"x-ratelimit-reset-" + unit), now)) is not None
    ]
    return max(waits, default=None)


def _duration(text: str | None, now: datetime) -> float | None:
    """``1m30s``, ``250ms``, seconds, or the time itself: seconds or milliseconds since 1970."""
    if text and EPOCH_SECONDS.fullmatch(text):
        return (float(text) - now.timestamp()) * 1000.0
    if text and EPOCH_MS.fullmatch(text):
        return float(text) - now.timestamp() * 1000.0
    parts = PART.findall(text or "")
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return _number(text, 1000.0)
    return sum(float(number) * UNIT_MS[unit] for number, unit in parts)
