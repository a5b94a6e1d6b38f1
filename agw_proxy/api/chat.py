"""Chat completions, and the older text completions."""

from agw_proxy.api.endpoint import Endpoint, Relay, Response, Schema

_ANSWERS = {
    200: Response(
        "The upstream's answer; a stream of server-sent events, ended by `data: [DONE]`, where `stream` is true.",
        {
            "application/json": {"type": "object", "additionalProperties": True},
            "text/event-stream": {"type": "string"},
        },
    )
}
_MODEL: Schema = {"type": "string", "minLength": 1, "description": "A model or virtual model; see GET /v1/models."}
_STREAM: Schema = {"type": ["boolean", "null"], "description": "Answer as server-sent events."}

_CHAT: Schema = {
    "type": "object",
    "required": ["model", "messages"],
    "additionalProperties": True,
    "properties": {
        "model": _MODEL,
        "messages": {
            "type": "array",
            "description": "The conversation so far.",
            "items": {"type": "object", "additionalProperties": True, "properties": {"role": {"type": "string"}}},
        },
        "stream": _STREAM,
        "max_completion_tokens": {"type": ["integer", "null"], "description": "Bound of the answer, in tokens."},
        "user": {"type": ["string", "null"], "description": "Your user; limits per user count by it."},
    },
    "examples": [{"model": "agw/echo", "messages": [{"role": "user", "content": "Say hello"}]}],
}

_COMPLETION: Schema = {
    "type": "object",
    "required": ["model", "prompt"],
    "additionalProperties": True,
    "properties": {
        "model": _MODEL,
        "prompt": {
            "type": ["string", "array", "null"],
            "description": "Text, several texts, tokens, or several lists of tokens.",
        },
        "stream": _STREAM,
        "max_tokens": {"type": ["integer", "null"], "description": "Bound of the answer, in tokens."},
        "user": {"type": ["string", "null"], "description": "Your user; limits per user count by it."},
    },
    "examples": [{"model": "gpt-3.5-turbo-instruct", "prompt": "Say hello"}],
}

ENDPOINTS = (
    Endpoint(
        name="chat_completions",
        method="POST",
        path="/v1/chat/completions",
        access="key",
        relay=Relay("/chat/completions", needs_model=True, json_only=True, sse_usage=True, known_end=True, form="chat"),
        summary="Answer a conversation",
        description="Goes to an upstream that serves the model; members not named here pass through untouched.",
        tag="Models at work",
        request=_CHAT,
        responses=_ANSWERS,
    ),
    Endpoint(
        name="completions",
        method="POST",
        path="/v1/completions",
        access="key",
        relay=Relay(
            "/completions", needs_model=True, json_only=True, sse_usage=True, known_end=True, form="completions"
        ),
        summary="Continue a text",
        description="The older form. Where the model's upstream does not have it, one text is put as a question in the form that it has.",
        tag="Models at work",
        request=_COMPLETION,
        responses=_ANSWERS,
    ),
)
