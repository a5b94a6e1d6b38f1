"""Anthropic's Messages: relayed as they come, errors in Anthropic's form; a stream has to end with ``message_stop``.

What lies below (tokens counted, batches) is relayed as any other path of an upstream's, but its callers too are Anthropic's.
"""

from agw_proxy.api.endpoint import Relay, Schema
from agw_proxy.api.passthrough import METHODS, in_form, relayed, with_others

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
_REQUEST: Schema = {
    "type": "object",
    "required": ["model", "max_tokens", "messages"],
    "additionalProperties": True,
    "properties": {
        "model": {"type": "string", "minLength": 1, "description": "A model or virtual model; see GET /v1/models."},
        "max_tokens": {"type": "integer", "description": "Bound of the answer, in tokens."},
        "messages": {
            "type": "array",
            "description": "The conversation so far.",
            "items": {"type": "object", "additionalProperties": True, "properties": {"role": {"type": "string"}}},
        },
        "stream": {"type": ["boolean", "null"], "description": "Answer as server-sent events."},
    },
    "examples": [{"model": "agw/echo", "max_tokens": 100, "messages": [{"role": "user", "content": "Say hello"}]}],
}

_POST, *_OTHERS = with_others(
    relayed("POST", "messages", PATH, _RELAY, dialect="anthropic", summary="Messages of the Anthropic API")
)
ENDPOINTS = (
    in_form(
        _POST,
        "Answer a conversation in Anthropic's form",
        _REQUEST,
        "Any model; one whose upstream does not speak Messages is asked in its own form.",
        ", ended by `message_stop`",
    ),
    *_OTHERS,
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
