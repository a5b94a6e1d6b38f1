"""The same questions in each dialect: requests as official clients send them, and the errors that they understand."""

import json
from typing import Any, Literal, NamedTuple
from urllib.parse import quote

from agw_proxy.conformance.base import Broken, Told, Tree, member, named, same

Form = Literal["chat", "responses", "messages", "gemini"]
FORMS: tuple[Form, ...] = ("chat", "responses", "messages", "gemini")
MAX_TOKENS = 2048  # of a Messages answer, which has to have a bound: room to think and to answer
PLACE: Tree = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = {"get_weather": "The weather in a city now.", "get_time": "The time in a city now."}
RESULTS = {"get_weather": "12 degrees, light rain", "get_time": "14:05"}
SCHEMA: Tree = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "inhabitants": {"type": "integer"}},
    "required": ["city", "inhabitants"],
    "additionalProperties": False,
}
BUILT_IN = "agw/echo"
PACE_MS = 5  # between the events of a long answer of the built-in model, which would be over at once
MALFORMED = {"chat": "messages", "responses": "input", "messages": "messages", "gemini": "contents"}
"""The member that makes a request unreadable when it is a number."""


class Ask(NamedTuple):
    """What to ask. ``force``: a tool has to be called. ``told``: an answer with calls, whose results to give.

    ``schema``: the answer is to fit SCHEMA. ``malformed``: the conversation is a number. ``slow``: the client will leave
    in its middle.
    """

    text: str
    streamed: bool = False
    tools: bool = False
    force: bool = False
    schema: bool = False
    malformed: bool = False
    slow: bool = False
    told: Told | None = None


def path(form: Form, model: str, *, streamed: bool) -> str:
    """Where to POST it."""
    if form == "gemini":
        verb = "streamGenerateContent?alt=sse" if streamed else "generateContent"
        return f"/v1beta/models/{quote(model, safe='/')}:{verb}"
    return {"chat": "/v1/chat/completions", "responses": "/v1/responses", "messages": "/v1/messages"}[form]


def headers(form: Form) -> dict[str, str]:
    """What the dialect's clients send besides their key."""
    return {"anthropic-version": "2023-06-01"} if form == "messages" else {}


def body(form: Form, model: str, ask: Ask) -> Tree:
    """Write the request."""
    made = _WRITERS[form](model, ask)
    if ask.malformed:
        made[MALFORMED[form]] = 5
    return made


def check_error(form: Form, status: int, tree: Any) -> str:
    """Give an error's message. Raises Broken unless it has the shape that the dialect's clients read."""
    if not isinstance(tree, dict):
        raise Broken("an error object in JSON", tree)
    error = member(tree, "error", dict)
    message = named(error, "message", "error.")
    if form == "gemini":
        same(error.get("code"), status, "`error.code` to be the status,")
        named(error, "status", "error.")
    else:
        named(error, "type", "error.")
        if form == "messages":
            same(tree.get("type"), "error", "`type` to be")
    return message


def _chat(model: str, ask: Ask) -> Tree:
    messages: list[Tree] = [{"role": "user", "content": ask.text}]
    if ask.told is not None:
        messages.append(ask.told.turn)
        messages += [
            {"role": "tool", "tool_call_id": call.id, "content": RESULTS.get(call.name, "unknown")}
            for call in ask.told.calls
        ]
    made: Tree = {"model": model, "messages": messages}
    if ask.streamed:
        made |= {"stream": True, "stream_options": {"include_usage": True}}
    if ask.tools:
        made["tools"] = [
            {"type": "function", "function": {"name": name, "description": said, "parameters": PLACE}}
            for name, said in TOOLS.items()
        ]
    if ask.force:
        made["tool_choice"] = "required"
    if ask.slow and model == BUILT_IN:  # relayed as it is in this form; in the others it takes its time anyway
        made["agw_echo"] = {"pace_ms": PACE_MS}
    if ask.schema:
        made["response_format"] = {
            "type": "json_schema",
            "json_schema": {"name": "city", "schema": SCHEMA, "strict": True},
        }
    return made


def _responses(model: str, ask: Ask) -> Tree:
    items: list[Tree] = [{"role": "user", "content": ask.text}]
    if ask.told is not None:
        # As clients that keep their own history send it: what was stored has ids, this has none, and no thoughts.
        items += [
            {"type": "function_call", "call_id": call.id, "name": call.name, "arguments": call.arguments}
            for call in ask.told.calls
        ]
        items += [
            {"type": "function_call_output", "call_id": call.id, "output": RESULTS.get(call.name, "unknown")}
            for call in ask.told.calls
        ]
    made: Tree = {"model": model, "input": items, "store": False}
    if ask.streamed:
        made["stream"] = True
    if ask.tools:
        # Without "strict", a missing one means true here.
        made["tools"] = [
            {"type": "function", "name": name, "description": said, "parameters": PLACE, "strict": False}
            for name, said in TOOLS.items()
        ]
    if ask.force:
        made["tool_choice"] = "required"
    if ask.schema:
        made["text"] = {"format": {"type": "json_schema", "name": "city", "schema": SCHEMA, "strict": True}}
    return made


def _messages(model: str, ask: Ask) -> Tree:
    messages: list[Tree] = [{"role": "user", "content": ask.text}]
    if ask.told is not None:
        messages.append({"role": "assistant", "content": ask.told.turn})
        results = [
            {"type": "tool_result", "tool_use_id": call.id, "content": RESULTS.get(call.name, "unknown")}
            for call in ask.told.calls
        ]
        messages.append({"role": "user", "content": results})
    made: Tree = {"model": model, "max_tokens": MAX_TOKENS, "messages": messages}
    if ask.streamed:
        made["stream"] = True
    if ask.tools:
        made["tools"] = [{"name": name, "description": said, "input_schema": PLACE} for name, said in TOOLS.items()]
    if ask.force:
        made["tool_choice"] = {"type": "any"}
    if ask.schema:
        made["output_config"] = {"format": {"type": "json_schema", "schema": SCHEMA}}
    return made


def _gemini(_: str, ask: Ask) -> Tree:
    contents: list[Tree] = [{"role": "user", "parts": [{"text": ask.text}]}]
    if ask.told is not None:
        contents.append(ask.told.turn)
        parts = []
        for call in ask.told.calls:
            result: Tree = {"name": call.name, "response": {"output": RESULTS.get(call.name, "unknown")}}
            parts.append({"functionResponse": result | ({"id": call.id} if call.id else {})})
        contents.append({"role": "user", "parts": parts})
    made: Tree = {"contents": contents}
    if ask.tools:
        declared = [{"name": name, "description": said, "parameters": PLACE} for name, said in TOOLS.items()]
        made["tools"] = [{"functionDeclarations": declared}]
    if ask.force:
        made["toolConfig"] = {"functionCallingConfig": {"mode": "ANY"}}
    if ask.schema:
        made["generationConfig"] = {"responseMimeType": "application/json", "responseJsonSchema": SCHEMA}
    return made


_WRITERS = {"chat": _chat, "responses": _responses, "messages": _messages, "gemini": _gemini}


def fits(text: str) -> str | None:
    """Say what keeps a text from fitting SCHEMA; None where it fits."""
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError):
        return "the answer is no JSON"
    if not isinstance(tree, dict) or tree.keys() != SCHEMA["properties"].keys():
        return f"the answer is no object with {' and '.join(SCHEMA['required'])} alone"
    if not isinstance(tree["city"], str) or isinstance(tree["inhabitants"], bool):
        return "a member has another type"
    return None if isinstance(tree["inhabitants"], int) else "a member has another type"
