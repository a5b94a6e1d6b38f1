"""The document is valid, complete and says what is so; the page that shows it runs nothing but itself."""

import re
from base64 import b64encode
from hashlib import sha256
from html.parser import HTMLParser
from typing import Any

import msgspec
import orjson
import pytest
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from agw_proxy.api.docs import PAGE, policy
from agw_proxy.api.endpoint import Endpoint
from agw_proxy.api.openapi import document
from agw_proxy.api.table import ENDPOINTS
from tests.api.control import FakeControl, ask, by_name, principal

Tree = dict[str, Any]


@pytest.fixture(scope="module")
def written() -> Tree:
    found: Tree = orjson.loads(document(ENDPOINTS, "1.2.3"))
    return found


def operation(written: Tree, name: str) -> Tree:
    endpoint = by_name(name)
    found: Tree = written["paths"][endpoint.template][endpoint.method.lower()]
    return found


def test_it_is_valid_openapi_3_1(written: Tree) -> None:
    OpenAPIV31SpecValidator(written).validate()
    assert written["openapi"].startswith("3.1.")
    assert written["info"]["version"] == "1.2.3"


async def test_it_is_what_the_gateway_answers(written: Tree) -> None:
    answer = await ask(FakeControl(), "/openapi.json")
    assert answer.content_type == "application/json"
    assert orjson.loads(answer.body) == written


def test_it_lists_each_listed_endpoint_once_and_nothing_else(written: Tree) -> None:
    listed = {(path, method) for path, item in written["paths"].items() for method in item}
    assert listed == {(item.template, item.method.lower()) for item in ENDPOINTS if item.listed}
    assert {item["operationId"] for methods in written["paths"].values() for item in methods.values()} == {
        item.name for item in ENDPOINTS if item.listed
    }


def test_what_is_served_unlisted_is_told_in_the_text(written: Tree) -> None:
    assert "`/v1/{rest}` (GET, POST, PUT, PATCH, DELETE)" in written["info"]["description"]
    assert "`/v1/{rest}`" not in orjson.loads(document([by_name("health")], "1"))["info"]["description"]


@pytest.mark.parametrize(
    ("path", "required"),
    [("/v1/responses", {"model", "input"}), ("/v1/messages", {"model", "max_tokens", "messages"})],
)
def test_generations_in_other_forms_can_be_read_and_tried(written: Tree, path: str, required: set[str]) -> None:
    found = written["paths"][path]["post"]
    schema = found["requestBody"]["content"]["application/json"]["schema"]
    assert set(schema["required"]) == required
    for sample in schema["examples"]:
        OAS31Validator(schema).validate({**sample, "something_new": 1})
    assert {"application/json", "text/event-stream"} == set(found["responses"]["200"]["content"])
    assert f"`{path}` (POST" not in written["info"]["description"]


def test_keys_are_asked_for_in_every_header_they_may_come_in(written: Tree) -> None:
    schemes = written["components"]["securitySchemes"]
    assert schemes["bearerAuth"]["scheme"] == "bearer"
    headers = {scheme["name"] for scheme in schemes.values() if scheme["type"] == "apiKey"}
    assert headers == {"x-api-key", "api-key", "x-goog-api-key", "x-agw-key"}
    for endpoint in ENDPOINTS:
        if endpoint.listed:
            security = operation(written, endpoint.name)["security"]
            assert security == ([] if endpoint.access == "open" else [{name: []} for name in schemes])


@pytest.mark.parametrize(
    ("name", "statuses"),
    [
        ("chat_completions", {"200", "400", "401", "403", "404", "408", "413", "415", "429", "502", "503", "504"}),
        ("moderations", {"200", "400", "401", "404", "429", "502"}),
        ("model", {"200", "401", "404"}),
        ("ready", {"200", "503"}),
        ("upstreams", {"200", "400", "401", "403"}),
        ("security_refresh", {"200", "401", "403", "409"}),
    ],
)
def test_statuses_are_documented(written: Tree, name: str, statuses: set[str]) -> None:
    assert set(operation(written, name)["responses"]) >= statuses


def test_an_endpoint_documents_no_error_that_it_cannot_have(written: Tree) -> None:
    assert not {"401", "403", "404", "429", "502"} & set(operation(written, "health")["responses"])
    assert not {"415", "502", "504"} & set(operation(written, "models")["responses"])
    assert "missing_required_parameter" not in operation(written, "moderations")["responses"]["400"]["description"]


def test_errors_are_named_by_their_public_codes(written: Tree) -> None:
    responses = operation(written, "chat_completions")["responses"]
    assert "`rate_limit_exceeded`: A limit refused the request." in responses["429"]["description"]
    assert "`model_not_found`" in responses["404"]["description"]


def test_headers_are_documented_where_they_come(written: Tree) -> None:
    responses = operation(written, "chat_completions")["responses"]
    limits = {
        f"x-ratelimit-{what}-{unit}" for what in ("limit", "remaining", "reset") for unit in ("requests", "tokens")
    }
    assert set(responses["200"]["headers"]) == {"x-request-id", "Server-Timing", *limits}
    assert set(responses["429"]["headers"]) >= {"x-request-id", "Retry-After", "retry-after-ms", *limits}
    assert set(responses["503"]["headers"]) >= {"Retry-After", "x-should-retry"}
    assert set(responses["404"]["headers"]) == {"x-request-id", "Server-Timing"}


def test_errors_come_in_the_dialect_of_the_endpoint(written: Tree) -> None:
    def schemas(tree: Tree) -> tuple[set[str], str]:
        reply = tree["paths"]["/v1/models"]["get"]["responses"]["401"]
        return set(tree["components"]["schemas"]), reply["content"]["application/json"]["schema"]["$ref"]

    assert schemas(written) == (
        {"OpenAIError", "AnthropicError", "GoogleError"},
        "#/components/schemas/OpenAIError",
    )
    other = msgspec.structs.replace(by_name("models"), dialect="anthropic")
    tree = orjson.loads(document([other], "1"))
    OpenAPIV31SpecValidator(tree).validate()
    assert schemas(tree) == ({"AnthropicError"}, "#/components/schemas/AnthropicError")


@pytest.mark.parametrize(
    ("name", "required"),
    [
        ("chat_completions", {"model", "messages"}),
        ("completions", {"model", "prompt"}),
        ("embeddings", {"model", "input"}),
        ("moderations", {"input"}),
    ],
)
def test_a_relayed_request_is_described_by_what_it_needs_and_stays_open(
    written: Tree, name: str, required: set[str]
) -> None:
    schema = operation(written, name)["requestBody"]["content"]["application/json"]["schema"]
    OAS31Validator.check_schema(schema)
    assert set(schema["required"]) == required
    assert schema["additionalProperties"] is True
    check = OAS31Validator(schema)
    for sample in schema["examples"]:
        check.validate(sample)
        check.validate({**sample, "something_new": {"deep": 1}})
        for member in required:
            assert not check.is_valid({key: value for key, value in sample.items() if key != member})
    relay = by_name(name).relay
    assert relay is not None
    assert relay.needs_model is ("model" in required)
    assert relay.needs_model or relay.default_model


async def test_what_is_answered_fits_its_schema(written: Tree) -> None:
    control = FakeControl()
    paths = {"model": "/v1/models/gpt-4o"}
    for name in ("models", "model", "health", "ready", "metrics", "upstreams"):
        endpoint = by_name(name)
        answer = await ask(control, paths.get(name, endpoint.path), caller=principal())
        schema = operation(written, name)["responses"][str(answer.status)]["content"]["application/json"]["schema"]
        OAS31Validator(schema).validate(orjson.loads(answer.body))


def test_path_and_query_parameters_are_described(written: Tree) -> None:
    [identity] = operation(written, "model")["parameters"]
    assert (identity["name"], identity["in"], identity["required"]) == ("id", "path", True)
    query = {item["name"]: item["schema"] for item in operation(written, "upstreams")["parameters"]}
    assert set(query) == {"limit", "after", "sort"}
    assert "-name" in query["sort"]["enum"]


def test_two_paths_that_read_the_same_are_refused() -> None:
    first = by_name("model")
    second: Endpoint = msgspec.structs.replace(first, name="other", path="/v1/models/{id}")
    with pytest.raises(ValueError, match="twice"):
        document([first, second], "1")


class Markup(HTMLParser):
    """Collects tags and the attributes by which a page could run or load something."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.active: list[tuple[str, str, str | None]] = []
        self.feed(page.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        names = {"src", "href", "action", "style", "srcset", "data", "http-equiv"}
        self.active += [(tag, name, value) for name, value in attrs if name in names or name.startswith("on")]


async def test_the_page_is_served_with_a_policy_that_lets_only_itself_run() -> None:
    answer = await ask(FakeControl(), "/docs")
    assert (answer.status, answer.content_type) == (200, "text/html; charset=utf-8")
    headers = dict(answer.headers)
    assert headers["X-Content-Type-Options"] == "nosniff"
    directives = dict(part.split(" ", 1) for part in headers["Content-Security-Policy"].split("; "))
    assert directives["default-src"] == "'none'"
    assert directives["connect-src"] == "'self'"
    assert directives["base-uri"] == directives["form-action"] == directives["frame-ancestors"] == "'none'"
    for directive, tag in (("script-src", b"script"), ("style-src", b"style")):
        assert answer.body.count(b"<" + tag) == 1
        inline = answer.body.partition(b"<" + tag + b">")[2].partition(b"</" + tag + b">")[0]
        assert directives[directive] == f"'sha256-{b64encode(sha256(inline).digest()).decode()}'"
    assert "unsafe" not in headers["Content-Security-Policy"]


def test_a_page_without_script_and_style_may_run_none() -> None:
    assert "script-src 'none'; style-src 'none'" in policy(b"<p>text</p>")


def test_the_page_loads_nothing_and_writes_text_only() -> None:
    markup = Markup(PAGE)
    assert markup.active == [("link", "href", "data:,")]
    assert not {"form", "iframe", "object", "embed", "base", "img"} & set(markup.tags)
    page = PAGE.decode()
    assert re.findall(r"https?://|//[a-z]+\.", page) == []
    script = page.partition("<script>")[2]
    for sink in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval", "Function(", "srcdoc"):
        assert sink not in script
    assert "openapi.json" in script


def test_the_page_keeps_the_key_in_memory_only() -> None:
    script = PAGE.decode().partition("<script>")[2]
    for store in ("localStorage", "sessionStorage", "indexedDB", "cookie", "history."):
        assert store not in script
