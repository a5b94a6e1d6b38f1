"""Who may see and end which sessions of agents, and how they are told."""

from collections.abc import Mapping

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


async def listed(control: FakeControl, caller: Principal | None = None, **query: str) -> list[tuple[str, str]]:
    answer = tree(await ask(control, "/sessions", caller=caller or principal(), query=query))
    return [(each["agent"], each["id"]) for each in answer["data"]]


async def test_a_key_has_its_own_by_pages(control: FakeControl) -> None:
    first = tree(await ask(control, "/sessions", caller=principal(), query={"limit": "2"}))
    assert [each["id"] for each in first["data"]] == ["a", "b c"]
    assert (first["has_more"], first["last_id"]) == (True, "default/clerk b c")
    assert first["data"][0] == {
        "id": "a", "agent": "default/clerk", "created_at": AT, "used_at": AT, "expires_at": AT, "turns": 2, "bytes": 100,
    }  # fmt: skip
    assert await listed(control, after=first["last_id"]) == [("team/tax", "a")]


@pytest.mark.parametrize("query", [{"limit": "0"}, {"limit": "x"}, {"limit": "1001"}])
async def test_a_limit_is_a_number(control: FakeControl, query: Mapping[str, str]) -> None:
    with pytest.raises(InvalidParameter):
        await listed(control, **query)


async def test_one_name_may_be_of_several_agents(control: FakeControl) -> None:
    answer = tree(await ask(control, "/sessions/a", caller=principal()))
    assert [each["agent"] for each in answer["data"]] == ["default/clerk", "team/tax"]
    with pytest.raises(NotKept):
        await ask(control, "/sessions/z", caller=principal())


async def test_only_an_admin_may_name_another_key(control: FakeControl) -> None:
    assert await listed(control, BOSS, key="other") == [("default/clerk", "z")]
    for path, method in (("/sessions", "GET"), ("/sessions/z", "GET"), ("/sessions/z", "DELETE")):
        with pytest.raises(AdminOnly):
            await ask(control, path, method=method, caller=principal(), query={"key": "other"})
    await ask(control, "/sessions/z", method="DELETE", caller=BOSS, query={"key": "other"})
    assert control.talks["other"] == []


async def test_what_is_deleted_is_gone(control: FakeControl) -> None:
    answer = tree(await ask(control, "/sessions/a", method="DELETE", caller=principal()))
    assert answer == {"id": "a", "object": "session", "deleted": True}
    assert await listed(control) == [("default/clerk", "b c")]
    with pytest.raises(NotKept):
        await ask(control, "/sessions/a", method="DELETE", caller=principal())
