"""A provider in all four dialects, for a scripted upstream: it answers one scene as each of the real services would.

The scenes are written out by hand, dialect by dialect, from the providers' published examples; nothing here is made by
the code under test.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson
from pydantic import ValidationError

from tests.dialects.schema_gemini import conforms
from tests.support.published import check_request, ready
from tests.support.upstream import Behaviour, Exchange

Tree = dict[str, Any]

HELLO = ("Hel", "lo wor", "ld")
CALLS = (("get_weather", {"city": "Oslo"}), ("get_time", {"zone": "CET"}))
THOUGHT = "Let me think."
SIGNED = "c2lnbmVk"


@dataclass(frozen=True)
class Scene:
    """What is answered. ``stop``: stop, length, tool or refusal."""

    text: tuple[str, ...] = ()
    calls: tuple[tuple[str, Tree], ...] = ()
    thought: str = ""
    stop: str = "stop"
    prompt: int = 21
    cached: int = 8
    output: int = 9


TEXT = Scene(text=HELLO)
TOOLS = Scene(text=("Looking.",), calls=CALLS, stop="tool")
CUT = Scene(text=HELLO, stop="length")
THINKING = Scene(text=HELLO, thought=THOUGHT)
SCENES = {"text": TEXT, "tools": TOOLS, "cut": CUT, "thinking": THINKING}


def arguments(tree: Tree) -> str:
    """A tool's arguments as JSON text."""
    return orjson.dumps(tree).decode()


def plays(scene: Scene) -> Behaviour:
    """Answer each request by the scene, in the dialect of its path, streamed where it asks for that."""
    ready()

    async def behave(exchange: Exchange) -> None:
        request = exchange.request
        path, tree = request.path, request.json
        streamed = bool(tree.get("stream")) or "stream" in path.rpartition(":")[2]
        spoken = spoken_at(path)
        try:
            conforms(tree) if spoken == "gemini" else check_request(spoken, tree)
        except (AssertionError, ValidationError) as fault:
            words = f"the published API knows no such request: {fault}"
            refusal = orjson.dumps({"type": "error", "error": {"type": "invalid_request_error", "message": words}})
            head = f"HTTP/1.1 422 Unprocessable\r\nContent-Type: application/json\r\nContent-Length: {len(refusal)}\r\n\r\n"
            await exchange.send(head.encode() + refusal)
            return
        write, write_frames = FORMS[spoken]
        body, frames = write(scene), write_frames(scene)
        kind, data = ("text/event-stream", frames) if streamed else ("application/json", orjson.dumps(body))
        head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(data)}\r\n\r\n"
        await exchange.send(head.encode() + data)

    return behave


def spoken_at(path: str) -> str:
    """Which form a path is asked in."""
    for end, spoken in (("/chat/completions", "chat"), ("/responses", "responses"), ("/messages", "messages")):
        if path.endswith(end):
            return spoken
    assert ":" in path, f"no provider serves {path}"
    return "gemini"


# -- OpenAI, Chat


def chat(scene: Scene) -> Tree:
    """A chat.completion."""
    calls = [
        {"id": f"call_{i}", "type": "function", "function": {"name": name, "arguments": arguments(tree)}}
        for i, (name, tree) in enumerate(scene.calls)
    ]
    message: Tree = {"role": "assistant", "content": "".join(scene.text) or None, "refusal": None}
    message |= {"tool_calls": calls} if calls else {}
    message |= {"reasoning_content": scene.thought} if scene.thought else {}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1700000000,
        "model": "far-model",
        "choices": [{"index": 0, "message": message, "finish_reason": _chat_stop(scene), "logprobs": None}],
        "usage": _chat_usage(scene),
    }


def _chat_stop(scene: Scene) -> str:
    return {"tool": "tool_calls"}.get(scene.stop, scene.stop)


def _chat_usage(scene: Scene) -> Tree:
    return {
        "prompt_tokens": scene.prompt,
        "completion_tokens": scene.output,
        "total_tokens": scene.prompt + scene.output,
        "prompt_tokens_details": {"cached_tokens": scene.cached},
    }


def chat_frames(scene: Scene) -> bytes:
    """Its stream, with usage in a chunk of its own."""
    deltas: list[Tree] = [{"role": "assistant", "content": ""}]
    deltas += [{"reasoning_content": scene.thought}] if scene.thought else []
    deltas += [{"content": piece} for piece in scene.text]
    for i, (name, tree) in enumerate(scene.calls):
        text = arguments(tree)
        begun = {"index": i, "id": f"call_{i}", "type": "function", "function": {"name": name, "arguments": ""}}
        deltas.append({"tool_calls": [begun]})
        deltas += [{"tool_calls": [{"index": i, "function": {"arguments": part}}]} for part in (text[:5], text[5:])]
    base = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1700000000, "model": "far-model"}
    chunks = [{**base, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    chunks.append({**base, "choices": [{"index": 0, "delta": {}, "finish_reason": _chat_stop(scene)}]})
    chunks.append({**base, "choices": [], "usage": _chat_usage(scene)})
    return b"".join(b"data: " + orjson.dumps(chunk) + b"\n\n" for chunk in chunks) + b"data: [DONE]\n\n"


# -- OpenAI, Responses


def _response_items(scene: Scene) -> list[Tree]:
    items: list[Tree] = []
    if scene.thought:
        summary = [{"type": "summary_text", "text": scene.thought}]
        items.append({"type": "reasoning", "id": "rs_1", "summary": summary, "encrypted_content": SIGNED})
    if scene.text:
        part = {"type": "output_text", "text": "".join(scene.text), "annotations": [], "logprobs": []}
        status = "incomplete" if scene.stop == "length" else "completed"
        items.append({"type": "message", "id": "msg_1", "role": "assistant", "status": status, "content": [part]})
    for i, (name, tree) in enumerate(scene.calls):
        call = {"type": "function_call", "id": f"fc_{i}", "call_id": f"call_{i}", "name": name, "status": "completed"}
        items.append({**call, "arguments": arguments(tree)})
    return items


def response(scene: Scene, *, done: bool = True) -> Tree:
    """A response; ``done`` False: as its stream begins."""
    cut = scene.stop == "length"
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1700000000,
        "model": "far-model",
        "status": "in_progress" if not done else "incomplete" if cut else "completed",
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if cut and done else None,
        "instructions": None,
        "metadata": {},
        "output": _response_items(scene) if done else [],
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "top_p": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "usage": {
            "input_tokens": scene.prompt,
            "input_tokens_details": {"cached_tokens": scene.cached},
            "output_tokens": scene.output,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": scene.prompt + scene.output,
        }
        if done
        else None,
    }


def response_frames(scene: Scene) -> bytes:
    """Its stream."""
    events: list[Tree] = [
        {"type": f"response.{name}", "response": response(scene, done=False)} for name in ("created", "in_progress")
    ]
    for at, item in enumerate(_response_items(scene)):
        where = {"output_index": at, "item_id": item["id"]}
        if item["type"] == "reasoning":
            events.append({"type": "response.output_item.added", "output_index": at, "item": {**item, "summary": []}})
            inner = {**where, "summary_index": 0}
            part = {"type": "summary_text", "text": ""}
            events.append({"type": "response.reasoning_summary_part.added", **inner, "part": part})
            events.append({"type": "response.reasoning_summary_text.delta", **inner, "delta": scene.thought})
            events.append({"type": "response.reasoning_summary_text.done", **inner, "text": scene.thought})
            part = {"type": "summary_text", "text": scene.thought}
            events.append({"type": "response.reasoning_summary_part.done", **inner, "part": part})
        elif item["type"] == "message":
            begun = {**item, "status": "in_progress", "content": []}
            events.append({"type": "response.output_item.added", "output_index": at, "item": begun})
            inner = {**where, "content_index": 0}
            part = {**item["content"][0], "text": ""}
            events.append({"type": "response.content_part.added", **inner, "part": part})
            events += [
                {"type": "response.output_text.delta", **inner, "delta": piece, "logprobs": []} for piece in scene.text
            ]
            whole = "".join(scene.text)
            events.append({"type": "response.output_text.done", **inner, "text": whole, "logprobs": []})
            events.append({"type": "response.content_part.done", **inner, "part": item["content"][0]})
        else:
            begun = {**item, "status": "in_progress", "arguments": ""}
            events.append({"type": "response.output_item.added", "output_index": at, "item": begun})
            text = item["arguments"]
            events += [
                {"type": "response.function_call_arguments.delta", **where, "delta": part}
                for part in (text[:5], text[5:])
            ]
            done = {"type": "response.function_call_arguments.done", **where, "arguments": text, "name": item["name"]}
            events.append(done)
        events.append({"type": "response.output_item.done", "output_index": at, "item": item})
    last = "incomplete" if scene.stop == "length" else "completed"
    events.append({"type": f"response.{last}", "response": response(scene)})
    return b"".join(
        b"event: %s\ndata: %s\n\n" % (event["type"].encode(), orjson.dumps({**event, "sequence_number": number}))
        for number, event in enumerate(events)
    )


# -- Anthropic


def _message_blocks(scene: Scene) -> list[Tree]:
    blocks: list[Tree] = []
    if scene.thought:
        blocks.append({"type": "thinking", "thinking": scene.thought, "signature": SIGNED})
    if scene.text:
        blocks.append({"type": "text", "text": "".join(scene.text)})
    blocks += [
        {"type": "tool_use", "id": f"toolu_{i}", "name": name, "input": tree}
        for i, (name, tree) in enumerate(scene.calls)
    ]
    return blocks


def _message_stop(scene: Scene) -> str:
    return {"stop": "end_turn", "length": "max_tokens", "tool": "tool_use", "refusal": "refusal"}[scene.stop]


def _message_usage(scene: Scene) -> Tree:
    return {
        "input_tokens": scene.prompt - scene.cached,
        "cache_read_input_tokens": scene.cached,
        "cache_creation_input_tokens": 0,
        "output_tokens": scene.output,
    }


def message(scene: Scene) -> Tree:
    """A message."""
    return {
        "id": "msg_01",
        "type": "message",
        "role": "assistant",
        "model": "far-model",
        "content": _message_blocks(scene),
        "stop_reason": _message_stop(scene),
        "stop_sequence": None,
        "usage": _message_usage(scene),
    }


def message_frames(scene: Scene) -> bytes:
    """Its stream."""
    start = {
        **message(scene),
        "content": [],
        "stop_reason": None,
        "usage": {**_message_usage(scene), "output_tokens": 1},
    }
    events: list[Tree] = [{"type": "message_start", "message": start}, {"type": "ping"}]
    for at, block in enumerate(_message_blocks(scene)):
        if block["type"] == "thinking":
            begun: Tree = {"type": "thinking", "thinking": "", "signature": ""}
            deltas: list[Tree] = [
                {"type": "thinking_delta", "thinking": scene.thought},
                {"type": "signature_delta", "signature": SIGNED},
            ]
        elif block["type"] == "text":
            begun = {"type": "text", "text": ""}
            deltas = [{"type": "text_delta", "text": piece} for piece in scene.text]
        else:
            begun = {**block, "input": {}}
            text = arguments(block["input"])
            deltas = [{"type": "input_json_delta", "partial_json": part} for part in ("", text[:5], text[5:])]
        events.append({"type": "content_block_start", "index": at, "content_block": begun})
        events += [{"type": "content_block_delta", "index": at, "delta": delta} for delta in deltas]
        events.append({"type": "content_block_stop", "index": at})
    delta = {"stop_reason": _message_stop(scene), "stop_sequence": None}
    events.append({"type": "message_delta", "delta": delta, "usage": {"output_tokens": scene.output}})
    events.append({"type": "message_stop"})
    return b"".join(b"event: %s\ndata: %s\n\n" % (event["type"].encode(), orjson.dumps(event)) for event in events)


# -- Google


def _gemini_chunk(scene: Scene, parts: list[Tree], *, last: bool) -> Tree:
    candidate: Tree = {"content": {"role": "model", "parts": parts}, "index": 0}
    if last:
        candidate["finishReason"] = "MAX_TOKENS" if scene.stop == "length" else "STOP"
    usage = {
        "promptTokenCount": scene.prompt,
        "cachedContentTokenCount": scene.cached,
        "candidatesTokenCount": scene.output,
        "totalTokenCount": scene.prompt + scene.output,
    }
    return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "far-model", "responseId": "r1"}


def _gemini_parts(scene: Scene) -> list[Tree]:
    parts: list[Tree] = [{"text": scene.thought, "thought": True}] if scene.thought else []
    parts += [{"text": piece} for piece in scene.text]
    return parts + [{"functionCall": {"name": name, "args": tree}} for name, tree in scene.calls]


def gemini(scene: Scene) -> Tree:
    """A GenerateContentResponse."""
    return _gemini_chunk(scene, _gemini_parts(scene), last=True)


def gemini_frames(scene: Scene) -> bytes:
    """Its stream."""
    parts = _gemini_parts(scene)
    chunks = [_gemini_chunk(scene, [part], last=part is parts[-1]) for part in parts]
    return b"".join(b"data: " + orjson.dumps(chunk) + b"\r\n\r\n" for chunk in chunks)


FORMS: dict[str, tuple[Callable[[Scene], Tree], Callable[[Scene], bytes]]] = {
    "chat": (chat, chat_frames),
    "responses": (response, response_frames),
    "messages": (message, message_frames),
    "gemini": (gemini, gemini_frames),
}
