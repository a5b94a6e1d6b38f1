"""Messages between workers: whole, in order, with their descriptors, and never a wait for the other side."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agw_proxy.edge.posts import MAX_MESSAGE_BYTES, Post, in_memory, read_memory

pytestmark = pytest.mark.both_loops


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


class End:
    """One end, and what it has heard."""

    def __init__(self, sock: socket.socket) -> None:
        self.heard: list[bytes] = []
        self.descriptors: list[int] = []
        self.ends = 0
        self.post = Post(sock, self._hear, self._end)

    def _hear(self, message: bytes, descriptors: list[int]) -> None:
        self.heard.append(message)
        self.descriptors += descriptors

    def _end(self) -> None:
        self.ends += 1

    async def until(self, count: int) -> None:
        async with asyncio.timeout(20):
            while len(self.heard) < count:
                await asyncio.sleep(0.001)


@pytest.fixture
async def ends() -> AsyncIterator[tuple[End, End]]:
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    made = End(one), End(other)
    yield made
    for end in made:
        end.post.close()


async def test_what_the_socket_does_not_take_waits_in_its_order(ends: tuple[End, End]) -> None:
    one, other = ends
    asyncio.get_running_loop().remove_reader(other.post._socket.fileno())
    sent = [b"%d" % number + bytes(MAX_MESSAGE_BYTES - 9) for number in range(40)]
    for message in sent:
        one.post.send(message)
    assert one.post._waiting
    assert not one.post.send_now(b"before the others")
    asyncio.get_running_loop().add_reader(other.post._socket.fileno(), other.post._read)
    await other.until(len(sent))
    assert other.heard == sent
    assert not one.post._waiting
    assert one.post.send_now(b"after them")
    await other.until(len(sent) + 1)


async def test_descriptors_come_with_their_message_and_are_nobody_elses(ends: tuple[End, End]) -> None:
    one, other = ends
    data = os.urandom(100_000)
    memory = in_memory("test", data)
    assert one.post.send_now(b"here", [memory])
    os.close(memory)
    await other.until(1)
    (descriptor,) = other.descriptors
    assert not os.get_inheritable(descriptor)
    assert read_memory(descriptor) == data
    os.close(descriptor)


async def test_what_was_sent_before_an_end_comes_before_it(ends: tuple[End, End]) -> None:
    one, other = ends
    assert one.post.send_now(b"last words")
    one.post.close()
    one.post.close()
    async with asyncio.timeout(20):
        while not other.ends:
            await asyncio.sleep(0.001)
    assert (other.heard, other.ends, one.ends) == ([b"last words"], 1, 0)
    assert not other.post.send_now(b"nobody is there")
    other.post.send(b"nor here")


async def test_an_end_is_heard_of_once_where_it_is_found_by_writing(ends: tuple[End, End]) -> None:
    one, other = ends
    asyncio.get_running_loop().remove_reader(one.post._socket.fileno())
    other.post.close()
    one.post.send(b"nobody is there")
    one.post.send(b"nor now")
    await asyncio.sleep(0.01)
    assert one.ends == 1


async def test_what_waits_is_forgotten_with_the_other_end(ends: tuple[End, End]) -> None:
    one, other = ends
    loop = asyncio.get_running_loop()
    loop.remove_reader(other.post._socket.fileno())
    while not one.post._waiting:
        one.post.send(bytes(MAX_MESSAGE_BYTES))
    loop.remove_reader(one.post._socket.fileno())
    other.post.close()
    async with asyncio.timeout(20):
        while not one.ends:
            await asyncio.sleep(0.001)
    assert one.ends == 1


async def test_memory_that_cannot_be_had_leaves_nothing_open(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    before = open_files()
    monkeypatch.setattr(os, "ftruncate", full)
    with pytest.raises(OSError, match="No space"):
        in_memory("test", b"x")
    assert open_files() == before
