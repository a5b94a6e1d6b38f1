"""Anthropic's Messages: relayed as they come, errors in Anthropic's form; a stream has to end with ``message_stop``.

What lies below (tokens counted, batches) is relayed as any other path of an upstream's, but its callers too are Anthropic's.
"""

from agw_proxy.api.endpoint import Relay
from agw_proxy.api.passthrough import METHODS, relayed, with_others

PATH = "/v1/messages"
BELOW = PATH + "/{rest:path}"
_RELAY = Relay(
    "",
    needs_model=False,
    json_only=False,
    sse_usage=False,
    known_end=True,
    model_paths=frozenset({PATH}),
    form="messages",
)
_BELOW = Relay("", needs_model=False, json_only=False, sse_usage=False, model_paths=frozenset({PATH + "/count_tokens"}))

ENDPOINTS = (
    *with_others(
        relayed("POST", "messages", PATH, _RELAY, dialect="anthropic", summary="Messages of the Anthropic API")
    ),
    *(
        relayed(
            method,
            f"messages_below_{method.lower()}",
            BELOW,
            _BELOW,
            dialect="anthropic",
            summary="What the Anthropic API has below them (count_tokens, batches)",
        )
        for method in METHODS
    ),
)
