"""The sockets that a supervisor opens for its workers."""

import socket
import stat
from pathlib import Path

import pytest

from agw_proxy.edge.listeners import Listeners, listen


def queued(listeners: Listeners, workers: int) -> list[int]:
    """How many connections wait on each worker's main socket; they are taken."""
    counts = []
    for worker in range(workers):
        count = 0
        try:
            while True:
                listeners.of(worker)[0].accept()[0].close()
                count += 1
        except BlockingIOError:
            counts.append(count)
    return counts


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_each_worker_has_a_socket_on_the_same_port_and_gets_a_share(host: str) -> None:
    listeners = listen(host, 0, 0, 3)
    try:
        ports = {listeners.of(worker)[0].getsockname()[1] for worker in range(3)}
        admin = {listeners.of(worker)[1].getsockname()[1] for worker in range(3)}
        assert len(ports) == len(admin) == 1
        assert ports != admin
        port = ports.pop()
        assert listeners.url == f"http://{f'[{host}]' if ':' in host else host}:{port}"
        clients = [socket.create_connection((host, port)) for _ in range(64)]
        shares = queued(listeners, 3)
        for client in clients:
            client.close()
        assert sum(shares) == 64
        assert min(shares) > 0
        assert listeners.alone(1) == listeners.of(1)
    finally:
        listeners.close()


def test_a_port_that_another_gateway_has_is_refused() -> None:
    first = listen("127.0.0.1", 0, None, 2)
    port = first.of(0)[0].getsockname()[1]
    try:
        with pytest.raises(OSError, match="in use"):
            listen("127.0.0.1", port, None, 2)
        with pytest.raises(OSError, match="in use"):
            listen("127.0.0.1", 0, port, 2)
    finally:
        first.close()
    listen("127.0.0.1", port, None, 2).close()


def test_all_workers_share_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "agw.sock"
    listeners = listen(f"unix:{path}", 8080, 0, 2)
    assert listeners.url == f"unix:{path}"
    assert listeners.of(0)[0] is listeners.of(1)[0]
    assert listeners.alone(1) == listeners.of(1)[1:]
    assert listeners.of(0)[1].getsockname()[0] == "127.0.0.1"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(OSError, match="another process listens"):
        listen(f"unix:{path}", 8080, None, 2)
    listeners.close()
    assert path.exists()
    listeners.remove()
    assert not path.exists()


def test_a_socket_file_that_nobody_answers_on_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "agw.sock"
    listen(f"unix:{path}", 0, None, 2).close()
    listeners = listen(f"unix:{path}", 0, None, 2)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    listeners.close()
    listeners.remove()


@pytest.mark.parametrize("host", ["192.0.2.1", "unix:/nowhere/at/all.sock"])
def test_what_cannot_be_listened_on_leaves_nothing_open(host: str) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(OSError, match=r"assign|No such file"):
        listen(host, 0, None, 2)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
