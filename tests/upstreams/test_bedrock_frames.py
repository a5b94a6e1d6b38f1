"""Amazon's event stream: whole, byte by byte, with more behind it; what is damaged is never taken for whole."""

import itertools
import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agw_proxy.upstreams.bedrock_frames import MAX_MESSAGE_BYTES, Frames, MalformedFrame
from tests.support.aws import chunk, exception, frame

STREAM = chunk(b'{"type":"ping"}') + exception("throttlingException", "slow") + frame({}, b"")


def read(*pieces: bytes) -> list[tuple[dict[str, str], bytes]]:
    frames = Frames()
    found = [message for piece in pieces for message in frames.feed(piece)]
    assert not frames.unfinished
    return [(message.headers, message.payload) for message in found]


WHOLE = read(STREAM)


def test_messages_come_with_headers_and_payload() -> None:
    assert [headers.get(":message-type") for headers, _ in WHOLE] == ["event", "exception", None]
    assert WHOLE[1][1] == b'{"message":"slow"}'


@given(st.lists(st.integers(0, len(STREAM)), max_size=6))
def test_it_may_be_cut_anywhere(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(STREAM)]
    assert read(*(STREAM[begin:end] for begin, end in itertools.pairwise(edges))) == WHOLE


def test_it_may_come_byte_by_byte() -> None:
    assert read(*(STREAM[at : at + 1] for at in range(len(STREAM)))) == WHOLE


@given(st.integers(0, len(STREAM) - 1), st.integers(1, 255))
def test_a_damaged_byte_is_seen(at: int, flip: int) -> None:
    damaged = STREAM[:at] + bytes([STREAM[at] ^ flip]) + STREAM[at + 1 :]
    frames = Frames()
    with pytest.raises(MalformedFrame):
        frames.feed(damaged)


def test_what_is_cut_is_unfinished() -> None:
    frames = Frames()
    assert len(frames.feed(STREAM[:-1])) == 2
    assert frames.unfinished


@pytest.mark.parametrize(
    ("total", "headers"), [(MAX_MESSAGE_BYTES + 1, 0), (15, 0), (0, 0), (40, 200), (2**32 - 1, 2**32 - 1)]
)
def test_a_length_that_cannot_be_is_not_waited_for(total: int, headers: int) -> None:
    prelude = struct.pack(">II", total, headers)
    prelude += struct.pack(">I", zlib.crc32(prelude))
    with pytest.raises(MalformedFrame):
        Frames().feed(prelude + bytes(100))


@pytest.mark.parametrize("told", [b"\x01a\x63", b"\x05a", b"\x01a\x07\x00\x01\xff", b"\x01a\x00\x01a\x00"])
def test_headers_that_are_none_are_refused(told: bytes) -> None:
    prelude = struct.pack(">II", 16 + len(told), len(told))
    prelude += struct.pack(">I", zlib.crc32(prelude))
    with pytest.raises(MalformedFrame):
        Frames().feed(prelude + told + struct.pack(">I", zlib.crc32(prelude + told)))
