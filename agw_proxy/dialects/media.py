"""Media in requests: ``data:`` URLs (RFC 2397, base64 only), and what a file's name and its media type tell of each other.

The table is ours: the standard library's reads the machine's files, and what we translate must not hang on those.
"""

import binascii
from urllib.parse import unquote_to_bytes

from agw_proxy.dialects.base import Malformed

UNKNOWN = "application/octet-stream"
TYPES = {
    "pdf": "application/pdf",
    "txt": "text/plain",
    "md": "text/markdown",
    "csv": "text/csv",
    "html": "text/html",
    "htm": "text/html",
    "xml": "application/xml",
    "json": "application/json",
    "png": "image/png",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "gif": "image/gif",
    "webp": "image/webp",
    "wav": "audio/wav",
    "mp3": "audio/mpeg",
    "doc": "application/msword",
    "docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    "py": "text/x-python",
    "js": "text/javascript",
}
"""By ending. Where two endings have one type, the first names new files."""

_ENDINGS = {kind: ending for ending, kind in reversed(TYPES.items())}


def parse_data_url(url: str, param: str | None = None) -> tuple[str, str]:
    """(media type, base64 data) of a ``data:`` URL. Raises Malformed, which names ``param``, for all that is not good base64."""
    head, comma, data = url.partition(",")
    scheme, _, rest = head.partition(":")
    media_type, *attributes = rest.split(";")
    if scheme.lower() != "data" or not comma:
        raise Malformed("A data: URL with a comma before its data was expected.", param)
    if not attributes or attributes[-1].strip().lower() != "base64":
        raise Malformed("A data: URL has to be base64 (data:image/png;base64,...).", param)
    if "%" in data:
        data = unquote_to_bytes(data).decode("latin-1")
    return media_type.strip().lower() or "text/plain", checked(data, param)


def checked(data: str, param: str | None = None) -> str:
    """The same base64 text (RFC 4648 section 4). Raises Malformed where it is none, or empty."""
    try:
        good = bool(binascii.a2b_base64(data, strict_mode=True))
    except ValueError:  # of which binascii.Error is one; text beyond ASCII is another
        good = False
    if not good:
        raise Malformed("The data is not valid base64.", param)
    return data


def data_url(media_type: str, data: str) -> str:
    """The ``data:`` URL of base64 data."""
    return f"data:{media_type};base64,{data}"


def media_type_of(name: str | None) -> str | None:
    """By a file's ending; None where that is not known."""
    _, dot, ending = (name or "").rpartition(".")
    return TYPES.get(ending.lower()) if dot else None


def file_name(media_type: str | None, stem: str = "file") -> str:
    """A name for a file that came without one."""
    ending = _ENDINGS.get((media_type or "").partition(";")[0].strip().lower())
    return f"{stem}.{ending}" if ending else stem
