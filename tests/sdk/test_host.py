"""Helpers work within the gateway that serves them, and alone where there is none."""

import pytest

from agw_proxy._hot.limit import Table
from agw_proxy.sdk import host
from agw_proxy.sdk.host import Host


def test_a_gateway_takes_the_place_of_none_and_of_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "_hosts", [])
    alone = host.here()
    assert host.here() is alone
    alone.helped("retry", "name", "again")
    alone.tracked("name", "ok", 1)
    for _ in range(2):
        made = Host(Table(slots=64, gates=8, windows=32, leases=8), lambda *_: None, lambda *_: None)
        host.serve(made)
        assert host.here() is made
