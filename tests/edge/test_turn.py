"""The events of a turn as messages, and its errors."""

from typing import Any

import orjson
import pytest
from multidict import CIMultiDict

from agw_proxy.edge.exchange import Exchange
from agw_proxy.edge.turn import Frames, error_event, error_of, reported
from agw_proxy.errors import InvalidParameter

Tree = dict[str, Any]
COMPLETED = b'{"type":"response.completed","response":{"id":"r","output":[]}}'
DONE = b'{"type":"response.output_item.done","item":{"type":"message"}}'


class Kept:
    """What was sent, and how it ended."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.ended: list[tuple[Tree, list[object]]] = []

    async def send(self, message: bytes) -> None:
        self.sent.append(message)

    def note(self, exchange: Exchange | None, response: Tree, items: list[object]) -> None:
        assert exchange is None
        self.ended.append((response, items))


async def written(
    text: bytes, size: int, lane: str | None = None, kind: str = "text/event-stream"
) -> tuple[Kept, Frames]:
    """A stream in pieces of ``size``."""
    kept = Kept()
    frames = Frames(kept.send, lane, kept.note)
    await frames.write_headers("HTTP/1.1 200 OK", CIMultiDict({"content-type": f"{kind}; charset=utf-8"}))
    for at in range(0, len(text), size):
        await frames.write(text[at : at + size])
    await frames.write_eof()
    return kept, frames


@pytest.mark.parametrize("size", [1, 7, 4096])
async def test_each_event_is_one_message_and_comments_are_none(size: int) -> None:
    text = (
        b': ping\n\nevent: response.x\ndata: {"type":"response.x"}\n\ndata: '
        + DONE
        + b"\r\n\r\ndata: "
        + COMPLETED
        + b"\n\n"
    )
    kept, frames = await written(text, size)
    assert kept.sent == [b'{"type":"response.x"}', DONE, COMPLETED]
    assert kept.ended == [({"id": "r", "output": []}, [{"type": "message"}])]
    assert (frames.failed, frames.streams, frames.output_size) == (None, True, len(text))


async def test_a_lane_is_named_in_each_and_what_is_no_text_is_made_some() -> None:
    kept, _ = await written(b'data: {"type":"x","delta":"\xff\xc3\xa9"}\n\n', 4096, lane='a"b')
    assert orjson.loads(kept.sent[0]) == {"type": "x", "delta": "\ufffd\u00e9", "stream_id": 'a"b'}


@pytest.mark.parametrize("lane", [None, "a"])
async def test_what_is_no_event_of_the_api_is_no_message(lane: str | None) -> None:
    cut = b'event: response.image_generation_call.partial_image\ndata: {"type":"response.image_gen\n\n'
    kept, frames = await written(b"data: " + COMPLETED + b"\n\n" + cut + b"data: [DONE]\n\n", 4096, lane)
    assert [orjson.loads(message)["type"] for message in kept.sent] == ["response.completed"]
    assert frames.failed is None


@pytest.mark.parametrize(
    "text",
    [
        b'event: error\ndata: {"error":{"message":"m","type":"t","code":"c","param":null}}\n\n',
        b'event: error\ndata: {"type":"error","message":"m","code":"c","param":null,"sequence_number":3}\n\n',
        b'data: {"error":{"message":"m","code":"c"}}\n\n',
    ],
)
async def test_an_error_within_the_stream_is_kept_for_its_status(text: bytes) -> None:
    kept, frames = await written(text, 5)
    assert not kept.sent
    assert frames.failed is not None
    found = reported(frames.failed)
    assert (found["message"], found["code"]) == ("m", "c")
    assert found.get("type") != "error"
    tree = orjson.loads(error_event(502, found, None, {"retry-after": "1"}))
    assert (tree["type"], tree["status"], tree["headers"]) == ("error", 502, {"retry-after": "1"})
    assert tree["error"]["headers"] == {"retry-after": "1"}


async def test_a_failed_response_is_passed_on_and_nothing_goes_on_from_it() -> None:
    text = b'{"type":"response.failed","response":{"id":"r"}}'
    kept, _ = await written(b"event: response.failed\ndata: " + text + b"\n\n", 4096)
    assert (kept.sent, kept.ended) == ([text], [])


async def test_what_is_no_stream_is_read_for_its_error_within_a_bound() -> None:
    kept, frames = await written(b'{"error":{"message":"m"}}', 4, kind="application/json")
    assert (kept.sent, frames.streams) == ([], False)
    assert reported(bytes(frames.plain)) == {"message": "m"}
    assert reported(b"no JSON") == {}
    assert reported(b'{"error":"words"}') == {"message": "words"}
    frames.enable_chunking()
    frames.enable_compression()
    frames.send_headers()
    await frames.drain()


async def test_a_response_that_is_not_known_is_told_by_the_code_that_clients_wait_for() -> None:
    told = orjson.loads(error_of(InvalidParameter("no", param="previous_response_id"), "s"))
    assert (told["status"], told["error"]["code"], told["stream_id"]) == (400, "previous_response_not_found", "s")
    assert orjson.loads(error_of(InvalidParameter("no", param="input"), None))["error"]["code"] == "invalid_value"
