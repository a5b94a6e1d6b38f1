"""The conversation of a Chat request, both ways (OpenAI API reference, Chat, "Create chat completion", ``messages``).

Chat has a message for each tool's result, where others have them as blocks of one user message; and it takes only words
as results, so that pictures among them go into a user message right behind.
"""

from typing import Any

from agw_proxy.dialects.base import (
    Block,
    File,
    Image,
    Losses,
    Malformed,
    Message,
    Refusal,
    Text,
    Thinking,
    ToolResult,
    ToolUse,
    Tree,
)
from agw_proxy.dialects.custom_tools import arguments_of
from agw_proxy.dialects.openai_chat_answers import read_image
from agw_proxy.dialects.openai_chat_fields import items, list_of, named, needed, path, refuse, text, tree_of
from agw_proxy.dialects.openai_chat_parts import (
    called,
    read_calls,
    read_content,
    read_texts,
    write_content,
    write_part,
)
from agw_proxy.dialects.openai_chat_thoughts import (
    is_own,
    read_thoughts,
    tool_signature,
    write_detail,
    write_tool_signature,
)


def read_messages(value: Any) -> list[Message]:
    """All messages, tool results gathered in user messages. Raises Malformed, also for none at all."""
    found: list[Message] = []
    legacy: dict[str, str] = {}
    gathering = False
    messages = list_of(value, "messages")
    if not messages:
        raise Malformed("At least one message is needed.", "messages")
    for index, one in enumerate(messages):
        at = path("messages", index)
        tree = tree_of(one, at)
        role = needed(tree, "role", at)
        if role in {"tool", "function"}:
            result = _read_result(tree, at, legacy)
            if gathering:
                found[-1].blocks.append(result)
            else:
                found.append(Message("user", [result]))
            gathering = True
            continue
        gathering = False
        name = text(tree, "name", at)
        if role == "user":
            found.append(Message("user", read_content(tree, at), name))
        elif role in {"system", "developer"}:
            found.append(Message("system", read_texts(tree, at), name))
        elif role == "assistant":
            found.append(Message("assistant", _read_assistant(tree, at, index, legacy), name))
        else:
            raise refuse(path(at, "role"), "system, developer, user, assistant, tool or function", role)
    return found


def _read_assistant(tree: Tree, at: str, index: int, legacy: dict[str, str]) -> list[Block]:
    blocks: list[Block] = [*read_thoughts(tree)]
    for position, block in enumerate(read_content(tree, at)):
        if not isinstance(block, Text | Refusal):
            raise Malformed("An assistant message is text or a refusal.", path(path(at, "content"), position))
        blocks.append(block)
    refusal = text(tree, "refusal", at)
    if refusal:
        blocks.append(Refusal(refusal))
    blocks += [read_image(image, path(at, "images")) for image in items(tree, "images", at)]
    blocks += [read_call(call, where) for where, call in read_calls(tree, at)]
    if tree.get("function_call") is not None:
        where = path(at, "function_call")
        call = tree_of(tree["function_call"], where)
        # The old form has no ids; its place in the conversation makes one that stays the same on the next turn.
        name = named(call, where)
        legacy[name] = f"call_function_{index}"
        blocks.append(ToolUse(legacy[name], name, needed(call, "arguments", where)))
    return blocks


def read_call(call: Tree, at: str) -> ToolUse:
    """A tool call of a whole message. Raises Malformed."""
    inner, where, custom = called(call, at)
    arguments = inner.get("input" if custom else "arguments")
    if arguments is None:
        arguments = ""
    if not isinstance(arguments, str):
        raise refuse(path(where, "input" if custom else "arguments"), "a string", arguments)
    return ToolUse(
        id=needed(call, "id", at),
        name=named(inner, where),
        arguments=arguments,
        custom=custom,
        signature=tool_signature(call),
    )


def _read_result(tree: Tree, at: str, legacy: dict[str, str]) -> ToolResult:
    name = text(tree, "name", at)
    if tree["role"] == "function":
        name = named(tree, at)
        identity = legacy.get(name)
        if identity is None:
            raise Malformed("A function's result has to follow a function_call of that name.", path(at, "name"))
    else:
        identity = needed(tree, "tool_call_id", at)
    content: list[Text | Image | File] = []
    for index, block in enumerate(read_content(tree, at)):
        if not isinstance(block, Text | Image | File):
            raise Malformed("A tool's result is text, images or files.", path(path(at, "content"), index))
        content.append(block)
    return ToolResult(id=identity, content=content, name=name)


def write_messages(messages: list[Message], losses: Losses, reasoning_name: str | None) -> list[Tree]:
    """The member ``messages``. ``reasoning_name``: where the server wants its reasoning text back; None: it does not.

    Raises Untranslatable by the table of features.
    """
    written: list[Tree] = []
    for index, message in enumerate(_led(messages)):
        at = path("messages", index)
        if message.role == "assistant":
            made = _write_assistant(message, losses, reasoning_name, at)
            if made is not None:
                written.append(_signed(made, message))
            continue
        if message.role == "system":
            written.append(_signed(_write_system(message, losses, at), message))
            continue
        results, others = _write_results(message, losses, at)
        written += results
        others += _written_parts(message.blocks, losses, at)
        if others or not results:
            written.append(_signed({"role": "user", "content": write_content(others)}, message))
    return written


def _led(messages: list[Message]) -> list[Message]:
    """What the system says in front as one message, where it is words: the templates of many models take no second one."""
    words: list[Text] = []
    leading = 0
    for message in messages:
        texts = [block for block in message.blocks if isinstance(block, Text)]
        if message.role != "system" or message.name or len(texts) < len(message.blocks):
            break
        words += texts
        leading += 1
    if leading < 2:
        return messages
    cache = next((text.cache for text in words if text.cache is not None), None)
    whole = Text("\n\n".join(text.text for text in words), cache=cache)
    return [Message("system", [whole]), *messages[leading:]]


def _write_system(message: Message, losses: Losses, at: str) -> Tree:
    """Only words may stand here; the role's older name is known to every server."""
    parts = _written_parts(message.blocks, losses, at)
    words = [part for part in parts if part["type"] == "text"]
    if len(words) < len(parts):
        losses.of("system_media", at)
    return {"role": "system", "content": write_content(words)}


def _signed(tree: Tree, message: Message) -> Tree:
    """With the name of who speaks."""
    if message.name:
        tree["name"] = message.name
    return tree


def _written_parts(blocks: list[Block], losses: Losses, at: str) -> list[Tree]:
    parts: list[Tree] = []
    for index, block in enumerate(blocks):
        if isinstance(block, Refusal):
            parts.append({"type": "text", "text": block.text})
            continue
        part = write_part(block, losses, path(path(at, "content"), index))
        if part is not None:
            parts.append(part)
    return parts


def _write_results(message: Message, losses: Losses, at: str) -> tuple[list[Tree], list[Tree]]:
    """A message for each tool result, and the parts that tools gave and only a user message can hold."""
    results: list[Tree] = []
    others: list[Tree] = []
    for block in message.blocks:
        if not isinstance(block, ToolResult):
            continue
        if block.failed:
            losses.of("is_error")
        if block.cache is not None:
            losses.of("cache_control")
        parts = _written_parts(list(block.content), losses, at)
        words = [part for part in parts if part["type"] == "text"]
        pictures = [part for part in parts if part["type"] != "text"]
        if pictures:
            note = f"What the tool call {block.id} gave besides text:"
            others += [{"type": "text", "text": note}, *pictures]
            words = words or [{"type": "text", "text": "(see the next message)"}]
        results.append({"role": "tool", "tool_call_id": block.id, "content": write_content(words)})
    return results, others


def _write_assistant(message: Message, losses: Losses, reasoning_name: str | None, at: str) -> Tree | None:
    """None where nothing is left: an assistant message without content and calls is refused."""
    words: list[str] = []
    refusals: list[str] = []
    thoughts: list[str] = []
    details: list[Tree] = []
    calls: list[Tree] = []
    for block in message.blocks:
        if isinstance(block, Text):
            write_part(block, losses, at)  # for what it loses
            words.append(block.text)
        elif isinstance(block, Refusal):
            refusals.append(block.text)
        elif isinstance(block, Thinking):
            _write_thought(block, losses, reasoning_name, thoughts, details)
        elif isinstance(block, ToolUse):
            calls.append(_write_call(block, losses))
        else:
            losses.of("assistant_media", at)
    if not (words or refusals or calls):
        return None
    tree: Tree = {"role": "assistant", "content": "".join(words) if words else None}
    if refusals:
        tree["refusal"] = "".join(refusals)
    if calls:
        tree["tool_calls"] = calls
    if thoughts and reasoning_name is not None:
        tree[reasoning_name] = "".join(thoughts)
    if details:
        tree["reasoning_details"] = details
    return tree


def _write_thought(
    thought: Thinking, losses: Losses, reasoning_name: str | None, thoughts: list[str], details: list[Tree]
) -> None:
    """Thoughts go back only to whom they came from: others refuse them, or take them for the answer's text."""
    if is_own(thought.signature):
        details.append(write_detail(thought, len(details)))
        thoughts.append(thought.text)
    elif reasoning_name is not None and thought.signature is None:
        thoughts.append(thought.text)
    else:
        losses.of("foreign_reasoning")


def _write_call(call: ToolUse, losses: Losses) -> Tree:
    if call.cache is not None:
        losses.of("cache_control")
    arguments = arguments_of(call.arguments) if call.custom else call.arguments or "{}"
    tree: Tree = {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}}
    if call.signature is not None:
        if is_own(call.signature):
            tree["extra_content"] = write_tool_signature(call.signature)
        else:
            losses.of("foreign_reasoning")
    return tree
