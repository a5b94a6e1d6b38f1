"""Which headers cross the gateway; all others stay on their side."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from agw_proxy.edge.headers import (
    CREDENTIALS,
    HOP_BY_HOP,
    OURS,
    label,
    own_credentials,
    request_id,
    towards_client,
    towards_upstream,
    trace_id,
)

TRACE = "0af7651916cd43dd8448eb211c80319c"


def sent(*pairs: tuple[str, str]) -> CIMultiDictProxy[str]:
    return CIMultiDictProxy(CIMultiDict(pairs))


@pytest.mark.parametrize(
    "name",
    [
        *sorted(HOP_BY_HOP | CREDENTIALS | OURS),
        "X-Forwarded-For",
        "x-forwarded-host",
        "X-Agw-Anything",
        "Sec-WebSocket-Key",
        "Proxy-Status",
        "COOKIE",
    ],
)
def test_what_is_ours_or_the_connections_stays_here(name: str) -> None:
    assert towards_upstream(sent((name, "1"), (name.title(), "2"), ("x-other", "3"))) == [("x-other", "3")]


def test_everything_else_goes_on_as_it_came_and_in_order() -> None:
    pairs = [("OpenAI-Beta", "a"), ("traceparent", "t"), ("x-twice", "1"), ("x-twice", "2"), ("Accept", "*/*")]
    assert towards_upstream(sent(*pairs)) == pairs


def test_what_connection_names_ends_here() -> None:
    headers = sent(
        ("Connection", "close, X-One"), ("connection", "x-two"), ("x-one", "1"), ("X-Two", "2"), ("x-3", "3")
    )
    assert towards_upstream(headers) == [("x-3", "3")]


def test_own_credentials_are_taken_out_by_name() -> None:
    headers = sent(("Authorization", "Bearer a"), ("X-API-Key", "b"), ("x-agw-key", "c"), ("cookie", "d"))
    assert own_credentials(headers) == [("Authorization", "Bearer a"), ("X-API-Key", "b")]


def test_own_credentials_that_connection_names_end_here() -> None:
    headers = sent(("Connection", "Authorization"), ("authorization", "Bearer a"), ("x-api-key", "b"))
    assert own_credentials(headers) == [("x-api-key", "b")]


NAMES = st.sampled_from(sorted(HOP_BY_HOP | CREDENTIALS | OURS | {"x-a", "x-b"}))
VALUES = st.sampled_from(["close", "x-a", "X-B, te", ""])


@given(st.lists(st.tuples(NAMES, VALUES)))
def test_no_order_or_repetition_lets_a_kept_header_through(pairs: list[tuple[str, str]]) -> None:
    assert {name for name, _ in towards_upstream(sent(*pairs))} <= {"x-a", "x-b"}


@pytest.mark.parametrize(
    ("name", "crosses"),
    [
        (b"Content-Type", True),
        (b"openai-processing-ms", True),
        (b"x-codex-primary", True),
        (b"Set-Cookie", False),
        (b"Server", False),
        (b"openai-organization", False),
        (b"Connection", False),
        (b"Transfer-Encoding", False),
        (b"Content-Length", False),
        (b"www-authenticate", False),
        (b"location", False),
        (b"x-request-id", False),
        (b"x-anything", False),
    ],
)
def test_an_upstreams_headers_cross_by_a_list(name: bytes, crosses: bool) -> None:
    found = list(towards_client([(name, "vü".encode())], limits=True))
    assert found == ([(name.decode(), "vü")] if crosses else [])
    assert list(towards_client([(name, b"v\xfc")], limits=True)) == []


def test_an_upstreams_limits_cross_where_ours_say_nothing() -> None:
    headers = [(b"X-RateLimit-Remaining-Tokens", b"7")]
    assert list(towards_client(headers, limits=True)) == [("X-RateLimit-Remaining-Tokens", "7")]
    assert list(towards_client(headers, limits=False)) == []


@pytest.mark.parametrize("sane", ["a", "req_1", "A1._:/+=-", "x" * 128])
def test_a_sane_id_is_kept(sane: str) -> None:
    assert request_id(sent(("X-Request-Id", sane))) == sane


@pytest.mark.parametrize("insane", ["", " a", "-a", "x" * 129, "a b", "a\tb", "ü", 'a"', "a\n"])
def test_any_other_id_is_made_anew(insane: str) -> None:
    made = {request_id(sent(("x-request-id", insane))), request_id(sent())}
    assert len(made) == 2
    assert all(text.startswith("req_") and len(text) == 28 for text in made)


@pytest.mark.parametrize(
    ("sent_text", "found"),
    [
        (f"00-{TRACE}-b7ad6b7169203331-01", TRACE),
        (f"00-{TRACE.upper()}-b7ad6b7169203331-01", None),
        (f"00-{TRACE}-b7ad6b7169203331", None),
        (f"00-{TRACE}-b7ad6b7169203331-01-more", None),
        (f"00-{'0' * 32}-b7ad6b7169203331-01", None),
        (f"ff-{TRACE}-b7ad6b7169203331-01", None),
        ("", None),
    ],
)
def test_a_trace_is_read_as_the_specification_says(sent_text: str, found: str | None) -> None:
    assert trace_id(sent(("traceparent", sent_text))) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [("ann@example.org", "ann@example.org"), ("", None), ("x" * 257, None), ("a\x7f", None), ("ä", None)],
)
def test_labels_are_printable_and_bounded(text: str, found: str | None) -> None:
    assert label(sent(("x-user-id", text)), "X-User-Id") == found
    assert label(sent(), "x-user-id") is None
