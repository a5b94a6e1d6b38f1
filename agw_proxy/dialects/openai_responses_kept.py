"""Responses as a store keeps them: items one by one, and a request into which a conversation that was kept is put back.

OpenAI API reference, Responses, "List input items", and Conversations. What is listed there has an id and is spelt out;
what is sent may be shorter: a string, a message without a type.
"""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import orjson

from agw_proxy.dialects import members
from agw_proxy.dialects import openai_responses_signatures as signatures
from agw_proxy.dialects.base import Malformed, Request, Tree, Untranslatable
from agw_proxy.dialects.openai_responses_items import read_input

PREFIXES = {
    "message": "msg",
    "function_call": "fc",
    "function_call_output": "fco",
    "custom_tool_call": "ctc",
    "custom_tool_call_output": "ctco",
}
"""How the ids of items begin that came without one. A thought gets none of OpenAI's, which it would be looked up by."""
KEPT_STATUSES = frozenset({"completed", "incomplete"})
REFERENCE = "item_reference"
ENDS = frozenset({"response.completed", "response.incomplete"})
"""Events that end a stream with an answer that can be kept."""

Mint = Callable[[str], str]
"""A new id that begins so."""


def sent(value: object, where: str = "input") -> list[Tree]:
    """The items of ``input``, as they came; a string is a user's message. Raises Malformed."""
    if value is None:
        return []
    if isinstance(value, str):
        return [{"type": "message", "role": "user", "content": value}]
    if not isinstance(value, list):
        raise members.wrong(where, "a string or a list of items", value)
    return members.branches({where: value}, where)


def check_readable(items: Sequence[Tree]) -> None:
    """Raises Malformed for items that no turn could go on from; such as only a provider knows are its to judge."""
    with contextlib.suppress(Untranslatable):
        read_input(items, Request(model="", messages=[], extra={}))


def reference_of(item: Tree) -> str | None:
    """The id that an item only names; None: it is all there. Raises Malformed."""
    kind = item.get("type")
    if kind != REFERENCE and (kind is not None or "role" in item or "id" not in item):
        return None
    found = item.get("id")
    if not isinstance(found, str):
        raise Malformed("An item that refers to another one has its 'id' as a string.", "input")
    return found


def listed(item: Tree, mint: Mint) -> Tree:
    """An item as the API lists it: with an id, a type, a status and its words in parts."""
    kind = item.get("type")
    kind = kind if isinstance(kind, str) else "message"
    made = {**item, "type": kind}
    given = item.get("id")
    if not isinstance(given, str) or not given:
        made["id"] = mint(PREFIXES.get(kind, "item"))
    if kind in PREFIXES and made.get("status") is None:
        made["status"] = "completed"
    if kind == "message":
        made["content"] = _parts(item.get("content"), by_model=item.get("role") == "assistant")
    return made


def _parts(content: object, *, by_model: bool) -> object:
    kind = "output_text" if by_model else "input_text"
    if isinstance(content, str):
        content = [{"type": kind, "text": content}]
    if not isinstance(content, list):
        return content
    return [{**part, **_missing(part)} if isinstance(part, dict) else part for part in content]


def _missing(part: Tree) -> Tree:
    """What a part is listed with, whoever sent it without."""
    wanted: dict[str, Tree] = {
        "output_text": {"annotations": [], "logprobs": []},
        "input_image": {"detail": "auto"},
    }
    own = wanted.get(str(part.get("type")), {})
    return {name: value for name, value in own.items() if part.get(name) is None}


def portable(items: Sequence[Tree]) -> list[Tree]:
    """Items that were kept, as an upstream takes them that speaks Responses and has not made them: none by an id of ours.

    Thoughts go only to who can read them.
    """
    made: list[Tree] = []
    for item in items:
        kind = item.get("type")
        if kind == "reasoning":
            made += _own_thoughts(item)
        elif kind == "message" and item.get("role") == "assistant":
            words = words_of(item.get("content"))
            made += [{"type": "message", "role": "assistant", "content": words}] if words else []
        elif kind in PREFIXES:
            made.append({name: value for name, value in item.items() if name not in {"id", "status"}})
        else:
            made.append(item)
    return made


def _own_thoughts(item: Tree) -> list[Tree]:
    encrypted = item.get("encrypted_content")
    given = item.get("id")
    if not isinstance(encrypted, str) or signatures.detached(encrypted) is not None:
        return []
    own = signatures.own(signatures.taken(given if isinstance(given, str) else None, encrypted))
    return [] if own is None else [{**item, "encrypted_content": own[1], **({"id": own[0]} if own[0] else {})}]


def words_of(content: object) -> str:
    """The words of a message's content, refusals too."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    texts = [part.get("text") or part.get("refusal") for part in parts if isinstance(part, dict)]
    return "".join(text for text in texts if isinstance(text, str))


def with_history(tree: Tree, history: Sequence[bytes], own: Sequence[bytes]) -> bytes:
    """The request with its past in its ``input``, and without what stood for that. ``history``, ``own``: items, encoded."""
    rest = {name: value for name, value in tree.items() if name not in {"previous_response_id", "conversation"}}
    return orjson.dumps({**rest, "input": orjson.Fragment(b"[" + b",".join([*history, *own]) + b"]")})


def taken_apart(response: Tree, told: Tree) -> tuple[bytes, list[Tree]] | None:
    """An answer without its items, and these; None for one that has not come to its end. ``told``: members put into it."""
    output = response.get("output")
    if response.get("status") not in KEPT_STATUSES or not isinstance(output, list):
        return None
    items = [item for item in output if isinstance(item, dict)]
    return orjson.dumps({**response, "output": [], **told}), items


def put_together(head: bytes, items: Sequence[bytes]) -> bytes:
    """What ``taken_apart`` has taken apart, encoded."""
    tree: dict[str, Any] = orjson.loads(head)
    return orjson.dumps({**tree, "output": [orjson.Fragment(item) for item in items]})
