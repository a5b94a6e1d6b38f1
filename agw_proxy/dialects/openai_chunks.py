"""Streams in chunks, as OpenAI's Chat and its older completions have them: what is the same in both.

A head that every chunk repeats, the choice, the reason of the end in the last one, usage in a chunk of its own for those who
have asked for it, ``[DONE]`` (OpenAI API reference, "The chat completion chunk object", "Completions").
"""

from abc import ABC, abstractmethod
from typing import ClassVar

import orjson

from agw_proxy.dialects.base import (
    Beat,
    BlockStart,
    BlockStop,
    Citation,
    Event,
    Fault,
    Finish,
    Image,
    Part,
    Refusal,
    Shown,
    Signature,
    Start,
    Stop,
    Streamed,
    ToolUse,
    Tree,
)
from agw_proxy.dialects.openai_chat_faults import write_fault
from agw_proxy.dialects.openai_chat_usage import write_tokens
from agw_proxy.dialects.sse import frame

PING = b": ping\n\n"


class Chunks(ABC):
    """Writes one stream; see ``base.Writer``. The order of events is kept here, what a chunk says is each form's own."""

    __slots__ = ("_block", "_head", "_next", "_over", "_refused", "_shown", "_tail", "_told")
    kind: ClassVar[str]
    """``object`` of each chunk."""

    def __init__(self, shown: Shown) -> None:
        self._shown = shown
        self._head = b""
        self._told: Tree = {}
        self._tail = b',"usage":null}\n\n' if shown.include_usage else b"}\n\n"
        self._block: Streamed | None = None
        self._next = 0
        self._refused = False
        self._over = False

    def write(self, event: Event) -> bytes:
        """Bytes of whole events, maybe none; see ``base.Writer``."""
        if self._over:
            raise ValueError(f"{type(event).__name__} after the end")
        if isinstance(event, Part):
            if self._block is None or isinstance(self._block, Image):
                raise ValueError("Part outside a block of words")
            return self._part(event, self._block) if event.text else b""
        if isinstance(event, Beat):
            return PING
        if isinstance(event, Fault):
            self._over = True
            return frame("error", orjson.dumps(write_fault(event, self._shown.id)))
        if isinstance(event, Start):
            return self._start(event)
        if not self._head:
            raise ValueError(f"{type(event).__name__} before the start")
        if isinstance(event, BlockStart):
            return self._take(event)
        if isinstance(event, Finish):
            return self._finish(event)
        block = self._block
        if block is None:
            raise ValueError(f"{type(event).__name__} outside a block")
        if isinstance(event, BlockStop):
            self._block = None
            return self._close(block)
        return self._note(event)

    def _start(self, start: Start) -> bytes:
        if self._head:
            raise ValueError("a second Start")
        head = {
            "id": self._identity(start),
            "object": self.kind,
            "created": start.created or self._shown.now,
            "model": self._shown.model,
            **self._tier(start.service_tier),
        }
        self._head, self._told = _headed(head), head
        return self._first()

    def _take(self, event: BlockStart) -> bytes:
        block = event.block
        if self._block is not None or event.index != self._next:
            raise ValueError(f"block {event.index} begins where {self._next} was due, or within another")
        if not isinstance(block, Streamed):
            raise ValueError(f"{type(block).__name__} in a stream")  # noqa: TRY004 - the contract's one error
        self._block = block
        self._next += 1
        self._refused = self._refused or isinstance(block, Refusal)
        begun = self._open(block)
        if isinstance(block, Image):
            return begun
        early = block.arguments if isinstance(block, ToolUse) else block.text
        return begun + self._part(Part(early), block) if early else begun

    def _finish(self, event: Finish) -> bytes:
        if self._block is not None:
            raise ValueError("Finish within a block")
        self._over = True
        self._head = _headed({**self._told, **self._tier(event.service_tier)})  # often it is known at the end only
        made = self._last(event.stop)
        usage = write_tokens(event.tokens) if self._shown.include_usage else None
        if usage is not None:
            made += b'%b"choices":[],"usage":%b}\n\n' % (self._head, orjson.dumps(usage))
        return made + b"data: [DONE]\n\n"

    @abstractmethod
    def _identity(self, start: Start) -> str:
        """``id`` of each chunk."""

    def _tier(self, tier: str | None) -> Tree:  # noqa: ARG002 - as below
        """What each chunk says of the tier that the model is served in."""
        return {}

    @abstractmethod
    def _first(self) -> bytes:
        """The chunk before all words."""

    def _open(self, block: Streamed) -> bytes:  # noqa: ARG002 - a form may have nothing to say there, as in the next two
        """What stands before a block's first part."""
        return b""

    @abstractmethod
    def _part(self, part: Part, block: Streamed) -> bytes:
        """Words of the open block; there are some."""

    def _note(self, event: Signature | Citation) -> bytes:  # noqa: ARG002
        """What belongs to the open block besides its words."""
        return b""

    def _close(self, block: Streamed) -> bytes:  # noqa: ARG002
        """What is only known of a block when it is whole."""
        return b""

    @abstractmethod
    def _last(self, stop: Stop) -> bytes:
        """The chunk that says why the answer ended."""


def _headed(members: Tree) -> bytes:
    """The beginning of a chunk with these members."""
    return b"data: " + orjson.dumps(members)[:-1] + b","
