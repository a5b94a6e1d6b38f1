"""What one upstream has made and no other knows: where a request refers to it, and where an answer tells of it. No I/O.

Two kinds. *Ids* (a stored response, a conversation, a file, a batch, a vector store, an upload) mean something at one
upstream only. *Signatures* (encrypted reasoning, thought signatures) are read by whoever has made them, and by nobody else.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

import msgspec
import orjson

from agw_proxy._hot.route import Route

Tree = Mapping[str, Any]

MAX_IDS = 16  # of one request that are looked up
MAX_SIGNATURES = 4  # of a history that are looked up, the newest first
MAX_ID_CHARS = 256
KINDS = frozenset({"files", "responses", "batches", "vector_stores", "uploads", "conversations"})
"""Of paths: what stands behind one is an id, and what an answer there is called is one."""
READ_PATHS = frozenset({"/v1/batches", "/v1/vector_stores", "/v1/fine_tuning/jobs"})
"""Paths that name no model and whose JSON says which files are meant."""

MARKS = (
    b'"file_id"', b'"file_ids"', b'"vector_store_ids"', b'"previous_response_id"', b'"conversation"',
    b'"encrypted_content"', b'"signature"', b'"redacted_thinking"', b'"thought_signature"',
    b'"reasoning_details"', b'"thoughtSignature"', b'"thinking"', b'"reasoning"', b'"reasoning_effort"',
    b'"thinkingConfig"', b'"thinking_config"',
)  # fmt: skip
"""What in a body sends a request to the full lane: the first ones refer to something, the last ones may bring something."""
MARKS_OF_HISTORY = 11
RECALLS = (b'"previous_response_id"', b'"conversation"', b'"item_reference"')
"""What in a body sends a request to the full lane where the gateway keeps Responses itself."""
SEALS = (b'"agw:', b'"YWd3O', b'"rs_req_', b'"signature":""', b'"signature": ""')
"""How signatures begin that came from a model asked in another form (the second: in base64); then thoughts without any."""
HEAD_BYTES = 4096

_FIRST_ID = re.compile(rb'"id"\s*:\s*"([!#-\[\]-~]{1,256})"')
_OWN = ("previous_response_id", "conversation")
_ID = frozenset({"file_id", "input_file_id", "training_file", "validation_file"})
_IDS = frozenset({"file_ids", "vector_store_ids"})
_MADE = ("id", "output_file_id", "error_file_id")
_SIGNED = frozenset({"encrypted_content", "signature", "thoughtSignature", "thought_signature"})
_SEALED_DATA = frozenset({"redacted_thinking", "reasoning.encrypted"})
_SIGNS = tuple(f'"{name}"'.encode() for name in (*_SIGNED, *_SEALED_DATA))
_REFERS = tuple(f'"{name}"'.encode() for name in (*_OWN, *_ID, *_IDS))


class Refers(msgspec.Struct, frozen=True):
    """What a request refers to. ``ids``: the answer before first, then files; ``signatures``: the newest first."""

    ids: tuple[str, ...] = ()
    signatures: tuple[str, ...] = ()


class Told(msgspec.Struct, frozen=True):
    """What an answer, or an event of one, tells of. ``gone``: what was deleted."""

    ids: tuple[str, ...] = ()
    signatures: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()


def spread(route: Route, echo: int) -> int:
    """0: all of the model is at one upstream; 1: fallbacks are elsewhere; 2: its targets are at several.

    ``echo``: the number of one that makes nothing to be asked for again.
    """
    own = {target.upstream for target in route.targets} - {echo}
    if len(own) > 1:
        return 2
    return int(len(own | {target.upstream for target in route.fallbacks} - {echo}) > 1)


def kind_of(path: str) -> tuple[str, str | None] | None:
    """(kind, id) that a path below /v1 names, None where it is of no such kind. ``path``: as it came, without its query."""
    parts = path.split("/")[2:]
    if parts[:2] == ["messages", "batches"]:
        parts = parts[1:]
    if not parts or parts[0] not in KINDS:
        return None
    found = unquote(parts[1]) if len(parts) > 1 else ""
    return parts[0], found if 0 < len(found) <= MAX_ID_CHARS else None


def tells(path: str) -> bool:
    """An answer there is about things that were made, and no content of theirs."""
    return kind_of(path) is not None and not path.endswith(("/content", "/results"))


def referred(body: bytes) -> Refers:
    """What a request's JSON refers to. What is no JSON object refers to nothing."""
    if not any(mark in body for mark in (*_REFERS, *_SIGNS)):
        return Refers()
    tree = _object(body)
    own = [tree.get(name) for name in _OWN]
    ids = [value.get("id") if isinstance(value, dict) else value for value in own]
    signatures: list[str] = []
    for name, value in _members(tree):
        if name in _ID:
            ids.append(value)
        elif name in _IDS and isinstance(value, list):
            ids += value
        elif name in _SIGNED and isinstance(value, str) and value:
            signatures.append(value)
    return Refers(_names(ids)[:MAX_IDS], tuple(dict.fromkeys(reversed(signatures)))[:MAX_SIGNATURES])


def told(data: bytes, *, ids: bool, signatures: bool) -> Told:
    """What a whole answer tells of, or one event of a stream. ``ids``, ``signatures``: what is wanted."""
    signs = signatures and any(mark in data for mark in _SIGNS)
    if not (ids or signs):
        return Told()
    tree = _object(data)
    found: tuple[str, ...] = ()
    if signs:
        found = tuple(dict.fromkeys(v for n, v in _members(tree) if n in _SIGNED and isinstance(v, str) and v))
    named = _names(_made(tree)) if ids else ()
    return Told(signatures=found, gone=named) if tree.get("deleted") is True else Told(named, found)


def opens(data: bytes) -> bool:
    """An event that has the answer's id, as far as one can tell without reading it."""
    return b'"response.created"' in data


def first_id(answer: bytes | bytearray) -> tuple[str, ...]:
    """The id of an answer that is too long to be read: what is called so at its beginning."""
    found = _FIRST_ID.search(answer, 0, HEAD_BYTES)
    return (found[1].decode(),) if found is not None else ()


def marked(body: bytes, level: int, remembers: int) -> bool:
    """A request for a model so spread, on an endpoint so remembering, has to take the full lane; as ``_hot.lane`` decides."""
    if not (level and remembers):
        return False
    if level == remembers == 2:
        return True
    return any(mark in body for mark in (MARKS if level == 2 else MARKS[:MARKS_OF_HISTORY]))


def recalls(body: bytes) -> bool:
    """A request may go on from what the gateway keeps itself; as ``_hot.lane`` decides."""
    return any(mark in body for mark in RECALLS)


def sealed(body: bytes) -> bool:
    """A request has thoughts in it that an upstream of its own form has not made; as ``_hot.lane`` decides."""
    return any(mark in body for mark in SEALS)


def _made(tree: Tree) -> Iterator[object]:
    """Ids in an answer: its own, and those of what came of it."""
    inner = tree.get("response")
    if isinstance(inner, dict):  # an event that has the answer in it
        tree = inner
    if tree.get("object") == "list":
        return
    yield from (tree.get(name) for name in _MADE)
    for name in ("conversation", "file"):  # of a response; of an upload that is complete
        value = tree.get(name)
        yield value.get("id") if isinstance(value, dict) else None


def _members(tree: Tree) -> Iterator[tuple[str, Any]]:
    """All members of it and of what is in it, in order; ``data`` of what is nothing but a signature by the name of one."""
    waiting: list[Any] = [tree]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            if item.get("type") in _SEALED_DATA:
                yield "signature", item.get("data")
            yield from item.items()
            waiting += reversed([value for value in item.values() if isinstance(value, dict | list)])
        else:
            waiting += reversed([value for value in item if isinstance(value, dict | list)])


def _names(values: Any) -> tuple[str, ...]:
    """Those that can be ids, each once."""
    return tuple(dict.fromkeys(v for v in values if isinstance(v, str) and 0 < len(v) <= MAX_ID_CHARS))


def _object(text: bytes) -> Tree:
    try:
        tree = orjson.loads(text)
    except orjson.JSONDecodeError:
        return {}
    return tree if isinstance(tree, dict) else {}
