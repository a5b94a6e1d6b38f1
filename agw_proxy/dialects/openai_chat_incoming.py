"""The stream of an upstream that speaks Chat, read (OpenAI API reference, Chat, "The chat completion chunk object")."""

from typing import Any

import orjson

from agw_proxy.dialects.base import (
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
    Tokens,
    Tree,
)
from agw_proxy.dialects.halves import Halves
from agw_proxy.dialects.openai_chat_answers import logprobs_of, part_words, read_image
from agw_proxy.dialects.openai_chat_citations import read_annotation
from agw_proxy.dialects.openai_chat_faults import fault_in
from agw_proxy.dialects.openai_chat_fields import count, json_of
from agw_proxy.dialects.openai_chat_order import Lane, Order
from agw_proxy.dialects.openai_chat_thoughts import (
    read_detail,
    tool_signature,
    words_of,
)
from agw_proxy.dialects.openai_chat_usage import read_stop, read_tokens

DONE = b"[DONE]"


class Reader:
    """Reads one upstream stream: chunks, an error at any point, and ``[DONE]``, which some servers leave out.

    An answer is whole when a ``finish_reason`` or ``[DONE]`` has come. Its Finish waits for the usage, which may come behind.
    """

    __slots__ = (
        "_calls", "_ending", "_in_messages", "_json", "_last", "_order", "_over", "_started", "_tier", "_tokens",
    )  # fmt: skip

    def __init__(self) -> None:
        self._json = Halves()
        self._order = Order()
        self._calls: dict[int, Lane] = {}
        self._last: Lane | None = None
        self._tokens = Tokens()
        self._tier: str | None = None
        self._ending: Tree | None = None
        self._in_messages = False
        self._started = False
        self._over = False

    def read(self, name: str, data: bytes) -> list[Event]:
        """Events of one server-sent event; see ``base.Reader``."""
        if self._over or not data:
            return []
        out: list[Event] = []
        try:
            if data == DONE:
                self._finish(out)
            else:
                self._chunk(name, self._json.loads(data), out)
        except orjson.JSONDecodeError:
            self._break(Fault("The upstream's stream has an event that is no JSON.", "api_error"), out)
        except Malformed as error:
            self._break(Fault(error.message, "api_error"), out)
        return out

    def end(self) -> list[Event]:
        """The Finish where a reason for it has come; nothing for a stream that was cut."""
        out: list[Event] = []
        if not self._over and self._ending is not None:
            try:
                self._finish(out)
            except Malformed as error:
                self._break(Fault(error.message, "api_error"), out)
        self._over = True
        return out

    def _break(self, fault: Fault, out: list[Event]) -> None:
        self._over = True
        out.append(fault)

    def _chunk(self, name: str, tree: Any, out: list[Event]) -> None:
        if name == "error" or not isinstance(tree, dict) or tree.get("error") or tree.get("object") == "error":
            fault = fault_in({"error": tree} if name == "error" and "error" not in _tree(tree) else tree)
            self._break(fault or Fault("The upstream's stream has an event that is no object.", "api_error"), out)
            return
        usage = tree.get("usage")
        if usage is not None:
            tokens = read_tokens(usage)
            if tokens.output >= 0:
                self._tokens = tokens
        tier = tree.get("service_tier")
        if isinstance(tier, str):
            self._tier = tier
        choices = tree.get("choices")
        if not isinstance(choices, list):
            return
        for choice in choices:
            if not isinstance(choice, dict) or choice.get("index"):
                raise Malformed("The upstream streams more than one choice.")
            if choice.get("error"):
                self._break(fault_in(choice) or Fault("The upstream's answer has failed.", "api_error"), out)
                return
            if not self._started:
                self._start(tree, out)
            delta = choice.get("delta")
            if not isinstance(delta, dict):
                delta = self._message(choice)
            if isinstance(delta, dict):
                self._delta(delta, choice, out)
            if choice.get("finish_reason") and self._ending is None:
                self._ending = choice
                self._order.settle(out)

    def _start(self, tree: Tree, out: list[Event]) -> None:
        self._started = True
        identity, model = tree.get("id"), tree.get("model")
        identity = identity if isinstance(identity, str) else ""
        self._order.begin(identity)
        model = model if isinstance(model, str) else ""
        out.append(Start(identity, model, count(tree.get("created")), service_tier=self._tier))

    def _message(self, choice: Tree) -> Any:
        """What some servers have in place of a delta; None where deltas have spoken: it says their words once more."""
        if not self._in_messages and self._order.begun:
            return None
        message = choice.get("message")
        self._in_messages |= isinstance(message, dict)
        return message

    def _delta(self, delta: Tree, choice: Tree, out: list[Event]) -> None:
        thoughts = words_of(delta)
        if thoughts:
            self._order.words(Thinking, Part(thoughts), out)
        details = delta.get("reasoning_details")
        if isinstance(details, list):
            self._details(details, spoken=bool(thoughts), out=out)
        content = delta.get("content")
        if isinstance(content, str):
            if content:
                self._order.words(Text, Part(content, logprobs_of(choice)), out)
        elif isinstance(content, list):
            self._parts(content, out)
        refusal = delta.get("refusal")
        if isinstance(refusal, str) and refusal:
            self._order.words(Refusal, Part(refusal), out)
        annotations = delta.get("annotations")
        if isinstance(annotations, list) and self._order.is_live(Text):
            read = [read_annotation(each) for each in annotations]
            out += [Citation(each[2]) for each in read if each is not None]
        images = delta.get("images")
        for image in images if isinstance(images, list) else ():
            self._order.picture(read_image(image, "delta.images"), out)
        calls = delta.get("tool_calls")
        if isinstance(calls, list):
            for call in calls:
                self._call(_tree(call), out)
        legacy = delta.get("function_call")
        if isinstance(legacy, dict):
            self._call({"index": -1, "function": legacy}, out)

    def _parts(self, content: list[Any], out: list[Event]) -> None:
        for part in content:
            thought, words = part_words(_tree(part))
            if words:
                self._order.words(Thinking if thought else Text, Part(words), out)

    def _details(self, details: list[Any], *, spoken: bool, out: list[Event]) -> None:
        """``spoken``: their words stand in the delta's plain member too."""
        for detail in details:
            thought = read_detail(detail)
            if thought is None:
                continue
            if thought.hidden and thought.signature is not None:
                self._order.secret(thought.signature, out)
                continue
            if thought.text and not spoken:
                self._order.words(Thinking, Part(thought.text), out)
            # Every piece names its format; only a piece with a signature of the model's closes a thought.
            if thought.signature is not None and _tree(detail).get("signature"):
                self._order.words(Thinking, Signature(thought.signature), out)

    def _call(self, call: Tree, out: list[Event]) -> None:
        custom = call.get("type") == "custom" or isinstance(call.get("custom"), dict)
        inner = _tree(call.get("custom" if custom else "function"))
        identity, name = call.get("id"), inner.get("name")
        identity = identity if isinstance(identity, str) else ""
        name = name if isinstance(name, str) else ""
        given = inner.get("input" if custom else "arguments")
        piece = given if isinstance(given, str) else "" if given is None else json_of(given, "arguments")
        index = call.get("index")
        lane = self._lane(index, identity, name)
        if lane is not None and piece and name and not identity and lane.names()[1] and lane.may_close():
            lane = None  # another call without an id, where the one before it is whole
        if lane is None:
            lane = self._order.call(custom)
            self._calls[index if isinstance(index, int) else len(self._calls)] = lane
        self._last = lane
        lane.name(identity, name)
        self._order.more(lane, piece, tool_signature(call), out)

    def _lane(self, index: Any, identity: str, name: str) -> Lane | None:
        """The call that a delta goes on with; None: a new one.

        Without an index it is the one with this id, or the last. Google's endpoint gives every call the index 0, each with
        an id and a name of its own.
        """
        if isinstance(index, int):
            lane = self._calls.get(index)
            known = lane.names()[0] if lane is not None else ""
            return None if identity and name and known and known != identity else lane
        for lane in self._calls.values():
            if identity and lane.names()[0] == identity:
                return lane
        return None if identity or name else self._last

    def _finish(self, out: list[Event]) -> None:
        self._over = True
        if not self._started:
            out.append(Fault("The upstream's stream ended without an answer.", "api_error"))
            return
        if self._ending is None and self._order.amid_call:
            out.append(Fault("The upstream's stream ended amid the arguments of a tool call.", "api_error"))
            return
        self._order.settle(out)
        stop, sequence = read_stop(self._ending or {}, called=self._order.called, refused=self._order.refused)
        out.append(Finish(stop, self._tokens, sequence, self._tier))


def _tree(value: Any) -> Tree:
    return value if isinstance(value, dict) else {}
