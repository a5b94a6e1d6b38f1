"""Usage: what keys have used, by day, key, team, model or upstream. A key sees itself, an admin key all."""

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta

import orjson

from agw_proxy.api.endpoint import Endpoint, Parameter, Response, Schema
from agw_proxy.errors import AdminOnly, InvalidParameter, KeyMissing
from agw_proxy.observe.metrics import key_label
from agw_proxy.types import Answer, Asked, Control, UsageWanted

GROUPS = ("day", "key", "team", "model", "upstream")
DEFAULT_GROUP = "day,key,model"
DEFAULT_DAYS = 30
EARLIEST = date.min + timedelta(days=DEFAULT_DAYS - 1)  # that has so many days before it
DEFAULT_LIMIT = 100
MAX_LIMIT = 1000
SEPARATOR = "|"  # between the parts of a row's id; in a part it is escaped
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_NUMBER = re.compile(r"[0-9]{1,4}")
_COUNTS: Mapping[str, str] = {
    "requests": "Requests that named a model, refused and failed ones too.",
    "errors": "Of these, the ones that ended in an error.",
    "input_tokens": "Tokens of prompts: as upstreams have told, else as they were charged.",
    "cached_tokens": "Of these, the ones from a provider's cache.",
    "output_tokens": "Tokens of answers, likewise.",
    "cost_micro_usd": "Millionths of a US dollar, by the price tables.",
    "unpriced": "Good requests to models without a price: the cost does not know of them.",
}
_TOTALS: Schema = {
    "type": "object",
    "required": [*_COUNTS, "cost_usd"],
    "properties": {
        **{name: {"type": "integer", "minimum": 0, "description": text} for name, text in _COUNTS.items()},
        "cost_usd": {"type": "number", "description": "The same in dollars."},
    },
}
_ROW: Schema = {
    **_TOTALS,
    "properties": {
        "id": {"type": "string"},
        **{name: {"type": "string", "description": "Where it is grouped by."} for name in GROUPS},
        **_TOTALS["properties"],
    },
}
_USAGE: Schema = {
    "type": "object",
    "required": ["object", "from", "to", "data", "total", "has_more", "first_id", "last_id", "trouble"],
    "properties": {
        "object": {"const": "list"},
        "from": {"type": "string", "format": "date"},
        "to": {"type": "string", "format": "date"},
        "data": {"type": "array", "items": _ROW},
        "total": {**_TOTALS, "description": "Of all that was asked for, not of this page only."},
        "has_more": {"type": "boolean"},
        "first_id": {"type": ["string", "null"]},
        "last_id": {"type": ["string", "null"]},
        "trouble": {
            "type": ["string", "null"],
            "description": "Why only what was used since this gateway's start is told (the file cannot be read); null: all is.",
        },
    },
}


async def usage(control: Control, asked: Asked) -> Answer:
    """Tell it, with what is not written yet."""
    wanted = _wanted(asked)
    page = await control.usage(wanted)
    data = [_row(wanted.group, group, counts) for group, counts in page.rows]
    tree = {
        "object": "list",
        "from": wanted.since,
        "to": wanted.until,
        "data": data,
        "total": _counts(page.total),
        "has_more": page.more,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "trouble": page.trouble,
    }
    return Answer(200, orjson.dumps(tree))


def _wanted(asked: Asked) -> UsageWanted:
    principal, query = asked.principal, asked.query
    if principal is None:
        raise KeyMissing("This endpoint needs a key.")
    known = {"from", "to", "group", "limit", "after", *GROUPS[1:]}
    for name in query:
        if name not in known:
            raise InvalidParameter(f"{name}: expected one of {', '.join(sorted(known))}.", param=name)
    only = {name: query[name] for name in GROUPS[1:] if name in query}
    if "key" in only:
        only["key"] = key_label(only["key"])
    if not principal.admin:
        if only.get("key", key_label(principal.name)) != key_label(principal.name) or "team" in only:
            raise AdminOnly(
                f"The key '{principal.name}' is not an admin key; it sees its own usage: leave out 'key' and 'team'."
            )
        only["key"] = key_label(principal.name)
    today = datetime.now(UTC).date()
    until = _day("to", query.get("to"), today)
    since = _day("from", query.get("from"), max(until, EARLIEST) - timedelta(days=DEFAULT_DAYS - 1))
    named = query.get("group", DEFAULT_GROUP).split(",")
    if not set(named) <= set(GROUPS) or len(set(named)) < len(named):
        raise InvalidParameter(
            f"group: expected some of {', '.join(GROUPS)}, with commas between, got {query['group']!r}.", param="group"
        )
    group = tuple(named)
    limit = query.get("limit", str(DEFAULT_LIMIT))
    if not _NUMBER.fullmatch(limit) or not 1 <= int(limit) <= MAX_LIMIT:
        raise InvalidParameter(f"limit: expected 1 to {MAX_LIMIT}, got {limit!r}.", param="limit")
    after = _parts(query["after"], len(group)) if "after" in query else None
    return UsageWanted(since.isoformat(), until.isoformat(), group, int(limit), only, after)


def _day(name: str, text: str | None, default: date) -> date:
    if text is None:
        return default
    try:
        if _DAY.fullmatch(text):
            return date.fromisoformat(text)
    except ValueError:
        pass
    raise InvalidParameter(f"{name}: expected a day such as 2026-11-21 (UTC), got {text!r}.", param=name)


def _row(names: tuple[str, ...], group: tuple[str, ...], counts: tuple[int, ...]) -> dict[str, object]:
    identity = SEPARATOR.join(part.replace("%", "%25").replace(SEPARATOR, "%7C") for part in group)
    return {"id": identity, **dict(zip(names, group, strict=True)), **_counts(counts)}


def _counts(counts: tuple[int, ...]) -> dict[str, object]:
    told: dict[str, object] = dict(zip(_COUNTS, counts, strict=True))
    return {**told, "cost_usd": counts[list(_COUNTS).index("cost_micro_usd")] / 1_000_000}


def _parts(identity: str, count: int) -> tuple[str, ...]:
    parts = tuple(part.replace("%7C", SEPARATOR).replace("%25", "%") for part in identity.split(SEPARATOR))
    if len(parts) != count:
        raise InvalidParameter(
            f"after: expected the last_id of a page before with the same 'group', got {identity!r}.", param="after"
        )
    return parts


ENDPOINTS = (
    Endpoint(
        name="usage",
        method="GET",
        path="/usage",
        access="key",
        handler=usage,
        summary="Usage by day, key and model",
        description="The key's own; with an admin key that of all. Days are UTC. What was used a moment ago is in it.",
        tag="Usage",
        responses={200: Response("Sums, in the order of their groups.", {"application/json": _USAGE})},
        query=(
            Parameter("from", {"type": "string", "format": "date"}, "The first day; else 30 days until `to`."),
            Parameter("to", {"type": "string", "format": "date"}, "The last day; else today."),
            Parameter(
                "group",
                {"type": "string", "default": DEFAULT_GROUP},
                "What to sum by: some of `day`, `key`, `team`, `model`, `upstream`, with commas between.",
            ),
            Parameter("key", {"type": "string"}, "Only this key's (admin keys)."),
            Parameter("team", {"type": "string"}, "Only this team's (admin keys)."),
            Parameter("model", {"type": "string"}, "Only this model's."),
            Parameter("upstream", {"type": "string"}, "Only this upstream's."),
            Parameter(
                "limit",
                {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT},
                "How many rows at most.",
            ),
            Parameter("after", {"type": "string"}, "The `last_id` of the page before."),
        ),
        errors=(InvalidParameter, AdminOnly),
    ),
)
