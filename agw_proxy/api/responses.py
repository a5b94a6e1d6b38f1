"""OpenAI's Responses: relayed as they come; a stream has to end with ``response.completed``, ``.incomplete`` or ``.failed``.

Over a WebSocket (an upgrade on GET) each message of the client's is such a request, see ``edge.turns``.
"""

from agw_proxy.api.endpoint import Relay, Schema
from agw_proxy.api.passthrough import in_form, relayed, with_others

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
_REQUEST: Schema = {
    "type": "object",
    "required": ["model", "input"],
    "additionalProperties": True,
    "properties": {
        "model": {"type": "string", "minLength": 1, "description": "A model or virtual model; see GET /v1/models."},
        "input": {"type": ["string", "array"], "description": "Text, or the items of the conversation so far."},
        "instructions": {"type": ["string", "null"], "description": "What the model is told before it."},
        "stream": {"type": ["boolean", "null"], "description": "Answer as server-sent events."},
        "background": {
            "type": ["boolean", "null"],
            "description": "Answer at once; `GET /v1/responses/{id}` has it later.",
        },
        "max_output_tokens": {"type": ["integer", "null"], "description": "Bound of the answer, in tokens."},
    },
    "examples": [{"model": "agw/echo", "input": "Say hello"}],
}

_POST, *_OTHERS = with_others(relayed("POST", "responses", PATH, _RELAY))
ENDPOINTS = (
    in_form(
        _POST,
        "Answer in the form of Responses",
        _REQUEST,
        "Any model; one whose upstream does not speak Responses is asked in its own form. An upgrade on GET takes the same over a WebSocket.",
        ", ended by `response.completed`, `.incomplete` or `.failed`",
    ),
    *_OTHERS,
)
