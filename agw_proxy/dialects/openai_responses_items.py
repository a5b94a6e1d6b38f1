"""Reads the items of a Responses request's ``input`` (OpenAI API reference, Responses, ``input``) as turns of a conversation.

What one model turn has made, thoughts, words and calls, stands in several items there; here it is one assistant message.
"""

from agw_proxy.dialects import media, members
from agw_proxy.dialects import openai_responses_signatures as signatures
from agw_proxy.dialects.base import (
    Audio,
    Block,
    File,
    Image,
    Malformed,
    Message,
    Refusal,
    Request,
    Role,
    Text,
    Thinking,
    ToolResult,
    ToolUse,
    Tree,
    Untranslatable,
)
from agw_proxy.dialects.openai_responses_citations import citations_of
from agw_proxy.dialects.openai_responses_tools import flat_name, read_tools

ROLES: dict[str, Role] = {"user": "user", "assistant": "assistant", "system": "system", "developer": "system"}
KEPT = frozenset({"item_reference", "compaction", "compaction_summary", "compaction_trigger"})
"""Items that stand for others which only the provider has: without them the conversation is another one."""


def read_input(value: object, into: Request) -> None:
    """Append what ``input`` says to the request's messages. Items of hosted tools are left in ``extra`` as ``input.TYPE``."""
    if value is None:
        return
    if isinstance(value, str):
        into.messages.append(Message("user", [Text(value)]))
        return
    if not isinstance(value, list):
        raise members.wrong("input", "a string or a list of items", value)
    for at, item in enumerate(members.branches({"input": value}, "input")):
        _read_item(item, f"input[{at}]", into)
    into.messages[:] = _in_order(into.messages)


def _read_item(item: Tree, where: str, into: Request) -> None:
    kind = members.text(item, "type", where)
    if kind is None:
        kind = "message" if "role" in item or "id" not in item else "item_reference"
    if kind == "message":
        _read_message(item, where, into)
    elif kind in {"function_call", "custom_tool_call"}:
        _assistant(into).append(tool_use(item, where))
    elif kind in {"function_call_output", "custom_tool_call_output"}:
        _results(into).append(_tool_result(item, where, custom=kind == "custom_tool_call_output"))
    elif kind == "reasoning":
        _read_reasoning(item, where, into)
    elif kind == "additional_tools":
        read_tools(members.branches(item, "tools", where), f"{where}.tools", into)
    elif kind in KEPT:
        raise Untranslatable(
            f"An input item of type '{kind}' stands for items that only the provider keeps: send the items themselves.",
            where,
        )
    else:
        into.extra[f"input.{kind}"] = True


def _assistant(into: Request) -> list[Block]:
    """Blocks of the model's turn that goes on, or of a new one."""
    if not into.messages or into.messages[-1].role != "assistant":
        into.messages.append(Message("assistant", []))
    return into.messages[-1].blocks


def _results(into: Request) -> list[Block]:
    """Blocks of the user message that collects the results of one turn's calls."""
    last = into.messages[-1] if into.messages else None
    if last is None or last.role != "user" or not isinstance(last.blocks[0], ToolResult):  # all are, or none
        last = Message("user", [])
        into.messages.append(last)
    return last.blocks


def _in_order(messages: list[Message]) -> list[Message]:
    """The same turns, each result right behind the turn of its call: elsewhere, other dialects' servers refuse it."""
    turns: list[Message] = []
    callers: dict[str, int] = {}
    moved: dict[int, list[Block]] = {}
    for message in messages:
        behind = len(turns) - 1
        if message.role == "assistant":
            callers |= {block.id: len(turns) for block in message.blocks if isinstance(block, ToolUse)}
        elif message.blocks and all(isinstance(block, ToolResult) for block in message.blocks):
            stay: list[Block] = []
            for block in message.blocks:
                caller = callers.get(block.id, behind) if isinstance(block, ToolResult) else behind
                (stay if caller == behind else moved.setdefault(caller, [])).append(block)
            if not stay:
                continue
            message.blocks = stay
        turns.append(message)
    ordered: list[Message] = []
    for at, message in enumerate(turns):
        ordered.append(message)
        late = moved.get(at)
        if late:
            following = turns[at + 1] if at + 1 < len(turns) else None
            if following is not None and following.role == "user" and isinstance(following.blocks[0], ToolResult):
                following.blocks += late
            else:
                ordered.append(Message("user", late))
    return ordered


def _read_message(item: Tree, where: str, into: Request) -> None:
    named = members.wanted(item, "role", where)
    role = ROLES.get(named)
    if role is None:
        raise Malformed(f"'{where}.role' has to be one of {', '.join(ROLES)}.", f"{where}.role")
    blocks = read_content(item, "content", where)
    if role == "assistant":
        _assistant(into).extend(blocks)
    elif blocks:
        into.messages.append(Message(role, blocks))


def read_content(item: Tree, name: str, where: str) -> list[Block]:
    """A string, or a list of content parts."""
    content = item.get(name)
    if isinstance(content, str):
        return [Text(content)]
    if not isinstance(content, list):
        raise members.wrong(members.under(where, name), "a string or a list of parts", content)
    parts = members.branches(item, name, where)
    return [_part(part, f"{where}.{name}[{at}]") for at, part in enumerate(parts)]


def _part(part: Tree, where: str) -> Block:
    kind = members.wanted(part, "type", where)
    if kind in {"input_text", "output_text", "text"}:
        words = members.wanted(part, "text", where)
        return Text(words, citations=citations_of(part.get("annotations")))
    if kind == "input_image":
        return _image(part, where)
    if kind == "input_file":
        return _file(part, where)
    if kind == "refusal":
        return Refusal(members.wanted(part, "refusal", where))
    if kind == "input_audio":
        sound = members.branch(part, "input_audio", where) or {}
        at = f"{where}.input_audio"
        data = media.checked(members.wanted(sound, "data", at), f"{at}.data")
        return Audio(data=data, format=members.wanted(sound, "format", at))
    raise Malformed(f"'{where}.type' is of no known kind: {kind}.", f"{where}.type")


def _image(part: Tree, where: str) -> Image:
    url = members.text(part, "image_url", where)
    found = Image(file_id=members.text(part, "file_id", where), detail=members.text(part, "detail", where))
    if url is not None and url[:5].lower() == "data:":
        found.media_type, found.data = media.parse_data_url(url, f"{where}.image_url")
    else:
        found.url = url
    if found.url is None and found.data is None and found.file_id is None:
        raise Malformed(f"'{where}' has neither image_url nor file_id.", where)
    return found


def _file(part: Tree, where: str) -> File:
    data = members.text(part, "file_data", where)
    name = members.text(part, "filename", where)
    found = File(url=members.text(part, "file_url", where), file_id=members.text(part, "file_id", where), name=name)
    if data is not None and data[:5].lower() == "data:":
        found.media_type, found.data = media.parse_data_url(data, f"{where}.file_data")
    elif data is not None:
        found.media_type = media.media_type_of(name) or "application/pdf"
        found.data = media.checked(data, f"{where}.file_data")
    if found.url is None and found.data is None and found.file_id is None:
        raise Malformed(f"'{where}' has none of file_data, file_url and file_id.", where)
    return found


def tool_use(item: Tree, where: str) -> ToolUse:
    """A ``function_call`` or ``custom_tool_call``, of a request or an answer."""
    custom = item.get("type") == "custom_tool_call"
    name = members.wanted(item, "name", where)
    namespace = members.text(item, "namespace", where) or None
    return ToolUse(
        id=members.wanted(item, "call_id", where),
        name=name if namespace is None else flat_name(namespace, name),
        arguments=members.wanted(item, "input" if custom else "arguments", where),
        custom=custom,
        namespace=namespace,
    )


def _tool_result(item: Tree, where: str, *, custom: bool) -> ToolResult:
    content: list[Text | Image | File] = []
    for block in read_content(item, "output", where):
        if not isinstance(block, Text | Image | File):
            raise Malformed(f"'{where}.output' may hold words, images and files only.", f"{where}.output")
        content.append(block)
    return ToolResult(members.wanted(item, "call_id", where), content, custom=custom)


def _read_reasoning(item: Tree, where: str, into: Request) -> None:
    signature = signatures.detached(members.text(item, "encrypted_content", where))
    if signature is None:
        thought = thinking(item, where)
        if not thought.is_empty():
            _assistant(into).append(thought)
        return
    blocks = into.messages[-1].blocks if into.messages and into.messages[-1].role == "assistant" else []
    if blocks and isinstance(blocks[-1], Text | ToolUse):
        blocks[-1].signature = signature


def thinking(item: Tree, where: str) -> Thinking:
    """A ``reasoning`` item, of a request or an answer: its summary, or the thoughts themselves where they are shown."""
    name = "summary" if item.get("summary") else "content"
    parts = members.branches(item, name, where)
    texts = [members.wanted(part, "text", f"{where}.{name}[{at}]") for at, part in enumerate(parts)]
    item_id = members.text(item, "id", where)
    encrypted = members.text(item, "encrypted_content", where)
    return Thinking(
        text="\n\n".join(texts),
        signature=signatures.taken(item_id, encrypted) if encrypted else None,
        hidden=not texts and bool(encrypted),
        id=item_id,
    )
