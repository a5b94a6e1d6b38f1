"""What a configuration needs that is not installed is told at the start, not by the first request."""

from importlib.machinery import ModuleSpec
from typing import Any

import pytest

from agw_proxy.config import extras
from agw_proxy.config.loader import ConfigError
from agw_proxy.config.settings import Settings

BEDROCK = {"name": "b", "dialect": "bedrock", "aws": {"region": "us-east-1"}}
VERTEX = {"name": "v", "dialect": "vertex", "google": {"project": "p"}}


@pytest.mark.parametrize(
    ("sections", "package", "extra"),
    [
        ({"redis": {"url": "redis://h"}}, "redis", "redis"),
        ({"cache": {"backend": "disk"}}, "diskcache", "cache"),
        ({"cache": {}}, None, None),
        ({"store": {"url": "postgresql://h/d"}}, "psycopg", "sql"),
        ({"store": {}}, None, None),
        ({"upstreams": [BEDROCK]}, "botocore", "bedrock"),
        ({"upstreams": [VERTEX]}, "google.auth", "vertex"),
        ({"trace": {"endpoint": "http://c:4318"}}, extras.OTLP, "otel"),
        ({"trace": {"sample": 0.5}}, None, None),
        ({}, None, None),
    ],
)
def test_a_package_that_is_missing_is_named_with_its_extra(
    sections: dict[str, Any], package: str | None, extra: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings.model_validate(sections)
    extras.check_extras(settings)  # all are installed here
    monkeypatch.setattr(extras, "find_spec", lambda name: None if name == package else ModuleSpec(name, None))
    if package is None:
        extras.check_extras(settings)
        return
    with pytest.raises(ConfigError, match=rf"needs the package {package}: pip install 'agw-proxy\[{extra}\]'"):
        extras.check_extras(settings)


def test_a_package_within_one_that_is_missing_is_missing() -> None:
    assert extras.find_spec("agw_there_is_none.within") is None
