"""``/passthrough/{upstream}/...``: whatever else a provider's API has, relayed as it comes to the upstream that the path names.

Which paths exist is the upstream's to say, so that the OpenAPI document does not list them. What is behind the
upstream's name goes on as it came, behind its ``base_url``.
"""

import msgspec

from agw_proxy.api.endpoint import Relay
from agw_proxy.api.passthrough import METHODS, relayed

_RELAY = Relay("", needs_model=False, json_only=False, sse_usage=False, model_paths=frozenset(), raw=True)
_SUMMARY = "Any path of one upstream's own API, as it is there"

ENDPOINTS = tuple(
    msgspec.structs.replace(
        relayed(method, f"raw_{method.lower()}", "/passthrough/{upstream}/{rest:path}", _RELAY, summary=_SUMMARY),
        by_asker=True,
    )
    for method in METHODS
)
