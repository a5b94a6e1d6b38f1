"""Content blocks of the Messages API, read.

Anthropic API reference, "Messages": the types of ``content`` in requests and answers. Signatures are sealed here (see
``base.Thinking``): what came bare is Anthropic's own.
"""

from typing import Any

import orjson

from agw_proxy.dialects.anthropic_messages_members import (
    branch,
    each_branch,
    flag,
    items,
    needed_branch,
    needed_words,
    path,
    rest,
    words,
    wrong,
)
from agw_proxy.dialects.base import (
    SEAL,
    Block,
    File,
    Image,
    Malformed,
    Text,
    Thinking,
    ToolResult,
    ToolUse,
    Tree,
    sealed,
)

_TEXT = frozenset({"type", "text", "citations", "cache_control"})
_MEDIA = frozenset({"type", "source", "cache_control", "title", "citations"})
_TOOL_USE = frozenset({"type", "id", "name", "input", "cache_control"})
_TOOL_RESULT = frozenset({"type", "tool_use_id", "content", "is_error", "cache_control"})


GEMINIS = f"{SEAL}gemini:"
BEFORE = f"{SEAL}before:"
"""Before a signature of the words or the call that come next, where it is not plain whose it is."""


def carrier(signature: str) -> str:
    """What carries the sealed signature of words, or of a call: the data of a hidden thought right before them."""
    return signature if signature.startswith(GEMINIS) else BEFORE + signature


def own_signature(signature: str | None) -> str | None:
    """A signature as it stands in a Messages tree -> sealed; an empty one is none."""
    if not signature:
        return None
    return signature if signature.startswith(SEAL) else sealed("messages", signature)


def read_content(content: Any, where: str, extra: Tree) -> list[Block]:
    """A string, or a list of blocks. Blocks that nothing here can say (a server tool's) are noted in ``extra`` by their type.

    Raises Malformed.
    """
    if isinstance(content, str):
        return [Text(content)]
    if not isinstance(content, list):
        raise Malformed(f"'{where}' has to be a string or a list of blocks.", where)
    blocks: list[Block] = []
    for here, tree in each_branch(content, where):
        block = read_block(tree, here, extra)
        if block is None:
            continue
        _give_back_signature(blocks, block)
        blocks.append(block)
    return [
        block for block in blocks if not (isinstance(block, Thinking) and (block.signature or "").startswith(BEFORE))
    ]


def _give_back_signature(blocks: list[Block], block: Block) -> None:
    """Gemini signs words and calls themselves: what writers of answers put before them as a hidden thought goes back on them."""
    last = blocks[-1] if blocks else None
    if (
        isinstance(block, Text | ToolUse)
        and isinstance(last, Thinking)
        and last.hidden
        and last.signature is not None
        and last.signature.startswith((GEMINIS, BEFORE))
    ):
        block.signature = last.signature.removeprefix(BEFORE)
        blocks.pop()


def read_block(tree: Tree, where: str, extra: Tree) -> Block | None:
    """One block, or None for one that is only noted in ``extra``. Raises Malformed."""
    kind = needed_words(tree, "type", where)
    if kind == "text":
        return _text(tree, where, extra)
    if kind == "tool_use":
        return _tool_use(tree, where, extra)
    if kind == "tool_result":
        return _tool_result(tree, where, extra)
    if kind == "thinking":
        signature = own_signature(words(tree, "signature", where))
        return Thinking(words(tree, "thinking", where) or "", signature)
    if kind == "redacted_thinking":
        return Thinking(signature=own_signature(needed_words(tree, "data", where)), hidden=True)
    if kind == "image":
        return _image(tree, where, extra)
    if kind == "document":
        return _document(tree, where, extra)
    if kind == "search_result":
        return _search_result(tree, where)
    if kind == "compaction" and isinstance(tree.get("content"), str):
        return Text(tree["content"])  # it stands for all that was said before it
    extra.setdefault(kind, True)  # server tools' calls and results, uploads to containers
    return None


def _text(tree: Tree, where: str, extra: Tree) -> Text:
    citations = [cited for _, cited in each_branch(items(tree, "citations", where) or [], path(where, "citations"))]
    rest(tree, _TEXT, "text", extra)
    return Text(needed_words(tree, "text", where), citations, cache=branch(tree, "cache_control", where))


def _tool_use(tree: Tree, where: str, extra: Tree) -> ToolUse:
    rest(tree, _TOOL_USE, "tool_use", extra)
    inner = path(where, "input")
    try:
        arguments = orjson.dumps(needed_branch(tree, "input", where)).decode()
    except orjson.JSONEncodeError:
        raise Malformed(f"'{inner}' is nested too deeply.", inner) from None
    return ToolUse(
        needed_words(tree, "id", where),
        needed_words(tree, "name", where),
        arguments,
        cache=branch(tree, "cache_control", where),
    )


def _tool_result(tree: Tree, where: str, extra: Tree) -> ToolResult:
    rest(tree, _TOOL_RESULT, "tool_result", extra)
    content = tree.get("content")
    inner = path(where, "content")
    blocks = [] if content is None else read_content(content, inner, extra)
    shown: list[Text | Image | File] = []
    for block in blocks:
        if not isinstance(block, Text | Image | File):
            raise Malformed(f"'{inner}' takes text, images and documents only.", inner)
        shown.append(block)
    return ToolResult(
        needed_words(tree, "tool_use_id", where),
        shown,
        failed=flag(tree, "is_error", where) or False,
        cache=branch(tree, "cache_control", where),
    )


def _image(tree: Tree, where: str, extra: Tree) -> Image:
    rest(tree, _MEDIA, "image", extra)
    source = needed_branch(tree, "source", where)
    inner = path(where, "source")
    kind = needed_words(source, "type", inner)
    cache = branch(tree, "cache_control", where)
    if kind == "base64":
        return Image(
            data=needed_words(source, "data", inner), media_type=needed_words(source, "media_type", inner), cache=cache
        )
    if kind == "url":
        return Image(url=needed_words(source, "url", inner), cache=cache)
    if kind == "file":
        return Image(file_id=needed_words(source, "file_id", inner), cache=cache)
    raise wrong(inner, "type", "base64, url or file")


def _document(tree: Tree, where: str, extra: Tree) -> File:
    rest(tree, _MEDIA, "document", extra)
    source = needed_branch(tree, "source", where)
    inner = path(where, "source")
    kind = needed_words(source, "type", inner)
    file = File(
        name=words(tree, "title", where), citations=_cited(tree, where), cache=branch(tree, "cache_control", where)
    )
    if kind == "base64":
        file.data = needed_words(source, "data", inner)
        file.media_type = needed_words(source, "media_type", inner)
    elif kind == "text":
        file.text = needed_words(source, "data", inner)
        file.media_type = "text/plain"
    elif kind == "url":
        file.url = needed_words(source, "url", inner)
    elif kind == "file":
        file.file_id = needed_words(source, "file_id", inner)
    elif kind == "content":
        file.text = _joined(source.get("content"), path(inner, "content"), extra)
        file.media_type = "text/plain"
    else:
        raise wrong(inner, "type", "base64, text, url, content or file")
    return file


def _joined(content: Any, where: str, extra: Tree) -> str:
    """A document's content as one text; its pictures are noted in ``extra``."""
    texts = []
    for block in read_content(content, where, extra):
        if isinstance(block, Text):
            texts.append(block.text)
        else:
            extra.setdefault("document.content", True)
    return "\n".join(texts)


def _search_result(tree: Tree, where: str) -> File:
    """A search result is a document of text that names its source."""
    inner = path(where, "content")
    texts = [needed_words(part, "text", here) for here, part in each_branch(items(tree, "content", where) or [], inner)]
    source = needed_words(tree, "source", where)
    return File(
        text="\n".join([f"Source: {source}", *texts]),
        media_type="text/plain",
        name=needed_words(tree, "title", where),
        citations=_cited(tree, where),
        cache=branch(tree, "cache_control", where),
    )


def _cited(tree: Tree, where: str) -> bool | None:
    citations = branch(tree, "citations", where)
    return None if citations is None else flag(citations, "enabled", path(where, "citations"))
