"""Is it alive, may traffic come; and the greeting that coding tools look for."""

import orjson

from agw_proxy.api.endpoint import Endpoint, Parameter, Response, Schema
from agw_proxy.types import Answer, Asked, Control

# A probe must never be answered from a cache (RFC 9111 section 5.2.2.5).
_FRESH = (("Cache-Control", "no-store"),)

_ALIVE: Schema = {
    "type": "object",
    "required": ["status", "version"],
    "properties": {"status": {"const": "ok"}, "version": {"type": "string"}},
}
_SHOWN = ("name", "state", "since", "last_error")  # of an upstream: nothing that leads there
_READY: Schema = {
    "type": "object",
    "required": ["status", "active", "version"],
    "properties": {
        "status": {"enum": ["ready", "draining", "overloaded"]},
        "active": {"type": "integer", "minimum": 0, "description": "Exchanges in flight."},
        "version": {"type": "string"},
        "upstreams": {
            "type": "array",
            "description": "With `verbose`, for those who may know (`server.readiness`).",
            "items": {
                "type": "object",
                "required": list(_SHOWN),
                "properties": {
                    "name": {"type": "string"},
                    "state": {"enum": ["up", "failing", "out", "unused"]},
                    "since": {"type": ["string", "null"]},
                    "last_error": {"type": ["string", "null"], "description": "The code of an error."},
                },
            },
        },
        "redis": {
            "type": "object",
            "description": "Likewise, where limits are shared: how the worker that answers stands with Redis.",
            "required": ["state", "since", "last_error"],
            "properties": {
                "state": {"enum": ["up", "away"]},
                "since": {"type": "string"},
                "last_error": {"type": ["string", "null"], "description": "`late`, or the class of an error."},
            },
        },
    },
}


async def alive(control: Control, _: Asked) -> Answer:
    """Liveness: 200 as long as the loop turns, also while draining (a restart would cut streams that are ending)."""
    return Answer(200, orjson.dumps({"status": "ok", "version": control.version}), headers=_FRESH)


async def ready(control: Control, asked: Asked) -> Answer:
    """Readiness: 200, or 503 once the gateway is draining or while it refuses requests for want of memory.

    Not for upstreams that fail, which another instance would ask as well, nor for a loop that is late, which passes
    sooner than a prober notices. Open to all, so it tells nothing of the configuration; but ``verbose`` names the
    upstreams, and tells of Redis, to those who may know. To all others it answers as without: a probe must not fail for its key.
    """
    status = "draining" if control.draining else "overloaded" if control.shedding == "memory" else "ready"
    body: dict[str, object] = {"status": status, "active": control.active, "version": control.version}
    if "verbose" in asked.query and control.shows_upstreams(asked.principal):
        body["upstreams"] = [{name: getattr(item, name) for name in _SHOWN} for item in control.upstreams()]
        if (redis := control.redis()) is not None:
            body["redis"] = redis
    return Answer(200 if status == "ready" else 503, orjson.dumps(body), headers=_FRESH)


async def hello(_: Control, __: Asked) -> Answer:
    """Answer with an empty 200: Claude Code asks for it to see whether its base URL can be reached."""
    return Answer(200, b"", content_type="text/plain; charset=utf-8")


_HELLO = {200: Response("It is there.")}

ENDPOINTS = (
    Endpoint(
        name="health",
        method="GET",
        path="/health",
        access="open",
        prompt=True,
        handler=alive,
        summary="Liveness",
        tag="Health",
        responses={200: Response("The process is alive.", {"application/json": _ALIVE})},
    ),
    Endpoint(
        name="ready",
        method="GET",
        path="/health/ready",
        access="open",
        prompt=True,
        knows_keys=True,
        handler=ready,
        summary="Readiness",
        tag="Health",
        query=(
            Parameter(
                "verbose", {"type": "string"}, "With the upstreams and Redis, for those who may know; any value."
            ),
        ),
        responses={
            200: Response("Send traffic.", {"application/json": _READY}),
            503: Response("Send none: it is shutting down, or over its memory limit.", {"application/json": _READY}),
        },
    ),
    Endpoint(
        name="hello",
        method="HEAD",
        path="/api/hello",
        access="open",
        prompt=True,
        handler=hello,
        summary="Greeting of coding tools",
        tag="Health",
        responses=_HELLO,
    ),
    Endpoint(
        name="hello_get",
        method="GET",
        path="/api/hello",
        access="open",
        prompt=True,
        handler=hello,
        summary="The same for tools that send GET",
        tag="Health",
        responses=_HELLO,
    ),
)
