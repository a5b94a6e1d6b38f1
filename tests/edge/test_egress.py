"""The egress page has a reason for each name by which the lanes decide."""

from collections import Counter

from agw_proxy.edge.egress import KEPT, PREFIXES
from agw_proxy.edge.headers import KEPT_IN, KEPT_PREFIXES


def test_each_header_that_is_kept_has_one_reason() -> None:
    assert Counter(name for names, _ in KEPT for name in names) == Counter(KEPT_IN)
    assert set(PREFIXES) == set(KEPT_PREFIXES)
    assert all(why.endswith(".") for why in (*PREFIXES.values(), *(why for _, why in KEPT)))
