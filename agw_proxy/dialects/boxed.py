"""Formats of an answer whose top is no object: OpenAI takes none, so there they stand in one, and are taken out again.

OpenAI API guide, "Structured outputs": the root has to be an object, and no ``anyOf``. Google and Anthropic take lists, words
and alternatives (``response_schema=list[Recipe]`` is how Google's own guide begins).
"""

import re
from typing import Any

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
_NAMED = frozenset({"properties", "patternProperties", "dependentSchemas", *_DEFINITIONS})
"""Members whose own members are schemas, whatever those are called."""
_LITERAL = frozenset({"enum", "const", "default", "examples"})
_FRONT = f'{{"{MEMBER}":'
_BEGUN = re.compile(rf'\s*\{{\s*"{MEMBER}"\s*:\s*')
_ROOTED = re.compile(rb'"\$ref":"#(?!/(?:\$defs|definitions)/)')
"""A reference that means another schema once that stands elsewhere."""
_UPWARD = re.compile(r"#(?:/(?!(?:\$defs|definitions)/)|$)")
"""The same in itself; a name (``#node``) means the same wherever it stands."""


def boxed(request: Request, target: Spoken) -> Request:
    """The request as the target takes it; itself where there is nothing to be done."""
    if request.format is None or request.format.schema is None or not boxes(request, target):
        return request
    schema, inner = _apart(request.format.schema)
    schema |= {"type": "object", "properties": {MEMBER: inner}, "required": [MEMBER], "additionalProperties": False}
    return msgspec.structs.replace(request, format=msgspec.structs.replace(request.format, schema=schema))


def _apart(whole: Tree) -> tuple[Tree, Tree]:
    """(the box's definitions, what stands in it). A schema that refers to itself becomes one of them: it is no longer the top."""
    inner = dict(whole)
    if _ROOTED.search(orjson.dumps(whole)) is None:
        return {name: inner.pop(name) for name in _DEFINITIONS if name in inner}, inner
    name = MEMBER
    while name in _members(whole.get("$defs")):
        name += "_"
    inner = _redirected(whole, f"#/$defs/{name}")
    box: Tree = {each: inner.pop(each) for each in _DEFINITIONS if each in inner}
    box["$defs"] = {**_members(box.get("$defs")), name: inner}
    return box, {"$ref": f"#/$defs/{name}"}


def _members(value: Any) -> Tree:
    return value if isinstance(value, dict) else {}


def _redirected(schema: Any, top: str) -> Any:
    """The schema with references to its top, and to what is below it, going to ``top``."""
    if isinstance(schema, list):
        return [_redirected(each, top) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made: Tree = {}
    for name, value in schema.items():
        if name in _LITERAL:
            made[name] = value
        elif name in _NAMED and isinstance(value, dict):
            made[name] = {each: _redirected(inner, top) for each, inner in value.items()}
        elif name == "$ref" and isinstance(value, str) and _UPWARD.match(value):
            made[name] = top + value[1:]
        else:
            made[name] = _redirected(value, top)
    return made


def boxes(request: Request | None, target: Spoken) -> bool:
    """Whether ``boxed`` changes the request, so that answers to it have to be opened."""
    form = request.format if request is not None else None
    if form is None or form.schema is None or target not in TARGETS:
        return False
    kind = form.schema.get("type")
    if kind == "object" if kind is not None else not any(name in form.schema for name in _ELSE):
        return False
    try:
        orjson.dumps(form.schema)
    except orjson.JSONEncodeError:  # too deep to be sent at all
        return False
    return True


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
