"""What a recording's file holds, and when two requests are the same."""

import msgspec
import pytest

from agw_proxy import tape

JSON = b"application/json"


def whole(**changed: object) -> tape.Tape:
    asked = tape.Asked("POST", "/chat/completions", "", (), tape.piece(b"{}"))
    told = tape.Told(200, (), 1.5, (tape.piece(b"\xff", 2.0),), "whole")
    made = tape.Tape(tape.VERSION, tape.stamp(0), "up", "openai", "up/m", "m", asked, told)
    return msgspec.structs.replace(made, **changed)


@pytest.mark.parametrize("data", [b"", b"plain", "größer".encode(), "größer".encode()[:3], bytes(range(256))])
def test_bytes_come_back_as_they_were(data: bytes) -> None:
    made = tape.piece(data, 1.23456)
    assert made.data == data
    assert made.ms == 1.235
    assert (made.text is None) is (made.base64 is not None)


def test_a_file_is_read_as_it_was_written() -> None:
    assert tape.read(msgspec.json.encode(whole())) == whole()


@pytest.mark.parametrize("data", [b"", b"{", b"{}", b"[" * 10_000, b"null", msgspec.json.encode(whole())[:-20]])
def test_what_is_no_recording_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="not a recording"):
        tape.read(data)


def test_another_format_is_refused_by_its_number() -> None:
    with pytest.raises(ValueError, match="format 7, expected 1"):
        tape.read(msgspec.json.encode(whole(agw_recording=7)))


def test_base64_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="base64"):
        _ = tape.Piece(base64="&").data


def test_json_is_the_same_by_its_value() -> None:
    first = tape.identity("POST", "/x", JSON, b'{"a": 1, "b": ["\\u00e9"]}')
    assert first == tape.identity("POST", "/x", b"", '{"b":["é"],"a":1}'.encode())
    assert first != tape.identity("POST", "/x", JSON, b'{"a": 2, "b": ["\\u00e9"]}')
    assert first != tape.identity("POST", "/y", JSON, b'{"a": 1, "b": ["\\u00e9"]}')
    assert first != tape.identity("PUT", "/x", JSON, b'{"a": 1, "b": ["\\u00e9"]}')


def test_of_other_bodies_each_byte_counts_but_for_the_boundary() -> None:
    def form(boundary: bytes, text: bytes) -> bytes:
        body = b"--" + boundary + b"\r\n\r\n" + text + b"\r\n--" + boundary + b"--\r\n"
        return tape.identity("POST", "/files", b"multipart/form-data; boundary=" + boundary, body)

    assert form(b"abc", b"x") == form(b"some-other", b"x")
    assert form(b"abc", b"x") != form(b"abc", b"y")
    assert tape.identity("POST", "/x", JSON, b"{broken") == tape.identity("POST", "/x", JSON, b"{broken")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Authorization", True),
        ("x-functions-key", True),
        ("X-Amz-Signature", True),
        ("set-cookie", True),
        ("key", True),
        ("Idempotency-Key", False),
        ("monkey", False),
        ("max_tokens", False),
        ("x-ratelimit-remaining-tokens", False),
    ],
)
def test_credentials_are_told_by_their_names(name: str, expected: bool) -> None:
    assert tape.is_credential(name) is expected


def test_a_query_keeps_all_but_its_credentials() -> None:
    assert tape.shown_query("a=1&api_key=x&b=&Code=y") == "a=1&api_key=***&b=&Code=***"
    assert tape.shown_query("a&b=%20+c") == "a&b=%20+c"


def test_credentials_in_a_request_do_not_count_however_long_they_are() -> None:
    def asking(token: bytes) -> bytes:
        return tape.identity("POST", "/x", JSON, b'{"tools":[{"authorization":"%s"}],"a":1}' % token)

    assert asking(b"one-token-of-somebody") == asking(b"another-one") != asking(b"short")
    assert asking(b"*" * 30) == asking(b"*" * 8)
