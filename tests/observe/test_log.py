"""The log never stops a request: what cannot be written is dropped and counted, and one line says what happened."""

import io
import logging
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import orjson
import pytest

from agw_proxy.observe.log import MAX_QUEUED_LINES, Bridge, Log, LogWriter, now_text, open_log
from agw_proxy.types import Attempt, Receipt

PATIENCE_SECONDS = 20.0


class Stuck(io.StringIO):
    """A stream whose first write waits until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.entered = threading.Event()
        self.release = threading.Event()
        self.writes = 0

    def write(self, text: str) -> int:
        self.writes += 1
        self.entered.set()
        assert self.release.wait(PATIENCE_SECONDS)
        return super().write(text)


class Broken(io.StringIO):
    """A stream that nobody reads any more."""

    def __init__(self) -> None:
        super().__init__()
        self.tried = threading.Event()

    def write(self, text: str) -> int:
        self.tried.set()
        raise BrokenPipeError


@pytest.fixture
def stuck() -> Iterator[Stuck]:
    stream = Stuck()
    yield stream
    stream.release.set()


def receipt(**changes: object) -> Receipt:
    fields: dict[str, object] = {
        "event": "request",
        "time": "2026-11-21T10:11:12.345Z",
        "request_id": "req_1",
        "endpoint": "chat_completions",
        "method": "POST",
        "status": 200,
        "lane": "full",
        "outcome": "ok",
        "duration_ms": 12.345,
        "overhead_us": 321,
        **changes,
    }
    return Receipt(**fields)  # type: ignore[arg-type]  # fields by name


def written(*, pretty: bool = False, level: str = "info", colour: bool = False, **changes: object) -> str:
    """What one receipt looks like."""
    stream = io.StringIO()
    log = Log(LogWriter(stream), level=level, pretty=pretty, colour=colour)
    log.receipt(receipt(**changes))
    log.writer.close()
    return stream.getvalue()


def test_lines_are_written_in_order_and_all_of_them_at_the_close() -> None:
    stream = io.StringIO()
    writer = LogWriter(stream)
    for number in range(1000):
        writer.put(b"%d" % number)
    writer.close()
    assert stream.getvalue().split() == [str(number) for number in range(1000)]
    assert writer.depth == 0


def test_many_lines_are_one_write(stuck: Stuck) -> None:
    writer = LogWriter(stuck)
    writer.put(b"first")
    assert stuck.entered.wait(PATIENCE_SECONDS)
    for number in range(100):
        writer.put(b"%d" % number)
    stuck.release.set()
    writer.close()
    assert stuck.writes == 2


def test_a_stuck_stream_blocks_nobody_and_what_does_not_fit_is_counted(stuck: Stuck) -> None:
    writer = LogWriter(stuck)
    dropped: list[int] = []
    writer.put(b"first")
    assert stuck.entered.wait(PATIENCE_SECONDS)
    for _ in range(MAX_QUEUED_LINES + 3):
        writer.put(b"x")
    writer.on_drop(dropped.append)
    writer.put(b"too much")
    assert (writer.depth, dropped) == (MAX_QUEUED_LINES, [1])
    stuck.release.set()
    writer.close()
    lines = stuck.getvalue().split("\n")
    assert len(lines) == 1 + MAX_QUEUED_LINES + 1
    assert "too much" not in lines


def test_a_reader_that_has_gone_ends_the_log_and_not_the_gateway() -> None:
    stream = Broken()
    writer = LogWriter(stream)
    writer.put(b"a")
    assert stream.tried.wait(PATIENCE_SECONDS)
    for _ in range(MAX_QUEUED_LINES * 2):
        writer.put(b"b")
    assert writer.depth <= MAX_QUEUED_LINES
    writer.close()


def test_a_receipt_is_one_json_line_without_what_is_unknown() -> None:
    line = written(model="m", trail=(Attempt("a/m", "a", "200"),), attempts=1)
    assert line.endswith("}\n")
    tree = orjson.loads(line)
    assert tree["request_id"] == "req_1"
    assert tree["trail"] == [{"target": "a/m", "upstream": "a", "outcome": "200"}]
    assert "user" not in tree
    assert "prompt_tokens" not in tree


@pytest.mark.parametrize(
    "hostile", ['a"b', "a\nb", "\x1b[31mred", "\u2028", "\x00"], ids=["quote", "newline", "escape", "u2028", "nul"]
)
def test_a_callers_text_stays_inside_its_line(hostile: str) -> None:
    tree = orjson.loads(written(user=hostile))
    assert tree["user"] == hostile
    for pretty in (False, True):
        line = written(pretty=pretty, model=hostile, outcome="upstream_failed", status=502, message=hostile)
        assert line.count("\n") == 1
        assert "\x1b" not in line


def test_a_pretty_line_tells_a_human_what_happened() -> None:
    line = written(
        pretty=True, model="gpt-4o", key="app", ttft_ms=3.21, prompt_tokens=11, completion_tokens=7, attempts=2
    )
    assert line == (
        "10:11:12  200  POST chat_completions  gpt-4o  12.3ms  ttft 3.2ms  11+7 tokens  2 attempts  "
        "own 321us key app req_1\n"
    )
    failed = written(pretty=True, status=502, outcome="upstream_reset", message="It broke.")
    assert failed.endswith("key - req_1  upstream_reset: It broke.\n")


@pytest.mark.parametrize(("status", "colour"), [(200, "32"), (404, "33"), (502, "31")])
def test_colours_follow_the_status(status: int, colour: str) -> None:
    assert f"\x1b[{colour}m{status}\x1b[0m" in written(pretty=True, colour=True, status=status)


@pytest.mark.parametrize(("level", "lines"), [("debug", 1), ("info", 1), ("warning", 0), ("error", 0)])
def test_receipts_are_of_the_level_info(level: str, lines: int) -> None:
    assert written(level=level).count("\n") == lines


@pytest.mark.parametrize("pretty", [False, True])
def test_events_have_a_time_a_level_and_what_belongs_to_them(pretty: bool) -> None:
    stream = io.StringIO()
    log = Log(LogWriter(stream), level="warning", pretty=pretty)
    log.events.info("too.quiet")
    log.events.error("config.rejected", version=3, where=Path("x"))
    log.writer.close()
    line = stream.getvalue()
    assert line.count("\n") == 1
    if pretty:
        assert re.fullmatch(r"\d\d:\d\d:\d\d  config\.rejected  version=3 where=x\n", line)
    else:
        tree = orjson.loads(line)
        assert re.match(r"\d{4}-\d\d-\d\dT", tree.pop("time"))
        assert tree == {"event": "config.rejected", "level": "error", "version": 3, "where": "x"}


def test_an_event_with_words_that_are_no_text_is_told() -> None:
    stream = io.StringIO()
    log = Log(LogWriter(stream))
    log.events.warning("agent.dropin.blocked", source="b\udce9ta")
    log.writer.close()
    assert orjson.loads(stream.getvalue())["source"] == "b?ta"


def test_library_warnings_become_events_at_most_so_many_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    ours = SimpleNamespace(monotonic=lambda: clock[0], sleep=time.sleep)
    monkeypatch.setattr("agw_proxy.observe.log.time", ours)
    stream = io.StringIO()
    log = Log(LogWriter(stream))
    logger = logging.Logger("library")  # noqa: LOG001  one that nobody else sees
    logger.addHandler(Bridge(log, per_second=2))
    logger.info("of no interest")
    for number in range(5):
        logger.warning("trouble %d", number)
    clock[0] = 101.0
    try:
        raise OSError(24, "Too many open files")
    except OSError:
        logger.exception("accept failed")
    log.writer.close()
    lines = [orjson.loads(line) for line in stream.getvalue().splitlines()]
    told = [(line["event"], line.get("message"), line.get("count")) for line in lines]
    assert told == [
        ("library", "trouble 0", None),
        ("library", "trouble 1", None),
        ("library.suppressed", None, 3),
        ("library", "accept failed (OSError: [Errno 24] Too many open files)", None),
    ]
    assert {line["logger"] for line in lines if "logger" in line} == {"library"}


def test_a_library_event_is_bounded() -> None:
    stream = io.StringIO()
    log = Log(LogWriter(stream))
    Bridge(log).emit(logging.LogRecord("n", logging.ERROR, "f", 1, "x" * 100_000, None, None))
    log.writer.close()
    assert len(stream.getvalue()) < 1500


def test_the_log_goes_to_a_file_that_only_its_owner_reads(tmp_path: Path) -> None:
    file = tmp_path / "logs" / "agw.log"
    for status in (200, 404):
        log = open_log(level="info", form="auto", file=file, environ={})
        log.receipt(receipt(status=status))
        log.writer.close()
        log.writer._stream.close()
    assert [orjson.loads(line)["status"] for line in file.read_bytes().splitlines()] == [200, 404]
    assert file.stat().st_mode & 0o777 == 0o600


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("form", "environ", "pretty", "colour"),
    [
        ("auto", {}, True, True),
        ("auto", {"NO_COLOR": "1"}, True, False),
        ("pretty", {}, True, True),
        ("json", {}, False, False),
    ],
)
def test_a_terminal_gets_pretty_lines(
    monkeypatch: pytest.MonkeyPatch, form: str, environ: dict[str, str], pretty: bool, colour: bool
) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    log = open_log(level="info", form=form, file=None, environ=environ)
    log.receipt(receipt())
    log.writer.close()
    line = terminal.getvalue()
    assert line.startswith("{") is not pretty
    assert ("\x1b[" in line) is colour


def test_times_are_utc_with_milliseconds() -> None:
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", now_text())
