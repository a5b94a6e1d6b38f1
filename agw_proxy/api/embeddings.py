"""Texts in, numbers out: embeddings and moderations."""

from agw_proxy.api.endpoint import Endpoint, Relay, Response, Schema

DEFAULT_MODERATION_MODEL = "omni-moderation-latest"

_ANSWERS = {
    200: Response("The upstream's answer.", {"application/json": {"type": "object", "additionalProperties": True}})
}

_EMBEDDING: Schema = {
    "type": "object",
    "required": ["model", "input"],
    "additionalProperties": True,
    "properties": {
        "model": {"type": "string", "minLength": 1, "description": "A model; see GET /v1/models."},
        "input": {"type": ["string", "array"], "description": "A text, several, tokens, or several lists of tokens."},
        "encoding_format": {"type": "string", "description": "`float` or `base64`."},
        "user": {"type": ["string", "null"], "description": "Your user; limits per user count by it."},
    },
    "examples": [{"model": "text-embedding-3-small", "input": "Hello"}],
}

_MODERATION: Schema = {
    "type": "object",
    "required": ["input"],
    "additionalProperties": True,
    "properties": {
        "model": {
            "type": ["string", "null"],
            "default": DEFAULT_MODERATION_MODEL,
            "description": f"A moderation model; `{DEFAULT_MODERATION_MODEL}` where none is named.",
        },
        "input": {"type": ["string", "array"], "description": "A text, several, or a list of content parts."},
    },
    "examples": [{"input": "Hello"}],
}

ENDPOINTS = (
    Endpoint(
        name="embeddings",
        method="POST",
        path="/v1/embeddings",
        access="key",
        relay=Relay("/embeddings", needs_model=True, json_only=True, sse_usage=False),
        summary="Turn texts into vectors",
        tag="Models at work",
        request=_EMBEDDING,
        responses=_ANSWERS,
    ),
    Endpoint(
        name="moderations",
        method="POST",
        path="/v1/moderations",
        access="key",
        relay=Relay(
            "/moderations",
            needs_model=False,
            json_only=True,
            sse_usage=False,
            default_model=DEFAULT_MODERATION_MODEL,
        ),
        summary="Judge texts and images",
        tag="Models at work",
        request=_MODERATION,
        responses=_ANSWERS,
    ),
)
