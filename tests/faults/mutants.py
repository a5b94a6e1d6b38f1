"""Takes a guard away and shows that its row fails: ``python -m tests.faults.mutants [fault ...]``.

Each mutant is one changed line in a copy of the tree. A row that still passes without its guard proves nothing, and
ends this with status 1. So does one that fails in a copy which nobody has changed. The rows are those of the full lane
with one worker, whose guards need no compiler.
"""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.faults.order import plays

ROOT = Path(__file__).parents[2]
RETRY_AFTER = "agw_proxy/policy/retry_after.py"
FAILURES = "agw_proxy/upstreams/failures.py"
OPENING = "agw_proxy/upstreams/opening.py"
RELAY = "agw_proxy/edge/relay.py"
CLIENT = "agw_proxy/upstreams/client.py"
ATTEMPTS = "agw_proxy/upstreams/attempts.py"
KEYRING = "agw_proxy/upstreams/keyring.py"
QUEUE = "agw_proxy/upstreams/queue.py"
HEDGE = "agw_proxy/upstreams/hedge.py"
OWN = "agw_proxy/edge/own_timeouts.py"
SERVER = "agw_proxy/edge/full_server.py"
PROMISED = {
    "outage": "tests/faults/test_processes.py::test_retries_do_not_multiply_an_outage[outage-full-1]",
    "probes": "tests/faults/test_processes.py::test_probes_take_an_upstream_out_and_bring_it_back[probes-full-1]",
}
"""The tests of promises about whole processes."""


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
    Mutant("quota", FAILURES, "elsewhere=status == 429 and (code in SPENT", "elsewhere=False and (code in SPENT"),
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
    Mutant("last-chunk", "agw_proxy/edge/relayed.py", "        if self.broken:\n", "        if False:\n"),
    Mutant("leaves-waiting", SERVER, "handler_cancellation=True", "handler_cancellation=False"),
    Mutant("redirect", CLIENT, "allow_redirects=False", "allow_redirects=True"),
    Mutant("connect-stalls", CLIENT, "connect=timeouts.connect)", "connect=None)"),
    Mutant(
        "handshake-stalls", CLIENT, '["ssl_handshake_timeout"] = TLS_SECONDS.get()', '["ssl_handshake_timeout"] = 60.0'
    ),
    Mutant("write-stalls", CLIENT, "restart(timeouts.write)", "pass"),
    Mutant("own-deadline", OWN, "lower[phase] = min(seconds, fallback", "lower[phase] = max(seconds, fallback"),
    Mutant("own-deadline-longer", OWN, "lower[phase] = min(seconds, fallback", "lower[phase] = max(seconds, fallback"),
    Mutant("key-refused", KEYRING, "self._until[number] = NEVER\n", "pass\n"),
    Mutant("key-limited", KEYRING, "self._until[number] = max(self._until[number], until)", "pass"),
    Mutant("keys-limited", ATTEMPTS, "if service.keys.usable(now, turn.doubted) and", "if False and"),
    Mutant("hedge", ATTEMPTS, "after = hedging.after() if hedging", "after = None if hedging"),
    Mutant(
        "leaves-hedged", HEDGE, "    except asyncio.CancelledError:\n        await _end(racing)\n", "    finally:\n"
    ),
    Mutant("own-fallbacks", "agw_proxy/edge/handler.py", "fallbacks = named(body, seen)", "fallbacks = ()"),
    Mutant(
        "last-resort", "agw_proxy/edge/handler.py", '= "echo" if opened.target is way', "= None if opened.target is way"
    ),
    Mutant("restart", OPENING, "holds = call.holds or", "holds = False or"),
    Mutant("circuit-opens", FAILURES, "        return BAD\n", "        return GOOD\n"),
    Mutant("circuit-panic", ATTEMPTS, "exchange.caller_fault = panic,", "exchange.caller_fault = False,"),
    Mutant("queue-full", QUEUE, "if self.waiting >= self.size:", "if False:"),
    Mutant("queue-late", QUEUE, "asyncio.timeout(self.wait_seconds)", "asyncio.timeout(None)"),
    Mutant("leaves-queued", SERVER, "handler_cancellation=True", "handler_cancellation=False"),
    Mutant("outage", "agw_proxy/upstreams/turns.py", "return circuit.vitals.may_retry(", "return True or (  # "),
    Mutant(
        "probes", "agw_proxy/upstreams/probes.py", "self.out_since = True, self.at", "self.out_since = False, self.at"
    ),
)


def rows_of(faults: Sequence[str]) -> list[str]:
    """The tests of these rows, and no others."""
    places = [
        f"{fault.name}-{kind}-{lane}-{workers}" for fault, kind, lane, workers, _ in plays() if fault.name in faults
    ]
    test = "tests/faults/test_faults.py::test_a_fault_keeps_its_promise"
    found = [f"{test}[{place}]" for place in places if place.endswith("-full-1")]
    return [*found, *(PROMISED[name] for name in faults if name in PROMISED)]


def passes(faults: Sequence[str], mutant: Mutant | None) -> bool:
    """These rows pass in a copy of the tree, with the guard of ``mutant`` gone."""
    with tempfile.TemporaryDirectory(prefix="agw-mutant-") as folder:
        copy = Path(folder)
        for name in ("agw_proxy", "tests"):
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", copy)
        if mutant is not None:
            target = copy / mutant.file
            text = target.read_text()
            if text.count(mutant.line) != 1:
                raise ValueError(f"{mutant.file} has {mutant.line!r} {text.count(mutant.line)} times, expected once")
            target.write_text(text.replace(mutant.line, mutant.instead))
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--no-cov", *rows_of(faults)],
            cwd=copy,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        if done.returncode not in {0, 1}:
            raise RuntimeError(done.stdout[-2000:] + done.stderr[-2000:])
        if mutant is None and done.returncode:
            print(done.stdout[-2000:])  # noqa: T201  why the evidence is none
        return done.returncode == 0


def main() -> None:
    """Try those that are named, or all."""
    chosen = [mutant for mutant in MUTANTS if not sys.argv[1:] or mutant.fault in sys.argv[1:]]
    well = passes([mutant.fault for mutant in chosen], None)
    print(f"{'pass' if well else 'FAIL':8}  all of them, with every guard in its place", flush=True)  # noqa: T201  its output
    alive = 0 if well else 1
    for mutant in chosen:
        lives = passes([mutant.fault], mutant)
        alive += lives
        how = "SURVIVES" if lives else "killed"
        print(f"{how:8}  {mutant.fault:24} {mutant.file}", flush=True)  # noqa: T201  its output
    sys.exit(min(alive, 1))


if __name__ == "__main__":
    main()
