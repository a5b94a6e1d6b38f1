"""One scripted upstream and one gateway for the whole run.

A module that needs another configuration overrides ``shared_gateway`` at module scope.
"""

from collections.abc import Iterator

import pytest

from tests.support.gateway import Gateway, configuration, provider
from tests.support.upstream import Upstream, unreachable

NARROW_KEY = "agw-bench-narrow-2d8e61f09c7b4a35"


@pytest.fixture(scope="session")
def shared_upstream() -> Iterator[Upstream]:
    with Upstream() as running:
        yield running


@pytest.fixture(scope="session")
def shared_gateway(shared_upstream: Upstream) -> Iterator[Gateway]:
    config = configuration(provider(shared_upstream.url))
    config["keys"].append({"name": "narrow", "key": NARROW_KEY, "models": ["gpt-4o"]})
    with unreachable() as nowhere:
        config["upstreams"].append(provider(nowhere, "nowhere", models=["dead-*"]))
        with Gateway(config) as running:
            yield running


@pytest.fixture
def upstream(shared_upstream: Upstream) -> Upstream:
    shared_upstream.reset()
    return shared_upstream


@pytest.fixture
def gateway(shared_gateway: Gateway, upstream: Upstream) -> Gateway:
    assert shared_gateway.process.poll() is None, f"the gateway has died:\n{shared_gateway.output}"
    return shared_gateway
