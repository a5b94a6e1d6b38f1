"""Upstreams' names: looked up off the loop, every address of every family tried, and anew for each new connection."""

import contextlib
import socket

import pytest

from tests.support.gateway import Gateway, configuration, provider
from tests.support.upstream import Upstream


@pytest.fixture(params=["auto", "full"])
def lane(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def families(name: str) -> set[socket.AddressFamily]:
    with contextlib.suppress(socket.gaierror):
        return {found[0] for found in socket.getaddrinfo(name, 80, type=socket.SOCK_STREAM)}
    return set()


def test_a_name_with_addresses_of_both_families_is_reached_at_the_one_that_answers(
    upstream: Upstream, lane: str
) -> None:
    """``localhost`` is ::1 first on most systems; the upstream listens on 127.0.0.1 only."""
    port = upstream.url.rsplit(":", 1)[1].split("/")[0]
    config = configuration(provider(upstream.url, base_url=f"http://localhost:{port}/v1", retries={"attempts": 1}))
    config["server"]["lane"] = lane
    with Gateway(config) as gateway:
        assert families("localhost")
        assert [gateway.chat().status for _ in range(3)] == [200] * 3


def test_a_name_that_is_not_found_is_an_error_of_its_own_and_is_looked_up_again(upstream: Upstream, lane: str) -> None:
    """Each request asks anew, so a name that comes into being is found; nobody waits for a look-up but its request."""
    dead = provider(upstream.url, "dead", base_url="http://no-such-name.invalid/v1", models=["dead-*"])
    config = configuration(provider(upstream.url), {**dead, "retries": {"attempts": 1}})
    config["server"]["lane"] = lane
    with Gateway(config) as gateway:
        for _ in range(3):
            reply = gateway.chat(model="dead-1")
            assert (reply.status, reply.error["code"]) == (502, "upstream_unreachable")
            assert "its name was not found" in str(reply.error["message"])
            assert gateway.chat().status == 200
