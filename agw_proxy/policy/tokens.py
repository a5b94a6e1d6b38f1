"""Prompt tokens of a request: by the model's own tokenizer where it can be had offline, else by the estimate.

The compiled estimate (`agw_proxy._hot.tokens`) is what both lanes count with. Where `tiktoken` is installed and its
encoding's data lies in its cache directory, `agw explain` counts exactly beside it. Nothing is ever downloaded.
"""

import hashlib
import importlib
import importlib.util
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from agw_proxy._hot.tokens import IMAGE_TOKENS, MESSAGE_TOKENS, REPLY_TOKENS, count

Count = Callable[[bytes], int]

# Of each encoding's data: the name that tiktoken's cache gives it (SHA-1 of its address) and its SHA-256.
_DATA = {
    "o200k_base": (
        "fb374d419588a4632f3f557e76b4b70aebbca790",
        "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
    ),
    "cl100k_base": (
        "9b5ad71b2ce5302211f9c61530b329a4922fc6a4",
        "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
    ),
}
_OLDER = ("gpt-4-", "gpt-3.5", "gpt-35", "text-embedding-")  # and gpt-4 itself: cl100k_base
_NEWER = ("gpt-4o", "gpt-4.", "gpt-5", "chatgpt-4o", "o1", "o3", "o4")

_STRINGS = ("messages", "input", "prompt", "system", "instructions")
_WHOLE = ("tools", "functions", "response_format", "text")
_SILENT = ("role", "type", "id", "status", "detail", "format", "media_type", "signature", "cache_control")
_MEDIA = ("url", "data", "image_url", "file_data", "file_url")


class Readable(NamedTuple):
    """What of a request a model reads: its texts, and the tokens of what stands between them (marks, pictures)."""

    texts: list[str]
    around: int


def encoding_of(model: str) -> str | None:
    """The name of the encoding of one of OpenAI's models; None for all others."""
    if model.startswith(_NEWER):
        return "o200k_base"
    return "cl100k_base" if model == "gpt-4" or model.startswith(_OLDER) else None


def readable(body: Mapping[str, Any]) -> Readable:
    """The texts of a chat, response, message, completion or embedding request.

    Of messages every string counts but those that name things (roles, types, ids); declared tools and answer formats
    count as compact JSON, a picture, recording or file as `IMAGE_TOKENS`.
    """
    texts: list[str] = []
    around = REPLY_TOKENS
    for key, value in body.items():
        if key in _WHOLE:
            texts.append(_compact(value))
        elif key in _STRINGS:
            if key in {"system", "instructions", "prompt"} or (key == "input" and isinstance(value, str)):
                around += MESSAGE_TOKENS
            if key in {"input", "prompt"}:
                around += _encoded(value)
            for piece in _pieces(key, value):
                if isinstance(piece, int):
                    around += piece
                else:
                    texts.append(piece)
    return Readable(texts, around)


def exact(encoding: str) -> Count | None:
    """Counts request bodies (JSON objects) with tiktoken; None where it, or the encoding's data, is not at hand.

    Reads the data once (megabytes): call it in a command, not for a request.
    """
    if encoding not in _DATA or importlib.util.find_spec("tiktoken") is None or not _cached(*_DATA[encoding]):
        return None
    encode = importlib.import_module("tiktoken").get_encoding(encoding).encode_ordinary

    def by_tokenizer(body: bytes) -> int:
        found = readable(json.loads(body))
        return sum(len(encode(text)) for text in found.texts) + found.around

    return by_tokenizer


def counting(model: str) -> tuple[Count, bool]:
    """How to count a model's prompts, and whether that is exact."""
    encoding = encoding_of(model)
    by_tokenizer = exact(encoding) if encoding else None
    return (count, False) if by_tokenizer is None else (by_tokenizer, True)


def _cached(name: str, sha256: str) -> bool:
    """Is the data where tiktoken looks for it, and what it should be? If not, tiktoken would download it."""
    folder = os.environ.get("TIKTOKEN_CACHE_DIR", os.environ.get("DATA_GYM_CACHE_DIR"))
    if folder == "":
        return False
    path = Path(folder) if folder else Path(tempfile.gettempdir(), "data-gym-cache")
    try:
        return hashlib.sha256((path / name).read_bytes()).hexdigest() == sha256
    except OSError:
        return False


def _encoded(value: object) -> int:
    """Tokens that are given by their numbers: in a list, or in lists within it."""
    if not isinstance(value, list):
        return 0
    return sum(1 if type(item) is int else _encoded(item) for item in value)


def _compact(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _pieces(key: str, value: object) -> Iterator[str | int]:
    """Texts, and the tokens of what is none."""
    if key == "role":
        yield MESSAGE_TOKENS
    elif key in _SILENT or key.endswith("_id") or key.startswith("encrypted"):
        return
    elif isinstance(value, str):
        yield IMAGE_TOKENS if key in _MEDIA else value
    elif isinstance(value, Mapping):
        if key in {"input", "arguments"}:
            yield _compact(value)
        else:
            for name, inner in value.items():
                yield from _pieces(name, inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _pieces("" if key in {"input", "arguments"} else key, inner)
