"""The grammar of a stream of ``/v1/responses``, as clients rely on it (OpenAI API reference, Responses, "Streaming events")."""

import json
from typing import Any

Tree = dict[str, Any]
ENDS = {"response.completed": "completed", "response.incomplete": "incomplete"}
CALLS = {
    "function_call": ("response.function_call_arguments", "arguments"),
    "custom_tool_call": ("response.custom_tool_call_input", "input"),
}


def check(frames: list[tuple[str, bytes]]) -> None:
    """``frames``: name and data of each event of a whole stream. Raises AssertionError, which names the first broken event."""
    grammar = _Grammar()
    for at, (name, data) in enumerate(frames):
        try:
            tree = json.loads(data)
            assert tree["type"] == name, "the event's name is not its type"
            assert tree["sequence_number"] == at, f"sequence_number {tree['sequence_number']} instead of {at}"
            assert not grammar.over, "something follows the end"
            grammar.take(name, tree)
        except (AssertionError, KeyError, ValueError) as broken:
            raise AssertionError(f"event {at}, {name}: {broken!r} in {data[:300]!r}") from broken
    assert grammar.over, "the stream has no end"


class _Grammar:
    def __init__(self) -> None:
        self.over = False
        self.begun = 0
        self.response: Tree = {}
        self.items: list[Tree] = []
        self.ids: set[str] = set()
        self.item: Tree | None = None
        self.parts: list[Tree] = []
        self.part: Tree | None = None
        self.text: list[str] = []
        self.whole: str | None = None
        self.annotations: list[Tree] = []

    def take(self, name: str, tree: Tree) -> None:
        if name == "error":
            assert tree["error"]["message"]
            self.over = True
        elif self.begun < 2:
            expected = ("response.created", "response.in_progress")[self.begun]
            assert name == expected, f"{expected} was due"
            assert tree["response"]["status"] == "in_progress"
            assert tree["response"]["output"] == []
            self.begun += 1
            self.response = tree["response"]
        elif name in ENDS:
            self._end(name, tree["response"])
        elif name == "response.output_item.added":
            self._added(tree)
        else:
            self._within(name, tree)

    def _end(self, name: str, response: Tree) -> None:
        assert self.item is None, "an item is open"
        assert response["status"] == ENDS[name]
        assert (response["incomplete_details"] is None) == (name == "response.completed")
        assert response["id"] == self.response["id"]
        assert response["output"] == self.items, "the output is not what was streamed"
        usage = response["usage"]
        assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
        self.over = True

    def _added(self, tree: Tree) -> None:
        assert self.item is None, "an item is open"
        assert tree["output_index"] == len(self.items)
        self.item = tree["item"]
        assert self.item["id"] not in self.ids, "an id is used twice"
        self.ids.add(self.item["id"])
        self.parts, self.text, self.whole = [], [], None
        if self.item["type"] == "message":
            assert (self.item["content"], self.item["status"]) == ([], "in_progress")
        elif self.item["type"] in CALLS:
            assert self.item[CALLS[self.item["type"]][1]] == ""
            assert self.item["call_id"]
            assert self.item["name"]

    def _within(self, name: str, tree: Tree) -> None:
        item = self.item
        assert item is not None, "no item is open"
        assert tree["output_index"] == len(self.items), "another item is open"
        if name == "response.output_item.done":
            self._done(item, tree["item"])
            return
        assert tree["item_id"] == item["id"]
        if item["type"] == "message":
            self._message(name, tree)
        elif item["type"] == "reasoning":
            self._reasoning(name, tree)
        else:
            base, member = CALLS[item["type"]]
            assert self.whole is None, "the call's input is whole"
            if name == f"{base}.delta":
                self.text.append(tree["delta"])
            else:
                assert name == f"{base}.done"
                self.whole = tree[member]
                assert self.whole == "".join(self.text), "the whole is not its deltas"

    def _message(self, name: str, tree: Tree) -> None:
        assert tree["content_index"] == len(self.parts)
        if name == "response.content_part.added":
            assert self.part is None, "a part is open"
            self.part, self.text, self.whole, self.annotations = tree["part"], [], None, []
            return
        assert self.part is not None, "no part is open"
        refusal = self.part["type"] == "refusal"
        base, member = ("response.refusal", "refusal") if refusal else ("response.output_text", "text")
        if name == "response.content_part.done":
            assert self.whole is not None, "the part's text is not done"
            assert tree["part"][member] == self.whole
            assert refusal or tree["part"]["annotations"] == self.annotations
            self.parts.append(tree["part"])
            self.part = None
            return
        assert self.whole is None, "the part's text is whole"
        if name == f"{base}.delta":
            self.text.append(tree["delta"])
        elif name == f"{base}.done":
            self.whole = tree[member]
            assert self.whole == "".join(self.text), "the whole is not its deltas"
        else:
            assert name == "response.output_text.annotation.added"
            assert not refusal
            assert tree["annotation_index"] == len(self.annotations)
            self.annotations.append(tree["annotation"])

    def _reasoning(self, name: str, tree: Tree) -> None:
        assert tree["summary_index"] == len(self.parts)
        if name == "response.reasoning_summary_part.added":
            assert self.part is None, "a part is open"
            self.part, self.text, self.whole = tree["part"], [], None
            return
        assert self.part is not None, "no part is open"
        if name == "response.reasoning_summary_text.delta":
            assert self.whole is None
            self.text.append(tree["delta"])
        elif name == "response.reasoning_summary_text.done":
            self.whole = tree["text"]
            assert self.whole == "".join(self.text), "the whole is not its deltas"
        else:
            assert name == "response.reasoning_summary_part.done"
            assert tree["part"]["text"] == self.whole
            self.parts.append(tree["part"])
            self.part = None

    def _done(self, begun: Tree, item: Tree) -> None:
        assert self.part is None, "a part is open"
        for member in ("id", "type", "name", "call_id", "namespace"):
            assert item.get(member) == begun.get(member), f"{member} has changed"
        if item["type"] == "message":
            assert item["content"] == self.parts
            assert item["status"] in {"completed", "incomplete"}
        elif item["type"] == "reasoning":
            assert item["summary"] == self.parts
        else:
            assert self.whole is not None, "the call's input is not done"
            assert item[CALLS[item["type"]][1]] == self.whole
            assert item["status"] in {"completed", "incomplete"}
        self.items.append(item)
        self.item = None
