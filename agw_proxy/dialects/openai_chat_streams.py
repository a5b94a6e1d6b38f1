"""The stream of a client that speaks Chat, written; ``Reader`` reads an upstream's.

OpenAI API reference, Chat, "The chat completion chunk object".
"""

import orjson

from agw_proxy.dialects.base import (
    Citation,
    Image,
    Part,
    Shown,
    Signature,
    Start,
    Stop,
    Streamed,
    Text,
    Thinking,
    ToolUse,
    Tree,
)
from agw_proxy.dialects.custom_tools import input_of
from agw_proxy.dialects.openai_chat_answers import custom_names, in_functions, tier_of, write_image
from agw_proxy.dialects.openai_chat_citations import write_annotation
from agw_proxy.dialects.openai_chat_incoming import Reader
from agw_proxy.dialects.openai_chat_thoughts import (
    write_detail,
    write_tool_signature,
)
from agw_proxy.dialects.openai_chat_usage import write_stop
from agw_proxy.dialects.openai_chunks import Chunks

__all__ = ["Reader", "Writer"]


class Writer(Chunks):
    """Writes one stream: the role, deltas, the reason of the end, usage for those who have asked for it, ``[DONE]``."""

    __slots__ = (
        "_calls", "_customs", "_from", "_functions", "_images", "_offset", "_pieces", "_signature", "_sources",
        "_thoughts",
    )  # fmt: skip
    kind = "chat.completion.chunk"

    def __init__(self, shown: Shown) -> None:
        super().__init__(shown)
        self._customs = custom_names(shown)
        self._functions = in_functions(shown)
        self._images = 0
        self._calls = -1
        self._thoughts = 0
        self._offset = 0
        self._from = 0
        self._pieces: list[str] = []
        self._sources: list[Tree] = []
        self._signature: str | None = None

    def _identity(self, start: Start) -> str:
        return start.id or f"chatcmpl-{self._shown.id}"

    def _tier(self, tier: str | None) -> Tree:
        return tier_of(tier)

    def _first(self) -> bytes:
        return self._chunk(b'{"role":"assistant","content":"","refusal":null}')

    def _chunk(self, delta: bytes, reason: bytes = b"null", logprobs: bytes = b"null") -> bytes:
        return b'%b"choices":[{"index":0,"delta":%b,"logprobs":%b,"finish_reason":%b}]%b' % (
            self._head, delta, logprobs, reason, self._tail,
        )  # fmt: skip

    def _open(self, block: Streamed) -> bytes:
        self._pieces = []
        self._sources = []
        self._from = self._offset
        self._signature = block.signature if isinstance(block, Text | Thinking | ToolUse) else None
        if isinstance(block, Image):
            self._images += 1
            image = {"index": self._images - 1, **write_image(block)}
            return self._chunk(orjson.dumps({"images": [image]}))
        if not isinstance(block, ToolUse):
            return b""
        self._calls += 1
        if self._is_custom(block):
            return b""
        return self._call({"id": block.id, "type": "function", "function": {"name": block.name, "arguments": ""}})

    def _is_custom(self, block: ToolUse) -> bool:
        """Its input is given out whole: it may have come as JSON, and that shows only at its end."""
        return block.custom or block.name in self._customs

    def _call(self, tree: Tree) -> bytes:
        if self._functions:  # of which there is one
            told = self._calls == 0 and "function" in tree
            return self._chunk(orjson.dumps({"function_call": tree["function"]})) if told else b""
        return self._chunk(orjson.dumps({"tool_calls": [{"index": self._calls, **tree}]}))

    def _part(self, part: Part, block: Streamed) -> bytes:
        words = part.text
        if isinstance(block, Text):
            self._offset += len(words)
            delta = b'{"content":%b}' % orjson.dumps(words)
            if not part.logprobs:
                return self._chunk(delta)
            return self._chunk(delta, logprobs=orjson.dumps({"content": part.logprobs, "refusal": None}))
        if isinstance(block, ToolUse):
            self._pieces.append(words)
            if self._is_custom(block):
                return b""
            if self._functions:
                return self._call({"function": {"arguments": words}})
            return self._chunk(
                b'{"tool_calls":[{"index":%d,"function":{"arguments":%b}}]}' % (self._calls, orjson.dumps(words))
            )
        if isinstance(block, Thinking):
            self._pieces.append(words)
            return self._chunk(b'{"reasoning_content":%b}' % orjson.dumps(words))
        return self._chunk(b'{"refusal":%b}' % orjson.dumps(words))

    def _note(self, event: Signature | Citation) -> bytes:
        """Kept for the block's end."""
        if isinstance(event, Signature):
            self._signature = event.signature
        else:
            self._sources.append(event.citation)
        return b""

    def _close(self, block: Streamed) -> bytes:
        """Signatures, the places of sources, a custom tool's input."""
        if isinstance(block, Text):
            made = [write_annotation(source, self._from, self._offset) for source in self._sources]
            annotations = [each for each in made if each is not None]
            return self._chunk(orjson.dumps({"annotations": annotations})) if annotations else b""
        if isinstance(block, Thinking) and self._signature is not None:
            thought = Thinking("".join(self._pieces), self._signature, block.hidden)
            self._thoughts += 1
            details = [write_detail(thought, self._thoughts - 1)]
            return self._chunk(orjson.dumps({"reasoning_details": details}))
        return self._close_call(block) if isinstance(block, ToolUse) else b""

    def _close_call(self, block: ToolUse) -> bytes:
        tree: Tree = {}
        if self._is_custom(block):
            words = "".join(self._pieces)
            plain = words if block.custom else input_of(words)
            tree = {"id": block.id, "type": "custom", "custom": {"name": block.name, "input": plain}}
        elif not self._pieces:
            # A tool that takes nothing: clients read the arguments as JSON, and nothing is none.
            tree = {"function": {"arguments": "{}"}}
        if self._signature is not None:
            tree["extra_content"] = write_tool_signature(self._signature)
        return self._call(tree) if tree else b""

    def _last(self, stop: Stop) -> bytes:
        reason = write_stop(stop, refused=self._refused, functions=self._functions)
        return self._chunk(b"{}", orjson.dumps(reason))
