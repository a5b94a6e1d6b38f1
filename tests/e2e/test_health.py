"""Upstreams that are probed: out after so many bad answers, back after so many good ones, and said so."""

import pytest

from tests.support.behaviours import answer, failure, reset, stream
from tests.support.client import Reply
from tests.support.fake_openai import spoken
from tests.support.gateway import ADMIN_KEY, APP_KEY, UPSTREAM_KEY, Gateway, Tree, configuration, provider
from tests.support.upstream import Behaviour, Exchange, Upstream

MODEL = "gpt-4o-mini"
STRANGER = "agw-not-a-known-key-5d20c7"
HEALTH = {"path": "/up", "interval": "10ms", "timeout": "3s", "unhealthy": 3, "healthy": 2}


class Switch:
    """Answers probes as it is set, all else with 200."""

    def __init__(self) -> None:
        self.probe: Behaviour = answer({"ok": True})

    async def __call__(self, exchange: Exchange) -> None:
        await (self.probe if exchange.request.path == "/v1/up" else answer({"ok": True}))(exchange)


def probed(upstream: Upstream, **server: object) -> Tree:
    config = configuration(provider(upstream.url, models=[MODEL], health=HEALTH))
    config["server"] |= server
    return config


def standing(gateway: Gateway) -> Tree:
    data = gateway.get("/upstreams", key=ADMIN_KEY).json["data"]
    assert isinstance(data, list)
    found: Tree = data[0]
    return found


def upstreams_of(reply: Reply) -> list[Tree]:
    data = reply.json["upstreams"]
    assert isinstance(data, list)
    return data


def said(gateway: Gateway) -> list[tuple[str, object]]:
    lines = [line for line in gateway.logs() if str(line.get("event")) in {"upstream.out", "upstream.back"}]
    assert {line["upstream"] for line in lines} <= {"fake"}
    return [(line["event"], line.get("error")) for line in lines]


@pytest.mark.parametrize("bad", [failure(500), reset()], ids=["500", "reset"])
def test_an_upstream_goes_out_and_comes_back(upstream: Upstream, bad: Behaviour) -> None:
    switch = Switch()
    upstream.default = switch
    with Gateway(probed(upstream)) as gateway:
        gateway.until(lambda: len(upstream.requests) >= 2, "it is not probed")
        probe = upstream.requests[0]
        assert (probe.method, probe.target, probe.body) == ("GET", "/v1/up", b"")
        assert probe.value("authorization") == f"Bearer {UPSTREAM_KEY}"
        assert gateway.chat(model=MODEL).status == 200
        assert standing(gateway)["state"] == "up"
        switch.probe = bad
        gateway.until(lambda: standing(gateway)["state"] == "out", "it never went out")
        line = standing(gateway)
        assert line["since"] == line["probe"]["out_since"] is not None
        assert (line["probe"]["path"], line["probe"]["bad_in_a_row"] >= 3) == ("/up", True)
        asked = sum(request.path != "/v1/up" for request in upstream.requests)
        refused = gateway.chat(model=MODEL)
        assert refused.status == 503
        assert refused.value("retry-after") is not None
        assert sum(request.path != "/v1/up" for request in upstream.requests) == asked  # it is left alone
        switch.probe = answer({"ok": True})
        gateway.until(lambda: standing(gateway)["state"] == "up", "it never came back")
        assert gateway.chat(model=MODEL).status == 200
        gateway.until(lambda: len(said(gateway)) >= 2, "it was not said")
        assert [event for event, _ in said(gateway)] == ["upstream.out", "upstream.back"]
        assert said(gateway)[0][1] in {"upstream_unavailable", "upstream_reset"}


def test_one_worker_probes_and_all_know(upstream: Upstream) -> None:
    switch = Switch()
    switch.probe = failure(503)
    upstream.default = switch
    with Gateway(probed(upstream, workers=2)) as gateway:
        gateway.until(lambda: said(gateway), "it never went out")
        assert {gateway.chat(model=MODEL).status for _ in range(20)} == {503}
        switch.probe = answer({"ok": True})
        gateway.until(lambda: len(said(gateway)) == 2, "it never came back")
        assert {gateway.chat(model=MODEL).status for _ in range(20)} == {200}
        assert [event for event, _ in said(gateway)] == ["upstream.out", "upstream.back"]
        tree = gateway.get("/metrics", key=ADMIN_KEY).json["agw_upstream_out"]
        assert tree == [{"labels": {"upstream": "fake"}, "value": 0}]


def test_a_reload_ends_the_probes_and_brings_it_back(upstream: Upstream) -> None:
    switch = Switch()
    switch.probe = failure(503)
    upstream.default = switch
    config = probed(upstream)
    with Gateway(config) as gateway:
        gateway.until(lambda: said(gateway), "it never went out")
        del config["upstreams"][0]["health"]
        gateway.write(config)
        assert gateway.post("/upstreams/refresh", key=ADMIN_KEY).status == 200
        assert gateway.chat(model=MODEL).status == 200
        asked = len(upstream.requests)
        assert gateway.chat(model=MODEL).status == 200
        assert [request.path for request in upstream.requests[asked:]] == ["/v1/chat/completions"]
        gateway.until(lambda: len(said(gateway)) >= 2, "it was not said")
        assert [event for event, _ in said(gateway)] == ["upstream.out", "upstream.back"]


def test_an_upstream_that_is_out_makes_the_gateway_no_less_ready(upstream: Upstream) -> None:
    switch = Switch()
    switch.probe = failure(503)
    upstream.default = switch
    with Gateway(probed(upstream)) as gateway:
        gateway.until(lambda: said(gateway), "it never went out")
        ready = gateway.get("/health/ready", key=None)
        assert (ready.status, set(ready.json)) == (200, {"status", "active", "version"})


def test_targets_show_their_circuits(upstream: Upstream) -> None:
    config = configuration(provider(upstream.url, models=[MODEL]))
    config["breaker"] = {"consecutive": 2, "cool_down": "60s", "panic": 0}
    config["retries"] = {"attempts": 1}
    with Gateway(config) as gateway:
        target = standing(gateway)["targets"][0]
        assert target == {"name": f"fake/{MODEL}", "circuit": "closed", "opens_in_ms": 0, "in_flight": 0}
        upstream.script(failure(500), failure(500))
        assert [gateway.chat(model=MODEL).status for _ in range(2)] == [502, 502]
        line = standing(gateway)
        assert (line["state"], line["last_error"], line["failures"]) == ("failing", "upstream_failed", 2)
        target = line["targets"][0]
        assert target["circuit"] == "open"
        assert 50_000 < target["opens_in_ms"] <= 60_001  # circuits keep whole milliseconds, rounded up


@pytest.mark.parametrize(
    ("readiness", "told"),
    [("admin", [ADMIN_KEY]), ("open", [ADMIN_KEY, APP_KEY, STRANGER, None]), ("plain", [])],
)
def test_readiness_tells_of_the_upstreams_only_those_who_may_know(
    upstream: Upstream, readiness: str, told: list[str | None]
) -> None:
    config = configuration(provider(upstream.url, models=[MODEL]), retries={"attempts": 1})
    config["server"]["readiness"] = readiness
    with Gateway(config) as gateway:
        upstream.script(failure(500))
        assert gateway.chat(model=MODEL).status == 502
        plain = gateway.get("/health/ready", key=ADMIN_KEY)
        assert (plain.status, set(plain.json)) == (200, {"status", "active", "version"})
        for key in (ADMIN_KEY, APP_KEY, STRANGER, None):
            reply = gateway.get("/health/ready?verbose", key=key)
            assert (reply.status, reply.json["status"]) == (200, "ready")
            assert ("upstreams" in reply.json) is (key in told)
            assert upstream.url.rpartition(":")[2].encode() not in reply.body
            if key in told:
                (line,) = [item for item in upstreams_of(reply) if item["name"] == "fake"]
                assert (line["state"], line["last_error"]) == ("failing", "upstream_failed")
                assert line["since"] is not None


def test_all_workers_tell_the_same_of_an_upstream(upstream: Upstream) -> None:
    config = configuration(provider(upstream.url, models=["gpt-*"]), retries={"attempts": 1})
    config["server"]["workers"] = 2
    with Gateway(config) as gateway:

        def told() -> set[tuple[str, str | None, bool]]:
            """What many connections, so both workers, hear: state, last error, whether a time is given."""
            lines = [standing(gateway) for _ in range(24)]
            return {(line["state"], line["last_error"], line["since"] is not None) for line in lines}

        assert told() == {("unused", None, False)}
        upstream.script(failure(500))
        assert gateway.chat(model=MODEL).status == 502
        # An exchange is accounted for just after its last byte.
        gateway.until(lambda: told() == {("failing", "upstream_failed", True)}, "not all workers tell of the failure")
        assert gateway.chat(model=MODEL).status == 200
        gateway.until(lambda: told() == {("up", "upstream_failed", True)}, "not all workers tell of the recovery")


@pytest.mark.parametrize("lane", ["auto", "full"])
def test_a_stream_that_breaks_is_the_last_failure(upstream: Upstream, lane: str) -> None:
    config = configuration(provider(upstream.url, models=[MODEL]))
    config["server"]["lane"] = lane
    with Gateway(config) as gateway:
        upstream.script(stream(spoken()[:3]))
        reply = gateway.chat(model=MODEL, stream=True)
        assert (reply.status, reply.complete) == (200, False)
        gateway.receipt(reply.request_id)
        line = standing(gateway)
        assert (line["state"], line["last_error"]) == ("failing", "upstream_broken")
