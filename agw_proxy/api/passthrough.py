"""Everything else under /v1: relayed as it comes, body and answer untouched, to where an upstream has it.

The OpenAPI document names them in its text alone, since which paths exist is the upstream's to say. The path goes on as
it came: ``Matcher`` has refused dot segments, and whatever could pass for another endpoint here.
"""

from typing import get_args

from agw_proxy.api.endpoint import Endpoint, Method, Relay, Response

MODEL_PATHS = frozenset(
    {
        "/v1/responses",
        "/v1/responses/input_tokens",
        "/v1/messages",
        "/v1/messages/count_tokens",
        "/v1/images/generations",
        "/v1/audio/speech",
        "/v1/rerank",
    }
)
"""Generations that name their model in a JSON body: routed and allowed by it. All else needs a key for the whole upstream."""

_RELAY = Relay("", needs_model=False, json_only=False, sse_usage=False, model_paths=MODEL_PATHS)
_ANSWERS = {200: Response("The upstream's answer, with its own status.", {"*/*": {}})}


def _endpoint(method: Method) -> Endpoint:
    return Endpoint(
        name=f"passthrough_{method.lower()}",
        method=method,
        path="/v1/{rest:path}",
        access="key",
        relay=_RELAY,
        summary="Any other path of the OpenAI API (files, images, audio, responses, batches ...)",
        description="Relayed as it comes to an upstream that offers it.",
        tag="Models at work",
        responses=_ANSWERS,
        listed=False,
    )


ENDPOINTS = tuple(_endpoint(method) for method in get_args(Method) if method != "HEAD")  # HEAD follows GET
