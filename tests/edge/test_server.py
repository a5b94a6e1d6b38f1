"""Sockets and connections: where the gateway listens, whom it turns away, and how it ends."""

import asyncio
import os
import signal
import socket
import stat
from pathlib import Path

import orjson
import pytest

from agw_proxy.edge.server import FULL_BODY, clear_socket_file
from tests.edge.inprocess import Running, free_port, serving
from tests.support.behaviours import stream
from tests.support.client import Connection, Reply, bearer, request
from tests.support.fake_openai import spoken, words
from tests.support.gateway import ADMIN_KEY, APP_KEY, Tree, chat_body
from tests.support.upstream import Upstream

pytestmark = pytest.mark.both_loops


async def over_unix(path: Path, target: str) -> bytes:
    """The whole answer to a GET on a Unix socket."""
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(
        f"GET {target} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {APP_KEY}\r\nConnection: close\r\n\r\n".encode()
    )
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


def open_stream(running: Running) -> tuple[Connection, Reply]:
    """A connection on which a streamed answer is under way."""
    connection = running.connect()
    connection.send("POST", "/v1/chat/completions", chat_body(stream=True), bearer(APP_KEY))
    return connection, connection.head()


async def test_a_unix_socket_is_its_owners_and_gone_afterwards(config: Tree, tmp_path: Path) -> None:
    path = tmp_path / "agw.sock"
    config["server"]["host"] = f"unix:{path}"
    async with serving(config, tmp_path) as running:
        assert running.url == f"unix:{path}"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert (await over_unix(path, "/v1/models")).startswith(b"HTTP/1.1 200 OK\r\n")
        assert running.receipts()[0]["status"] == 200
    assert not path.exists()


async def test_the_socket_file_of_a_process_that_is_gone_is_replaced(config: Tree, tmp_path: Path) -> None:
    path = tmp_path / "agw.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    config["server"]["host"] = f"unix:{path}"
    async with serving(config, tmp_path):
        assert (await over_unix(path, "/health")).startswith(b"HTTP/1.1 200 OK\r\n")


async def test_a_living_socket_and_any_other_file_stay(tmp_path: Path) -> None:
    path = tmp_path / "agw.sock"
    with socket.socket(socket.AF_UNIX) as living:
        living.bind(str(path))
        living.listen()
        with pytest.raises(OSError, match="another process listens"):
            clear_socket_file(path)
    file = tmp_path / "notes"
    file.write_text("mine")
    with pytest.raises(OSError, match="no socket"):
        clear_socket_file(file)
    assert path.exists()
    assert file.read_text() == "mine"
    clear_socket_file(tmp_path / "nothing")


async def test_a_port_that_is_taken_is_told_at_once(config: Tree, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        config["server"]["port"] = taken.getsockname()[1]
        with pytest.raises(OSError):
            async with serving(config, tmp_path):
                raise AssertionError


async def test_the_admin_port_has_the_admin_endpoints_alone(config: Tree, tmp_path: Path) -> None:
    port = free_port()
    config["server"]["admin_port"] = port
    admin = f"http://127.0.0.1:{port}"
    async with serving(config, tmp_path) as running:
        found = {
            (where, path): (await asyncio.to_thread(request, url, "GET", path, None, bearer(ADMIN_KEY))).status
            for where, url in (("main", running.url), ("admin", admin))
            for path in ("/upstreams", "/metrics/prometheus", "/v1/models", "/health")
        }
        assert (await asyncio.to_thread(request, admin, "GET", "/upstreams", None, bearer(APP_KEY))).status == 403
    assert found == {
        ("main", "/upstreams"): 404,
        ("main", "/metrics/prometheus"): 404,
        ("main", "/v1/models"): 200,
        ("main", "/health"): 200,
        ("admin", "/upstreams"): 200,
        ("admin", "/metrics/prometheus"): 200,
        ("admin", "/v1/models"): 404,
        ("admin", "/health"): 200,
    }
    with pytest.raises(ConnectionRefusedError):
        Connection(admin)


@pytest.mark.parametrize(
    "bad",
    [
        b"nonsense\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost : x\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: +2\r\n\r\n{}",
        b"GET /health HTTP/1.1\r\nHost: x\r\nx: a\x00b\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    ],
    ids=["line", "field", "space", "two-hosts", "two-framings", "signed-length", "nul", "tls"],
)
async def test_bad_http_is_400_in_json_with_one_receipt_and_the_end(
    config: Tree, upstream: Upstream, bad: bytes, tmp_path: Path
) -> None:
    async with serving(config, tmp_path) as running:
        answered = await running.raw(bad)
        line = await running.receipt()
    head, _, body = answered.partition(b"\r\n\r\n")
    assert head.split(b" ", 2)[1] == b"400"
    assert orjson.loads(body)["error"]["code"] == "invalid_http"
    assert f"x-request-id: {line['request_id']}".encode() in head
    assert line["outcome"] == "caller_invalid_http"
    assert upstream.requests == []


@pytest.mark.parametrize("host", ["x/y", "x:99999999", "a b", "x?y", "[::1", "user@x"])
async def test_a_host_that_is_none_is_400(config: Tree, host: str, tmp_path: Path) -> None:
    async with serving(config, tmp_path) as running:
        reply = await running.send(f"GET /health HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        line = await running.receipt()
    assert (reply.status, reply.error["code"]) == (400, "invalid_http")
    assert (line["status"], line["outcome"]) == (400, "caller_invalid_http")


async def test_bad_http_behind_a_good_request_costs_nothing_before_it(config: Tree, tmp_path: Path) -> None:
    async with serving(config, tmp_path) as running:
        answers = await running.raw(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n", more=b"nonsense\r\n\r\n")
        await running.receipt(2)
        assert [line["status"] for line in running.receipts()] == [200, 400]
    assert answers.count(b"\r\nServer: agw\r\n") == 2


@pytest.mark.parametrize(
    ("target", "fields"),
    [
        ("/" + "x" * 5000, ["y"]),
        ("/health", ["y" * 5000]),
        ("/health", ["y" * 900] * 6),
    ],
    ids=["line", "field", "fields"],
)
async def test_a_head_over_its_bound_is_431(config: Tree, target: str, fields: list[str], tmp_path: Path) -> None:
    config["server"]["max_header_kb"] = 4
    lines = [f"GET {target} HTTP/1.1", "Host: x", *(f"x{number}: {text}" for number, text in enumerate(fields)), "", ""]
    async with serving(config, tmp_path) as running:
        reply = await running.send("\r\n".join(lines).encode())
        assert (reply.status, reply.value("x-agw-error")) == (431, "caller_head_too_large")
        assert (await running.receipt())["status"] == 431


async def test_a_connection_over_the_bound_is_turned_away_with_503(config: Tree, tmp_path: Path) -> None:
    config["server"]["max_connections"] = 2
    async with serving(config, tmp_path) as running:

        def crowd() -> tuple[Reply, int]:
            with running.connect() as first, running.connect() as second:
                for connection in (first, second):
                    connection.send("GET", "/health")
                    assert connection.reply("GET").status == 200
                with running.connect() as third:
                    refused = third.reply("GET")
                first.send("GET", "/health")
                return refused, first.reply("GET").status

        refused, kept = await asyncio.to_thread(crowd)
        assert (refused.status, refused.value("retry-after"), refused.body, kept) == (503, "1", FULL_BODY, 200)
        assert orjson.loads(refused.body)["error"]["code"] == "gateway_overloaded"
        await running.until(lambda: running.gateway.metrics_tree()["agw_connections"] == [{"labels": {}, "value": 0}])
        assert (await running.ask("GET", "/health", key=None)).status == 200
        dropped = running.gateway.metrics_tree()["agw_dropped_total"]
        assert dropped == [{"labels": {"what": "connection"}, "value": 1}]


async def test_an_idle_connection_is_closed_in_time(config: Tree, tmp_path: Path) -> None:
    config["server"]["keepalive_seconds"] = 0.1
    async with serving(config, tmp_path) as running:

        def wait() -> bytes:
            with running.connect() as connection:
                connection.send("GET", "/health")
                assert connection.reply("GET").status == 200
                return connection.socket.recv(1)

        assert await asyncio.to_thread(wait) == b""


async def test_who_takes_nothing_of_the_gateways_own_answers_is_cut_off(config: Tree, tmp_path: Path) -> None:
    path = tmp_path / "agw.sock"
    config["server"] |= {"host": f"unix:{path}", "write_seconds": "200ms"}
    async with serving(config, tmp_path) as running:
        (edge,) = running.gateway._edges
        _, writer = await asyncio.open_unix_connection(str(path), limit=1)  # without a key: anybody could do so
        (downstream,) = await running.until(lambda: edge.lane.connections)
        downstream.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        writer.write(b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n" * 1000)
        await running.until(lambda: not edge.lane.connections)
        assert 0 < len(running.receipts()) < 1000
        writer.close()


async def test_a_drain_lets_what_runs_finish_and_serves_nothing_new(
    config: Tree, upstream: Upstream, tmp_path: Path
) -> None:
    upstream.script(stream(spoken(), pace_ms=40))
    async with serving(config, tmp_path) as running:

        def finish() -> Reply:
            connection, reply = open_stream(running)
            with connection:
                os.kill(os.getpid(), signal.SIGTERM)
                reply.body = b"".join(connection.pieces(reply))
            return reply

        reply = await asyncio.to_thread(finish)
        with pytest.raises(ConnectionRefusedError):
            running.connect()
        await asyncio.wait_for(running.task, 5)
        assert (await running.receipt())["outcome"] == "ok"
        assert running.log.trees("server.stopped")[0]["ended_early"] == 0
    assert (reply.complete, reply.body) == (True, b"".join(spoken()))


def rest(connection: Connection) -> bytes:
    """All that still comes."""
    taken = b""
    while piece := connection._some():
        taken += piece
    return taken


async def test_a_second_signal_ends_what_runs_with_an_error_event(
    config: Tree, upstream: Upstream, tmp_path: Path
) -> None:
    config["server"]["drain_seconds"] = 3600
    upstream.script(stream(words() * 10000, pace_ms=20))
    async with serving(config, tmp_path) as running:

        def hurry() -> Reply:
            connection, reply = open_stream(running)
            with connection:
                os.kill(os.getpid(), signal.SIGTERM)
                for piece in connection.pieces(reply):
                    reply.body += piece
                    if running.log.trees("server.draining"):  # two signals at once would be one
                        break
                os.kill(os.getpid(), signal.SIGTERM)
                connection.socket.settimeout(5)
                reply.body += rest(connection)
            return reply

        reply = await asyncio.to_thread(hurry)
        await asyncio.wait_for(running.task, 5)
        assert (await running.receipt())["outcome"] == "gateway_draining"
        assert running.log.trees("server.stopped")[0]["ended_early"] == 1
    assert not reply.body.endswith(b"\r\n0\r\n\r\n")
    assert b"event: error\n" in reply.body
    assert b"[DONE]" not in reply.body
