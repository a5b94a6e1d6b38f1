"""The supervisor's log: no thread may live where processes are forked, and nothing may stop it from watching them."""

import os
import select
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

from agw_proxy.observe.log import Log, LogWriter, open_log


class DirectWriter(LogWriter):
    """Writes a line at once, or drops it where that would block or fail."""

    def __init__(self, stream: TextIO) -> None:
        """``stream``: a file, a terminal or a pipe, with a descriptor."""
        self._stream = stream
        self._poll = select.poll()
        self._poll.register(stream.fileno(), select.POLLOUT)

    def put(self, line: bytes, count: int = 1) -> None:  # noqa: ARG002  nobody hears of what is dropped here
        """One line, without its end. A pipe that says it has room takes PIPE_BUF bytes without blocking."""
        rest = memoryview(line + b"\n")
        while rest:
            ready = self._poll.poll(0)
            if not ready or not ready[0][1] & select.POLLOUT:
                return
            try:
                rest = rest[os.write(self._stream.fileno(), rest[: select.PIPE_BUF]) :]
            except OSError:
                return

    def close(self, seconds: float = 0.0) -> None:  # noqa: ARG002  nothing is waited for
        """Nothing waits to be written; a file is closed."""
        if self._stream is not sys.stderr:
            self._stream.close()


def open_direct(*, level: str, form: str, file: Path | None, environ: Mapping[str, str]) -> Log:
    """The log as ``open_log`` opens it, without its thread. Raises OSError."""
    return open_log(level=level, form=form, file=file, environ=environ, writer=DirectWriter)
