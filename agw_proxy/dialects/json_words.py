"""Formats of an answer that have to be told in words, since the target does not know them, or not without words.

OpenAI's ``json_object`` is refused where nothing that is said has the word JSON in it (API guide, "Structured outputs", JSON
mode; in Responses the instructions do not count), and some servers know no schemas (DeepSeek API, "JSON Output").
"""

import msgspec
import orjson

from agw_proxy.dialects.base import Format, Losses, Message, Request, Spoken, Text, Untranslatable

JSON = "Answer in JSON, and with nothing around it."


def in_words(form: Format) -> str:
    """What to tell a model of it. Raises Untranslatable."""
    if form.schema is None:
        return JSON
    try:
        return f"{JSON} It has to match this JSON Schema:\n{orjson.dumps(form.schema).decode()}"
    except orjson.JSONEncodeError:
        raise Untranslatable("The schema is nested too deeply.", "response_format") from None


def worded(request: Request, target: Spoken, losses: Losses, *, schemas: bool) -> Request:
    """The request with what the target has to be told; itself where that is nothing. ``schemas``: it knows them."""
    form = request.format
    if form is None or target not in ("chat", "responses") or (form.schema is not None and schemas):
        return request
    if form.schema is not None:
        losses.of("json_schema", "response_format")
    elif _mentioned(request.messages, target):
        return request
    told = Message("system", [Text(in_words(form))])
    messages = list(request.messages)
    # Templates of many models take a system message in front only; what is in front in Responses are the instructions.
    front = next((at for at, message in enumerate(messages) if message.role != "system"), len(messages))
    messages.insert(len(messages) if target == "responses" else front, told)
    return msgspec.structs.replace(request, format=msgspec.structs.replace(form, schema=None), messages=messages)


def _mentioned(messages: list[Message], target: Spoken) -> bool:
    """The word is said, where OpenAI looks for it."""
    begun = int(target == "responses" and len(messages) > 1 and messages[0].role == "system")
    return any(
        isinstance(block, Text) and "json" in block.text.lower()
        for message in messages[begun:]
        for block in message.blocks
    )
