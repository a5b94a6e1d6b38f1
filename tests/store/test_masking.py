"""Secrets go, however they are spelt; the length stays, and so does all else."""

import base64
import hashlib
import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agw_proxy.store.masking import SLICE_BYTES, Mask

SECRET = 'sk-/secret"7be2c1904d\\5f4a'
OTHER = "agw-4f1c9a7d20e84b6cbase64+/="
Encode = Callable[[bytes], bytes]


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


@pytest.mark.parametrize("before", range(4))
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_base64_of_a_secret_is_found_wherever_in_a_text_it_stood(before: int, encode: Encode) -> None:
    text = b"user:"[:before] + SECRET.encode() + b" and more"
    encoded = encode(text)
    masked = Mask([SECRET])(b'{"a":"Basic ' + encoded + b'"}')
    kept = masked.removeprefix(b'{"a":"Basic ').removesuffix(b'"}')
    assert len(kept) == len(encoded)
    read = base64.b64decode(kept.replace(b"*", b"A"))
    assert all(SECRET.encode()[at : at + 3] not in read for at in range(len(SECRET) - 2))
    assert base64.b64decode(encoded[-8:]) in read


@pytest.mark.parametrize(
    ("member", "hidden"),
    [
        ('"authorization": "Bearer of-an-mcp-server"', "Bearer of-an-mcp-server"),
        ('"authorization_token":"of-an-mcp\\"server"', "of-an-mcp"),
        ('"X-Api-Key" : "0123456789"', "0123456789"),
        ('"tokens": ["0123456789"], "token": "0123456789"', None),
        ('"api_key": {"type": "string"}, "key": "0123456789", "password": "short"', None),
    ],
)
def test_a_request_that_hands_on_a_credential_does_so_without_it(member: str, hidden: str | None) -> None:
    data = ("{" + member + "}").encode()
    masked = Mask(())(data, request=True)
    assert Mask(())(data) is data
    assert len(masked) == len(data)
    assert (masked == data) is (hidden is None)
    assert (hidden or "****").encode() not in masked


@pytest.mark.parametrize(
    "key", ["sk-ant-api03-0a1b2c3d4e5f6a7b8c9d", "ek_68af296e8e408191a1120ab6383263c2", "AIza" + "0aB-_" * 7]
)
def test_what_looks_like_a_providers_key_goes(key: str) -> None:
    data = f'{{"value": "{key}", "said": "\\"{key}\\""}}'.encode()
    assert key.encode() not in Mask(())(data)
    prose = b"task-force-0-of-the-united-nations sk-learn-for-those-who-learn-it"
    assert Mask(())(prose) is prose


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
