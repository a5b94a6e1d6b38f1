"""Gateway keys: the compiled table and the credential scan against their contract and against a plain model."""

import hashlib
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agw_proxy._hot import keys
from tests.hot import model_keys

HEADERS = ["x-agw-key", "authorization", "x-api-key", "api-key", "x-goog-api-key"]
SENT = [
    b"k",
    b" k2\t",
    b"",
    b"  ",
    b"Bearer t",
    b"bearer   t  ",
    b"BEARER",
    b"Bearer ",
    b"Basic dXNlcg==",
    b"Bearert",
    b"Bearer\tt",
]


def entries(count: int) -> list[tuple[bytes, int]]:
    return [(keys.digest(b"key-%d" % i), i) for i in range(count)]


def test_digest_is_sha256() -> None:
    # FIPS 180-4 example, "abc".
    assert keys.digest(b"abc").hex() == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert keys.digest(b"") == hashlib.sha256(b"").digest()


@pytest.mark.parametrize("count", [0, 1, 4, 5, 8, 100, 3000])
def test_every_key_is_found_and_no_other(count: int) -> None:
    table = keys.KeyTable(entries(count))
    assert len(table) == count
    assert [table.find(b"key-%d" % i) for i in range(count)] == list(range(count))
    assert {table.find(b"other-%d" % i) for i in range(1000)} == {-1}


def test_an_index_may_be_any_natural_number_of_63_bits() -> None:
    table = keys.KeyTable([(keys.digest(b"a"), 2**63 - 1), (keys.digest(b"b"), 0)])
    assert (table.find(b"a"), table.find(b"b")) == (2**63 - 1, 0)


def test_digests_that_begin_alike_are_told_apart() -> None:
    same = b"\xff" * 8
    digests = [same + bytes([i]) * 24 for i in range(6)] + [same + b"\x00" * 23 + b"\x01"]
    table = keys.KeyTable([(sha256, i) for i, sha256 in enumerate(digests)])
    assert [table.find_digest(sha256) for sha256 in digests] == list(range(len(digests)))
    assert table.find_digest(same + b"\x07" * 24) == -1


@pytest.mark.parametrize("place", range(32))
def test_one_wrong_bit_anywhere_is_a_miss(place: int) -> None:
    sha256 = keys.digest(b"key")
    wrong = sha256[:place] + bytes([sha256[place] ^ 1]) + sha256[place + 1 :]
    assert keys.KeyTable([(sha256, 7)]).find_digest(wrong) == -1
    assert keys.KeyTable([(sha256, 7), (wrong, 8)]).find_digest(wrong) == 8


def test_a_digest_of_zeroes_is_nobody() -> None:
    assert keys.KeyTable(entries(3)).find_digest(bytes(32)) == -1
    assert keys.KeyTable([]).find_digest(bytes(32)) == -1


def test_keys_out_of_bounds_are_unknown_even_if_listed() -> None:
    longest, longer = b"x" * 1024, b"x" * 1025
    table = keys.KeyTable([(keys.digest(b""), 1), (keys.digest(longest), 2), (keys.digest(longer), 3)])
    assert [table.find(value) for value in (b"", longest, longer)] == [-1, 2, -1]


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ([(b"short", 0)], "32 bytes, got 5"),
        ([(bytes(33), 0)], "32 bytes, got 33"),
        ([(bytes(32), -1)], "got -1"),
        ([(bytes(32), 2**63)], "63 bits"),
        ([(bytes(32), 0), (b"\x01" * 32, 1), (bytes(32), 2)], "entry 2.*earlier"),
    ],
)
def test_bad_entries_are_refused(bad: list[tuple[bytes, int]], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        keys.KeyTable(bad)


def test_find_digest_wants_32_bytes() -> None:
    with pytest.raises(ValueError, match="32 bytes, got 3"):
        keys.KeyTable([]).find_digest(b"abc")


@given(st.sets(st.binary(min_size=1, max_size=40)), st.binary(max_size=1100))
def test_table_agrees_with_a_dict(known: set[bytes], other: bytes) -> None:
    listed = [(keys.digest(value), i) for i, value in enumerate(sorted(known))]
    table, model = keys.KeyTable(iter(listed)), model_keys.KeyTable(listed)
    assert all(table.find(value) == model.find(value) for value in [*known, other])


@pytest.mark.parametrize(
    ("value", "token"),
    [
        (b"Bearer abc", b"abc"),
        (b"bEARER    abc \t", b"abc"),
        (b"  Bearer a b", b"a b"),
        (b"Bearer", b""),
        (b"Bearer   ", b""),
        (b"Bearerabc", None),
        (b"Bearer\tabc", None),
        (b"Basic abc", None),
        (b"Beare", None),
        (b"", None),
    ],
)
def test_bearer_tokens(value: bytes, token: bytes | None) -> None:
    assert keys.bearer(value) == token
    assert model_keys.bearer(value) == token


@pytest.mark.parametrize("first", range(5))
def test_precedence(first: int) -> None:
    sent = [(name.title().encode(), b"Bearer k" if name == "authorization" else b"k") for name in HEADERS[first:]]
    for headers in (sent, sent[::-1], tuple(sent)):
        found = keys.credential(headers)
        assert found is not None
        assert (found.value, found.header) == (b"k", HEADERS[first])


@pytest.mark.parametrize("absent", [b"", b"  \t", b"Basic dXNlcjpwYXNz", b"Bearer", b"Bearer  "])
def test_what_counts_as_absent_lets_the_next_header_speak(absent: bytes) -> None:
    found = keys.credential([(b"Authorization", absent), (b"API-Key", b" azure ")])
    assert found is not None
    assert (found.value, found.header) == (b"azure", "api-key")


@pytest.mark.parametrize("name", HEADERS)
@pytest.mark.parametrize("second", [b"k", b"", b"Basic x"])
def test_a_header_sent_twice_is_refused_whatever_it_says(name: str, second: bytes) -> None:
    headers = [(b"X-Agw-Key", b"decides")] if name != "x-agw-key" else []
    headers += [(name.encode(), b"Bearer k"), (b"accept", b"*/*"), (name.upper().encode(), second)]
    with pytest.raises(keys.DuplicateCredential, match=name) as caught:
        keys.credential(headers)
    assert caught.value.header == name


@pytest.mark.parametrize(
    "name", [b"x-agw-kez", b"x_api-key", b"apikey", b"api\rkey", b"authorizatioN2", b"a", b"", b"x" * 14]
)
def test_names_that_only_look_alike_are_ignored(name: bytes) -> None:
    assert keys.credential([(name, b"Bearer k")]) is None


@given(
    st.lists(
        st.tuples(
            st.sampled_from([*(n.encode() for n in HEADERS), b"X-API-KEY", b"Authorization", b"host", b"x-apikey9"]),
            st.sampled_from(SENT),
        ),
        max_size=6,
    )
)
def test_credential_agrees_with_the_model(headers: list[tuple[bytes, bytes]]) -> None:
    try:
        wanted = model_keys.credential(headers)
    except model_keys.TwiceError:
        with pytest.raises(keys.DuplicateCredential):
            keys.credential(headers)
        return
    found = keys.credential(headers)
    assert (None if found is None else (found.value, found.header)) == wanted


def test_a_credential_never_shows_its_value() -> None:
    found = keys.credential([(b"x-api-key", b"secret")])
    assert "secret" not in f"{found!r} {found} {keys.DuplicateCredential('api-key')}"
    with pytest.raises(TypeError, match="credential"):
        keys.Credential()
    with pytest.raises(AttributeError):
        found.value = b"other"  # type: ignore[misc, union-attr]


def test_headers_of_another_shape_are_a_type_error() -> None:
    shapes: list[object] = [[(b"x-api-key",)], [(b"x-api-key", "k")], [("x-api-key", b"k")], ["ab"], 1, None]
    for headers in shapes:
        with pytest.raises(TypeError):
            keys.credential(headers)  # type: ignore[arg-type]


def test_other_headers_are_passed_over_without_allocating() -> None:
    headers = tuple((b"x-header-%d" % i, b"v" * 100) for i in range(50))

    def peak_bytes(sent: tuple[tuple[bytes, bytes], ...]) -> int:
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        keys.credential(sent)
        return tracemalloc.get_traced_memory()[1] - before

    tracemalloc.start()
    try:
        peak_bytes(headers)
        assert peak_bytes(headers) == peak_bytes(())
        assert peak_bytes((*headers, (b"api-key", b"k" * 100))) > peak_bytes(headers)
    finally:
        tracemalloc.stop()
