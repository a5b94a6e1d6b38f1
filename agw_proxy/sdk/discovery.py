"""Finds what may be agents in folders, by looking alone: nothing of theirs is run, and the SDK is not imported.

``ROOT/NAME/agent.py`` is a module, and what an ``agents.yaml`` declares needs no Python. Folders between are namespaces:
``ROOT/team/Weather/agent.py`` is ``team/weather``, ``ROOT/Weather/agent.py`` is in the namespace of the settings.
"""

import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from agw_proxy._hot.route import Globs
from agw_proxy.config.agents import AGENT_ID
from agw_proxy.config.sources import parse_yaml, read_text
from agw_proxy.config.tree import ConfigError, plain

MODULE_FILE = "agent.py"
DECLARED_FILE = "agents.yaml"
MAX_DEPTH = 8  # folders between a root and an agent's: more is a mistake, or a link that leads round in a circle
MAX_FOLDERS = 2000  # below one root
MAX_FILES = 5000  # of one agent that its version is made of
MAX_READ_BYTES = 1 << 20  # of larger files size and time count instead
VERSION_DIGITS = 12
_SILENT = re.compile(r"[._].*|__pycache__|node_modules")


class Found(msgspec.Struct, frozen=True):
    """One candidate. ``root`` and ``parts`` (below it) lead to its folder, with all links followed.

    ``id``: what it would be called by; ``version``: changes whenever a file changes that it may be made of.
    """

    id: str
    root: Path
    parts: tuple[str, ...]
    version: str
    declared: dict[str, object] | None = None
    """What ``agents.yaml`` says of it; None: it is a module."""

    @property
    def folder(self) -> Path:
        """Where it is."""
        return self.root.joinpath(*self.parts)

    @property
    def file(self) -> Path:
        """What it begins with."""
        return self.folder / (MODULE_FILE if self.declared is None else DECLARED_FILE)


class Blocked(msgspec.Struct, frozen=True):
    """What was left out, and why. ``id``: as it would be called, or where that is not known its place."""

    id: str
    source: str
    reason: str
    broken: bool = False
    """It cannot be read: what was made of it before may go on."""
    denied: bool = False
    """The settings leave it out; nothing is known to be wrong with it."""


class Discovered(msgspec.Struct, frozen=True):
    """What one look has found: at most one of each id, in order of ids."""

    found: tuple[Found, ...]
    blocked: tuple[Blocked, ...]


def discover(
    paths: Sequence[Path], namespace: str, allow: Sequence[str] = ("*",), deny: Sequence[str] = ()
) -> Discovered:
    """Look into the folders in order; where two candidates have one id the first one counts. Blocks for as long as disks do."""
    found: dict[str, Found] = {}
    blocked: list[Blocked] = []
    allowed, denied = _globs(allow), _globs(deny)
    for path in paths:
        if not os.path.isdir(path):  # noqa: PTH112  a Path raises where it may not look
            continue
        for each in _Look(path, namespace).run():
            if isinstance(each, Blocked):
                blocked.append(each)
                continue
            names = _names(each, path.resolve().name)
            refusal = next((f"it is denied by {denied.patterns}" for name in names if denied.match(name)), None)
            if refusal is None and not any(allowed.match(name) for name in names):
                refusal = "no pattern of the list of allowed agents covers it"
            left_out = refusal is not None
            if refusal is None and each.id in found:
                refusal = f"the name is taken already, by {found[each.id].file}"
            if refusal is not None:
                blocked.append(Blocked(each.id, str(each.file), refusal, denied=left_out))
            else:
                found[each.id] = each
    return Discovered(tuple(found[name] for name in sorted(found)), tuple(blocked))


def _globs(patterns: Sequence[str]) -> Globs:
    return Globs([pattern.lower() for pattern in patterns])


def _names(found: Found, root: str) -> list[str]:
    """How a pattern may call it, in lower case: by its id, by its path, and by its modules with and without the root's name."""
    dotted = ".".join(found.parts)
    last = "agent" if found.declared is None else found.id.rpartition("/")[2]
    modules = [".".join(part for part in (dotted, last) if part), *([dotted] if found.declared is None else [])]
    spelt = [found.id, "/".join(found.parts), *modules, *(f"{root}.{module}" for module in modules)]
    return [name.lower() for name in spelt if name]


class _Look:
    """One walk below one root."""

    def __init__(self, path: Path, namespace: str) -> None:
        self._root = path.resolve()
        self._namespace = namespace
        self._left = MAX_FOLDERS

    def run(self) -> Iterator[Found | Blocked]:
        """All below the root, in order of names."""
        shared = digest(self._root, inside=lambda folder: not _is_file(folder / MODULE_FILE), suffixes=(".py",))
        yield from self._enter((), shared)

    def _enter(self, parts: tuple[str, ...], shared: str) -> Iterator[Found | Blocked]:
        folder = self._root.joinpath(*parts)
        self._left -= 1
        if self._left < 0 or len(parts) > MAX_DEPTH:
            if self._left >= -1:  # said once
                yield Blocked(str(folder), str(folder), "there are too many folders below its root, or too deep ones")
            return
        try:
            names = sorted(entry.name for entry in os.scandir(folder) if not _SILENT.fullmatch(entry.name))
        except OSError as error:
            yield Blocked(str(folder), str(folder), f"the folder cannot be read: {error.strerror}", broken=True)
            return
        if DECLARED_FILE in names:
            yield from self._declared(parts, folder / DECLARED_FILE)
        for name in names:
            inner = folder / name
            if not os.path.isdir(inner):  # noqa: PTH112  likewise
                continue
            here = (*parts, name)
            if not self._within(inner):
                yield Blocked(self._id(here), str(inner), "a link leads out of the folder of agents")
            elif os.path.islink(inner) and self._above(here, inner.resolve()):  # noqa: PTH114  likewise
                yield Blocked(self._id(here), str(inner), "a link leads round in a circle")
            elif not os.path.exists(inner / MODULE_FILE):  # noqa: PTH110  likewise
                yield from self._enter(here, shared)
            else:
                yield self._module(here, shared)

    def _above(self, parts: tuple[str, ...], place: Path) -> bool:
        """Whether the way there has come by that place already, be it through other links."""
        ways = [self._root.joinpath(*parts[:length]) for length in range(len(parts))]
        return any(way.resolve().is_relative_to(place) for way in ways)

    def _module(self, parts: tuple[str, ...], shared: str) -> Found | Blocked:
        folder, name = self._root.joinpath(*parts), self._id(parts)
        file = folder / MODULE_FILE
        if not self._within(file) or not _is_file(file):
            return Blocked(name, str(file), "a link leads out of the folder of agents, or it is no file")
        if AGENT_ID.fullmatch(name) is None or any("." in part for part in parts):
            reason = (
                "the names of its folders must be of letters, digits, '_' and '-', beginning with one of the first two"
            )
            return Blocked(name, str(file), reason)
        version = hashlib.sha256(f"{shared} {digest(folder)}".encode()).hexdigest()
        return Found(name, self._root, parts, version[:VERSION_DIGITS])

    def _declared(self, parts: tuple[str, ...], file: Path) -> Iterator[Found | Blocked]:
        if not self._within(file):
            yield Blocked(str(file), str(file), "a link leads out of the folder of agents")
            return
        try:
            items = declarations(file)
        except ValueError as error:
            yield Blocked(str(file), str(file), str(error), broken=True)
            return
        version = digest(file.parent, inside=lambda folder: folder == file.parent)
        for place, item in enumerate(items):
            named = item.get("name")
            name = self._id((*parts, named)) if isinstance(named, str) else f"{file}[{place}]"
            if AGENT_ID.fullmatch(name) is None:
                yield Blocked(name, str(file), "expected a name of letters, digits, '.', '_' and '-' for each agent")
            else:
                yield Found(name, self._root, parts, version[:VERSION_DIGITS], item)

    def _id(self, parts: tuple[str, ...]) -> str:
        above, name = "/".join(parts[:-1]), parts[-1]
        return f"{above or self._namespace}/{name}".lower()

    def _within(self, path: Path) -> bool:
        """All links followed, it is below the root still."""
        try:
            return path.resolve().is_relative_to(self._root)
        except (OSError, RuntimeError):
            return False


def declarations(file: Path) -> list[dict[str, object]]:
    """What an ``agents.yaml`` declares: a list of mappings under ``agents``. Raises ValueError."""
    try:
        tree = plain(parse_yaml(read_text(file, file.name), file.name))
    except ConfigError as error:
        raise ValueError("; ".join(str(each) for each in error.problems)) from None
    items = tree.get("agents", []) if isinstance(tree, dict) and not set(tree) - {"agents"} else None
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise ValueError("expected 'agents' and nothing else at the top, with a list of agents under it")
    return items


def digest(
    folder: Path,
    *,
    inside: Callable[[Path], bool] = lambda _: True,
    suffixes: Sequence[str] = (),
    read_bytes: int = MAX_READ_BYTES,
) -> str:
    """A hash of the files below a folder: names and contents; of those above ``read_bytes`` size and time.

    ``inside``: whether to go into a folder; ``suffixes``: which files count, all where there are none. What cannot be
    read counts by its name.
    """
    made = hashlib.sha256()
    left = MAX_FILES
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not _SILENT.fullmatch(name) and inside(Path(place, name)))
        for name in sorted(files):
            if name.startswith(".") or name.endswith(".pyc") or (suffixes and not name.endswith(tuple(suffixes))):
                continue
            left -= 1
            if left < 0:
                return made.hexdigest()
            path = Path(place, name)
            made.update(f"\0{path.relative_to(folder)}\0".encode("utf-8", "surrogateescape"))
            made.update(_content(path, read_bytes))
    return made.hexdigest()


def _is_file(path: Path) -> bool:
    """None that may not be looked at is one: a ``lost+found`` of the superuser's keeps no agent from being found."""
    return os.path.isfile(path)  # noqa: PTH113  a Path raises


def _content(path: Path, read_bytes: int) -> bytes:
    try:
        told = path.stat()
        if not stat.S_ISREG(told.st_mode):
            return b"-"
        if told.st_size > read_bytes:
            return f"{told.st_size} {told.st_mtime_ns}".encode()
        return hashlib.sha256(path.read_bytes()).digest()
    except OSError:
        return b"?"
