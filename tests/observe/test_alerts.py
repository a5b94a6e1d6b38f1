"""Alerts of budgets: told once a window, sent in order, given up after three attempts, never in the way."""

import asyncio
import contextlib
import http.server
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from agw_proxy._hot.limit import CALENDAR, COST, HOUR, MONTH, PER_KEY, Grant, Limits, Rule, Table
from agw_proxy._hot.route import Globs
from agw_proxy.config.allowances import Alerts as Settings
from agw_proxy.observe import alerts as module
from agw_proxy.observe.alerts import Alerts, post
from agw_proxy.types import Principal

RULE = Rule("keys.a/budget", PER_KEY, COST, 1000, algorithm=CALENDAR, calendar=MONTH, marks=(0.5, 1.0))
LIMITS_SECONDS = 10


class Listener(http.server.ThreadingHTTPServer):
    """Answers with the statuses given, then 200."""

    def __init__(self, *statuses: int) -> None:
        super().__init__(("127.0.0.1", 0), Answering)
        self.statuses = list(statuses)
        self.bodies: list[dict[str, Any]] = []
        self.url = f"http://127.0.0.1:{self.server_port}/hook"


class Answering(http.server.BaseHTTPRequestHandler):
    server: Listener

    def do_POST(self) -> None:
        self.server.bodies.append(orjson.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(self.server.statuses.pop(0) if self.server.statuses else 200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def listener(request: pytest.FixtureRequest) -> Iterator[Listener]:
    with Listener(*getattr(request, "param", ())) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def limits() -> Limits:
    return Limits(Table(), [RULE])


def principal(limits: Limits) -> Principal:
    return Principal("a", 1, Globs(("*",)), Globs(("*",)), admin=False, limits=limits, team="red")


def spend(limits: Limits, cost: int, reserved: int = 0) -> Grant:
    grant = limits.admit(1, key=1, cost=max(cost, reserved))
    grant.settle(0, 0, cost, 1)
    return grant


def made(said: list[dict[str, Any]], dropped: list[str], webhook: str | None = None) -> Alerts:
    def say(event: str, **fields: object) -> None:
        said.append({"event": event, **fields})

    return Alerts(Settings(webhook=webhook), say, dropped.append)


def test_a_mark_is_told_once_and_what_was_only_reserved_is_not(limits: Limits) -> None:
    said: list[dict[str, Any]] = []
    alerts = made(said, [])
    for cost, reserved in ((100, 900), (100, 0), (350, 0), (100, 0), (100, 300)):
        alerts.crossed(spend(limits, cost, reserved), principal(limits), "ann")
    assert [(line["event"], line["share"], line["used_usd"]) for line in said] == [("budget.alert", 0.5, 0.00055)]
    assert (said[0]["key"], said[0]["team"], said[0]["user"], said[0]["usd"]) == ("a", "red", "ann", 0.001)
    alerts.crossed(limits.admit(1, key=1, cost=900), principal(limits), None)
    assert [line["share"] for line in said] == [0.5, 1.0]


def test_a_request_that_never_fits_does_not_bring_a_budget_to_its_end(limits: Limits) -> None:
    said: list[dict[str, Any]] = []
    alerts = made(said, [])
    spend(limits, 100)
    alerts.crossed(limits.admit(1, key=1, cost=1001), principal(limits), None)
    assert said == []
    alerts.crossed(spend(limits, 450), principal(limits), None)
    assert [(line["share"], line["used_usd"]) for line in said] == [(0.5, 0.00055)]


def test_a_budget_is_not_at_its_end_where_another_rule_refuses() -> None:
    hourly = Rule("keys.a/hourly", PER_KEY, COST, 500, algorithm=CALENDAR, calendar=HOUR)
    limits = Limits(Table(), [RULE, hourly])
    said: list[dict[str, Any]] = []
    alerts = made(said, [])
    alerts.crossed(limits.admit(1, key=1, cost=600), principal(limits), None)
    assert said == []


def test_of_a_shared_budget_all_that_is_left_counts() -> None:
    rule = Rule("keys.a/budget", PER_KEY, COST, 1000, algorithm=CALENDAR, calendar=MONTH, marks=(0.5,), leased=True)
    limits = Limits(Table(), [rule])
    ((_, tag, _),) = limits.admit(1, key=1, cost=600).short
    assert limits.table.lend(tag, 600, 10**17, 1, 400)
    said: list[dict[str, Any]] = []
    alerts = made(said, [])
    alerts.crossed(spend(limits, 100, 600), principal(limits), None)
    assert said == [], "it was only reserved"
    alerts.crossed(spend(limits, 450), principal(limits), None)
    assert [(line["share"], line["used_usd"]) for line in said] == [(0.5, 0.00055)]


async def delivered(alerts: Alerts) -> None:
    async with asyncio.timeout(LIMITS_SECONDS):
        while alerts._task is not None and not alerts._task.done():
            await asyncio.wait({alerts._task})


@pytest.mark.parametrize("listener", [(500, 302)], indirect=True)
async def test_a_listener_gets_it_at_last(listener: Listener, limits: Limits, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0.0)
    said: list[dict[str, Any]] = []
    dropped: list[str] = []
    alerts = made(said, dropped, listener.url)
    alerts.crossed(spend(limits, 600), principal(limits), None)
    await delivered(alerts)
    assert [body["event"] for body in listener.bodies] == ["budget.alert"] * 3
    assert "time" in listener.bodies[0]
    assert dropped == []
    await alerts.close()


@pytest.mark.parametrize("listener", [(500, 500, 500)], indirect=True)
async def test_one_that_never_takes_it_costs_the_alert(
    listener: Listener, limits: Limits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0.0)
    said: list[dict[str, Any]] = []
    dropped: list[str] = []
    alerts = made(said, dropped, listener.url)
    alerts.crossed(spend(limits, 600), principal(limits), None)
    await delivered(alerts)
    assert len(listener.bodies) == 3
    assert dropped == ["alert"]
    assert (said[-1]["event"], said[-1]["error"]) == ("alert.not_sent", "status 500")


@pytest.mark.parametrize(
    ("pieces", "said"),
    [
        ([b"HTTP/1.1 200 OK\r\n"] + [b"x-more: 1\r\n"] * 40, None),
        ([b"HTTP/1.1 100 Continue\r\nx-a: b\r\n\r\n", b"HTTP/1.1 503 No\r\n"], "status 503"),
        ([b"HTTP/1.1 "] + [b"2"] * 40, "TimeoutError"),
        ([b"\0" * 20000], "TimeoutError"),
        ([], "ConnectionResetError"),
    ],
)
def test_a_listener_that_answers_by_bits_is_not_waited_for_beyond_the_bound(
    pieces: list[bytes], said: str | None
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def listen() -> None:
            connection, _ = server.accept()
            with connection, contextlib.suppress(OSError):
                connection.recv(65536)
                for piece in pieces:
                    connection.sendall(piece)
                    time.sleep(0.05)

        thread = threading.Thread(target=listen)
        thread.start()
        begun = time.monotonic()
        assert post(Settings(webhook=f"http://127.0.0.1:{server.getsockname()[1]}/"), b"{}", 0.5) == said
        assert time.monotonic() - begun < 1.5
        thread.join()


def test_nobody_there_is_said_by_its_class() -> None:
    assert post(Settings(webhook="http://127.0.0.1:1/"), b"{}") == "ConnectionRefusedError"
    assert post(Settings(webhook="https://127.0.0.1:1/"), b"{}") == "ConnectionRefusedError"
