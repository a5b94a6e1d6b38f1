"""Streams and documents of the dialects beside Chat Completions, as their references have them."""

import json
from typing import Any


def event(tree: Any, name: str | None = None) -> bytes:
    """One event; ``name``: its type, also where the data does not tell."""
    head = b"" if name is None else b"event: " + name.encode() + b"\n"
    return head + b"data: " + json.dumps(tree, separators=(",", ":")).encode() + b"\n\n"


def typed(kind: str, **members: Any) -> bytes:
    """An event that tells its type twice, as both dialects do."""
    return event({"type": kind, **members}, kind)


START = typed(
    "message_start",
    message={
        "id": "msg_1", "type": "message", "role": "assistant", "content": [], "stop_reason": None,
        "usage": {
            "input_tokens": 25, "cache_creation_input_tokens": 3, "cache_read_input_tokens": 100, "output_tokens": 1,
        },
    },
)  # fmt: skip
PING = typed("ping")
TEXT = typed("content_block_delta", index=0, delta={"type": "text_delta", "text": "Hi"})
TURN = typed("message_delta", delta={"stop_reason": "end_turn", "stop_sequence": None}, usage={"output_tokens": 15})
STOP = typed("message_stop")
MESSAGE = [START, typed("content_block_start", index=0), PING, TEXT, TEXT, typed("content_block_stop"), TURN, STOP]

USAGE = {"input_tokens": 9, "input_tokens_details": {"cached_tokens": 4}, "output_tokens": 6, "total_tokens": 15}
CREATED = typed("response.created", response={"id": "resp_1", "status": "in_progress", "usage": None})
WORDS = typed("response.output_text.delta", item_id="m", output_index=0, delta="Hi", sequence_number=2)


def response_end(status: str) -> bytes:
    """The terminal event of that status."""
    return typed(
        f"response.{status}", response={"id": "resp_1", "object": "response", "status": status, "usage": USAGE}
    )


RESPONSE = [CREATED, WORDS, typed("response.output_text.done", text="Hi"), response_end("completed")]

DIALECTS = [
    b"".join(MESSAGE),
    b"".join(MESSAGE).replace(b"\n", b"\r\n"),
    b"".join(MESSAGE[:-1]),
    b"".join(RESPONSE),
    b"".join(RESPONSE[:-1]),
    CREATED + response_end("failed"),
    CREATED + response_end("incomplete") + b"data: [DONE]\n\n",
    # One of the two tells the type; the data's counts where they differ.
    event({"type": "message_stop"}) + event({}, "message_stop"),
    event({"type": "ping"}, "message_stop") + event({"type": ""}, "message_stop") + event({"type": 7}, "ping"),
    event({"x": 1}, "response." + "x" * 60 + ".delta") + event({"type": "response." + "y" * 48 + ".delta"}),
    event({"type": "response." + "y" * 49 + ".delta"}) + event({"type": "response.delta"}) + event({"type": "x.delta"}),
    event([], "message_stop") + event("text", "message_stop") + b"event: message_stop\n\n",
    b"event: message_stop\ndata: {\n\nevent: ping\ndata: {]\n\n",
    b'data: {"type":"mess\\u0061ge_stop"}\n\ndata: {"t\\u0079pe" : "p\\u0069ng"}\n\n',
    b'data: {"type":"' + b"\\u0078" * 63 + b'"}\n\ndata: {"type":"' + b"\\u0078" * 70 + b'"}\n\n',
    event({"x": {"type": "message_stop"}, "type": None}) + event({"type": {"type": "message_stop"}}),
    event({"type": "keepalive", "sequence_number": 3}) + event({"type": "error", "message": "no"}) + STOP,
    event({"type": "error", "error": {"type": "overloaded_error", "message": "no"}}, "error"),
    # Cumulative: what it leaves out stays, what it says of the prompt never takes away.
    START + typed("message_delta", usage={"input_tokens": 2, "output_tokens": 8}) + TURN,
    START + typed("message_delta", usage={"input_tokens": 200}, delta={"stop_reason": None}),
    typed("message_delta", usage={"cache_read_input_tokens": 5}) + typed("message_delta", usage=None),
    event({"usage": {"input_tokens": (1 << 63) - 1, "cache_read_input_tokens": 1}}),
    event({"usage": {"prompt_tokens": 7, "input_tokens": 1, "cache_read_input_tokens": 5}}),
    # A status alone ends nothing.
    typed("response.in_progress", response={"status": "in_progress"}) + event({"status": "completed"}),
    # What a chat may carry beside its text.
    event({"choices": [{"delta": {"refusal": "no"}}]}) + event({"choices": [{"delta": {"reasoning": "hm"}}]}),
    event({"choices": [{"delta": {"function_call": {"arguments": ""}}}]}),
    event({"choices": [{"delta": {"audio": {"data": "AA"}}}]}),
    event({"choices": [{"delta": {"images": [{"type": "image_url", "image_url": {"url": "data:,"}}]}}]}),
    event({"choices": [{"delta": {"images": [], "content": ""}}]}),
    event({"choices": [{"delta": {"audio": None, "function_call": None, "refusal": "", "reasoning": None}}]}),
]
"""Each is read in any split, and compared with the model."""

DOCUMENTS: list[tuple[Any, tuple[int, int, int, str | None]]] = [
    (
        {
            "id": "msg_1",
            "type": "message",
            "stop_reason": "max_tokens",
            "usage": {"input_tokens": 3, "output_tokens": 4},
        },
        (3, 4, -1, "max_tokens"),
    ),
    (
        {"type": "message", "usage": {"input_tokens": 3, "cache_read_input_tokens": 10, "output_tokens": 4}},
        (13, 4, 10, None),
    ),
    ({"status": "incomplete", "object": "response", "usage": USAGE}, (9, 6, 4, "incomplete")),
    ({"object": "response", "status": "completed", "usage": None}, (-1, -1, -1, "completed")),
    ({"object": "batch", "status": "completed"}, (-1, -1, -1, None)),
    ({"object": "response", "status": "x", "choices": [{"finish_reason": "stop"}]}, (-1, -1, -1, "stop")),
    ({"choices": [{"finish_reason": "stop"}], "object": "response", "status": "x"}, (-1, -1, -1, "stop")),
]
"""What they say: prompt, completion and cached tokens, and why the answer has ended."""
