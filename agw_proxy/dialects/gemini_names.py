"""What the Gemini API's modules share: its two spellings of names, its base64, its signatures, the ids it does not give.

Google AI for Developers, Gemini API reference. The API is protocol buffers over JSON: names are taken in camelCase and in
snake_case, and bytes in both alphabets of base64.
"""

from base64 import b64encode, urlsafe_b64decode
from binascii import Error as BadBase64
from zlib import crc32

import orjson

from agw_proxy.dialects import members
from agw_proxy.dialects.base import SEAL, Malformed, Tree, sealed, unsealed

MADE = "call_agw_"
"""How ids begin that are made up here, for calls that came without one: they never go to Google."""
SKIP_VALIDATION = "skip_thought_signature_validator"
"""What Google documents as signature of calls that another model has made (Gemini API, "Thought signatures")."""
BASE64_SEAL = b64encode(SEAL.encode())[:5].decode()
SURELY_SHALLOW = 32
"""Levels: more than there are in a request around a call's arguments; orjson writes 254 in all."""
ID_CHARS = 28
"""Of an answer's id, in the ids of its calls: OpenAI's Chat takes call ids of 40 characters."""


def camel(tree: Tree) -> Tree:
    """The tree with its own members' names in camelCase; what is below is left as it is."""
    for name in tree:
        if "_" in name:
            return {_camel(name): value for name, value in tree.items()}
    return tree


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word[:1].upper() + word[1:] for word in rest) if first else name


def branch(tree: Tree, name: str, path: str = "") -> Tree | None:
    """A member that is an object, its names in camelCase. Raises Malformed."""
    found = members.branch(tree, name, path)
    return None if found is None else camel(found)


def branches(tree: Tree, name: str, path: str = "") -> list[Tree]:
    """A list of objects likewise."""
    return [camel(each) for each in members.branches(tree, name, path)]


def several(tree: Tree, name: str, path: str = "") -> list[Tree]:
    """As ``branches``; one object without a list around it is a list of one, as Google takes it in requests."""
    alone = tree.get(name)
    return [camel(alone)] if isinstance(alone, dict) else branches(tree, name, path)


def before_three(model: str) -> bool:
    """By its name, a model before Gemini 3; names that say no generation are new ones."""
    return model.lower().rpartition("/")[2].startswith(("gemini-1", "gemini-2", "gemma", "learnlm"))


def integer(tree: Tree, name: str, path: str = "") -> int | None:
    """A whole number, which JSON of protocol buffers may also write as a string."""
    found = tree.get(name)
    if isinstance(found, str) and found.lstrip("-").isdecimal() and found.isascii() and len(found) < 20:
        return int(found)
    return members.integer(tree, name, path)


def dumped(value: object, path: str) -> bytes:
    """JSON text of what came as JSON. Raises Malformed where it is deeper than can be written."""
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError:
        raise Malformed(f"'{path}' has too many levels.", path) from None


def parsed(text: str) -> Tree | None:
    """The JSON object that the text is. None: it is none, or deeper than can be written within a request."""
    if not text.lstrip().startswith("{"):
        return None
    try:
        found = orjson.loads(text)
        if text.count("{") + text.count("[") > SURELY_SHALLOW:
            for _ in range(SURELY_SHALLOW):
                found = [found]
            orjson.dumps(found)
            for _ in range(SURELY_SHALLOW):
                found = found[0]
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        return None
    return found if isinstance(found, dict) else None


def decoded(data: str, path: str) -> bytes:
    """Bytes of base64 in either alphabet, padded or not. Raises Malformed."""
    try:
        return urlsafe_b64decode(
            data.replace("+", "-").replace("/", "_").rstrip("=") + "=" * (-len(data.rstrip("=")) % 4)
        )
    except (BadBase64, ValueError):
        raise Malformed(f"'{path}' is no base64.", path) from None


def signature_of(part: Tree, path: str) -> str | None:
    """A part's thought signature, sealed: Google's own, or another provider's that has travelled as one.

    A signature is bytes on this wire, and Google's SDKs refuse what is no base64: one of another provider is written as
    base64 of its sealed form.
    """
    found = members.text(part, "thoughtSignature", path)
    if not found or found == SKIP_VALIDATION:
        return None
    if found.startswith(BASE64_SEAL):
        try:
            inner = decoded(found, path).decode()
        except (Malformed, UnicodeDecodeError):
            inner = ""
        if inner.startswith(SEAL):
            return inner
    return sealed("gemini", found)


def shown_signature(signature: str) -> str:
    """A sealed signature, as a caller who speaks Gemini is to see it and to send it back."""
    spoken, own = unsealed(signature, "gemini")
    return own if spoken == "gemini" else b64encode(signature.encode()).decode()


def own_signature(signature: str | None) -> str | None:
    """A sealed signature as Google wants it back; None: it is not Google's."""
    if signature is None:
        return None
    spoken, own = unsealed(signature, "gemini")
    return own if spoken == "gemini" else None


def made_id(answer_id: str, arguments: bytes, position: int) -> str:
    """An id for a call that has none, of its answer's id, or where there is none of what it is called with."""
    basis = "".join(char for char in answer_id[:ID_CHARS] if char.isascii() and (char.isalnum() or char in "-_"))
    return f"{MADE}{basis or format(crc32(arguments), '08x')}_{position}"
