"""What translating a stream costs: ``python -m bench.translation [--rounds N]``. Process CPU time over data in memory.

Each pair is a stream of words in the upstream's form, read through ``Translated.read`` (both halves: its Reader and the
caller's Writer) and then by the scanner that looks at every stream. The base is the same stream relayed: the scanner alone.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import Sequence

import orjson

from agw_proxy._hot.sse import Stream
from agw_proxy.config.values import Spoken
from agw_proxy.dialects.base import Shown
from agw_proxy.types import RawHeaders
from agw_proxy.upstreams.translating import Translated

WORDS = 2000  # events that bring one each
EVENTS_A_READ = (1, 8)  # as they come from a model, and as they come from a fast one
ROUNDS = 7
FORMS: tuple[Spoken, ...] = ("chat", "responses", "messages", "gemini")
Tree = dict[str, object]


class Memory:
    """An upstream's answer that is here already (``types.Reply``)."""

    status = 200
    headers: RawHeaders = ((b"content-type", b"text/event-stream"),)
    connect_ms = 0.0
    began_ns = 0

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self._pieces = pieces
        self._at = 0

    @property
    def ended(self) -> bool:
        """See ``types.Reply``."""
        return self._at == len(self._pieces)

    async def read(self, *, progress: bool = True) -> bytes:
        """See ``types.Reply``."""
        del progress
        self._at += 1
        return self._pieces[self._at - 1]

    def close(self) -> None:
        """See ``types.Reply``."""


def chat() -> list[Tree | bytes]:
    """Chat's chunks."""
    base = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1700000000, "model": "far-model"}

    def made(delta: Tree, reason: str | None = None) -> Tree:
        return {**base, "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}

    usage = {"prompt_tokens": 21, "completion_tokens": WORDS, "total_tokens": WORDS + 21}
    words: list[Tree] = [made({"content": "word "}) for _ in range(WORDS)]
    first, last = made({"role": "assistant", "content": ""}), made({}, "stop")
    return [first, *words, last, {**base, "choices": [], "usage": usage}, b"[DONE]"]


def responses() -> list[Tree | bytes]:
    """Responses' events."""
    response: Tree = {"id": "resp_1", "object": "response", "created_at": 1, "model": "far-model", "output": []}
    place: Tree = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    part: Tree = {"type": "output_text", "text": "", "annotations": []}
    item: Tree = {"id": "msg_1", "type": "message", "role": "assistant", "status": "in_progress", "content": []}
    text = "word " * WORDS
    whole = {**item, "status": "completed", "content": [{**part, "text": text}]}
    usage = {"input_tokens": 21, "output_tokens": WORDS, "total_tokens": WORDS + 21}
    begun = {"response": {**response, "status": "in_progress"}}
    ended = {"response": {**response, "status": "completed", "output": [whole], "usage": usage}}
    word: Tree = {"type": "response.output_text.delta", **place, "delta": "word ", "logprobs": []}
    found: list[Tree] = [
        {"type": "response.created", **begun},
        {"type": "response.in_progress", **begun},
        {"type": "response.output_item.added", "output_index": 0, "item": item},
        {"type": "response.content_part.added", **place, "part": part},
        *[word for _ in range(WORDS)],
        {"type": "response.output_text.done", **place, "text": text, "logprobs": []},
        {"type": "response.content_part.done", **place, "part": {**part, "text": text}},
        {"type": "response.output_item.done", "output_index": 0, "item": whole},
        {"type": "response.completed", **ended},
    ]
    return [{**tree, "sequence_number": number} for number, tree in enumerate(found)]


def messages() -> list[Tree | bytes]:
    """Messages' events."""
    message: Tree = {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "far-model", "content": [],
        "stop_reason": None, "stop_sequence": None, "usage": {"input_tokens": 21, "output_tokens": 1},
    }  # fmt: skip
    delta = {"type": "text_delta", "text": "word "}
    stop = {"stop_reason": "end_turn", "stop_sequence": None}
    return [
        {"type": "message_start", "message": message},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *[{"type": "content_block_delta", "index": 0, "delta": delta} for _ in range(WORDS)],
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": stop, "usage": {"output_tokens": WORDS}},
        {"type": "message_stop"},
    ]


def gemini() -> list[Tree | bytes]:
    """Google's answers."""

    def made(text: str, more: Tree) -> Tree:
        candidate = {"content": {"role": "model", "parts": [{"text": text}]}, "index": 0, **more}
        usage = {"promptTokenCount": 21, "candidatesTokenCount": WORDS, "totalTokenCount": WORDS + 21}
        return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "far-model", "responseId": "r1"}

    return [*[made("word ", {}) for _ in range(WORDS)], made("", {"finishReason": "STOP"})]


SCENES = {"chat": chat, "responses": responses, "messages": messages, "gemini": gemini}


def framed(events: Sequence[Tree | bytes], at_once: int) -> list[bytes]:
    """As they come over the wire, so many in one read."""
    frames = []
    for event in events:
        data = event if isinstance(event, bytes) else orjson.dumps(event)
        kind = event.get("type") if isinstance(event, dict) else None
        name = f"event: {kind}\n".encode() if kind else b""
        frames.append(name + b"data: " + data + b"\n\n")
    return [b"".join(frames[at : at + at_once]) for at in range(0, len(frames), at_once)]


async def relayed(pieces: Sequence[bytes]) -> None:
    """Read by the scanner alone."""
    reply, stream = Memory(pieces), Stream()
    while not reply.ended:
        stream.feed(await reply.read())


async def translated(pieces: Sequence[bytes], spoken: Spoken, form: Spoken) -> None:
    """Read through both halves, and by the scanner. Raises RuntimeError for a stream that has not come through whole."""
    shown = Shown(id="req_1", model="near-model", now=1700000000, include_usage=True)
    reply, stream = Translated(Memory(pieces), "memory", spoken, form, shown, (), stream=True), Stream()
    await reply.begin()
    while not reply.ended:
        stream.feed(await reply.read())
    if stream.completion_tokens != WORDS or not stream.complete:
        raise RuntimeError(f"{spoken} to {form}: the stream was not whole")


def cost(spoken: Spoken, form: Spoken | None, at_once: int, rounds: int) -> float:
    """Microseconds of CPU an event of the upstream's: the least of the rounds, since what else runs only adds. ``form`` None: relayed."""
    events = SCENES[spoken]()
    pieces = framed(events, at_once)
    taken = []
    for _ in range(rounds + 1):
        begun = time.process_time_ns()
        asyncio.run(relayed(pieces) if form is None else translated(pieces, spoken, form))
        taken.append((time.process_time_ns() - begun) / 1000 / len(events))
    return min(taken[1:])  # the first has warmed it


def table(rounds: int) -> str:
    """One row a pair: us an event, and the ratio to the same stream relayed."""
    heads = [f"{count} a read, {what}" for count in EVENTS_A_READ for what in ("us", "times relayed")]
    lines = ["| upstream | caller | " + " | ".join(heads) + " |", "|---|---|" + "---:|" * len(heads)]
    for spoken in FORMS:
        base = {count: cost(spoken, None, count, rounds) for count in EVENTS_A_READ}
        forms: tuple[Spoken | None, ...] = (None, *(form for form in FORMS if form != spoken))
        for form in forms:
            cells = []
            for count in EVENTS_A_READ:
                found = base[count] if form is None else cost(spoken, form, count, rounds)
                cells += [f"{found:.2f}", f"{found / base[count]:.1f}"]
            lines.append(f"| {spoken} | {form or 'relayed'} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> int:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description="What translating a stream costs.")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    print(table(parser.parse_args().rounds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
