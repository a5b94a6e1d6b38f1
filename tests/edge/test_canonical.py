"""Which requests are the same: property tests over JSON bodies, and the cases that must be kept apart."""

import json
import random
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from agw_proxy.edge.canonical import ASIDE, MAX_BYTES, Apart, canonical, digest, varying

PATH = "/v1/chat/completions"
GEMINI = "/v1beta/models/gemini-1:generateContent"
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)
NAMES = st.text(max_size=6).filter(
    lambda name: name not in {"tools", "stream", "web_search_options"} | ASIDE["chat_completions"]
)
BODIES = st.dictionaries(NAMES, VALUES, max_size=5)


def shuffled(tree: Any, dice: random.Random) -> Any:
    if isinstance(tree, dict):
        items = list(tree.items())
        dice.shuffle(items)
        return {name: shuffled(value, dice) for name, value in items}
    return [shuffled(item, dice) for item in tree] if isinstance(tree, list) else tree


def spelt(tree: Any, dice: random.Random) -> bytes:
    return json.dumps(
        shuffled(tree, dice), indent=dice.choice([None, 1, 4]), ensure_ascii=dice.choice([True, False])
    ).encode("utf-8", "surrogatepass")


@given(BODIES, st.integers())
def test_spelling_does_not_count(tree: dict[str, Any], seed: int) -> None:
    dice = random.Random(seed)
    bodies = [spelt(tree, dice) for _ in range(3)]
    assume(all("\\ud" not in body.decode("utf-8", "replace").lower() for body in bodies))
    assert len({canonical("chat_completions", PATH, body) for body in bodies}) == 1


@given(BODIES, BODIES)
def test_another_body_is_another_request(one: dict[str, Any], other: dict[str, Any]) -> None:
    bodies = [json.dumps(tree, sort_keys=True).encode() for tree in (one, other)]
    same = canonical("chat_completions", PATH, bodies[0]) == canonical("chat_completions", PATH, bodies[1])
    assert same is (bodies[0] == bodies[1])


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b'{"a":{"b":1,"b":2}}', "json"),
        (b'{"messages":[{"role":"user","role":"system"}]}', "json"),
        (b'{"n":1e400}', "json"),
        (b'{"n":NaN}', "json"),
        (b"[" * 5000 + b"]" * 5000, "json"),
        (b'{"n":' + b"9" * 5000 + b"}", "json"),
        (b'{"text":"' + b"x" * MAX_BYTES + b'"}', "size"),
        (b'{"store":true}', "state"),
        (b'{"web_search_options":{}}', "state"),
        (b'{"tools":[{"type":"web_search_preview"}]}', "tools"),
        (b'{"tools":[{"type":7}]}', "tools"),
        (b'{"tools":["x"]}', "tools"),
    ],
)
def test_what_could_mean_two_things_or_does_more_than_answer_is_apart(body: bytes, why: str) -> None:
    with pytest.raises(Apart, match=why):
        canonical("chat_completions", PATH, body)


@pytest.mark.parametrize(
    ("endpoint", "path", "member", "apart"),
    [
        ("responses", "/v1/responses", {"previous_response_id": "x"}, True),
        ("responses", "/v1/responses", {"previous_response_id": None}, False),
        ("responses", "/v1/responses", {"tools": [{"type": "mcp"}]}, True),
        ("responses", "/v1/responses", {"tools": [{"type": "function", "name": "f"}]}, False),
        ("responses", "/v1/responses/input_tokens", {}, True),
        ("messages", "/v1/messages", {"mcp_servers": [{}]}, True),
        ("messages", "/v1/messages", {"thread": {"type": "create"}}, True),
        ("messages", "/v1/messages", {"mcp_servers": []}, False),
        ("messages", "/v1/messages", {"tools": [{"type": "web_search_20250305"}]}, True),
        ("messages", "/v1/messages", {"tools": [{"name": "f"}, {"type": "bash_20250124"}]}, False),
        ("messages", "/v1/messages/count_tokens", {}, True),
        ("audio", "/v1/audio/speech", {}, True),
        ("moderations", "/v1/moderations", {}, False),
        ("gemini", GEMINI, {"generationConfig": {"seed": 1}}, False),
        ("gemini", GEMINI.replace("generate", "streamGenerate"), {}, False),
        ("gemini", "/v1beta/models/gemini-1:countTokens", {}, True),
        ("gemini", GEMINI, {"cachedContent": "cachedContents/x"}, True),
        ("gemini", GEMINI, {"cached_content": "cachedContents/x"}, True),
        ("gemini", GEMINI, {"store": True}, True),
        ("gemini", GEMINI, {"tools": [{"functionDeclarations": [], "googleSearch": None}]}, False),
        ("gemini", GEMINI, {"tools": {"function_declarations": []}}, False),
        ("gemini", GEMINI, {"tools": [{"functionDeclarations": []}, {"google_search": {}}]}, True),
        ("gemini", GEMINI, {"tools": {"urlContext": {}}}, True),
        ("gemini", GEMINI, {"tools": ["x"]}, True),
    ],
)
def test_each_endpoint_has_its_own_reading(endpoint: str, path: str, member: dict[str, Any], apart: bool) -> None:
    body = json.dumps({"model": "m", **member}).encode()
    if apart:
        with pytest.raises(Apart):
            canonical(endpoint, path, body)
    else:
        assert canonical(endpoint, path, body)


def test_who_asks_is_left_out_where_the_answer_does_not_tell_it_back() -> None:
    plain = canonical("chat_completions", PATH, b"{}")
    assert canonical("chat_completions", PATH, b'{"user":"u","metadata":{"a":"b"},"store":false}') == plain
    told = [canonical("responses", "/v1/responses", body) for body in (b"{}", b'{"user":"u"}')]
    assert told[0] != told[1]


def test_only_a_stream_in_plain_words_is_the_same_as_another() -> None:
    # Lax readers take "no" for false and 1 for true: their answers must not be found by those who ask for a stream, or none.
    spellings = [b"{}", b'{"stream":null}', b'{"stream":false}']
    others = [
        b'{"stream":true}',
        b'{"stream":"no"}',
        b'{"stream":"yes"}',
        b'{"stream":1}',
        b'{"stream":0}',
        b'{"stream":""}',
    ]
    assert len({canonical("chat_completions", PATH, body) for body in spellings}) == 1
    assert len({canonical("chat_completions", PATH, body) for body in (b"{}", *others)}) == 1 + len(others)


@given(st.lists(st.binary(max_size=5), max_size=4), st.lists(st.binary(max_size=5), max_size=4))
def test_a_digest_is_of_the_parts_and_not_of_their_sum(one: list[bytes], other: list[bytes]) -> None:
    assert (digest(*one) == digest(*other)) is (one == other)


def test_headers_count_by_lower_case_names() -> None:
    headers = [(b"Anthropic-Version", b"1"), (b"X-Other", b"2"), (b"OPENAI-BETA", b"3"), (b"x-goog-FieldMask", b"a")]
    assert varying(headers) == b"anthropic-version:1\nopenai-beta:3\nx-goog-fieldmask:a\n"


def test_headers_that_go_no_further_do_not_count() -> None:
    headers = [(b"Connection", b"close, OpenAI-Beta"), (b"openai-beta", b"1"), (b"anthropic-beta", b"2")]
    assert varying(headers) == b"anthropic-beta:2\n"
