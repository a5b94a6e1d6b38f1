"""The caller's own credentials for a provider, besides the gateway's key."""

from aiohttp import web

from agw_proxy._hot.keys import bearer
from agw_proxy.edge.headers import own_credentials
from agw_proxy.edge.state import State
from agw_proxy.errors import KeyMissing
from agw_proxy.types import Routed

PASSTHROUGH_HELP = (
    "The upstream '{}' is asked with your own provider credential (auth: passthrough). "
    "Send the gateway's key in the header x-agw-key, and the provider's where your tool puts it."
)


def passed_credentials(request: web.BaseRequest, state: State, routed: Routed) -> list[tuple[str, str]] | None:
    """The caller's provider credential, where a target asks for it and the gateway's key came in x-agw-key."""
    needing = [service for target in routed.plan if (service := state.services[target.upstream]).auth == "passthrough"]
    if not needing:
        return None
    if "x-agw-key" not in request.headers:
        raise KeyMissing(PASSTHROUGH_HELP.format(needing[0].upstream.name))
    # A tool that puts the gateway's key everywhere must not send it on: it is no provider's credential.
    sent = [(name, value, value.encode("utf-8", "surrogateescape")) for name, value in own_credentials(request.headers)]
    return [(name, value) for name, value, raw in sent if not state.keys.knows(bearer(raw) or raw)]
