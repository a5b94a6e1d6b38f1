"""What those who run the gateway are told of its agents."""

import pytest

from agw_proxy.errors import ReloadFailed
from agw_proxy.states import AgentState
from tests.api.control import FakeControl, ask, by_name, tree


@pytest.fixture
def control() -> FakeControl:
    made = FakeControl()
    made.dropped_in = [
        AgentState(id="default/bad", status="failed", source="/a/bad/agent.py", error="no such thing"),
        AgentState(id="default/sky", status="ready", source="/a/sky/agent.py", version="0a1b", bounds={"turns": 3}),
        AgentState(id="default/sky", status="blocked", source="/b/sky/agent.py", error="taken"),
    ]
    return made


async def test_all_are_listed_with_every_field_that_is_documented(control: FakeControl) -> None:
    listed = tree(await ask(control, "/agents"))
    data = listed["data"]
    assert isinstance(data, list)
    assert [(item["id"], item["status"]) for item in data] == [
        ("default/bad", "failed"), ("default/sky", "ready"), ("default/sky", "blocked"),
    ]  # fmt: skip
    schema = by_name("agents").responses[200].content["application/json"]["properties"]["data"]["items"]
    assert all(set(item) == set(schema["required"]) == set(schema["properties"]) for item in data)


async def test_pages_go_on_behind_one_of_two_with_one_name(control: FakeControl) -> None:
    first = tree(await ask(control, "/agents", query={"limit": "2"}))
    second = tree(await ask(control, "/agents", query={"after": str(first["last_id"])}))
    data = second["data"]
    assert isinstance(data, list)
    assert [item["source"] for item in data] == ["/b/sky/agent.py"]


async def test_a_refresh_says_how_many_there_are_and_what_is_wrong(control: FakeControl) -> None:
    told = tree(await ask(control, "/agents/refresh", method="POST"))
    assert told["agents"] == {"ready": 1, "stale": 0, "failed": 1, "blocked": 1}
    assert told["agent_errors"] == {"default/bad": "no such thing", "default/sky": "taken"}
    control.fault = "gateway.yaml: a fault"
    with pytest.raises(ReloadFailed):
        await ask(control, "/agents/refresh", method="POST")
