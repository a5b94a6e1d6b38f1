"""Which models there are for the asking key."""

from datetime import UTC, datetime

import msgspec

from agw_proxy.api import model_pages
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
    """All models that the key may use (OpenAI API reference, "List models"; Anthropic's or Google's, for who speaks that).

    Raises InvalidParameter for a page that there is not.
    """
    models = served(control, asked)
    tree: dict[str, object]
    if asked.dialect == "gemini":
        page = model_pages.googles(models, asked.query)
        tree = {"models": [googles(model) for model in page.models]}
        tree |= {"nextPageToken": page.models[-1].id} if page.more else {}
    elif asked.dialect == "anthropic":
        page = model_pages.anthropics(models, asked.query)
        data = [_described(model, asked) for model in page.models]
        first, last = (data[0]["id"], data[-1]["id"]) if data else (None, None)
        tree = {"data": data, "has_more": page.more, "first_id": first, "last_id": last}
    else:
        tree = {"object": "list", "data": [_described(model, asked) for model in models]}
    return Answer(200, msgspec.json.encode(tree))


async def get_model(control: Control, asked: Asked) -> Answer:
    """One of them, or one that an upstream's pattern covers. Raises ModelNotFound, ModelForbidden."""
    found = served(control, asked, asked.path_values["id"])[0]
    return Answer(200, msgspec.json.encode(googles(found) if asked.dialect == "gemini" else _described(found, asked)))


def googles(model: ServedModel) -> dict[str, object]:
    """A model as Google describes one (Gemini API reference, "models")."""
    return {
        "name": f"models/{model.id}",
        "displayName": model.id,
        "description": f"Served by {model.owner}.",
        "supportedGenerationMethods": ["generateContent", "streamGenerateContent", "countTokens"],
    }


def served(control: Control, asked: Asked, name: str | None = None) -> list[ServedModel]:
    """All that the key may use, or the one of that name. Raises ModelNotFound, ModelForbidden."""
    principal = _principal(asked)
    return control.models(principal) if name is None else [control.model(principal, name)]


def _principal(asked: Asked) -> Principal:
    if asked.principal is None:  # fails closed should the edge ever ask for nobody
        raise KeyMissing("The list of models belongs to a key, and none came with the request.")
    return asked.principal


def _described(model: ServedModel, asked: Asked) -> dict[str, str | int]:
    if asked.dialect == "anthropic":
        created = datetime.fromtimestamp(model.created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return {"type": "model", "id": model.id, "display_name": model.id, "created_at": created}
    return {"id": model.id, "object": "model", "created": model.created, "owned_by": model.owner}


ENDPOINTS = (
    Endpoint(
        name="models",
        method="GET",
        path="/v1/models",
        access="key",
        by_asker=True,
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
        by_asker=True,
        handler=get_model,
        summary="Describe a model",
        tag="Models",
        responses={200: Response("The model.", {"application/json": _MODEL})},
        errors=(ModelNotFound, ModelForbidden),
    ),
)
