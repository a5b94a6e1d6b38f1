"""Everything else under /v1: relayed as it comes, body and answer untouched, to where an upstream has it.

The OpenAPI document names them in its text alone, since which paths exist is the upstream's to say; what is a generation in
a form that the gateway knows is listed. The path goes on as it came: ``Matcher`` has refused dot segments, and whatever could pass for another endpoint here.
"""

from collections.abc import Mapping
from typing import get_args

from msgspec.structs import replace

from agw_proxy.api.endpoint import Endpoint, Method, Relay, Response, Schema
from agw_proxy.config.values import Spoken
from agw_proxy.types import Dialect

COUNTING_PATHS: Mapping[str, Spoken] = {
    "/v1/responses/input_tokens": "responses",
    "/v1/messages/count_tokens": "messages",
}
"""They count a prompt's tokens in this form, and use none."""
MODEL_PATHS = frozenset(COUNTING_PATHS) | frozenset(
    {
        "/v1/images/generations",
        "/v1/audio/speech",
        "/v1/rerank",
        "/v1/responses/compact",
    }
)
"""Generations that name their model in a JSON body: routed and allowed by it. All else needs a key for the whole upstream."""

_RELAY = Relay("", needs_model=False, json_only=False, sse_usage=False, model_paths=MODEL_PATHS)
METHODS: tuple[Method, ...] = tuple(method for method in get_args(Method) if method != "HEAD")  # HEAD follows GET
_SUMMARY = "Any other path of the OpenAI API (files, images, audio, responses, batches ...)"
_ANSWERS = {200: Response("The upstream's answer, with its own status.", {"*/*": {}})}


def relayed(
    method: Method, name: str, path: str, relay: Relay, *, dialect: Dialect = "openai", summary: str = _SUMMARY
) -> Endpoint:
    """An endpoint that leaves to the upstream what is there."""
    return Endpoint(
        name=name,
        method=method,
        path=path,
        access="key",
        dialect=dialect,
        relay=relay,
        summary=summary,
        description="Relayed as it comes to an upstream that offers it.",
        tag="Models at work",
        responses=_ANSWERS,
        listed=False,
    )


def with_others(post: Endpoint) -> tuple[Endpoint, ...]:
    """``post`` with all other methods of its path, which stay the upstream's to answer."""
    relay = post.relay or _RELAY
    others = (
        relayed(method, f"{post.name}_{method.lower()}", post.path, relay, dialect=post.dialect, summary=post.summary)
        for method in METHODS
        if method != post.method
    )
    return (post, *others)


def in_form(post: Endpoint, summary: str, request: Schema, description: str = "", end: str = "") -> Endpoint:
    """``post`` as the document lists it: a generation in a form that the gateway knows. ``end``: of its streams."""
    answer = Response(
        f"The answer; a stream of server-sent events{end}, where `stream` is true.",
        {
            "application/json": {"type": "object", "additionalProperties": True},
            "text/event-stream": {"type": "string"},
        },
    )
    return replace(
        post, summary=summary, description=description, request=request, responses={200: answer}, listed=True
    )


ENDPOINTS = tuple(relayed(method, f"passthrough_{method.lower()}", "/v1/{rest:path}", _RELAY) for method in METHODS)
