"""Usage by key, model and day: the same by either lane, of all workers, over kills and restarts."""

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.behaviours import answer, failure, stream
from tests.support.fake_openai import completion, spoken, words
from tests.support.gateway import ADMIN_KEY, APP_KEY, Gateway, Tree, chat_body, configuration, provider
from tests.support.upstream import Upstream

DEV_KEY = "agw-usage-dev-5b0d8e27c1f94a36"
COUNTED_KEY = "agw-usage-counted-5b0d8e27c1f94a36"
PRICES = [
    {"model": "gpt-4o-mini", "input": 1, "cached": "0.5", "output": 2, "request": "0.001"},
    {"model": "painter", "image": "0.04"},
    {"model": "sketcher", "image": "0.01"},
]


def settings(upstream: Upstream, **server: object) -> Tree:
    own = {"port": 0, "drain_seconds": 1, "body_seconds": 1, "heartbeat_seconds": 0, **server}
    config = configuration(
        provider(upstream.url, models=["gpt-4o-mini", "painter", "sketcher"]),
        server=own,
        prices=PRICES,
        teams=[{"name": "red"}],
    )
    window = {"period": "24h", "algorithm": "sliding_window"}
    amounts = [{unit: 1_000_000, **window} for unit in ("input_tokens", "output_tokens")]
    config["keys"].append({"name": "dev", "key": DEV_KEY, "team": "red"})
    config["keys"].append({"name": "counted", "key": COUNTED_KEY, "limits": amounts})
    config["retries"] = {"attempts": 1}
    config["models"] = [{"name": "art", "targets": ["fake/painter"], "fallbacks": ["fake/sketcher"]}]
    return config


@pytest.fixture(params=[("auto", 1), ("full", 1), ("auto", 2)], ids=["fast", "full", "two workers"])
def running(request: pytest.FixtureRequest, upstream: Upstream) -> Iterator[Gateway]:
    lane, workers = request.param
    with Gateway(settings(upstream, lane=lane, workers=workers)) as gateway:
        yield gateway


def usage(gateway: Gateway, query: str = "", *, key: str = ADMIN_KEY) -> dict[str, Any]:
    reply = gateway.get(f"/usage?{query}", key=key)
    assert reply.status == 200, reply.body
    tree = reply.json
    assert isinstance(tree, dict)
    assert tree["trouble"] is None
    return tree


def rows(gateway: Gateway, query: str = "group=key,model,upstream") -> list[tuple[object, ...]]:
    members = ("key", "model", "upstream", "requests", "errors", "input_tokens", "output_tokens", "cost_micro_usd")
    return [tuple(row[name] for name in members) for row in usage(gateway, query)["data"]]


def ask(gateway: Gateway, upstream: Upstream) -> None:
    """Three good exchanges of two keys, one of them streamed, and one that fails."""
    upstream.script(answer(completion()), stream(spoken(usage=True)), failure(400), answer(completion()))
    assert gateway.chat().status == 200
    assert gateway.chat(stream=True).status == 200
    assert gateway.chat().status == 400
    assert gateway.chat(key=DEV_KEY).status == 200


def test_all_that_keys_use_is_counted_and_kept(running: Gateway, upstream: Upstream) -> None:
    told = completion()["usage"]
    assert isinstance(told, dict)
    read, written = told["prompt_tokens"], told["completion_tokens"]
    cost = 1000 + read + 2 * written
    expected = [
        ("app", "gpt-4o-mini", "fake", 3, 1, 2 * read, 2 * written, 2 * cost),
        ("dev", "gpt-4o-mini", "fake", 1, 0, read, written, cost),
    ]
    ask(running, upstream)
    running.until(lambda: rows(running) == expected, "usage is not what was used")
    own = usage(running, "group=key", key=APP_KEY)
    assert [row["key"] for row in own["data"]] == ["app"]
    assert own["total"]["cost_usd"] == 2 * cost / 1e6
    assert [row["team"] for row in usage(running, "group=team&team=red")["data"]] == ["red"]
    running.stop()
    running.start()
    assert rows(running) == expected
    ask(running, upstream)
    twice = [(*row[:3], *[2 * int(str(count)) for count in row[3:]]) for row in expected]
    running.until(lambda: rows(running) == twice, "usage is not what was used")


def test_money_is_a_metric_too(running: Gateway, upstream: Upstream) -> None:
    ask(running, upstream)

    def costs() -> list[bytes]:
        lines = running.get("/metrics/prometheus", key=ADMIN_KEY).body.splitlines()
        return [line for line in lines if line.startswith(b"agw_cost_usd_total{")]

    running.until(lambda: len(costs()) == 2, "there is no cost")
    assert all(b'model="gpt-4o-mini"' in line for line in costs())


def test_images_are_paid_for_by_the_piece(running: Gateway, upstream: Upstream) -> None:
    upstream.script(answer({"created": 1, "data": [{"url": "u"}] * 3}), answer({"data": []}), failure(500))
    for body in ({"n": 3}, {}, {"n": 2}):
        running.post("/v1/images/generations", {"model": "painter", "prompt": "a house", **body})
    running.until(lambda: len(rows(running)) == 1, "nothing was counted")
    assert [(row[1], row[3], row[7]) for row in rows(running)] == [("painter", 3, 4 * 40_000)]


def test_who_left_or_was_told_nothing_has_used_what_was_charged(running: Gateway, upstream: Upstream) -> None:
    untold = completion()
    del untold["usage"]
    upstream.script(stream(words("one two three four five")[:4], ending="hang"), answer(untold))
    with running.connect() as connection:
        connection.send(
            "POST", "/v1/chat/completions", chat_body(stream=True, max_tokens=50), running.headers(COUNTED_KEY)
        )
        pieces = connection.pieces(connection.head())
        body = b""
        while b"three" not in body:
            body += next(pieces)
    running.until(lambda: rows(running), "who left was not counted")
    assert running.chat(key=COUNTED_KEY, max_tokens=50).status == 200
    running.until(lambda: rows(running)[0][3] == 2, "usage is not what was used")
    row: Any = rows(running)[0]
    told: Any = running.post("/explain", chat_body(), key=COUNTED_KEY).json
    left = {rule["unit"]: rule["remaining"] for rule in told["limits"]}
    assert row[5:7] == (1_000_000 - left["input_tokens"], 1_000_000 - left["output_tokens"])
    assert min(row[5:7]) > 3
    assert row[7] == 2 * 1000 + row[5] + 2 * row[6]


def test_who_counts_tokens_pays_for_nothing(running: Gateway, upstream: Upstream) -> None:
    upstream.script(answer({"object": "response.input_tokens", "input_tokens": 4000}), failure(500))
    body = {"model": "gpt-4o-mini", "input": "hi"}
    for _ in range(2):
        running.post("/v1/responses/input_tokens", body, key=COUNTED_KEY)
    expected = [("counted", "gpt-4o-mini", "fake", 2, 1, 0, 0, 0)]
    running.until(lambda: rows(running) == expected, "usage is not what was used")


def test_images_of_a_fallback_cost_what_it_asks_for(running: Gateway, upstream: Upstream) -> None:
    upstream.script(failure(500), answer({"data": [{"url": "u"}] * 3}))
    reply = running.post("/v1/images/generations", {"model": "art", "prompt": "a house", "n": 3})
    line = running.receipts(reply.request_id)[0]
    assert (line["target"], line["cost"]) == ("fake/sketcher", 3 * 10_000)


def ready(gateway: Gateway) -> list[int]:
    """The processes that have been the first worker, in turn."""
    return [int(line["pid"]) for line in gateway.logs() if line.get("event") == "worker.ready" and line["worker"] == 0]


def test_a_killed_worker_loses_nothing(upstream: Upstream) -> None:
    upstream.default = answer(completion())

    def counted() -> list[object]:
        return [row[3] for row in rows(gateway)]

    with Gateway(settings(upstream, workers=2)) as gateway:
        for number in range(1, 4):
            for _ in range(10):
                assert gateway.chat().status == 200
            gateway.until(lambda many=10 * number: counted() == [many], "a request was not counted once")  # type: ignore[misc]
            os.kill(ready(gateway)[-1], signal.SIGKILL)
            gateway.until(lambda many=number: len(ready(gateway)) > many, "no worker took its place")  # type: ignore[misc]
        assert counted() == [30]
        gateway.stop()
        gateway.start()
        assert counted() == [30]


def test_a_disk_that_cannot_be_written_stops_nobody(upstream: Upstream) -> None:
    upstream.default = answer(completion())
    config = settings(upstream)
    config["usage"] = {"path": "/proc/no/such/usage.db"}
    with Gateway(config) as gateway:
        assert gateway.chat().status == 200

        def said() -> list[Tree]:
            return [line for line in gateway.logs() if line.get("event") == "usage.not_written"]

        gateway.until(said, "nobody has said that the disk is not there")
        assert gateway.chat().status == 200
        tree = gateway.get("/usage", key=APP_KEY).json
        assert isinstance(tree, dict)
        total = tree["total"]
        assert isinstance(total, dict)
        assert total["requests"] == 2
        text = gateway.get("/metrics/prometheus", key=ADMIN_KEY).body
        assert b'agw_dropped_total{what="usage"}' in text
        assert len(said()) == 1


def test_a_count_beyond_all_reason_is_none(running: Gateway, upstream: Upstream) -> None:
    most = 2**63 - 1
    absurd = {**completion(), "usage": {"prompt_tokens": most, "completion_tokens": most, "total_tokens": most}}
    upstream.script(answer(absurd), answer(absurd))
    assert [running.chat().status for _ in range(2)] == [200, 200]
    before = usage(running)["total"]
    assert before["output_tokens"] < 10_000, "what was charged for is the estimate"
    assert running.chat().status == 200
    running.until(lambda: usage(running)["total"]["output_tokens"] == before["output_tokens"] + 7, "it counts no more")
