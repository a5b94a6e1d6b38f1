"""Addresses where a request gets stuck: before the connection stands, or on its way into it."""

import contextlib
import socket
import threading
from collections.abc import Iterator

RECEIVE_BYTES = 4096  # small, so that little of a request goes under way
FILLING = 4  # connections that nobody takes; the kernel's queue of one has long been full then


@contextlib.contextmanager
def deaf() -> Iterator[str]:
    """The address of a port that answers no new connection, as a firewall's: its queue of them is full, and stays so."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listening, contextlib.ExitStack() as stack:
        for _ in range(FILLING):
            filling = stack.enter_context(socket.socket())
            filling.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                filling.connect(listening.getsockname())
        yield f"127.0.0.1:{listening.getsockname()[1]}"


@contextlib.contextmanager
def mute() -> Iterator[str]:
    """The address of a port that takes connections and reads nothing from them."""
    with contextlib.ExitStack() as stack, socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
        thread = threading.Thread(target=_take, args=(listening, stack), name="mute", daemon=True)
        thread.start()
        yield f"127.0.0.1:{listening.getsockname()[1]}"
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()


def _take(listening: socket.socket, stack: contextlib.ExitStack) -> None:
    while True:
        try:
            stack.enter_context(listening.accept()[0])
        except OSError:
            return  # the block has ended
