"""The log: one canonical line an exchange, and events; JSON lines, or pretty on a terminal.

Lines are made on the loop, where they cost a microsecond or two, and written by a thread: a full disk or a stuck pipe
never stops a request. The queue between them is bounded; what does not fit is dropped, counted and said afterwards.
"""

import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

import msgspec
import orjson

from agw_proxy.observe.plain_structlog import structlog
from agw_proxy.printable import printable
from agw_proxy.types import Receipt

MAX_QUEUED_LINES = 16384  # about 8 MB; some seconds of a busy gateway while the disk is slow
WAKE_SECONDS = 0.05  # between two batches of lines: one system call for many, and none that holds up the loop
LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
RESET, DIM, GREEN, YELLOW, RED, CYAN = "\x1b[0m", "\x1b[2m", "\x1b[32m", "\x1b[33m", "\x1b[31m", "\x1b[36m"


class LogWriter:
    """Takes whole lines, writes them from a thread of its own."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lines: list[bytes] = []
        self._counts: list[int] = []
        self._put = 0
        self._taken = 0  # written by the thread alone, as the other is by its callers alone
        self._wake = threading.Event()
        self._closing = False
        self._dropped: Callable[[int], None] | None = None
        self._thread = threading.Thread(target=self._run, name="agw-log", daemon=True)
        self._thread.start()

    def on_drop(self, told: Callable[[int], None]) -> None:
        """``told`` hears, on any thread, how many lines did not fit or were not taken by the disk."""
        self._dropped = told

    def put(self, line: bytes, count: int = 1) -> None:
        """One line (or ``count`` of them), without its end. Never blocks."""
        if self.depth >= MAX_QUEUED_LINES:
            if self._dropped is not None:
                self._dropped(count)
            return
        self._put += count
        self._counts.append(count)  # before the line: what the thread finds of lines it finds of counts
        self._lines.append(line)
        if not self._wake.is_set():
            self._wake.set()

    @property
    def depth(self) -> int:
        """Lines that wait to be written."""
        return self._put - self._taken

    def close(self, seconds: float = 2.0) -> None:
        """Write what is left, for at most ``seconds``."""
        self._closing = True
        self._wake.set()
        self._thread.join(seconds)

    def _run(self) -> None:
        while True:
            self._wake.wait()
            closing = self._closing
            self._wake.clear()
            # Joined in one step: a loop over lines would hold the interpreter's lock while requests wait for it.
            lines = self._lines[:]
            del self._lines[: len(lines)]
            count = sum(self._counts[: len(lines)])
            del self._counts[: len(lines)]
            if lines:
                lines.append(b"")
                batch = b"\n".join(lines)
                self._taken += count
                try:
                    self._write(batch)
                except (BrokenPipeError, ValueError):
                    closing = True  # nobody reads any more: a sidecar goes on serving without its log
                except OSError:
                    if self._dropped is not None:
                        self._dropped(count)  # a full disk may have room again
            if closing:
                return
            time.sleep(WAKE_SECONDS)

    def _write(self, data: bytes) -> None:
        buffer = getattr(self._stream, "buffer", None)
        if buffer is None:
            self._stream.write(data.decode())
        else:
            buffer.write(data)
        self._stream.flush()


class Log:
    """Receipts and events of one process."""

    def __init__(self, writer: LogWriter, *, level: str = "info", pretty: bool = False, colour: bool = False) -> None:
        """``level``: the least severe to write; receipts are ``info``."""
        self.writer = writer
        self._level = LEVELS[level]
        self._pretty = pretty
        self._colour = colour
        self._encoder = msgspec.json.Encoder()
        self.writes_receipts = self._level <= LEVELS["info"]
        self.writes_lines = self.writes_receipts and not pretty
        render = self._render_event if pretty else _render_json
        self.events = structlog.wrap_logger(
            _Sink(writer),
            processors=[
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", key="time"),
                render,
            ],
            wrapper_class=structlog.make_filtering_bound_logger(self._level),
            cache_logger_on_first_use=True,
        )

    def receipt(self, receipt: Receipt) -> None:
        """The canonical line of an exchange."""
        if self.writes_receipts:
            self.writer.put(self._line(receipt) if self._pretty else self._encoder.encode(receipt))

    def encode(self, receipt: Receipt) -> bytes:
        """The canonical line as JSON."""
        return self._encoder.encode(receipt)

    def receipts(self, receipts: Sequence[Receipt]) -> None:
        """Several of them, in order."""
        if self._pretty or not self.writes_receipts:
            for receipt in receipts:
                self.receipt(receipt)
        else:
            self.writer.put(self._encoder.encode_lines(receipts)[:-1], len(receipts))

    def _line(self, receipt: Receipt) -> bytes:
        colour = GREEN if receipt.status < 400 else YELLOW if receipt.status < 500 else RED
        parts = [
            self._paint(DIM, receipt.time[11:19]),
            self._paint(colour, str(receipt.status)),
            f"{receipt.method} {receipt.endpoint}",
            self._paint(CYAN, visible(receipt.model or "-")),
            f"{receipt.duration_ms:.1f}ms",
        ]
        if receipt.ttft_ms is not None:
            parts.append(f"ttft {receipt.ttft_ms:.1f}ms")
        if receipt.prompt_tokens >= 0 or receipt.completion_tokens >= 0:
            parts.append(f"{max(receipt.prompt_tokens, 0)}+{max(receipt.completion_tokens, 0)} tokens")
        if receipt.attempts > 1:
            parts.append(f"{receipt.attempts} attempts")
        parts.append(self._paint(DIM, f"own {receipt.overhead_us}us key {receipt.key or '-'} {receipt.request_id}"))
        if receipt.outcome != "ok":
            parts.append(self._paint(colour, f"{receipt.outcome}: {visible(receipt.message or '')}"))
        return "  ".join(parts).encode("utf-8", "replace")

    def _render_event(self, logger: object, method: str, event: MutableMapping[str, Any]) -> bytes:  # noqa: ARG002  structlog's signature
        stamp = str(event.pop("time", ""))[11:19]
        level = str(event.pop("level", "info"))
        name = str(event.pop("event", ""))
        colour = {"warning": YELLOW, "error": RED}.get(level, GREEN)
        rest = " ".join(f"{key}={visible(str(value))}" for key, value in event.items())
        return f"{self._paint(DIM, stamp)}  {self._paint(colour, name)}  {rest}".encode("utf-8", "replace")

    def _paint(self, colour: str, text: str) -> str:
        return f"{colour}{text}{RESET}" if self._colour else text


def visible(text: str) -> str:
    """The text on one line, with what a terminal would obey spelt out."""
    return text if text.isprintable() else printable(text).replace("\n", "\\n")


class _Sink:
    """Where structlog hands its rendered lines."""

    def __init__(self, writer: LogWriter) -> None:
        self._put = writer.put

    def msg(self, line: bytes) -> None:
        """Any level: all go to the same place."""
        self._put(line)

    debug = info = warning = error = msg


class Bridge(logging.Handler):
    """Standard-library warnings and errors (aiohttp's, asyncio's) as events, at most so many a second."""

    def __init__(self, log: Log, per_second: int = 10) -> None:
        """``per_second``: beyond it they are counted and said together (a full descriptor table logs thousands)."""
        super().__init__(logging.WARNING)
        self._log = log
        self._budget = per_second
        self._second = 0
        self._said = 0

    def emit(self, record: logging.LogRecord) -> None:
        """See ``logging.Handler``."""
        second = int(time.monotonic())
        if second != self._second:
            if self._said > self._budget:
                self._log.events.warning("library.suppressed", count=self._said - self._budget)
            self._second, self._said = second, 0
        self._said += 1
        if self._said <= self._budget:
            message = record.getMessage()
            if record.exc_info and record.exc_info[1] is not None:
                message += f" ({type(record.exc_info[1]).__name__}: {record.exc_info[1]})"
            self._log.events.warning("library", logger=record.name, message=message[:1000])


def _render_json(logger: object, method: str, event: MutableMapping[str, Any]) -> bytes:  # noqa: ARG001  structlog's signature
    try:
        return orjson.dumps(event, default=str)
    except orjson.JSONEncodeError:  # halves of surrogate pairs: names of files and words of exceptions may have them
        return json.dumps(event, default=str, ensure_ascii=False).encode("utf-8", "replace")


def now_text() -> str:
    """UTC in RFC 3339 with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def open_log(
    *,
    level: str,
    form: str,
    file: Path | None,
    environ: Mapping[str, str],
    writer: Callable[[TextIO], LogWriter] | None = None,
) -> Log:
    """The log as configured. ``form``: auto, json or pretty; ``file``: None for standard error. Raises OSError.

    ``writer``: makes what writes the lines; None: a thread of its own does.
    """
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        stream: TextIO = os.fdopen(descriptor, "w", encoding="utf-8")
    else:
        stream = sys.stderr
    terminal = stream.isatty()
    pretty = form == "pretty" or (form == "auto" and terminal)
    colour = pretty and terminal and "NO_COLOR" not in environ
    return Log((writer or LogWriter)(stream), level=level, pretty=pretty, colour=colour)
