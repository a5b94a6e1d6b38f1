r"""Characters that a server has cut in two: put together over a stream's events, and never a reason to break it."""

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agw_proxy.dialects import openai_responses_streams, translate
from agw_proxy.dialects.base import Fault, Finish, Part, Shown, Spoken
from agw_proxy.dialects.halves import Halves
from tests.dialects.chat_vectors import call, chunk, read

SMILE = "😀"


def escaped(tree: Any) -> bytes:
    """As JavaScript writes it."""
    return json.dumps(tree).encode()


def halves(text: str) -> list[str]:
    """The text, one unit of UTF-16 at a time."""
    raw = text.encode("utf-16-le")
    return [raw[at : at + 2].decode("utf-16-le", "surrogatepass") for at in range(0, len(raw), 2)]


@given(st.text(max_size=8))
def test_whatever_is_cut_comes_together(text: str) -> None:
    reader = Halves()
    assert "".join(reader.loads(escaped({"a": [unit]}))["a"][0] for unit in halves(text)) == text


@pytest.mark.parametrize(
    ("data", "tree"),
    [
        (rb'"x\ud83d y"', "x\ufffd y"), (rb'"\ude00x"', "\ufffdx"), (rb'["\ud83d\ude00", 1, null]', [SMILE, 1, None]),
        (rb'{"\ud83d":"\ud83d\ud83d\ude00"}', {"\ufffd": "\ufffd" + SMILE}), (rb'"\ud83d"', ""),
    ],
)  # fmt: skip
def test_a_half_that_stays_alone_is_told_as_such(data: bytes, tree: Any) -> None:
    assert Halves().loads(data) == tree


def test_a_half_waits_at_its_own_place() -> None:
    reader = Halves()
    assert reader.loads(rb'{"a":"x\ud83d","b":"y\ud83d"}') == {"a": "x", "b": "y"}
    assert reader.loads(rb'{"a":"\ude00","b":"z\ude00"}') == {"a": SMILE, "b": "\ufffdz\ufffd"}
    assert reader.loads(rb'{"a":"\ude00"}') == {"a": "\ufffd"}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b'"\xed\xa0\xbd"',
        rb'["\ud83d", NaN]',
        rb'["\ud83d"',
        rb'["\ud83d", 1e999]',
        b"[" * 9000,
        rb'["\ud83d",' + b"[" * 90_000,
    ],
)
def test_what_is_no_json_stays_none(data: bytes) -> None:
    with pytest.raises(orjson.JSONDecodeError):
        Halves().loads(data)


def test_a_chat_stream_is_not_broken_by_it() -> None:
    high, low = halves(SMILE)
    pieces = [
        escaped(orjson.loads(chunk({"content": "@"}))).replace(b'"@"', json.dumps(half).encode())
        for half in (high, low)
    ]
    arguments = [
        escaped(orjson.loads(chunk(call(0, "a" if at == 0 else None, "f" if at == 0 else None, "@")))).replace(
            b'"@"', json.dumps(half).encode()
        )
        for at, half in enumerate(('{"x":"' + high, low + '"}'))
    ]
    events = read(*pieces, *arguments, chunk(reason="stop"))
    assert [event.text for event in events if isinstance(event, Part)] == [SMILE, '{"x":"', SMILE + '"}']
    assert isinstance(events[-1], Finish)


def test_a_stream_and_an_answer_of_responses_are_not_broken_by_it() -> None:
    reader = openai_responses_streams.Reader()
    delta = rb'{"type":"response.output_text.delta","output_index":0,"delta":"%b"}'
    events = [event for half in (rb"x\ud83d", rb"\ude00") for event in reader.read("", delta % half)]
    assert [event.text for event in events if isinstance(event, Part)] == ["x", SMILE]
    part = rb'{"type":"output_text","text":"\ud83d\ude00 \ud83d!","annotations":[]}'
    body = rb'{"id":"r","status":"completed","output":[{"type":"message","content":[%b]}]}' % part
    told = orjson.loads(translate.answer("responses", "chat", body, Shown("i", "m", 1)))
    assert told["choices"][0]["message"]["content"] == SMILE + " \ufffd!"


@pytest.mark.parametrize("spoken", ["messages", "gemini"])
def test_a_stream_of_another_form_is_not_broken_by_it(spoken: Spoken) -> None:
    frames = {
        "messages": rb'{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"%b"}}',
        "gemini": rb'{"candidates":[{"content":{"parts":[{"text":"%b"}]}}]}',
    }
    reader = translate.reader(spoken)
    if spoken == "messages":
        start = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
        reader.read("", escaped(start))
    events = [event for half in (rb"\ud83d", rb"\ude00") for event in reader.read("", frames[spoken] % half)]
    assert "".join(event.text for event in events if isinstance(event, Part)) == SMILE
    assert not any(isinstance(event, Fault) for event in events)
