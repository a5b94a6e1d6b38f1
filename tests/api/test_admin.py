"""What those who run the gateway can ask of it."""

import pytest

from agw_proxy.api.admin.paging import MAX_LIMIT
from agw_proxy.api.table import ENDPOINTS
from agw_proxy.errors import InvalidParameter, ModelNotFound, ReloadFailed
from tests.api.control import FakeControl, ask, by_name, principal, state, tree


async def names(control: FakeControl, **query: str) -> list[str]:
    listed = tree(await ask(control, "/upstreams", query=query))
    data = listed["data"]
    assert isinstance(data, list)
    found = [item["name"] for item in data]
    assert [listed["first_id"], listed["last_id"]] == ([found[0], found[-1]] if found else [None, None])
    return found


def test_they_need_a_key_with_the_right() -> None:
    access = {item.name: item.access for item in ENDPOINTS if item.tag == "Operation"}
    assert access == {
        "metrics": "scrape",
        "metrics_prometheus": "scrape",
        "upstreams": "admin",
        "upstreams_refresh": "admin",
        "upstream_egress": "admin",
        "agents": "admin",
        "agents_refresh": "admin",
        "security_refresh": "admin",
    }


async def test_upstreams_are_listed_whole_and_in_order() -> None:
    listed = tree(await ask(FakeControl(), "/upstreams"))
    assert listed["object"] == "list"
    assert [listed[name] for name in ("has_more", "first_id", "last_id")] == [False, "openai", "local"]
    data = listed["data"]
    assert isinstance(data, list)
    assert data[0] == {
        "name": "openai",
        "dialect": "openai",
        "base_url": "https://openai.example/v1",
        "auth": "key",
        "models": ["gpt-*"],
        "state": "unused",
        "since": None,
        "last_error": None,
        "requests": 0,
        "failures": 0,
        "targets": [],
        "dead_keys": 0,
        "queue": None,
        "probe": None,
    }


async def test_pages_follow_one_another_without_gap_or_repeat() -> None:
    control = FakeControl()
    control.known = [state(f"u{number}") for number in range(7)]
    seen: list[str] = []
    query = {"limit": "3"}
    sizes = []
    while True:
        listed = tree(await ask(control, "/upstreams", query=query))
        found = await names(control, **query)
        seen += found
        sizes.append(len(found))
        query["after"] = found[-1]
        if not listed["has_more"]:
            break
    assert seen == [f"u{number}" for number in range(7)]
    assert sizes == [3, 3, 1]
    assert await names(control, after="u6") == []


async def test_a_page_that_ends_with_the_list_has_no_more() -> None:
    assert tree(await ask(FakeControl(), "/upstreams", query={"limit": "3"}))["has_more"] is False
    assert tree(await ask(FakeControl(), "/upstreams", query={"limit": "2"}))["has_more"] is True


async def test_sorting_goes_both_ways_and_keeps_the_order_of_equals() -> None:
    control = FakeControl()
    control.known = [state("b", requests=1), state("c", requests=2), state("a", requests=1)]
    assert await names(control, sort="name") == ["a", "b", "c"]
    assert await names(control, sort="-name") == ["c", "b", "a"]
    assert await names(control, sort="requests") == ["b", "a", "c"]
    assert await names(control, sort="-requests") == ["c", "b", "a"]
    assert await names(control, sort="-requests", after="c", limit="1") == ["b"]


async def test_every_documented_sort_is_served() -> None:
    [sort] = [item for item in by_name("upstreams").query if item.name == "sort"]
    for value in sort.schema["enum"]:
        assert sorted(await names(FakeControl(), sort=value)) == ["claude", "local", "openai"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("limit", value) for value in ("", "0", "-1", "+1", " 1", "1.0", "1e2", "1_0", "\u0661", str(MAX_LIMIT + 1))],
        ("limit", "9" * 5000),
        ("after", "nobody"),
        ("after", ""),
        *[("sort", value) for value in ("", "-", "--name", "base_url", "__class__", "Name")],
    ],
)
async def test_a_query_value_out_of_range_is_named(name: str, value: str) -> None:
    with pytest.raises(InvalidParameter, match=name) as caught:
        await ask(FakeControl(), "/upstreams", query={name: value})
    assert caught.value.param == name


async def test_a_refresh_answers_with_its_outcome_or_fails_with_the_reason() -> None:
    control = FakeControl()
    assert tree(await ask(control, "/upstreams/refresh", method="POST")) == {"upstreams": 2}
    assert tree(await ask(control, "/security/refresh", method="POST")) == {"version": 2}
    control.fault = "keys.0: expected a key"
    for path in ("/upstreams/refresh", "/security/refresh"):
        with pytest.raises(ReloadFailed, match="keys"):
            await ask(control, path, method="POST")


async def test_metrics_come_as_text_for_prometheus() -> None:
    answer = await ask(FakeControl(), "/metrics/prometheus")
    assert answer.content_type == "text/plain; version=0.0.4; charset=utf-8"
    assert answer.body == b"agw_requests_total 1\n"


async def test_metrics_come_as_json_and_the_configuration_for_an_admin_alone() -> None:
    plain = tree(await ask(FakeControl(), "/metrics", caller=None))
    assert plain == {"agw_requests_total": [{"labels": {}, "value": 1}]}
    assert tree(await ask(FakeControl(), "/metrics", caller=principal())) == plain
    whole = tree(await ask(FakeControl(), "/metrics", caller=principal(admin=True)))
    assert whole == {**plain, "configuration": {"version": 1, "last_error": "gateway.yaml: a fault"}}


async def test_egress_is_of_one_upstream() -> None:
    assert tree(await ask(FakeControl(), "/upstreams/claude/egress")) == {"object": "egress", "upstream": "claude"}
    with pytest.raises(ModelNotFound, match="nobody"):
        await ask(FakeControl(), "/upstreams/nobody/egress")
