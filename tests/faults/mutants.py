"""Takes a guard away and shows that its row fails: ``python -m tests.faults.mutants [fault ...]``.

Each mutant is one changed line in a copy of the tree. A row that still passes without its guard proves nothing, and
ends this with status 1. The rows are those of the full lane, whose guards need no compiler.
"""

import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
RETRY_AFTER = "agw_proxy/upstreams/retry_after.py"
FAILURES = "agw_proxy/upstreams/failures.py"
OPENING = "agw_proxy/upstreams/opening.py"
RELAY = "agw_proxy/edge/relay.py"
CLIENT = "agw_proxy/upstreams/client.py"


@dataclass(frozen=True)
class Mutant:
    """``line`` stands once in ``file`` and becomes ``instead``; then ``fault`` must not keep its promise."""

    fault: str
    file: str
    line: str
    instead: str


MUTANTS = (
    Mutant("limited-ms", RETRY_AFTER, '_number(found.get(b"retry-after-ms"), 1.0),', ""),
    Mutant("limited-date", RETRY_AFTER, "        _date(found, now),\n", ""),
    Mutant("limited-rubbish", RETRY_AFTER, "if text and NUMBER.fullmatch(text) else", "if text else"),
    Mutant("limited-long", RETRY_AFTER, "min(max(round(wait), 0), MAX_WAIT_MS)", "max(round(wait), 0)"),
    Mutant("quota", FAILURES, "elsewhere=status == 429 and code in SPENT", "elsewhere=False"),
    Mutant("key-quoted", FAILURES, "payload = scrubbed(body, secrets) if", "payload = body if"),
    Mutant("silent", FAILURES, "    if isinstance(error, UpstreamTimeout):\n        return False\n", ""),
    Mutant("5xx-once", FAILURES, "return error.retryable and (call", "return not error.retryable and (call"),
    Mutant("html-200", OPENING, 'if kind == b"text/html" and', 'if kind == b"text/nothing" and'),
    Mutant(
        "first-event-error", OPENING, "if stream.error is not None and (stream.events", "if False and (stream.events"
    ),
    Mutant("pings-only", OPENING, "progress, known = stream.progress > known,", "progress, known = True,"),
    Mutant("json-close", OPENING, "if reply.ended and not whole(first):", "if False:"),
    Mutant("clean-end-chat", RELAY, "if self._known_end and not stream.complete", "if False and not stream.complete"),
    Mutant("error-inside-chat", RELAY, "            if stream.error is not None:\n", "            if False:\n"),
    Mutant("pings-chat", RELAY, "progress, known = stream.progress > known,", "progress, known = True,"),
    Mutant("last-chunk", RELAY, "        if self.broken:\n", "        if False:\n"),
    Mutant(
        "leaves-waiting", "agw_proxy/edge/full_server.py", "handler_cancellation=True", "handler_cancellation=False"
    ),
    Mutant("redirect", CLIENT, "allow_redirects=False", "allow_redirects=True"),
)


def survives(mutant: Mutant) -> bool:
    """The row passes although its guard is gone."""
    with tempfile.TemporaryDirectory(prefix="agw-mutant-") as folder:
        copy = Path(folder)
        for name in ("agw_proxy", "tests"):
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", copy)
        target = copy / mutant.file
        text = target.read_text()
        if text.count(mutant.line) != 1:
            raise ValueError(f"{mutant.file} has {mutant.line!r} {text.count(mutant.line)} times, expected once")
        target.write_text(text.replace(mutant.line, mutant.instead))
        options = ["-q", "-x", "-p", "no:cacheprovider", "--no-cov", "-k", f"{mutant.fault}- and full-1"]
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *options, "tests/faults/test_faults.py"],
            cwd=copy,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        if done.returncode not in {0, 1}:
            raise RuntimeError(done.stdout[-2000:] + done.stderr[-2000:])
        return done.returncode == 0


def main() -> None:
    """Try those that are named, or all."""
    alive = 0
    for mutant in MUTANTS:
        if sys.argv[1:] and mutant.fault not in sys.argv[1:]:
            continue
        lives = survives(mutant)
        alive += lives
        how = "SURVIVES" if lives else "killed"
        print(f"{how:8}  {mutant.fault:24} {mutant.file}", flush=True)  # noqa: T201  its output
    sys.exit(min(alive, 1))


if __name__ == "__main__":
    main()
