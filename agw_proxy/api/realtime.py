"""OpenAI's Realtime: a WebSocket on ``/v1/realtime``, relayed message by message to an upstream that offers it.

The paths below it (client secrets, calls) are the upstream's own, and relayed as they come.
"""

from agw_proxy.api.endpoint import Endpoint, Parameter, Relay, Response
from agw_proxy.api.passthrough import METHODS, relayed
from agw_proxy.errors import UpgradeNeeded

_PLAIN = Relay("", needs_model=False, json_only=False, sse_usage=False, model_paths=frozenset())

ENDPOINTS = (
    Endpoint(
        name="realtime",
        method="GET",
        path="/v1/realtime",
        access="key",
        relay=Relay("/realtime", needs_model=False, json_only=False, sse_usage=False, socket=True),
        summary="Talk with a model over a WebSocket",
        description=(
            "Asks for an upgrade to a WebSocket. Browsers, which can send no header, put the key into the subprotocol "
            "`openai-insecure-api-key.KEY`."
        ),
        tag="Models at work",
        query=(
            Parameter(
                "model",
                {"type": "string"},
                "The model; without one the session goes to a whole upstream, which the key must be allowed.",
            ),
        ),
        responses={101: Response("The connection is a WebSocket from here on.")},
        errors=(UpgradeNeeded,),
    ),
    *(relayed(method, f"realtime_{method.lower()}", "/v1/realtime", _PLAIN) for method in METHODS if method != "GET"),
)
