"""Whole messages, some with descriptors, between a worker that relays and one that runs agents: what a lent connection needs.

A message is a kind, the place of the connection's mark in memory that both have, its number, and whatever belongs to it.
Here only the socket: what is said is in ``lending`` and ``visits``.
"""

import array
import asyncio
import mmap
import os
import socket
import struct
from collections import deque
from collections.abc import Callable, Sequence

HEAD = struct.Struct("!BIQ")
MARKS, LEND, END, LEFT = range(1, 5)
"""To the worker that runs agents: here are the marks (a descriptor); have this connection (its descriptor, and the
request, where it is long in a descriptor of its own); end what that connection asked for, the gateway shuts down; or
since its client has gone."""
BACK, GONE, NOT_TAKEN = range(5, 8)
"""From there: it is answered (and what was read beyond the request, where that is long in a descriptor, for which the
place is 1); it is closed; nothing was done with it."""
UNTAKEN, TAKEN, BEGUN = range(3)
"""A mark, by which a worker's end in the midst is told: the request is not looked at yet; it is; its answer may have begun.
Above these its Receipt is written."""
RETRY_SECONDS = 0.05  # until what the kernel could not take is tried again
SLOTS = 16384  # connections at a time, of each pair of workers
DRAINS = SLOTS  # the byte behind their marks: set once the worker that lends them shuts down
MARKS_BYTES = SLOTS + 1
INLINE_BYTES = 32768  # a longer request has a descriptor: no message is ever too long for the socket
MAX_MESSAGE_BYTES = HEAD.size + INLINE_BYTES
RIGHTS_BYTES = socket.CMSG_SPACE(2 * array.array("i").itemsize)  # two descriptors are the most


class Post:
    """One end. Never blocks: what the socket does not take waits, in its order."""

    def __init__(
        self, sock: socket.socket, heard: Callable[[bytes, list[int]], None], ended: Callable[[], None]
    ) -> None:
        """``sock``: of a pair of type SOCK_SEQPACKET. ``heard``: gets each message, and its descriptors for its own.

        ``ended``: called once, when the other end is closed.
        """
        sock.setblocking(False)
        self._socket = sock
        self._heard, self._ended = heard, ended
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[bytes, Sequence[int]]] = deque()
        self._closed = False
        self._loop.add_reader(sock.fileno(), self._read)

    def send_now(self, message: bytes, descriptors: Sequence[int] = ()) -> bool:
        """Whether it went out. False: too much waits there already, or nobody is there."""
        if self._closed or self._waiting:
            return False
        try:
            self._put(message, descriptors)
        except OSError:  # no room, too many descriptors on their way, ...: whether it is the end, reading tells
            self._loop.call_soon(self._read)
            return False
        return True

    def send(self, message: bytes, *descriptors: int) -> None:
        """Now, or when the socket takes it. ``descriptors``: its own from now on."""
        if self._closed or self.send_now(message, descriptors):
            _close(descriptors)
            return
        self._waiting.append((message, descriptors))
        if len(self._waiting) == 1:
            self._loop.add_writer(self._socket.fileno(), self._write)

    def close(self) -> None:
        """Let go of it; ``ended`` is not called any more."""
        if not self._closed:
            self._closed = True
            self._loop.remove_reader(self._socket.fileno())
            self._loop.remove_writer(self._socket.fileno())
            self._socket.close()
            for _, descriptors in self._waiting:
                _close(descriptors)
            self._waiting.clear()

    def _put(self, message: bytes, descriptors: Sequence[int]) -> None:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        self._socket.sendmsg([message], rights)

    def _end(self) -> None:
        if not self._closed:
            self.close()
            self._ended()

    def _write(self) -> None:
        try:
            while self._waiting:
                self._put(*self._waiting[0])
                _close(self._waiting.popleft()[1])
        except BlockingIOError:
            return
        except OSError:  # the end, which reading tells of; or there is something that the kernel lacks
            self._loop.call_later(RETRY_SECONDS, self._write_again)
        self._loop.remove_writer(self._socket.fileno())

    def _write_again(self) -> None:
        if self._waiting and not self._closed:
            self._loop.add_writer(self._socket.fileno(), self._write)

    def _read(self) -> None:
        """All that is there: what was sent before an end comes before it, and only an end of the other side is one."""
        while not self._closed:
            try:
                message, rights, _, _ = self._socket.recvmsg(MAX_MESSAGE_BYTES, RIGHTS_BYTES, socket.MSG_CMSG_CLOEXEC)
            except ConnectionResetError:  # it has ended with messages unread: what it has sent comes after this
                continue
            except OSError:
                return
            descriptors = [each for _, _, data in rights for each in array.array("i", data)]
            if not message:
                self._end()
                return
            self._heard(message, descriptors)


def _close(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def in_memory(name: str, data: bytes) -> int:
    """A descriptor of memory that holds it, for ``read_memory``; the caller closes it. Raises OSError."""
    descriptor = os.memfd_create(name)
    try:
        os.ftruncate(descriptor, len(data))
        with mmap.mmap(descriptor, len(data)) as memory:
            memory[:] = data
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def read_memory(descriptor: int) -> bytes:
    """What it holds. Raises OSError."""
    with mmap.mmap(descriptor, 0, prot=mmap.PROT_READ) as memory:
        return memory[:]
