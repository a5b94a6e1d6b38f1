"""Keys take turns; one that is limited rests, one that is refused stays out and is told of once, by its number."""

import pytest

from agw_proxy.config.resilience import Timeouts
from agw_proxy.config.settings import Upstream as UpstreamSettings
from agw_proxy.errors import UpstreamError, UpstreamFailed, UpstreamRefused, UpstreamRejected
from agw_proxy.types import Call
from agw_proxy.upstreams.http import HttpUpstream
from agw_proxy.upstreams.keyring import REST_SECONDS, Keyring, blames_key
from tests.support.behaviours import answer
from tests.support.upstream import Upstream


def ring(size: int = 3) -> tuple[Keyring, list[tuple[str, str]]]:
    told: list[tuple[str, str]] = []
    headers = [("Authorization", f"Bearer secret-{number}") for number in range(size)]
    return Keyring("up", headers, lambda upstream, key: told.append((upstream, key))), told


def limited(wait_ms: int | None = None) -> UpstreamRejected:
    return UpstreamRejected("slow down", status=429, retry_after_ms=wait_ms)


def test_keys_take_turns() -> None:
    keys, _ = ring()
    assert [keys.take(0.0) for _ in range(7)] == [0, 1, 2, 0, 1, 2, 0]
    assert keys.header(1) == ("Authorization", "Bearer secret-1")
    assert len(keys) == 3


def test_a_limited_key_rests_for_the_named_time_or_the_usual_one() -> None:
    keys, told = ring()
    keys.failed(0, limited(2000), 10.0)
    keys.failed(1, limited(), 10.0)
    assert [keys.take(11.9) for _ in range(2)] == [2, 2]
    assert keys.until() == 0.0
    assert {keys.take(12.0) for _ in range(3)} == {0, 2}
    assert {keys.take(10.0 + REST_SECONDS) for _ in range(3)} == {0, 1, 2}
    assert (told, keys.dead) == ([], 0)


def test_a_shorter_rest_does_not_end_a_longer_one() -> None:
    keys, _ = ring(1)
    keys.rest(0, 20.0)
    keys.rest(0, 5.0)
    assert keys.take(19.0) is None
    assert keys.until() == 20.0


def test_a_refused_key_stays_out_and_is_told_of_once_without_its_text() -> None:
    keys, told = ring()
    keys.failed(1, UpstreamRefused("no"), 0.0)
    keys.bury(1)
    keys.rest(1, 5.0)
    assert {keys.take(1e9) for _ in range(5)} == {0, 2}
    assert (told, keys.dead) == ([("up", "key 2 of 3")], 1)
    assert "secret" not in repr(told)


def test_without_any_key_left_there_is_none_and_no_time_either() -> None:
    keys, _ = ring(2)
    keys.bury(0)
    keys.bury(1)
    assert (keys.take(0.0), keys.usable(0.0), keys.until(), keys.dead) == (None, False, None, 2)


def test_doubted_keys_are_passed_over() -> None:
    keys, _ = ring(2)
    assert keys.take(0.0, (0,)) == 1
    assert keys.usable(0.0, (0,))
    assert not keys.usable(0.0, (0, 1))
    assert keys.take(0.0, (0, 1)) is None


@pytest.mark.parametrize(
    ("error", "blamed"),
    [
        (UpstreamRefused("x"), True),
        (limited(), True),
        (UpstreamRejected("x", status=403), True),
        (UpstreamRejected("x", status=400), False),
        (UpstreamFailed("x"), False),
    ],
)
def test_only_what_may_be_the_keys_fault_is(error: UpstreamError, blamed: bool) -> None:
    assert blames_key(error) is blamed


async def test_the_gateways_own_questions_use_no_key_that_was_refused() -> None:
    with Upstream(answer({"ok": True})) as running:
        entry = {"name": "a", "base_url": running.url, "api_keys": ["key-one-1", "key-two-2"]}
        keys = Keyring(
            "a", [("Authorization", "Bearer key-one-1"), ("Authorization", "Bearer key-two-2")], lambda *_: None
        )
        up = HttpUpstream(UpstreamSettings.model_validate(entry), Timeouts(), keys)
        sent = []
        for dead in (0, 1):
            keys.bury(dead)
            (await up.ask(Call("GET", "/models", "", [], None, None, "req-1"))).close()
            sent.append(dict(running.last.headers).get("Authorization"))
        await up.close()
        assert sent == ["Bearer key-two-2", None]
