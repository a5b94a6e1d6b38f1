"""Which endpoint a request finds, and which paths are none."""

from collections.abc import Sequence
from typing import Literal
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agw_proxy.api.endpoint import Endpoint, Matcher, Method, Relay, Response
from agw_proxy.api.table import ENDPOINTS
from agw_proxy.errors import MethodNotAllowed, UnknownPath
from agw_proxy.types import Answer, Asked, Control
from tests.api.control import MATCHER, by_name

RELAYED = Relay("/x", needs_model=False, json_only=False, sse_usage=False)


async def nothing(_: Control, __: Asked) -> Answer:
    return Answer(200, b"")


def endpoint(path: str, method: Method = "GET", name: str | None = None) -> Endpoint:
    return Endpoint(
        name=name or f"{method} {path}",
        method=method,
        path=path,
        access="open",
        handler=nothing,
        summary="",
        tag="",
        responses={200: Response("")},
    )


def matched(paths: Sequence[str], path: str) -> tuple[str, dict[str, str]]:
    found, values = Matcher([endpoint(item) for item in paths]).match("GET", path)
    return found.path, values


def test_every_endpoint_is_found_by_its_own_path() -> None:
    for item in ENDPOINTS:
        path = item.path.replace("{id:path}", "some/id").replace("{rest:path}", "files/f-1/content")
        assert MATCHER.match(item.method, path)[0] is item


def test_a_more_specific_path_goes_before_a_less_specific_one_whatever_the_order() -> None:
    paths = ["/{rest:path}", "/a/{id:path}", "/a/{id}", "/a/{id}/b", "/a/x", "/{one}/x"]
    for order in (paths, paths[::-1]):
        assert matched(order, "/a/x") == ("/a/x", {})
        assert matched(order, "/a/y") == ("/a/{id}", {"id": "y"})
        assert matched(order, "/a/y/b") == ("/a/{id}/b", {"id": "y"})
        assert matched(order, "/a/y/c") == ("/a/{id:path}", {"id": "y/c"})
        assert matched(order, "/b/x") == ("/{one}/x", {"one": "b"})
        assert matched(order, "/b/c/d") == ("/{rest:path}", {"rest": "b/c/d"})


def test_the_path_decides_before_the_method() -> None:
    with pytest.raises(MethodNotAllowed) as caught:
        MATCHER.match("GET", "/v1/chat/completions")
    assert caught.value.allowed == ("POST",)
    with pytest.raises(MethodNotAllowed) as caught:
        MATCHER.match("DELETE", "/v1/models/gpt-4o")
    assert caught.value.allowed == ("GET", "HEAD")
    with pytest.raises(MethodNotAllowed) as caught:
        MATCHER.match("OPTIONS", "/v1/files")
    assert caught.value.allowed == ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")


@pytest.mark.parametrize("path", ["/health", "/v1/models/x", "/v1/files"])
def test_head_is_get_where_there_is_get(path: str) -> None:
    assert MATCHER.match("HEAD", path)[0] is MATCHER.match("GET", path)[0]


def test_head_of_its_own_goes_before_get() -> None:
    assert MATCHER.match("HEAD", "/api/hello")[0] is by_name("hello")
    assert MATCHER.match("GET", "/api/hello")[0] is by_name("hello_get")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("/v1/models/gpt-4o", "gpt-4o"),
        ("/v1/models/openai/gpt-4o", "openai/gpt-4o"),
        ("/v1/models/openai%2Fgpt-4o", "openai/gpt-4o"),
        ("/v1/models/team%2fa%20b", "team/a b"),
        ("/v1/models/%C3%BC", "ü"),
        ("/v1/models/100%25", "100%"),
        ("/v1/models/a:b@c+d;e=f", "a:b@c+d;e=f"),
        ("/%76%31/models/x", "x"),
    ],
)
def test_a_parameter_is_decoded_once_and_keeps_its_slashes(path: str, value: str) -> None:
    assert MATCHER.match("GET", path) == (by_name("model"), {"id": value})


def test_an_encoded_slash_does_not_separate() -> None:
    assert matched(["/a/{id}", "/a/{id}/b"], "/a/x%2Fb") == ("/a/{id}", {"id": "x/b"})


def test_encoding_what_needs_none_changes_nothing() -> None:
    assert MATCHER.match("POST", "/v1/ch%61t/completions")[0] is by_name("chat_completions")
    with pytest.raises(MethodNotAllowed):
        MATCHER.match("PUT", "/%68ealth")


@pytest.mark.parametrize(
    "path",
    [
        "",
        "*",
        "health",
        "http://host/health",
        "/",
        "/v1",
        "/health/",
        "/nothing/here",
        "/v1/files?x=1",
        "/v1/files#x",
        "/v1/a b",
        "/v1/\u00fc",
        "/v1/\ud800",
        "/v1/a\n",
        "/v1/%",
        "/v1/%4",
        "/v1/%zz",
        "/v1/%+1",
        "/v1/%00",
        "/v1/files/%0d%0aX:%201",
        "/v1/%7f",
        "/v1/%C2%85",
        "/v1/%ff",
        "/v1/%ed%a0%80",
    ],
)
def test_what_is_no_proper_or_no_served_path_is_unknown(path: str) -> None:
    with pytest.raises(UnknownPath):
        MATCHER.match("GET", path)


@pytest.mark.parametrize("dots", ["..", ".", "%2e%2E", ".%2e", "x%2f..%2fy", "..%5c", "x\\..\\y"])
@pytest.mark.parametrize("path", ["/v1/{}", "/v1/files/{}/admin", "/v1/models/{}"])
def test_dot_segments_never_reach_an_upstream(path: str, dots: str) -> None:
    with pytest.raises(UnknownPath, match="dot segment"):
        MATCHER.match("GET", path.format(dots))


@pytest.mark.parametrize(
    "path",
    [
        "/v1/Chat/Completions",
        "/v1/chat/completions/",
        "/v1//chat/completions",
        "/v1/chat//completions",
        "/v1/chat%2Fcompletions",
        "/v1/chat%5ccompletions",
        "/v1/chat\\completions",
        "/v1/chat;v=1/completions",
        "/v1/chat/completions;v=1",
        "/v1/chat/COMPLETIONS%2f",
    ],
)
def test_what_a_laxer_server_would_take_for_an_endpoint_is_not_relayed_past_it(path: str) -> None:
    with pytest.raises(UnknownPath, match="/v1/chat/completions is one"):
        MATCHER.match("POST", path)


@pytest.mark.parametrize("path", ["/v1/Models/gpt-4o", "/v1/models%2Fgpt-4o", "/v1//models/gpt-4o"])
def test_the_same_holds_for_templates(path: str) -> None:
    with pytest.raises(UnknownPath, match=r"/v1/models/\{id\} is one"):
        MATCHER.match("GET", path)


def test_a_declared_trailing_slash_is_another_path() -> None:
    assert matched(["/a", "/a/"], "/a/") == ("/a/", {})
    assert matched(["/a", "/a/"], "/a") == ("/a", {})


@pytest.mark.parametrize("path", ["/v1/files/", "/v1/files//x", "/v1/models//x", "/v1/models/x/"])
def test_a_parameter_has_no_empty_segment(path: str) -> None:
    with pytest.raises(UnknownPath):
        MATCHER.match("GET", path)


def test_a_message_shows_a_bounded_part_of_the_path() -> None:
    with pytest.raises(UnknownPath) as caught:
        MATCHER.match("GET", "/" + "x" * 100_000)
    assert len(caught.value.message) < 400


ALPHABET = st.sampled_from(
    ["/", "%2F", "%2e", ".", "%00", "%", ";", "\\", "\u00fc", "\x00", "v1", "V1", "models", "chat"]
)
SERVED = st.sampled_from([item.path for item in ENDPOINTS])
PATHS = st.one_of(st.text(), st.lists(ALPHABET).map("".join), SERVED.flatmap(lambda path: st.text().map(path.__add__)))


@given(method=st.sampled_from(["GET", "HEAD", "POST", "BREW", ""]), path=PATHS)
@example(method="GET", path="/v1/models/%F0%9F%98%80")
def test_any_path_is_a_match_or_one_of_the_two_errors(method: str, path: str) -> None:
    outcome: Literal["match", "unknown", "method"]
    allowed: tuple[str, ...] | None = None
    try:
        found, values = MATCHER.match(method, path)
    except UnknownPath:
        outcome = "unknown"
    except MethodNotAllowed as error:
        outcome = "method"
        allowed = error.allowed
    else:
        outcome = "match"
        assert method in {found.method, "HEAD"}
        assert set(values) == set(found.parameters)
        for value in values.values():
            assert value
            assert value.encode()
            assert not any(ord(char) < 32 or 127 <= ord(char) < 160 for char in value)
            assert not {".", ".."} & set(value.split("/"))
    assert outcome == "unknown" or path.startswith("/")
    assert allowed is None or (allowed and method not in allowed)


@given(st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1))
def test_any_model_name_survives_its_encoding(name: str) -> None:
    if {".", ".."} & set(name.replace("\\", "/").split("/")):
        with pytest.raises(UnknownPath):
            MATCHER.match("GET", "/v1/models/" + quote(name, safe=""))
    else:
        assert MATCHER.match("GET", "/v1/models/" + quote(name, safe="")) == (by_name("model"), {"id": name})


@pytest.mark.parametrize(
    "path", ["no-slash", "/a//b", "/{id:path}/b", "/a{id}", "/{id}}", "/{Id}", "/{a}/{a}", "/a%20b", "/a?b"]
)
def test_a_malformed_endpoint_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match=r"path|twice"):
        Matcher([endpoint(path)])


@pytest.mark.parametrize(
    "pair",
    [
        (endpoint("/a"), endpoint("/a", name="b")),
        (endpoint("/a", name="x"), endpoint("/b", name="x")),
        (endpoint("/a/{id}"), endpoint("/a/{name}")),
    ],
    ids=["path", "name", "parameter"],
)
def test_endpoints_that_hide_one_another_are_refused(pair: tuple[Endpoint, Endpoint]) -> None:
    with pytest.raises(ValueError, match=r"twice|differ"):
        Matcher(pair)


def test_an_endpoint_is_served_in_exactly_one_way() -> None:
    def made(*, local: bool, relay: Relay | None) -> Endpoint:
        return Endpoint(
            name="x",
            method="GET",
            path="/x",
            access="open",
            handler=nothing if local else None,
            relay=relay,
            summary="",
            tag="",
            responses={},
        )

    assert made(local=False, relay=RELAYED).handler is None
    for local, relay in ((True, RELAYED), (False, None)):
        with pytest.raises(ValueError, match="handler or a relay"):
            made(local=local, relay=relay)
