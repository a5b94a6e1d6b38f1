"""OpenAI Responses (API reference, Responses, "Streaming events")."""

from agw_proxy.conformance.base import (
    Broken,
    Call,
    Reader,
    Told,
    Tree,
    member,
    named,
    parsed,
    same,
    shown,
    usage_of,
    whole_arguments,
)

ENDS = {"response.completed": "completed", "response.incomplete": "incomplete", "response.failed": "failed"}
BEGINNINGS = frozenset({"response.queued", "response.in_progress"})
PARTS = {
    "response.content_part": "content_index",
    "response.reasoning_summary_part": "summary_index",
}
# Texts that come in pieces: the index of the part that they are in (None: the item's own), and the whole's member.
TEXTS = {
    "response.output_text": ("content_index", "text"),
    "response.refusal": ("content_index", "refusal"),
    "response.reasoning_summary_text": ("summary_index", "text"),
    "response.function_call_arguments": (None, "arguments"),
    "response.custom_tool_call_input": (None, "input"),
}
CALLS = {"function_call": "arguments", "custom_tool_call": "input"}


def whole(tree: Tree) -> Told:
    """Read a response. Raises Broken."""
    same(tree.get("object"), "response", "`object` to be")
    named(tree, "id")
    told = Told(stop=named(tree, "status"))
    for at, item in enumerate(member(tree, "output", list)):
        if not isinstance(item, dict):
            raise Broken(f"`output[{at}]` to be an object", item)
        _item(told, item, f"output[{at}].")
    told.usage = usage_of(tree.get("usage"), "input_tokens", "output_tokens")
    told.turn = tree["output"]
    if told.stop == "failed":
        told.failure = str((tree.get("error") or {}).get("message") or "the response has failed")
    return told


class _Item:
    """An output item that is open."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.part: tuple[str, int] | None = None
        self.parts = dict.fromkeys(PARTS, 0)
        self.pieces: dict[str, str] = {}  # of texts that go on
        self.wholes: dict[str, str] = {}  # texts that are done, of the item or of the part that is open
        self.said = ""


class _Events:
    due = "response.created"

    def __init__(self) -> None:
        self.told = Told()
        self.over = False
        self._number = 0
        self._id: str | None = None
        self._open: dict[int, _Item] = {}
        self._added = 0
        self._done: dict[int, Tree] = {}

    def step(self, name: str, data: bytes) -> None:
        tree = parsed(data)
        same(tree.get("type"), name, "`type` to be the event's name,")
        if name == "error":
            error = tree["error"] if isinstance(tree.get("error"), dict) else tree
            self.told.failure = named(error, "message")
            self.over = True
            return
        same(tree.get("sequence_number"), self._number, "`sequence_number`")
        self._number += 1
        if self._id is None:
            self._create(name, tree)
        elif name == "response.created":
            raise Broken("one response.created", "a second one")
        elif name in ENDS:
            self._end(name, member(tree, "response", dict))
        elif name == "response.output_item.added":
            self._add(tree)
        elif name not in BEGINNINGS and ("output_index" in tree or "item_id" in tree):
            self._within(name, tree)

    def _create(self, name: str, tree: Tree) -> None:
        if name != "response.created":
            raise Broken("response.created first", name or "an event without a name")
        response = member(tree, "response", dict)
        same(response.get("object"), "response", "`response.object` to be")
        if response.get("status") != "queued":
            same(response.get("status"), "in_progress", "`response.status` to be")
        self._id = named(response, "id", "response.")
        self.due = "response.completed, response.incomplete or response.failed"

    def _end(self, name: str, response: Tree) -> None:
        if self._open:
            at = min(self._open)
            raise Broken(f"response.output_item.done of item {at} before the end", name)
        same(response.get("id"), self._id, "`response.id`")
        same(response.get("status"), ENDS[name], "`response.status` to be")
        output = member(response, "output", list, "response.")
        kinds = [item.get("type") if isinstance(item, dict) else item for item in output]
        streamed = [item["type"] for _, item in sorted(self._done.items())]
        if name != "response.failed":
            same(kinds, streamed, "`response.output` to have the items that were streamed,")
        said = whole({**response, "object": "response"})
        if name == "response.failed":
            self.told.failure = said.failure
        elif said.text != self.told.text:
            raise Broken(f"`response.output` to say what was streamed, {shown(self.told.text)}", shown(said.text))
        self.told.stop, self.told.usage = said.stop, said.usage
        self.over = True

    def _add(self, tree: Tree) -> None:
        same(tree.get("output_index"), self._added, "`output_index`")
        item = member(tree, "item", dict)
        named(item, "id", "item.")
        kind = named(item, "type", "item.")
        if kind == "message":
            same(item.get("role"), "assistant", "`item.role` to be")
            same(item.get("content"), [], "`item.content` to be")
        elif kind in CALLS:
            named(item, "call_id", "item.")
            named(item, "name", "item.")
            same(item.get(CALLS[kind]), "", f"`item.{CALLS[kind]}` to be")
        self._open[self._added] = _Item(item)
        self._added += 1

    def _within(self, name: str, tree: Tree) -> None:
        at = member(tree, "output_index", int)
        item = self._open.get(at)
        if item is None:
            raise Broken(f"response.output_item.added of item {at} before it", name)
        if name == "response.output_item.done":
            self._item_done(at, item, member(tree, "item", dict))
            return
        same(tree.get("item_id"), item.tree["id"], "`item_id`")
        base, _, verb = name.rpartition(".")
        if base in PARTS:
            _part(item, base, verb, tree)
        elif base in TEXTS:
            _text(item, base, verb, tree)

    def _item_done(self, at: int, item: _Item, tree: Tree) -> None:
        if item.part is not None:
            raise Broken(f"{item.part[0]}.done of part {item.part[1]} before it", "response.output_item.done")
        for base in item.pieces:
            raise Broken(f"{base}.done before it", "response.output_item.done")
        for label in ("id", "type", "name", "call_id"):
            same(tree.get(label), item.tree.get(label), f"`item.{label}` to stay")
        own = CALLS.get(tree["type"])
        for base, whole_text in item.wholes.items():
            if own is not None and TEXTS[base][1] == own:
                same(tree.get(own), whole_text, f"`item.{own}` to be what was streamed,")
        before = len(self.told.text)
        _item(self.told, tree, "item.")
        if tree["type"] == "message" and self.told.text[before:] != item.said:
            raise Broken(f"`item.content` to say what was streamed, {shown(item.said)}", shown(tree["content"]))
        del self._open[at]
        self._done[at] = tree


def _part(item: _Item, base: str, verb: str, tree: Tree) -> None:
    index = member(tree, PARTS[base], int)
    if verb == "added":
        if item.part is not None:
            raise Broken(f"{item.part[0]}.done of part {item.part[1]} before another begins", f"{base}.added")
        same(index, item.parts[base], f"`{PARTS[base]}`")
        member(tree, "part", dict)
        item.part = base, index
        item.parts[base] += 1
        item.wholes.clear()
    else:
        if item.part != (base, index):
            raise Broken(f"{base}.added of part {index} before it", f"{base}.{verb}")
        for text in item.pieces:
            raise Broken(f"{text}.done before it", f"{base}.{verb}")
        item.part = None
        item.wholes.clear()


def _text(item: _Item, base: str, verb: str, tree: Tree) -> None:
    label, whole_member = TEXTS[base]
    if label is not None:
        index = member(tree, label, int)
        if item.part is None or item.part[1] != index:
            raise Broken(f"the part {index} to be open (an event that ends in _part.added)", f"{base}.{verb}")
    if base in item.wholes:
        raise Broken(f"nothing more after {base}.done", f"{base}.{verb}")
    if verb == "delta":
        item.pieces[base] = item.pieces.get(base, "") + member(tree, "delta", str)
    elif verb == "done":
        said = member(tree, whole_member, str)
        same(said, item.pieces.pop(base, ""), f"`{whole_member}` to be the deltas together,")
        item.wholes[base] = said
        item.said += said if base == "response.output_text" else ""


def _item(told: Told, item: Tree, where: str) -> None:
    """Add what a whole item says."""
    kind = named(item, "type", where)
    if kind == "message":
        for part in member(item, "content", list, where):
            if isinstance(part, dict) and part.get("type") == "output_text":
                told.text += member(part, "text", str, f"{where}content[].")
    elif kind == "function_call":
        call = Call(named(item, "call_id", where), named(item, "name", where))
        call.arguments = member(item, "arguments", str, where)
        whole_arguments(call)
        told.calls.append(call)


_READER = Reader(_Events, "no name")
check, follow = _READER.check, _READER.follow
