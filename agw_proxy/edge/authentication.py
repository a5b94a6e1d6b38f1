"""Who is asking, and whether they may ask at this endpoint at all."""

import contextlib
import hmac
import time

from agw_proxy._hot.keys import DuplicateCredential, credential, digest
from agw_proxy.api.endpoint import Access
from agw_proxy.edge.exchange import Exchange, Within
from agw_proxy.edge.state import State
from agw_proxy.errors import AdminOnly, BudgetSpent, CallerError, GatewayError, KeyMissing
from agw_proxy.types import Principal, RawHeaders

MAX_DEPTH = 8  # runs within runs: agents that call each other without end are stopped here


def authenticate(exchange: Exchange, headers: RawHeaders, access: Access, state: State, *, knows_keys: bool) -> None:
    """Put the principal into ``exchange``, once; what the fast lane has handed over has one.

    ``knows_keys``: see ``Endpoint``. Raises AdminOnly and what ``Keys.authenticate`` does; where the endpoint is open to
    all, nothing: a probe must not fail for its key. A run's own requests are its caller's, whatever key they carry: never
    an admin's; raises BudgetSpent where the run may not cost more, and CallerError for runs too deep within each other.
    """
    if exchange.within is not None:
        exchange.principal = _of_a_run(exchange.within, access)
        return
    if exchange.carried is not None or (access == "open" and not knows_keys):
        return
    begun = time.monotonic_ns()
    try:
        if access == "open":
            with contextlib.suppress(GatewayError):
                exchange.principal, _ = state.keys.authenticate(headers)
            return
        if access == "scrape" and _may_scrape(headers, state):
            return
        exchange.principal, _ = state.keys.authenticate(headers)
        if access in {"admin", "scrape"} and not exchange.principal.admin:
            raise AdminOnly(
                f"The key '{exchange.principal.name}' is not an admin key; this endpoint needs one (admin: true)."
            )
    finally:
        exchange.auth_ns = time.monotonic_ns() - begun


def _of_a_run(within: Within, access: Access) -> Principal:
    if within.depth > MAX_DEPTH:
        raise CallerError(
            f"Agents call each other more than {MAX_DEPTH} deep: agent '{within.agent}' may not ask models any more."
        )
    if access in {"admin", "scrape"}:
        raise AdminOnly("This endpoint is not for runs of agents.")
    if within.principal is None:
        raise KeyMissing("Nobody has asked for this run whom its model calls could be charged to.")
    if within.spent:
        raise BudgetSpent(
            f"This run of agent '{within.agent}' has come to what a run of it may cost.",
            rule=f"agents.{within.agent}",
            retry_after_ms=None,
        )
    return within.principal


def _may_scrape(headers: RawHeaders, state: State) -> bool:
    if state.scrape_digest is None:
        return False
    try:
        sent = credential(headers)
    except DuplicateCredential:
        return False  # told by the look-up that follows
    return sent is not None and hmac.compare_digest(digest(sent.value), state.scrape_digest)
