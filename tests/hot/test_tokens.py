"""The estimate of a request's tokens: by the corpus, by an independent reading of the JSON, and on any bytes."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agw_proxy._hot.tokens import IMAGE_TOKENS, MESSAGE_TOKENS, REPLY_TOKENS, count, features
from agw_proxy.policy.tokens import readable
from tests.corpus.tokens import COUNTS, Sample, bodies, categories, samples
from tests.corpus.tokens.report import BEGIN, PAGE, table

TOTAL = 0.10  # how far the estimate of a category may be off
EACH = 0.20  # and that of one request
MARKS = 2  # the last features: messages and media

words = st.text(
    st.one_of(
        st.characters(min_codepoint=1, max_codepoint=0x7F),
        st.sampled_from('äßéñøłж´™…日本語漢字カナ。、한국어עבאبक🙂👍\n\t"\\/  09'),
    ),
    max_size=150,
)
texts = words.filter(lambda text: text.isprintable() or "\n" in text)


def written(body: object, *, ascii_only: bool = False) -> bytes:
    return json.dumps(body, ensure_ascii=ascii_only, separators=(",", ":")).encode()


def text_features(text: str) -> tuple[int, ...]:
    return features(written({"prompt": text}))[:-MARKS]


def added(counts: list[tuple[int, ...]]) -> tuple[int, ...]:
    return tuple(map(sum, zip(*counts, strict=True)))


def chat(content: object) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": content}]}


# --- the corpus -----------------------------------------------------------------------------------------------------


def test_the_corpus_is_wide_and_whole() -> None:
    counts = json.loads(COUNTS.read_text())
    assert counts.keys() == bodies().keys()
    assert len(counts) >= 40
    assert all(500 <= len(body) <= 14_000 for body in bodies().values())
    assert categories().keys() == {
        "chats", "chinese", "code", "english", "european", "japanese", "korean", "tools",
    }  # fmt: skip


@pytest.mark.parametrize("category", categories())
def test_untaught_the_estimate_is_within_a_tenth_of_each_category(category: str) -> None:
    found = categories()[category]
    true = sum(sample.o200k for sample in found)
    assert sum(count(sample.body) for sample in found) == pytest.approx(true, rel=TOTAL)


@pytest.mark.parametrize("sample", samples(), ids=lambda sample: f"{sample.category}/{sample.name}")
def test_untaught_the_estimate_is_within_a_fifth_of_each_request(sample: Sample) -> None:
    assert count(sample.body) == pytest.approx(sample.o200k, rel=EACH)


def test_the_page_has_the_table_of_this_build() -> None:
    assert BEGIN + table() in PAGE.read_text(), "python -m tests.corpus.tokens.report writes it anew"


# --- what is read ---------------------------------------------------------------------------------------------------


def test_an_empty_request_counts_the_mark_of_the_answer() -> None:
    assert count(b"{}") == count(b"") == REPLY_TOKENS


@pytest.mark.parametrize(
    ("body", "messages"),
    [
        ({"messages": [{"role": "user", "content": "hi"}, {"content": "hi", "role": "user"}]}, 2),
        ({"system": "hi", "messages": [{"role": "user", "content": "hi"}]}, 2),
        ({"input": "hi", "instructions": "hi"}, 2),
        ({"input": [{"role": "user", "content": "hi"}, {"type": "function_call_output", "output": "hi"}]}, 1),
        ({"input": ["hi", "hi"]}, 0),
        ({"prompt": "hi"}, 1),
    ],
)
def test_messages_count_their_marks_and_texts(body: object, messages: int) -> None:
    found = features(written(body))
    assert found[-2] == messages
    assert found[0] == written(body).count(b"hi")


def test_names_roles_and_other_settings_count_nothing() -> None:
    bare = {"messages": [{"content": "Hello there"}]}
    full = {
        "model": "some-model-name-2025-01-01",
        "messages": [
            {
                "type": "message",
                "id": "msg_0a1b2c3d4e5f60718293",
                "content": "Hello there",
                "tool_call_id": "call_x9y8z7",
                "status": "completed",
                "cache_control": {"type": "ephemeral", "ttl": "1h"},
                "signature": "c2lnbmF0dXJlIG9mIGEgdGhvdWdodA==",
                "encrypted_content": "Z2liYmVyaXNo",
            }
        ],
        "metadata": {"messages": "not read", "tools": ["nor", "these"]},
        "temperature": 0.123456,
        "user": "somebody with a long name",
    }
    assert features(written(full)) == features(written(bare))


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "high"}},
        {"type": "image_url", "image_url": {"url": "https://example.org/a-picture.png"}},
        {"type": "input_image", "image_url": "data:image/jpeg;base64,/9j/4AAQ"},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo"}},
        {"type": "input_audio", "input_audio": {"data": "UklGRg", "format": "wav"}},
        {"type": "file", "file": {"file_data": "data:application/pdf;base64,JVBERi0"}},
    ],
    ids=lambda part: str(part["type"]),
)
@pytest.mark.parametrize("size", [0, 1, 60, 1_000, 100_000])
def test_media_count_the_same_whatever_their_size(part: dict[str, Any], size: int) -> None:
    body = written(chat([part, {"type": "text", "text": "What is this?"}]))
    body = body.replace(b"AAAA", b"A" * size).replace(b"KGgo", b"q8" * size).replace(b"4AAQ", b"4A" * size)
    assert count(body) == count(written(chat("What is this?"))) + IMAGE_TOKENS


@pytest.mark.parametrize("key", ["url", "image_url", "data"])
def test_media_count_wherever_they_lie(key: str) -> None:
    for padding in range(130):
        for body in (chat([{"user": "x" * padding, key: "A" * 300}]), chat([{key: "A" * 300, "x": "y"}] * 9)):
            plain = json.dumps(body, ensure_ascii=False).encode()
            media = plain.count(b"AAAA" * 75)
            assert features(plain)[-1] == features(plain, portable=True)[-1] == media, (padding, media)


def test_a_key_of_the_request_spelt_with_escapes_hides_nothing() -> None:
    body = written(chat("Hello there, how are you?"))
    least = features(body)[0]
    for padding in range(130):
        moved = body.replace(b'"m"', b'"%b"' % (b"m" * padding))
        for spelt in (rb"mess\u0061ges", rb"\u006d\u0065\u0073\u0073\u0061\u0067\u0065\u0073"):
            hidden = moved.replace(b"messages", spelt)
            assert json.loads(hidden) == json.loads(moved)
            assert features(hidden)[0] == features(hidden, portable=True)[0] == least, (padding, spelt)


@pytest.mark.parametrize("key", ["input", "prompt"])
@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
def test_tokens_given_by_number_count_as_many(key: str, separators: tuple[str, str]) -> None:
    nothing = count(written({key: []}))
    for padding in range(130):
        for value, tokens in (
            ([7], 1),
            ([*range(0, 200_000, 1000)], 200),
            ([[1, 22], [], [333] * 50], 52),
            ([[1, 2], "x"], 2 + count(written({"input": ["x"]})) - count(written({"input": []}))),
        ):
            tree = {"user": "x" * padding, key: value, "dimensions": 512, "seeds": [1, 2, 3]}
            body = json.dumps(tree, separators=separators).encode()
            assert count(body) == nothing + tokens, (padding, value)
            assert readable(tree).around - readable({key: []}).around == tokens - (value[-1] == "x")
            assert features(body) == features(body, portable=True)


def test_words_about_keys_inside_a_text_are_text() -> None:
    quoted = '{"role":"user","url":"data:image/png;base64,AAAA","type":"x"}'
    assert features(written(chat(quoted)))[-MARKS:] == (1, 0)
    assert count(written(chat(quoted))) > count(written(chat(""))) + 15


def test_tools_count_as_the_json_they_are() -> None:
    tools = json.loads(bodies()["tools/shop"])["tools"]
    compact = count(written({"tools": tools}))
    assert compact == pytest.approx(count(json.dumps({"tools": tools}, indent=2).encode()), rel=0.02)
    assert compact == pytest.approx(count(json.dumps({"tools": tools}).encode()), rel=0.02)
    assert compact > count(written({"messages": tools})) * 1.3


def test_arguments_of_a_call_count_as_the_json_they_are() -> None:
    call = {"type": "tool_use", "id": "toolu_1", "name": "find", "input": {"role": "admin", "url": "x", "n": 5}}
    found = features(
        written({"messages": [{"role": "assistant", "content": [call]}, {"role": "user", "content": "a"}]})
    )
    assert found[-MARKS:] == (2, 0)
    assert found[0] == len(["find", "role", "admin", "url", "x", "n", "a"])


NAMES = ["content", "text", "type", "id", "call_id", "name", "output", "status", "x", "detail"]
# Arrays hold texts or objects, as in all dialects; not both.
pieces = st.recursive(
    texts | st.lists(texts, max_size=3) | st.integers() | st.none() | st.booleans(),
    lambda inner: (
        st.dictionaries(st.sampled_from(NAMES), inner, max_size=4)
        | st.lists(st.dictionaries(st.sampled_from(NAMES), inner, max_size=3), max_size=3)
    ),
    max_leaves=12,
)


@given(
    st.lists(st.dictionaries(st.sampled_from(["content", "text", "output", "name"]), pieces, max_size=3), max_size=4)
)
def test_a_dialog_counts_what_its_texts_count(messages: list[dict[str, Any]]) -> None:
    """The plain reader of `agw_proxy.policy.tokens` parses the JSON; both must find the same texts."""
    body = {"messages": [{"role": "user", **message} for message in messages]}
    found = readable(body)
    assert found.around == REPLY_TOKENS + MESSAGE_TOKENS * len(messages)
    expected = added([text_features(text) for text in [*found.texts, ""]])
    assert features(written(body)) == (*expected, len(messages), 0)


# --- how it is read -------------------------------------------------------------------------------------------------


@given(texts, st.integers(0, 130))
def test_where_a_text_lies_changes_nothing(text: str, padding: int) -> None:
    moved = features(written({"user": "x" * padding, "prompt": text}))
    assert moved == features(written({"prompt": text}))


RICH = (
    "camelCase snake_case, don't (stop)! 1234567 at 12:05 – naïve Ünïcödé Москва עברית 日本語、テスト。한국어 🙂\n"
    '    if (x >= 10) { return "quoted\\path"; }\n\n\t// two  blanks…   three\n'
    * 2
    + "Donaudampfschifffahrtsgesellschaft internationalisation"
)


@pytest.mark.parametrize("ascii_only", [False, True])
@pytest.mark.parametrize("text", [RICH, RICH[::-1], RICH.upper(), RICH.replace(" ", "")], ids=range(4))
def test_where_a_text_lies_in_its_blocks_changes_nothing(text: str, ascii_only: bool) -> None:
    """Each Han character moves it by 3 bytes (6 as an escape), and stands beside nothing."""
    at_first = features(written({"prompt": text}, ascii_only=ascii_only))
    han = added([features(written({"prompt": "漢"})), tuple(-one for one in features(written({"prompt": ""})))])
    for moved in range(64):
        found = features(written({"prompt": "漢" * moved + text}, ascii_only=ascii_only))
        assert found == added([at_first, tuple(moved * one for one in han)]), moved


@pytest.mark.parametrize(
    ("escaped", "plain"), [(r"\u003c\u003E", "<>"), (r"\/\/", "//"), (r"\u0026x", "&x"), (r"\u2026", "…")]
)
def test_escaped_punctuation_counts_as_what_it_stands_for(escaped: str, plain: str) -> None:
    body = written({"prompt": "a @ b c@ d"})
    assert features(body.replace(b"@", escaped.encode())) == features(body.replace(b"@", plain.encode()))


def test_blanks_between_keys_and_values_change_nothing() -> None:
    body = written(
        chat([{"type": "text", "text": "Hello, you"}, {"type": "image_url", "image_url": {"url": "data:x"}}])
    )
    for blanks in (b" : ", b"\n:\t", b" " * 9 + b":" + b" " * 3, b" " * 99 + b":", b":" + b"\n" * 99):
        assert features(body.replace(b":", blanks, 11)) == features(body)


@given(st.text("日本語漢字カナ。、한국어कखग™…🙂👍\n09 .,", max_size=120))
def test_escapes_count_as_what_they_stand_for(text: str) -> None:
    assert features(written(chat(text), ascii_only=True)) == features(written(chat(text)))


@given(st.text("abc äöß", min_size=1, max_size=60).filter(str.strip))
def test_escaped_letters_make_the_same_words(text: str) -> None:
    plain, escaped = features(written(chat(text))), features(written(chat(text), ascii_only=True))
    assert plain[0] == escaped[0]


def test_numbers_count_groups_of_three_wherever_they_lie() -> None:
    for digits in range(1, 200):
        for padding in (0, 1, 2, 31, 50):
            found = text_features("." * padding + "7" * digits)
            assert found[5] == -(-digits // 3), (digits, padding)


@given(st.binary(max_size=400))
def test_any_bytes_are_safe_and_both_loops_agree(body: bytes) -> None:
    assert count(body) >= 0
    assert features(body) == features(body, portable=True)


fragments = st.sampled_from(
    [
        b'{"messages":[', b'{"tools":', b'"role":"user"', b'"content":"', b'"', b"\\", b"\\u00e9", b"\\ud83d\\ude42", b"\\u12",
        b"{", b"}", b"]", b'"url":"', b'"input":{', b",", b" ", b"\n", "äé".encode(), "漢".encode(), b"\xe3\x80", b"abc", b"123",
        b"   ", b'"x" :', b"A" * 70, b'"type":',
    ]
)  # fmt: skip


@given(st.lists(fragments, max_size=60).map(b"".join))
def test_broken_json_is_safe_and_both_loops_agree(body: bytes) -> None:
    assert count(body) >= 0
    assert features(body) == features(body, portable=True)


@pytest.mark.parametrize("name", ["chats/agent_messages", "chats/picture", "chats/escaped", "tools/geo"])
def test_every_beginning_of_a_request_is_safe(name: str) -> None:
    body = bodies()[name]
    for end in range(len(body)):
        assert features(body[:end]) == features(body[:end], portable=True)
