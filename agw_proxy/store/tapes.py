"""Writes recorded exchanges into a folder, one file each, on a thread: whole or not at all, without secrets, within bounds.

A file gets its name once all of it is written, so that whoever is killed leaves no half of one. A name begins with the
time at which the request went out: in order of their names the files are in order of time.
"""

import asyncio
import contextlib
import os
import secrets
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import msgspec

from agw_proxy import tape
from agw_proxy._hot.sse import EventTooLong, Stream
from agw_proxy.store.masking import Mask
from agw_proxy.store.threads import Threads

MAX_EXCHANGE_BYTES = 16 << 20  # of both bodies together; longer ones are cut, and say so
MAX_HELD_BYTES = 128 << 20  # of all exchanges that are under way or wait for the disk
MAX_WAITING = 1024  # exchanges that wait for the disk
MAX_FOLDER_BYTES = 1 << 30
MAX_FILES = 50_000
LOOK_EVERY = 64  # files written, until the folder is measured again: other workers write there, too
STALE_SECONDS = 60.0  # an unfinished file that is older has nobody who will finish it
LAST_SECONDS = 5.0  # for what waits at the end
OTHERS = 0o077
UNFINISHED = ".unfinished"
OURS = f"[0-9]*T[0-9]*Z-*{tape.SUFFIX}"
"""Names that ``write`` gives: other files that may be there are none of our business."""

Tell = Callable[[str, int], None]
"""Hears ``dropped`` (an exchange was not written) and ``removed`` (the oldest files went), and how many."""


class Masking(Protocol):
    """See ``Mask``."""

    def __call__(self, data: bytes, *, request: bool = False) -> bytes:
        """The same bytes without secrets."""
        ...


class Folder:
    """Where recordings are. All of it waits for the disk."""

    def __init__(self, path: Path, max_bytes: int = MAX_FOLDER_BYTES, max_files: int = MAX_FILES) -> None:
        """``max_bytes``, ``max_files``: over either the oldest go."""
        self._path = path
        self._max_bytes, self._max_files = max_bytes, max_files
        self._bytes = self._files = 0
        self._writes = 0

    def prepare(self) -> None:
        """Make it, for its owner only, and clear what was never finished. Raises OSError, ValueError where others may look in."""
        self._path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if stat.S_IMODE(self._path.stat().st_mode) & OTHERS:
            raise ValueError(
                f"others may look into the folder for recordings {self._path}: name a new one, or chmod 700 {self._path}"
            )
        for file in self._path.glob(f".*{UNFINISHED}"):
            with contextlib.suppress(OSError):
                if time.time() - file.stat().st_mtime > STALE_SECONDS:
                    file.unlink()

    def write(self, at_ns: int, data: bytes) -> int:
        """Put a file there; gives how many old ones had to go for it. Raises OSError."""
        moment = tape.stamp(at_ns).replace(":", "").replace("-", "")
        name = f"{moment}-{secrets.token_hex(4)}{tape.SUFFIX}"
        aside = self._path / f".{name}{UNFINISHED}"
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
            aside.rename(self._path / name)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise
        self._bytes += len(data)
        self._files += 1
        if self._writes % LOOK_EVERY and self._bytes <= self._max_bytes and self._files <= self._max_files:
            self._writes += 1
            return 0
        self._writes += 1
        return self._make_room(name)

    def _make_room(self, newest: str) -> int:
        """Remove the oldest until the rest is within the bounds; never ``newest``."""
        found = []
        for file in sorted(self._path.glob(OURS)):
            with contextlib.suppress(OSError):  # another worker has removed it
                found.append((file, file.stat().st_size))
        self._bytes, self._files = sum(size for _, size in found), len(found)
        removed = 0
        for file, size in found:
            if (self._bytes <= self._max_bytes and self._files <= self._max_files) or file.name == newest:
                break
            with contextlib.suppress(OSError):
                file.unlink()
                removed += 1
            self._bytes -= size
            self._files -= 1
        return removed


class Tapes:
    """Keeps exchanges as they end. Everything but ``close`` returns at once."""

    def __init__(self, folder: Folder, mask: Callable[[], Mask], tell: Tell) -> None:
        """``mask``: for the secrets known now. ``tell`` is called on the loop."""
        self._folder = folder
        self._mask, self._tell = mask, tell
        self._held = 0
        self._threads = Threads(1, "agw-tapes", MAX_WAITING)
        self._tasks: set[asyncio.Task[None]] = set()

    def hold(self, draft: tape.Draft, size: int) -> tape.End | None:
        """Room for so many bytes more of an exchange; gives why there is none."""
        if draft.size + size > MAX_EXCHANGE_BYTES:
            return "too_large"
        if self._held + size > MAX_HELD_BYTES:
            return "memory"
        draft.size += size
        self._held += size
        return None

    def drop(self, draft: tape.Draft) -> None:
        """It was no exchange: there is no answer."""
        self._held -= draft.size
        draft.size = 0

    def keep(self, draft: tape.Draft) -> None:
        """Write it; nothing of it changes any more."""
        task = asyncio.get_running_loop().create_task(self._keep(draft, self._mask()))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Write what waits, for a while."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=LAST_SECONDS)
        self._threads.close()

    async def _keep(self, draft: tape.Draft, mask: Mask) -> None:
        def work() -> int:
            try:
                return self._folder.write(draft.at_ns, msgspec.json.encode(made(draft, mask)))
            except (OSError, ValueError):
                return -1  # a full disk, or what no file can have in it: nobody's answer depends on it

        try:
            removed = await self._threads.do(work, -1)
        finally:
            self.drop(draft)
        if removed:
            self._tell("dropped" if removed < 0 else "removed", abs(removed))


def made(draft: tape.Draft, mask: Mask) -> tape.Tape:
    """The tape of an exchange, without its secrets."""
    own = Mask(draft.secrets) if draft.secrets else mask

    def masked(data: bytes, *, request: bool = False) -> bytes:
        made = mask(data, request=request)
        return own(made) if draft.secrets else made

    return _made(draft, masked)


def _made(draft: tape.Draft, mask: Masking) -> tape.Tape:
    def shown(value: str) -> str:
        return mask(value.encode("utf-8", "surrogateescape")).decode("utf-8", "replace")

    whole = mask(b"".join(data for _, data in draft.pieces))
    pieces, at = [], 0
    for ms, data in draft.pieces:
        pieces.append(tape.piece(whole[at : at + len(data)], ms))
        at += len(data)
    end: tape.End = "whole" if draft.end == "left" and _finished(draft, whole) else draft.end
    return tape.Tape(
        agw_recording=tape.VERSION,
        at=tape.stamp(draft.at_ns),
        upstream=draft.upstream,
        dialect=draft.dialect,
        target=shown(draft.target),
        model=shown(draft.model),
        request=tape.Asked(
            method=draft.method,
            path=shown(draft.path),
            query=shown(draft.query),
            headers=tuple((shown(name), shown(value)) for name, value in draft.headers),
            body=tape.piece(mask(b"".join(draft.body), request=True)),
            end=draft.body_end,
        ),
        answer=tape.Told(
            status=draft.status,
            headers=tuple((shown(name), shown(value)) for name, value in draft.answer_headers),
            head_ms=round(draft.head_ms, 3),
            pieces=tuple(pieces),
            end=end,
        ),
    )


def _finished(draft: tape.Draft, body: bytes) -> bool:
    """A stream that was left behind its last event is whole: only the end of its framing is missing."""
    if not tape.kind_of(draft.answer_headers).lower().startswith(b"text/event-stream"):
        return False
    stream = Stream()
    try:
        stream.feed(body)
    except EventTooLong:
        return False
    return stream.done or stream.finished
