"""The stream of a client that speaks the Messages API, written; ``Reader`` reads an upstream's.

Anthropic API reference, "Streaming Messages". The order of events is the writer's own state: it raises ValueError for events
against the grammar of ``base``, and writes each start and each end once, with indices of its own that have no gap.
"""

from typing import NoReturn

import orjson

from agw_proxy.dialects.anthropic_messages_answers import (
    bare,
    call_id,
    message_id,
    reason_of,
    write_fault,
    write_usage,
)
from agw_proxy.dialects.anthropic_messages_blocks import carrier
from agw_proxy.dialects.anthropic_messages_incoming import Reader
from agw_proxy.dialects.base import (
    SEAL,
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
    Streamed,
    Text,
    Thinking,
    Tokens,
    ToolUse,
    Tree,
)
from agw_proxy.dialects.custom_tools import arguments_of

__all__ = ["Reader", "Writer"]

PING = b'event: ping\ndata: {"type":"ping"}\n\n'
COMMENT = b": ping\n\n"
_DELTA = b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,"delta":{"type":"%s","%s":'
_END = b"}}\n\n"


class Writer:
    """Writes one stream to a client; see ``base.Writer``.

    A block is begun when there is something in it: words that never come, and thoughts without words or signature, leave
    no empty block, which the API would refuse in the next turn. A custom tool's input is gathered, for it has to be JSON.
    """

    def __init__(self, shown: Shown) -> None:
        self._shown = shown
        self._begun = False
        self._over = False
        self._called = False
        self._expected = 0
        """Index of the next block in the events."""
        self._index = 0
        """Index of the next, or the open, block on the wire."""
        self._block: Streamed | None = None
        self._written = False
        """The open block's start is written."""
        self._prefix = b""
        self._signature = ""
        self._gathered: list[str] | None = None
        self._made = 0
        """Tokens of the answer that have been told of: the number never falls."""

    def write(self, event: Event) -> bytes:
        """The event's bytes. Raises ValueError where it may not come now."""
        if type(event) is Part:
            return self._part(event.text)
        if type(event) is Beat:
            return b"" if self._over else PING if self._begun else COMMENT
        if self._over:
            raise ValueError(f"{type(event).__name__} after the stream's end")
        if type(event) is Fault:
            self._over = True
            return _frame("error", write_fault(event, self._shown.id))
        if type(event) is Start:
            return self._start(event)
        if not self._begun:
            raise ValueError(f"{type(event).__name__} before Start")
        if type(event) is BlockStart:
            return self._start_block(event)
        if type(event) is Finish:
            return self._finish(event)
        if self._block is None:
            raise ValueError(f"{type(event).__name__} with no block open")
        if type(event) is BlockStop:
            return self._stop_block()
        if type(event) is Signature:
            return self._sign(event.signature)
        if type(event) is Citation:
            return self._cite(event.citation)
        raise ValueError(f"{event!r} is no event")

    def _start(self, event: Start) -> bytes:
        if self._begun:
            raise ValueError("a second Start")
        self._begun = True
        self._made = event.tokens.output if event.tokens is not None else 0
        message: Tree = {
            "id": message_id(event.id, self._shown),
            "type": "message",
            "role": "assistant",
            "model": self._shown.model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": write_usage(event.tokens or Tokens(), event.service_tier),
        }
        return _frame("message_start", {"type": "message_start", "message": message}) + PING

    def _start_block(self, event: BlockStart) -> bytes:
        if self._block is not None:
            raise ValueError("a block begins while another is open")
        if event.index != self._expected:
            raise ValueError(f"block {event.index} begins where {self._expected} was due")
        block = event.block
        if not isinstance(block, Streamed):
            raise ValueError(f"a block of {type(block).__name__} cannot be streamed")  # noqa: TRY004 - as all others
        self._expected += 1
        self._block, self._written, self._signature, self._gathered = block, False, "", None
        if isinstance(block, Thinking):
            self._signature = bare(block.signature)
            return b""
        if isinstance(block, Image):
            return b""  # the API's answers have none
        made = b""
        if not isinstance(block, Refusal) and block.signature is not None and block.signature.startswith(SEAL):
            # Gemini wants its signature back with the call: it travels as a hidden thought before it.
            made = self._whole({"type": "redacted_thinking", "data": carrier(block.signature)})
        if isinstance(block, ToolUse):
            self._called = True
            if block.custom:
                self._gathered = []
            given = call_id(block.id, self._shown, self._index)
            return made + self._open({"type": "tool_use", "id": given, "name": block.name, "input": {}})
        return made

    def _open(self, block: Tree) -> bytes:
        """The wire's start of the open block."""
        self._written = True
        words = {
            "text": (b"text_delta", b"text"),
            "thinking": (b"thinking_delta", b"thinking"),
            "tool_use": (b"input_json_delta", b"partial_json"),
        }[block["type"]]
        self._prefix = _DELTA % (self._index, *words)
        return _frame(
            "content_block_start", {"type": "content_block_start", "index": self._index, "content_block": block}
        )

    def _ensure_open(self) -> bytes:
        if self._written:
            return b""
        if isinstance(self._block, Thinking):
            return self._open({"type": "thinking", "thinking": "", "signature": ""})
        return self._open({"type": "text", "text": ""})

    def _part(self, text: str) -> bytes:
        if self._block is None or self._over or isinstance(self._block, Image):
            self._refuse("words")
        if not text:
            return b""
        if self._gathered is not None:
            self._gathered.append(text)
            return b""
        if self._written:
            return self._prefix + orjson.dumps(text) + _END
        return self._ensure_open() + self._prefix + orjson.dumps(text) + _END

    def _refuse(self, what: str) -> NoReturn:
        raise ValueError(f"{what} with no block open")

    def _sign(self, signature: str) -> bytes:
        """Thoughts are signed at their end. A signature that comes late on words or calls has no place in this API."""
        if isinstance(self._block, Thinking):
            self._signature = bare(signature)
        return b""

    def _cite(self, citation: Tree) -> bytes:
        if not isinstance(self._block, Text):
            raise ValueError("a citation outside of text")  # noqa: TRY004 - it is the order that is wrong
        delta = {"type": "citations_delta", "citation": citation}
        made = self._ensure_open()
        return made + _frame(
            "content_block_delta", {"type": "content_block_delta", "index": self._index, "delta": delta}
        )

    def _stop_block(self) -> bytes:
        block, self._block = self._block, None
        made = b""
        if isinstance(block, Thinking) and self._signature:
            if block.hidden and not self._written:
                return self._whole({"type": "redacted_thinking", "data": self._signature})
            self._block = block
            made = self._ensure_open()
            self._block = None
            delta = {"type": "signature_delta", "signature": self._signature}
            made += _frame("content_block_delta", {"type": "content_block_delta", "index": self._index, "delta": delta})
        if self._gathered is not None:
            made += self._prefix + orjson.dumps(arguments_of("".join(self._gathered))) + _END
            self._gathered = None
        if not self._written:
            return b""
        made += _stop(self._index)
        self._index += 1
        return made

    def _whole(self, block: Tree) -> bytes:
        """A block that has no parts."""
        start = {"type": "content_block_start", "index": self._index, "content_block": block}
        made = _frame("content_block_start", start) + _stop(self._index)
        self._index += 1
        return made

    def _finish(self, event: Finish) -> bytes:
        if self._block is not None:
            raise ValueError("Finish while a block is open")
        self._over = True
        delta = {
            "stop_reason": reason_of(event.stop, called=self._called),
            "stop_sequence": event.stop_sequence if event.stop == "sequence" else None,
        }
        usage = write_usage(event.tokens)
        usage["output_tokens"] = max(usage["output_tokens"], self._made)
        if event.tokens.input < 0:
            # Not known: what message_start has said stands.
            usage = {name: value for name, value in usage.items() if name.startswith("output")}
        return _frame("message_delta", {"type": "message_delta", "delta": delta, "usage": usage}) + _frame(
            "message_stop", {"type": "message_stop"}
        )


def _stop(index: int) -> bytes:
    return b'event: content_block_stop\ndata: {"type":"content_block_stop","index":%d}\n\n' % index


def _frame(name: str, tree: Tree) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (name.encode(), orjson.dumps(tree))
