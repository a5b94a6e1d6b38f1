"""One scripted upstream a module, and the configuration of a gateway in front of it."""

from collections.abc import Iterator

import pytest

from tests.support.gateway import Tree, configuration, provider
from tests.support.upstream import Upstream


@pytest.fixture(scope="module")
def shared_upstream() -> Iterator[Upstream]:
    with Upstream() as running:
        yield running


@pytest.fixture
def upstream(shared_upstream: Upstream) -> Upstream:
    shared_upstream.reset()
    return shared_upstream


@pytest.fixture
def config(upstream: Upstream) -> Tree:
    """A virtual model over a provider that speaks Responses, with one that speaks Chat behind it."""
    return configuration(
        provider(upstream.url, models=["gpt-4o-mini", "gpt-4o"]),
        provider(upstream.url, "chatty", models=["gpt-chat"], speaks=["chat"]),
        models=[{"name": "fast", "targets": [{"upstream": "fake", "model": "gpt-4o-mini"}]}],
    )
