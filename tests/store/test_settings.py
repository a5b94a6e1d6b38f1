"""What may stand in ``redis.url``; a password in it is never shown."""

import pytest
from pydantic import ValidationError

from agw_proxy.config.storage import Redis


@pytest.mark.parametrize(
    "url",
    [
        "redis://h",
        "redis://:pw@h:6379/1",
        "redis://h/?client_name=agw&db=2",
        "rediss://user:pw@h:1?ssl_check_hostname=true&ssl_ca_certs=/etc/ca.pem",
        "unix:///run/redis.sock",
        "unix:///run/redis.sock?db=1&password=pw",
    ],
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


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("redis://:s3cret@h/0?s3cret=1", "one is not known here; expected client_name, db, password, username"),
        ("redis://h?max_connections=99", "one is not known here"),
        ("redis://h?decode_responses=true", "one is not known here"),
        ("redis://h?ssl_ca_certs=/etc/ca.pem", "one is not known here"),
        ("rediss://h?ssl_ca_certz=/etc/ca.pem", "ssl_ca_certs"),
        ("redis://h/s3cret", "expected the number of a database"),
        ("redis://h?db=s3cret", "expected the number of a database"),
    ],
)
def test_what_the_client_would_stumble_over_is_refused(url: str, why: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Redis.model_validate({"url": url})
    assert why in refused.value.errors()[0]["msg"]
    assert "s3cret" not in refused.value.errors()[0]["msg"]
