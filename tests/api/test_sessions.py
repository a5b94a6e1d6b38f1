"""Who may see and end which sessions of agents, and how they are told."""

from typing import Any

import pytest

from agw_proxy.errors import AdminOnly, InvalidParameter, NotKept
from agw_proxy.states import SessionState
from agw_proxy.types import Principal
from tests.api.control import FakeControl, ask, principal, tree

BOSS = principal(admin=True)
AT = "2026-11-21T20:00:00Z"


def session(name: str, agent: str = "default/clerk") -> SessionState:
    return SessionState(name, agent, AT, AT, AT, 2, 100)


@pytest.fixture
def control() -> FakeControl:
    made = FakeControl()
    made.talks = {"test": [session("a"), session("b c"), session("a", "team/tax")], "other": [session("z")]}
    return made


async def got(
    control: FakeControl, path: str, method: str = "GET", caller: Principal | None = None, **query: str
) -> Any:
    return tree(await ask(control, path, method=method, caller=caller or principal(), query=query))


async def listed(control: FakeControl, caller: Principal | None = None, **query: str) -> list[tuple[str, str]]:
    answer = await got(control, "/sessions", caller=caller, **query)
    return [(each["agent"], each["id"]) for each in answer["data"]]


async def test_a_key_has_its_own_by_pages(control: FakeControl) -> None:
    first = await got(control, "/sessions", limit="2")
    assert [each["id"] for each in first["data"]] == ["a", "b c"]
    assert (first["has_more"], first["last_id"]) == (True, "default/clerk b c")
    assert first["data"][0] == {
        "id": "a", "agent": "default/clerk", "created_at": AT, "used_at": AT, "expires_at": AT, "turns": 2, "bytes": 100,
    }  # fmt: skip
    assert await listed(control, after=first["last_id"]) == [("team/tax", "a")]


@pytest.mark.parametrize("limit", ["0", "x", "1001"])
async def test_a_limit_is_a_number(control: FakeControl, limit: str) -> None:
    with pytest.raises(InvalidParameter):
        await listed(control, limit=limit)


async def test_one_name_may_be_of_several_agents(control: FakeControl) -> None:
    answer = await got(control, "/sessions/a")
    assert [each["agent"] for each in answer["data"]] == ["default/clerk", "team/tax"]
    with pytest.raises(NotKept):
        await got(control, "/sessions/z")


async def test_only_an_admin_may_name_another_key(control: FakeControl) -> None:
    assert await listed(control, BOSS, key="other") == [("default/clerk", "z")]
    for path, method in (("/sessions", "GET"), ("/sessions/z", "GET"), ("/sessions/z", "DELETE")):
        with pytest.raises(AdminOnly):
            await got(control, path, method, key="other")
    await got(control, "/sessions/z", "DELETE", BOSS, key="other")
    assert control.talks["other"] == []


async def test_what_can_be_no_name_is_asked_of_no_database(control: FakeControl) -> None:
    for query in ({"after": "default/clerk a\0"}, {"key": "other\0"}):
        with pytest.raises(InvalidParameter):
            await listed(control, BOSS, **query)


async def test_what_is_deleted_is_gone(control: FakeControl) -> None:
    answer = await got(control, "/sessions/a", "DELETE")
    assert answer == {"id": "a", "object": "session", "deleted": True}
    assert await listed(control) == [("default/clerk", "b c")]
    with pytest.raises(NotKept):
        await got(control, "/sessions/a", "DELETE")
