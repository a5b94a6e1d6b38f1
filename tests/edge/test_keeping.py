"""An answer that is kept on its way: the same bytes, however they come, and the last of them when it is kept."""

from typing import Any, cast

import orjson
import pytest

from agw_proxy._hot.route import Target
from agw_proxy._hot.sse import Stream
from agw_proxy.edge import keeping
from agw_proxy.edge.keeping import Keeping, keep_whole
from agw_proxy.types import RawHeaders
from agw_proxy.upstreams.opening import Opened

Tree = dict[str, Any]

TARGET = cast("Target", object())  # whose answer it is does not matter here
RESPONSE: Tree = {"id": "resp_1", "status": "completed", "output": [{"id": "msg_1"}], "store": True}


class Pieces:
    """A reply that gives these, one a read."""

    status = 200
    connect_ms = 0.0
    began_ns = 0
    headers: RawHeaders = ((b"content-type", b"application/json"), (b"Content-Length", b"999"))

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = pieces
        self.closed = False

    @property
    def ended(self) -> bool:
        return not self._pieces

    async def read(self, *, progress: bool = True) -> bytes:
        return self._pieces.pop(0) if self._pieces else b""

    def close(self) -> None:
        self.closed = True


class Shelf:
    """A ``Keeper`` that keeps, or does not."""

    def __init__(self, *, keeps: bool = True, told: Tree | None = None) -> None:
        self.told: Tree = told or {}
        self.kept: list[Tree] = []
        self.left = False
        self._keeps = keeps

    async def keep(self, response: Tree) -> bool:
        self.kept.append(response)
        return self._keeps

    def leave(self) -> None:
        self.left = True


def event(name: str, end: bytes = b"\n", *, named: bool = True, **body: object) -> bytes:
    line = b"event: " + name.encode() + end if named else b""
    return line + b"data: " + orjson.dumps({"type": name, **body}) + end + end


def frames(end: bytes = b"\n", *, named: bool = True, last: str = "response.completed", **whole: object) -> bytes:
    begun = {**RESPONSE, "status": "in_progress", "output": []}
    made = [
        event("response.created", end, named=named, response=begun),
        b": ping" + end + end,
        event("response.output_text.delta", end, named=named, delta="Hé\u2028llo".encode().decode()),
        event("response.output_item.done", end, named=named, item={"id": "msg_1"}),
        event(last, end, named=named, response={**RESPONSE, **whole}),
    ]
    return b"".join(made)


async def passed(text: bytes, size: int, shelf: Shelf, first: int = 0) -> bytes:
    """What comes out of a stream in pieces of ``size`` bytes, of which ``first`` were read before."""
    rest = text[first:]
    reply = Pieces([rest[at : at + size] for at in range(0, len(rest), size)])
    stream = Stream()
    answer = Opened(reply, TARGET, stream, stream.feed(text[:first]), raw=text[:first])
    await Keeping(reply, shelf).begin(answer, stream)
    out = answer.first
    while not answer.reply.ended:
        out += stream.feed(await answer.reply.read())
    return out + stream.finish()


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("size", [1, 7, 100, 10_000])
async def test_a_stream_passes_as_it_is_and_is_kept_once(size: int, named: bool, end: bytes) -> None:
    text = frames(end, named=named)
    for first in (0, 50, text.index(b"response.completed") + 40, len(text)):
        shelf = Shelf()
        assert await passed(text, size, shelf, first) == text
        assert shelf.kept == [RESPONSE]


@pytest.mark.parametrize("size", [1, 100, 10_000])
async def test_one_that_is_not_kept_says_so_in_its_last_event(size: int) -> None:
    text = frames()
    made = await passed(text, size, Shelf(keeps=False))
    assert made == frames(store=False)
    for first in (0, text.index(b"response.completed") + 40):  # also where its beginning was read before
        begun = await passed(text, size, Shelf(told={"previous_response_id": "resp_0"}), first)
        assert begun.count(b'"previous_response_id":"resp_0"') == 2


async def test_what_was_said_before_counts_where_the_last_event_leaves_it_out(monkeypatch: pytest.MonkeyPatch) -> None:
    shelf = Shelf()
    text = frames(output=[])
    assert await passed(text, 64, shelf) == text
    assert shelf.kept[0]["output"] == [{"id": "msg_1"}]
    monkeypatch.setattr(keeping, "MAX_ANSWER_BYTES", 10)
    assert await passed(text, 64, shelf) == frames(output=[], store=False)
    assert len(shelf.kept) == 1  # a part of it is no answer


@pytest.mark.parametrize("last", ["response.failed", "error", "response.cancelled"])
async def test_what_has_not_come_to_its_end_is_not_kept(last: str) -> None:
    shelf = Shelf()
    text = frames(last=last)
    assert await passed(text, 30, shelf) == text
    assert await passed(frames()[:-200], 30, shelf) == frames()[:-200]
    assert shelf.kept == []


async def test_an_event_that_never_ends_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "MAX_EVENT_BYTES", 1000)
    reply = Keeping(Pieces([b"data: " + b"x" * 600, b"y" * 600, b"z"]), Shelf())
    assert len(await reply.read()) == 1206


async def test_what_is_nested_too_deeply_to_be_written_again_goes_out_as_it_came() -> None:
    deep = b"[" * 500 + b"]" * 500  # which can be read
    told = Shelf(keeps=False, told={"previous_response_id": "resp_0"})
    text = frames(metadata=0).replace(b'"metadata":0', b'"metadata":' + deep)
    assert (await passed(text, 64, told)).endswith(text[text.index(b"event: response.output_item.done") :])
    answer = opened(orjson.dumps({**RESPONSE, "metadata": 0}).replace(b"0", deep))
    first = answer.first
    assert not await keep_whole(answer, told)
    assert answer.first == first


def opened(*pieces: bytes) -> Opened:
    reply = Pieces(list(pieces[1:]))
    return Opened(reply, TARGET, None, pieces[0])


async def test_a_whole_answer_is_read_and_kept_before_it_goes_out() -> None:
    text = orjson.dumps(RESPONSE)
    for answer in (opened(text), opened(text[:9], text[9:20], text[20:])):
        shelf = Shelf()
        assert await keep_whole(answer, shelf)
        assert (answer.first, shelf.kept, answer.reply.ended) == (text, [RESPONSE], True)
        assert (b"content-length", b"%d" % len(text)) in answer.reply.headers
        assert await answer.reply.read() == b""
    answer = opened(text)
    assert not await keep_whole(answer, Shelf(keeps=False, told={"conversation": None}))
    assert orjson.loads(answer.first) == {**RESPONSE, "store": False, "conversation": None}
    assert dict(answer.reply.headers)[b"content-length"] == b"%d" % len(answer.first)


async def test_what_is_no_answer_or_too_long_goes_out_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    shelf = Shelf()
    answer = opened(b"[1]")
    assert await keep_whole(answer, shelf)
    assert answer.first == b"[1]"
    monkeypatch.setattr(keeping, "MAX_ANSWER_BYTES", 5)
    answer = opened(b"[1,", b"2,3", b",4]")
    assert not await keep_whole(answer, shelf)
    assert (answer.first, await answer.reply.read(), shelf.kept) == (b"[1,2,3", b",4]", [])
