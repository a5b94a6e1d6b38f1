"""What a configuration needs that is not installed is told at the start, not by the first request."""

from importlib.machinery import ModuleSpec
from typing import Any

import pytest

from agw_proxy.config import extras
from agw_proxy.config.loader import ConfigError
from agw_proxy.config.settings import Settings


@pytest.mark.parametrize(
    ("sections", "package", "extra"),
    [
        ({"redis": {"url": "redis://h"}}, "redis", "redis"),
        ({"cache": {"backend": "disk"}}, "diskcache", "cache"),
        ({"cache": {}}, None, None),
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
