"""Which headers go to an upstream, and why."""

import orjson

from agw_proxy.api.endpoint import Endpoint, Response, Schema
from agw_proxy.errors import ModelNotFound
from agw_proxy.types import Answer, Asked, Control

_TEXT: Schema = {"type": "string"}
_WHY: Schema = {"type": "string", "description": "For people; its words may change."}
_SENT: Schema = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["header", "from", "why"],
        "properties": {
            "header": {"type": "string", "description": "A name in lower case; `*`: whatever is not named in `never`."},
            "from": {"enum": ["caller", "configuration", "gateway"]},
            "why": _WHY,
        },
    },
}
_NEVER: Schema = {
    "type": "array",
    "description": "One of `header`, `prefix`, `named_by` (what a header of that name lists) and `value` each.",
    "items": {
        "type": "object",
        "required": ["why"],
        "properties": {
            **dict.fromkeys(("header", "prefix", "named_by", "value"), _TEXT),
            "lane": {"enum": ["full", "fast"], "description": "Only there."},
            "why": _WHY,
        },
    },
}
_EGRESS: Schema = {
    "type": "object",
    "required": ["object", "upstream", "sent", "never", "translated", "wrapped"],
    "properties": {
        "object": {"const": "egress"},
        "upstream": _TEXT,
        "sent": _SENT,
        "never": _NEVER,
        "translated": {
            "type": ["object", "null"],
            "description": "What comes on top for requests in a form that the upstream does not speak; null: it speaks all.",
            "required": ["forms", "into", "sent", "never"],
            "properties": {"forms": {"type": "array", "items": _TEXT}, "into": _TEXT, "sent": _SENT, "never": _NEVER},
        },
        "wrapped": {
            "type": ["object", "null"],
            "description": "What comes on top for generations (not for what is passed through), which a cloud wants wrapped "
            "in its own way; null: it is no cloud.",
            "required": ["sent", "never"],
            "properties": {"sent": _SENT, "never": _NEVER},
        },
    },
}


async def show(control: Control, asked: Asked) -> Answer:
    """Answer with the names of headers and where they come from, never a value. Raises ModelNotFound."""
    return Answer(200, orjson.dumps(dict(control.egress(asked.path_values["name"]))))


ENDPOINTS = (
    Endpoint(
        name="upstream_egress",
        method="GET",
        path="/upstreams/{name}/egress",
        access="admin",
        handler=show,
        summary="Show which headers go to an upstream",
        description="What is sent and from where, and what never is. Names only: no value is ever shown. "
        "A name in `sent` outranks a prefix in `never`; one in `wrapped.sent` only those in `wrapped.never`.",
        tag="Operation",
        responses={200: Response("What crosses, and what does not.", {"application/json": _EGRESS})},
        errors=(ModelNotFound,),
    ),
)
