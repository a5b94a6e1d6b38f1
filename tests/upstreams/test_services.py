"""A reload makes services anew, and carries over what has not changed: pools, places, keys' state, health."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from agw_proxy._hot.route import Target
from agw_proxy.config.settings import Settings
from agw_proxy.config.values import Dialect
from agw_proxy.types import Call, Reply
from agw_proxy.upstreams.replay import Replay
from agw_proxy.upstreams.service import Service
from agw_proxy.upstreams.services import compile_services


def settings(**more: object) -> Settings:
    """Two upstreams; ``more`` replaces members of the first, or sections."""
    first = {
        "name": "a",
        "base_url": "http://127.0.0.1:9/v1",
        "api_keys": ["key-one-1", "key-two-2"],
        "models": ["a-*"],
    }
    second = {"name": "b", "base_url": "http://127.0.0.1:9/v1", "api_key": "key-three-3", "models": ["b-*"]}
    sections = {name: value for name, value in more.items() if isinstance(value, Mapping)}
    members = {name: value for name, value in more.items() if name not in sections}
    return Settings.model_validate({"upstreams": [{**first, **members}, second], **sections})


def reloaded(before: Settings, after: Settings) -> tuple[Sequence[Service], Sequence[Service]]:
    old = compile_services(before, None, ())
    return old, compile_services(after, before, old)


def test_what_is_the_same_keeps_its_pool() -> None:
    old, new = reloaded(settings(), settings())
    assert [one.upstream is two.upstream for one, two in zip(old, new, strict=True)] == [True] * 3
    assert [one.health is two.health for one, two in zip(old, new, strict=True)] == [True] * 3
    assert old[0].keys is new[0].keys


def test_what_has_changed_has_a_new_pool_and_the_health_of_its_name() -> None:
    old, new = reloaded(settings(), settings(models=["a-1"]))
    assert [one.upstream is two.upstream for one, two in zip(old, new, strict=True)] == [False, True, True]
    assert [one.health is two.health for one, two in zip(old, new, strict=True)] == [True] * 3


def test_places_with_new_bounds_know_who_has_one() -> None:
    old, new = reloaded(settings(max_concurrent=2), settings(max_concurrent=1))
    one, two = old[0].places, new[0].places
    assert one is not None
    assert two is not None
    assert one.take()
    assert not two.take()
    one.give()
    assert two.take()
    assert not two.take()


def test_general_sections_reach_every_service_of_a_reload() -> None:
    old, new = reloaded(settings(), settings(timeouts={"total": 7}, retries={"attempts": 5}))
    assert {service.timeouts.total for service in new} == {7.0}
    assert {service.retries.attempts for service in new} == {5}
    assert new[-1].upstream is old[-1].upstream


def test_a_replaying_upstream_needs_no_address_and_has_no_keys_and_places(tmp_path: Path) -> None:
    entry = {"name": "r", "replay": tmp_path, "api_keys": ["key-one-1", "key-two-2"], "max_concurrent": 1}
    before, after = (Settings.model_validate({"upstreams": [entry]}) for _ in range(2))
    old, new = reloaded(before, after)
    assert isinstance(old[0].upstream, Replay)
    assert new[0].upstream is old[0].upstream  # it goes on where it was
    assert (old[0].keys, old[0].places) == (None, None)
    assert before.upstreams[0].base_url.endswith(".invalid")


def test_a_replaying_upstream_may_keep_its_address(tmp_path: Path) -> None:
    (made, _), _ = reloaded(
        *[Settings.model_validate({"upstreams": [{"name": "r", "replay": tmp_path, "preset": "groq"}]})] * 2
    )
    assert isinstance(made.upstream, Replay)
    assert made.speaks == ("chat", "responses")


@pytest.mark.parametrize("speed", [-1, "nan", "inf", 1e9, True])
def test_no_such_speed(tmp_path: Path, speed: object) -> None:
    with pytest.raises(ValueError, match="replay_speed"):
        Settings.model_validate({"upstreams": [{"name": "r", "replay": tmp_path, "replay_speed": speed}]})


class Runs:
    """What runs agents, as far as a service needs it."""

    name = "agents"
    dialect: Dialect = "openai"
    ids = ("default/sky",)
    longest_seconds = 3600.0

    async def open(self, target: Target, call: Call) -> Reply:
        raise AssertionError("a service asks nothing by being made")

    async def close(self) -> None:
        """Nothing is open."""


def test_agents_come_last_and_keep_their_health_and_no_run_is_made_twice() -> None:
    runs = Runs()
    old = compile_services(settings(), None, (), agents=runs)
    new = compile_services(settings(retries={"attempts": 5}), settings(), old, agents=runs)
    assert [service.upstream.name for service in new] == ["a", "b", "agw", "agents"]
    assert [one.health is two.health for one, two in zip(old, new, strict=True)] == [True] * 4
    agents = new[-1]
    assert (agents.speaks, agents.keeps, agents.delegates, agents.retries.attempts) == (("responses",), False, True, 1)
    assert agents.timeouts.total > 3600
    without = compile_services(settings(), settings(), new)
    assert [service.upstream.name for service in without] == ["a", "b", "agw"]
    assert without[-1].upstream is old[2].upstream


def test_each_knows_in_which_forms_foreign_thoughts_may_come() -> None:
    alike, mixed = settings(), settings(dialect="anthropic", models=["a-*"])
    assert [service.mixed for service in compile_services(alike, None, ())] == [{"messages", "responses", "gemini"}] * 3
    all_of_them = {
        "base_url": "http://127.0.0.1:9/v1",
        "auth": "none",
        "speaks": ["chat", "messages", "responses", "gemini"],
    }
    entries = [{"name": name, "models": [f"{name}-*"], **all_of_them} for name in "ab"]
    both = Settings.model_validate({"upstreams": entries})
    assert [service.mixed for service in compile_services(both, None, ())] == [set()] * 3
    assert "messages" in compile_services(mixed, None, ())[0].mixed
