"""An upstream whose certificate nobody here trusts."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator

import trustme


@contextlib.contextmanager
def untrusted() -> Iterator[str]:
    """The https URL of a port that greets with a certificate of an unknown authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=_greet, args=(listening, context), name="untrusted", daemon=True)
        thread.start()
        yield f"https://127.0.0.1:{listening.getsockname()[1]}"
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()


def _greet(listening: socket.socket, context: ssl.SSLContext) -> None:
    while True:
        try:
            peer, _ = listening.accept()
        except OSError:
            return  # the block has ended
        peer.settimeout(1.0)
        with contextlib.suppress(OSError), context.wrap_socket(peer, server_side=True) as secured:
            secured.recv(1)
