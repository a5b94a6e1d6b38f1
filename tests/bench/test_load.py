"""The load generator against the mock upstream: what one sent is what the other counted. No time is judged."""

import json
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from bench.load.build import program
from bench.proxies import request

Tree = dict[str, Any]
MEASURE_MS = 300


class Upstream:
    """The mock upstream as a process of its own."""

    def __init__(self, *argv: str) -> None:
        self.process = subprocess.Popen([program("upstream"), *argv], stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline().split()[1])

    def stop(self) -> Tree:
        """End it; give what it has served."""
        self.process.send_signal(signal.SIGTERM)
        out, _ = self.process.communicate(timeout=10)
        tree: Tree = json.loads(out)
        return tree


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    running = Upstream("--pace-us", "5000", "--events", "10")
    yield running
    running.process.kill()
    running.process.communicate()


def load(folder: Path, port: int, *, stream: bool = False, **options: int) -> Tree:
    file = folder / "request"
    file.write_bytes(request.build(port, "m", "k", {}, stream=stream))
    argv = [str(program("load")), "--port", str(port), "--request", str(file), "--measure-ms", str(MEASURE_MS)]
    for name, value in {"warmup-ms": 0, **options}.items():
        argv += [f"--{name.replace('_', '-')}", str(value)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=True)
    start, end, figures = done.stdout.splitlines()
    assert (start, end) == ("start", "end")
    tree: Tree = json.loads(figures)
    return tree


def errors(found: Tree) -> Tree:
    return {kind: count for kind, count in found["errors"].items() if count}


def test_answers_add_up(tmp_path: Path, upstream: Upstream) -> None:
    found = load(tmp_path, upstream.port, connections=8, least_bytes=400)
    served = upstream.stop()
    assert errors(found) == {}
    assert found["requests"] > 0
    assert found["latency"]["count"] == found["requests"]
    # What was under way when the time was over was served and not counted: at most one a connection.
    assert found["requests"] <= served["requests"] <= found["requests"] + 8
    assert (served["streams"], served["refused"]) == (0, 0)
    shares = [found["latency"][share] for share in ("min", "p50", "p90", "p99", "p999", "max")]
    assert shares == sorted(shares)


def test_requests_at_fixed_times_are_as_many_as_were_due(tmp_path: Path, upstream: Upstream) -> None:
    found = load(tmp_path, upstream.port, connections=4, rate=1000)
    served = upstream.stop()
    assert errors(found) == {}
    assert 0 < found["requests"] <= served["requests"] <= found["requests"] + 4
    assert served["requests"] <= 1000 * found["seconds"] + 1


def test_streams_add_up_event_by_event(tmp_path: Path, upstream: Upstream) -> None:
    found = load(tmp_path, upstream.port, stream=True, connections=6, events=10)
    served = upstream.stop()
    assert errors(found) == {}
    assert (found["missing"], found["requests"]) == (0, found["streams"])
    assert 6 <= found["streams"] <= served["finished"]
    assert 0 <= served["streams"] - served["finished"] - served["cancelled"] <= 6  # cut by the stop itself
    assert 10 * found["streams"] <= found["events"] <= served["events"]
    assert found["ttft"]["count"] + found["gap"]["count"] == found["delay"]["count"] == found["events"]


def test_the_pace_can_be_changed_and_an_unpaced_stream_is_whole(tmp_path: Path, upstream: Upstream) -> None:
    connection = HTTPConnection("127.0.0.1", upstream.port, timeout=10)
    connection.request("GET", "/control/0/50")
    assert connection.getresponse().read() == b"{}"
    connection.close()
    found = load(tmp_path, upstream.port, stream=True, connections=3, events=50)
    assert errors(found) == {}
    assert found["missing"] == 0
    assert found["events"] >= 50 * found["streams"] > 0


def test_usage_comes_only_where_it_is_asked_for(upstream: Upstream) -> None:
    texts = []
    for options in ({}, {"stream_options": {"include_usage": True}}):
        connection = HTTPConnection("127.0.0.1", upstream.port, timeout=10)
        connection.request("POST", request.PATH, json.dumps({"model": "m", "stream": True, **options}))
        texts.append(connection.getresponse().read())
        connection.close()
    assert [text.count(b'"usage"') for text in texts] == [0, 1]
    assert all(text.endswith(b"data: [DONE]\n\n") and text.count(b"@") == 10 for text in texts)


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def event(sequence: int) -> bytes:
    return chunk(b'data: {"choices":[{"delta":{"content":"@%019d.%06d "}}]}\n\n' % (1, sequence))


END = chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "stream", "kind"),
    [
        (b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", False, "status"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", False, "short"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{}", False, "cut"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", False, "malformed"),
        (CHUNKED + b"zz\r\n", False, "malformed"),
        (CHUNKED + event(0) + b"0\r\n\r\n", True, "no_end"),
        (CHUNKED + event(0), True, "cut"),
        (CHUNKED + event(0) + event(1) + END[:-5], True, "cut"),
    ],
)
def test_a_bad_answer_is_an_error_of_its_kind(tmp_path: Path, answer: bytes, stream: bool, kind: str) -> None:
    with Scripted(answer) as port:
        found = load(tmp_path, port, stream=stream, least_bytes=400, events=2 if stream else 0)
    assert errors(found).keys() == {kind}
    assert found["requests"] == 0


def test_an_event_that_is_not_there_is_missed(tmp_path: Path) -> None:
    whole = CHUNKED + event(0) + event(2) + END
    with Scripted(whole) as port:
        found = load(tmp_path, port, stream=True, events=4)
    assert errors(found) == {}
    assert found["missing"] == 2 * found["streams"] > 0


class Scripted:
    """``with Scripted(answer) as port``: gives each connection the same bytes after its first request, and closes it."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> int:
        self._thread.start()
        port: int = self._listener.getsockname()[1]
        return port

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                connection.recv(65536)
                connection.sendall(self._answer)
