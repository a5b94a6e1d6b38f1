"""Pages of a list: ``limit``, ``after`` and ``sort``, the same for every list of the administration."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from agw_proxy.api.endpoint import Parameter, Schema
from agw_proxy.errors import InvalidParameter

MAX_LIMIT = 1000
DEFAULT_LIMIT = 100
_NUMBER = re.compile(r"[0-9]{1,9}")

T = TypeVar("T")


def parameters(sorts: Sequence[str]) -> tuple[Parameter, ...]:
    """Describe the query parameters; ``sorts`` are the names that ``page`` takes."""
    both = [name for sort in sorts for name in (sort, f"-{sort}")]
    return (
        Parameter(
            "limit",
            {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT},
            "How many at most.",
        ),
        Parameter("after", {"type": "string"}, "The `last_id` of the page before."),
        Parameter("sort", {"type": "string", "enum": both}, "By which member; with `-` the largest first."),
    )


def page_schema(item: Schema) -> Schema:
    """Give the schema of a page of such items."""
    identity = {"type": ["string", "null"]}
    return {
        "type": "object",
        "required": ["object", "data", "has_more", "first_id", "last_id"],
        "properties": {
            "object": {"const": "list"},
            "data": {"type": "array", "items": item},
            "has_more": {"type": "boolean"},
            "first_id": identity,
            "last_id": identity,
        },
    }


def page(
    items: Sequence[T], query: Mapping[str, str], identity: Callable[[T], str], sorts: Mapping[str, Callable[[T], Any]]
) -> dict[str, object]:
    """Give the part of ``items`` that ``query`` asks for, as a list object.

    ``identity`` gives an item's unique id, ``sorts`` what to order by under each name; equal items, and all without
    ``sort``, keep their order. Raises InvalidParameter.
    """
    limit = _limit(query.get("limit"))
    ordered = _ordered(items, query.get("sort"), sorts)
    start = 0
    after = query.get("after")
    if after is not None:
        places = {identity(item): place for place, item in enumerate(ordered)}
        if after not in places:
            raise InvalidParameter(f"after: expected the last_id of a page before, got {after!r}.", param="after")
        start = places[after] + 1
    data = ordered[start : start + limit]
    return {
        "object": "list",
        "data": data,
        "has_more": start + limit < len(ordered),
        "first_id": identity(data[0]) if data else None,
        "last_id": identity(data[-1]) if data else None,
    }


def _limit(text: str | None) -> int:
    if text is None:
        return DEFAULT_LIMIT
    if not _NUMBER.fullmatch(text) or not 1 <= int(text) <= MAX_LIMIT:
        raise InvalidParameter(f"limit: expected 1 to {MAX_LIMIT}, got {text!r}.", param="limit")
    return int(text)


def _ordered(items: Sequence[T], text: str | None, sorts: Mapping[str, Callable[[T], Any]]) -> list[T]:
    if text is None:
        return list(items)
    order = sorts.get(text.removeprefix("-"))
    if order is None:
        raise InvalidParameter(
            f"sort: expected one of {', '.join(sorts)} (with '-' in front: the other way round), got {text!r}.",
            param="sort",
        )
    return sorted(items, key=order, reverse=text.startswith("-"))
