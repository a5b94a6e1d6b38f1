"""What an endpoint is, and how a request finds its own.

Paths are compared as RFC 3986 section 6.2.2 has it: segment by segment, after decoding, case-sensitive. What merely
*looks like* an endpoint to a laxer server (another case, doubled or encoded slashes, a trailing one, path parameters)
is refused rather than relayed: an upstream that reads it generously would serve it past that endpoint's policy.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal
from urllib.parse import unquote_to_bytes

import msgspec

from agw_proxy.config.values import Form
from agw_proxy.errors import GatewayError, MethodNotAllowed, UnknownPath
from agw_proxy.types import Dialect, LocalHandler

Access = Literal["open", "key", "admin", "scrape"]
Method = Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]
Schema = Mapping[str, Any]
RunPart = Literal["create", "list", "show", "delete", "cancel", "events"]
"""What is done with runs in the background."""

# Visible ASCII but what ends a path (RFC 3986 section 3.3, generously read); escapes are checked apart.
_PATH = re.compile(r"/[!-\"$->@-~]*")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_PARAMETER = re.compile(r"\{([a-z_]+)(:path)?\}")
_SEPARATORS = re.compile(r"[/\\]")
# Of a path in a message: it goes into the log as well, and may be as long as the edge lets a line be.
_SHOWN_CHARACTERS = 200


class Relay(msgspec.Struct, frozen=True):
    """How a request goes on to an upstream."""

    upstream_path: str
    """Relative to the upstream's base URL, with its slash; "" means the asked path behind /v1, as it came."""
    needs_model: bool
    """Without a ``model`` in the body the request is refused."""
    json_only: bool
    """The body is one JSON object; else any content type, streamed through."""
    sse_usage: bool
    """Streams report usage when asked by ``stream_options``, so it is asked for."""
    known_end: bool = False
    """Streams have a last event that ``_hot.sse`` knows: an end without it is a broken stream."""
    default_model: str | None = None
    """The model that is meant where the body names none."""
    model_paths: frozenset[str] | None = None
    """Where a ``model`` in the body decides the route (POST only); None: everywhere.

    Elsewhere it may stand in a body without meaning, and must not open a path that the key's models do not.
    """
    raw: bool = False
    """The path names the upstream, and what is behind that name goes there as it came."""
    socket: bool = False
    """A WebSocket, whose model stands in the query."""
    turns: bool = False
    """GET may ask for a WebSocket, whose messages are requests of POST."""
    form: Form | None = None
    """What a generation is asked for in here (POST only): an upstream that speaks another form gets it translated."""


class Parameter(msgspec.Struct, frozen=True):
    """A query parameter."""

    name: str
    schema: Schema
    description: str


class Response(msgspec.Struct, frozen=True):
    """An answer as documented. ``content``: schema by media type; none means an empty body."""

    description: str
    content: Mapping[str, Schema] = {}


class Endpoint(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """One method of one path. Exactly one of ``handler``, ``relay`` and ``run`` is given. Compared by identity."""

    name: str
    """Metric label and OpenAPI operationId: unique, stable."""
    method: Method
    path: str
    """``/a/{id}``: a parameter is one segment; ``/a/{id:path}``, at the end only: one segment or more."""
    access: Access
    summary: str
    tag: str
    responses: Mapping[int, Response]
    dialect: Dialect = "openai"
    handler: LocalHandler | None = None
    relay: Relay | None = None
    run: RunPart | None = None
    description: str = ""
    request: Schema | None = None
    query: tuple[Parameter, ...] = ()
    errors: tuple[type[GatewayError], ...] = ()
    """What can go wrong beyond what follows from ``access`` and ``relay``."""
    prompt: bool = False
    """Open to all, and its handler never waits: the fast lane answers by itself."""
    knows_keys: bool = False
    """Open to all, and its handler hears who asks where a good key comes along; a bad one changes nothing."""
    by_asker: bool = False
    """Whoever sends ``anthropic-version`` is answered in Anthropic's form, and by a handler clients of Google's in theirs."""
    listed: bool = True
    """Stands in the OpenAPI document; not so where only an upstream knows what is there."""

    def __post_init__(self) -> None:
        """Raise ValueError for an endpoint that is served twice or not at all."""
        if [self.handler, self.relay, self.run].count(None) != 2:
            raise ValueError(
                f"endpoint {self.name}: give a handler or a relay (or what is done with runs), and one only"
            )

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the path's parameters, in order."""
        return tuple(found[1] for found in _PARAMETER.finditer(self.path))

    @property
    def template(self) -> str:
        """The path as OpenAPI writes it."""
        return _PARAMETER.sub(r"{\1}", self.path)


class Matcher:
    """Finds the endpoint of a request. Built once, immutable.

    The most specific path decides (exact before templates, literal segments before parameters, left to right), then its
    methods: a path that is there with another method is never looked up in a less specific one.
    """

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        """Raise ValueError on a malformed path, and on two endpoints with one name, or one method and path."""
        paths: dict[str, dict[str, Endpoint]] = {}
        names: set[str] = set()
        for endpoint in endpoints:
            methods = paths.setdefault(endpoint.path, {})
            if endpoint.name in names or endpoint.method in methods:
                raise ValueError(f"endpoint {endpoint.name} ({endpoint.method} {endpoint.path}) is there twice")
            names.add(endpoint.name)
            methods[endpoint.method] = endpoint
        for methods in paths.values():
            if "GET" in methods:
                methods.setdefault("HEAD", methods["GET"])  # RFC 9110 section 9.3.2
        templates = [_Template(path, methods) for path, methods in paths.items()]
        self._exact = {path: methods for path, methods in paths.items() if "{" not in path}
        self._lookalikes = {tuple(_folded(path)): path for path in self._exact}
        self._templates = sorted((item for item in templates if "{" in item.path), key=lambda item: item.rank)
        shapes = {template.shape for template in self._templates}
        if len(shapes) < len(self._templates):
            raise ValueError("two templates differ in the names of their parameters only")

    def match(self, method: str, path: str) -> tuple[Endpoint, dict[str, str]]:
        """Find the endpoint and the decoded values of its parameters.

        ``path``: as it came, percent-encoded, without the query. Raises UnknownPath (also for what is no proper path:
        bad escapes, encoded controls, dot segments) and MethodNotAllowed.
        """
        methods = self._exact.get(path)
        if methods is None:
            return self._search(method, path)
        endpoint = methods.get(method)
        if endpoint is None:
            raise _refused(method, path, methods)
        return endpoint, {}

    def _search(self, method: str, path: str) -> tuple[Endpoint, dict[str, str]]:
        segments = _decode(path)
        plain = "/" + "/".join(segments)
        # An encoded slash is data and separates nothing (RFC 3986 section 2.2), so such a path is not an exact one.
        if plain in self._exact and plain.count("/") == len(segments):
            return self.match(method, plain)
        found, values = self._template(segments)
        meant = self._meant(plain, found) if found is None or found.relays else None
        if meant is not None:
            raise UnknownPath(f"There is no endpoint {_shown(path)}; {meant} is one: case and slashes count.")
        if found is None:
            raise UnknownPath(f"There is no endpoint {_shown(path)}. GET /openapi.json lists what is served.")
        endpoint = found.methods.get(method)
        if endpoint is None:
            raise _refused(method, path, found.methods)
        return endpoint, values

    def _meant(self, plain: str, found: "_Template | None") -> str | None:
        """Give the path that a generous reader would find instead of ``found``, or None."""
        folded = _folded(plain)
        meant = self._lookalikes.get(tuple(folded))
        if meant is None:
            similar, _ = self._template(folded, folded=True)
            meant = similar.shown if similar is not None and similar is not found else None
        return meant

    def _template(self, segments: list[str], *, folded: bool = False) -> "tuple[_Template | None, dict[str, str]]":
        for template in self._templates:
            values = template.values(segments, folded=folded)
            if values is not None:
                return template, values
        return None, {}


class _Template:
    """A path in segments: literal text, or the name of a parameter."""

    def __init__(self, path: str, methods: Mapping[str, Endpoint]) -> None:
        if not _PATH.fullmatch(path) or "%" in path or "//" in path:
            raise ValueError(f"{path!r} is not an endpoint's path: expected /literal/{{parameter}}, decoded")
        self.path = path
        self.shown = path.replace(":path}", "}")
        self.methods = methods
        self.relays = any(endpoint.relay is not None for endpoint in methods.values())
        self.literals: list[str] = []
        self.folded: list[str] = []
        self.names: list[str] = []  # "" for a literal segment
        self.swallows = False
        for segment in path.split("/")[1:]:
            found = _PARAMETER.fullmatch(segment)
            if self.swallows or (found is None and ("{" in segment or "}" in segment)):
                raise ValueError(f"{path!r}: a parameter is a whole segment, and one with ':path' the last")
            self.names.append(found[1] if found else "")
            self.literals.append("" if found else segment)
            self.folded.append("" if found else segment.casefold())
            self.swallows = found is not None and found[2] is not None
        given = [name for name in self.names if name]
        if len(set(given)) < len(given):
            raise ValueError(f"{path!r} names a parameter twice")
        kinds = [1 if name else 0 for name in self.names]
        self.rank = tuple([*kinds[:-1], 2] if self.swallows else kinds)
        self.shape = (self.rank, tuple(self.literals))

    def values(self, segments: list[str], *, folded: bool) -> dict[str, str] | None:
        """Give what the parameters stand for (one character or more), or None where the path is another one."""
        size = len(self.names)
        if len(segments) < size or (len(segments) > size and not self.swallows):
            return None
        values: dict[str, str] = {}
        for name, literal, segment in zip(self.names, self.folded if folded else self.literals, segments, strict=False):
            if not name:
                if segment != literal:
                    return None
            elif not segment:
                return None
            else:
                values[name] = segment
        if self.swallows:
            rest = segments[size - 1 :]
            if not all(rest):
                return None
            values[self.names[-1]] = "/".join(rest)
        return values


def _folded(plain: str) -> list[str]:
    """Read a decoded path as the laxest server would: any case, either slash, empty segments and parameters dropped."""
    segments = (part.partition(";")[0] for part in _SEPARATORS.split(plain.casefold()))
    return [segment for segment in segments if segment]


def _decode(path: str) -> list[str]:
    """Give the decoded segments behind the first slash. Raises UnknownPath."""
    if not _PATH.fullmatch(path):
        raise UnknownPath("The path is not one: expected a slash, then visible ASCII with the rest percent-encoded.")
    if "%" not in path:
        segments = path.split("/")[1:]
    else:
        if _BAD_ESCAPE.search(path):
            raise UnknownPath(
                f"The path {_shown(path)} has a percent sign without two hexadecimal digits; send it as %25."
            )
        try:
            segments = [unquote_to_bytes(segment).decode() for segment in path.split("/")[1:]]
        except UnicodeDecodeError:
            raise UnknownPath(f"The path {_shown(path)} is not UTF-8 when decoded.") from None
        if any(_CONTROL.search(segment) for segment in segments):
            raise UnknownPath(f"The path {_shown(path)} has an encoded control character.")
    if any(part in {".", ".."} for segment in segments for part in _SEPARATORS.split(segment)):
        raise UnknownPath(f"The path {_shown(path)} has a dot segment; send it resolved.")
    return segments


def _refused(method: str, path: str, methods: Mapping[str, Endpoint]) -> MethodNotAllowed:
    allowed = tuple(sorted(methods))
    return MethodNotAllowed(
        f"{method} is not served at {_shown(path)}; expected {' or '.join(allowed)}.", allowed=allowed
    )


def _shown(path: str) -> str:
    return path if len(path) <= _SHOWN_CHARACTERS else f"{path[:_SHOWN_CHARACTERS]}..."
