"""Content of Chat messages, part by part (OpenAI API reference, Chat, "Create chat completion", content parts)."""

from typing import Any

from agw_proxy.dialects import media
from agw_proxy.dialects.base import Audio, Block, File, Image, Losses, Malformed, Refusal, Text, Tree
from agw_proxy.dialects.openai_chat_fields import child, items, needed, path, refuse, text, tree_of

DETAILS = frozenset({"auto", "low", "high", "original"})
SOUNDS = frozenset({"wav", "mp3"})


def read_content(message: Tree, at: str) -> list[Block]:
    """The member ``content``: a string, parts, or nothing. Raises Malformed."""
    content = message.get("content")
    if content is None:
        return []
    if isinstance(content, str):
        return [Text(content)] if content else []
    if not isinstance(content, list):
        raise refuse(path(at, "content"), "a string or an array of content parts", content)
    where = path(at, "content")
    return [read_part(part, path(where, index)) for index, part in enumerate(content)]


def read_texts(message: Tree, at: str) -> list[Block]:
    """The same where only words may stand (system messages)."""
    blocks = read_content(message, at)
    for index, block in enumerate(blocks):
        if not isinstance(block, Text):
            raise Malformed("Only text may stand here.", path(path(at, "content"), index))
    return blocks


def read_part(part: Any, at: str) -> Block:
    """One content part. Raises Malformed."""
    tree = tree_of(part, at)
    kind = tree.get("type")
    if kind == "text":
        return Text(needed(tree, "text", at), cache=_cache(tree))
    if kind == "image_url":
        return _image(tree, at)
    if kind == "input_audio":
        sound = tree_of(tree.get("input_audio"), path(at, "input_audio"))
        inner = path(at, "input_audio")
        data = media.checked(needed(sound, "data", inner), path(inner, "data"))
        return Audio(data, needed(sound, "format", inner))
    if kind == "file":
        return _file(tree, at)
    if kind == "refusal":
        return Refusal(needed(tree, "refusal", at))
    raise refuse(path(at, "type"), "text, image_url, input_audio, file or refusal", kind)


def _cache(tree: Tree) -> Tree | None:
    """What the caller wants a provider to cache: Anthropic's member, which many servers take, or OpenAI's breakpoint."""
    marked = tree.get("cache_control")
    if isinstance(marked, dict):
        return marked
    return {"type": "ephemeral"} if isinstance(tree.get("prompt_cache_breakpoint"), dict) else None


def cache_of(tree: Tree) -> Tree | None:
    """The same for tools, which have it beside or within the function."""
    inner = tree.get("function")
    return _cache(tree) or (_cache(inner) if isinstance(inner, dict) else None)


def _image(tree: Tree, at: str) -> Image:
    at = path(at, "image_url")
    inner = tree.get("image_url")
    # Some clients write the URL itself where the reference has an object.
    shown = {"url": inner} if isinstance(inner, str) else tree_of(inner, at)
    url = needed(shown, "url", at)
    detail = text(shown, "detail", at)
    if url[:5].lower() == "data:":
        media_type, data = media.parse_data_url(url, path(at, "url"))
        return Image(data=data, media_type=media_type, detail=detail, cache=_cache(tree))
    if not url:
        raise refuse(path(at, "url"), "a URL", url)
    return Image(url=url, detail=detail, cache=_cache(tree))


def _file(tree: Tree, at: str) -> File:
    at = path(at, "file")
    inner = tree_of(tree.get("file"), at)
    name, file_id, data = text(inner, "filename", at), text(inner, "file_id", at), text(inner, "file_data", at)
    if file_id:
        return File(file_id=file_id, name=name, cache=_cache(tree))
    if not data:
        raise refuse(path(at, "file_data"), "a file's data, or file_id", data)
    where = path(at, "file_data")
    if data[:5].lower() == "data:":
        media_type, data = media.parse_data_url(data, where)
    elif data.startswith(("https://", "http://")):  # OpenRouter's convention
        return File(url=data, name=name, cache=_cache(tree))
    else:
        media_type, data = media.media_type_of(name) or media.UNKNOWN, media.checked(data, where)
    return File(data=data, media_type=media_type, name=name, cache=_cache(tree))


def write_part(block: Block, losses: Losses, param: str) -> Tree | None:
    """A content part of a user message; None where nothing of it can be said. Raises Untranslatable by the table."""
    _tell_cache(block, losses)
    if isinstance(block, Text):
        if block.citations:
            losses.of("citations", param)
        return {"type": "text", "text": block.text}
    if isinstance(block, Image):
        return _write_image(block, losses, param)
    if isinstance(block, File):
        return _write_file(block, losses, param)
    if isinstance(block, Audio):
        if block.format in SOUNDS:
            return {"type": "input_audio", "input_audio": {"data": block.data, "format": block.format}}
        losses.of("audio_input", param)
    return None


def _tell_cache(block: Block, losses: Losses) -> None:
    if getattr(block, "cache", None) is not None:
        losses.of("cache_control")


def _write_image(block: Image, losses: Losses, param: str) -> Tree | None:
    if block.url:
        url = block.url
    elif block.data:
        url = media.data_url(block.media_type or "image/png", block.data)
    else:
        losses.of("file_id", param)
        return None
    shown = {"url": url}
    if block.detail in DETAILS:
        shown["detail"] = str(block.detail)
    elif block.detail is not None:
        losses.of("image_detail")
    return {"type": "image_url", "image_url": shown}


def _write_file(block: File, losses: Losses, param: str) -> Tree | None:
    """Plain words go as words: servers read only some kinds of files, and all of them text."""
    if block.citations:
        losses.of("citations", param)
    if block.text is not None:
        words = f"{block.name}:\n\n{block.text}" if block.name else block.text
        return {"type": "text", "text": words}
    if block.data is None:
        losses.of("file_url" if block.url else "file_id", param)
        return None
    media_type = block.media_type or media.media_type_of(block.name) or media.UNKNOWN
    name = block.name or media.file_name(media_type)
    return {"type": "file", "file": {"filename": name, "file_data": media.data_url(media_type, block.data)}}


def write_content(parts: list[Tree]) -> str | list[Tree]:
    """The member ``content``: a string where the parts are one text or none, which every server understands."""
    if not parts:
        return ""
    if len(parts) == 1 and parts[0]["type"] == "text":
        found: str = parts[0]["text"]
        return found
    return parts


def read_calls(message: Tree, at: str) -> list[tuple[str, Tree]]:
    """``tool_calls`` with the path of each."""
    where = path(at, "tool_calls")
    calls = items(message, "tool_calls", at)
    return [(path(where, index), tree_of(call, path(where, index))) for index, call in enumerate(calls)]


def called(call: Tree, at: str) -> tuple[Tree, str, bool]:
    """What a tool call says of its tool, where, and whether it is a custom one."""
    custom = call.get("type") == "custom" or ("custom" in call and "function" not in call)
    name = "custom" if custom else "function"
    inner = child(call, name, at)
    if inner is None:
        raise refuse(path(at, name), "an object", None)
    return inner, path(at, name), custom
