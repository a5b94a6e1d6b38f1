"""Probes need no key and tell the truth about draining."""

import pytest

from tests.api.control import FakeControl, ask, by_name, principal, state, tree


async def test_it_is_alive_while_draining_too() -> None:
    control = FakeControl()
    for control.draining in (False, True):
        answer = await ask(control, "/health")
        assert answer.status == 200
        assert tree(answer) == {"status": "ok", "version": "1.2.3"}


async def test_it_is_ready_until_it_drains() -> None:
    control = FakeControl()
    control.active = 3
    answer = await ask(control, "/health/ready")
    assert (answer.status, tree(answer)) == (200, {"status": "ready", "active": 3, "version": "1.2.3"})
    control.draining = True
    answer = await ask(control, "/health/ready")
    assert (answer.status, tree(answer)) == (503, {"status": "draining", "active": 3, "version": "1.2.3"})


async def test_readiness_names_the_upstreams_to_those_who_may_know_and_ask() -> None:
    control = FakeControl()
    control.known = [state("openai", state="failing", since="2026-01-02T03:04:05+00:00", last_error="upstream_reset")]
    plain = {"status": "ready", "active": 0, "version": "1.2.3"}
    boss, app = principal(admin=True), principal()
    for caller, query in ((boss, {}), (app, {"verbose": ""}), (None, {"verbose": ""})):
        assert tree(await ask(control, "/health/ready", caller=caller, query=query)) == plain
    for control.draining, status in ((False, 200), (True, 503)):
        answer = await ask(control, "/health/ready", caller=boss, query={"verbose": ""})
        assert answer.status == status
        assert tree(answer)["upstreams"] == [
            {
                "name": "openai",
                "state": "failing",
                "since": "2026-01-02T03:04:05+00:00",
                "last_error": "upstream_reset",
            }
        ]


async def test_readiness_tells_of_redis_to_those_who_may_know_and_ask() -> None:
    control = FakeControl()
    control.shares = {"state": "away", "since": "2026-01-02T03:04:05+00:00", "last_error": "late"}
    boss = principal(admin=True)
    assert "redis" not in tree(await ask(control, "/health/ready", caller=principal(), query={"verbose": ""}))
    answer = await ask(control, "/health/ready", caller=boss, query={"verbose": ""})
    assert answer.status == 200
    assert tree(answer)["redis"] == control.shares
    control.shares = None
    assert "redis" not in tree(await ask(control, "/health/ready", caller=boss, query={"verbose": ""}))


@pytest.mark.parametrize("path", ["/health", "/health/ready"])
async def test_no_cache_may_answer_a_probe(path: str) -> None:
    assert ("Cache-Control", "no-store") in (await ask(FakeControl(), path)).headers


@pytest.mark.parametrize("method", ["HEAD", "GET"])
async def test_coding_tools_are_greeted_with_an_empty_200(method: str) -> None:
    answer = await ask(FakeControl(), "/api/hello", method=method)
    assert (answer.status, answer.body) == (200, b"")


def test_the_probes_are_open() -> None:
    assert {by_name(name).access for name in ("health", "ready", "hello", "hello_get")} == {"open"}
