"""Streams of ``POST /v1/responses`` (OpenAI API reference, Responses, "Streaming events"): the Reader, and the Writer beside it.

An item may be said three times: in deltas, in its ``done`` events and in the last event's Response. What was heard is
passed on at once; what a server has left out is taken from the next telling. Blocks begin with their first words, so that
items without any leave nothing. Items that overlap are told one after the other.
"""

from collections.abc import Callable
from typing import ClassVar

import orjson

from agw_proxy.dialects import members
from agw_proxy.dialects import openai_responses_signatures as signatures
from agw_proxy.dialects.base import (
    Beat,
    Citation,
    Event,
    Fault,
    Finish,
    Malformed,
    Part,
    Refusal,
    Signature,
    Start,
    Text,
    Thinking,
    Tree,
)
from agw_proxy.dialects.halves import Halves
from agw_proxy.dialects.openai_responses_answers import PICTURE, fault_of, picture
from agw_proxy.dialects.openai_responses_blocks import Blocks, Told
from agw_proxy.dialects.openai_responses_citations import citations_of
from agw_proxy.dialects.openai_responses_items import thinking, tool_use
from agw_proxy.dialects.openai_responses_shape import logprobs_tree, stop_of, tokens_of
from agw_proxy.dialects.openai_responses_writer import Writer

__all__ = ["Reader", "Writer"]

TEXT_DELTA = "response.output_text.delta"
MAX_ITEMS = 4096
"""Of one answer: no model makes as many, and each costs memory here."""
CALLS = {"function_call": "arguments", "custom_tool_call": "input"}
"""Items that are calls, and the member that says with what."""
REPEATED = frozenset(
    f"response.{name}"
    for name in (
        "content_part.added", "output_text.done", "refusal.done", "function_call_arguments.done",
        "custom_tool_call_input.done", "reasoning_summary_part.added", "reasoning_summary_part.done",
        "reasoning_summary_text.done", "reasoning_text.done",
    )
)  # fmt: skip
"""Events that say nothing which those around them do not say too."""


class _Item:
    """An output item. ``blocks``: by content index; thoughts and calls have one. ``held``: of a call without a name yet."""

    __slots__ = ("blocks", "done", "held", "id", "kind", "latest", "name", "parts", "tree", "via")

    def __init__(self, kind: str, item_id: str | None, tree: Tree) -> None:
        self.kind = kind
        self.id = item_id
        self.name = item_id or tree.get("call_id")
        self.tree = tree
        self.blocks: dict[int, Told] = {}
        self.latest = 0
        self.done = False
        self.held: list[str] = []
        self.via = ""
        self.parts: set[int] = set()


class Reader:
    """See ``base.Reader``. Unknown events, and items of tools that the provider runs itself, are Beats."""

    def __init__(self) -> None:
        """For one stream."""
        self._started = False
        self._over = False
        self._blocks = Blocks()
        self._json = Halves()
        self._order: list[_Item] = []
        self._by_index: dict[int, _Item] = {}
        self._by_id: dict[str, _Item] = {}

    def read(self, name: str, data: bytes) -> list[Event]:
        """See ``base.Reader``."""
        if self._over or data == b"[DONE]":
            return []
        try:
            tree = self._json.loads(data)
        except orjson.JSONDecodeError:
            return self._fail(Fault("The upstream's stream holds an event that is no JSON.", "api_error"))
        if not isinstance(tree, dict):
            return self._fail(Fault("The upstream's stream holds an event that is not a JSON object.", "api_error"))
        return self.take(tree, name)

    def take(self, tree: Tree, name: str = "") -> list[Event]:
        """The same of an event that is read already."""
        if self._over:
            return []
        kind = tree.get("type")
        if not isinstance(kind, str):
            kind = name
        handle = self._handlers.get(kind)
        if handle is None:
            if name == "error" or kind == "error" or (tree.get("error") and not kind.startswith("response.")):
                return self._fail(fault_of(tree))
            return [] if kind in REPEATED else [Beat()]
        out: list[Event] = []
        try:
            if not self._started:
                self._start(tree, out)
            handle(self, tree, out)
        except Malformed as bad:
            return self._fail(Fault(f"The upstream's stream is malformed: {bad.message}", "api_error"))
        return out

    def end(self) -> list[Event]:
        """A Fault where the stream was cut."""
        if self._over:
            return []
        return self._fail(Fault("The upstream's stream broke off before its end.", "api_error"))

    def _fail(self, fault: Fault) -> list[Event]:
        self._over = True
        return [fault]

    def _start(self, tree: Tree, out: list[Event]) -> None:
        response = members.branch(tree, "response") or {}
        self._started = True
        out.append(
            Start(
                id=members.text(response, "id", "response") or "",
                model=members.text(response, "model", "response") or "",
                created=int(members.number(response, "created_at", "response") or 0),
            )
        )

    # -- items

    def _item(self, tree: Tree, kind: str) -> _Item:
        """The item of a delta; one that was not announced is made. Without an index or id: the last of its kind."""
        at, item_id = tree.get("output_index"), tree.get("item_id")
        item = self._by_index.get(at) if type(at) is int else None
        if item is None and isinstance(item_id, str):
            item = self._by_id.get(item_id)
        if item is None and type(at) is not int and self._order and not self._order[-1].done:
            item = self._order[-1]
        if item is None or item.kind != kind:
            item = self._add(kind, at, {"id": item_id})
        return item

    def _add(self, kind: str, at: object, tree: Tree) -> _Item:
        """A new item. Calls are known by ``call_id`` too: that is what the deltas of llama.cpp call them by."""
        if len(self._order) >= MAX_ITEMS:
            raise Malformed(f"The answer has more than {MAX_ITEMS} items.")
        item_id, call_id = tree.get("id"), tree.get("call_id")
        item = _Item(kind, item_id if isinstance(item_id, str) else None, tree)
        self._order.append(item)
        if type(at) is int:
            self._by_index[at] = item
        for name in (call_id, item_id):
            if isinstance(name, str):
                self._by_id[name] = item
        return item

    def _added(self, tree: Tree, out: list[Event]) -> None:
        item = _wanted(tree, "item")
        kind, at = members.wanted(item, "type", "item"), tree.get("output_index")
        made = self._by_index.get(at) if type(at) is int else None
        name = item.get("id") or item.get("call_id")
        if made is None or (made.kind, made.name) != (kind, name) or (made.done and not name):  # else it is said twice
            made = self._add(kind, at, item)
        if kind in CALLS:
            self._name_call(made, item, out)

    def _whole(self, tree: Tree, out: list[Event]) -> None:
        """``output_item.done``."""
        item = _wanted(tree, "item")
        kind = members.wanted(item, "type", "item")
        item_id = item.get("id") or item.get("call_id")
        self._settle(self._item({**tree, "item_id": item_id}, kind), item, out)

    def _settle(self, item: _Item, tree: Tree, out: list[Event]) -> None:
        """Say what is missing of an item, now that it is known whole, and close it."""
        if item.done:
            return
        item.done = True
        if item.kind == "message":
            for at, part in enumerate(members.branches(tree, "content", "item")):
                self._settle_part(item, at, part, out)
        elif item.kind == "reasoning":
            self._settle_reasoning(item, tree, out)
        elif item.kind in CALLS:
            self._settle_call(item, tree, out)
        elif item.kind == PICTURE and (image := picture(tree, "item")) is not None:
            item.blocks[0] = self._blocks.begin(image, out)
        for told in item.blocks.values():
            if told.open:
                self._blocks.close(told, out)

    # -- words

    def _text_delta(self, tree: Tree, out: list[Event]) -> None:
        delta = members.wanted(tree, "delta")
        if delta:
            logprobs = tree.get("logprobs")
            told = self._part(self._item(tree, "message"), tree.get("content_index"), Text, out)
            self._blocks.say(
                told, Part(delta, logprobs_tree(logprobs) or None if isinstance(logprobs, list) else None), out
            )

    def _refusal_delta(self, tree: Tree, out: list[Event]) -> None:
        delta = members.wanted(tree, "delta")
        if delta:
            self._blocks.say(
                self._part(self._item(tree, "message"), tree.get("content_index"), Refusal, out), Part(delta), out
            )

    def _part(self, item: _Item, at: object, kind: type[Text | Refusal], out: list[Event]) -> Told:
        """The block of a part of a message."""
        index = at if type(at) is int else item.latest
        told = item.blocks.get(index)
        if told is not None and told.open and type(told.block) is kind:
            return told
        item.latest = index
        item.blocks[index] = self._blocks.begin(kind(""), out)
        return item.blocks[index]

    def _part_done(self, tree: Tree, out: list[Event]) -> None:
        part = _wanted(tree, "part")
        if part.get("type") not in ("output_text", "refusal"):
            return
        item = self._item(tree, "message")
        at = tree.get("content_index")
        index = at if type(at) is int else item.latest
        self._settle_part(item, index, part, out)
        told = item.blocks.get(index)
        if told is not None and told.open:
            self._blocks.close(told, out)

    def _settle_part(self, item: _Item, index: int, part: Tree, out: list[Event]) -> None:
        """Say what is missing of a part that is known whole."""
        told = item.blocks.get(index)
        refusal = part.get("type") == "refusal"
        words = members.text(part, "refusal" if refusal else "text", "part")
        if told is None and words:
            told = self._part(item, index, Refusal if refusal else Text, out)
            self._blocks.say(told, Part(words, logprobs_tree(members.branches(part, "logprobs", "part")) or None), out)
        elif told is not None and told.open and words:
            self._blocks.complete(told, words, out)
        if told is not None and told.open and not refusal:
            for citation in citations_of(part.get("annotations"))[told.cited :]:
                told.cited += 1
                self._blocks.say(told, Citation(citation), out)

    def _annotation(self, tree: Tree, out: list[Event]) -> None:
        item = self._item(tree, "message")
        at = tree.get("content_index")
        told = item.blocks.get(at if type(at) is int else item.latest)
        if told is not None and told.open and isinstance(told.block, Text):
            for citation in citations_of([tree.get("annotation")]):
                told.cited += 1
                self._blocks.say(told, Citation(citation), out)

    # -- thoughts

    def _summary_delta(self, tree: Tree, out: list[Event]) -> None:
        self._think(tree, "summary", "summary_index", members.wanted(tree, "delta"), out)

    def _reasoning_delta(self, tree: Tree, out: list[Event]) -> None:
        self._think(tree, "text", "content_index", members.wanted(tree, "delta"), out)

    def _think(self, tree: Tree, via: str, index: str, words: str, out: list[Event]) -> None:
        """Of a summary and the thoughts themselves only what comes first is told: they say the same."""
        item = self._item(tree, "reasoning")
        if not words or item.via not in {"", via} or item.done:
            return
        item.via = via
        at = tree.get(index)
        number = at if type(at) is int else item.latest
        told = item.blocks.get(0)
        if told is None or not told.open:
            told = item.blocks[0] = self._blocks.begin(Thinking(id=item.id), out)
        elif number not in item.parts:
            self._blocks.say(told, Part("\n\n"), out)
        item.parts.add(number)
        item.latest = number
        self._blocks.say(told, Part(words), out)

    def _settle_reasoning(self, item: _Item, tree: Tree, out: list[Event]) -> None:
        """A signature that belongs to a block before comes too late here: that block is whole."""
        if signatures.detached(members.text(tree, "encrypted_content", "item")) is not None:
            return
        whole = thinking(tree, "item")
        told = item.blocks.get(0)
        if told is None and whole.text:
            told = item.blocks[0] = self._blocks.begin(Thinking(id=whole.id), out)
            self._blocks.say(told, Part(whole.text), out)
        if whole.signature is None:
            return
        if told is not None and told.open:
            self._blocks.say(told, Signature(whole.signature), out)
        else:
            hidden = Thinking(signature=whole.signature, hidden=True, id=whole.id)
            item.blocks[1] = self._blocks.begin(hidden, out)

    # -- calls

    def _name_call(self, item: _Item, tree: Tree, out: list[Event]) -> None:
        """Begin the block of a call, if its name and id are known."""
        if item.blocks or not tree.get("name") or not tree.get("call_id"):
            return
        use = tool_use({**tree, CALLS[item.kind]: ""}, "item")
        told = item.blocks[0] = self._blocks.begin(use, out)
        if item.held:
            self._blocks.say(told, Part("".join(item.held)), out)

    def _arguments_delta(self, tree: Tree, out: list[Event]) -> None:
        self._feed_call(self._item(tree, "function_call"), members.wanted(tree, "delta"), out)

    def _input_delta(self, tree: Tree, out: list[Event]) -> None:
        self._feed_call(self._item(tree, "custom_tool_call"), members.wanted(tree, "delta"), out)

    def _feed_call(self, item: _Item, words: str, out: list[Event]) -> None:
        if not words or item.done:
            return
        told = item.blocks.get(0)
        if told is None:
            item.held.append(words)
        else:
            self._blocks.say(told, Part(words), out)

    def _settle_call(self, item: _Item, tree: Tree, out: list[Event]) -> None:
        given = {**item.tree, **tree}
        if not given.get("call_id"):
            given["call_id"] = given.get("id")
        members.wanted(given, "name", "item")
        self._name_call(item, given, out)
        told = item.blocks.get(0)
        if told is None:
            raise Malformed("A call of a tool has no name or no id.", "item.call_id")
        self._blocks.complete(told, members.text(given, CALLS[item.kind], "item") or "", out)

    # -- the end

    def _finish(self, tree: Tree, out: list[Event]) -> None:
        response = _wanted(tree, "response")
        known: dict[str, list[_Item]] = {}
        for item in self._order:
            known.setdefault(item.kind, []).append(item)
        found: dict[str, int] = {}
        for at, each in enumerate(members.branches(response, "output", "response")):
            kind = members.wanted(each, "type", f"response.output[{at}]")
            alike, nth = known.get(kind, []), found.get(kind, 0)
            found[kind] = nth + 1
            self._settle(self._find(at, each, kind, alike[nth] if nth < len(alike) else None), each, out)
        for item in self._order:
            if item.held and not item.blocks:
                raise Malformed("A call of a tool was never named.", "item.name")
            for told in item.blocks.values():
                if told.open:
                    self._blocks.close(told, out)
        if tree.get("type") == "response.incomplete":
            response = {**response, "status": "incomplete"}
        stop = stop_of(response, calls=self._blocks.calls, refused=self._blocks.refused)
        self._over = True
        tier = members.text(response, "service_tier", "response")
        out.append(Finish(stop, tokens_of(response.get("usage")), service_tier=tier))

    def _find(self, at: int, tree: Tree, kind: str, likely: _Item | None) -> _Item:
        """The item that stands in the whole answer: by its id, its index, or ``likely``, its place among those of its kind."""
        item_id = tree.get("id") or tree.get("call_id")
        item = self._by_id.get(item_id) if isinstance(item_id, str) else None
        if item is not None and item.kind == kind:
            return item
        item = self._by_index.get(at)
        if item is not None and item.kind == kind and not item.done:
            return item
        return likely or self._add(kind, at, tree)

    def _failed(self, tree: Tree, out: list[Event]) -> None:
        response = members.branch(tree, "response") or {}
        self._over = True
        out[:] = [fault_of({"error": response.get("error") or "The upstream has ended the response before its end."})]

    def _alive(self, tree: Tree, out: list[Event]) -> None:
        """Says nothing that is not said elsewhere."""
        members.branch(tree, "response")
        if not out:
            out.append(Beat())

    _handlers: ClassVar[dict[str, Callable[["Reader", Tree, list[Event]], None]]] = {
        TEXT_DELTA: _text_delta,
        "response.created": _alive,
        "response.queued": _alive,
        "response.in_progress": _alive,
        "response.output_item.added": _added,
        "response.output_item.done": _whole,
        "response.content_part.done": _part_done,
        "response.output_text.annotation.added": _annotation,
        "response.refusal.delta": _refusal_delta,
        "response.reasoning_summary_text.delta": _summary_delta,
        "response.reasoning_text.delta": _reasoning_delta,
        "response.function_call_arguments.delta": _arguments_delta,
        "response.custom_tool_call_input.delta": _input_delta,
        "response.completed": _finish,
        "response.incomplete": _finish,
        "response.failed": _failed,
        "response.cancelled": _failed,
    }


def _wanted(tree: Tree, name: str) -> Tree:
    found = members.branch(tree, name)
    if found is None:
        raise Malformed(f"'{name}' is missing.", name)
    return found
