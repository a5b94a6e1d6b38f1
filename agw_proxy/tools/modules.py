"""Modules of files that somebody has written for the gateway, in private packages (``_agw_files_N``) whose path is a folder.

So relative imports work, two folders may be called alike, nothing of a user's folder shadows a package of somebody else,
and a new version is imported anew, with all that belongs to it, while calls go on in the old one.
"""

import importlib
import importlib.abc
import importlib.machinery
import itertools
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

PREFIX = "_agw_files_"

_numbers = itertools.count(1)


def new_package() -> str:
    """A name for a private package that no other has or had."""
    return f"{PREFIX}{next(_numbers)}"


def forget(package: str) -> None:
    """Take its modules out of ``sys.modules``."""
    for name in [name for name in tuple(sys.modules) if name == package or name.startswith(f"{package}.")]:
        del sys.modules[name]


def import_file(package: str, root: Path, name: str) -> ModuleType:
    """Import ``name`` (dotted, below ``root``) in that private package, which is made where it is not there yet.

    Raises whatever the module raises, ImportError where a link leads out of ``root``.
    """
    _finder()
    if package not in sys.modules:
        holder = ModuleType(package)
        holder.__path__ = [str(root)]
        sys.modules[package] = holder
    return importlib.import_module(f"{package}.{name}")


class _Fresh(importlib.machinery.SourceFileLoader):
    """Reads sources only: compiled files are told apart by whole seconds, and an editor is faster."""

    def path_stats(self, path: Any) -> Any:  # noqa: ARG002  the protocol's
        raise OSError("no compiled file is looked at or written")


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the modules of the private packages, and refuses what a link leads out of their roots to."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,  # noqa: ARG002  the protocol's
    ) -> ModuleSpec | None:
        if not fullname.startswith(PREFIX) or path is None:
            return None
        root = Path(sys.modules[fullname.partition(".")[0]].__path__[0])
        places: list[str] = []
        for entry in path:
            found = importlib.machinery.FileFinder(
                entry,
                (_Fresh, importlib.machinery.SOURCE_SUFFIXES),
                (importlib.machinery.ExtensionFileLoader, importlib.machinery.EXTENSION_SUFFIXES),
            ).find_spec(fullname)
            for place in (found.origin, *(found.submodule_search_locations or ())) if found is not None else ():
                if place is not None and not Path(place).resolve().is_relative_to(root):
                    raise ImportError(f"a link leads out of the folder of agents: {place}", name=fullname)
            if found is not None and found.loader is not None:
                return found
            places += (found.submodule_search_locations or ()) if found is not None else ()
        if not places:
            return None
        spec = ModuleSpec(fullname, None, is_package=True)
        spec.submodule_search_locations = places
        return spec


def _finder() -> None:
    """Have the private packages found, from the first of them on."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
