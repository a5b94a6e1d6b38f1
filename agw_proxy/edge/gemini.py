"""Requests in Google's form: the path says model and stream, which here are members of the body in front of its own.

So they are routed, limited and kept like all others; whoever asks a Gemini upstream takes the members away again.
"""

from collections.abc import Container
from typing import NamedTuple
from urllib.parse import parse_qs, unquote

import orjson

from agw_proxy._hot.keys import DuplicateCredential, credential
from agw_proxy.edge.counting import COUNTING
from agw_proxy.errors import InvalidJSON, InvalidParameter, UnknownPath
from agw_proxy.types import RawHeaders

GOOGLE = "/v1beta/"
BASE = "/v1beta/models/"
STABLE = "/v1/models/"
MAX_DIGITS = 10  # of a count; Google's have 32 bits
VERBS = frozenset({"generateContent", "streamGenerateContent", COUNTING[1:]})


def usual(method: str, path: str) -> str:
    """The path of a generation as it is served here: Google's SDK for Python asks beneath /v1 since its version 3."""
    if method == "POST" and path.startswith(STABLE) and path.rpartition(":")[2] in VERBS:
        return BASE + path[len(STABLE) :]
    return path


def asks(headers: Container[str]) -> bool:
    """Whether a request is of a client of Google's, where the path does not say so."""
    return "x-goog-api-key" in headers or "x-goog-api-client" in headers


def keyed(headers: RawHeaders, query: str) -> tuple[RawHeaders, str]:
    """The key out of the query, where Google takes it too, into its header if no header has one; and the query without it."""
    fields = query.split("&")
    keys = [field for field in fields if unquote(field.partition("=")[0]) == "key"]
    if not keys:
        return headers, query
    rest = "&".join(field for field in fields if field not in keys)
    try:
        if credential(headers) is not None:
            return headers, rest
    except DuplicateCredential:
        return headers, rest  # told by the look-up that follows
    values = [unquote(field.partition("=")[2]).encode("utf-8", "surrogateescape") for field in keys]
    return [*headers, *((b"x-goog-api-key", value) for value in values)], rest


class Shaped(NamedTuple):
    """``front``: how many bytes of the body are not the caller's, its opening brace among them."""

    body: bytes
    front: int


def shaped(path: str, query: str, body: bytes) -> Shaped:
    """Put model, stream, the bound of the answer and how many are asked for in front.

    Raises UnknownPath, InvalidParameter, InvalidJSON.
    """
    model, _, verb = path.removeprefix(BASE).rpartition(":")
    model = unquote(model)
    if verb not in VERBS or not model:
        raise UnknownPath(f"Expected {BASE}MODEL: with one of {', '.join(sorted(VERBS))} behind the colon.")
    streams = verb == "streamGenerateContent"
    if streams and parse_qs(query).get("alt") != ["sse"]:
        raise InvalidParameter("Streams come as server-sent events here: ask with ?alt=sse.", param="alt")
    front: dict[str, object] = {"model": model, "stream": streams}
    try:
        tree = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidJSON(f"The body is not JSON: {error}") from None
    if not isinstance(tree, dict):
        raise InvalidJSON("The body is not a JSON object.")
    config = tree.get("generationConfig") or tree.get("generation_config")
    if isinstance(config, dict):
        most = _count(config, "maxOutputTokens", "max_output_tokens")
        if most > 0:
            front["max_tokens"] = most
        candidates = _count(config, "candidateCount", "candidate_count")
        if candidates > 1:
            front["n"] = candidates
    text = orjson.dumps(front)[:-1]
    rest = body.lstrip()[1:] if "model" not in tree else _without_model(tree, model)
    comma = b"," if tree else b""
    return Shaped(text + comma + rest, len(text) + len(comma))


def _without_model(tree: dict[str, object], model: str) -> bytes:
    """The body behind its brace without its model, which Google takes there too. ``model``: the path's.

    Raises InvalidParameter where it is another one, InvalidJSON.
    """
    if tree.pop("model") not in (model, f"models/{model}"):
        raise InvalidParameter("The body names another model than the path.", param="model")
    try:
        return orjson.dumps(tree)[1:]
    except orjson.JSONEncodeError:
        raise InvalidJSON("The body is nested too deeply.") from None


def _count(config: dict[str, object], name: str, other: str) -> int:
    """A whole number, under either of its names, as protocol buffers write it in JSON: also ``"7"`` or 7.0. Else 0."""
    found = config.get(name) or config.get(other)
    if isinstance(found, str) and found.isascii() and found.isdecimal() and len(found) < MAX_DIGITS:
        return int(found)
    if isinstance(found, float) and found.is_integer() and found < 10**MAX_DIGITS:
        return int(found)
    return found if type(found) is int else 0
