"""A worker that runs agents has connections that others lend it (``lending``): each for one request, then it goes back.

Such a connection is one of this worker's edge, like any other: whole requests come in by it, and the full lane answers
them by the policy in force. Only its end is another: what others get back is read on there.
"""

import asyncio
import mmap
import os
import socket

from agw_proxy._hot.lane import Downstream
from agw_proxy.edge.full_lane import Connection
from agw_proxy.edge.posts import (
    BACK,
    GONE,
    HEAD,
    INLINE_BYTES,
    LEFT,
    LEND,
    MARKS,
    MARKS_BYTES,
    NOT_TAKEN,
    TAKEN,
    Post,
    in_memory,
    read_memory,
)
from agw_proxy.edge.server import Edge
from agw_proxy.errors import Draining


class Visit:
    """One connection, until it goes back or is closed. ``downstream``: None until it is a connection here."""

    def __init__(self, home: "Home", number: int) -> None:
        self._home, self._number = home, number
        self.downstream: Downstream | None = None
        self.ended = False

    def left(self, rest: bytes | None) -> None:
        """It is closed here. ``rest``: what was read beyond the request that was answered; None: it is over."""
        self._home.left(self._number, rest)

    def end(self, *, gone: bool) -> None:
        """``gone``: its client has; else the gateway shuts down and waits no longer."""
        self.ended = True
        downstream = self.downstream
        if downstream is None:
            return
        connection = downstream.handler
        exchange = connection.exchange if isinstance(connection, Connection) else None
        if gone or exchange is None or exchange.accounted:
            downstream.abort()
        else:
            exchange.end(Draining("This gateway is shutting down and could not wait for the end of this answer."))


class Home:
    """A worker that lends its connections."""

    def __init__(self, sock: socket.socket, edge: Edge, visits: "Visits") -> None:
        self._edge, self._visits = edge, visits
        self._marks: mmap.mmap | None = None
        self._here: dict[int, Visit] = {}
        self._coming: set[asyncio.Task[None]] = set()
        self._post = Post(sock, self._hear, self._gone)

    def left(self, number: int, rest: bytes | None) -> None:
        """See ``Visit.left``."""
        self._here.pop(number, None)
        if rest is None:
            self._post.send(HEAD.pack(GONE, 0, number))
        elif len(rest) <= INLINE_BYTES:
            self._post.send(HEAD.pack(BACK, 0, number) + rest)
        else:
            try:
                self._post.send(HEAD.pack(BACK, 1, number), in_memory("agw-rest", rest))
            except OSError:  # no descriptor is free: what was read is lost, and the connection with it
                self._post.send(HEAD.pack(GONE, 0, number))

    def close(self) -> None:
        """Let go of it. What it has lent is answered, and closed then."""
        self._post.close()

    def _gone(self) -> None:
        self._visits.forget(self)

    def _hear(self, message: bytes, descriptors: list[int]) -> None:
        kind, slot, number = HEAD.unpack_from(message)
        if kind == LEND:
            self._take(number, slot, message[HEAD.size :], descriptors)
            return
        if kind == MARKS:
            self._know(descriptors)
        elif (visit := self._here.get(number)) is not None:
            visit.end(gone=kind == LEFT)

    def _know(self, descriptors: list[int]) -> None:
        """Where the marks are."""
        try:
            self._marks = mmap.mmap(descriptors[0], MARKS_BYTES)
        except (OSError, IndexError):  # no descriptor is free: whoever lends is to try again
            self.close()
            self._gone()
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _take(self, number: int, slot: int, request: bytes, descriptors: list[int]) -> None:
        try:
            if self._marks is None or len(descriptors) != (1 if request else 2):
                raise OSError("a connection came without its descriptors")  # there was none free for them
            if not request:
                request = read_memory(descriptors[1])
            if descriptors[0] >= self._edge.descriptors.last:
                raise OSError("it would have one of the last descriptors")
            sock = socket.socket(fileno=descriptors[0])
            descriptors = descriptors[1:]
        except OSError:
            self._post.send(HEAD.pack(NOT_TAKEN, 0, number))
            return
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        self._marks[slot] = TAKEN
        visit = self._here[number] = Visit(self, number)
        downstream = self._edge.lane.visitor(visit, self._marks, slot, request)
        task = asyncio.get_running_loop().create_task(self._receive(visit, downstream, sock))
        self._coming.add(task)
        task.add_done_callback(self._coming.discard)

    async def _receive(self, visit: Visit, downstream: Downstream, sock: socket.socket) -> None:
        if visit.ended:
            sock.close()
            visit.left(None)
            return
        visit.downstream = downstream
        try:
            transport, _ = await asyncio.get_running_loop().connect_accepted_socket(lambda: downstream, sock)
        except OSError:  # its client has gone already
            sock.close()
            visit.left(None)
            return
        if (
            downstream.reading_held
        ):  # told so before it had begun to read, a loop may begin, and think that it has paused
            transport.resume_reading()
            transport.pause_reading()


class Visits:
    """All that is lent to this worker."""

    def __init__(self, edge: Edge) -> None:
        """``edge``: the one whose connections they are here."""
        self._edge = edge
        self._homes: set[Home] = set()

    def welcome(self, sock: socket.socket) -> None:
        """Another worker lends its connections by this one."""
        self._homes.add(Home(sock, self._edge, self))

    def forget(self, home: Home) -> None:
        """It has gone."""
        self._homes.discard(home)

    def close(self) -> None:
        """Nothing comes any more."""
        for home in self._homes:
            home.close()
        self._homes.clear()
