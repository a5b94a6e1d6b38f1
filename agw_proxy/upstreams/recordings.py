"""A folder of recorded exchanges, looked up by their requests. All of it waits for the disk."""

from collections.abc import Sequence
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import msgspec
import orjson

from agw_proxy import tape

MAX_LOOKED_INTO = 20  # files, for the members in which a body differs
MAX_COMPARED = 1000  # different requests, for the nearest one


class Entry(msgspec.Struct, frozen=True):
    """One recorded exchange, without its bodies. ``cut``: its answer is not all there was."""

    file: Path
    method: str
    path: str
    query: str
    model: str
    cut: bool


class Recordings:
    """Reads files that it has not read before, and those that were no recordings once they have changed. Not thread-safe."""

    def __init__(self, folder: Path) -> None:
        """``folder`` need not be there yet."""
        self._folder = folder
        self._read: set[str] = set()
        self._bad: dict[str, tuple[int, int]] = {}
        """Files that are no recordings, or not yet: when they were written last, and their size."""
        self._by_identity: dict[bytes, list[Entry]] = {}
        self._entries: list[Entry] = []

    @property
    def unreadable(self) -> int:
        """Files that are no recordings."""
        return len(self._bad)

    def look(self) -> None:
        """Read what is new, in order of time. Raises OSError where the folder cannot be read."""
        names = sorted(
            file.name
            for file in self._folder.iterdir()
            if file.name.endswith(tape.SUFFIX) and not file.name.startswith(".")
        )
        there = set(names)
        self._bad = {name: mark for name, mark in self._bad.items() if name in there}
        for name in names:
            if name not in self._read:
                self._take(name)

    def _take(self, name: str) -> None:
        file, mark = self._folder / name, (0, 0)
        try:
            found = file.stat()
            mark = found.st_mtime_ns, found.st_size
            if self._bad.get(name) == mark:
                return
            self._add(file, tape.read(file.read_bytes()))
        except FileNotFoundError:
            return
        except (OSError, ValueError):
            self._bad[name] = mark
            return
        self._bad.pop(name, None)
        self._read.add(name)

    def find(self, identity: bytes, query: str) -> list[Entry]:
        """The exchanges of this request, in order of time.

        Those with this very query where there are any, and of them those whose answer is whole where there are any.
        """
        found = self._by_identity.get(identity, [])
        found = [entry for entry in found if entry.query == query] or found
        return [entry for entry in found if not entry.cut] or found

    def forget(self, identity: bytes, gone: Entry) -> None:
        """Its file is no longer there."""
        self._by_identity[identity] = [entry for entry in self._by_identity.get(identity, []) if entry is not gone]
        self._entries = [entry for entry in self._entries if entry is not gone]

    def nearest(self, method: str, path: str, model: str) -> Entry | None:
        """The one whose request is most like this one; None: there is none at all."""
        seen: dict[tuple[str, str, str], Entry] = {}
        for entry in self._entries:
            seen.setdefault((entry.method, entry.path, entry.model), entry)
            if len(seen) >= MAX_COMPARED:
                break

        def likeness(entry: Entry) -> tuple[bool, float, float]:
            return entry.method == method, _alike(entry.path, path), _alike(entry.model, model)

        return max(seen.values(), key=likeness, default=None)

    def differing(self, method: str, path: str, model: str, body: bytes) -> list[str]:
        """The members in which a JSON body differs from the most alike of those recorded last for that path and model."""
        asked = _members(body)
        alike = [entry for entry in self._entries if (entry.method, entry.path, entry.model) == (method, path, model)]
        least: list[str] | None = None
        for entry in alike[-MAX_LOOKED_INTO:] if asked is not None else ():
            try:
                found = _members(tape.read(entry.file.read_bytes()).request.body.data)
            except (OSError, ValueError):
                continue
            if asked is None or found is None:
                continue
            names = sorted(name for name in asked.keys() | found.keys() if asked.get(name, ...) != found.get(name, ...))
            least = names if least is None or len(names) < len(least) else least
        return least or []

    def _add(self, file: Path, made: tape.Tape) -> None:
        asked = made.request
        cut = made.answer.end not in tape.GOOD
        entry = Entry(file, asked.method, asked.path, asked.query, made.model, cut)
        body = asked.body.data
        self._entries.append(entry)
        if asked.end != "whole":
            return  # nobody can tell which request it was
        found = tape.identity(asked.method, asked.path, tape.kind_of(asked.headers), body)
        self._by_identity.setdefault(found, []).append(entry)


def load(entry: Entry) -> tuple[tape.Told, Sequence[tuple[float, bytes]]]:
    """Its answer, and the pieces of that with their milliseconds. Raises OSError, ValueError."""
    answer = tape.read(entry.file.read_bytes()).answer
    return answer, [(piece.ms, piece.data) for piece in answer.pieces]


def _members(body: bytes) -> dict[str, Any] | None:
    """Of a JSON object; None for other bodies."""
    try:
        tree = orjson.loads(tape.without_credentials(body))
    except orjson.JSONDecodeError:
        return None
    return tree if isinstance(tree, dict) else None


def _alike(one: str, other: str) -> float:
    return 1.0 if one == other else SequenceMatcher(None, one, other).ratio()
