"""How workers that relay reach those that run agents: each of the latter has an inbox, into which connections are put.

The supervisor makes the inboxes before its first fork and keeps them. Nobody but its workers has them, so whoever comes in by
one is a worker, and no address, file mode or secret has to say so. What lies in the inbox of a worker that dies is
there for its replacement.
"""

import os
import socket

MESSAGE = b"\0"  # what goes with a connection: a message of its own


class Inboxes:
    """One for each worker that runs agents, by its place among those. Never blocks."""

    def __init__(self, count: int) -> None:
        self._pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(count)]
        for pair in self._pairs:
            for end in pair:
                end.setblocking(False)

    def __len__(self) -> int:
        return len(self._pairs)

    def put(self, place: int, kind: int = socket.SOCK_STREAM) -> socket.socket:
        """A connection to that worker, which it takes when it gets to it. Raises OSError where too many wait there.

        ``kind``: SOCK_SEQPACKET for one of whole messages.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
        try:
            ours.setblocking(False)
            socket.send_fds(self._pairs[place][0], [MESSAGE], [theirs.fileno()])
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        return ours

    def take(self, place: int) -> socket.socket | None:
        """The next connection for that worker; None where there is none.

        Raises OSError where no descriptor is free for it, EOFError where nobody is left who could put one in.
        """
        try:
            message, descriptors, _, _ = socket.recv_fds(self._pairs[place][1], len(MESSAGE), 1)
        except BlockingIOError:
            return None
        if not message:
            raise EOFError
        if not descriptors:  # the kernel had no descriptor for it, and has closed it
            raise OSError("a connection came without its descriptor")
        os.set_inheritable(descriptors[0], False)
        taken = socket.socket(fileno=descriptors[0])
        taken.setblocking(False)
        return taken

    def only_take(self) -> None:
        """In a worker that runs agents: it puts nothing in, and is to see when nobody is left who does."""
        for puts, _ in self._pairs:
            puts.close()

    def fileno(self, place: int) -> int:
        """What is readable when a connection waits for that worker."""
        return self._pairs[place][1].fileno()
