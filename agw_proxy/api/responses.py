"""OpenAI's Responses: relayed as they come; a stream has to end with ``response.completed``, ``.incomplete`` or ``.failed``.

Over a WebSocket (an upgrade on GET) each message of the client's is such a request, see ``edge.turns``.
"""

from agw_proxy.api.endpoint import Relay
from agw_proxy.api.passthrough import relayed, with_others

PATH = "/v1/responses"
_RELAY = Relay(
    "",
    needs_model=False,
    json_only=False,
    sse_usage=False,
    known_end=True,
    model_paths=frozenset({PATH}),
    form="responses",
    turns=True,
)

ENDPOINTS = with_others(relayed("POST", "responses", PATH, _RELAY))
