"""Reads what goes on as it came: a path that names its upstream (``/passthrough/{upstream}/{rest}``), and the query."""

import re
from collections.abc import Callable, Mapping
from urllib.parse import unquote, unquote_to_bytes

from agw_proxy.edge.exchange import Exchange
from agw_proxy.edge.state import State
from agw_proxy.errors import UnknownPath
from agw_proxy.policy.routes import AGENTS_UPSTREAM, ECHO_UPSTREAM, shown

_SLASH = re.compile(r"%2f|%5c|\\", re.IGNORECASE)
_DOTS = re.compile(r"(?:^|/)\.{1,2};")


def addressed(exchange: Exchange, state: State, path: str, headers: Mapping[str, str]) -> tuple[str, str]:
    """The upstream's name, and the path there as it came, with its slash. ``exchange`` goes on in that upstream's dialect.

    ``path``: ``Matcher`` has refused dot segments and empty ones. Raises UnknownPath for a name that is no upstream's
    over HTTP, and for what a generous server would read as more or other segments than are there.
    """
    _, _, name, rest = path.split("/", 3)
    name = unquote(name)
    names = state.routes.upstream_names
    if name not in names or name in {ECHO_UPSTREAM, AGENTS_UPSTREAM}:
        if "x-goog-api-key" in headers:
            exchange.dialect = "gemini"
        raise UnknownPath(f"There is no upstream '{shown(name)}' here: expected /passthrough/UPSTREAM/PATH.")
    exchange.dialect = state.routes.dialects[names.index(name)]
    if _SLASH.search(rest) or _DOTS.search(unquote(rest)):
        raise UnknownPath("An encoded slash, a backslash or a dot segment is not relayed; send the path resolved.")
    return name, f"/{rest}"


def without_keys(query: str, knows: Callable[[bytes], bool]) -> str:
    """The query without fields that hold one of the gateway's own keys, as Google's clients send theirs: it ends here.

    ``knows``: whether a value is one.
    """
    if not query:
        return query
    return "&".join(field for field in query.split("&") if not knows(_value(field)))


def _value(field: str) -> bytes:
    return unquote_to_bytes(field.partition("=")[2].replace("+", " ")).strip()
