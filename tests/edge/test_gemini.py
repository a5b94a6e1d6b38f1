"""What the path of Google's form says, in front of the body, where limits and routes read it."""

import json

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agw_proxy._hot import subjects
from agw_proxy.edge.gemini import shaped, usual
from agw_proxy.edge.reading import look_into
from agw_proxy.errors import InvalidJSON, InvalidParameter, UnknownPath

PATH = "/v1beta/models/gemini-1:generateContent"


def test_model_and_stream_come_first_and_what_was_sent_comes_back_behind_them() -> None:
    body = b' {"contents": []}'
    made = shaped("/v1beta/models/a%2Fb:streamGenerateContent", "key=k&alt=sse", body)
    assert orjson.loads(made.body) == {"model": "a/b", "stream": True, "contents": []}
    assert b"{" + made.body[made.front :] == body.strip()
    empty = shaped(PATH, "", b"{ }")
    assert orjson.loads(b"{" + (empty.body[empty.front :])) == {}


def test_the_path_says_the_model_where_the_body_says_one_too() -> None:
    made = shaped(PATH, "", b'{"model": "models/gemini-1", "contents": []}')
    assert made.body == b'{"model":"gemini-1","stream":false,"contents":[]}'
    assert made.body[made.front :] == b'"contents":[]}'
    alone = shaped(PATH, "", b'{"model": "models/gemini-1"}')
    assert alone.body == b'{"model":"gemini-1","stream":false}'
    with pytest.raises(InvalidJSON, match="nested too deeply"):
        shaped(PATH, "", b'{"model": "gemini-1", "contents": %b}' % (b"[" * 300 + b"]" * 300))
    with pytest.raises(InvalidParameter, match="another model"):
        shaped(PATH, "", b'{"model": "models/gemini-2", "contents": []}')


@pytest.mark.parametrize(
    ("config", "most", "choices"),
    [
        ({"maxOutputTokens": 7, "candidateCount": 3}, 7, 3),
        ({"max_output_tokens": "7", "candidate_count": 3.0}, 7, 3),
        ({"maxOutputTokens": 0, "candidateCount": 1}, -1, 1),
        ({"maxOutputTokens": "-7", "candidateCount": "x"}, -1, 1),
        ({"maxOutputTokens": True, "candidateCount": [2]}, -1, 1),
        ({"maxOutputTokens": 1e300, "candidateCount": "9" * 99}, -1, 1),
        ({}, -1, 1),
        ([], -1, 1),
    ],
)
def test_what_the_answer_may_take_is_known_to_the_limits(config: object, most: int, choices: int) -> None:
    for name in ("generationConfig", "generation_config"):
        made = shaped(PATH, "", orjson.dumps({name: config, "contents": []}))
        seen = look_into(made.body, 64)
        assert (seen.max_tokens, subjects.choices(made.body, seen)) == (most, choices)


COUNTS = st.none() | st.integers(-2, 10**12) | st.floats(0, 9) | st.sampled_from(["7", "x", True, [], {}])
CONFIGS = st.dictionaries(
    st.sampled_from(["maxOutputTokens", "max_output_tokens", "candidateCount", "candidate_count", "seed", 'a"b']),
    COUNTS,
)


@given(
    st.dictionaries(st.sampled_from(["generationConfig", "generation_config", "x"]), CONFIGS | COUNTS),
    st.integers(0, 2),
)
def test_what_is_read_in_passing_is_what_is_read_with_care(tree: dict[str, object], indent: int) -> None:
    """The fast lane reads no tree: where it finds bounds at all, they are these."""
    body = json.dumps(tree, indent=indent or None).encode()
    found = subjects.bounds(body, look_into(body, 64))
    if found is not None:
        most, each = found
        made = shaped(PATH, "", body).body
        seen = look_into(made, 64)
        assert (seen.max_tokens, subjects.choices(made, seen)) == (most or -1, min(max(each, 1), 128))


def test_generations_are_served_beneath_both_versions() -> None:
    assert usual("POST", "/v1/models/a/b%20c:countTokens") == "/v1beta/models/a/b%20c:countTokens"
    for method, path in (
        ("GET", "/v1/models/x:generateContent"),
        ("POST", "/v1/models/x"),
        ("POST", "/v1/x:generateContent"),
    ):
        assert usual(method, path) == path


@pytest.mark.parametrize("path", ["gemini-1", ":generateContent", "gemini-1:embedContent", ""])
def test_other_paths_are_nobodys(path: str) -> None:
    with pytest.raises(UnknownPath):
        shaped(f"/v1beta/models/{path}", "", b"{}")


def test_streams_are_events_and_bodies_are_objects() -> None:
    with pytest.raises(InvalidParameter):
        shaped("/v1beta/models/gemini-1:streamGenerateContent", "alt=json", b"{}")
    for body in (b"", b"[]", b"{", b'{"a":1}x'):
        with pytest.raises(InvalidJSON):
            shaped(PATH, "", body)
