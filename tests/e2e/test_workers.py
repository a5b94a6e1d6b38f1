"""Several workers on one port: limits and metrics are one, a dead or stuck worker is made up for, reloads reach all."""

import contextlib
import copy
import os
import re
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.behaviours import stream
from tests.support.client import Connection, Reply
from tests.support.fake_openai import spoken, words
from tests.support.gateway import ADMIN_KEY, Gateway, Tree, chat_body, configuration, provider
from tests.support.upstream import Upstream

WORKERS = 2
MANY = 64  # connections, of which the kernel's hash gives each worker some (but for a chance of 2**-63)
NEW_KEY = "agw-bench-new-c4d81f0b6e9a2375"
KEYS = {
    "fifty": [{"per": "key", "requests": 50, "period": "30d"}],
    "gate": [{"per": "key", "concurrent": 1}],
}


def key_of(name: str) -> str:
    return f"agw-bench-{name}-6a1f0d93b84c72e5"


def crew(upstream: Upstream, **server: object) -> Tree:
    """Two workers; none is ended for standing still unless ``server`` says so."""
    own = {"port": 0, "workers": WORKERS, "drain_seconds": 1, "body_seconds": 1, "heartbeat_seconds": 0, **server}
    config = configuration(provider(upstream.url), server=own)
    config["keys"] += [{"name": name, "key": key_of(name), "limits": limits} for name, limits in KEYS.items()]
    return config


@pytest.fixture(scope="module")
def shared_gateway(shared_upstream: Upstream) -> Iterator[Gateway]:
    with Gateway(crew(shared_upstream)) as running:
        yield running


def pids(gateway: Gateway) -> list[int]:
    """The newest process of each worker, by number."""
    newest = {line["worker"]: int(line["pid"]) for line in gateway.logs() if line.get("event") == "worker.ready"}
    return [newest[number] for number in range(WORKERS)]


def owner(gateway: Gateway, connection: Connection) -> int | None:
    """The process that has accepted the connection."""
    here, there = connection.socket.getsockname()[1], connection.socket.getpeername()[1]
    table = Path("/proc/net/tcp").read_text()
    found = re.search(rf":{there:04X} [0-9A-F]+:{here:04X} \d\d (?:\S+ +){{5}}(\d+) ", table)
    assert found is not None, "the kernel does not know the connection"
    for pid in pids(gateway):
        with contextlib.suppress(FileNotFoundError):
            for link in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(FileNotFoundError):
                    if str(link.readlink()) == f"socket:[{found[1]}]":
                        return pid
    return None


def owners(gateway: Gateway, count: int = 8) -> set[int | None]:
    """Who accepts so many new connections; all are answered."""
    with contextlib.ExitStack() as stack:
        fresh = [stack.enter_context(gateway.connect()) for _ in range(count)]
        assert [ask(one).status for one in fresh] == [200] * count
        return {owner(gateway, one) for one in fresh}


def ask(connection: Connection, path: str = "/health") -> Reply:
    connection.send("GET", path, headers={"authorization": f"Bearer {ADMIN_KEY}"})
    return connection.reply("GET")


@contextlib.contextmanager
def one_to_each(gateway: Gateway) -> Iterator[dict[int, Connection]]:
    """An open connection to every worker, by its process."""
    with contextlib.ExitStack() as stack:
        found: dict[int, Connection] = {}
        for _ in range(MANY):
            connection = stack.enter_context(gateway.connect())
            assert ask(connection).status == 200
            pid = owner(gateway, connection)
            assert pid is not None
            found.setdefault(pid, connection)
            if len(found) == WORKERS:
                break
        assert sorted(found) == sorted(pids(gateway))
        yield found


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def events(gateway: Gateway, name: str) -> list[Tree]:
    return [line for line in gateway.logs() if line.get("event") == name]


def alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_all_workers_serve_and_it_is_said_once(gateway: Gateway) -> None:
    with one_to_each(gateway) as connections:
        assert [ask(connection).status for connection in connections.values()] == [200] * WORKERS
        assert gateway.pid not in connections
    (ready,) = events(gateway, "server.ready")
    assert (ready["workers"], ready["pid"], ready["url"]) == (WORKERS, gateway.pid, gateway.url)


def test_a_limit_is_exact_over_all_workers(gateway: Gateway, upstream: Upstream) -> None:
    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(lambda _: gateway.chat(key=key_of("fifty")).status, range(200)))
    assert (statuses.count(200), statuses.count(429)) == (50, 150)
    assert len(upstream.requests) == 50


def test_any_worker_tells_the_metrics_of_all(gateway: Gateway) -> None:
    def total(connection: Connection, name: str, **labels: str) -> float:
        """The sum of the series with these labels, as the worker of this connection tells it."""
        text = ask(connection, "/metrics/prometheus").body.decode()
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        return sum(one.value for one in samples if one.name == name and labels.items() <= one.labels.items())

    with one_to_each(gateway) as connections:
        for number, connection in enumerate(connections.values(), start=3):
            assert [ask(connection, "/v1/models").status for _ in range(number)] == [200] * number
        told = [total(one, "agw_requests_total", endpoint="models") for one in connections.values()]
        builds = [total(one, "agw_build_info") for one in connections.values()]
    assert told == [7.0] * WORKERS
    assert builds == [1.0] * WORKERS


def test_a_killed_workers_slots_come_back_and_it_is_replaced(gateway: Gateway, upstream: Upstream) -> None:
    upstream.script(stream(words() * 1000, pace_ms=50))
    before = pids(gateway)
    with gateway.connect() as connection:
        connection.send("POST", "/v1/chat/completions", chat_body(stream=True), gateway.headers(key_of("gate")))
        reply = connection.head()
        assert gateway.chat(key=key_of("gate")).status == 429
        victim = owner(gateway, connection)
        assert victim in before
        os.kill(victim, signal.SIGKILL)
        assert [gateway.chat().status for _ in range(20)] == [200] * 20
        with contextlib.suppress(ConnectionError):
            reply.body = b"".join(connection.pieces(reply))
    assert not reply.complete
    gateway.until(lambda: victim not in pids(gateway), "the worker was not replaced")
    assert len(set(pids(gateway)) & set(before)) == 1
    ended = events(gateway, "worker.ended")[-1]
    assert (ended["pid"], ended["how"], ended["slots_reclaimed"]) == (victim, "signal 9", 1)
    gateway.until(lambda: gateway.chat(key=key_of("gate")).status == 200, "the slot was not given back")
    with one_to_each(gateway) as connections:
        assert len(connections) == WORKERS


def test_a_sibling_accepts_for_a_worker_that_stands_still(gateway: Gateway) -> None:
    count = len(events(gateway, "worker.relieved"))
    with one_to_each(gateway) as connections:
        stuck, other = connections
        with stopped(stuck):
            assert owners(gateway, 20) == {other}
        gateway.until(lambda: len(events(gateway, "worker.relieved")) > count, "the log does not tell")
        assert ask(connections[stuck]).status == 200
        assert set(connections) == set(pids(gateway))
    gateway.until(lambda: owners(gateway) == set(pids(gateway)), "the worker did not accept again")


def test_a_worker_that_stands_still_for_too_long_is_replaced(upstream: Upstream) -> None:
    with Gateway(crew(upstream, heartbeat_seconds="500ms")) as gateway:
        stuck = pids(gateway)[0]
        with stopped(stuck):
            gateway.until(lambda: stuck not in pids(gateway), "the worker was not replaced")
        assert "heartbeat_seconds" in str(events(gateway, "worker.killed")[0]["reason"])
        with one_to_each(gateway) as connections:
            assert stuck not in connections
        assert gateway.stop() == 0


@pytest.fixture
def reloading(gateway: Gateway, upstream: Upstream) -> Iterator[Gateway]:
    """The gateway; its first configuration is in force again afterwards."""
    yield gateway
    gateway.write(crew(upstream))
    assert gateway.post("/security/refresh", key=ADMIN_KEY).status == 200


def with_new_key(config: Tree) -> Tree:
    changed = copy.deepcopy(config)
    changed["keys"].append({"name": "new", "key": NEW_KEY, "models": ["*"]})
    return changed


def status_of(connection: Connection, key: str) -> int:
    connection.send("GET", "/v1/models", headers={"authorization": f"Bearer {key}"})
    return connection.reply("GET").status


@pytest.mark.parametrize("path", ["/security/refresh", "/upstreams/refresh"])
def test_a_refresh_answers_when_all_workers_have_swapped(reloading: Gateway, upstream: Upstream, path: str) -> None:
    with one_to_each(reloading) as connections:
        assert [status_of(one, NEW_KEY) for one in connections.values()] == [401] * WORKERS
        reloading.write(with_new_key(crew(upstream)))
        refreshed = reloading.post(path, key=ADMIN_KEY)
        assert refreshed.status == 200
        assert [status_of(one, NEW_KEY) for one in connections.values()] == [200] * WORKERS
        told = [ask(one, "/metrics").json["configuration"] for one in connections.values()]
    assert [one["version"] for one in told if isinstance(one, dict)] == [refreshed.json["version"]] * WORKERS


def test_sighup_reloads_all_workers_and_a_replacement_starts_with_the_newest(
    reloading: Gateway, upstream: Upstream
) -> None:
    reloading.write(with_new_key(crew(upstream)))
    reloading.process.send_signal(signal.SIGHUP)
    with one_to_each(reloading) as connections:

        def everywhere() -> bool:
            return {status_of(one, NEW_KEY) for one in connections.values()} == {200}

        reloading.until(everywhere, "the new key was not taken up")
    reloading.file.write_text("serverr: {}\n")
    victim = pids(reloading)[1]
    os.kill(victim, signal.SIGKILL)
    reloading.until(lambda: victim not in pids(reloading), "the worker was not replaced")
    with one_to_each(reloading) as connections:
        assert [status_of(one, NEW_KEY) for one in connections.values()] == [200] * WORKERS


def test_a_bad_file_changes_nothing_anywhere_and_says_why(reloading: Gateway) -> None:
    reloading.file.write_text("serverr: {port: 1}\n")
    refused = reloading.post("/security/refresh", key=ADMIN_KEY)
    assert refused.status == 409
    assert refused.error["code"] == "reload_failed"
    assert "serverr" in str(refused.error["message"])
    with one_to_each(reloading) as connections:
        assert [status_of(one, ADMIN_KEY) for one in connections.values()] == [200] * WORKERS


def test_a_refresh_names_the_worker_that_does_not_swap(reloading: Gateway, upstream: Upstream) -> None:
    with one_to_each(reloading) as connections:
        stuck, other = connections
        number = pids(reloading).index(stuck)
        reloading.write(with_new_key(crew(upstream)))
        with stopped(stuck):
            connections[other].send("POST", "/security/refresh", headers={"authorization": f"Bearer {ADMIN_KEY}"})
            refused = connections[other].reply()
            assert status_of(connections[other], NEW_KEY) == 200
        assert refused.status == 409
        assert f"worker {number} (pid {stuck})" in str(refused.error["message"])
        assert f"worker {1 - number} " not in str(refused.error["message"])
        reloading.until(lambda: status_of(connections[stuck], NEW_KEY) == 200, "it never caught up")


def open_stream(gateway: Gateway, upstream: Upstream) -> Connection:
    connection = gateway.connect()
    connection.send("POST", "/v1/chat/completions", chat_body(stream=True), gateway.headers())
    upstream.wait()
    return connection


def refuses(gateway: Gateway) -> bool:
    try:
        gateway.connect().close()
    except (ConnectionRefusedError, ConnectionResetError):
        return True
    return False


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_drains_every_worker_and_the_exit_status_is_0(upstream: Upstream, sig: signal.Signals) -> None:
    upstream.script(stream(spoken(), pace_ms=60))
    with Gateway(crew(upstream)) as gateway:
        workers = pids(gateway)
        with open_stream(gateway, upstream) as connection:
            reply = connection.head()
            gateway.process.send_signal(sig)
            gateway.until(lambda: refuses(gateway), "new connections were still accepted")
            reply.body = b"".join(connection.pieces(reply))
        assert (reply.complete, reply.body) == (True, b"".join(spoken()))
        assert gateway.wait() == 0
        assert not any(map(alive, workers))
        assert "Traceback" not in gateway.output
        assert not events(gateway, "worker.ended")


def test_a_second_sigterm_does_not_wait(upstream: Upstream) -> None:
    upstream.script(stream(words() * 10000, pace_ms=50))
    with Gateway(crew(upstream, drain_seconds=3600)) as gateway, open_stream(gateway, upstream) as connection:
        connection.head()
        gateway.process.send_signal(signal.SIGTERM)
        gateway.until(lambda: refuses(gateway), "the drain did not begin")
        gateway.process.send_signal(signal.SIGTERM)
        assert gateway.wait() == 0


def test_no_worker_outlives_its_supervisor(upstream: Upstream) -> None:
    with Gateway(crew(upstream)) as gateway:
        workers = pids(gateway)
        gateway.process.kill()
        gateway.wait()
        gateway.until(lambda: not any(map(alive, workers)), "a worker was left behind")


def test_a_port_that_is_taken_is_refused(gateway: Gateway, upstream: Upstream) -> None:
    second = Gateway(crew(upstream, port=urlsplit(gateway.url).port))
    try:
        second.launch()
        assert second.wait() == 1
        assert "agw cannot listen on 127.0.0.1:" in second.output
        assert "Traceback" not in second.output
    finally:
        second.__exit__()


def test_what_a_worker_cannot_start_with_is_said_by_the_whole(upstream: Upstream, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    second = Gateway(crew(upstream) | {"log": {"file": str(tmp_path / "file" / "log")}})
    try:
        second.launch()
        assert second.wait() == 1
        assert "agw cannot start: " in second.output
        assert "Traceback" not in second.output
    finally:
        second.__exit__()


def test_a_generated_key_and_a_log_file_are_shared(tmp_path: Path) -> None:
    file = tmp_path / "log" / "agw.log"
    env = {"GATEWAY_SERVER__PORT": "0", "GATEWAY_LOG__FILE": str(file), "GATEWAY_LOG__FORMAT": "json"}
    gateway = Gateway(None, env=env, args=["--workers", str(WORKERS)])
    try:
        gateway.launch()
        printed = re.compile(r"export OPENAI_BASE_URL=(\S+)/v1\nexport OPENAI_API_KEY=(\S+)\n")
        ((gateway.url, key),) = gateway.until(lambda: printed.findall(gateway.output), "no key was printed", 20.0)
        replies = [gateway.chat(key=key, model="agw/echo") for _ in range(MANY)]
        assert [reply.status for reply in replies] == [200] * MANY
        assert gateway.stop() == 0
    finally:
        gateway.__exit__()
    text = file.read_text()
    assert all(line.startswith("{") and line.endswith("}") for line in text.splitlines())
    assert all(text.count(reply.request_id) == 1 for reply in replies)


def test_a_unix_socket_and_an_admin_port_work_with_workers(upstream: Upstream, tmp_path: Path) -> None:
    path = tmp_path / "agw.sock"
    with Gateway(crew(upstream, host=f"unix:{path}", admin_port=0)) as gateway:
        victim = pids(gateway)[0]
        os.kill(victim, signal.SIGKILL)
        gateway.until(lambda: victim not in pids(gateway), "the worker was not replaced")
        assert path.is_socket()
        assert gateway.stop() == 0
    assert not path.exists()


def test_a_reload_changes_the_bounds_of_all_workers_and_says_what_it_cannot_change(upstream: Upstream) -> None:
    config = crew(upstream)
    with Gateway(config) as gateway:

        def told() -> set[bool]:
            return {"upstreams" in gateway.get("/health/ready?verbose", key=None).json for _ in range(24)}

        assert told() == {False}
        config["server"] |= {"readiness": "open", "max_body_mb": 7}
        gateway.write(config)
        assert gateway.post("/security/refresh", key=ADMIN_KEY).status == 200
        assert told() == {True}
        (line,) = [line for line in gateway.logs() if line.get("event") == "config.needs_restart"]
        assert line["settings"] == ["server.max_body_mb"]
