"""Answers from memory, for endpoints that are open to all and never wait: a probe costs no more than its own few bytes.

The fast lane finds the head of such a request already read and checked; there is no body.
"""

import re
from collections.abc import Mapping, Sequence

from agw_proxy.api.endpoint import Endpoint
from agw_proxy.edge.accounts import Accounts
from agw_proxy.edge.respond import answer_headers, whole
from agw_proxy.types import Answer, Asked, Control

FIELD = re.compile(rb"\r?\n(x-request-id|traceparent)[ \t]*:[ \t]*([^\r\n]*)", re.IGNORECASE)


class Prompt:
    """Of one edge."""

    def __init__(self, endpoints: Sequence[Endpoint], control: Control, accounts: Accounts) -> None:
        self._control = control
        self._accounts = accounts
        self._endpoints: Mapping[tuple[str, str], Endpoint] = _found(endpoints)
        self.targets = frozenset(f"{method} {path}".encode() for method, path in self._endpoints)
        """What the lane may ask for: ``GET /health`` and the like."""

    def answer(self, head: bytes, peer: str | None, started: int, *, close: bool) -> bytes:
        """The whole answer; accounts for it. ``head``: of a request for one of ``targets``, with no query."""
        method, path, _ = head.split(b" ", 2)
        endpoint = self._endpoints[method.decode(), path.decode()]
        fields = {
            name.decode().lower(): value.decode("latin-1").rstrip() for name, value in reversed(FIELD.findall(head))
        }
        exchange = self._accounts.begin(fields, endpoint.method, peer)
        exchange.started, exchange.method, exchange.lane_reason = started, method.decode(), "prompt"
        exchange.endpoint, exchange.dialect, exchange.lane = endpoint.name, endpoint.dialect, "fast"
        try:
            made = _now(endpoint, self._control)
            exchange.status = made.status
            headers = answer_headers(exchange, made) + ([("Connection", "close")] if close else [])
            return whole(made.status, headers, made.body, bodiless=method == b"HEAD")
        finally:
            self._accounts.finish(exchange)


def _found(endpoints: Sequence[Endpoint]) -> dict[tuple[str, str], Endpoint]:
    """By method and path; GET answers HEAD too, where nothing else does (RFC 9110 section 9.3.2)."""
    prompt = [endpoint for endpoint in endpoints if endpoint.prompt]
    found = {("HEAD", endpoint.path): endpoint for endpoint in prompt if endpoint.method == "GET"}
    return found | {(endpoint.method, endpoint.path): endpoint for endpoint in prompt}


def _now(endpoint: Endpoint, control: Control) -> Answer:
    """Run a handler that never waits."""
    if endpoint.handler is None:
        raise TypeError(f"endpoint {endpoint.name} has no handler")
    running = endpoint.handler(control, Asked(None, {}, {}, b"", endpoint.dialect))
    try:
        running.send(None)
    except StopIteration as ended:
        made: Answer = ended.value
        return made
    running.close()
    raise TypeError(f"endpoint {endpoint.name} is said to answer at once, and waits")
