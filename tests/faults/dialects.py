"""Whole answers of the dialects that the gateway relays beside Chat, as their services send them."""

from tests.support.behaviours import event
from tests.support.fake_openai import ANSWER, STAMP, Tree

TEXTS = ("Hello", " from", " the", " fake")
MESSAGE: Tree = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-small",
    "content": [{"type": "text", "text": ANSWER}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 11, "output_tokens": 7},
}
ITEM: Tree = {
    "id": "item_1",
    "type": "message",
    "role": "assistant",
    "status": "completed",
    "content": [{"type": "output_text", "text": ANSWER, "annotations": []}],
}
RESPONSE: Tree = {
    "id": "resp_1",
    "object": "response",
    "created_at": STAMP,
    "status": "completed",
    "model": "gpt-4o-mini",
    "output": [ITEM],
    "parallel_tool_calls": True,
    "tool_choice": "auto",
    "tools": [],
    "usage": {
        "input_tokens": 11,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": 7,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 18,
    },
}
_STARTED: Tree = {**RESPONSE, "status": "in_progress", "output": [], "usage": None}


def _piece(number: int, text: str) -> bytes:
    tree: Tree = {
        "type": "response.output_text.delta",
        "item_id": "item_1",
        "output_index": 0,
        "content_index": 0,
        "delta": text,
        "logprobs": [],
        "sequence_number": number,
    }
    return event(tree, "response.output_text.delta")


def _block(text: str) -> bytes:
    tree: Tree = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}
    return event(tree, "content_block_delta")


RESPONSE_EVENTS = [
    event({"type": "response.created", "response": _STARTED, "sequence_number": 0}, "response.created"),
    *(_piece(number, text) for number, text in enumerate(TEXTS, 1)),
    event({"type": "response.completed", "response": RESPONSE, "sequence_number": 5}, "response.completed"),
]
_OPENED: Tree = {**MESSAGE, "content": [], "stop_reason": None, "usage": {"input_tokens": 11, "output_tokens": 1}}
_BLOCK: Tree = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
_ENDING: Tree = {
    "type": "message_delta",
    "delta": {"stop_reason": "end_turn", "stop_sequence": None},
    "usage": {"output_tokens": 7},
}
MESSAGE_EVENTS = [
    event({"type": "message_start", "message": _OPENED}, "message_start"),
    event(_BLOCK, "content_block_start"),
    *(_block(text) for text in TEXTS),
    event({"type": "content_block_stop", "index": 0}, "content_block_stop"),
    event(_ENDING, "message_delta"),
    event({"type": "message_stop"}, "message_stop"),
]
