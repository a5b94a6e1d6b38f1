"""Formats of an answer whose top is no object: OpenAI takes none, so there they stand in one, and are taken out again.

OpenAI API guide, "Structured outputs": the root has to be an object, and no ``anyOf``. Google and Anthropic take lists, words
and alternatives (``response_schema=list[Recipe]`` is how Google's own guide begins).
"""

import re

import msgspec
import orjson

from agw_proxy.dialects.base import (
    Answer,
    BlockStart,
    BlockStop,
    Event,
    Part,
    Reader,
    Request,
    Spoken,
    Text,
    Tree,
)

MEMBER = "answer"
TARGETS: frozenset[Spoken] = frozenset({"chat", "responses"})
MAX_FRONT = 1024
"""Characters before the member's value: what begins otherwise is no box of ours."""
_ELSE = ("anyOf", "oneOf", "allOf", "enum", "const", "items", "prefixItems")
"""What a schema without a ``type`` has that is no object's."""
_DEFINITIONS = ("$defs", "definitions")
_FRONT = f'{{"{MEMBER}":'
_BEGUN = re.compile(rf'\s*\{{\s*"{MEMBER}"\s*:\s*')
_ROOTED = re.compile(rb'"\$ref":"#(?!/(?:\$defs|definitions)/)')
"""A reference that means another schema once that stands elsewhere."""


def boxed(request: Request, target: Spoken) -> Request:
    """The request as the target takes it; itself where there is nothing to be done."""
    if request.format is None or request.format.schema is None or not boxes(request, target):
        return request
    inner = dict(request.format.schema)
    schema: Tree = {name: inner.pop(name) for name in _DEFINITIONS if name in inner}
    schema |= {"type": "object", "properties": {MEMBER: inner}, "required": [MEMBER], "additionalProperties": False}
    return msgspec.structs.replace(request, format=msgspec.structs.replace(request.format, schema=schema))


def boxes(request: Request | None, target: Spoken) -> bool:
    """Whether ``boxed`` changes the request, so that answers to it have to be opened."""
    form = request.format if request is not None else None
    if form is None or form.schema is None or target not in TARGETS:
        return False
    kind = form.schema.get("type")
    if kind == "object" if kind is not None else not any(name in form.schema for name in _ELSE):
        return False
    try:
        return _ROOTED.search(orjson.dumps(form.schema)) is None
    except orjson.JSONEncodeError:  # too deep to be sent at all
        return False


def opened(answer: Answer) -> Answer:
    """The answer with what was in the box. Words that are in none stay."""
    for block in answer.blocks:
        if isinstance(block, Text):
            box = _Box()
            block.text, block.logprobs = box.feed(block.text) + box.end(), None
    return answer


class Opening:
    """A Reader whose words are what was in the box."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._box: _Box | None = None

    def read(self, name: str, data: bytes) -> list[Event]:
        """See ``base.Reader``."""
        return self._opened(self._reader.read(name, data))

    def end(self) -> list[Event]:
        """See ``base.Reader``."""
        return self._opened(self._reader.end())

    def _opened(self, events: list[Event]) -> list[Event]:
        made: list[Event] = []
        for event in events:
            box = self._box
            if isinstance(event, BlockStart):
                self._box = _Box() if isinstance(event.block, Text) else None
            elif isinstance(event, Part) and box is not None:
                event = Part(box.feed(event.text))  # noqa: PLW2901  of other words than came, and no tokens of theirs
                if not event.text:
                    continue
            elif isinstance(event, BlockStop) and box is not None:
                self._box = None
                if rest := box.end():
                    made.append(Part(rest))
            made.append(event)
        return made


class _Box:
    """Words of one text, cut anywhere. A brace is held back until it shows that it is not the box's own."""

    def __init__(self) -> None:
        self._held: list[str] = []
        self._begun: bool | None = None
        """None: not known yet. False: it is no box."""
        self._said = False

    def feed(self, words: str) -> str:
        """What can be told by now."""
        if self._begun is None:
            self._held.append(words)
            words = "".join(self._held)
            front = _BEGUN.match(words)
            if front is None and len(words) <= MAX_FRONT and _FRONT.startswith("".join(words.split())):
                return ""
            self._held.clear()
            self._begun = front is not None
            words = words[front.end() :] if front is not None else words
        if not self._begun:
            return words
        if not self._said:
            words = words.lstrip()
            self._said = bool(words)
        if self._held and (not words or words.isspace()):
            self._held.append(words)
            return ""
        told = "".join((*self._held, words))
        self._held.clear()
        if told.rstrip().endswith("}"):
            at = told.rindex("}")
            self._held.append(told[at:])
            told = told[:at]
        return told

    def end(self) -> str:
        """What is left of the words: not the box's brace."""
        rest = "" if self._begun else "".join(self._held)
        self._held.clear()
        return rest
