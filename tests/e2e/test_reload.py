"""Reloading: new keys and upstreams at once, a bad file changes nothing and says why."""

import copy
import signal
from collections.abc import Iterator

import pytest

from tests.support.behaviours import gate, silence, stream
from tests.support.fake_openai import spoken
from tests.support.gateway import Gateway, Tree, chat_body, configuration, provider
from tests.support.upstream import Upstream

NEW_KEY = "agw-bench-new-c4d81f0b6e9a2375"


@pytest.fixture
def config(upstream: Upstream) -> Tree:
    return configuration(provider(upstream.url))


@pytest.fixture(scope="module")
def shared_gateway(shared_upstream: Upstream) -> Iterator[Gateway]:
    with Gateway(configuration(provider(shared_upstream.url))) as running:
        yield running


@pytest.fixture
def reloading(gateway: Gateway, config: Tree) -> Iterator[Gateway]:
    """The gateway; its first configuration is in force again afterwards."""
    yield gateway
    gateway.write(config)
    assert gateway.post("/security/refresh", key=gateway.admin_key).status == 200


def with_new_key(config: Tree) -> Tree:
    changed = copy.deepcopy(config)
    changed["keys"].append({"name": "new", "key": NEW_KEY, "models": ["*"]})
    return changed


def test_a_new_key_works_as_soon_as_the_refresh_has_answered(reloading: Gateway, config: Tree) -> None:
    assert reloading.chat(key=NEW_KEY).status == 401
    reloading.write(with_new_key(config))
    assert reloading.chat(key=NEW_KEY).status == 401
    assert reloading.post("/security/refresh", key=reloading.admin_key).status == 200
    assert reloading.chat(key=NEW_KEY).status == 200
    assert reloading.chat().status == 200


def test_a_removed_key_stops_working(reloading: Gateway, config: Tree) -> None:
    reloading.write(with_new_key(config))
    assert reloading.post("/security/refresh", key=reloading.admin_key).status == 200
    reloading.write(config)
    assert reloading.post("/security/refresh", key=reloading.admin_key).status == 200
    assert reloading.chat(key=NEW_KEY).status == 401


@pytest.mark.parametrize(
    ("text", "reason"),
    [("keys: [", "gateway.yaml"), ("serverr: {port: 1}\n", "serverr"), ("keys: [{name: a}]\n", "key")],
    ids=["not-yaml", "unknown-section", "key-without-key"],
)
def test_a_bad_file_is_409_with_the_reason_and_the_old_keys_go_on(reloading: Gateway, text: str, reason: str) -> None:
    reloading.file.write_text(text)
    refused = reloading.post("/security/refresh", key=reloading.admin_key)
    assert refused.status == 409
    assert refused.error["code"] == "reload_failed"
    assert reason in str(refused.error["message"])
    assert reloading.chat().status == 200
    assert reloading.get("/health/ready", key=None).status == 200


def test_sighup_reloads_too(reloading: Gateway, config: Tree) -> None:
    reloading.write(with_new_key(config))
    reloading.process.send_signal(signal.SIGHUP)
    reloading.until(lambda: reloading.chat(key=NEW_KEY).status == 200, "the new key was not taken up")


def test_sighup_with_a_bad_file_leaves_the_old_configuration(reloading: Gateway) -> None:
    count = len(reloading.logs())
    reloading.file.write_text("serverr: {}\n")
    reloading.process.send_signal(signal.SIGHUP)

    def told() -> bool:
        return any("serverr" in str(line) for line in reloading.logs()[count:])

    reloading.until(told, "the log does not say why")
    assert reloading.chat().status == 200


def test_a_refresh_of_the_upstreams_adds_one(reloading: Gateway, config: Tree, upstream: Upstream) -> None:
    assert reloading.chat(model="second/gpt-4o").status == 404
    changed = copy.deepcopy(config)
    changed["upstreams"].append(provider(upstream.url, "second", models=["other-*"]))
    reloading.write(changed)
    assert reloading.post("/upstreams/refresh", key=reloading.admin_key).status == 200
    assert reloading.chat(model="second/gpt-4o").status == 200
    assert reloading.chat(model="other-1").status == 200
    listed = reloading.get("/upstreams", key=reloading.admin_key).body
    assert b'"second"' in listed
    assert str(config["upstreams"][0]["api_key"]).encode() not in listed


def test_a_stream_lives_through_a_reload(reloading: Gateway, config: Tree, upstream: Upstream) -> None:
    upstream.script(stream(spoken(), pace_ms=40))
    with reloading.connect() as connection:
        connection.send("POST", "/v1/chat/completions", chat_body(stream=True), reloading.headers())
        reply = connection.head()
        reloading.write(with_new_key(config))
        assert reloading.post("/security/refresh", key=reloading.admin_key).status == 200
        reply.body = b"".join(connection.pieces(reply))
    assert reply.complete
    assert reply.body == b"".join(spoken())


def test_a_limit_survives_the_reload_of_its_rule(reloading: Gateway, config: Tree) -> None:
    limited = with_new_key(config)
    limited["keys"][-1]["limits"] = [{"per": "key", "requests": 1, "period": "1h"}]
    reloading.write(limited)
    assert reloading.post("/security/refresh", key=reloading.admin_key).status == 200
    assert reloading.chat(key=NEW_KEY).status == 200
    assert reloading.post("/security/refresh", key=reloading.admin_key).status == 200
    assert reloading.chat(key=NEW_KEY).status == 429


@pytest.mark.parametrize("period", ["1s", "1d"])
def test_a_limit_of_another_period_begins_anew(reloading: Gateway, config: Tree, period: str) -> None:
    """What an hour has used up is not in the way of a new rule of the same name for the rest of that hour."""
    limited = with_new_key(config)

    def limit(every: str) -> None:
        rule = {"requests": 2, "period": every, "name": f"hour-to-{period}"}
        limited["keys"][-1]["limits"] = [rule]
        reloading.write(limited)
        assert reloading.post("/security/refresh", key=reloading.admin_key).status == 200

    limit("1h")
    assert [reloading.chat(key=NEW_KEY).status for _ in range(3)] == [200, 200, 429]
    limit(period)
    reply = reloading.chat(key=NEW_KEY)
    assert (reply.status, reply.value("x-ratelimit-remaining-requests")) == (200, "1")


def test_a_shorter_deadline_cuts_nothing_that_runs(upstream: Upstream) -> None:
    """Connections of a replaced upstream last as long as its own exchanges may."""
    config = configuration(provider(upstream.url), retries={"attempts": 1})
    config["server"]["lane"] = "full"
    with Gateway(config) as gateway, gateway.connect() as running:
        words = spoken()
        go, held = gate(stream(words))
        upstream.script(held)
        running.send("POST", "/v1/chat/completions", chat_body(stream=True), gateway.headers())
        upstream.wait(1)
        gateway.write({**config, "timeouts": {**config.get("timeouts", {}), "total": "50ms"}})
        assert gateway.post("/security/refresh", key=gateway.admin_key).status == 200
        upstream.default = silence()
        assert [gateway.chat().status for _ in range(2)] == [504] * 2  # so the new deadline has passed, twice
        go.set()
        reply = running.reply()
        assert (reply.status, reply.complete) == (200, True)
