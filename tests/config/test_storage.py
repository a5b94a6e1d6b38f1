"""Where sessions are kept: which URLs are taken, and that none is shown."""

import pytest
from pydantic import ValidationError

from agw_proxy.config.storage import Store


@pytest.mark.parametrize(
    "url", ["postgresql://u:p@h:5432/d", "postgres:///d?host=/run/pg", "postgresql://a:1,[::1]:2/d"]
)
def test_a_url_of_postgresql_is_taken_and_not_shown(url: str) -> None:
    store = Store.model_validate({"url": url})
    assert store.url is not None
    assert store.url.get_secret_value() == url
    assert "u:p" not in repr(store) + str(store.model_dump())


@pytest.mark.parametrize("url", ["mysql://u:secret@h/d", "u:secret@h", "postgresql://u:secret@h:port/d", ""])
def test_another_is_refused_without_its_words(url: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Store.model_validate({"url": url})
    (error,) = caught.value.errors(include_input=False, include_context=False)
    assert "expected a URL such as postgresql://" in error["msg"]
    assert "secret" not in error["msg"]
