"""Streams of the Gemini API: ``models/M:streamGenerateContent?alt=sse``.

Gemini API reference, ``streamGenerateContent``: each event is a ``GenerateContentResponse`` of what is new, without an
``event:`` line and without a terminator; the last one says a ``finishReason``, and its usage counts all.
"""

import orjson

from agw_proxy.dialects import members
from agw_proxy.dialects.base import (
    Beat,
    BlockStart,
    BlockStop,
    Citation,
    Event,
    Fault,
    Finish,
    Image,
    Malformed,
    Part,
    Refusal,
    Shown,
    Signature,
    Start,
    Stop,
    Streamed,
    Text,
    Thinking,
    Tokens,
    ToolUse,
    Tree,
)
from agw_proxy.dialects.gemini_answers import (
    FINISHES,
    block_reason,
    failure_of,
    fault_of,
    first_candidate,
    image_part,
    parts_of,
    read_tokens,
    stop_of,
    write_fault,
    write_tokens,
)
from agw_proxy.dialects.gemini_names import branch, camel, shown_signature
from agw_proxy.dialects.gemini_parts import call_part, read_part
from agw_proxy.dialects.gemini_sources import citations_of, grounding_of, logprobs_of, logprobs_result
from agw_proxy.dialects.halves import Halves


class Reader:
    """Reads one upstream stream. A ``finishReason`` makes it whole, but the Finish comes with ``end``.

    Some servers say the reason in every chunk, and some send usage after it: only the end tells that there is no more.
    """

    def __init__(self) -> None:
        self._json = Halves()
        self._started = False
        self._over = False
        self._open: type[Text | Thinking] | None = None
        self._signed = False
        self._blocks = 0
        self._position = 0
        self._called = False
        self._id = ""
        self._cited: set[tuple[str, str]] = set()
        self._stop: Stop | None = None
        self._counted: Tree = {}
        """What the chunks say of the usage, the last word of each number; it is read when it is wanted."""

    def read(self, name: str, data: bytes) -> list[Event]:
        """See ``base.Reader``. ``name``: only ``error`` means anything."""
        if self._over or not data or data == b"[DONE]":
            return []
        events: list[Event] = []
        try:
            tree = self._json.loads(data)
            if isinstance(tree, dict) and tree.get("error") is None and name != "error":
                fault = None
                self._read(camel(tree), events)
            else:
                nothing = Fault("The upstream's stream broke with an error that says nothing.", "api_error")
                fault = fault_of(tree) or nothing
        except orjson.JSONDecodeError:
            fault = Fault("The upstream's stream has an event that is no JSON.", "api_error")
        except Malformed as malformed:
            fault = Fault(
                f"The upstream's stream has an event that is not of its API: {malformed.message}", "api_error"
            )
        if fault is not None:
            events.append(fault)
            self._over = True
        return events

    def end(self) -> list[Event]:
        """See ``base.Reader``: the open block's end and the Finish, or nothing where the stream was cut."""
        if self._over or self._stop is None:
            return []
        self._over = True
        try:
            tokens = read_tokens(self._counted) or Tokens()
        except Malformed as malformed:
            return [_foreign(malformed)]
        events: list[Event] = []
        self._close(events)
        stop: Stop = "tool" if self._called and self._stop == "stop" else self._stop
        events.append(Finish(stop, tokens))
        return events

    def _read(self, tree: Tree, events: list[Event]) -> None:
        if "usageMetadata" in tree:
            told = branch(tree, "usageMetadata") or {}
            self._counted = {"usageMetadata": {**self._counted.get("usageMetadata", {}), **told}}
        if not self._started:
            self._started = True
            self._id = members.text(tree, "responseId") or ""
            events.append(Start(self._id, members.text(tree, "modelVersion") or "", tokens=read_tokens(tree)))
        candidate = first_candidate(tree)
        if candidate is None:
            blocked = block_reason(tree)
            if blocked is not None and self._stop is None:  # some chunks say it again
                self._refuse(blocked, events)
            return
        parts = parts_of(candidate)
        logprobs = logprobs_of(candidate) if "logprobsResult" in candidate else None
        for at, part in enumerate(parts):
            self._part(part, f"candidates[0].content.parts[{at}]", logprobs, events)
            if "text" in part and not part.get("thought"):
                logprobs = None
        if "groundingMetadata" in candidate and self._open is Text:
            self._cite(candidate, events)
        reason = members.text(candidate, "finishReason", "candidates[0]")
        if reason and reason != "FINISH_REASON_UNSPECIFIED":
            self._stop = stop_of(reason, self._called)
            if self._stop is None:
                self._over = True
                events.append(Fault(failure_of(candidate), "api_error"))

    def _part(self, part: Tree, path: str, logprobs: list[Tree] | None, events: list[Event]) -> None:
        block = read_part(part, path, self._id, self._position)
        if isinstance(block, ToolUse):
            self._close(events)
            self._called = True
            self._position += 1
            arguments, block.arguments = block.arguments, ""
            self._begin(block, events)  # with its signature, which some dialects have to say before the call
            events += (Part(arguments), BlockStop())
        elif isinstance(block, Image):
            self._close(events)
            self._begin(block, events)
            events.append(BlockStop())
        elif isinstance(block, Text | Thinking):
            kind = type(block)
            if (block.text or (block.signature and kind is Thinking)) and (self._open is not kind or self._signed):
                self._close(events)
                self._begin(kind(""), events)
                self._open = kind
            if block.text:
                events.append(Part(block.text, logprobs if kind is Text else None))
            if block.signature is not None and self._open is kind:
                events.append(Signature(block.signature))
                self._signed = True

    def _cite(self, candidate: Tree, events: list[Event]) -> None:
        """Each once: later chunks say again what earlier ones have said."""
        for each in citations_of(candidate):
            key = (each["url"], each["cited_text"])
            if key not in self._cited:
                self._cited.add(key)
                events.append(Citation(each))

    def _refuse(self, words: str, events: list[Event]) -> None:
        self._close(events)
        self._begin(Refusal(""), events)
        events += (Part(words), BlockStop())
        self._stop = "refusal"

    def _begin(self, block: Streamed, events: list[Event]) -> None:
        events.append(BlockStart(self._blocks, block))
        self._blocks += 1
        self._signed = False

    def _close(self, events: list[Event]) -> None:
        if self._open is not None:
            events.append(BlockStop())
            self._open = None


def _foreign(malformed: Malformed) -> Fault:
    return Fault(f"The upstream's stream has an event that is not of its API: {malformed.message}", "api_error")


_CANDIDATE = b'data: {"candidates":[{"content":{"parts":['
_SAID = b'{"text":'
_THOUGHT = b'"thought":true'


class Writer:
    """Writes one stream to a caller. Calls are gathered and written whole, as Google does.

    Beats are not written: Google's SDKs for Python take comments of an event stream, and ``event:`` lines, for broken JSON.
    """

    def __init__(self, shown: Shown) -> None:
        self._shown = shown
        self._tail = b""
        self._started = False
        self._over = False
        self._block: Streamed | None = None
        self._blocks = 0
        self._pieces: list[str] = []
        self._signature: str | None = None
        self._texts: list[tuple[list[Tree], int]] = []
        self._cited: list[Tree] = []
        self._length = 0

    def write(self, event: Event) -> bytes:
        """See ``base.Writer``."""
        if isinstance(event, Beat):
            return b""
        if self._over:
            raise ValueError(f"{type(event).__name__} after the end")
        if isinstance(event, Part):
            return self._part(event)
        if isinstance(event, Fault):
            self._over = True
            return b"data: " + orjson.dumps(write_fault(event, self._shown.id)) + b"\n\n"
        if isinstance(event, Start):
            return self._start(event)
        if not self._started:
            raise ValueError(f"{type(event).__name__} before the start")
        if isinstance(event, BlockStart):
            return self._begin(event)
        if isinstance(event, Finish):
            return self._finish(event)
        if self._block is None:
            raise ValueError(f"{type(event).__name__} outside of a block")
        if isinstance(event, Signature):
            return self._sign(event)
        if isinstance(event, Citation):
            if not isinstance(self._block, Text):
                raise ValueError("Citation outside of a text")  # noqa: TRY004 - it is the grammar
            self._cited.append(event.citation)
            return b""
        return self._end_block()

    def _start(self, event: Start) -> bytes:
        if self._started:
            raise ValueError("a second Start")
        self._started = True
        named = {"modelVersion": self._shown.model, "responseId": event.id or self._shown.id}
        self._tail = b"," + orjson.dumps(named)[1:] + b"\n\n"
        return b""

    def _begin(self, event: BlockStart) -> bytes:
        if self._block is not None:
            raise ValueError("a block within a block")
        if event.index != self._blocks:
            raise ValueError(f"block {event.index} where {self._blocks} was to come")
        block = event.block
        if not isinstance(block, Streamed):
            raise ValueError(f"a block of {type(block).__name__} in a stream")  # noqa: TRY004 - it is the grammar
        self._blocks += 1
        self._block = block
        if isinstance(block, ToolUse):
            self._pieces = [block.arguments]
            self._signature = block.signature
            return b""
        if isinstance(block, Image):
            return b"" if block.data is None else self._chunk(orjson.dumps(image_part(block)))
        written = self._part(Part(block.text)) if block.text else b""
        if not isinstance(block, Refusal) and block.signature is not None:
            written += self._sign(Signature(block.signature))
        return written

    def _part(self, event: Part) -> bytes:
        block = self._block
        if block is None or isinstance(block, Image):
            raise ValueError("Part outside of a block of words")
        if isinstance(block, ToolUse):
            self._pieces.append(event.text)
            return b""
        if not event.text:
            return b""
        words = orjson.dumps(event.text)
        if isinstance(block, Thinking):
            return self._chunk(_SAID + words + b"," + _THOUGHT + b"}")
        self._length += len(event.text.encode())
        if event.logprobs:
            found = orjson.dumps({"logprobsResult": logprobs_result(event.logprobs)})
            return self._chunk(_SAID + words + b"}", b"," + found[1:-1])
        return self._chunk(_SAID + words + b"}")

    def _chunk(self, part: bytes, more: bytes = b"", usage: bytes = b"") -> bytes:
        return b"".join((_CANDIDATE, part, b'],"role":"model"}', more, b',"index":0}]', usage, self._tail))

    def _sign(self, event: Signature) -> bytes:
        if isinstance(self._block, ToolUse):
            self._signature = event.signature
            return b""
        part: Tree = {"text": ""}
        if isinstance(self._block, Thinking):
            part["thought"] = True
        part["thoughtSignature"] = shown_signature(event.signature)
        return self._chunk(orjson.dumps(part))

    def _end_block(self) -> bytes:
        block, self._block = self._block, None
        if isinstance(block, ToolUse):
            part = call_part(ToolUse(block.id, block.name, "".join(self._pieces), custom=block.custom))
            if self._signature is not None:
                part["thoughtSignature"] = shown_signature(self._signature)
            return self._chunk(orjson.dumps(part))
        if isinstance(block, Text | Refusal):
            self._texts.append((self._cited, self._length))
            self._cited, self._length = [], 0
        return b""

    def _finish(self, event: Finish) -> bytes:
        if self._block is not None:
            raise ValueError("Finish within a block")
        self._over = True
        said: Tree = {"finishReason": FINISHES.get(event.stop, "STOP")}
        grounding = grounding_of(self._texts)
        if grounding is not None:
            said["groundingMetadata"] = grounding
        usage = write_tokens(event.tokens)
        counted = b"," + orjson.dumps({"usageMetadata": usage})[1:-1] if usage else b""
        return self._chunk(b'{"text":""}', b"," + orjson.dumps(said)[1:-1], counted)
