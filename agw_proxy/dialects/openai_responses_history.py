"""Writes a conversation as the items of a Responses request's ``input`` (OpenAI API reference, Responses, ``input``).

An assistant's words are written as simple messages with a string: output messages need an id that OpenAI has given.
"""

import hashlib

from agw_proxy.dialects import custom_tools, media
from agw_proxy.dialects import openai_responses_signatures as signatures
from agw_proxy.dialects.base import (
    Audio,
    Block,
    File,
    Image,
    Losses,
    Message,
    Refusal,
    Text,
    Thinking,
    Tool,
    ToolResult,
    ToolUse,
    Tree,
)
from agw_proxy.dialects.openai_responses_tools import inner_name

CALL_ID_LENGTH = 64
"""Longest ``call_id`` that the API takes."""
DETAILS = frozenset({"low", "high", "auto", "original"})
OWN_FILE = "file-"
"""How the ids of OpenAI's files begin."""


def instructions_of(messages: list[Message]) -> str | None:
    """What leads the conversation, if it is the system's words; they are written as ``instructions``."""
    if not messages or messages[0].role != "system" or not messages[0].blocks:
        return None
    texts = [block.text for block in messages[0].blocks if isinstance(block, Text)]
    return "\n\n".join(texts) if len(texts) == len(messages[0].blocks) else None


def write_input(messages: list[Message], tools: list[Tool], losses: Losses) -> list[Tree]:
    """The items. ``tools``: of the request; of custom ones, calls are written with their plain input."""
    items: list[Tree] = []
    custom = {tool.name for tool in tools if tool.schema is None}
    calls: set[str] = set()
    for message in messages:
        if message.name is not None:
            losses.of("message_name")
        if message.role == "assistant":
            _write_assistant(message.blocks, custom, calls, items, losses)
        else:
            _write_other(message, calls, items, losses)
    return items


def _write_assistant(blocks: list[Block], custom: set[str], calls: set[str], items: list[Tree], losses: Losses) -> None:
    """``calls``: ids of calls of custom tools; added to."""
    runs: list[tuple[Tree, list[str]]] = []
    cited: Text | None = None  # the words before, where they belong to the next ones: citations cut sentences in parts
    for block in blocks:
        _lose(block, losses)
        if isinstance(block, Text):
            if block.citations:
                losses.of("citations")
            if cited is not None and (cited.citations or block.citations):
                runs[-1][1].append(block.text)
                cited = block
            elif block.text:
                items.append({"type": "message", "role": "assistant", "content": ""})
                runs.append((items[-1], [block.text]))
                cited = block
            continue
        cited = None
        if isinstance(block, ToolUse):
            plain = block.custom or block.name in custom
            if plain:
                calls.add(block.id)
            items.append(_call(block, plain=plain))
        elif isinstance(block, Thinking):
            _write_thinking(block, items, losses)
        elif isinstance(block, Refusal):
            items.append({"type": "message", "role": "assistant", "content": block.text})
        else:
            losses.of("assistant_media")
    for item, words in runs:
        item["content"] = "".join(words)


def _lose(block: Block, losses: Losses) -> None:
    if isinstance(block, Text | Image | File | ToolUse | ToolResult) and block.cache is not None:
        losses.of("cache_control")
    if isinstance(block, Text | ToolUse) and block.signature is not None:
        losses.of("foreign_reasoning")


def _write_thinking(block: Thinking, items: list[Tree], losses: Losses) -> None:
    mine = signatures.own(block.signature)
    if mine is None:
        losses.of("foreign_reasoning")
        return
    item_id, encrypted = mine
    items.append(
        {
            "type": "reasoning",
            "id": item_id or block.id or f"rs_{hashlib.sha256(encrypted.encode()).hexdigest()[:32]}",
            "summary": [{"type": "summary_text", "text": block.text}] if block.text else [],
            "encrypted_content": encrypted,
        }
    )


def _call(block: ToolUse, *, plain: bool) -> Tree:
    name = block.name if block.namespace is None else inner_name(block.namespace, block.name)
    made: Tree = {"type": "function_call", "call_id": call_id(block.id), "name": name}
    if plain:
        made["type"] = "custom_tool_call"
        made["input"] = block.arguments if block.custom else custom_tools.input_of(block.arguments)
    else:
        made["arguments"] = block.arguments or "{}"
    if block.namespace is not None:
        made["namespace"] = block.namespace
    return made


def call_id(given: str) -> str:
    """The id of a call; one that is too long for the API is replaced by its digest, in the call and in its result alike."""
    if len(given) <= CALL_ID_LENGTH:
        return given
    return f"call_{hashlib.sha256(given.encode()).hexdigest()[:40]}"


def _write_other(message: Message, calls: set[str], items: list[Tree], losses: Losses) -> None:
    """A message of the user or the system; results of tools are items of their own, before it."""
    parts: list[Tree] = []
    for block in message.blocks:
        _lose(block, losses)
        if isinstance(block, ToolResult):
            items.append(_result(block, block.custom or block.id in calls, losses))
        else:
            parts += _part(block, losses)
    if len(parts) == 1 and parts[0]["type"] == "input_text":
        items.append({"type": "message", "role": message.role, "content": parts[0]["text"]})
    elif parts:
        items.append({"type": "message", "role": message.role, "content": parts})


def _result(block: ToolResult, custom: bool, losses: Losses) -> Tree:
    if block.failed:
        losses.of("is_error")
    parts: list[Tree] = []
    for each in block.content:
        _lose(each, losses)
        parts += _part(each, losses)
    plain = len(parts) == 1 and parts[0]["type"] == "input_text"
    return {
        "type": "custom_tool_call_output" if custom else "function_call_output",
        "call_id": call_id(block.id),
        "output": parts[0]["text"] if plain else (parts or ""),
    }


def _part(block: Block, losses: Losses) -> list[Tree]:
    """Content parts of a message that the model has not made."""
    if isinstance(block, Text | Refusal):
        return [{"type": "input_text", "text": block.text}] if block.text else []
    if isinstance(block, Image):
        return [_image(block, losses)]
    if isinstance(block, File):
        return [_file(block, losses)]
    if isinstance(block, Audio):
        losses.of("audio_input")
    else:  # thoughts and calls are the model's: no dialect's reader puts them here
        losses.of("user_thinking" if isinstance(block, Thinking) else "user_tool_use")
    return []


def _image(block: Image, losses: Losses) -> Tree:
    made: Tree = {"type": "input_image", "detail": "auto"}
    if block.detail in DETAILS:
        made["detail"] = block.detail
    elif block.detail is not None:
        losses.of("image_detail")
    if block.data is not None:
        made["image_url"] = media.data_url(block.media_type or "image/png", block.data)
    elif block.url is not None:
        made["image_url"] = block.url
    else:
        made["file_id"] = _file_id(block.file_id, losses)
    return made


def _file(block: File, losses: Losses) -> Tree:
    if block.citations:
        losses.of("citations")
    if block.text is not None:
        return {"type": "input_text", "text": f"{block.name}\n\n{block.text}" if block.name else block.text}
    made: Tree = {"type": "input_file"}
    if block.data is not None:
        kind = block.media_type or media.media_type_of(block.name) or "application/pdf"
        made["file_data"] = media.data_url(kind, block.data)
        made["filename"] = block.name or media.file_name(kind)
    elif block.url is not None:
        made["file_url"] = block.url
    else:
        made["file_id"] = _file_id(block.file_id, losses)
    return made


def _file_id(file_id: str | None, losses: Losses) -> str:
    """OpenAI's own; raises Untranslatable for another provider's."""
    if file_id is None or not file_id.startswith(OWN_FILE):
        losses.of("file_id")
    return file_id or ""
