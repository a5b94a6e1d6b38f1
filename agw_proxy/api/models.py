"""Which models there are for the asking key."""

import msgspec

from agw_proxy.api.endpoint import Endpoint, Response, Schema
from agw_proxy.errors import KeyMissing, ModelForbidden, ModelNotFound
from agw_proxy.types import Answer, Asked, Control, Principal, ServedModel

_MODEL: Schema = {
    "type": "object",
    "required": ["id", "object", "created", "owned_by"],
    "properties": {
        "id": {"type": "string", "description": "The name to ask for."},
        "object": {"const": "model"},
        "created": {"type": "integer", "description": "Seconds since 1970; 0 where unknown."},
        "owned_by": {"type": "string", "description": "The upstream, or `agw` for a virtual model."},
    },
}
_LIST: Schema = {
    "type": "object",
    "required": ["object", "data"],
    "properties": {"object": {"const": "list"}, "data": {"type": "array", "items": _MODEL}},
}


async def list_models(control: Control, asked: Asked) -> Answer:
    """All models that the key may use (OpenAI API reference, "List models")."""
    data = [_described(model) for model in _served(control, asked)]
    return Answer(200, msgspec.json.encode({"object": "list", "data": data}))


async def get_model(control: Control, asked: Asked) -> Answer:
    """One of them, or one that an upstream's pattern covers. Raises ModelNotFound, ModelForbidden."""
    return Answer(200, msgspec.json.encode(_described(control.model(_principal(asked), asked.path_values["id"]))))


def _served(control: Control, asked: Asked) -> list[ServedModel]:
    return control.models(_principal(asked))


def _principal(asked: Asked) -> Principal:
    if asked.principal is None:  # fails closed should the edge ever ask for nobody
        raise KeyMissing("The list of models belongs to a key, and none came with the request.")
    return asked.principal


def _described(model: ServedModel) -> dict[str, str | int]:
    return {"id": model.id, "object": "model", "created": model.created, "owned_by": model.owner}


ENDPOINTS = (
    Endpoint(
        name="models",
        method="GET",
        path="/v1/models",
        access="key",
        handler=list_models,
        summary="List the models",
        description="Those that the key may use; patterns of an upstream stand for more than is listed.",
        tag="Models",
        responses={200: Response("The models, in order.", {"application/json": _LIST})},
    ),
    Endpoint(
        name="model",
        method="GET",
        path="/v1/models/{id:path}",
        access="key",
        handler=get_model,
        summary="Describe a model",
        tag="Models",
        responses={200: Response("The model.", {"application/json": _MODEL})},
        errors=(ModelNotFound, ModelForbidden),
    ),
)
