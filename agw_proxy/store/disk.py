"""Answers kept in a folder, for all workers of a machine (``diskcache``): the ``Store`` of the cache's ``disk`` backend.

No disk is touched on the loop: a few threads do it, and what would have to wait behind too many others is a miss.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from diskcache import Cache, Disk, Timeout

from agw_proxy.store.base import Says
from agw_proxy.store.threads import Threads
from agw_proxy.store.trouble import Trouble

THREADS = 2
MAX_WAITING = 64  # reads and writes of answers, each of which may be a large one
CULLED = 2  # that go for one that comes while there is no room: more than one, and not all
WAIT_SECONDS = 0.25  # for another process's write; a slow disk must not hold up what it was to make faster
T = TypeVar("T")


class BytesOnly(Disk):  # type: ignore[misc]  # the library has no types
    """Values are bytes, and nothing that is read is ever unpickled: who can write the folder must not run code here."""

    def get(self, key: object, raw: bool) -> object:
        """A key as it was handed in."""
        if not raw:
            raise ValueError("the key is no text")
        return super().get(key, raw)

    def fetch(self, mode: int, filename: str | None, value: object, read: bool) -> object:
        """A value from its row, or from the file that the row names."""
        if mode not in (1, 2):  # the library's raw bytes, in the row and in a file
            raise ValueError("the value is no bytes")
        return super().fetch(mode, filename, value, read)


class DiskStore:
    """See ``store.base.Store``. Nothing is opened before it is needed."""

    def __init__(self, folder: Path, max_bytes: int, say: Says | None = None) -> None:
        """``folder`` is made where it is missing, for its owner only. What was read least lately goes first.

        ``say``: hears when the folder cannot be used.
        """
        self._folder = folder
        self._max_bytes = max_bytes
        self._cache: Cache | None = None
        self._threads = Threads(THREADS, "agw-disk", MAX_WAITING)
        self._trouble = Trouble(folder, say)

    async def get(self, key: str) -> bytes | None:
        """See ``Store``."""

        def work(cache: Cache) -> bytes | None:
            value = cache.get(key)
            return value if isinstance(value, bytes) else None

        return await self._do(work, None)

    async def set(self, key: str, value: bytes, ttl: float) -> bool:
        """See ``Store``."""

        def work(cache: Cache) -> bool:
            done = bool(cache.set(key, value, expire=ttl))
            if cache.volume() > self._max_bytes:  # two small ones make no room for a large one
                cache.cull()
            return done

        return await self._do(work, False)

    async def add(self, key: str, value: bytes, ttl: float) -> bool | None:
        """See ``Store``."""
        return await self._do(lambda cache: bool(cache.add(key, value, expire=ttl)), None)

    async def remove(self, key: str) -> None:
        """See ``Store``."""
        await self._do(lambda cache: bool(cache.delete(key)), False)

    async def close(self) -> None:
        """Close the folder, after what it was asked."""

        def work() -> None:
            if self._cache is not None:
                self._cache.close()

        await self._threads.do(work, None)
        self._threads.close()

    async def _do(self, work: Callable[[Cache], T], missed: T) -> T:
        def attempt() -> T:
            if self._cache is None:
                self._cache = self._open()
            return work(self._cache)

        # A full or broken disk keeps nothing; nobody's answer depends on it.
        return await self._trouble.watch(self._threads, attempt, missed, busy=(Timeout,))

    def _open(self) -> Cache:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.chmod(self._folder, 0o700)  # noqa: PTH101  it may have been there
        return Cache(
            str(self._folder),
            disk=BytesOnly,
            timeout=WAIT_SECONDS,
            size_limit=self._max_bytes,
            cull_limit=CULLED,
            eviction_policy="least-recently-used",
        )
