"""What may stand in ``redis.url``; a password in it is never shown."""

import pytest
from pydantic import ValidationError

from agw_proxy.config.storage import Redis


@pytest.mark.parametrize(
    "url",
    ["redis://h", "redis://:pw@h:6379/1", "rediss://user:pw@h:1?ssl_check_hostname=true", "unix:///run/redis.sock"],
)
def test_urls_of_all_three_kinds_are_taken(url: str) -> None:
    settings = Redis.model_validate({"url": url})
    assert settings.url.get_secret_value() == url
    assert "pw" not in repr(settings)


@pytest.mark.parametrize("url", ["h:6379", "http://h", "redis://h:port", "redis://h:70000", "redis://:s3cret@h:0"])
def test_others_are_refused_without_quoting_them(url: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Redis.model_validate({"url": url})
    assert "expected a URL such as redis://" in refused.value.errors()[0]["msg"]
    assert "s3cret" not in refused.value.errors()[0]["msg"]
