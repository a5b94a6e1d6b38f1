import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agw_proxy._hot.peek import Peek, PeekError, peek, rewrite
from tests.hot import model_peek

KEYS = st.sampled_from([*model_peek.TYPES, "messages", "x", "modèl", "temperature"])
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 1 << 64),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=12),
)
TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)
USAGE = st.dictionaries(st.sampled_from(["include_usage", "other", "é"]), st.none() | st.booleans(), max_size=3)
PROPER: dict[str, st.SearchStrategy[Any]] = {
    "model": st.text(max_size=8) | st.none(),
    "user": st.text(max_size=8) | st.none(),
    "stream": st.booleans() | st.none(),
    "max_tokens": st.integers(0, (1 << 63) - 1) | st.none(),
    "max_output_tokens": st.integers(0, 9),
    "max_completion_tokens": st.integers(0, 9) | st.none(),
    "stream_options": USAGE | st.none(),
    "tools": st.lists(TREES, max_size=2) | st.none(),
    "functions": st.lists(TREES, max_size=2),
    "fallbacks": st.lists(TREES, max_size=2) | st.none(),
    "messages": TREES,
}
BODIES = st.builds(
    lambda tree, ascii_only, indent: json.dumps(tree, ensure_ascii=ascii_only, indent=indent).encode(
        "utf-8", "surrogatepass"
    ),
    st.fixed_dictionaries({}, optional=PROPER) | st.dictionaries(KEYS, TREES, max_size=5),
    st.booleans(),
    st.sampled_from([None, 0, 1]),
)


def seen(body: bytes, max_depth: int = 64) -> model_peek.Seen | None:
    """What the compiled scanner sees in the model's terms, None where it refuses."""
    try:
        found = peek(body, max_depth)
    except PeekError as error:
        refused = error
    else:
        return seen_in(found)
    assert 0 <= refused.offset <= len(body)
    assert len(str(refused)) < 400
    return None


def seen_in(found: Peek) -> model_peek.Seen:
    return model_peek.Seen(
        found.model, found.stream, found.max_tokens, found.user, found.tools, found.include_usage, found.escaped,
        {
            "model": (found.model_start, found.model_end),
            "stream_options": (found.stream_options_start, found.stream_options_end),
            "fallbacks": (found.fallbacks_start, found.fallbacks_end),
        },
    )  # fmt: skip


def modelled(body: bytes, max_depth: int = 64) -> model_peek.Seen | None:
    try:
        found = model_peek.peek(body, max_depth)
    except (ValueError, RecursionError):
        return None
    found.spans = {name: found.span(name) for name in ("model", "stream_options", "fallbacks")}
    return found


def refusal(body: bytes, max_depth: int = 64) -> PeekError:
    with pytest.raises(PeekError) as caught:
        peek(body, max_depth)
    return caught.value


ACCEPTED = [
    b"{}",
    b" \t\r\n{ } \n",
    b'{"model":"gpt-4o","stream":true,"max_tokens":5,"user":"u","tools":[{}],"stream_options":{"include_usage":true}}',
    b'{"model":null,"stream":null,"max_tokens":null,"user":null,"tools":null,"functions":null,"stream_options":null}',
    b'{"model":"","user":"","tools":[ ],"functions":[1],"stream_options":{ }}',
    b'{"fallbacks" : ["a", {"b":[]}] ,"x":{"fallbacks":1}}',
    b'{"fallbacks":null}',
    b'{"mod\\u0065l":"a\\/b","us\\u0065r":"\\ud83d\\ude00"}',
    b'{"max_tokens":1,"max_output_tokens":2,"max_completion_tokens":3}',
    b'{"max_tokens":1,"max_output_tokens":2,"max_completion_tokens":null}',
    b'{"max_tokens":9223372036854775807}',
    b'{"max_tokens":0}',
    b'{"a":[-0,0.5,1e5,-1.5E-3,1E+2,true,false,null,"",{},[]],"b":{"a":{"a":1},"b":2}}',
    '{"modèl":"日本語 \U0010ffff \u00df","model":"é\u007f"}'.encode(),
    b'{"x":"\\ud800 alone is fine where nobody compares","y":{"\\udc00":1}}',
    b'{"x":' + b"1" * 128 + b"}",
    b'{"x":{"a":1,"a":2}}',
    b'{"stream_options":{"include_usage":null,"other":[{"deep":1}]}}',
    b'{"stream_options":{"include\\u005fusage":true}}',
    b"{" + b",".join(b'"%d":0' % i for i in range(1024)) + b"}",
]

REFUSED = [
    (b"", 0, "empty body"),
    (b" \n ", 3, "empty body"),
    (b"[]", 0, "got an array"),
    (b"nul", 0, "got null"),
    (b"x", 0, "got 'x'"),
    (b"\xef\xbb\xbf{}", 0, "byte order mark"),
    (b"\xef\xbb", 0, "byte 0xef"),
    (b"{", 1, "got the end of the body"),
    (b"{} x", 3, "after its object, got 'x'"),
    (b"{}{}", 2, "got '{'"),
    (b"{,}", 1, "name in double quotes"),
    (b"{'a':1}", 1, 'got "\'"'),
    (b'{"a":1,}', 7, "got '}'"),
    (b'{"a"}', 4, "expected ':'"),
    (b'{"a":}', 5, "expected a value, got '}'"),
    (b'{"a":1 "b":2}', 7, "expected ',' or '}'"),
    (b'{"a":[1,]}', 8, "expected a value"),
    (b'{"a":[1}', 7, "expected ',' or ']'"),
    (b'{"a":{"b":1]}', 11, "expected ',' or '}'"),
    (b'{"a":{"b",1}}', 9, "expected ':'"),
    (b'{"a":NaN}', 5, "NaN and Infinity"),
    (b'{"a":Infinity}', 5, "NaN and Infinity"),
    (b'{"a":-Infinity}', 6, "expected a digit"),
    (b'{"a":+1}', 5, "got '+'"),
    (b'{"a":01}', 5, "leading zeros"),
    (b'{"a":-01}', 5, "leading zeros"),
    (b'{"a":1.}', 7, "expected a digit"),
    (b'{"a":.5}', 5, "got '.'"),
    (b'{"a":1e}', 7, "expected a digit"),
    (b'{"a":1e+}', 8, "expected a digit"),
    (b'{"a":-}', 6, "expected a digit"),
    (b'{"a":0x1}', 6, "got 'x'"),
    (b'{"a":' + b"1" * 129 + b"}", 5, "at most 128 characters"),
    (b'{"a":tru}', 5, "true, false or null"),
    (b'{"a":falsy}', 5, "true, false or null"),
    (b'{"a":nil}', 5, "true, false or null"),
    (b'{"a":"b}', 5, "closing quote"),
    (b'{"a":"b\\', 5, "closing quote"),
    (b'{"a":"b\nc"}', 7, "got byte 0x0a"),
    (b'{"a":"12345678\x00"}', 14, "got byte 0x00"),
    (b'{"a":"\\x41"}', 7, "after a backslash"),
    (b'{"a":"\\u12G4"}', 6, "hexadecimal"),
    (b'{"a":"\\u12"}', 6, "hexadecimal"),
    (b'{"a":"\xff"}', 6, "expected UTF-8, got byte 0xff"),
    (b'{"a":"\xc0\xaf"}', 6, "UTF-8"),
    (b'{"a":"\xc1\xbf"}', 6, "UTF-8"),
    (b'{"a":"\xe0\x9f\xbf"}', 6, "UTF-8"),
    (b'{"a":"\xed\xa0\x80"}', 6, "UTF-8"),
    (b'{"a":"\xf0\x8f\xbf\xbf"}', 6, "UTF-8"),
    (b'{"a":"\xf4\x90\x80\x80"}', 6, "UTF-8"),
    (b'{"a":"\xf5\x80\x80\x80"}', 6, "UTF-8"),
    (b'{"a":"\xe2\x82"}', 6, "UTF-8"),
    (b'{"a":"\xe2\x82', 6, "UTF-8"),
    (b'{"a":"\x80"}', 6, "UTF-8"),
    (b'{"\xff":1}', 2, "UTF-8"),
    (b'{"a":\xc3\xa9}', 5, "expected a value"),
    (b'{"model":"a","model":"b"}', 13, "got 'model' a second time"),
    (b'{"mod\\u0065l":"a","model":"b"}', 18, "got 'model' a second time"),
    (b'{"model":"a","\\u006dodel":"b"}', 13, "a second time"),
    (b'{"x":1,"x":2}', 7, "got 'x' a second time"),
    ('{"é\U0001f600":1,"\\u00e9\\ud83d\\ude00":2}'.encode(), 12, "a second time"),
    (
        b'{"\\n\\t\\r\\b\\f\\/\\"\\\\":1,"\\u000a\\u0009\\u000d\\u0008\\u000c\\u002f\\u0022\\u005c":2}',
        22,
        "a second time",
    ),
    (b'{"stream_options":{"a":1,"\\u0061":2}}', 25, "a second time"),
    (b'{"stream_options":{"include_usage":true,"include_usage":false}}', 40, "a second time"),
    (b'{"\\ud800":1}', 1, "surrogate"),
    (b'{"\\ud800\\u0041":1}', 1, "surrogate"),
    (b'{"\\udc00":1}', 1, "surrogate"),
    (b"{" + b",".join(b'"%d":0' % i for i in range(1025)) + b"}", 8107, "at most 1024 members"),
    (b'{"a":[{"model":"x"}}', 19, "expected ',' or ']'"),
]

MISTYPED = [
    (b'{"model": 12}', "model", 10, "'model' must be a string, got a number, at byte 10 (line 1, column 11)"),
    (b'{"stream":"yes"}', "stream", 10, "'stream' must be a boolean, got a string"),
    (b'{"user":{}}', "user", 8, "'user' must be a string, got an object"),
    (b'{"tools":{}}', "tools", 9, "'tools' must be an array, got an object"),
    (b'{"fallbacks":"gpt-4o"}', "fallbacks", 13, "'fallbacks' must be an array, got a string"),
    (b'{"functions":true}', "functions", 13, "'functions' must be an array, got a boolean"),
    (b'{"stream_options":[]}', "stream_options", 18, "must be an object, got an array"),
    (b'{"stream_options":{"include_usage":1}}', "stream_options.include_usage", 35, "must be a boolean, got a number"),
    (b'{"max_tokens":"5"}', "max_tokens", 14, "'max_tokens' must be a non-negative integer below 2^63, got a string"),
    (b'{"max_tokens":1.0}', "max_tokens", 14, "got 1.0"),
    (b'{"max_tokens":1e3}', "max_tokens", 14, "got 1e3"),
    (b'{"max_output_tokens":-1}', "max_output_tokens", 21, "got -1"),
    (b'{"max_completion_tokens":9223372036854775808}', "max_completion_tokens", 25, "got 9223372036854775808"),
    (b'{"max_tokens":18446744073709551617}', "max_tokens", 14, "got 18446744073709551617"),
    (b'{"model":"\\ud800x"}', "model", 9, "surrogate"),
    (b'{"user":"\\udfff"}', "user", 8, "surrogate"),
]


@pytest.mark.parametrize("body", ACCEPTED)
def test_a_good_body_is_read_as_json_reads_it(body: bytes) -> None:
    found = seen(body)
    assert found is not None
    assert found == modelled(body)


@pytest.mark.parametrize(("body", "offset", "words"), REFUSED)
def test_a_bad_body_is_refused_with_place_and_reason(body: bytes, offset: int, words: str) -> None:
    error = refusal(body)
    assert words in str(error)
    assert error.offset == offset
    assert error.param is None
    assert modelled(body) is None


@pytest.mark.parametrize(("body", "param", "offset", "words"), MISTYPED)
def test_a_member_of_the_wrong_type_is_named(body: bytes, param: str, offset: int, words: str) -> None:
    error = refusal(body)
    assert (error.param, error.offset) == (param, offset)
    assert words in str(error)
    assert modelled(body) is None


@pytest.mark.parametrize("body", ACCEPTED)
def test_every_cut_and_every_tail_of_a_good_body_is_refused(body: bytes) -> None:
    text = body.rstrip()
    for end in range(len(text)) if len(text) < 500 else (0, 1, 400, len(text) - 1):
        refusal(text[:end])
    for tail in (b"x", b"{}", b"\x00", b",", b"\xff"):
        assert refusal(text + tail).offset == len(text)
    assert seen(b" \r\n" + text + b"\t \n") is not None


@pytest.mark.parametrize("place", range(40))
def test_a_fault_is_found_at_every_place_of_a_long_string(place: int) -> None:
    filler = bytearray(b"a" * 40)
    for bad in (0x1F, 0x80, 0xFF, 0x00):
        filler[place] = bad
        assert refusal(b'{"x":"' + bytes(filler) + b'"}').offset == 6 + place
    filler[place] = 0x7F
    assert peek(b'{"x":"' + bytes(filler) + b'"}').model is None
    filler[place] = ord('"')
    assert refusal(b'{"x":"' + bytes(filler) + b'"}').offset == 7 + place


def test_line_and_column_count_characters() -> None:
    assert str(refusal('{\n "é": x}'.encode())).endswith("at byte 9 (line 2, column 7)")


def test_the_callers_text_is_cut_in_messages() -> None:
    long = b"k" * 1000
    assert f"'{'k' * 40}...'" in str(refusal(b'{"%b":1,"%b":2}' % (long, long)))
    assert len(str(refusal(b'{"max_tokens":1.%b}' % (b"5" * 100)))) < 200
    wide = "漢".encode() * 500
    assert len(str(refusal(b'{"%b":1,"%b":2}' % (wide, wide)))) < 200


@pytest.mark.parametrize("depth", [1, 2, 3, 64, 1024])
def test_depth_is_bounded(depth: int) -> None:
    for opening, closing in ((b"[", b"]"), (b'{"a":', b"}")):
        inner = opening * (depth - 1) + (b"1" if opening != b"[" else b"") + closing * (depth - 1)
        body = b'{"a":' + (inner or b"1") + b"}"
        assert peek(body, depth).model is None
        if depth > 1:
            assert "less nesting" in str(refusal(body, depth - 1))


def test_stream_options_count_as_depth_too() -> None:
    assert peek(b'{"stream_options":{"a":{}}}', 3).stream_options_start == 18
    assert "less nesting" in str(refusal(b'{"stream_options":{"a":{}}}', 2))
    assert "less nesting" in str(refusal(b'{"stream_options":{}}', 1))


@pytest.mark.parametrize("depth", [0, -1, 1025])
def test_a_depth_out_of_range_is_refused(depth: int) -> None:
    with pytest.raises(ValueError, match="between 1 and 1024"):
        peek(b"{}", depth)


def test_a_very_deep_body_is_refused_without_recursion() -> None:
    assert refusal(b'{"a":' + b"[" * 1_000_000).offset == 68


@settings(max_examples=250, deadline=None)
@given(BODIES, st.sampled_from([2, 3, 64]))
def test_generated_bodies_are_read_as_the_model_reads_them(body: bytes, max_depth: int) -> None:
    assert seen(body, max_depth) == modelled(body, max_depth)


@settings(max_examples=400, deadline=None)
@given(BODIES, st.data())
def test_mutated_bodies_are_judged_as_the_model_judges_them(body: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(body)))
    gone = data.draw(st.integers(0, 3))
    new = data.draw(
        st.binary(max_size=2)
        | st.sampled_from([b'"', b"\\", b"\\u0061", b"\\ud800", b"{", b"]", b",", b":", b"0", b"\xed"])
    )
    mutated = body[:at] + new + body[at + gone :]
    assert seen(mutated) == modelled(mutated)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60))
def test_random_bytes_are_judged_as_the_model_judges_them(body: bytes) -> None:
    assert seen(body) == modelled(body)
    assert seen(b'{"a":"' + body + b'"}') == modelled(b'{"a":"' + body + b'"}')


@settings(max_examples=250, deadline=None)
@given(
    st.fixed_dictionaries({}, optional=PROPER),
    st.sampled_from([None, 0]),
    st.none() | st.text(max_size=6),
    st.booleans(),
)
def test_a_rewritten_body_differs_in_these_members_only(
    tree: dict[str, Any], indent: int | None, model: str | None, want: bool
) -> None:
    body = json.dumps(tree, indent=indent, ensure_ascii=False).encode()
    found = peek(body)
    changed = rewrite(body, found, model, want)
    assert json.loads(changed) == model_peek.rewritten(body, model, want)
    again = peek(changed)
    assert again.include_usage or not want
    assert rewrite(changed, again, model, want) == changed


REWRITTEN = [
    (b'{ "model" : "a" , "x":1 }', "b", False, b'{ "model" : "b" , "x":1 }'),
    (b'{"x":1, "model":null }', "b", False, b'{"x":1, "model":"b" }'),
    (b'{"model":""}', "b", True, b'{"model":"b","stream_options":{"include_usage":true}}'),
    (b"{}", "b", True, b'{"model":"b","stream_options":{"include_usage":true}}'),
    (b"{ }", None, True, b'{ "stream_options":{"include_usage":true}}'),
    (b'{"stream_options":null,"model":"a"}', "b", True, b'{"stream_options":{"include_usage":true},"model":"b"}'),
    (b'{"stream_options":{ }}', None, True, b'{"stream_options":{ "include_usage":true}}'),
    (b'{"stream_options":{"x":[]}}', None, True, b'{"stream_options":{"x":[],"include_usage":true}}'),
    (b'{"stream_options":{"include_usage":false}}', None, True, b'{"stream_options":{"include_usage":true}}'),
    (
        b'{"stream_options":{"include\\u005fusage":null}}',
        None,
        True,
        b'{"stream_options":{"include\\u005fusage":true}}',
    ),
    (b'{"model":"a"}', 'n"\\\n\u00e9\U0001f600', False, '{"model":"n\\"\\\\\\n\u00e9\U0001f600"}'.encode()),
]


@pytest.mark.parametrize(("body", "model", "want", "expected"), REWRITTEN)
def test_every_other_byte_stays(body: bytes, model: str | None, want: bool, expected: bytes) -> None:
    assert rewrite(body, peek(body), model, want) == expected


@pytest.mark.parametrize(
    ("body", "model", "want"),
    [
        (b'{"model":"a"}', None, False),
        (b'{"model":"a"}', "a", False),
        (b'{"model":"\\u0061"}', "a", False),
        (b'{"stream_options":{"include_usage":true}}', None, True),
    ],
)
def test_the_body_itself_comes_back_where_nothing_changes(body: bytes, model: str | None, want: bool) -> None:
    assert rewrite(body, peek(body), model, want) is body


def test_a_look_at_another_body_is_refused() -> None:
    with pytest.raises(ValueError, match="not the body"):
        rewrite(b'{"model":"a"}', peek(b"{}"), "b", True)
    with pytest.raises(ValueError, match="not the body"):
        rewrite(b"", Peek(), "b", True)


def test_a_model_name_with_half_a_surrogate_is_refused() -> None:
    body = b'{"model":"a"}'
    with pytest.raises(ValueError, match="surrogates"):
        rewrite(body, peek(body), "\ud800", False)


@pytest.mark.parametrize("body", [None, "{}", bytearray(b"{}")])
def test_only_bytes_are_taken(body: Any) -> None:
    with pytest.raises(TypeError):
        peek(body)


@pytest.mark.parametrize("name", [b'"fallbacks"', b'"fallb\\u0061cks"'])
def test_the_span_of_fallbacks_begins_at_the_members_name(name: bytes) -> None:
    body = b'{"stream_options":{"include_usage":true}, ' + name + b' : ["a"] ,"model":"m"}'
    found = peek(body)
    assert body[found.fallbacks_name : found.fallbacks_end] == name + b' : ["a"]'
    assert body[found.fallbacks_start : found.fallbacks_end] == b'["a"]'
    assert peek(b"{}").fallbacks_name == -1
