"""A conversation as the Messages API takes it: turns by turns, results of tools first, nothing empty, nothing foreign.

Anthropic API reference, "Messages", ``messages`` and ``system``. System messages of any place become the system prompt, in
their order: not every model takes them amid the conversation.
"""

import base64
import binascii

import orjson

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
    ToolResult,
    ToolUse,
    Tree,
    Untranslatable,
    unsealed,
)
from agw_proxy.dialects.custom_tools import arguments_of

THOUGHTS = frozenset({"thinking", "redacted_thinking"})
PICTURES = frozenset({"image/jpeg", "image/png", "image/gif", "image/webp"})
MAX_DEPTH = 200  # braces that orjson writes in any nesting, with those around them
OPENING = "(The conversation begins with the assistant.)"
"""A conversation has to begin with the user."""
_ID = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")
_CITED = {
    "char_location": ("document_title", "document_index", "start_char_index", "end_char_index"),
    "page_location": ("document_title", "document_index", "start_page_number", "end_page_number"),
    "content_block_location": ("document_title", "document_index", "start_block_index", "end_block_index"),
    "web_search_result_location": ("title", "encrypted_index", "url"),
    "search_result_location": ("title", "search_result_index", "source", "start_block_index", "end_block_index"),
}
"""Members of a citation beside ``type`` and ``cited_text``; all but the first, its title, have to be known."""


def input_of(arguments: str) -> Tree:
    """A call's arguments as the object that ``input`` has to be.

    Words that are no JSON object stand in it as ``{"_raw": words}``: an empty object would hide what the model has said.
    """
    if not arguments.strip():
        return {}
    try:
        tree = orjson.loads(arguments)
        if arguments.count("{") + arguments.count("[") > MAX_DEPTH:
            orjson.dumps(tree)  # what it reads may be too deep for it to write
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        return {"_raw": arguments}
    return tree if isinstance(tree, dict) else {"_raw": arguments}


def plain_name(name: str) -> str:
    """An id or a name in the letters that Anthropic takes (``[a-zA-Z0-9_-]``); others become ``_``."""
    return name if _ID.issuperset(name) else "".join(letter if letter in _ID else "_" for letter in name)


class Conversation:
    """Writes messages one after the other into ``system`` and ``messages``."""

    def __init__(self, losses: Losses) -> None:
        self.system: list[Tree] = []
        self.messages: list[Tree] = []
        self.called: list[str] = []
        """Names of the tools that were called."""
        self._losses = losses
        self._taken: set[str] = set()
        self._calls: dict[str, list[str]] = {}
        """By the id that came: ids of calls that wait for their results."""

    def add(self, message: Message, where: str) -> None:
        """One more message. ``where``: its path, for errors. Raises Untranslatable."""
        if message.name is not None:
            self._losses.of("message_name", f"{where}.name")
        content = [tree for block in message.blocks if (tree := self._block(block, message.role, where)) is not None]
        if not content:
            return
        if message.role == "system":
            self.system += content
            return
        if self.messages and self.messages[-1]["role"] == message.role:
            self.messages[-1]["content"] += content
        else:
            if not self.messages and message.role == "assistant":
                self.messages.append({"role": "user", "content": [{"type": "text", "text": OPENING}]})
            self.messages.append({"role": message.role, "content": content})

    def finish(self) -> None:
        """Bring it into the order that the API insists on. Raises Untranslatable where nothing has been said."""
        if not self.messages:
            # A system prompt alone is a request that OpenAI answers: it is said by the user.
            if not self.system:
                raise Untranslatable("The model's upstream wants at least one message that is not empty.", "messages")
            self.messages.append({"role": "user", "content": self.system})
            self.system = []
        self.messages = _settled(self.messages)
        last = self.messages[-1]
        if last["role"] == "assistant" and last["content"][-1]["type"] == "text":
            # A prefill may not end in white space.
            last["content"][-1]["text"] = last["content"][-1]["text"].rstrip()

    def _block(self, block: Block, role: str, where: str) -> Tree | None:
        if isinstance(block, Text):
            return self._text(block)
        if role == "system":
            self._losses.of("system_media", where)
            return None
        if isinstance(block, ToolUse):
            return self._tool_use(block)
        if isinstance(block, ToolResult):
            return self._tool_result(block, where)
        if isinstance(block, Thinking):
            return self._thinking(block)
        if isinstance(block, Refusal):
            return self._text(Text(block.text))
        if isinstance(block, Audio):
            self._losses.of("audio_input", where)
            return None
        if role == "assistant":
            self._losses.of("assistant_media", where)
            return None
        return self._media(block, where)

    def _text(self, block: Text) -> Tree | None:
        if not block.text.strip():
            return None  # the API refuses it
        if block.signature is not None:
            self._losses.of("foreign_reasoning")
        tree: Tree = {"type": "text", "text": block.text}
        citations = [made for cited in block.citations if (made := _citation(cited)) is not None]
        if len(citations) != len(block.citations):
            self._losses.of("citations")
        if citations:
            tree["citations"] = citations
        return _cached(tree, block.cache)

    def _tool_use(self, block: ToolUse) -> Tree:
        self.called.append(plain_name(block.name))
        if block.signature is not None:
            self._losses.of("foreign_reasoning")
        given = arguments_of(block.arguments) if block.custom else block.arguments
        tree: Tree = {
            "type": "tool_use",
            "id": self._call_id(block.id),
            "name": self.called[-1],
            "input": input_of(given),
        }
        return _cached(tree, block.cache)

    def _tool_result(self, block: ToolResult, where: str) -> Tree:
        tree: Tree = {"type": "tool_result", "tool_use_id": self._result_id(block.id)}
        content = []
        for inner in block.content:
            made = self._text(inner) if isinstance(inner, Text) else self._media(inner, where)
            if made is not None:
                content.append(made)
        if content:
            alone = len(content) == 1 and content[0].keys() == {"type", "text"}
            tree["content"] = content[0]["text"] if alone else content
        if block.failed:
            tree["is_error"] = True
        return _cached(tree, block.cache)

    def _call_id(self, given: str) -> str:
        """An id for a call, in the letters that the API takes, and no other call's: some upstreams count anew in each turn."""
        base = known = plain_name(given) or "toolu"
        again = 1
        while known in self._taken:
            again += 1
            known = f"{base}_{again}"
        self._taken.add(known)
        self._calls.setdefault(given, []).append(known)
        return known

    def _result_id(self, given: str) -> str:
        """The id of the call whose result this is: of several with one id, the first that still waits for it."""
        waiting = self._calls.get(given)
        return waiting.pop(0) if waiting else plain_name(given) or "toolu"

    def _thinking(self, block: Thinking) -> Tree | None:
        whose, signature = unsealed(block.signature or "", "messages")
        if whose != "messages" or not signature:
            self._losses.of("foreign_reasoning")
            return None
        if block.hidden:
            return {"type": "redacted_thinking", "data": signature}
        return {"type": "thinking", "thinking": block.text, "signature": signature}

    def _media(self, block: Image | File, where: str) -> Tree | None:
        if block.file_id is not None:
            self._losses.of("file_id", where)
            return None
        if isinstance(block, File):
            return _document(block, where)
        if block.detail not in (None, "auto"):
            self._losses.of("image_detail", where)
        kind = "image/jpeg" if block.media_type == "image/jpg" else block.media_type  # as many call it
        if block.url is not None:
            source = {"type": "url", "url": block.url}
        elif block.data is not None and kind in PICTURES:
            source = {"type": "base64", "media_type": kind, "data": block.data}
        else:
            raise Untranslatable(
                f"The model's upstream takes JPEG, PNG, GIF and WebP, not pictures of type '{block.media_type}'.", where
            )
        return _cached({"type": "image", "source": source}, block.cache)


def _settled(messages: list[Tree]) -> list[Tree]:
    """Results of tools stand first; a turn of the model never ends in a thought (one that was cut), and may be nothing else."""
    settled: list[Tree] = []
    for message in messages:
        content = message["content"]
        if message["role"] == "user":
            content.sort(key=lambda tree: tree["type"] != "tool_result")
        else:
            while content and content[-1]["type"] in THOUGHTS:
                content.pop()
        if settled and settled[-1]["role"] == message["role"]:
            settled[-1]["content"] += content
        elif content:
            settled.append(message)
    return settled


def _document(block: File, where: str) -> Tree:
    """A ``document``: PDF, or plain text."""
    kind = (block.media_type or "").partition(";")[0].strip().lower()
    source: Tree
    if block.url is not None:
        source = {"type": "url", "url": block.url}
    elif block.text is not None:
        source = {"type": "text", "media_type": "text/plain", "data": block.text}
    elif block.data is not None and kind == "application/pdf":
        source = {"type": "base64", "media_type": kind, "data": block.data}
    elif block.data is not None and (kind.startswith("text/") or kind == "application/json"):
        try:
            text = base64.b64decode(block.data, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            raise Untranslatable("A document of text is not UTF-8 in base64.", where) from None
        source = {"type": "text", "media_type": "text/plain", "data": text}
    else:
        raise Untranslatable(f"The model's upstream takes PDF and text, not documents of type '{kind}'.", where)
    tree: Tree = {"type": "document", "source": source}
    if block.name is not None:
        tree["title"] = block.name
    if block.citations is not None:
        tree["citations"] = {"enabled": block.citations}
    return _cached(tree, block.cache)


def _cached(tree: Tree, cache: Tree | None) -> Tree:
    if cache is not None:
        tree["cache_control"] = cache
    return tree


def _citation(cited: Tree) -> Tree | None:
    """A citation as Anthropic takes it back; None for one of another provider, which points into nothing that is sent."""
    kind = cited.get("type")
    title, *needed = _CITED.get(kind, ("",)) if isinstance(kind, str) else ("",)
    if not title or not cited.get("cited_text") or any(cited.get(name) in (None, "") for name in needed):
        return None
    return {name: cited.get(name) for name in ("type", "cited_text", title, *needed)}
