"""Streams of ``/v1/responses`` for tests: upstreams' events in short, and what a Writer makes of events, checked."""

import json
from typing import Any

import orjson
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from agw_proxy.dialects.base import (
    Beat,
    Block,
    BlockStart,
    BlockStop,
    Event,
    Request,
    Shown,
    Start,
    Tokens,
    Tool,
)
from agw_proxy.dialects.openai_responses_streams import Reader, Writer
from tests.dialects.grammar_responses import check

EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
CITATION = {
    "type": "web_search_result_location",
    "url": "https://x/y",
    "title": "Y",
    "cited_text": "",
    "encrypted_index": "",
}
URL = {"type": "url_citation", "url": "https://x/y", "title": "Y", "start_index": 0, "end_index": 1}
START = Start("resp_up", "m", 1)
TOKENS = Tokens(7, 3, cached=2, reasoning=1)
USAGE = {
    "input_tokens": 7,
    "output_tokens": 3,
    "total_tokens": 10,
    "input_tokens_details": {"cached_tokens": 2},
    "output_tokens_details": {"reasoning_tokens": 1},
}
REQUEST = Request(
    model="asked",
    messages=[],
    tools=[Tool("look", schema={}), Tool("patch"), Tool("ns__find", schema={}, namespace="ns")],
)


def shown() -> Shown:
    return Shown("r1", "asked", 1_700_000_000, request=REQUEST)


def frames(stream: bytes) -> list[tuple[str, bytes]]:
    found = []
    for text in stream.split(b"\n\n")[:-1]:
        if not text.startswith(b":"):
            name, data = text.split(b"\n")
            found.append((name.removeprefix(b"event: ").decode(), data.removeprefix(b"data: ")))
    return found


def raw(*events: Event) -> bytes:
    writer = Writer(shown())
    return b"".join(writer.write(event) for event in events)


def written(*events: Event) -> list[dict[str, Any]]:
    """What the Writer makes of these, checked by the grammar and by the official client's models."""
    made = frames(raw(*events))
    check(made)
    for _, data in made:
        EVENT.validate_json(data, strict=True)
    return [json.loads(data) for _, data in made]


def block(index: int, begun: Block, *parts: Event) -> list[Event]:
    return [BlockStart(index, begun), *parts, BlockStop()]


def up(*trees: dict[str, Any]) -> list[tuple[str, bytes]]:
    return [(tree["type"], orjson.dumps(tree)) for tree in trees]


def read(*trees: dict[str, Any]) -> list[Event]:
    """Events without the beats, of a stream that must not end before its end."""
    reader = Reader()
    events = [event for name, data in up(*trees) for event in reader.read(name, data)]
    return [event for event in events + reader.end() if not isinstance(event, Beat)]


def created(**members: Any) -> dict[str, Any]:
    return {"type": "response.created", "response": {"id": "resp_up", "model": "m", "created_at": 1, **members}}


def completed(*output: dict[str, Any], kind: str = "completed", **members: Any) -> dict[str, Any]:
    return {
        "type": f"response.{kind}",
        "response": {"id": "resp_up", "status": kind, "output": list(output), "usage": USAGE, **members},
    }


def ev(name: str, **members: Any) -> dict[str, Any]:
    return {"type": f"response.{name}", **members}
