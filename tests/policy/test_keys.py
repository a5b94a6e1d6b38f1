"""Keys become principals; whatever is wrong with a credential is said without repeating it."""

import hashlib

import pytest

from agw_proxy._hot.limit import Table
from agw_proxy.config.allowances import Budget, Limit, Team
from agw_proxy.config.settings import Key
from agw_proxy.errors import CallerError, KeyInvalid, KeyMissing
from agw_proxy.policy.budgets import Common
from agw_proxy.policy.keys import Keys

APP = "agw-app-0123456789abcdef"
BOSS = "agw-boss-0123456789abcdef"


def keys(*more: dict[str, object], everyone: tuple[Limit, ...] = ()) -> Keys:
    entries: list[dict[str, object]] = [
        {"name": "app", "key": APP, "models": ["gpt-*"], "tools": ["math.*"]},
        {"name": "boss", "key_sha256": hashlib.sha256(BOSS.encode()).hexdigest(), "admin": True},
        *more,
    ]
    return Keys([Key.model_validate(entry) for entry in entries], Common(everyone), Table(slots=8, gates=8))


@pytest.mark.parametrize(
    ("header", "value"),
    [
        (b"Authorization", f"Bearer {APP}"),
        (b"authorization", f"bearer  {APP} "),
        (b"X-Api-Key", APP),
        (b"api-key", APP),
        (b"x-goog-api-key", APP),
        (b"x-agw-key", APP),
    ],
)
def test_a_key_is_known_in_any_of_its_headers(header: bytes, value: str) -> None:
    principal, sent = keys().authenticate([(b"host", b"x"), (header, value.encode())])
    assert principal.name == "app"
    assert not principal.admin
    assert principal.models.match("gpt-4o")
    assert not principal.models.match("claude")
    assert principal.tools.match("math.add")
    assert (sent.header, sent.value) == (header.decode().lower(), APP.encode())


def test_a_key_given_by_its_digest_is_the_same_kind_of_key() -> None:
    principal, _ = keys().authenticate([(b"x-api-key", BOSS.encode())])
    assert (principal.name, principal.admin) == ("boss", True)
    assert principal.models.match("anything")
    assert not principal.tools.match("anything")


@pytest.mark.parametrize(
    "headers",
    [[], [(b"authorization", b"Basic eDp5")], [(b"x-api-key", b" ")], [(b"cookie", APP.encode())]],
    ids=["none", "another-scheme", "blank", "elsewhere"],
)
def test_no_key_is_401_and_says_where_to_put_one(headers: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(KeyMissing, match="Authorization: Bearer") as caught:
        keys().authenticate(headers)
    assert (caught.value.status, caught.value.alias) == (401, "invalid_api_key")


@pytest.mark.parametrize("sent", [APP.upper(), APP[:-1], APP + "x", "sk-provider-key", "a" * 5000])
def test_an_unknown_key_is_401_and_is_not_repeated(sent: str) -> None:
    with pytest.raises(KeyInvalid) as caught:
        keys().authenticate([(b"x-api-key", sent.encode())])
    assert caught.value.status == 401
    assert "x-api-key" in caught.value.message
    assert sent not in caught.value.message


def test_a_header_that_came_twice_is_400_and_named() -> None:
    with pytest.raises(CallerError, match="x-api-key came more than once") as caught:
        keys().authenticate([(b"x-api-key", APP.encode()), (b"X-API-Key", BOSS.encode())])
    assert caught.value.status == 400
    assert APP not in caught.value.message


def test_the_first_header_that_holds_a_key_decides_alone() -> None:
    sent = [(b"x-api-key", BOSS.encode()), (b"authorization", b"Bearer of-somebody-else")]
    with pytest.raises(KeyInvalid, match="authorization"):
        keys().authenticate(sent)
    principal, _ = keys().authenticate([*sent, (b"x-agw-key", APP.encode())])
    assert principal.name == "app"


def test_a_keys_own_limits_come_before_those_of_everyone() -> None:
    own: dict[str, object] = {
        "name": "tight",
        "key": "agw-tight-0123456789abcdef",
        "limits": [{"per": "key", "requests": 1}],
    }
    everyone = (Limit(per="global", requests=9, period=1.0),)
    made = keys(own, everyone=everyone).principals
    assert [rule.name for rule in made[2].limits.rules] == ["keys.tight/requests-per-key", "global/requests-per-global"]
    assert [rule.name for rule in made[0].limits.rules] == ["global/requests-per-global"]


def test_subjects_differ_by_name_and_outlive_a_reload() -> None:
    before, after = keys().principals, keys().principals
    assert [principal.subject for principal in before] == [principal.subject for principal in after]
    assert before[0].subject != before[1].subject


def test_the_same_key_twice_is_refused() -> None:
    with pytest.raises(ValueError):
        keys({"name": "again", "key": APP})


def test_a_key_without_a_team_is_not_held_to_what_each_team_is_held_to() -> None:
    budget = Budget.model_validate({"per": ["team"], "usd": 5, "unpriced": "refuse", "on_end": "finish"})
    common = Common(budgets=(budget,), teams=(Team(name="red"),))
    entries = [{"name": "app", "key": APP}, {"name": "ann", "key": BOSS, "team": "red"}]
    made = Keys([Key.model_validate(entry) for entry in entries], common, Table(slots=8, gates=8))
    app, ann = made.principals
    assert (app.needs_price, app.finishes, list(app.budgets)) == (False, False, [])
    assert (ann.needs_price, ann.finishes, list(ann.budgets)) == (True, True, ["global/budget-per-team-month"])
