"""One scripted upstream a module, and the configuration of a gateway in front of it."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.edge.lent import Pair, lent, settings
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
    """Models by name: nothing is asked of the upstream but what a test asks."""
    return configuration(provider(upstream.url, models=["gpt-4o-mini", "gpt-4o"]))


@pytest.fixture
async def pair(upstream: Upstream, tmp_path: Path) -> AsyncIterator[Pair]:
    """Two workers, one of which runs agents."""
    async with lent(settings(upstream.url, tmp_path), tmp_path) as made:
        yield made
