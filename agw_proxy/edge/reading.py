"""What is read off a request before anything is decided: its target, its Host, the look into its JSON."""

import re
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from agw_proxy._hot.limit import subject
from agw_proxy._hot.peek import Peek, PeekError, peek
from agw_proxy.errors import CallerError, HeadTooLarge, InvalidHTTP, InvalidJSON, InvalidParameter

if TYPE_CHECKING:
    from aiohttp import web

MAX_QUERY_FIELDS = 100
PREFIX_BYTES = 512  # of a body: the beginning of a prompt
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
ABSOLUTE = re.compile(r"https?://[^/?]*", re.IGNORECASE)
HOST = re.compile(
    r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+,;=%-]*)(?::(?:[0-5]?\d{0,4}|6[0-4]\d{3}|65[0-4]\d{2}|655[0-2]\d|6553[0-5]))?"
)


def check_head(request: "web.BaseRequest", max_bytes: int) -> None:
    """What aiohttp lets through: a head that is large in all, a Host that is none (RFC 9110 section 7.2).

    Raises HeadTooLarge, InvalidHTTP.
    """
    if sum(len(name) + len(value) for name, value in request.raw_headers) > max_bytes:
        raise HeadTooLarge(
            f"The request's header fields are larger than {max_bytes // 1024} KiB in all (server.max_header_kb)."
        )
    if HOST.fullmatch(request.headers.get("Host", "")) is None:
        raise InvalidHTTP("The Host header is not a host and an optional port (RFC 9110 section 7.2).")


def fields_of(query: str) -> dict[str, str]:
    """The fields of a query, the last of each name. Raises CallerError for too many."""
    try:
        return dict(parse_qsl(query, keep_blank_values=True, max_num_fields=MAX_QUERY_FIELDS))
    except ValueError:
        raise CallerError(f"The query has more than {MAX_QUERY_FIELDS} fields.") from None


def look_into(body: bytes, depth: int) -> Peek:
    """Raises InvalidJSON for what is no acceptable JSON object, InvalidParameter for a member of the wrong type."""
    try:
        return peek(body, depth)
    except PeekError as error:
        if error.param is not None:
            raise InvalidParameter(str(error), param=error.param) from None
        raise InvalidJSON(str(error)) from None


def sticky_of(kind: str | None, session: str | None, body: bytes) -> int:
    """What keeps a request with its like, as the fast lane computes it: a hash that is not 0, or 0 for nothing.

    ``kind``: of the route, ``session`` (the header ``x-session-id``) or ``prefix`` (the beginning of the body).
    """
    if kind == "session" and session:
        return subject(session.encode("utf-8", "surrogateescape")) | 1
    return subject(body[:PREFIX_BYTES]) | 1 if kind == "prefix" else 0


def target_of(raw: str) -> tuple[str, str]:
    """(path, query) of a request target in origin or absolute form (RFC 9112 section 3.2), still percent-encoded."""
    found = ABSOLUTE.match(raw)
    if found is not None:
        raw = raw[found.end() :]
        raw = raw if raw.startswith("/") else f"/{raw}"
    path, _, query = raw.partition("?")
    return path, query
