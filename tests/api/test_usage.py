"""Who may ask for which usage, and how it is told."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pytest

from agw_proxy.errors import AdminOnly, InvalidParameter, KeyMissing
from agw_proxy.types import Principal, UsagePage, UsageWanted
from tests.api.control import FakeControl, ask, principal, tree

BOSS = principal(admin=True)
ROWS = (
    (("2026-11-20", "test|1", "gpt-4o"), (3, 1, 20, 8, 10, 1_250_000, 1)),
    (("2026-11-21", "50%", "gpt-4o"), (1, 0, 0, 0, 0, 1, 0)),
)


async def wanted_by(caller: Principal, query: Mapping[str, str]) -> UsageWanted:
    control = FakeControl()
    await ask(control, "/usage", caller=caller, query=query)
    return control.wanted[0]


async def wanted(**query: str) -> UsageWanted:
    return await wanted_by(BOSS, query)


async def test_a_key_sees_itself() -> None:
    assert (await wanted_by(principal(), {})).only == {"key": "test"}
    assert (await wanted_by(principal(), {"key": "test", "model": "m"})).only == {"key": "test", "model": "m"}


@pytest.mark.parametrize("query", [{"key": "other"}, {"team": "red"}, {"key": ""}])
async def test_a_key_sees_no_other(query: dict[str, str]) -> None:
    with pytest.raises(AdminOnly):
        await wanted_by(principal(), query)


async def test_without_a_key_nothing_is_told() -> None:
    with pytest.raises(KeyMissing):
        await ask(FakeControl(), "/usage")


async def test_an_admin_key_sees_all_or_what_it_asks_for() -> None:
    assert (await wanted()).only == {}
    asked = await wanted(key="k" * 70, team="red", upstream="openai", limit="7", group="team,day")
    assert asked.only["key"].startswith("kkkk")
    assert len(asked.only["key"]) == 63
    assert (asked.only["team"], asked.only["upstream"], asked.limit, asked.group) == (
        "red",
        "openai",
        7,
        ("team", "day"),
    )


async def test_thirty_days_until_today_are_meant() -> None:
    today = datetime.now(UTC).date()
    asked = await wanted()
    if asked.until == today.isoformat():  # else midnight has passed meanwhile
        assert asked.since == (today - timedelta(days=29)).isoformat()
    asked = await wanted(to="2026-03-01")
    assert (asked.since, asked.until) == ("2026-01-31", "2026-03-01")
    assert asked.group == ("day", "key", "model")


async def test_the_first_of_all_days_has_none_before_it() -> None:
    asked = await wanted(to="0001-01-01")
    assert (asked.since, asked.until) == ("0001-01-01", "0001-01-01")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("from", "20261121"), ("to", "2026-13-01"), ("to", "today"), ("from", "2026-W01-1"),
        ("group", "user"), ("group", "day,day"), ("group", ""),
        ("limit", "0"), ("limit", "1001"), ("limit", "x"), ("after", "one|two"), ("user", "me"),
    ],
)  # fmt: skip
async def test_what_is_not_understood_is_named(name: str, value: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        await wanted(**{name: value})
    assert caught.value.param == name


async def test_rows_are_told_with_what_they_are_about() -> None:
    control = FakeControl()
    control.used = UsagePage(ROWS, (4, 1, 20, 8, 10, 1_250_001, 1), more=True, trouble="disk full")
    told = tree(await ask(control, "/usage", caller=BOSS))
    data = told["data"]
    assert isinstance(data, list)
    assert data[0] == {
        "id": "2026-11-20|test%7C1|gpt-4o",
        "day": "2026-11-20",
        "key": "test|1",
        "model": "gpt-4o",
        "requests": 3,
        "errors": 1,
        "input_tokens": 20,
        "cached_tokens": 8,
        "output_tokens": 10,
        "cost_micro_usd": 1_250_000,
        "unpriced": 1,
        "cost_usd": 1.25,
    }
    assert told["total"] == {
        "requests": 4, "errors": 1, "input_tokens": 20, "cached_tokens": 8, "output_tokens": 10,
        "cost_micro_usd": 1_250_001, "unpriced": 1, "cost_usd": 1.250001,
    }  # fmt: skip
    assert (told["has_more"], told["first_id"], told["last_id"]) == (True, data[0]["id"], "2026-11-21|50%25|gpt-4o")
    assert told["trouble"] == "disk full"


@pytest.mark.parametrize("row", [group for group, _ in ROWS])
async def test_the_next_page_begins_where_the_last_one_ended(row: tuple[str, ...]) -> None:
    control = FakeControl()
    control.used = UsagePage(((row, (0,) * 7),), (0,) * 7, more=True)
    last = tree(await ask(control, "/usage", caller=BOSS))["last_id"]
    assert isinstance(last, str)
    assert (await wanted(after=last)).after == row
