"""Pages of the list of models, as Anthropic's and Google's clients ask for them. Who does not ask gets all of it.

Anthropic API reference, "List Models"; Gemini API reference, "models.list". OpenAI's list has no pages.
"""

import re
from collections.abc import Mapping, Sequence

import msgspec

from agw_proxy.errors import InvalidParameter
from agw_proxy.types import ServedModel

MOST = 1000  # of a page, at both

_NUMBER = re.compile(r"[0-9]{1,9}")


class ModelPage(msgspec.Struct, frozen=True):
    """``more``: there are others, further the way that was asked for."""

    models: Sequence[ServedModel]
    more: bool


def anthropics(models: Sequence[ServedModel], query: Mapping[str, str]) -> ModelPage:
    """By ``limit`` and ``after_id`` or ``before_id``. Raises InvalidParameter."""
    size = _number(query, "limit", len(models))
    if not size and models:
        raise InvalidParameter(f"'limit' has to be 1 to {MOST}.", param="limit")
    before = query.get("before_id")
    if before:
        left = models[: _place(models, before, "before_id")]
        return ModelPage(left[-size:] if size else left, len(left) > size)
    return _behind(models, query.get("after_id"), "after_id", size)


def googles(models: Sequence[ServedModel], query: Mapping[str, str]) -> ModelPage:
    """By ``pageSize`` and ``pageToken``, which is the name of the last one before. Raises InvalidParameter."""
    size = _number(query, "pageSize", 0) or len(models)
    return _behind(models, query.get("pageToken"), "pageToken", size)


def _behind(models: Sequence[ServedModel], last: str | None, name: str, size: int) -> ModelPage:
    left = models[_place(models, last, name) + 1 :] if last else models
    return ModelPage(left[:size], len(left) > size)


def _place(models: Sequence[ServedModel], wanted: str, name: str) -> int:
    for at, model in enumerate(models):
        if model.id == wanted:
            return at
    raise InvalidParameter(f"'{name}' names no model of this list.", param=name)


def _number(query: Mapping[str, str], name: str, otherwise: int) -> int:
    told = query.get(name)
    if told is None:
        return otherwise
    if not _NUMBER.fullmatch(told):
        raise InvalidParameter(f"'{name}' has to be a whole number, 1 to {MOST}.", param=name)
    return min(int(told), MOST)
