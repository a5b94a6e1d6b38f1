"""When two requests are the same: what of a body counts, in one spelling, and which requests are never the same as another.

A body is read as strictly as a cache has to: a member that is named twice means one thing to us and maybe another to the
upstream, so that somebody could plant an answer; such a request is kept apart, and so is a number out of range.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from agw_proxy.edge.counting import COUNTING

MAX_BYTES = 1048576  # of a body: reading a larger one would hold everybody up
VARYING = (b"anthropic-version", b"anthropic-beta", b"openai-beta", b"x-goog-fieldmask")
"""Headers that an answer depends on; Google's says which members of it are sent at all."""

# What says who asks and not what: left out of the comparison. (A response tells these members back, so there they count.)
ASIDE: Mapping[str, frozenset[str]] = {
    "chat_completions": frozenset(
        {"user", "metadata", "store", "safety_identifier", "prompt_cache_key", "prompt_cache_retention"}
    ),
    "completions": frozenset({"user"}),
    "embeddings": frozenset({"user"}),
    "moderations": frozenset(),
    "messages": frozenset({"metadata"}),
    "responses": frozenset(),
    "gemini": frozenset({"labels"}),
}
# What has an effect beside the answer, or depends on more than the request says.
STATEFUL: Mapping[str, frozenset[str]] = {
    "chat_completions": frozenset({"store", "web_search_options"}),
    "messages": frozenset({"mcp_servers", "container", "thread"}),
    "responses": frozenset({"store", "previous_response_id", "conversation", "background", "prompt"}),
    "gemini": frozenset({"store", "cachedContent", "cached_content"}),
}
# Tools that the caller runs itself; all others are run by the upstream, each time anew.
CALLERS_TOOLS: Mapping[str, tuple[str, ...]] = {
    "chat_completions": ("function", "custom"),
    "messages": ("custom", "bash_", "text_editor_", "computer_", "memory_"),
    "responses": ("function", "custom", "local_shell", "apply_patch", "computer", "namespace"),
}
DECLARED = frozenset({"functionDeclarations", "function_declarations"})
"""The one kind of tool of Google's that the caller runs: there a tool's members say what it is."""
PATHS = {"messages": "/v1/messages", "responses": "/v1/responses"}
"""Of endpoints that relay other paths as well."""


class Apart(Exception):
    """The request is like no other."""


def canonical(endpoint: str, path: str, body: bytes) -> bytes:
    """What an answer depends on, in one spelling. Raises Apart for a request whose answer must not be given again."""
    aside = ASIDE.get(endpoint)
    if aside is None or path != PATHS.get(endpoint, path) or path.endswith(COUNTING):
        raise Apart("endpoint")
    if len(body) > MAX_BYTES:
        raise Apart("size")
    try:
        tree = json.loads(body, object_pairs_hook=_once)
    except (ValueError, RecursionError):
        raise Apart("json") from None
    if any(_said(tree.get(name)) for name in STATEFUL.get(endpoint, ())):
        raise Apart("state")
    if any(not _callers(endpoint, tool) for tool in _listed(endpoint, tree.get("tools"))):
        raise Apart("tools")
    for name in aside:
        tree.pop(name, None)
    if tree.get("stream") is None:
        tree["stream"] = False  # nothing, null and false are the same; what else stands there is the upstream's to read
    try:
        return json.dumps(tree, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
    except ValueError:
        raise Apart("json") from None


def digest(*parts: bytes) -> bytes:
    """SHA-256 over parts, each with its length, so that no two lists of them look alike."""
    made = hashlib.sha256()
    for part in parts:
        made.update(b"%d:" % len(part))
        made.update(part)
    return made.digest()


def varying(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The headers that count, one a line, in the order in which they came; not those that a Connection header keeps here."""
    sent = [(name.lower(), value) for name, value in headers]
    kept = {token.strip().lower() for name, value in sent if name == b"connection" for token in value.split(b",")}
    return b"".join(name + b":" + value + b"\n" for name, value in sent if name in VARYING and name not in kept)


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a member is named twice")
    return made


def _said(value: object) -> bool:
    """Whether a member says anything: an object does that is empty, since all of its members may be left out."""
    return value is not None and value is not False and value != []


def _listed(endpoint: str, value: object) -> list[Any]:
    if isinstance(value, list):
        return value
    return [value] if endpoint == "gemini" and value is not None else []  # Google takes one alone as well


def _callers(endpoint: str, tool: object) -> bool:
    if not isinstance(tool, dict):
        return False
    if endpoint == "gemini":
        return not any(_said(value) for name, value in tool.items() if name not in DECLARED)
    kind = tool.get("type", "custom")
    return isinstance(kind, str) and kind.startswith(CALLERS_TOOLS.get(endpoint, ()))
