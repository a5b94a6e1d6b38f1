"""Secrets go, however they are spelt; the length stays, and so does all else."""

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agw_proxy.store.masking import SLICE_BYTES, Mask

SECRET = 'sk-/secret"7be2c1904d\\5f4a'
OTHER = "agw-4f1c9a7d20e84b6cbase64+/="


@pytest.mark.parametrize(
    "data",
    [
        SECRET.encode(),
        json.dumps({"a": SECRET}).encode(),
        json.dumps({"a": SECRET}).replace("/", "\\/").encode(),
        json.dumps({"arguments": json.dumps({"a": SECRET})}).encode(),
        "".join(f"\\u{ord(c):04x}" for c in SECRET).encode(),
        "".join(f"\\u{ord(c):04X}" for c in SECRET).encode(),
        "".join(f"%{ord(c):02X}" for c in SECRET).encode(),
    ],
)
def test_every_spelling_is_found_and_no_byte_more_or_less(data: bytes) -> None:
    masked = Mask([OTHER, SECRET])(b"before " + data + b" after")
    assert len(masked) == len(data) + 13
    assert masked.startswith(b"before ")
    assert masked.endswith(b" after")
    for part in (b"secret", b"7be2", b"5f4a", b"0073", b"%37"):
        assert part not in masked


def test_json_stays_json() -> None:
    body = json.dumps({"a": f"x{SECRET}y", "b": [OTHER, 1]}).encode()
    tree = json.loads(Mask([SECRET, OTHER])(body))
    assert tree["b"][1] == 1
    assert set(tree["a"][1:-1]) == {"*"}


@pytest.mark.parametrize("shift", [0, 1, 7, len(SECRET) - 1, len(SECRET)])
def test_a_secret_on_the_edge_of_a_slice_is_found(shift: int) -> None:
    data = b"." * (SLICE_BYTES - shift) + SECRET.encode() + b"." * SLICE_BYTES
    masked = Mask([SECRET])(data)
    assert masked == data.replace(SECRET.encode(), b"*" * len(SECRET))


def test_the_longer_of_two_secrets_with_one_beginning_goes_whole() -> None:
    assert Mask(["secret-1", "secret-1-and-more"])(b"(secret-1-and-more)") == b"(" + b"*" * 17 + b")"


def test_a_key_known_by_its_digest_is_found() -> None:
    digest = hashlib.sha256(OTHER.encode()).hexdigest()
    masked = Mask((), [digest])(f'{{"a":"Bearer {OTHER}","b":"{OTHER[:-1]}x"}}'.encode())
    assert OTHER.encode() not in masked
    assert f"{OTHER[:-1]}x".encode() in masked


@given(st.binary(max_size=200))
def test_bytes_without_secrets_are_untouched(data: bytes) -> None:
    assert Mask([SECRET], [hashlib.sha256(b"x" * 30).hexdigest()])(data) == data
    assert Mask(())(data) is data
