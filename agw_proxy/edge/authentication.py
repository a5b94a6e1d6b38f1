"""Who is asking, and whether they may ask at this endpoint at all."""

import contextlib
import hmac
import time

from agw_proxy._hot.keys import DuplicateCredential, credential, digest
from agw_proxy.api.endpoint import Access
from agw_proxy.edge.exchange import Exchange
from agw_proxy.edge.state import State
from agw_proxy.errors import AdminOnly, GatewayError
from agw_proxy.types import RawHeaders


def authenticate(exchange: Exchange, headers: RawHeaders, access: Access, state: State, *, knows_keys: bool) -> None:
    """Put the principal into ``exchange``, once; what the fast lane has handed over has one.

    ``knows_keys``: see ``Endpoint``. Raises AdminOnly and what ``Keys.authenticate`` does; where the endpoint is open to
    all, nothing: a probe must not fail for its key.
    """
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


def _may_scrape(headers: RawHeaders, state: State) -> bool:
    if state.scrape_digest is None:
        return False
    try:
        sent = credential(headers)
    except DuplicateCredential:
        return False  # told by the look-up that follows
    return sent is not None and hmac.compare_digest(digest(sent.value), state.scrape_digest)
