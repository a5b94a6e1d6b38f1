"""How an explanation is asked for, and who may ask for whose."""

import orjson
import pytest

from agw_proxy.errors import AdminOnly, CallerError, InvalidJSON, InvalidParameter, KeyMissing
from agw_proxy.types import ExplainWanted, Principal
from tests.api.control import FakeControl, ask, principal, tree

BODY = b'{"model":"gpt-4o","messages":[]}'


async def asked(body: bytes, *, caller: Principal | None = None, **query: str) -> tuple[str, ExplainWanted]:
    control = FakeControl()
    answer = await ask(control, "/explain", method="POST", caller=caller or principal(), query=query, body=body)
    assert tree(answer) == {"object": "explanation"}
    return control.explained[0]


async def test_a_request_can_be_sent_as_it_is() -> None:
    name, wanted = await asked(BODY)
    assert (name, wanted) == ("test", ExplainWanted(None, BODY))
    _, wanted = await asked(BODY, path="/v1/messages")
    assert wanted.path == "/v1/messages"


async def test_or_with_what_comes_with_it() -> None:
    whole = {"request": {"model": "m"}, "headers": {"X-Session-Id": "s"}, "path": "/v1/responses", "key": "test"}
    name, wanted = await asked(orjson.dumps(whole))
    assert name == "test"
    assert wanted == ExplainWanted("/v1/responses", b'{"model":"m"}', {"x-session-id": "s"}, "test")


async def test_only_an_admin_key_asks_for_others() -> None:
    with pytest.raises(AdminOnly):
        await asked(BODY, key="other")
    name, _ = await asked(BODY, caller=principal(admin=True), key="other")
    assert name == "other"


async def test_without_a_key_nothing_is_told() -> None:
    with pytest.raises(KeyMissing):
        await ask(FakeControl(), "/explain", method="POST", body=BODY)


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", InvalidJSON),
        (b"[]", InvalidJSON),
        (b'{"request":7}', InvalidParameter),
        (b'{"request":{},"headers":{"a":1}}', InvalidParameter),
        (b'{"request":{},"other":1}', InvalidParameter),
    ],
)
async def test_what_is_not_understood_is_refused(body: bytes, error: type[CallerError]) -> None:
    with pytest.raises(error):
        await asked(body)
