"""A run's events -> the hub's (``dialects.base``): one answer out of several model calls, and of the agent's own doings a note.

Each model call's Responses events go through the Reader that reads upstreams, so an agent's model may leave out what an
upstream may. The agent's own tool calls and handoffs are never shown as calls: a client would try to run them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from agw_proxy.dialects.base import (
    Answer,
    Beat,
    Block,
    BlockStart,
    BlockStop,
    Citation,
    Event,
    Fault,
    Finish,
    Part,
    Refusal,
    Signature,
    Start,
    Stop,
    Text,
    Thinking,
    Tokens,
    ToolUse,
    Tree,
)
from agw_proxy.dialects.openai_responses_streams import Reader
from agw_proxy.sdk.entry import Shows
from agw_proxy.sdk.results import dumped
from agw_proxy.sdk.whole import events_of

BREAK = "\n\n"
"""Between the words of two turns, and of two messages of one."""
NOTE_LENGTH = 300
"""Characters of a call's arguments or result in a note: it is for people."""
DELTAS = frozenset(
    {
        "response.output_text.delta", "response.refusal.delta", "response.reasoning_summary_text.delta",
        "response.reasoning_text.delta", "response.function_call_arguments.delta", "response.custom_tool_call_input.delta",
    }
)  # fmt: skip
ITEMS = frozenset({"response.output_item.added", "response.output_item.done"})
ENDS = frozenset({"response.completed", "response.incomplete", "response.failed"})


class Bridge:
    """One run's events, in order. What it gives keeps to the grammar of ``dialects.base``; the end is ``finish``'s."""

    def __init__(self, names: Mapping[str, str], shows: Shows) -> None:
        """``names``: of the caller's tools, see ``requests.Asked``. ``shows``: what is told of the agent's own doings."""
        self.tokens = Tokens()
        """Of the model calls that have ended."""
        self.stop: Stop | None = None
        """How the last model call ended; None: it has not."""
        self.fault: Fault | None = None
        """Why it failed."""
        self.calls = 0
        """Of the caller's tools."""
        self.said = False
        """There are words in the answer."""
        self.names = names
        self._shows = shows
        self._reader: Reader | None = None
        self._started = False
        self._index = 0
        self._open: Block | None = None
        self._hidden: ToolUse | None = None
        self._pieces: list[str] = []
        self._breaks = False
        self._tail = ""
        self._done = 0
        self._called: dict[str, str] = {}

    # -- the model's words

    def raw(self, data: Any) -> list[Event]:
        """An event of a model call: one of the OpenAI client's types."""
        kind = data.type
        out = self._begin() if kind == "response.created" or self._reader is None else []
        reader = self._reader
        tree = self._tree(kind, data)
        if kind == "response.output_item.added" and data.item.type == "message":
            self._breaks = self.said
        if reader is not None and tree is not None:
            for event in reader.take(tree):
                self._take(event, out)
        return out

    def whole(self, output: Sequence[Any], end: Tree) -> list[Event]:
        """A model call's answer in one piece. ``end``: see ``whole.end_of``."""
        out, reader = self._begin(), Reader()
        for tree in events_of(output, end):
            if tree["type"] == "response.output_item.added" and tree["item"].get("type") == "message":
                self._breaks = self.said
            for event in reader.take(tree):
                self._take(event, out)
        return out

    def _begin(self) -> list[Event]:
        """A model call begins. What the one before has left open (it is being tried again) is closed."""
        out: list[Event] = []
        if self._open is not None:
            self._close(out)
        self._hidden = None
        self._reader, self.stop, self.fault, self._done = Reader(), None, None, 0
        self._breaks = self.said
        if not self._started:
            self._started = True
            out.append(Start("", ""))
        return out

    def _tree(self, kind: str, data: Any) -> Tree | None:
        """As much of the event as the Reader wants; None: nothing. Most events are deltas, and cost little."""
        if kind in DELTAS:
            return {
                "type": kind,
                "delta": data.delta,
                "item_id": getattr(data, "item_id", None),
                "output_index": getattr(data, "output_index", None),
                "content_index": getattr(data, "content_index", None),
                "summary_index": getattr(data, "summary_index", None),
            }
        if kind in ITEMS:
            self._done += kind == "response.output_item.done"
            return {"type": kind, "output_index": data.output_index, "item": dumped(data.item)}
        if kind in ENDS:
            return {"type": kind, "response": self._response(data.response)}
        if kind == "error":
            return {"type": "error", "error": dumped(data)}
        if kind == "response.output_text.annotation.added":
            annotation: Tree = dumped(data)
            return annotation
        return None

    def _response(self, response: Any) -> Tree:
        """What its end says of a model call; the items only where they were not all told before."""
        output = response.output or []
        return {
            "status": response.status,
            "incomplete_details": dumped(response.incomplete_details),
            "error": dumped(response.error),
            "output": [] if self._done >= len(output) else [dumped(item) for item in output],
            "usage": dumped(response.usage),
        }

    def _take(self, event: Event, out: list[Event]) -> None:
        if isinstance(event, Part):
            if self._hidden is not None:
                self._pieces.append(event.text)
            else:
                self._say(event, out)
        elif isinstance(event, BlockStart):
            self._start_block(event.block, out)
        elif isinstance(event, BlockStop):
            if self._hidden is not None:
                hidden, self._hidden = self._hidden, None
                self._note(f"Calls {hidden.name}: {_short(''.join(self._pieces))}", out)
            else:
                self._close(out)
        elif isinstance(event, Finish):
            self._reader = None
            self.stop = event.stop
            self.tokens = added(self.tokens, event.tokens)
        elif isinstance(event, Fault):
            self._reader = None
            self.fault = event
        elif not isinstance(event, Start | Beat) and self._hidden is None:
            out.append(event)

    def _start_block(self, block: Block, out: list[Event]) -> None:
        if isinstance(block, ToolUse):
            own = self.names.get(block.name)
            if own is None:
                self._hidden, self._pieces = block, []
                self._called[block.id] = block.name
                return
            self.calls += 1
            block = ToolUse(block.id, own, signature=block.signature)
        self._open_block(block, out)

    def _open_block(self, block: Block, out: list[Event]) -> None:
        out.append(BlockStart(self._index, block))
        self._index += 1
        self._open = block

    def _say(self, part: Part, out: list[Event]) -> None:
        if isinstance(self._open, Text | Refusal) and part.text:
            apart = self._tail.isspace() or part.text[0].isspace()
            if self._breaks and isinstance(self._open, Text) and not apart:
                out.append(Part(BREAK))
            self._breaks, self.said, self._tail = False, True, part.text[-1]
        out.append(part)

    def _close(self, out: list[Event]) -> None:
        if self._open is not None:
            self._open = None
            out.append(BlockStop())

    # -- what the agent does itself

    def result(self, call_id: object, output: object) -> list[Event]:
        """A call of a tool of the agent's has given this."""
        out: list[Event] = []
        self._note(f"{self._called.get(str(call_id), 'tool')}: {_short(str(output))}", out)
        return out

    def handed(self, source: str, target: str) -> list[Event]:
        """Another agent has the conversation now."""
        out: list[Event] = []
        self._note(f"{source} hands over to {target}.", out)
        return out

    def _note(self, words: str, out: list[Event]) -> None:
        """As thoughts, or as words of the answer; clients take neither for a call."""
        if self._shows == "hidden" or self._open is not None or not self._started:
            return
        visible = self._shows == "visible"
        self._open_block(Text("") if visible else Thinking(), out)
        if visible:
            self._breaks = self.said
        self._say(Part(f"[{words}]" if visible else words), out)
        self._close(out)
        self._breaks = self.said

    # -- the end

    def words(self, text: str) -> list[Event]:
        """The answer, where it is not the model's words: what a tool has given, or a handler of the author's."""
        out: list[Event] = [] if self._started else self._begin()
        self._close(out)
        self._open_block(Text(""), out)
        if text:
            self._say(Part(text), out)
        self._close(out)
        return out

    def finish(self, stop: Stop, tokens: Tokens) -> list[Event]:
        """The last events of a whole answer."""
        out: list[Event] = [] if self._started else self._begin()
        self._close(out)
        out.append(Finish(stop, tokens))
        return out


def added(one: Tokens, other: Tokens) -> Tokens:
    """Usage of two model calls; what neither knows stays unknown."""
    return Tokens(
        input=_sum(one.input, other.input),
        output=_sum(one.output, other.output),
        cached=one.cached + other.cached,
        written=one.written + other.written,
        reasoning=one.reasoning + other.reasoning,
    )


def gathered(events: Sequence[Event], answer_id: str, model: str) -> Answer:
    """The events of a whole answer in one piece."""
    blocks: list[Block] = []
    texts: list[str] = []
    for event in events:
        if isinstance(event, BlockStart):
            blocks.append(event.block)
            texts = []
        elif isinstance(event, Part):
            texts.append(event.text)
        elif isinstance(event, BlockStop):
            _fill(blocks[-1], "".join(texts))
        elif isinstance(event, Citation) and isinstance(blocks[-1], Text):
            blocks[-1].citations = [*blocks[-1].citations, event.citation]
        elif isinstance(event, Signature) and isinstance(blocks[-1], Text | Thinking | ToolUse):
            blocks[-1].signature = event.signature
        elif isinstance(event, Finish):
            return Answer(answer_id, model, blocks, event.stop, event.tokens)
    raise ValueError("the events hold no end")


def _fill(block: Block, text: str) -> None:
    if isinstance(block, ToolUse):
        block.arguments = text
    elif isinstance(block, Text | Thinking | Refusal):
        block.text = text


def _sum(one: int, other: int) -> int:
    return -1 if one < 0 and other < 0 else max(one, 0) + max(other, 0)


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= NOTE_LENGTH else f"{text[:NOTE_LENGTH]}..."
