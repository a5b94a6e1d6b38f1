"""Responses and conversations that the gateway keeps itself, below ``/v1/responses`` and ``/v1/conversations``.

OpenAI API reference: Responses (get, delete, cancel, list input items) and Conversations (with their items). What is not kept
here is some upstream's, and goes on to it: the caller of ``serve`` sees to that.
"""

import re
import secrets
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import unquote

import msgspec
import orjson

from agw_proxy.dialects.base import Malformed
from agw_proxy.dialects.openai_responses_kept import check_readable, listed, put_together, reference_of, sent
from agw_proxy.dialects.openai_responses_requests import is_metadata
from agw_proxy.errors import CallerError, InvalidJSON, InvalidParameter, NotKept
from agw_proxy.store.responses import CONVERSATION, RESPONSE, Item, Page, Responses, Thing, Wanted
from agw_proxy.store.responses_file import Missing, TooLong

Tree = dict[str, Any]

MOST_ITEMS = 20  # put at once into a conversation, as OpenAI has it
MAX_NAMED_BYTES = 16 * 1024 * 1024  # of items that are put there by their ids alone
DEFAULT_LIMIT, MAX_LIMIT = 20, 100
MAX_ID_CHARS = 256
_NUMBER = re.compile(r"[0-9]{1,3}")
_OURS = re.compile(r"(?:resp|conv)_agw[0-9a-f]{40}")
NOUNS = {"responses": "Response", "conversations": "Conversation"}
_METHODS = {
    ("responses", ""): {"GET", "DELETE"},
    ("responses", "cancel"): {"POST"},
    ("responses", "input_items"): {"GET"},
    ("conversations", ""): {"GET", "POST", "DELETE"},
    ("conversations", "items"): {"GET", "POST"},
    ("conversations", "item"): {"GET", "DELETE"},
}


class About(msgspec.Struct, frozen=True):
    """What a request is about. ``id``: empty for a conversation that is to be made; ``part``: what of it."""

    method: str
    kind: str
    id: str
    part: str = ""
    item: str = ""


def about(method: str, path: str) -> About | None:
    """What a path names, where that is something that may be kept here; None: it is no such path, or no such method."""
    method = "GET" if method == "HEAD" else method
    parts = [unquote(part) for part in path.split("/")[2:]]
    if parts == ["conversations"] and method == "POST":
        return About(method, "conversations", "")
    if len(parts) < 2 or not all(0 < len(part) <= MAX_ID_CHARS for part in parts):
        return None
    kind, what, *rest = parts
    part, item = (rest[0] if rest else ""), ""
    if len(rest) == 2 and rest[0] == "items":
        part, item = "item", rest[1]
    elif len(rest) > 1 or part == "item":
        return None
    return About(method, kind, what, part, item) if method in _METHODS.get((kind, part), set()) else None


def mint(prefix: str) -> str:
    """A new id, by which the gateway knows that no upstream can have it."""
    return f"{prefix}_{seed()}"


def seed() -> str:
    """What is new of a new id."""
    return f"agw{secrets.token_hex(20)}"


def ours(what: str) -> bool:
    """It was made here: nobody else needs to be asked for it."""
    return _OURS.fullmatch(what) is not None


async def serve(kept: Responses, owner: str, asked: About, query: Mapping[str, str], body: bytes) -> bytes:
    """The answer, which is always a 200. Raises NotKept, CallerError, StoreAway."""
    try:
        if asked.kind == "responses":
            return await _response(kept, owner, asked, query)
        return await _conversation(kept, owner, asked, query, body)
    except Missing as missing:
        if missing.what == query.get("after"):
            raise InvalidParameter(f"'after' names no item of this list: '{missing.what}'.", param="after") from None
        raise not_kept(missing.what, _noun(asked, missing.what)) from None
    except TooLong:
        raise CallerError("There are too many turns before this response to list them.") from None
    except Malformed as error:
        raise InvalidParameter(error.message, param=error.param) from None


def _noun(asked: About, missing: str) -> str:
    return "Item" if asked.kind == "conversations" and missing != asked.id else NOUNS[asked.kind]


def not_kept(what: str, noun: str) -> NotKept:
    """In OpenAI's words."""
    return NotKept(f"{noun} with id '{what}' not found.")


async def _response(kept: Responses, owner: str, asked: About, query: Mapping[str, str]) -> bytes:
    if asked.part == "input_items":
        return _list(await kept.asked_with(owner, asked.id, _wanted(query)))
    if asked.part == "cancel":
        await kept.response(owner, asked.id)
        raise CallerError("Cannot cancel a synchronous response.")
    if asked.method == "DELETE":
        await kept.forget(owner, asked.id, RESPONSE)
        return orjson.dumps({"id": asked.id, "object": "response", "deleted": True})
    if query.get("stream", "").lower() in {"true", "1"}:
        raise InvalidParameter(
            "This response was not made in the background, so that it cannot be streamed again. Ask for it without 'stream'.",
            param="stream",
        )
    head, items = await kept.response(owner, asked.id)
    return put_together(head, items)


async def _conversation(kept: Responses, owner: str, asked: About, query: Mapping[str, str], body: bytes) -> bytes:
    if asked.part == "items" and asked.method == "POST":
        added = await _items(kept, owner, _object(body).get("items"), needed=True)
        return _list(Page(tuple(await kept.extend(owner, asked.id, added)), more=False))
    if asked.part == "items":
        return _list(await kept.held(owner, asked.id, _wanted(query)))
    if asked.part == "item":
        gone = asked.method == "DELETE"
        item = await kept.item(owner, asked.id, asked.item, remove=gone)
        return _shown(asked.id, await kept.conversation(owner, asked.id)) if gone else item
    if asked.method == "DELETE":
        await kept.forget(owner, asked.id, CONVERSATION)
        return orjson.dumps({"id": asked.id, "object": "conversation.deleted", "deleted": True})
    if asked.method == "GET":
        return _shown(asked.id, await kept.conversation(owner, asked.id))
    tree = _object(body)
    metadata = orjson.dumps(_metadata(tree))
    if asked.id:
        return _shown(asked.id, await kept.conversation(owner, asked.id, metadata))
    items = await _items(kept, owner, tree.get("items"), needed=False)
    what = mint("conv")
    made = await kept.begin(owner, what, metadata, items)
    return _shown(what, Thing(0, CONVERSATION, made, None, -1, metadata))


async def _items(kept: Responses, owner: str, value: object, *, needed: bool) -> list[Item]:
    """What is to be put into a conversation. Raises Malformed, Missing."""
    trees = sent(value, "items")
    if isinstance(value, str) or (needed and not trees):
        raise Malformed("'items' has to be a list of items.", "items")
    if len(trees) > MOST_ITEMS:
        raise Malformed(f"'items' has more than {MOST_ITEMS} items: add them in several requests.", "items")
    try:
        whole = await resolved(kept, owner, trees, MAX_NAMED_BYTES, strict=True)
        check_readable(whole)
        return [item_of(tree) for tree in whole]
    except Malformed as error:  # as of a request's input
        param = (error.param or "items").replace("input", "items", 1)
        raise Malformed(error.message.replace("'input[", "'items["), param) from None
    except TooLong:
        raise Malformed(
            "The items that are named are too large together: add them in several requests.", "items"
        ) from None


def item_of(tree: Tree, *, answered: bool = False) -> Item:
    """An item as it is kept. Its bytes are a copy: what orjson gives goes on taking all that it has reserved, many times its size."""
    made = listed(tree, mint)
    return Item(str(made["id"]), bytes(memoryview(orjson.dumps(made))), answered)


async def resolved(kept: Responses, owner: str, trees: Sequence[Tree], most: int, *, strict: bool) -> list[Tree]:
    """Items with those in place that were only named. Raises Malformed, StoreAway, and TooLong over ``most`` bytes of these.

    ``strict``: also raises Missing, for one that is not kept.
    """
    names = [reference_of(tree) for tree in trees]
    wanted = [name for name in names if name is not None]
    if not wanted:
        return list(trees)
    past = await kept.past(owner, None, None, wanted, most)
    found = dict(zip(wanted, past.named, strict=True))
    made: list[Tree] = []
    for tree, name in zip(trees, names, strict=True):
        body = found.get(name) if name is not None else None
        if body is None and name is not None and strict:
            raise Missing(name)
        made.append(tree if body is None else orjson.loads(body))
    return made


def _object(body: bytes) -> Tree:
    try:
        tree = orjson.loads(body) if body.strip() else {}
    except orjson.JSONDecodeError as error:
        raise InvalidJSON(f"The body is not JSON: {error}.") from None
    if not isinstance(tree, dict):
        raise InvalidJSON("The body is not a JSON object.")
    return tree


def _metadata(tree: Tree) -> Tree:
    found = tree.get("metadata")
    if found is None:
        return {}
    if not isinstance(found, dict) or not is_metadata(found):
        raise Malformed(
            "'metadata' has to be up to 16 pairs of strings: names of up to 64 characters, values of up to 512.",
            "metadata",
        )
    return found


def _shown(what: str, thing: Thing) -> bytes:
    metadata = orjson.Fragment(thing.head)
    return orjson.dumps({"id": what, "object": "conversation", "created_at": thing.made, "metadata": metadata})


def _wanted(query: Mapping[str, str]) -> Wanted:
    limit = query.get("limit", str(DEFAULT_LIMIT))
    if not _NUMBER.fullmatch(limit) or not 1 <= int(limit) <= MAX_LIMIT:
        raise InvalidParameter(f"'limit' has to be 1 to {MAX_LIMIT}, and is '{limit}'.", param="limit")
    order = query.get("order", "desc")
    if order not in {"asc", "desc"}:
        raise InvalidParameter(f"'order' has to be asc or desc, and is '{order}'.", param="order")
    return Wanted(int(limit), order == "asc", query.get("after") or None)


def _list(page: Page) -> bytes:
    first, last = (page.items[0].id, page.items[-1].id) if page.items else (None, None)
    data = [orjson.Fragment(item.body) for item in page.items]
    return orjson.dumps({"object": "list", "data": data, "first_id": first, "last_id": last, "has_more": page.more})
