"""Google's form of a generation: ``/v1beta/models/MODEL:generateContent`` and its stream, and tokens counted.

What clients of the Gemini API ask (Gemini CLI speaks nothing else), for any model: other upstreams get it translated.
"""

from agw_proxy.api.endpoint import Endpoint, Relay, Response, Schema
from agw_proxy.api.models import get_model, list_models
from agw_proxy.errors import ModelForbidden, ModelNotFound

_RELAY = Relay("", needs_model=True, json_only=True, sse_usage=False, known_end=True, form="gemini")
_ANSWER: Schema = {"type": "object", "additionalProperties": True}


ENDPOINTS = (
    Endpoint(
        name="gemini",
        method="POST",
        path="/v1beta/models/{id:path}",
        access="key",
        dialect="gemini",
        relay=_RELAY,
        summary="Generate in Google's form",
        description="`MODEL:generateContent`, `MODEL:streamGenerateContent?alt=sse` or `MODEL:countTokens`, also beneath `/v1/models`.",
        tag="Models at work",
        request=_ANSWER,
        responses={
            200: Response(
                "A GenerateContentResponse, or a stream of them.",
                {"application/json": _ANSWER, "text/event-stream": {"type": "string"}},
            )
        },
    ),
    Endpoint(
        name="gemini_models",
        method="GET",
        path="/v1beta/models",
        access="key",
        dialect="gemini",
        handler=list_models,
        summary="List the models in Google's form",
        tag="Models",
        responses={200: Response("The models, in order.", {"application/json": _ANSWER})},
    ),
    Endpoint(
        name="gemini_model",
        method="GET",
        path="/v1beta/models/{id:path}",
        access="key",
        dialect="gemini",
        handler=get_model,
        summary="Describe a model in Google's form",
        tag="Models",
        responses={200: Response("The model.", {"application/json": _ANSWER})},
        errors=(ModelNotFound, ModelForbidden),
    ),
)
