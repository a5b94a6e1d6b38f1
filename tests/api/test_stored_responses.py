"""Which paths may be about what is kept, and what is answered there."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from agw_proxy.api import stored_responses
from agw_proxy.api.stored_responses import About, about, mint, ours, serve
from agw_proxy.errors import CallerError, InvalidJSON, InvalidParameter, NotKept
from agw_proxy.store.responses import Item, Responses, Turn

ME = "key:me"


@pytest.fixture
async def kept(tmp_path: Path) -> AsyncIterator[Responses]:
    made = Responses(tmp_path / "responses.db", 8 << 20, 60.0)
    yield made
    await made.close()


async def ask(kept: Responses, method: str, path: str, body: object = None, **query: str) -> Any:
    asked = about(method, f"/v1/{path}")
    assert asked is not None
    return orjson.loads(await serve(kept, ME, asked, query, orjson.dumps(body) if body is not None else b""))


@pytest.mark.parametrize(
    ("method", "path", "found"),
    [
        ("GET", "/v1/responses/a", About("GET", "responses", "a")),
        ("HEAD", "/v1/responses/a", About("GET", "responses", "a")),
        ("GET", "/v1/responses/a%2Fb", About("GET", "responses", "a/b")),
        ("POST", "/v1/responses/a/cancel", About("POST", "responses", "a", "cancel")),
        ("POST", "/v1/conversations", About("POST", "conversations", "")),
        ("DELETE", "/v1/conversations/c/items/i", About("DELETE", "conversations", "c", "item", "i")),
        ("POST", "/v1/responses/input_tokens", None),
        ("GET", "/v1/responses/a/items/b", None),
        ("GET", "/v1/conversations/c/item", None),
        ("GET", "/v1/conversations/c/items/i/more", None),
        ("GET", "/v1/conversations", None),
        ("GET", "/v1/conversations/", None),
        ("POST", "/v1/responses/a", None),
        ("GET", "/v1/files/a", None),
        ("GET", "/v1/responses/" + "a" * 257, None),
    ],
)
def test_a_path_says_what_it_is_about(method: str, path: str, found: About | None) -> None:
    assert about(method, path) == found


def test_an_id_of_ours_is_known() -> None:
    assert ours(mint("resp"))
    assert ours(mint("conv"))
    assert not ours("resp_68a1f0e2")
    assert mint("resp") != mint("resp")


@pytest.mark.parametrize(
    "query", [{"limit": "0"}, {"limit": "101"}, {"limit": "x"}, {"order": "up"}, {"after": "none"}]
)
async def test_a_page_that_cannot_be_is_refused(kept: Responses, query: dict[str, str]) -> None:
    await kept.keep(ME, Turn("resp_1", None, -1, b"{}", [Item("a", b"{}")]), (), None)
    with pytest.raises(InvalidParameter) as refused:
        await ask(kept, "GET", "responses/resp_1/input_items", **query)
    assert refused.value.param == next(iter(query))


async def test_pages_are_the_newest_first_and_of_twenty(kept: Responses) -> None:
    items = [Item(str(number), orjson.dumps({"id": str(number)})) for number in range(30)]
    await kept.keep(ME, Turn("resp_1", None, -1, b"{}", items), (), None)
    page = await ask(kept, "GET", "responses/resp_1/input_items")
    assert [item["id"] for item in page["data"]] == [str(number) for number in range(29, 9, -1)]
    assert (page["first_id"], page["last_id"], page["has_more"], page["object"]) == ("29", "10", True, "list")
    page = await ask(kept, "GET", "responses/resp_1/input_items", after="10")
    assert (len(page["data"]), page["has_more"]) == (10, False)
    page = await ask(kept, "GET", "responses/resp_1/input_items", after="0")
    assert page == {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}


async def test_a_conversation_takes_so_many_items_at_once(kept: Responses) -> None:
    one = {"type": "message", "role": "user", "content": "x"}
    made = await ask(kept, "POST", "conversations")
    assert (made["object"], made["metadata"]) == ("conversation", {})
    added = await ask(kept, "POST", f"conversations/{made['id']}/items", {"items": [one] * 20})
    assert (len(added["data"]), added["has_more"]) == (20, False)
    again = await ask(kept, "POST", f"conversations/{made['id']}/items", {"items": [added["data"][0]]})
    assert again["data"][0].pop("id") != added["data"][0]["id"]
    assert again["data"][0].items() < added["data"][0].items()
    bad: list[Any] = [{"items": [one] * 21}, {"items": []}, {"items": "x"}, {}, {"items": [1]}]
    for body in bad:
        with pytest.raises(InvalidParameter) as refused:
            await ask(kept, "POST", f"conversations/{made['id']}/items", body)
        assert (refused.value.param or "").startswith("items")
    with pytest.raises(NotKept, match="Item with id 'msg_none' not found"):
        await ask(kept, "POST", "conversations", {"items": [{"type": "item_reference", "id": "msg_none"}]})
    for metadata in ("x", {"a": 1}, {str(number): "" for number in range(17)}):
        with pytest.raises(InvalidParameter):
            await ask(kept, "POST", "conversations", {"metadata": metadata})
    with pytest.raises(InvalidJSON):
        await ask(kept, "POST", "conversations", [])


async def test_items_that_are_named_have_a_bound_too(kept: Responses, monkeypatch: pytest.MonkeyPatch) -> None:
    made = await ask(kept, "POST", "conversations", {"items": [{"role": "user", "content": "x" * 100}]})
    page = await ask(kept, "GET", f"conversations/{made['id']}/items")
    named = [{"type": "item_reference", "id": page["data"][0]["id"]}] * 2
    assert len((await ask(kept, "POST", f"conversations/{made['id']}/items", {"items": named}))["data"]) == 2
    monkeypatch.setattr(stored_responses, "MAX_NAMED_BYTES", 300)
    with pytest.raises(InvalidParameter, match="too large"):
        await ask(kept, "POST", f"conversations/{made['id']}/items", {"items": named})


@pytest.mark.parametrize(
    ("item", "param"),
    [
        ({"role": "user", "content": [1]}, "items[1].content[0]"),
        ({"type": 7, "role": "user", "content": "x"}, "items[1].type"),
        ({"type": "function_call", "call_id": "c"}, "items[1].name"),
        ({"type": "item_reference"}, "items"),
    ],
)
async def test_an_item_that_no_turn_could_go_on_from_is_not_taken(kept: Responses, item: Any, param: str) -> None:
    one = {"type": "message", "role": "user", "content": "x"}
    with pytest.raises(InvalidParameter) as refused:
        await ask(kept, "POST", "conversations", {"items": [one, item]})
    assert refused.value.param == param
    assert "input" not in refused.value.message
    made = await ask(kept, "POST", "conversations", {"items": [one, {"type": "of_tomorrow", "any": [1]}]})
    assert made["object"] == "conversation"


async def test_what_is_not_there_is_named(kept: Responses) -> None:
    made = await ask(kept, "POST", "conversations", {})
    for method, path, noun in (
        ("GET", "responses/resp_1", "Response"),
        ("POST", "responses/resp_1/cancel", "Response"),
        ("DELETE", "conversations/conv_1", "Conversation"),
        ("GET", f"conversations/{made['id']}/items/i", "Item"),
    ):
        with pytest.raises(NotKept, match=f"^{noun} with id"):
            await ask(kept, method, path)


async def test_a_response_is_deleted_once(kept: Responses) -> None:
    await kept.keep(ME, Turn("resp_1", None, -1, b'{"id":"resp_1"}', []), (), None)
    with pytest.raises(CallerError, match="synchronous"):
        await ask(kept, "POST", "responses/resp_1/cancel")
    assert await ask(kept, "GET", "responses/resp_1") == {"id": "resp_1", "output": []}
    assert await ask(kept, "DELETE", "responses/resp_1") == {"id": "resp_1", "object": "response", "deleted": True}
    with pytest.raises(NotKept):
        await ask(kept, "DELETE", "responses/resp_1")
