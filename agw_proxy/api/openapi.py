"""The OpenAPI document, generated from the endpoints (OpenAPI Specification 3.1.1, JSON Schema 2020-12)."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson

from agw_proxy import errors
from agw_proxy.api.endpoint import Endpoint, Response
from agw_proxy.types import Answer, Asked, Control, Dialect

OPENAPI_VERSION = "3.1.1"
Tree = dict[str, Any]
Errors = tuple[type[errors.GatewayError], ...]

_DESCRIPTION = """\
An LLM gateway: providers' models under one set of keys, limits and metrics.

Errors come in the shape of the endpoint's dialect, with codes of a closed set. Every answer carries `x-request-id`."""

_EVERYWHERE: Errors = (errors.InvalidHTTP, errors.InternalError, errors.Overloaded)
_BY_ACCESS: Mapping[str, Errors] = {
    "open": (),
    "key": (errors.KeyMissing, errors.KeyInvalid, errors.RateLimited),
    "admin": (errors.KeyMissing, errors.KeyInvalid, errors.AdminOnly),
    "scrape": (errors.KeyMissing, errors.KeyInvalid, errors.AdminOnly),
}
_RELAYED: Errors = (
    errors.InvalidParameter,
    errors.ModelNotFound,
    errors.ModelForbidden,
    errors.RequestTimeout,
    errors.BodyTooLarge,
    errors.Draining,
    errors.UpstreamError,
    errors.UpstreamUnreachable,
    errors.UpstreamReset,
    errors.UpstreamInvalid,
    errors.UpstreamRefused,
    errors.UpstreamFailed,
    errors.UpstreamUnavailable,
    errors.UpstreamTimeout,
)
_JSON_BODY: Errors = (errors.InvalidJSON, errors.UnsupportedMediaType)

# Where a gateway key may travel; the schemes are alternatives.
_SECURITY_SCHEMES: Tree = {
    "bearerAuth": {"type": "http", "scheme": "bearer", "description": "The gateway's key, as OpenAI clients send it."},
    **{
        scheme: {"type": "apiKey", "in": "header", "name": header, "description": text}
        for scheme, header, text in (
            ("apiKeyAnthropic", "x-api-key", "The same, as Anthropic clients send it."),
            ("apiKeyAzure", "api-key", "The same, as Azure OpenAI clients send it."),
            ("apiKeyGoogle", "x-goog-api-key", "The same, as Gemini clients send it."),
            ("apiKeyGateway", "x-agw-key", "The same, beside a provider login of one's own in Authorization."),
        )
    },
}
_KEYED: list[Tree] = [{scheme: []} for scheme in _SECURITY_SCHEMES]

_HEADERS: Mapping[str, tuple[Tree, str]] = {
    "x-request-id": ({"type": "string"}, "Names this exchange in the log; yours is taken over where it is sane."),
    "Server-Timing": ({"type": "string"}, "Where the time went (W3C Server-Timing)."),
    "Retry-After": ({"type": "integer", "minimum": 0}, "Whole seconds to wait."),
    "retry-after-ms": ({"type": "integer", "minimum": 0}, "The same in milliseconds."),
    "x-agw-dropped": ({"type": "string"}, "What the model's upstream cannot be asked for, and the request has lost."),
    "x-should-retry": ({"const": "false"}, "The gateway has tried what can be tried."),
    **{
        f"x-ratelimit-{what}-{unit}": (
            {"type": "string"} if what == "reset" else {"type": "integer"},
            f"{text} of the tightest limit in {unit}.",
        )
        for unit in ("requests", "tokens")
        for what, text in (
            ("limit", "Amount"),
            ("remaining", "What is left"),
            ("reset", "Time until it is full again, such as 2m30s,"),
        )
    },
}
_ALWAYS = ("x-request-id", "Server-Timing")
_LIMITS = tuple(name for name in _HEADERS if name.startswith("x-ratelimit-"))
_WAIT = ("Retry-After", "retry-after-ms")

_NULLABLE: Tree = {"type": ["string", "null"]}
# OpenAI: API reference, "Error codes". Anthropic: API reference, "Errors". Google: the API error model.
_ERROR_SCHEMAS: Mapping[Dialect, tuple[str, Tree]] = {
    "openai": (
        "OpenAIError",
        {
            "type": "object",
            "required": ["error"],
            "properties": {
                "error": {
                    "type": "object",
                    "required": ["message", "type", "param", "code"],
                    "properties": {
                        "message": {"type": "string", "description": "What was wrong, and what to do."},
                        "type": {"type": "string"},
                        "param": {**_NULLABLE, "description": "The member of the request at fault."},
                        "code": {**_NULLABLE, "description": "Stable; the codes stand with each status."},
                    },
                }
            },
        },
    ),
    "gemini": (
        "GoogleError",
        {
            "type": "object",
            "required": ["error"],
            "properties": {
                "error": {
                    "type": "object",
                    "required": ["code", "message", "status"],
                    "properties": {
                        "code": {"type": "integer"},
                        "message": {"type": "string"},
                        "status": {"type": "string"},
                    },
                }
            },
        },
    ),
    "anthropic": (
        "AnthropicError",
        {
            "type": "object",
            "required": ["type", "error"],
            "properties": {
                "type": {"const": "error"},
                "error": {
                    "type": "object",
                    "required": ["type", "message"],
                    "properties": {"type": {"type": "string"}, "message": {"type": "string"}},
                },
                "request_id": _NULLABLE,
            },
        },
    ),
}


def document(endpoints: Sequence[Endpoint], version: str) -> bytes:
    """Describe what is served, as JSON. ``version`` is the gateway's.

    Raises ValueError where an endpoint's path, written for OpenAPI, is another's (they would hide one another).
    """
    listed = [endpoint for endpoint in endpoints if endpoint.listed]
    paths: dict[str, Tree] = {}
    for endpoint in listed:
        item = paths.setdefault(endpoint.template, {})
        if endpoint.method.lower() in item:
            raise ValueError(f"{endpoint.method} {endpoint.template} is described twice")
        item[endpoint.method.lower()] = _operation(endpoint)
    dialects = dict.fromkeys(endpoint.dialect for endpoint in listed)
    tree = {
        "openapi": OPENAPI_VERSION,
        "info": {"title": "agw", "version": version, "description": _description(endpoints)},
        "servers": [{"url": "/"}],
        "tags": [{"name": tag} for tag in dict.fromkeys(endpoint.tag for endpoint in listed)],
        "paths": paths,
        "components": {
            "schemas": dict(_ERROR_SCHEMAS[dialect] for dialect in dialects),
            "headers": {name: {"description": text, "schema": schema} for name, (schema, text) in _HEADERS.items()},
            "securitySchemes": _SECURITY_SCHEMES,
        },
    }
    return orjson.dumps(tree)


async def document_of(control: Control, _: Asked) -> Answer:
    """Answer with the document of this gateway; it was made once at start, not here."""
    return Answer(200, control.openapi(), headers=(("Cache-Control", "no-cache"),))


def _description(endpoints: Iterable[Endpoint]) -> str:
    """Write the text on top, with a line a path that is served and not listed."""
    unlisted: dict[tuple[str, str], list[str]] = {}
    for endpoint in endpoints:
        if not endpoint.listed:
            unlisted.setdefault((endpoint.template, endpoint.summary), []).append(endpoint.method)
    lines = [f"`{path}` ({', '.join(methods)}): {summary}." for (path, summary), methods in unlisted.items()]
    return "\n\n".join([_DESCRIPTION, *(["Served beside what is listed:\n\n" + "\n".join(lines)] if lines else [])])


def _operation(endpoint: Endpoint) -> Tree:
    parameters: list[Tree] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in endpoint.parameters
    ]
    parameters += [
        {"name": item.name, "in": "query", "description": item.description, "schema": item.schema}
        for item in endpoint.query
    ]
    responses = {str(status): _answer(endpoint, status, answer) for status, answer in endpoint.responses.items()}
    for status, kinds in _errors(endpoint).items():
        responses.setdefault(str(status), _refusal(endpoint, status, kinds))
    if endpoint.relay is not None:
        responses["4XX"] = _refusal(endpoint, 400, (errors.UpstreamRejected,))
    operation: Tree = {
        "operationId": endpoint.name,
        "summary": endpoint.summary,
        "tags": [endpoint.tag],
        "security": [] if endpoint.access == "open" else _KEYED,
        "responses": dict(sorted(responses.items())),
    }
    if endpoint.description:
        operation["description"] = endpoint.description
    if parameters:
        operation["parameters"] = parameters
    if endpoint.request is not None:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": endpoint.request}}}
    return operation


def _errors(endpoint: Endpoint) -> dict[int, list[type[errors.GatewayError]]]:
    """Gather what can go wrong, by status, each error once."""
    kinds = [*endpoint.errors, *_EVERYWHERE, *_BY_ACCESS[endpoint.access]]
    if endpoint.relay is not None:
        kinds += _RELAYED
        if endpoint.relay.json_only:
            kinds += _JSON_BODY
        if endpoint.relay.needs_model:
            kinds.append(errors.MissingParameter)
    by_status: dict[int, list[type[errors.GatewayError]]] = {}
    for kind in dict.fromkeys(kinds):
        by_status.setdefault(kind.status, []).append(kind)
    return by_status


def _answer(endpoint: Endpoint, status: int, answer: Response) -> Tree:
    names = [*_ALWAYS, *(_LIMITS if endpoint.relay is not None and status < 300 else ())]
    tree: Tree = {"description": answer.description, "headers": _references(names)}
    if answer.content:
        tree["content"] = {media: {"schema": schema} for media, schema in answer.content.items()}
    return tree


def _refusal(endpoint: Endpoint, status: int, kinds: Sequence[type[errors.GatewayError]]) -> Tree:
    names = [*_ALWAYS]
    if status in {429, 503}:
        names += _WAIT
    if status == 429:
        names += _LIMITS
    if endpoint.relay is not None and status in {429, 502, 503, 504}:
        names.append("x-should-retry")
    tree: Tree = {
        "description": "\n".join(_meaning(kind) for kind in kinds),
        "headers": _references(names),
    }
    if endpoint.method != "HEAD":
        schema = {"$ref": f"#/components/schemas/{_ERROR_SCHEMAS[endpoint.dialect][0]}"}
        tree["content"] = {"application/json": {"schema": schema}}
    return tree


def _meaning(kind: type[errors.GatewayError]) -> str:
    """Give an error's code and the first sentence of its docstring (its name where those are stripped, -OO)."""
    paragraph = " ".join((kind.__doc__ or kind.__name__).partition("\n\n")[0].split())
    text = paragraph.partition(". ")[0].removesuffix(".") + "."
    # What is passed on has the code that the upstream gave it.
    return text if kind is errors.UpstreamRejected else f"`{kind.alias or kind.code}`: {text}"


def _references(names: Iterable[str]) -> Tree:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


ENDPOINTS = (
    Endpoint(
        name="openapi",
        method="GET",
        path="/openapi.json",
        access="open",
        handler=document_of,
        summary="This document",
        tag="Documentation",
        responses={200: Response("An OpenAPI document.", {"application/json": {"type": "object"}})},
    ),
)
