"""The models list is the key's own."""

import openai
import pytest

from agw_proxy.errors import KeyMissing, ModelNotFound
from tests.api.control import FakeControl, ask, principal, tree


async def test_the_list_has_what_the_key_may_use_in_order() -> None:
    answer = await ask(FakeControl(), "/v1/models", caller=principal())
    assert answer.status == 200
    assert tree(answer) == {
        "object": "list",
        "data": [
            {"id": "gpt-4o", "object": "model", "created": 17, "owned_by": "openai"},
            {"id": "agw/echo", "object": "model", "created": 0, "owned_by": "agw"},
            {"id": "team/a b", "object": "model", "created": 0, "owned_by": "agw"},
        ],
    }
    narrow = tree(await ask(FakeControl(), "/v1/models", caller=principal("gpt-*")))
    assert narrow["data"] == [{"id": "gpt-4o", "object": "model", "created": 17, "owned_by": "openai"}]
    assert tree(await ask(FakeControl(), "/v1/models", caller=principal("none"))) == {"object": "list", "data": []}


@pytest.mark.parametrize("path", ["/v1/models/team/a%20b", "/v1/models/team%2Fa%20b"])
async def test_one_model_is_described_as_the_sdk_reads_it(path: str) -> None:
    answer = await ask(FakeControl(), path, caller=principal())
    assert openai.types.Model.model_validate_json(answer.body, strict=True).id == "team/a b"


@pytest.mark.parametrize(("name", "patterns"), [("no-such", ["*"]), ("gpt-4o", ["team/*"]), ("GPT-4O", ["*"])])
async def test_a_model_that_is_not_in_the_list_is_not_found(name: str, patterns: list[str]) -> None:
    with pytest.raises(ModelNotFound, match=name):
        await ask(FakeControl(), f"/v1/models/{name}", caller=principal(*patterns))


async def test_nobody_sees_no_model() -> None:
    with pytest.raises(KeyMissing):
        await ask(FakeControl(), "/v1/models", caller=None)
