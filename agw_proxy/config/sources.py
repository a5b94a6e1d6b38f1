"""Reads what people write: YAML files into trees with a line for each value, and ``.env`` files into environment names.

The YAML is built from the parser's events rather than by a loader: so there is a line for each value, duplicate keys
are errors, nesting and aliases have bounds (a "billion laughs" file costs no memory), and no tag can make anything but
text, numbers, booleans and null. PyYAML is imported at the first file only.
"""

import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agw_proxy.config.tree import ConfigError, Node, Origin, problem

MAX_FILE_BYTES = 1 << 20  # a configuration of a thousand upstreams has a fifth of this
MAX_DEPTH = 32  # the settings nest 6 deep
MAX_NODES = 100_000  # after aliases are followed
TAG = "tag:yaml.org,2002:"
DECIMAL = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,18})")
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")
ESCAPES = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\", "$": "$"}


@dataclass(frozen=True, slots=True)
class Variable:
    """An environment name's value, and where it is written if that is a file."""

    value: str
    origin: Origin


def display(path: Path, cwd: Path) -> str:
    """Give the path as messages show it: relative where it lies below ``cwd``."""
    try:
        return str(path.relative_to(cwd))
    except ValueError:
        return str(path)


def read_text(path: Path, shown: str, origin: Origin | None = None, limit: int = MAX_FILE_BYTES) -> str:
    """Read a regular UTF-8 file of at most ``limit`` bytes.

    Raises ConfigError, placed at ``origin`` or else at the file itself, where that is not possible.
    """
    where = origin or Origin(file=shown)
    prefix = f"{shown}: " if origin is not None else ""
    try:
        # A FIFO or device would block or never end; look before opening.
        if not stat.S_ISREG(path.stat().st_mode):
            raise ConfigError([problem(f"{prefix}expected a regular file", origin=where)])
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "not a valid path"
        raise ConfigError([problem(f"{prefix}cannot be read: {reason}", origin=where)]) from None
    if len(data) > limit:
        raise ConfigError([problem(f"{prefix}the file has more than {limit} bytes", origin=where)])
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        at = where if origin is not None else Origin(file=shown, line=line)
        raise ConfigError([problem(f"{prefix}expected UTF-8 text", origin=at)]) from None


class _Builder:
    """Builds one document's tree out of parser events."""

    def __init__(self, loader: Any, shown: str) -> None:
        self.loader = loader
        self.shown = shown
        self.anchors: dict[str, Node] = {}
        self.nodes = 0

    def fail(self, message: str, event: Any) -> ConfigError:
        return ConfigError([problem(message, origin=Origin(self.shown, event.start_mark.line + 1))])

    def document(self) -> Node:
        """Give the file's one document; an empty file is an empty mapping."""
        self.loader.get_event()  # the stream's start
        root: Node | None = None
        while not self.loader.check_event(_events().StreamEndEvent):
            start = self.loader.get_event()
            if root is not None:
                raise self.fail("expected one YAML document, came a second one (---)", start)
            root = self.build(0)
            self.loader.get_event()  # the document's end
        if root is None or root.value is None:
            return Node({}, Origin(self.shown, 1))
        return root

    def build(self, depth: int) -> Node:
        events = _events()
        event = self.loader.get_event()
        origin = Origin(self.shown, event.start_mark.line + 1)
        if isinstance(event, events.AliasEvent):
            node = self.anchors.get(event.anchor)
            if node is None:
                raise self.fail(
                    "an alias (*) without an anchor (&) before it; put quotes around a text that begins with *", event
                )
            return self.copy(node, event, depth)
        if depth > MAX_DEPTH:
            raise self.fail(f"nested deeper than {MAX_DEPTH} levels", event)
        self.count(event)
        if isinstance(event, events.ScalarEvent):
            node = Node(self.scalar(event), origin)
        elif isinstance(event, events.SequenceStartEvent):
            self.check_tag(event, "seq")
            items = []
            while not self.loader.check_event(events.SequenceEndEvent):
                items.append(self.build(depth + 1))
            self.loader.get_event()
            node = Node(items, origin)
        else:
            self.check_tag(event, "map")
            node = Node(self.mapping(depth), origin)
        if event.anchor is not None:
            # Known only once it is complete, so that no value can hold itself.
            self.anchors[event.anchor] = node
        return node

    def mapping(self, depth: int) -> dict[str, Node]:
        events = _events()
        members: dict[str, Node] = {}
        merged: dict[str, Node] = {}
        while not self.loader.check_event(events.MappingEndEvent):
            event = self.loader.peek_event()
            key = self.build(depth + 1)
            value = self.build(depth + 1)
            if isinstance(event, events.ScalarEvent) and event.value == "<<" and event.implicit[0]:
                sources = value.value if isinstance(value.value, list) else [value]
                for source in sources:
                    if not isinstance(source.value, dict):
                        raise self.fail("expected a mapping to merge (<<)", event)
                    for name, node in source.value.items():
                        merged.setdefault(name, node)
                continue
            if not isinstance(event, events.ScalarEvent) or key.value is None:
                raise self.fail("expected a plain text as a key", event)
            if event.value in members:
                raise self.fail(f"the key {event.value!r} is given twice in one mapping", event)
            # The key's line is where a person looks, also when the value begins on the next one.
            members[event.value] = Node(value.value, key.origin)
        self.loader.get_event()
        return {**merged, **members}

    def scalar(self, event: Any) -> Any:
        from yaml.nodes import ScalarNode  # noqa: PLC0415  loaded with the first file only

        text = event.value
        tag = event.tag
        if tag is None or tag == "!":
            tag = self.loader.resolve(ScalarNode, text, event.implicit)
        kind = tag.removeprefix(TAG)
        if kind == "null":
            return None
        if kind == "bool":
            return text.lower() in {"yes", "true", "on"}
        if kind == "int":
            # Octal, sexagesimal (1:30) and the like are texts here: YAML 1.1 reads them as numbers that nobody means.
            return int(text) if DECIMAL.fullmatch(text) else text
        if kind == "float":
            return _number(text)
        if kind in {"str", "timestamp", "merge", "value"}:
            return text
        raise self.fail(
            "this YAML tag is not supported; expected plain text, numbers, true, false, null, lists and mappings", event
        )

    def check_tag(self, event: Any, kind: str) -> None:
        if event.tag not in {None, "!", TAG + kind}:
            raise self.fail("this YAML tag is not supported; expected a plain list or mapping", event)

    def count(self, event: Any) -> None:
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise self.fail(f"more than {MAX_NODES} values, aliases followed", event)

    def copy(self, node: Node, event: Any, depth: int) -> Node:
        """Follow an alias by copying, so that a change to one place never shows in another."""
        if depth > MAX_DEPTH:
            raise self.fail(f"nested deeper than {MAX_DEPTH} levels, aliases followed", event)
        self.count(event)
        if isinstance(node.value, dict):
            return Node({key: self.copy(item, event, depth + 1) for key, item in node.value.items()}, node.origin)
        if isinstance(node.value, list):
            return Node([self.copy(item, event, depth + 1) for item in node.value], node.origin)
        return Node(node.value, node.origin)


def _number(text: str) -> float | str:
    """Read a float; infinities and oddities stay text, which no number field accepts."""
    try:
        value = float(text)
    except ValueError:
        return text
    return value if abs(value) < 1e18 else text


def _events() -> Any:
    import yaml.events  # noqa: PLC0415  loaded with the first file only

    return yaml.events


def parse_yaml(text: str, shown: str) -> Node:
    """Read a YAML 1.1 document into a tree; ConfigError where it is none or breaks a bound.

    ``shown``: the file's name for messages.
    """
    import yaml  # noqa: PLC0415  2 MB that a gateway without a file does not need

    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        stream = loader(text)
        try:
            root = _Builder(stream, shown).document()
        finally:
            stream.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        # Some messages quote the text at fault, which may be a secret: keep what stands before the quotation.
        reason = re.split(r"['\"]", error.problem or error.context or "not valid", maxsplit=1)[0].strip()
        raise ConfigError(
            [problem(f"not valid YAML: {reason}", origin=Origin(shown, mark.line + 1 if mark else None))]
        ) from None
    except yaml.YAMLError:
        raise ConfigError(
            [problem("not valid YAML: a character that YAML does not allow", origin=Origin(shown))]
        ) from None
    except RecursionError:
        raise ConfigError([problem("nested too deeply", origin=Origin(shown))]) from None
    if not isinstance(root.value, dict):
        raise ConfigError([problem("expected sections (a mapping) at the top of the file", origin=root.origin)])
    return root


def _quoted(text: str, start: int) -> tuple[str, int] | None:
    """Read the quoted value that begins at ``start``; give it and its end, or None without a closing quote."""
    quote = text[start]
    out: list[str] = []
    at = start + 1
    while at < len(text):
        character = text[at]
        if character == quote:
            return "".join(out), at + 1
        if character == "\\" and quote == '"' and at + 1 < len(text):
            following = text[at + 1]
            out.append(ESCAPES.get(following, "\\" + following))
            at += 2
            continue
        out.append(character)
        at += 1
    return None


def parse_dotenv(text: str, shown: str) -> dict[str, Variable]:
    """Read ``NAME=value`` lines; of a name that comes twice the last counts.

    Understood are ``export``, ``#`` comments, and 'raw' and "escaped" quotes, over several lines too. There is no
    expansion. Lines of another form belong to somebody else and are passed over; a missing closing quote leaves the
    line as it is.
    """
    found: dict[str, Variable] = {}
    at = 0
    text = text.replace("\r\n", "\n")
    while at < len(text):
        end = text.find("\n", at)
        end = len(text) if end < 0 else end
        line = text[at:end]
        name, equals, rest = line.strip().removeprefix("export ").partition("=")
        name = name.strip()
        if not equals or NAME.fullmatch(name) is None:
            at = end + 1
            continue
        number = text.count("\n", 0, at) + 1
        value = rest.strip()
        if value[:1] in {"'", '"'}:
            begin = at + line.index("=") + 1
            begin += len(text[begin:end]) - len(text[begin:end].lstrip())
            quoted = _quoted(text, begin)
            if quoted is not None:
                value, stop = quoted
                end = text.find("\n", stop)
                end = len(text) if end < 0 else end
        elif value.startswith("#"):
            value = ""
        else:
            value = re.split(r"\s#", value, maxsplit=1)[0].rstrip()
        found[name] = Variable(value, Origin(shown, number, name))
        at = end + 1
    return found
