"""Writes a stream of ``POST /v1/responses`` (OpenAI API reference, Responses, "Streaming events").

Each event has a ``sequence_number``, from 0 without a gap. Some clients read words and calls only from ``output_item.done``:
it comes when it is clear whether the item was cut, so with the next item or the end. What is repeated is encoded once.
"""

import orjson

from agw_proxy.dialects import custom_tools
from agw_proxy.dialects import openai_responses_signatures as signatures
from agw_proxy.dialects.base import (
    Beat,
    Block,
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
    Text,
    Thinking,
    ToolUse,
    Tree,
)
from agw_proxy.dialects.openai_chat_faults import write_fault
from agw_proxy.dialects.openai_responses_answers import image_tree, message_tree, part_tree
from agw_proxy.dialects.openai_responses_citations import annotation_of
from agw_proxy.dialects.openai_responses_shape import (
    Called,
    attached_tree,
    call_tree,
    called,
    cut_by,
    finish,
    logprobs_tree,
    reasoning_tree,
    response_tree,
    tools_of,
)

HEARTBEAT = b": ping\n\n"
REPEATED = ("instructions", "text", "tools")
"""Members of the Response that may be large: they are written three times, and encoded once."""


class Writer:
    """See ``base.Writer``. A call of a custom tool whose input comes packed in JSON is written when it is whole."""

    def __init__(self, shown: Shown) -> None:
        """``shown``: with the request, whose members the Response repeats."""
        self._shown = shown
        self._tools = tools_of(shown)
        self._response: Tree | None = None
        self._over = False
        self._sequence = 0
        self._blocks = 0
        self._refused = False
        self._block: Block | None = None
        self._shape: Called | None = None
        self._item: Tree | None = None
        self._attached: str | None = None
        self._signature: str | None = None
        self._output: list[orjson.Fragment] = []
        self._texts: list[str] = []
        self._length = 0
        self._annotations: list[Tree] = []
        self._logprobs: list[Tree] = []
        self._head = b""

    def write(self, event: Event) -> bytes:
        """See ``base.Writer``."""
        if isinstance(event, Part):
            return self._write_part(event)
        if isinstance(event, Beat):
            return b"" if self._over else HEARTBEAT
        if self._over:
            raise _ill(f"{type(event).__name__} comes after the end.")
        if isinstance(event, Fault):
            return self._write_fault(event)
        if isinstance(event, Start):
            return self._write_start(event)
        if self._response is None:
            raise _ill(f"{type(event).__name__} comes before Start.")
        if isinstance(event, BlockStart):
            return self._open(event)
        if isinstance(event, BlockStop):
            return self._close()
        if isinstance(event, Finish):
            return self._finish(event)
        return self._write_aside(event)

    def _frame(self, name: str, body: Tree) -> bytes:
        tree = {"type": name, "sequence_number": self._sequence, **body}
        self._sequence += 1
        return b"event: " + name.encode() + b"\ndata: " + orjson.dumps(tree) + b"\n\n"

    def _write_start(self, event: Start) -> bytes:
        if self._response is not None:
            raise _ill("Start comes twice.")
        self._response = response_tree(event.id, self._shown)
        for name in REPEATED:
            self._response[name] = orjson.Fragment(orjson.dumps(self._response[name]))
        body = {"response": self._response}
        return self._frame("response.created", body) + self._frame("response.in_progress", body)

    def _open(self, event: BlockStart) -> bytes:
        if self._block is not None:
            raise _ill("BlockStart comes within a block.")
        if event.index != self._blocks:
            raise _ill(f"BlockStart has index {event.index}, and {self._blocks} was due.")
        self._blocks += 1
        block = self._block = event.block
        self._texts, self._annotations, self._logprobs = [], [], []
        self._length = 0
        self._signature = block.signature if isinstance(block, Text | Thinking | ToolUse) else None
        if isinstance(block, Image):
            return self._picture(block)
        opened = self._open_words(block) if isinstance(block, Text | Refusal) else self._open_item(block)
        early = block.arguments if isinstance(block, ToolUse) else getattr(block, "text", "")
        return opened + self._write_part(Part(early)) if early else opened

    def _open_item(self, block: Block) -> bytes:
        """A thought, or a call."""
        out = self._settle("completed")
        at = f"{self._shown.id}_{len(self._output)}"
        if isinstance(block, Thinking):
            self._item = {**reasoning_tree(block, f"rs_{at}"), "summary": []}
            self._begin_deltas("response.reasoning_summary_text.delta", b',"summary_index":0')
        elif isinstance(block, ToolUse):
            shape = self._shape = called(block, self._tools)
            prefix, name = ("ctc", "custom_tool_call_input") if shape.custom else ("fc", "function_call_arguments")
            self._item = call_tree(block, shape, f"{prefix}_{at}", "", "in_progress")
            self._begin_deltas(f"response.{name}.delta", b"")
        else:
            raise _ill(f"A block of {type(block).__name__} cannot be streamed.")
        return out + self._frame("response.output_item.added", self._placed({"item": self._item}))

    def _picture(self, image: Image) -> bytes:
        """An item that is there at once; nothing of one that is elsewhere."""
        if image.data is None:
            return b""
        out = self._settle("completed")
        item_id = f"ig_{self._shown.id}_{len(self._output)}"
        item = image_tree(item_id, "in_progress", None)
        out += self._frame("response.output_item.added", self._placed({"item": item}))
        out += self._frame("response.image_generation_call.completed", self._placed({"item_id": item_id}))
        return out + self._item_done(image_tree(item_id, "completed", image.data))

    def _open_words(self, block: Text | Refusal) -> bytes:
        """A new part of the open message, or of a new one."""
        out = b""
        if self._item is None or self._item["type"] != "message" or self._attached is not None:
            out = self._settle("completed")
            item_id = f"msg_{self._shown.id}_{len(self._output)}"
            self._item = message_tree(item_id, [], "in_progress")
            out += self._frame("response.output_item.added", self._placed({"item": self._item}))
        self._refused |= isinstance(block, Refusal)
        name = "refusal" if isinstance(block, Refusal) else "output_text"
        tail = b"" if isinstance(block, Refusal) else b',"logprobs":[]'
        self._begin_deltas(f"response.{name}.delta", b',"content_index":%d' % len(self._item["content"]) + tail)
        empty = part_tree(Refusal("") if isinstance(block, Refusal) else Text(""))
        return out + self._frame("response.content_part.added", self._words_placed({"part": empty}))

    def _begin_deltas(self, name: str, rest: bytes) -> None:
        """Set all of a delta event that does not change; ``rest``: more of its members."""
        item_id = orjson.dumps(self._item_id())
        self._head = b'event: %b\ndata: {"type":"%b","item_id":%b,"output_index":%d%b,"sequence_number":' % (
            name.encode(),
            name.encode(),
            item_id,
            len(self._output),
            rest,
        )

    def _item_id(self) -> str:
        if self._item is None:
            raise _ill("No item is open.")
        return str(self._item["id"])

    def _placed(self, body: Tree) -> Tree:
        return {"output_index": len(self._output), **body}

    def _words_placed(self, body: Tree) -> Tree:
        """For events within a message."""
        index = len(self._item["content"]) if self._item is not None else 0
        return {"item_id": self._item_id(), "output_index": len(self._output), "content_index": index, **body}

    def _write_part(self, event: Part) -> bytes:
        if self._block is None or isinstance(self._block, Image):
            raise _ill("Part comes outside of a block of words.")
        text = event.text
        if not text:
            return b""
        out = b""
        if not self._texts and isinstance(self._block, Thinking):
            out = self._summary_frame("part.added", {"part": {"type": "summary_text", "text": ""}})
        self._texts.append(text)
        self._length += len(text)
        if self._shape is not None and self._shape.wrapped:
            return b""
        if event.logprobs and isinstance(self._block, Text):
            return self._text_with_logprobs(text, event.logprobs)
        out += self._head + b'%d,"delta":%b}\n\n' % (self._sequence, orjson.dumps(text))
        self._sequence += 1
        return out

    def _text_with_logprobs(self, text: str, logprobs: list[Tree]) -> bytes:
        made = logprobs_tree(logprobs)
        self._logprobs += made
        return self._frame("response.output_text.delta", self._words_placed({"delta": text, "logprobs": made}))

    def _summary_frame(self, name: str, body: Tree) -> bytes:
        place = {"item_id": self._item_id(), "output_index": len(self._output), "summary_index": 0}
        return self._frame(f"response.reasoning_summary_{name}", {**place, **body})

    def _write_aside(self, event: Signature | Citation) -> bytes:
        """What belongs to the open block, besides its words."""
        if self._block is None:
            raise _ill(f"{type(event).__name__} comes outside of a block.")
        if isinstance(event, Signature):
            if isinstance(self._block, Refusal | Image):
                raise _ill("A refusal has no signature, nor has a picture.")
            self._signature = event.signature
            return b""
        if not isinstance(self._block, Text):
            raise _ill("Only words cite.")
        made = annotation_of(event.citation, 0, self._length)
        body = self._words_placed({"annotation_index": len(self._annotations), "annotation": made})
        self._annotations.append(made)
        return self._frame("response.output_text.annotation.added", body)

    def _close(self) -> bytes:
        block, item = self._block, self._item
        if isinstance(block, Image):
            self._block = None
            return b""
        if block is None or item is None:
            raise _ill("BlockStop comes outside of a block.")
        self._block = None
        if isinstance(block, Thinking):
            return self._close_thinking(item)
        self._attached = self._signature
        if isinstance(block, ToolUse):
            return self._close_call(item)
        text = orjson.Fragment(orjson.dumps("".join(self._texts)))
        if isinstance(block, Refusal):
            part: Tree = {"type": "refusal", "refusal": text}
            out = self._frame("response.refusal.done", self._words_placed({"refusal": text}))
        else:
            part = {
                "type": "output_text",
                "text": text,
                "annotations": self._annotations,
                "logprobs": self._logprobs,
            }
            body = self._words_placed({"text": text, "logprobs": self._logprobs})
            out = self._frame("response.output_text.done", body)
        out += self._frame("response.content_part.done", self._words_placed({"part": part}))
        item["content"].append(part)
        return out

    def _close_thinking(self, item: Tree) -> bytes:
        out = b""
        if self._texts:
            text = orjson.Fragment(orjson.dumps("".join(self._texts)))
            part = {"type": "summary_text", "text": text}
            out = self._summary_frame("text.done", {"text": text}) + self._summary_frame("part.done", {"part": part})
            item["summary"] = [part]
        if self._signature is not None:
            own_id, encrypted = signatures.given(self._signature)
            # OpenAI's own goes with the id that it was given for; where another one was said already, it stays sealed.
            item["encrypted_content"] = encrypted if own_id in {None, item["id"]} else self._signature
        return out + self._settle("completed")

    def _close_call(self, item: Tree) -> bytes:
        shape = self._shape
        self._shape = None
        if shape is None:
            raise _ill("No call is open.")
        text = "".join(self._texts)
        member = "input" if shape.custom else "arguments"
        out = b""
        late = custom_tools.input_of(text) if shape.wrapped else text
        if shape.wrapped or not text:
            late = late or ("" if shape.custom else "{}")  # clients parse what they get
            if late:
                out = self._head + b'%d,"delta":%b}\n\n' % (self._sequence, orjson.dumps(late))
                self._sequence += 1
        content = item[member] = orjson.Fragment(orjson.dumps(late))
        name = "custom_tool_call_input" if shape.custom else "function_call_arguments"
        body = self._placed({"item_id": item["id"], member: content})
        if not shape.custom:
            body["name"] = shape.name
        return out + self._frame(f"response.{name}.done", body)

    def _settle(self, status: str) -> bytes:
        """End the open item, if there is one, and say the signature that belongs to it."""
        if self._item is None:
            return b""
        item, self._item = self._item, None
        if "status" in item:
            item["status"] = status
        out = self._item_done(item)
        signature, self._attached = self._attached, None
        if signature is not None:
            carrier = attached_tree(signature, f"rs_{self._shown.id}_{len(self._output)}")
            out += self._frame("response.output_item.added", self._placed({"item": carrier}))
            out += self._item_done(carrier)
        return out

    def _item_done(self, item: Tree) -> bytes:
        whole = orjson.Fragment(orjson.dumps(item))
        out = self._frame("response.output_item.done", self._placed({"item": whole}))
        self._output.append(whole)
        return out

    def _finish(self, event: Finish) -> bytes:
        if self._block is not None:
            raise _ill("Finish comes within a block.")
        if self._response is None:
            raise _ill("Finish comes before Start.")
        cut = cut_by(event.stop, refused=self._refused)
        out = self._settle("completed" if cut is None else "incomplete")
        self._over = True
        output: list[Tree] = self._output  # type: ignore[assignment]  # encoded already
        finish(self._response, output, event, self._shown, refused=self._refused)
        return out + self._frame(f"response.{self._response['status']}", {"response": self._response})

    def _write_fault(self, fault: Fault) -> bytes:
        """OpenAI's error event, with the error as an object beside it: the official clients raise for that, and only for that."""
        self._over = True
        error: Tree = write_fault(fault, "")["error"]
        told = {"code": error["code"], "message": error["message"], "param": error["param"], "error": error}
        return self._frame("error", told)


def _ill(words: str) -> ValueError:
    """What to raise for events against the grammar."""
    return ValueError(words)
