"""Loads the configuration: files, overlay, environment, references, validation, in that order; later ones win.

``load`` reads everything there is before it complains, so that one run lists all problems.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from agw_proxy.config import checks, secrets, wellknown
from agw_proxy.config.environment import SECTION_FILES, nearest, overlay
from agw_proxy.config.explain import REQUIRED, explain
from agw_proxy.config.settings import UNSUPPORTED, Settings
from agw_proxy.config.sources import Variable, display, parse_dotenv, parse_yaml, read_text
from agw_proxy.config.tree import ConfigError, Node, Origin, Problem, from_plain, merge, plain, problem

DEFAULT_FILE = "gateway.yaml"
ENVIRONMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class Loaded:
    """A valid configuration.

    ``files``: all that was read, in order. ``notes``: what the operator should know, without secrets.
    """

    settings: Settings
    files: tuple[Path, ...]
    notes: tuple[str, ...]
    blank: frozenset[Path] = frozenset()
    """Files among them that hold nothing."""


class _Load:
    """One run of ``load``; collects as it goes."""

    def __init__(self, environ: Mapping[str, str], cwd: Path) -> None:
        self.cwd = cwd
        self.problems: list[Problem] = []
        self.notes: list[str] = []
        self.files: list[Path] = []
        self.folders: dict[str, Path] = {}
        self.broken: list[str] = []  # the texts of files that are no YAML
        self.variables = {name: Variable(value, Origin(variable=name)) for name, value in environ.items()}

    def locator(self, name: str) -> Variable | None:
        """Give a name of the environment that says where files are (upper or lower case); None where unset or empty."""
        for candidate, variable in self.variables.items():
            if candidate.upper() == name and variable.value:
                return variable
        return None

    def dotenv(self) -> None:
        path = self.cwd / ".env"
        if not path.is_file():
            return
        try:
            found = parse_dotenv(read_text(path, ".env"), ".env")
        except ConfigError as error:
            self.problems += error.problems
            return
        self.files.append(path)
        self.variables = {**found, **self.variables}

    def read(self, path: Path, origin: Origin | None = None) -> Node:
        """Read one YAML file; an unreadable one is a problem and an empty tree. ``origin``: who named it."""
        shown = display(path, self.cwd)
        text = ""
        try:
            text = read_text(path, shown, origin)
            self.files.append(path)
            self.folders[shown] = path.parent
            return parse_yaml(text, shown)
        except ConfigError as error:
            self.problems += error.problems
            self.broken.append(text)
            return Node({}, Origin(shown))

    def main(self, given: Path | None) -> tuple[Node, Path]:
        """Read the main file; give it and its path (where there is none, the one that it would have)."""
        if given is not None:
            path = self.cwd / given
            return self.read(path), path
        named = self.locator("GATEWAY_CONFIG")
        if named is not None:
            path = self.cwd / named.value
            return self.read(path, named.origin), path
        path = self.cwd / DEFAULT_FILE
        # lexists: a link to nowhere is a mistake to report, not a missing file
        return (self.read(path) if path.exists() or path.is_symlink() else Node({})), path

    def sections(self, root: Node) -> Node:
        for name, allowed in SECTION_FILES.items():
            variable = self.locator(name)
            if variable is None:
                continue
            part = self.read(self.cwd / variable.value, variable.origin)
            for key in list(part.value):
                if key not in allowed:
                    child = part.value.pop(key)
                    message = f"the file of {name} holds {' and '.join(allowed)} only"
                    self.problems.append(problem(message, key if key.isprintable() else ascii(key), child.origin))
            root = merge(root, part)
        return root

    def overlaid(self, root: Node, main: Path) -> Node:
        variable = self.locator("GATEWAY_ENV")
        if variable is None or not main.name:  # a root directory as file has its own problem
            return root
        if ENVIRONMENT.fullmatch(variable.value) is None:
            self.problems.append(
                problem("expected a name of letters, digits, '.', '_' and '-'", origin=variable.origin)
            )
            return root
        path = main.with_name(f"{main.stem}.{variable.value}{main.suffix}")
        if not path.exists() and not path.is_symlink():
            self.notes.append(f"GATEWAY_ENV is {variable.value}, and there is no overlay {display(path, self.cwd)}")
            return root
        return merge(root, self.read(path))

    def known_sections(self, root: Node) -> None:
        """Take unknown sections out, each with its problem; an empty one counts as not given."""
        known = Settings.model_fields
        for name in list(root.value):
            node = root.value[name]
            if name in known and node.value is not None:
                continue
            del root.value[name]
            if name in known:
                continue
            if name in UNSUPPORTED:
                message = "not yet supported in this version"
            else:
                near = nearest(name, [*known, *UNSUPPORTED])
                message = "unknown section" + (
                    f"; did you mean {near}?" if near else f"; expected one of {', '.join(known)}"
                )
            self.problems.append(problem(message, name if name.isprintable() else ascii(name), node.origin))

    def well_known(self, root: Node) -> None:
        """Without an ``upstreams`` section anywhere, take those that the environment's keys name."""
        if "upstreams" in root.value:
            return
        server = root.get("server")
        port = server.get("port") if server is not None else None
        try:
            number = int(port.value) if port is not None else 8080
        except (TypeError, ValueError):
            number = 8080
        environ = {name: variable.value for name, variable in self.variables.items()}
        found = {item.service.name: item.variable for item in wellknown.find(environ, port=number)}
        entries = wellknown.upstreams(environ, port=number, notes=self.notes)
        items = []
        for entry in entries:
            variable = found[entry["name"]]
            item = from_plain(entry, self.variables[variable].origin)
            for child in item.value.values():
                child.resolved = True
            items.append(item)
            self.notes.append(f"no upstreams are configured: {entry['name']} is used because {variable} is set")
        if not items:
            self.notes.append("no upstreams are configured and no well-known key is set; only agw/echo answers")
        root.value["upstreams"] = Node(items)

    def validate(self, root: Node) -> Settings | None:
        """Check and validate the tree; problems at a place that has one already are not said twice."""
        placed = {found.path for found in self.problems if found.path}
        # What a broken file would have given is not known: say nothing of what would be missing without it.
        between = [] if self.broken else checks.check(root)
        settings = None
        single: list[Problem] = []
        values: dict[str, Any] = plain(root)
        try:
            settings = Settings(**values)
        except ValidationError as error:
            single = [found for found in explain(error, root) if not (self.broken and found.message == REQUIRED)]
        # Some rules are known to both sides; ``load`` keeps one of two equal problems.
        self.problems += [found for found in [*single, *between] if found.path not in placed]
        return settings


def load(path: Path | None, environ: Mapping[str, str], cwd: Path) -> Loaded:
    """Load the configuration as ``agw serve`` would.

    ``path``: the file of ``--config``, or None for ``GATEWAY_CONFIG`` or ``./gateway.yaml``. ``environ``: the real
    environment, which wins over ``cwd``'s ``.env``; neither is changed. Raises ConfigError with every problem there is.
    """
    run = _Load(environ, cwd)
    run.dotenv()
    root, main = run.main(path)
    root = run.overlaid(run.sections(root), main)
    root = Node(dict(root.value), root.origin)
    run.known_sections(root)
    referenced = secrets.references(root).union(*(secrets.names_in(text) for text in run.broken))
    run.problems += overlay(root, run.variables, referenced)
    filled = secrets.resolve(root, secrets.Surroundings(run.variables, run.folders, cwd))
    run.problems += filled.problems
    run.notes += filled.notes
    run.well_known(root)
    run.notes += checks.prune(root, filled.left_out)
    run.notes += checks.notes(root)
    settings = run.validate(root)
    if run.problems or settings is None:
        raise ConfigError(_in_order(run.problems))
    if settings.server.upstream_auto_reload:
        run.notes.append("the upstream file is not watched by this version (auto reload); reload with SIGHUP")
    files = tuple(dict.fromkeys(run.files))
    return Loaded(
        settings, files, tuple(dict.fromkeys(run.notes)), frozenset(file for file in files if _holds_nothing(file))
    )


def refuse_emptied(now: Loaded, before: Loaded) -> None:
    """Raise ConfigError for a file that is empty and was not: it is just being written. Empty, it would mean no keys."""
    emptied = sorted((now.blank - before.blank) & set(before.files))
    if emptied:
        raise ConfigError([problem("the file is empty, and was not before", "", Origin(str(file))) for file in emptied])


def _holds_nothing(file: Path) -> bool:
    try:
        return not file.read_bytes().strip()
    except OSError:
        return False


def _in_order(problems: list[Problem]) -> list[Problem]:
    """Sort by file and line, files in the order in which they were first named; each problem once."""
    unique = list(dict.fromkeys(problems))
    rank = {file: index for index, file in enumerate(dict.fromkeys(found.file for found in unique))}
    return sorted(unique, key=lambda found: (rank[found.file], found.line or 0))


def environment(environ: Mapping[str, str], cwd: Path) -> dict[str, str]:
    """Give the environment with ``cwd``'s ``.env`` beneath it, as ``load`` sees it.

    An unreadable ``.env`` raises ConfigError.
    """
    run = _Load(environ, cwd)
    run.dotenv()
    if run.problems:
        raise ConfigError(run.problems)
    return {name: variable.value for name, variable in run.variables.items()}


__all__ = ["ConfigError", "Loaded", "Problem", "environment", "load"]
