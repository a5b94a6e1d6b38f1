"""The fast lane's connections: kept and reused, replaced when dead, paused with their client, verified over TLS."""

import contextlib
import copy
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import pytest
import trustme

from tests.support.behaviours import DONE, answer, huge, stream
from tests.support.client import Connection
from tests.support.fake_openai import completion, spoken, words
from tests.support.gateway import APP_KEY, Gateway, Tree, chat_body, configuration, provider
from tests.support.upstream import Exchange, Upstream

NEW_KEY = "agw-lane-new-27c0d5e81f9b4a63"
KERNEL_BYTES = 16 << 20  # what both sockets' buffers may have swallowed
GROWTH_BYTES = 16 << 20  # of the process, while a client reads nothing
HUGE_BYTES = 64 << 20
LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)
TLS_ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"


@pytest.fixture(scope="module")
def shared_gateway(shared_upstream: Upstream) -> Iterator[Gateway]:
    once = provider(shared_upstream.url, "once", models=["once-*"], retries={"attempts": 1})
    with Gateway(configuration(provider(shared_upstream.url), once)) as running:
        yield running


def line_of(gateway: Gateway, identity: str) -> Tree:
    line = gateway.receipt(identity)
    assert line["lane"] == "fast", line
    return line


def test_ten_requests_one_after_the_other_use_one_upstream_connection(gateway: Gateway, upstream: Upstream) -> None:
    for number in range(10):
        assert gateway.chat(stream=number % 2 == 1).status == 200
    assert len({request.connection for request in upstream.requests}) == 1


def test_a_key_that_differs_anywhere_from_the_one_before_is_another(gateway: Gateway, upstream: Upstream) -> None:
    for place, character in enumerate(APP_KEY):
        other = APP_KEY[:place] + ("y" if character == "x" else "x") + APP_KEY[place + 1 :]
        with gateway.connect() as connection:
            for key, status in ((APP_KEY, 200), (APP_KEY, 200), (other, 401)):
                connection.send("POST", "/v1/chat/completions", chat_body(), gateway.headers(key))
                assert connection.reply().status == status


def test_requests_at_the_same_time_have_a_connection_each_and_leave_them_for_others(
    gateway: Gateway, upstream: Upstream
) -> None:
    upstream.script(*[answer(completion(), delay_ms=50)] * 3)
    with contextlib.ExitStack() as clients:
        connections = [clients.enter_context(gateway.connect()) for _ in range(3)]
        for connection in connections:
            connection.send("POST", "/v1/chat/completions", chat_body(), gateway.headers())
        assert [connection.reply().status for connection in connections] == [200, 200, 200]
    used = {request.connection for request in upstream.requests}
    assert len(used) == 3
    assert gateway.chat().status == 200
    assert upstream.last.connection in used


@pytest.mark.parametrize("size", [100_000, 600_000, 2_000_000])  # the largest goes by the full lane
def test_a_large_request_that_comes_before_the_last_ones_answer_is_read_to_its_end(
    gateway: Gateway, upstream: Upstream, size: int
) -> None:
    """More of it than is kept behind a request in process: the rest is read when it is this one's turn."""
    upstream.script(answer(completion(), delay_ms=200), answer(completion()))
    with gateway.connect() as connection:
        connection.send("POST", "/v1/chat/completions", chat_body(), gateway.headers())
        large = chat_body(messages=[{"role": "user", "content": "x" * size}])
        connection.send("POST", "/v1/chat/completions", large, gateway.headers())
        assert [connection.reply().status for _ in range(2)] == [200, 200]
    assert len(upstream.last.body) > size


def test_an_upstream_that_closes_after_each_answer_is_asked_anew_and_nobody_notices(
    gateway: Gateway, upstream: Upstream
) -> None:
    upstream.default = answer(completion(), close=True)
    for _ in range(10):
        reply = gateway.chat()
        assert reply.status == 200
        assert line_of(gateway, reply.request_id)["outcome"] == "ok"
    assert len(upstream.requests) == 10
    assert len({request.connection for request in upstream.requests}) == 10


def dying(upstream: Upstream) -> None:
    """The next request finds a connection that dies on it, as when its close has just crossed the request."""

    async def die(exchange: Exchange) -> None:
        exchange.reset()

    upstream.script(answer(completion()), die)


def test_a_connection_that_dies_on_its_second_request_is_replaced_once(gateway: Gateway, upstream: Upstream) -> None:
    dying(upstream)
    first, second = gateway.chat(), gateway.chat(stream=True)
    assert (first.status, second.status, second.complete) == (200, 200, True)
    assert len(upstream.requests) == 3
    assert upstream.requests[1].connection == upstream.requests[0].connection != upstream.requests[2].connection
    assert [request.body for request in upstream.requests[1:]] == [upstream.requests[1].body] * 2
    line = line_of(gateway, second.request_id)
    assert (line["outcome"], line["attempts"]) == ("ok", 2)
    assert [attempt["outcome"] for attempt in line["trail"]] == ["upstream_reset", "200"]


def test_where_retries_are_off_a_request_never_goes_out_twice(gateway: Gateway, upstream: Upstream) -> None:
    dying(upstream)
    replies = [gateway.chat(model="once-1") for _ in range(2)]
    assert [reply.status for reply in replies] == [200, 502]
    assert len(upstream.requests) == 2


def test_bytes_behind_an_answer_are_nobodys_next_answer(gateway: Gateway, upstream: Upstream) -> None:
    forged = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nforged"
    upstream.script(answer(completion(), after=forged))
    assert [gateway.chat().status for _ in range(2)] == [200, 200]
    assert b"forged" not in gateway.chat().body
    assert len({request.connection for request in upstream.requests[:2]}) == 2


@pytest.mark.parametrize("streamed", [True, False])
def test_a_client_that_reads_nothing_stops_its_upstream_and_costs_little_memory(
    gateway: Gateway, upstream: Upstream, streamed: bool
) -> None:
    upstream.script(huge(HUGE_BYTES, streamed=streamed))
    with gateway.connect(receive_buffer=64 * 1024) as connection:
        before = gateway.rss_bytes
        connection.send("POST", "/v1/chat/completions", chat_body(stream=streamed), gateway.headers())
        reply = connection.head()
        seen, taken = upstream.wait()[0], -1
        while seen.accepted != taken:
            taken = seen.accepted
            time.sleep(0.1)
        assert 0 < seen.accepted < KERNEL_BYTES
        assert gateway.rss_bytes - before < GROWTH_BYTES
        size = sum(len(piece) for piece in connection.pieces(reply))
        assert reply.complete
        assert size > HUGE_BYTES
    assert line_of(gateway, reply.request_id)["outcome"] == "ok"


def test_a_paused_client_that_leaves_is_noticed(gateway: Gateway, upstream: Upstream) -> None:
    upstream.script(huge(HUGE_BYTES))
    with gateway.connect(receive_buffer=64 * 1024) as connection:
        connection.send("POST", "/v1/chat/completions", chat_body(stream=True), gateway.headers())
        reply = connection.head()
        seen, taken = upstream.wait()[0], -1
        while seen.accepted != taken:
            taken = seen.accepted
            time.sleep(0.1)
    upstream.wait_gone(seen)
    assert line_of(gateway, reply.request_id)["outcome"] == "caller_gone"


def test_a_client_that_sends_ahead_without_end_is_not_read_without_end(gateway: Gateway, upstream: Upstream) -> None:
    upstream.script(stream(words()[:2], ending="hang"))
    with gateway.connect() as connection:
        connection.send("POST", "/v1/chat/completions", chat_body(stream=True), gateway.headers())
        reply = connection.head()
        before = gateway.rss_bytes
        connection.socket.setblocking(False)
        sent = fill(connection.socket, b"x" * 65536)
        assert sent < KERNEL_BYTES
        assert gateway.rss_bytes - before < GROWTH_BYTES
    upstream.wait_gone(upstream.requests[0])
    assert line_of(gateway, reply.request_id)["outcome"] in {"caller_gone", "upstream_timeout"}


def fill(target: socket.socket, data: bytes) -> int:
    """Send until nothing has been taken for a while; the bytes that went."""
    sent, patience = 0, 5
    while patience and sent < 4 * KERNEL_BYTES:
        try:
            sent += target.send(data)
            patience = 5
        except BlockingIOError:
            patience -= 1
            time.sleep(0.02)
    return sent


def test_a_reload_keeps_connections_and_applies_new_keys_and_models(gateway: Gateway, upstream: Upstream) -> None:
    once = provider(upstream.url, "once", models=["once-*"], retries={"attempts": 1})
    config = configuration(provider(upstream.url), once)
    changed = copy.deepcopy(config)
    changed["keys"].append({"name": "new", "key": NEW_KEY, "models": ["*"]})
    changed["models"] = [{"name": "swift", "targets": ["fake/gpt-4o"], "balance": "first"}]
    upstream.script(answer(completion()), stream(spoken(), pace_ms=40))

    def ask(on: Connection, key: str, **members: object) -> int:
        on.send("POST", "/v1/chat/completions", chat_body(**members), gateway.headers(key))
        return on.reply().status

    with gateway.connect() as kept, gateway.connect() as busy:
        assert ask(kept, APP_KEY) == 200
        assert ask(kept, APP_KEY, model="swift") == 404
        busy.send("POST", "/v1/chat/completions", chat_body(stream=True), gateway.headers())
        reply = busy.head()
        gateway.write(changed)
        assert gateway.post("/security/refresh", key=gateway.admin_key).status == 200
        assert ask(kept, NEW_KEY, model="swift") == 200
        assert upstream.last.json["model"] == "gpt-4o"
        used = {request.connection for request in upstream.requests}
        assert b"".join(busy.pieces(reply)).endswith(DONE)
        gateway.write(config)
        assert gateway.post("/security/refresh", key=gateway.admin_key).status == 200
        assert ask(kept, NEW_KEY) == 401
        assert ask(kept, APP_KEY) == 200
        assert upstream.last.connection in used


# -- TLS


class Secure:
    """A TLS server that answers every request alike and keeps what it was asked by POST; one thread a connection."""

    def __init__(self, pem: Path) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(pem)
        self._context.sni_callback = lambda _, name, __: self.names.append(name)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads: list[threading.Thread] = []
        self._open: list[socket.socket] = []
        self.names: list[str | None] = []
        self.asked: list[socket.socket] = []
        """The connection of each POST."""
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> Self:
        self._begin(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5.0)
            assert not thread.is_alive()

    def _begin(self, work: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=work, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                plain, _ = self._listener.accept()
                self._begin(self._serve, plain)

    def _serve(self, plain: socket.socket) -> None:
        plain.settimeout(5.0)
        with contextlib.suppress(OSError), self._context.wrap_socket(plain, server_side=True) as secure:
            self._open.append(secure)
            data = b""
            while piece := secure.recv(65536):
                data += piece
                head, found, body = data.partition(b"\r\n\r\n")
                length = LENGTH.search(head)
                if found and len(body) >= (int(length[1]) if length else 0):
                    if head.startswith(b"POST "):
                        self.asked.append(secure)
                    secure.sendall(TLS_ANSWER)
                    data = b""


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """(certificate with key for localhost, its authority, one for another name by the same authority)."""
    folder = tmp_path_factory.mktemp("certificates")
    authority = trustme.CA()
    files = folder / "good.pem", folder / "ca.pem", folder / "other.pem"
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(files[0]))
    authority.cert_pem.write_to_path(str(files[1]))
    authority.issue_cert("other.example").private_key_and_cert_chain_pem.write_to_path(str(files[2]))
    return files


def test_tls_upstreams_are_verified_and_kept(certificates: tuple[Path, Path, Path]) -> None:
    good, authority, other = certificates
    with Secure(good) as server, Secure(other) as wrong:

        def entry(name: str, port: int, **more: object) -> Tree:
            return provider(f"https://localhost:{port}", name, models=[f"{name}-*"], **more)

        config = configuration(
            entry("good", server.port, ca_file=str(authority)),
            entry("unknown", server.port),
            entry("wrong", wrong.port, ca_file=str(authority)),
            timeouts={"connect": "3s", "first_byte": "3s", "between_bytes": "3s", "total": "20s"},
            retries={"attempts": 1},
        )
        with Gateway(config) as gateway:
            for _ in range(3):
                reply = gateway.chat(model="good-1")
                assert (reply.status, reply.body) == (200, b"{}")
                assert line_of(gateway, reply.request_id)["upstream"] == "good"
            assert len(server.asked) == 3
            assert len(set(server.asked)) == 1
            assert set(server.names) == {"localhost"}
            for name in ("unknown", "wrong"):
                reply = gateway.chat(model=f"{name}-1")
                assert (reply.status, reply.error["code"]) == (502, "upstream_unreachable")
                assert "certificate" in str(reply.error["message"])
            assert len(server.asked) == 3
            assert wrong.asked == []
