"""The upstreams as the gateway sees them."""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import orjson

from agw_proxy.api.admin.paging import page, page_schema, parameters
from agw_proxy.api.endpoint import Endpoint, Response, Schema
from agw_proxy.errors import InvalidParameter, ReloadFailed
from agw_proxy.states import ProbeState, QueueState, TargetState, UpstreamState
from agw_proxy.types import Answer, Asked, Control

_SORTS: Mapping[str, Callable[[UpstreamState], Any]] = {
    "name": lambda state: state.name,
    "state": lambda state: state.state,
    "requests": lambda state: state.requests,
    "failures": lambda state: state.failures,
}
_UPSTREAM: Schema = {
    "type": "object",
    "required": list(UpstreamState.__struct_fields__),
    "properties": {
        "name": {"type": "string"},
        "dialect": {"type": "string"},
        "base_url": {"type": "string"},
        "auth": {"type": "string", "description": "How it is authenticated to; never the credential."},
        "models": {"type": "array", "items": {"type": "string"}, "description": "Names and patterns."},
        "state": {
            "enum": ["up", "failing", "out", "unused"],
            "description": "`failing`: the last exchange of any worker failed; `out`: its probes fail, so that it is not asked.",
        },
        "since": {"type": ["string", "null"], "description": "Since when it is in that state."},
        "last_error": {"type": ["string", "null"], "description": "The code of the last failure of any worker."},
        "requests": {"type": "integer", "description": "Of all workers, since the start."},
        "failures": {"type": "integer"},
        "targets": {
            "type": "array",
            "description": "Its models that have been asked for or are configured, as their circuits stand.",
            "items": {
                "type": "object",
                "required": list(TargetState.__struct_fields__),
                "properties": {
                    "name": {"type": "string"},
                    "circuit": {"enum": ["closed", "open", "half_open"]},
                    "opens_in_ms": {"type": "integer", "description": "Until it may be asked again; 0: it may be."},
                    "in_flight": {"type": "integer"},
                },
            },
        },
        "dead_keys": {"type": "integer", "description": "How many of its keys it has refused."},
        "queue": {
            "type": ["object", "null"],
            "description": "In the worker that answers; null: there is no `max_concurrent`.",
            "required": list(QueueState.__struct_fields__),
            "properties": {name: {"type": "integer"} for name in QueueState.__struct_fields__},
        },
        "probe": {
            "type": ["object", "null"],
            "description": "null: it is not probed, or not by the worker that answers.",
            "required": list(ProbeState.__struct_fields__),
            "properties": {
                "path": {"type": "string"},
                "last": {"type": ["string", "null"], "description": "`ok` or the code of an error."},
                "at": {"type": ["string", "null"]},
                "good_in_a_row": {"type": "integer"},
                "bad_in_a_row": {"type": "integer"},
                "out_since": {"type": ["string", "null"]},
            },
        },
    },
}


async def list_upstreams(control: Control, asked: Asked) -> Answer:
    """Answer with a page of the upstreams, in order of configuration or by ``sort``. Raises InvalidParameter."""
    return Answer(200, msgspec.json.encode(page(control.upstreams(), asked.query, _name, _SORTS)))


async def refresh(control: Control, _: Asked) -> Answer:
    """Read the configuration again and ask the upstreams for their models. Raises ReloadFailed."""
    return Answer(200, orjson.dumps(dict(await control.refresh_upstreams())))


def _name(state: UpstreamState) -> str:
    return state.name


ENDPOINTS = (
    Endpoint(
        name="upstreams",
        method="GET",
        path="/upstreams",
        access="admin",
        handler=list_upstreams,
        summary="List the upstreams",
        tag="Operation",
        query=parameters(tuple(_SORTS)),
        responses={200: Response("A page of upstreams.", {"application/json": page_schema(_UPSTREAM)})},
        errors=(InvalidParameter,),
    ),
    Endpoint(
        name="upstreams_refresh",
        method="POST",
        path="/upstreams/refresh",
        access="admin",
        handler=refresh,
        summary="Read the upstreams anew",
        description="Takes up the configuration as it is now, and asks the upstreams for their models.",
        tag="Operation",
        responses={200: Response("What was done.", {"application/json": {"type": "object"}})},
        errors=(ReloadFailed,),
    ),
)
