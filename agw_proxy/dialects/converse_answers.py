"""Answers and streams of Amazon's Converse, read.

Bedrock API reference, "Converse" (response) and "ConverseStream". ``Reader`` keeps to the grammar of ``base`` whatever comes.
"""

import orjson

from agw_proxy.dialects import members
from agw_proxy.dialects.base import (
    Answer,
    Block,
    BlockStart,
    BlockStop,
    Event,
    Finish,
    Malformed,
    Part,
    Signature,
    Start,
    Stop,
    Text,
    Thinking,
    Tokens,
    ToolUse,
    Tree,
)

STOPS: dict[str, Stop] = {
    "end_turn": "stop",
    "tool_use": "tool",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "stop_sequence": "sequence",
    "guardrail_intervened": "refusal",
    "content_filtered": "refusal",
}


def read_answer(tree: Tree) -> Answer:
    """A whole answer. Raises Malformed."""
    output = members.branch(tree, "output") or {}
    message = members.branch(output, "message", "output")
    if message is None:
        raise Malformed("The answer has no message.")
    where = "output.message.content"
    blocks = [
        block
        for at, found in enumerate(members.branches(message, "content", "output.message"))
        if (block := _block(found, f"{where}[{at}]")) is not None
    ]
    stop = _stop_of(tree)
    return Answer(id="", model="", blocks=blocks, stop=stop, tokens=_tokens(members.branch(tree, "usage")))


def _block(tree: Tree, where: str) -> Block | None:
    """A block that a client can be told of; None for others."""
    if (text := members.text(tree, "text", where)) is not None:
        return Text(text)
    if (call := members.branch(tree, "toolUse", where)) is not None:
        under = f"{where}.toolUse"
        arguments = members.branch(call, "input", under)
        return ToolUse(_id(call, under), members.wanted(call, "name", under), _json(arguments or {}))
    if (thought := members.branch(tree, "reasoningContent", where)) is not None:
        hidden = members.text(thought, "redactedContent", where)
        if hidden is not None:
            return Thinking(signature=hidden, hidden=True)
        said = members.branch(thought, "reasoningText", where) or {}
        return Thinking(members.text(said, "text", where) or "", members.text(said, "signature", where))
    if (cited := members.branch(tree, "citationsContent", where)) is not None:
        return Text("".join(members.text(part, "text", where) or "" for part in members.branches(cited, "content")))
    return None


class Reader:
    """Reads one stream. Fed each message's type and payload."""

    def __init__(self) -> None:
        self._begun = False
        self._over = False
        self._next = 0
        """Index of the next block in the events."""
        self._open: Block | None = None
        self._at: int | None = None
        """Amazon's index of the open block."""
        self._stop: Stop | None = None

    def read(self, kind: str, tree: Tree) -> list[Event]:
        """``kind``: ``:event-type``. Raises Malformed."""
        if self._over:
            return []
        made: list[Event] = []
        if not self._begun:
            self._begun = True
            made.append(Start(id="", model=""))
        if self._stop is not None:  # then only the measurements are due
            return made + self._finish(_tokens(members.branch(tree, "usage"))) if kind == "metadata" else made
        if kind == "contentBlockStart":
            call = members.branch(members.branch(tree, "start") or {}, "toolUse", "start")
            if call is not None:
                made += self._begin(ToolUse(_id(call, "start"), members.wanted(call, "name", "start")), tree)
        elif kind == "contentBlockDelta":
            made += self._delta(tree, members.branch(tree, "delta") or {})
        elif kind == "contentBlockStop":
            made += self._end()
        elif kind == "messageStop":
            made += self._end()
            self._stop = _stop_of(tree)
        return made

    def end(self) -> list[Event]:
        """The stream has ended: well, where it has said why it stopped."""
        return [] if self._stop is None or self._over else self._finish(Tokens())

    def _finish(self, tokens: Tokens) -> list[Event]:
        self._over = True
        return [Finish(self._stop or "stop", tokens)]

    def _begin(self, block: Block, tree: Tree) -> list[Event]:
        made = [*self._end(), BlockStart(self._next, block)]
        self._open, self._at = block, members.integer(tree, "contentBlockIndex")
        self._next += 1
        return made

    def _end(self) -> list[Event]:
        opened, self._open = self._open, None
        return [BlockStop()] if opened is not None else []

    def _ensure(self, block: Block, tree: Tree) -> list[Event]:
        """The block of that kind and index is open."""
        same = type(self._open) is type(block) and self._at == members.integer(tree, "contentBlockIndex")
        return [] if same else self._begin(block, tree)

    def _delta(self, tree: Tree, delta: Tree) -> list[Event]:
        if (text := members.text(delta, "text", "delta")) is not None:
            return [*self._ensure(Text(""), tree), Part(text)]
        if (call := members.branch(delta, "toolUse", "delta")) is not None:
            if not isinstance(self._open, ToolUse):
                raise Malformed("Arguments of a call came before the call.")
            return [Part(members.text(call, "input", "delta.toolUse") or "")]
        thought = members.branch(delta, "reasoningContent", "delta")
        if thought is None:
            return []
        if (hidden := members.text(thought, "redactedContent", "delta")) is not None:
            return [*self._begin(Thinking(signature=hidden, hidden=True), tree), *self._end()]
        made = self._ensure(Thinking(), tree)
        if (text := members.text(thought, "text", "delta")) is not None:
            made.append(Part(text))
        if (signature := members.text(thought, "signature", "delta")) is not None:
            made.append(Signature(signature))
        return made


def _stop_of(tree: Tree) -> Stop:
    return STOPS.get(members.wanted(tree, "stopReason"), "stop")


def _id(call: Tree, where: str) -> str:
    return members.wanted(call, "toolUseId", where)


def _tokens(usage: Tree | None) -> Tokens:
    """Amazon counts what comes from a cache, and goes into it, beside the input."""
    if usage is None:
        return Tokens()
    read, written = (
        members.integer(usage, name, "usage") or 0 for name in ("cacheReadInputTokens", "cacheWriteInputTokens")
    )
    given, output = (members.integer(usage, name, "usage") for name in ("inputTokens", "outputTokens"))
    return Tokens(
        input=-1 if given is None else given + read + written,
        output=-1 if output is None else output,
        cached=read,
        written=written,
    )


def _json(tree: Tree) -> str:
    try:
        return orjson.dumps(tree).decode()
    except orjson.JSONEncodeError as error:  # it reads deeper than it writes
        raise Malformed(f"The arguments of a call cannot be written: {error}.") from None
