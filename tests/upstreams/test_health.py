"""How an upstream fares is remembered from its traffic: counts, and since when."""

from datetime import datetime

from agw_proxy.errors import UpstreamRefused, UpstreamRejected, UpstreamTimeout
from agw_proxy.upstreams.health import Health


def test_nothing_is_known_before_the_first_call() -> None:
    health = Health()
    assert (health.state, health.since, health.last_error, health.requests, health.failures) == ("unused", None, None, 0, 0)  # fmt: skip


def test_it_turns_with_the_traffic() -> None:
    health = Health()
    health.worked()
    assert health.state == "up"
    assert health.since is not None
    assert datetime.fromisoformat(health.since).tzinfo is not None
    health.failed(UpstreamTimeout("x"))
    assert (health.state, health.last_error) == ("failing", "upstream_timeout")
    health.worked()
    assert (health.state, health.requests, health.failures) == ("up", 3, 1)


def test_since_when_changes_with_the_state_only() -> None:
    health = Health()
    health.worked()
    health.since = "2026-01-01T00:00:00+00:00"
    health.worked()
    assert health.since == "2026-01-01T00:00:00+00:00"
    health.failed(UpstreamTimeout("x"))
    assert health.since > "2026-01-01T00:00:00+00:00"


def test_an_answer_that_refuses_the_request_is_no_failure() -> None:
    health = Health()
    health.failed(UpstreamRejected("x", status=404))
    assert (health.state, health.requests, health.failures, health.last_error) == ("up", 1, 0, None)


def test_refused_credentials_are_one() -> None:
    health = Health()
    health.failed(UpstreamRefused("x"))
    assert (health.state, health.failures, health.last_error) == ("failing", 1, "upstream_refused_key")
