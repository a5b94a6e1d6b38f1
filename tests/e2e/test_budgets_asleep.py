"""A laptop that was closed overnight: the day's budget is whole in the morning. A clock that was set makes it no larger."""

import time
from pathlib import Path

import pytest

from tests.e2e.test_budgets import KEY, refused, settings
from tests.faults.clock import jumping_clock
from tests.support.gateway import Gateway
from tests.support.upstream import Upstream

DAY_SECONDS = 86_400
LOOKS = 2.0  # seconds in which every worker has looked at its clocks


@pytest.mark.parametrize("workers", [1, 2])
def test_a_days_budget_is_whole_after_a_night(upstream: Upstream, tmp_path: Path, workers: int) -> None:
    config = settings(upstream, "auto", {"usd": "0.0105", "period": "day"}, workers=workers)
    with jumping_clock(tmp_path) as clock, Gateway(config, env=clock.env) as gateway:
        first = gateway.chat(key=KEY)
        assert first.status == 200
        gateway.receipts(first.request_id)
        refused(gateway.chat(key=KEY))
        clock.jump(DAY_SECONDS)
        time.sleep(LOOKS)
        refused(gateway.chat(key=KEY))
        clock.sleep(DAY_SECONDS)
        again = gateway.until(
            lambda: [reply for reply in (gateway.chat(key=KEY),) if reply.status == 200], "never whole"
        )
        gateway.receipts(again[0].request_id)
        time.sleep(LOOKS)
        refused(gateway.chat(key=KEY))
