"""Limits over restarts of the whole gateway: where there are budgets, what was used is known again."""

import contextlib
import signal

import pytest

from tests.support.gateway import Gateway, configuration, provider
from tests.support.upstream import Upstream

LIMITS = {"limits": [{"per": "key", "requests": 3, "period": "30d"}]}
BUDGETS = {"budgets": [{"per": "key", "usd": 100, "period": "month"}]}


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_what_was_used_before_the_gateway_ended_counts_after_it(
    shared_upstream: Upstream, workers: int, how: signal.Signals
) -> None:
    config = configuration(provider(shared_upstream.url), **LIMITS, **BUDGETS)
    config["server"]["workers"] = workers
    with Gateway(config) as gateway:
        assert [gateway.chat().status for _ in range(2)] == [200, 200]
        gateway.stop(how)
        gateway.start()
        assert [gateway.chat().status for _ in range(2)] == [200, 429]


def test_without_budgets_a_restart_begins_anew_and_leaves_no_file(shared_upstream: Upstream) -> None:
    with Gateway(configuration(provider(shared_upstream.url), **LIMITS)) as gateway:
        assert [gateway.chat().status for _ in range(4)] == [200, 200, 200, 429]
        gateway.stop()
        gateway.start()
        assert gateway.chat().status == 200
        assert not list(gateway.folder.rglob("limits"))


def test_two_gateways_do_not_count_in_one_file(shared_upstream: Upstream) -> None:
    config = configuration(provider(shared_upstream.url), **BUDGETS)
    with Gateway(config) as gateway, contextlib.ExitStack() as stack:
        config["server"]["state_dir"] = str(gateway.folder / "home" / "state" / "agw")
        second = Gateway(config)
        stack.callback(second.__exit__)
        second.launch()
        assert second.wait() == 1
        assert "another gateway counts its budgets here" in second.output
        assert gateway.chat().status == 200
