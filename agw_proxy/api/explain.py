"""What would become of a request, told without making it."""

from collections.abc import Mapping

import msgspec
import orjson

from agw_proxy.api.endpoint import Endpoint, Parameter, Response, Schema
from agw_proxy.errors import AdminOnly, InvalidJSON, InvalidParameter, KeyMissing
from agw_proxy.types import Answer, Asked, Control, ExplainWanted

MEMBERS = {"path", "request", "headers", "key"}
_PATH = "Of the endpoint that would be asked; without it `/v1/chat/completions`, or `/v1/messages` where the model's upstream speaks that."
_MONEY: Schema = {"type": "number", "description": "US dollars."}
_EXPLANATION: Schema = {
    "type": "object",
    "required": ["object", "key", "endpoint", "model", "stream", "outcome"],
    "properties": {
        "object": {"const": "explanation"},
        "key": {"type": "string"},
        "endpoint": {"type": "string"},
        "model": {"type": "string"},
        "stream": {"type": "boolean"},
        "outcome": {
            "description": "`ok`, or the error that would come; what follows is there as far as the request would get.",
            "oneOf": [{"const": "ok"}, {"type": "object", "required": ["status", "code", "message"]}],
        },
        "route": {"type": "object", "description": "Where the model leads: targets with circuits, places and prices."},
        "plan": {
            "type": "array",
            "items": {"type": "string"},
            "description": "Targets in the order of trying. Where it is drawn by weight, this is one draw.",
        },
        "tokens": {"type": "object", "description": "Of the prompt, and of the answer as reserved and as is likely."},
        "cost": {
            "type": "object",
            "properties": {"priced": {"type": "boolean"}, "reserved_usd": _MONEY, "likely_usd": _MONEY},
        },
        "lane": {"type": "object", "description": "`fast`, or `full` and why."},
        "cache": {"type": "object", "description": "Whether an answer that is kept would be looked for."},
        "limits": {
            "type": "array",
            "items": {"type": "object"},
            "description": "The rules that apply, with what is left.",
        },
    },
}
_REQUEST: Schema = {
    "type": "object",
    "description": "A request as its endpoint takes it, or an object with it as `request`.",
    "additionalProperties": True,
    "properties": {
        "path": {"type": "string", "description": _PATH},
        "request": {"type": "object", "description": "The request's body."},
        "headers": {"type": "object", "additionalProperties": {"type": "string"}},
        "key": {"type": "string", "description": "Name of the key that would ask (admin keys)."},
    },
    "examples": [{"request": {"model": "agw/echo", "messages": [{"role": "user", "content": "Say hello"}]}}],
}


async def explain(control: Control, asked: Asked) -> Answer:
    """Tell it."""
    if asked.principal is None:
        raise KeyMissing("This endpoint needs a key.")
    wanted = _wanted(asked.body, asked.query)
    if wanted.key not in {None, asked.principal.name} and not asked.principal.admin:
        raise AdminOnly(
            f"The key '{asked.principal.name}' is not an admin key; it may ask for itself only: leave out 'key'."
        )
    return Answer(200, orjson.dumps(control.explain(asked.principal, wanted)))


def _wanted(body: bytes, query: Mapping[str, str]) -> ExplainWanted:
    try:
        tree = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidJSON(f"The body is not JSON: {error}.") from None
    if not isinstance(tree, dict):
        raise InvalidJSON("The body must be a JSON object.")
    path, key = query.get("path"), query.get("key")
    if "request" not in tree:  # the request itself
        return ExplainWanted(path, body, {}, key)
    unknown = sorted(set(tree) - MEMBERS)
    if unknown:
        raise InvalidParameter(
            f"'{unknown[0]}' is not known here: expected {', '.join(sorted(MEMBERS))}.", param=unknown[0]
        )
    try:
        members = msgspec.convert(tree, _Members)
    except msgspec.ValidationError as error:
        raise InvalidParameter(f"{error}.") from None
    headers = {name.lower(): value for name, value in members.headers.items()}
    request = orjson.dumps(members.request)
    return ExplainWanted(members.path or path, request, headers, members.key or key)


class _Members(msgspec.Struct):
    request: dict[str, object]
    path: str | None = None
    headers: dict[str, str] = {}
    key: str | None = None


ENDPOINTS = (
    Endpoint(
        name="explain",
        method="POST",
        path="/explain",
        access="key",
        handler=explain,
        summary="What would become of a request",
        description="Route, limits with what is left, estimates of tokens and money, and the lane. Nothing is asked or taken.",
        tag="Usage",
        request=_REQUEST,
        query=(
            Parameter("path", {"type": "string"}, _PATH),
            Parameter("key", {"type": "string"}, "Name of the key that would ask (admin keys)."),
        ),
        responses={200: Response("An explanation.", {"application/json": _EXPLANATION})},
        errors=(InvalidJSON, InvalidParameter, AdminOnly),
    ),
)
