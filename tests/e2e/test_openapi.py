"""The gateway describes itself: a valid OpenAPI document of what is served and nothing else, and a page to read it."""

import re
from typing import Any

import pytest
from openapi_spec_validator import validate

from tests.support.gateway import Gateway

SERVED = {
    ("/v1/chat/completions", "post"),
    ("/v1/completions", "post"),
    ("/v1/embeddings", "post"),
    ("/v1/responses", "post"),
    ("/v1/messages", "post"),
    ("/v1/moderations", "post"),
    ("/v1/models", "get"),
    ("/health", "get"),
    ("/health/ready", "get"),
    ("/metrics", "get"),
    ("/metrics/prometheus", "get"),
    ("/upstreams", "get"),
    ("/upstreams/refresh", "post"),
    ("/security/refresh", "post"),
}
METHODS = {"get", "post", "put", "patch", "delete", "head", "options"}


@pytest.fixture
def document(gateway: Gateway) -> dict[str, Any]:
    reply = gateway.get("/openapi.json", key=None)
    assert reply.status == 200
    return reply.json


def test_the_document_is_valid_openapi(document: dict[str, Any]) -> None:
    validate(document)
    assert document["openapi"].startswith("3.1")


def test_every_served_path_is_in_it(document: dict[str, Any]) -> None:
    listed = {(path, method) for path, item in document["paths"].items() for method in item if method in METHODS}
    assert listed >= SERVED
    assert any(re.fullmatch(r"/v1/models/\{.+\}", path) for path in document["paths"])


def test_every_listed_path_is_served(gateway: Gateway, document: dict[str, Any]) -> None:
    for path, item in document["paths"].items():
        concrete = re.sub(r"\{[^}]+\}", "x", path)
        for method in METHODS & set(item):
            if method == "get":
                reply = gateway.get(concrete, key=gateway.admin_key)
            elif method == "post":
                reply = gateway.post(concrete, {}, key=gateway.admin_key)
            else:
                continue
            assert reply.status != 405, (method, path)
            assert b"There is no endpoint" not in reply.body, (method, path)  # the upstream may not have it


def test_operations_state_their_errors_and_their_credentials(document: dict[str, Any]) -> None:
    chat = document["paths"]["/v1/chat/completions"]["post"]
    assert {"200", "400", "401", "404", "429"} <= set(chat["responses"])
    assert document["components"]["securitySchemes"]
    identities = [
        operation["operationId"]
        for item in document["paths"].values()
        for method, operation in item.items()
        if method in METHODS
    ]
    assert len(identities) == len(set(identities))


def test_the_page_needs_nothing_from_elsewhere(gateway: Gateway) -> None:
    reply = gateway.get("/docs", key=None)
    assert reply.status == 200
    assert (reply.value("content-type") or "").startswith("text/html")
    assert "default-src" in (reply.value("content-security-policy") or "")
    page = reply.body.decode()
    assert "openapi.json" in page
    assert re.findall(r"""(?:src|href|action)\s*=\s*["']?(?:https?:)?//""", page) == []
    assert re.findall(r"@import|url\(\s*[\"']?(?:https?:)?//", page) == []


def test_the_open_endpoints_need_no_key_and_the_rest_does(gateway: Gateway) -> None:
    assert gateway.get("/health", key=None).status == 200
    assert gateway.get("/health/ready", key=None).status == 200
    assert gateway.get("/v1/models", key=None).status == 401
    for path in ("/upstreams", "/metrics", "/metrics/prometheus"):
        assert gateway.get(path, key=None).status == 401
        assert gateway.get(path).status == 403
        assert gateway.get(path, key=gateway.admin_key).status == 200
    assert gateway.post("/security/refresh").status == 403
    assert gateway.post("/upstreams/refresh").status == 403
