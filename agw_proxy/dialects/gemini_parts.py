"""Parts of the Gemini API's contents (Gemini API reference, ``Part``), one by one: into blocks, and out of them."""

from base64 import b64encode

from agw_proxy.dialects import members
from agw_proxy.dialects.base import (
    Audio,
    Block,
    File,
    Image,
    Losses,
    Malformed,
    Refusal,
    Text,
    Thinking,
    ToolUse,
    Tree,
    Untranslatable,
    unsealed,
)
from agw_proxy.dialects.gemini_names import MADE, branch, dumped, made_id, own_signature, parsed, signature_of

RAW = "_raw"
"""The one argument of a call whose arguments are no JSON object, as where a bound cut them: the API knows objects only."""
KEPT_BY_GOOGLE = ("https://generativelanguage.googleapis.com/", "gs://")
"""How addresses begin of files that only Google can read."""
_SOUNDS = {"mpeg": "mp3", "x-wav": "wav", "wave": "wav", "vnd.wave": "wav", "x-aac": "aac", "x-flac": "flac"}
_BY_ENDING = {
    "png": "image/png", "jpg": "image/jpeg", "jpeg": "image/jpeg", "webp": "image/webp", "gif": "image/gif",
    "heic": "image/heic", "heif": "image/heif", "pdf": "application/pdf", "txt": "text/plain", "md": "text/markdown",
    "html": "text/html", "csv": "text/csv", "json": "application/json", "mp3": "audio/mp3", "wav": "audio/wav",
    "mp4": "video/mp4",
}  # fmt: skip


def read_part(part: Tree, path: str, answer_id: str, position: int) -> Block | None:
    """A part's words, thoughts, call or media. None: a kind that only Google knows (code that it has run ...).

    ``part``: its names in camelCase. ``answer_id``, ``position``: what a call without an id is given one of.
    Raises Malformed.
    """
    if "functionCall" in part:
        return _call(part, path, answer_id, position)
    signature = signature_of(part, path)
    words = members.text(part, "text", path)
    if members.flag(part, "thought", path):
        return Thinking(words or "", signature=signature, hidden=not words and signature is not None)
    if words is not None:
        return Text(words, signature=signature)
    media = read_media(part, path)
    if media is not None:
        return media
    return Text("", signature=signature) if signature is not None and len(part) == 1 else None


def _call(part: Tree, path: str, answer_id: str, position: int) -> ToolUse:
    call = branch(part, "functionCall", path)
    if call is None:
        raise Malformed(f"'{path}.functionCall' has to be an object.", f"{path}.functionCall")
    name = members.wanted(call, "name", f"{path}.functionCall")
    if not name:
        raise Malformed(f"'{path}.functionCall.name' is empty.", f"{path}.functionCall.name")
    arguments = dumped(members.branch(call, "args", f"{path}.functionCall") or {}, f"{path}.functionCall.args")
    return ToolUse(
        id=members.text(call, "id", f"{path}.functionCall") or made_id(answer_id, arguments, position),
        name=name,
        arguments=arguments.decode(),
        signature=signature_of(part, path),
    )


def join(blocks: list[Block], block: Block) -> None:
    """Add what the model has said next: pieces of one text, or of one train of thought, are put together.

    A signature ends them; one that comes without words is of the words before it.
    """
    last = blocks[-1] if blocks else None
    if isinstance(block, Text | Thinking) and type(last) is type(block) and last.signature is None:
        last.text += block.text
        last.signature = block.signature
        if isinstance(last, Thinking):
            last.hidden = not last.text and last.signature is not None
    elif not isinstance(block, Text) or block.text:
        blocks.append(block)


def read_media(part: Tree, path: str) -> Image | File | Audio | None:
    """What ``inlineData`` or ``fileData`` holds; None: neither is there. Raises Malformed."""
    blob = branch(part, "inlineData", path)
    if blob is not None:
        kind = (members.text(blob, "mimeType", f"{path}.inlineData") or "application/octet-stream").lower()
        data = _standard(members.wanted(blob, "data", f"{path}.inlineData"))
        family, _, subtype = kind.partition(";")[0].partition("/")
        if family == "image":
            return Image(data=data, media_type=kind)
        if family == "audio":
            return Audio(data, _SOUNDS.get(subtype, subtype))
        return File(data=data, media_type=kind, name=members.text(blob, "displayName", f"{path}.inlineData"))
    held = branch(part, "fileData", path)
    if held is None:
        return None
    uri = members.wanted(held, "fileUri", f"{path}.fileData")
    type_ = members.text(held, "mimeType", f"{path}.fileData")
    url, file_id = (None, uri) if uri.startswith(KEPT_BY_GOOGLE) else (uri, None)
    if type_ is not None and type_.startswith("image/"):
        return Image(url=url, file_id=file_id, media_type=type_)
    return File(url=url, file_id=file_id, media_type=type_, name=members.text(held, "displayName", f"{path}.fileData"))


def _standard(data: str) -> str:
    """Base64 in the one alphabet that all take: Google's Python SDK writes the other."""
    if "-" in data or "_" in data:
        data = data.replace("-", "+").replace("_", "/")
    return data + "=" * (-len(data) % 4)


def write_part(block: Block, losses: Losses, path: str) -> Tree | None:
    """The part for a request to Google; None: nothing is left of the block. Raises Untranslatable, at ``path``."""
    if isinstance(block, Text):
        if block.cache is not None:
            losses.of("cache_control")
        if block.citations:
            losses.of("citations")
        return _signed({"text": block.text}, block.signature) if block.text or block.signature else None
    if isinstance(block, ToolUse):
        if block.cache is not None:
            losses.of("cache_control")
        return _signed(call_part(block), block.signature)
    if isinstance(block, Thinking):
        if block.signature is None or unsealed(block.signature, "gemini")[0] != "gemini":
            losses.of("foreign_reasoning")
            return None
        return _signed({"text": block.text, "thought": True}, block.signature)
    if isinstance(block, Refusal):
        return {"text": block.text} if block.text else None
    if isinstance(block, Audio):
        return {"inlineData": {"mimeType": f"audio/{block.format}", "data": block.data}}
    if isinstance(block, Image | File):
        return write_media(block, losses, path)
    raise Untranslatable("The result of a tool cannot stand here.", path)


def write_media(block: Image | File, losses: Losses, path: str) -> Tree:
    """A picture or a document. Raises Untranslatable."""
    if block.cache is not None:
        losses.of("cache_control")
    if isinstance(block, Image):
        if block.detail not in {None, "auto"}:
            losses.of("image_detail")
    else:
        if block.citations:
            losses.of("citations")
        if block.name is not None:
            losses.of("file_name")
        if block.text is not None:
            return {"inlineData": {"mimeType": "text/plain", "data": b64encode(block.text.encode()).decode()}}
    if block.data is not None:
        fallback = "image/jpeg" if isinstance(block, Image) else "application/pdf"
        kind = block.media_type or _media_type((block.name if isinstance(block, File) else None) or "") or fallback
        return {"inlineData": {"mimeType": "image/jpeg" if kind == "image/jpg" else kind, "data": block.data}}
    uri = block.url
    if uri is None and block.file_id is not None and block.file_id.startswith(KEPT_BY_GOOGLE):
        uri = block.file_id
    if uri is None:
        losses.of("file_id", path)
        raise Untranslatable("A file that only another provider has cannot be sent to Google.", path)
    held = {"fileUri": uri}
    found = block.media_type or _media_type(uri)
    return {"fileData": {"mimeType": found, **held} if found is not None else held}


def _media_type(name: str) -> str | None:
    return _BY_ENDING.get(name.partition("?")[0].rpartition(".")[2].lower())


def _signed(part: Tree, signature: str | None) -> Tree:
    own = own_signature(signature)
    if own is not None:
        part["thoughtSignature"] = own
    return part


def call_part(use: ToolUse) -> Tree:
    """A call as a part, without its signature; an id that was made up here is left out."""
    made = {} if not use.id or use.id.startswith(MADE) else {"id": use.id}
    return {"functionCall": {**made, "name": use.name, "args": arguments_of(use)}}


def arguments_of(use: ToolUse) -> Tree:
    """What a tool is called with, as the object that the API wants; see ``RAW``."""
    if use.custom:
        return {"input": use.arguments}
    if not use.arguments.strip():
        return {}
    found = parsed(use.arguments)
    return {RAW: use.arguments} if found is None else found
