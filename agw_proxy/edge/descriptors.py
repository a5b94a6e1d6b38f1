"""File descriptors: how many there may be, and that clients are turned away before the last one is gone.

libuv keeps one in reserve: where ``accept`` finds none, it closes what comes in with it, in silence. So that clients are
told, the edge refuses a connection with 503 while there is still something left; a connection's own descriptor shows
how near the end is, since the kernel gives the lowest number that is free (POSIX ``accept``).
"""

import contextlib
import os
import resource
import socket

RESERVED_DESCRIPTORS = 64  # for logs, listening sockets, resolvers; the rest is shared by clients and upstreams
KEPT_DESCRIPTORS = 16  # of these, what a new client may not have: upstreams, a reload and the log go on
SAID_SECONDS = 1.0  # between two lines about it


def descriptors() -> int:
    """Raise the soft limit of open files to the hard one and give it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    return soft if soft != resource.RLIM_INFINITY else 1 << 20


class Descriptors:
    """Of this process. ``limit``: how many there may be; the soft limit is raised to the hard one for it."""

    def __init__(self) -> None:
        self.limit = descriptors()
        self.last = self.limit - KEPT_DESCRIPTORS
        """The first that no connection gets."""
        self._folder: int | None = None
        self._missing = False
        self._said = float("-inf")

    def room(self, connection: socket.socket | None) -> bool:
        """A connection that has been accepted may stay: there is something left behind it."""
        return connection is None or connection.fileno() < self.last

    def may_say(self, now: float) -> bool:
        """It is time for a line in the log: at most one a second. ``now``: monotonic seconds."""
        if now - self._said < SAID_SECONDS:
            return False
        self._said = now
        return True

    def open(self) -> int:
        """How many are open; -1 where the system does not tell cheaply (before Linux 6.2, or without /proc)."""
        if self._folder is None and not self._missing:
            self._folder = _own_folder()
            self._missing = self._folder is None
        if self._folder is None:
            return -1
        return os.fstat(self._folder).st_size or -1

    def close(self) -> None:
        """Let go of what it counts with."""
        if self._folder is not None:
            os.close(self._folder)
            self._folder = None


def _own_folder() -> int | None:
    """The folder of this process's descriptors, whose size is their number."""
    try:
        return os.open("/proc/self/fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None
