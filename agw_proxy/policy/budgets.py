"""What a key comes under: the rules of all places that hold for it, and which of them are budgets."""

from collections.abc import Mapping, Sequence

import msgspec

from agw_proxy._hot.limit import PER_MODEL, PER_TEAM, PER_UPSTREAM, Limits, Rule, Table, subject
from agw_proxy.config.allowances import Budget, Limit, Sessions, Team
from agw_proxy.config.settings import Key
from agw_proxy.policy.limits import Names, Place, compile_budgets, compile_limits, compile_sessions

Owned = Sequence[tuple[str, Sequence[Limit]]]


class Common(msgspec.Struct, frozen=True):
    """What stands elsewhere than at a key."""

    limits: Sequence[Limit] = ()
    budgets: Sequence[Budget] = ()
    sessions: Sessions | None = None
    teams: Sequence[Team] = ()
    upstreams: Owned = ()
    """By the upstream's name."""
    models: Owned = ()
    leased: bool = False
    """Limits are shared with other gateways."""


class Allowance(msgspec.Struct, frozen=True):
    """What one key may use."""

    limits: Limits
    budgets: Mapping[str, Budget]
    """By the rule's name."""
    derive: bool
    """Sessions are told apart by how they begin."""

    @property
    def needs_price(self) -> bool:
        """A model without a price is refused."""
        return any(budget.unpriced == "refuse" for budget in self.budgets.values())

    @property
    def finishes(self) -> bool:
        """Streams are made to finish where a budget has no more."""
        return any(budget.on_end == "finish" for budget in self.budgets.values())


def allowance(key: Key, common: Common, table: Table) -> Allowance:
    """A key's own rules first, then its team's, the models' and upstreams', and everyone's. Raises ValueError."""
    leased = common.leased
    rules: list[Rule] = []
    budgets: dict[str, Budget] = {}
    own = Place(f"keys.{key.name}", "key", leased=leased)
    everyone = Place("global", leased=leased)
    names, shared = Names(own), Names(everyone)

    def add(limits: Sequence[Limit], spending: Sequence[Budget], place: Place, names: Names) -> None:
        rules.extend(compile_limits(limits, place, names))
        for rule, budget in compile_budgets(spending, place, names):
            rules.append(rule)
            budgets[rule.name] = budget

    add(key.limits, key.budgets, own, names)
    sessions = key.sessions if key.sessions is not None else common.sessions
    if sessions is not None:
        mine = key.sessions is not None
        rules += compile_sessions(sessions, own if mine else everyone, names if mine else shared)
    for team in common.teams:
        if team.name == key.team:
            place = Place(f"teams.{team.name}", "team", leased=leased)
            add(team.limits, team.budgets, place, Names(place))
    for name, limits in common.models:
        place = Place(f"models.{name}", "model", (PER_MODEL, subject(b"model:" + name.encode())), leased)
        add(limits, (), place, Names(place))
    for name, limits in common.upstreams:
        place = Place(f"upstreams.{name}", "upstream", (PER_UPSTREAM, subject(b"upstream:" + name.encode())), leased)
        add(limits, (), place, Names(place))
    add(common.limits, common.budgets, everyone, shared)
    if key.team is None:
        rules = [rule for rule in rules if not rule.per & PER_TEAM]  # who has no team shares none
        budgets = {rule.name: budgets[rule.name] for rule in rules if rule.name in budgets}
    return Allowance(Limits(table, rules), budgets, sessions.derive if sessions is not None else True)
