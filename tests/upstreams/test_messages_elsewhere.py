"""What a cloud wants different in a body of messages is changed, and nothing else."""

import orjson
import pytest

from agw_proxy.errors import InvalidJSON
from agw_proxy.upstreams.messages_elsewhere import betas, enveloped


@pytest.mark.parametrize(
    ("body", "made", "stream"),
    [
        (b'{"model":"m","stream":true,"a":1}', b'{"a":1,"v":"1"}', True),
        (b'{ "a" : {"model": 12345678901234567890123, "b":1.0} }', b'{"a":{"model": 12345678901234567890123, "b":1.0},"v":"1"}', False),
        (b'{"v":"caller\'s","stream":false}', b'{"v":"caller\'s"}', False),
    ],
)  # fmt: skip
def test_members_go_and_come_and_the_others_stay(body: bytes, made: bytes, *, stream: bool) -> None:
    found = enveloped(body, without=("model", "stream"), put={"v": "1"})
    assert (found.body, found.stream) == (made, stream)
    assert orjson.loads(found.body)


@pytest.mark.parametrize("body", [b"[]", b"", b'{"a":'])
def test_what_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidJSON):
        enveloped(body, without=(), put={})


def test_betas_come_once_and_without_those_of_anthropics_own() -> None:
    headers = [("Anthropic-Beta", "a-1, oauth-2025-04-20,,b-2"), ("accept", "x"), ("anthropic-beta", "a-1")]
    assert betas(headers) == ["a-1", "b-2"]
