"""``data:`` URLs, media types and file names."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agw_proxy.dialects.base import Malformed
from agw_proxy.dialects.media import checked, data_url, file_name, media_type_of, parse_data_url


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("data:image/png;base64,aGk=", ("image/png", "aGk=")),
        ("DATA:Image/PNG;charset=utf-8;BASE64,aGk=", ("image/png", "aGk=")),
        ("data:;base64,aGk=", ("text/plain", "aGk=")),
        ("data:image/png;base64,aGk%3D", ("image/png", "aGk=")),
    ],
)
def test_good_urls(url: str, wanted: tuple[str, str]) -> None:
    assert parse_data_url(url) == wanted


@pytest.mark.parametrize(
    "url",
    [
        "data:image/png;base64", "data:image/png,hi", "data:,hi", "http://x/y;base64,aGk=", "data:image/png;base64,",
        "data:image/png;base64,a", "data:image/png;base64,aGk=\n", "data:image/png;base64,aG k=", "data:x/y;base64,é",
        "data:image/png;base64,aGk=aGk=",
    ],
)  # fmt: skip
def test_bad_urls_name_the_member(url: str) -> None:
    with pytest.raises(Malformed) as caught:
        parse_data_url(url, "messages[0]")
    assert caught.value.param == "messages[0]"


@given(st.binary(min_size=1, max_size=40), st.sampled_from(["image/png", "application/pdf"]))
def test_what_is_written_is_read(data: bytes, media_type: str) -> None:
    text = base64.b64encode(data).decode()
    assert parse_data_url(data_url(media_type, text)) == (media_type, text)
    assert checked(text) == text


def test_names_and_types_tell_of_each_other() -> None:
    assert media_type_of("A.b.PDF") == "application/pdf"
    assert [media_type_of(name) for name in ("pdf", "x.unknown", "", None)] == [None] * 4
    assert file_name("application/pdf", "report") == "report.pdf"
    assert file_name("image/jpeg; q=1") == "file.jpg"
    assert [file_name("odd/type"), file_name(None)] == ["file", "file"]
