"""The gateway's own keys end here, wherever a client puts them."""

import pytest

from agw_proxy.edge.raw import without_keys

KNOWN = frozenset({b"agw-1", b"a b+c"})


@pytest.mark.parametrize(
    ("query", "left"),
    [
        ("", ""),
        ("beta=true&limit=2", "beta=true&limit=2"),
        ("key=agw-1", ""),
        ("a=1&key=agw-1&b=%61", "a=1&b=%61"),
        ("a=1&x=%61gw%2D1&&b", "a=1&&b"),
        ("api_key=+agw-1", ""),
        ("t=a+b%2Bc&u=agw-12&v=agw-1=", "u=agw-12&v=agw-1="),
    ],
)
def test_fields_that_hold_a_key_do_not_go_on(query: str, left: str) -> None:
    assert without_keys(query, KNOWN.__contains__) == left
