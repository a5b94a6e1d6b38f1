"""Server-sent events: the same events however the bytes are cut, and bounds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agw_proxy.dialects import sse
from agw_proxy.dialects.base import Malformed
from agw_proxy.dialects.sse import Events, frame

VECTORS: list[tuple[bytes, list[tuple[str, bytes]]]] = [
    (b"data: x\n\n", [("", b"x")]),
    (b"data:x\n\n", [("", b"x")]),
    (b"data:  x\n\n", [("", b" x")]),
    (b"data: x\r\n\r\n", [("", b"x")]),
    (b"data: x\r\rdata: y\r\r", [("", b"x"), ("", b"y")]),
    (b"event: n\ndata: x\n\n", [("n", b"x")]),
    (b"data: x\nevent: n\n\n", [("n", b"x")]),
    (b"event: n\n\ndata: x\n\n", [("", b"x")]),
    (b"data: a\ndata: b\n\n", [("", b"a\nb")]),
    (b"data: a\r\ndata: b\r\n\r\n", [("", b"a\nb")]),
    (b"data\n\n", [("", b"")]),
    (b": ping\n\n: pong\ndata: x\n\n", [("", b"x")]),
    (b"id: 1\nretry: 5\ndata: x\n\n", [("", b"x")]),
    (b"\n\n\ndata: x\n\n\n\ndata: y\n\n", [("", b"x"), ("", b"y")]),
    (b"\xef\xbb\xbfdata: x\n\n", [("", b"x")]),
    (b"data: \xc3\xa9\xff\n\n", [("", b"\xc3\xa9\xff")]),
    (b"event: \xff\ndata: x\n\n", [("\ufffd", b"x")]),
    (b"data: x\r\n\ndata: y\n\r\n", [("", b"x"), ("", b"y")]),
    (b"", []),
]


def fed(chunks: list[bytes]) -> list[tuple[str, bytes]]:
    reader = Events()
    return [event for chunk in chunks for event in reader.feed(chunk)] + reader.end()


@pytest.mark.parametrize(("stream", "wanted"), VECTORS)
def test_whole_byte_by_byte_and_in_two(stream: bytes, wanted: list[tuple[str, bytes]]) -> None:
    assert fed([stream]) == wanted
    assert fed([stream[at : at + 1] for at in range(len(stream))]) == wanted
    for cut in range(len(stream)):
        assert fed([stream[:cut], b"", stream[cut:]]) == wanted


def test_an_event_goes_out_with_its_blank_line_and_not_later() -> None:
    reader = Events()
    assert reader.feed(b"data: x\n\ndata: y\n") == [("", b"x")]
    assert reader.feed(b"\nda") == [("", b"y")]
    assert Events().feed(b"data: x\r\n\r") == [("", b"x")]


def test_a_last_event_without_its_blank_line_counts_and_half_a_line_does_not() -> None:
    assert fed([b"data: x\n"]) == [("", b"x")]
    assert fed([b"data: [DO"]) == []
    assert fed([b"data: x\ndata: y"]) == []


def test_an_event_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "MAX_EVENT_BYTES", 10)
    reader = Events()
    assert reader.feed(b"data: 1234") == []
    with pytest.raises(Malformed):
        reader.feed(b"5")


def test_events_that_are_whole_are_not_held_against_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "MAX_EVENT_BYTES", 10)
    assert len(Events().feed(b"data: 123\n\n" * 50 + b"data: 4")) == 50


def test_frames_are_read_as_they_were_written() -> None:
    assert frame("", b"x") == b"data: x\n\n"
    assert frame("n", b"x") == b"event: n\ndata: x\n\n"
    assert fed([frame("n", b"a\nb\r\nc")]) == [("n", b"a\nb\nc")]


@given(st.lists(st.tuples(st.sampled_from(["", "n", "error"]), st.text(max_size=6)), max_size=5), st.data())
def test_any_frames_survive_any_cuts(events: list[tuple[str, str]], data: st.DataObject) -> None:
    stream = b"".join(frame(name, words.encode()) for name, words in events)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    chunks = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    wanted = [(name, words.encode().replace(b"\r\n", b"\n").replace(b"\r", b"\n")) for name, words in events]
    assert fed(chunks) == wanted
