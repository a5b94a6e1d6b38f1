"""Looks names up: one look-up of a name at a time, whoever waits for it, and none just after one that failed.

A look-up is a thread that nobody can stop. Where each request that waits for a name in trouble had one of its own, they
would take all threads there are, and still be in the way of everybody else's when the name servers are back. What was
found is not kept: an outage may be a move, so each new connection asks anew.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

MISSING_SECONDS = 1.0  # for so long a name that was not found is not looked up again

T = TypeVar("T")


class Names(Generic[T]):
    """The names that one user of them asks for, each by host and port. Used on one loop; there are as many as it has upstreams."""

    def __init__(self, look: Callable[[str, int], Coroutine[Any, Any, T]], now: Callable[[], float]) -> None:
        """``look``: one look-up; raises socket.gaierror. ``now``: seconds of the loop's clock."""
        self._look = look
        self._now = now
        self._under_way: dict[tuple[str, int], asyncio.Task[T]] = {}
        self._missing: dict[tuple[str, int], tuple[float, socket.gaierror]] = {}

    async def find(self, host: str, port: int) -> T:
        """What the look-up gives, or the one that is under way. Raises what it raises.

        A cancellation ends the wait and not the look-up: the next who asks waits for the same.
        """
        name = (host, port)
        until, error = self._missing.get(name, (0.0, None))
        if error is not None:
            if self._now() < until:
                raise _copy(error)
            del self._missing[name]
        task = self._under_way.get(name)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._look(host, port))
            self._under_way[name] = task
            task.add_done_callback(lambda done: self._ended(name, done))
        try:
            return await asyncio.shield(task)
        except socket.gaierror as error:
            raise _copy(error) from None

    def _ended(self, name: tuple[str, int], task: "asyncio.Task[T]") -> None:
        self._under_way.pop(name, None)
        error = None if task.cancelled() else task.exception()  # taken, also where all who waited have gone
        if isinstance(error, socket.gaierror):
            self._missing[name] = (self._now() + MISSING_SECONDS, error)


def literal(host: str) -> bool:
    """It is an address already."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _copy(error: socket.gaierror) -> socket.gaierror:
    """For one more who waited: an exception that many raise keeps the traces of all of them."""
    return socket.gaierror(*error.args)
