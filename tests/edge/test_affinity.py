"""The memory of who has made what, and an answer that is read on its way."""

import asyncio
from collections.abc import Coroutine

import pytest

from agw_proxy.edge.affinity import MAX_ANSWER_BYTES, RENEW_SECONDS, Memory, Watched
from agw_proxy.policy.affinity import Told
from agw_proxy.types import RawHeaders


class Values:
    """A ``Store`` that says what it was asked."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}
        self.asked: list[str] = []

    async def get(self, key: str) -> bytes | None:
        self.asked.append("get")
        return self.kept.get(key)

    async def set(self, key: str, value: bytes, ttl: float) -> bool:
        self.asked.append("set")
        self.kept[key] = value
        return True

    async def add(self, key: str, value: bytes, ttl: float) -> bool | None:
        raise AssertionError(f"{key} is set, never added")

    async def remove(self, key: str) -> None:
        self.kept.pop(key, None)


async def test_another_worker_knows_it_and_another_owner_does_not() -> None:
    values = Values()
    await Memory(values).note("key:one", "resp_1", "b", "b/x")
    made = await Memory(values).find("key:one", "resp_1")
    assert made is not None
    assert (made.upstream, made.target) == ("b", "b/x")
    for owner, what in (("key:two", "resp_1"), ("team:one", "resp_1"), ("key:one", "resp_2"), ("key:oneresp", "_1")):
        assert await Memory(values).find(owner, what) is None
    assert not [key for key in values.kept if "resp_1" in key or "one" in key]


async def test_a_worker_asks_for_nothing_that_it_knows_and_keeps_a_bound() -> None:
    values = Values()
    memory = Memory(values, most=2)
    for what in ("1", "2", "3"):
        await memory.note("key:one", what, "b", "b/x")
    values.asked.clear()
    assert await memory.find("key:one", "3") is not None
    assert await memory.find("key:one", "2") is not None
    assert values.asked == []
    assert await memory.find("key:one", "1") is not None
    assert values.asked == ["get"]
    await memory.forget("key:one", "1")
    assert await memory.find("key:one", "1") is None


async def test_what_is_in_use_is_kept_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("agw_proxy.edge.affinity.time.time", lambda: now[0])
    values = Values()
    memory = Memory(values)
    await memory.note("key:one", "1", "b", "b/x")
    values.asked.clear()
    now[0] += RENEW_SECONDS + 1
    for _ in range(3):
        assert await memory.find("key:one", "1") is not None
        await asyncio.sleep(0)
    assert values.asked == ["set"]


async def test_what_another_version_has_written_is_a_miss() -> None:
    values = Values()
    await Memory(values).note("key:one", "1", "b", "b/x")
    values.kept = dict.fromkeys(values.kept, b"\xc1")
    assert await Memory(values).find("key:one", "1") is None


class Chunks:
    """A Reply of these."""

    status = 200
    headers: RawHeaders = ()
    connect_ms = 0.0
    began_ns = 0

    def __init__(self, *chunks: bytes) -> None:
        self._chunks = list(chunks)

    @property
    def ended(self) -> bool:
        return not self._chunks

    async def read(self, *, progress: bool = True) -> bytes:
        return self._chunks.pop(0)

    def close(self) -> None:
        self._chunks.clear()


async def seen(*chunks: bytes, stream: bool) -> list[Told]:
    """What was remembered when the last bytes came."""
    found: list[Told] = []

    def keep(news: Told) -> list[Coroutine[None, None, None]]:
        async def write() -> None:
            await asyncio.sleep(0)
            found.append(news)

        return [write()] if news != Told() else []

    reply = Watched(Chunks(*chunks), keep, ids=True, signatures=True, stream=stream)
    got = b""
    while not reply.ended:
        got += await reply.read()
    assert got == b"".join(chunks), "its bytes pass untouched"
    return found


@pytest.mark.parametrize("size", [1, 7, 9999])
async def test_a_stream_is_read_in_any_pieces_and_each_thing_is_told_once(size: int) -> None:
    events = (
        b'event: response.created\ndata: {"type":"response.created","response":{"id":"r"}}\n\n'
        b'data: {"type":"response.output_item.done","item":{"id":"i","encrypted_content":"s"}}\n\n'
        b'event: response.completed\ndata: {"type":"response.completed","response":{"output":[{"encrypted_content":"s"}]}}\n\n'
    )
    found = await seen(*[events[at : at + size] for at in range(0, len(events), size)], stream=True)
    assert found == [Told(ids=("r",)), Told(signatures=("s",))]


async def test_a_whole_answer_is_read_up_to_a_bound() -> None:
    assert await seen(b'{"id":"r",', b'"x":1}', stream=False) == [Told(ids=("r",))]
    assert await seen(b'{"id":"r",', b'"x":"' + b"x" * MAX_ANSWER_BYTES + b'"}', stream=False) == [Told(ids=("r",))]
    assert await seen(b'{"id":"r",', stream=False) == []


async def test_a_stream_that_is_none_passes_all_the_same() -> None:
    assert await seen(b"data: {no json\n\n", b'data: {"response.created": "encrypted_content"}\n\n', stream=True) == []
