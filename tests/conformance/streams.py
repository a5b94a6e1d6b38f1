"""Whole streams, as the providers send them, to be spoilt: events as they can be changed, and back."""

from collections.abc import Callable
from typing import Any

import orjson

from agw_proxy.conformance.base import Frame
from agw_proxy.conformance.frames import events
from tests.support.providers import Scene, chat_frames, gemini_frames, message_frames, response_frames

Tree = dict[str, Any]

WRITERS: dict[str, Callable[[Scene], bytes]] = {
    "chat": chat_frames,
    "responses": response_frames,
    "messages": message_frames,
    "gemini": gemini_frames,
}


def frames(form: str, scene: Scene) -> list[Frame]:
    """The scene's events."""
    return list(events(WRITERS[form](scene).splitlines(keepends=True)))


def changed(found: list[Frame], number: int, path: str, value: object) -> list[Frame]:
    """With a member of event ``number`` (from 1) set; ``value`` None takes it out."""
    name, data = found[number - 1]
    tree = orjson.loads(data)
    *way, last = [int(step) if step.isdigit() else step for step in path.split(".")]
    place = tree
    for step in way:
        place = place[step]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return [*found[: number - 1], (name, orjson.dumps(tree)), *found[number:]]


def without(found: list[Frame], number: int) -> list[Frame]:
    """Without event ``number`` (from 1)."""
    return [*found[: number - 1], *found[number:]]


def wire(found: list[Frame]) -> bytes:
    """The events as bytes."""
    return b"".join((b"event: %s\n" % name.encode() if name else b"") + b"data: %s\n\n" % data for name, data in found)


def renumbered(found: list[Frame]) -> list[Frame]:
    """With the ``sequence_number`` of Responses in order again."""
    return [
        (name, orjson.dumps({**orjson.loads(data), "sequence_number": at})) for at, (name, data) in enumerate(found)
    ]
