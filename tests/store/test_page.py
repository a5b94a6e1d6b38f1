"""docs/redis.md: its configuration loads, and what it says of names and numbers is so."""

import re
from pathlib import Path

import yaml

from agw_proxy._hot.limit import Table
from agw_proxy.config.storage import Redis
from agw_proxy.observe.metrics import FAMILIES
from agw_proxy.store.client import MAX_CONNECTIONS, PROBE_SECONDS
from agw_proxy.store.leases import MAX_REFUSED_NS, SWEEPS
from agw_proxy.store.nodes import SILENT_SECONDS

PAGE = (Path(__file__).parents[2] / "docs" / "redis.md").read_text()


def test_its_configuration_says_the_defaults() -> None:
    found = re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    section = yaml.safe_load(found[1])["redis"]
    section["url"] = "redis://127.0.0.1:6379/0"
    assert Redis.model_validate(section) == Redis.model_validate({"url": section["url"]})


def test_its_metrics_are_there() -> None:
    names = set(re.findall(r"`(agw_\w+)", PAGE))
    assert len(names) == 5
    assert names <= {family.name for family in FAMILIES}


def test_its_numbers_are_those_of_the_code() -> None:
    assert f"at most {MAX_CONNECTIONS} connections" in PAGE
    assert PROBE_SECONDS == MAX_REFUSED_NS / 1e9 == 1 / SWEEPS == 0.25
    assert SILENT_SECONDS == 5
    assert f"up to {Table().leases:,} subjects" in PAGE
