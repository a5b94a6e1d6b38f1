"""The numbers, for people and for Prometheus."""

import asyncio

import orjson

from agw_proxy.api.endpoint import Endpoint, Response, Schema
from agw_proxy.types import Answer, Asked, Control

# Prometheus text exposition format, version 0.0.4.
EXPOSITION = "text/plain; version=0.0.4; charset=utf-8"

_TREE: Schema = {"type": "object", "additionalProperties": True}


async def metrics_tree(control: Control, asked: Asked) -> Answer:
    """All metrics as one JSON tree; an administrator also sees the state of the configuration, under its own name."""
    tree = dict(await asyncio.get_running_loop().run_in_executor(None, control.metrics_tree))
    if asked.principal is not None and asked.principal.admin:  # its last error names files: not for the scrape key
        tree["configuration"] = control.configuration()
    return Answer(200, orjson.dumps(tree))


async def metrics_text(control: Control, _: Asked) -> Answer:
    """All metrics in the Prometheus text format."""
    text = await asyncio.get_running_loop().run_in_executor(
        None, control.metrics_text
    )  # imports at first, walks all series
    return Answer(200, text, content_type=EXPOSITION)


ENDPOINTS = (
    Endpoint(
        name="metrics",
        method="GET",
        path="/metrics",
        access="scrape",
        handler=metrics_tree,
        summary="Metrics as JSON",
        description="With `configuration` (version, time and last error) for an admin key.",
        tag="Operation",
        responses={200: Response("The metrics by name.", {"application/json": _TREE})},
    ),
    Endpoint(
        name="metrics_prometheus",
        method="GET",
        path="/metrics/prometheus",
        access="scrape",
        handler=metrics_text,
        summary="Metrics for Prometheus",
        tag="Operation",
        responses={200: Response("The metrics in the text format.", {"text/plain": {"type": "string"}})},
    ),
)
