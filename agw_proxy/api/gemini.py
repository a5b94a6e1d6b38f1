"""Google's form of a generation: ``/v1beta/models/MODEL:generateContent`` and its stream, and tokens counted.

What clients of the Gemini API ask (Gemini CLI speaks nothing else), for any model: other upstreams get it translated.
"""

import msgspec

from agw_proxy.api.endpoint import Endpoint, Relay, Response, Schema
from agw_proxy.api.models import served
from agw_proxy.errors import ModelForbidden, ModelNotFound
from agw_proxy.types import Answer, Asked, Control, ServedModel

_RELAY = Relay("", needs_model=True, json_only=True, sse_usage=False, known_end=True, form="gemini")
_METHODS = ("generateContent", "streamGenerateContent", "countTokens")
_ANSWER: Schema = {"type": "object", "additionalProperties": True}


async def list_models(control: Control, asked: Asked) -> Answer:
    """All models that the key may use (Gemini API reference, "models.list")."""
    return Answer(200, msgspec.json.encode({"models": [_described(model) for model in served(control, asked)]}))


async def get_model(control: Control, asked: Asked) -> Answer:
    """One of them. Raises ModelNotFound, ModelForbidden."""
    found = served(control, asked, asked.path_values["id"])
    return Answer(200, msgspec.json.encode(_described(found[0])))


def _described(model: ServedModel) -> dict[str, object]:
    return {
        "name": f"models/{model.id}",
        "displayName": model.id,
        "description": f"Served by {model.owner}.",
        "supportedGenerationMethods": list(_METHODS),
    }


ENDPOINTS = (
    Endpoint(
        name="gemini",
        method="POST",
        path="/v1beta/models/{id:path}",
        access="key",
        dialect="gemini",
        relay=_RELAY,
        summary="Generate in Google's form",
        description="`MODEL:generateContent`, `MODEL:streamGenerateContent?alt=sse` or `MODEL:countTokens`.",
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
