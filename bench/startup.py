"""Cold start and idle memory of the whole process: ``python -m bench.startup [--rounds N]``.

A start is from ``exec`` to the last byte of the first answered request, in an empty folder with no configuration.
The gateway runs beside two others in one interleaved run, on cores that are kept awake: the bare
interpreter (what no Python program can go below) and an aiohttp server that answers one word.
Memory is PSS one second after the first answer (proc(5), smaps_rollup). It counts a shared page by its share: nothing
else of the same Python should run meanwhile, or the figures flatter.
"""

import argparse
import contextlib
import os
import platform
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import NamedTuple

from bench.awake import awake

TARGET_SECONDS = 0.35
TARGET_MB = 55.0
AGENTS_TARGET_SECONDS = 3.0
AGENTS_KEY = "agw-bench-startup-4a1de07c95b2"
ASKED = b'{"model": "default/weather", "messages": [{"role": "user", "content": "What is the weather in Oslo?"}]}'
HEAVY = (
    "agents", "openai", "mcp", "sqlalchemy", "opentelemetry", "httpx", "httpx2", "redis", "tenacity", "aiohttp", "yaml",
)  # fmt: skip
ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples" / "agents"
RESULT = ROOT / "bench" / "results" / "startup.md"
ROUNDS = 15
DEADLINE_SECONDS = 30.0
POLL_SECONDS = 0.002
SETTLE_SECONDS = 1.0
HELLO = """
import sys
from aiohttp import web

async def hello(request):
    return web.Response(text="hello")

app = web.Application()
app.router.add_get("/health", hello)
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None)
"""


class Start(NamedTuple):
    """One cold start: seconds to the first answer, and idle PSS in MB (NaN where the process had ended by itself)."""

    seconds: float
    pss_mb: float


def free_port() -> int:
    """Give a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def environment(folder: Path, port: int) -> dict[str, str]:
    """Give an environment with nothing of the caller's but the path; the checkout is found from any folder."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "XDG_STATE_HOME": str(folder / "state"),
        "GATEWAY_SERVER__PORT": str(port),
        "PYTHONPATH": str(ROOT),
    }


def pss_mb(pid: int) -> float:
    """Give the proportional set size of a process in MB."""
    found = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    if found is None:
        raise RuntimeError("the kernel tells no PSS")
    return int(found[1]) / 1024


def server(command: Callable[[int], Sequence[str]], path: str, agents: bool = False) -> Start:
    """Start a server, wait for its first good answer to GET ``path``, measure it, end it.

    ``agents``: with the examples, until one of them has answered.
    """
    more = {"GATEWAY_AGENT_DISCOVERY_PATH": str(EXAMPLES), "GATEWAY_KEYS__BENCH__KEY": AGENTS_KEY} if agents else {}
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="agw-start-") as name:
        folder = Path(name)
        begun = time.perf_counter()
        process = subprocess.Popen(
            command(port),
            cwd=folder,
            env={**environment(folder, port), **more},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            while not (agent_answers(port) if agents else answers(port, path)):
                if process.poll() is not None or time.perf_counter() - begun > DEADLINE_SECONDS:
                    raise RuntimeError(f"{command(port)} did not answer (exit status {process.poll()})")
                time.sleep(POLL_SECONDS)
            seconds = time.perf_counter() - begun
            time.sleep(SETTLE_SECONDS)
            return Start(seconds, pss_mb(process.pid))
        finally:
            process.terminate()
            process.wait()


def answers(port: int, path: str) -> bool:
    """Whether GET ``path`` is answered with 200."""
    connection = HTTPConnection("127.0.0.1", port, timeout=DEADLINE_SECONDS)
    with contextlib.closing(connection), contextlib.suppress(OSError, HTTPException):
        connection.request("GET", path)
        response = connection.getresponse()
        response.read()
        return response.status == 200
    return False


def agent_answers(port: int) -> bool:
    """Whether the example agent of the weather answers."""
    connection = HTTPConnection("127.0.0.1", port, timeout=DEADLINE_SECONDS)
    with contextlib.closing(connection), contextlib.suppress(OSError, HTTPException):
        headers = {"Authorization": f"Bearer {AGENTS_KEY}", "Content-Type": "application/json"}
        connection.request("POST", "/v1/chat/completions", ASKED, headers)
        response = connection.getresponse()
        return response.status == 200 and b"snow" in response.read()
    return False


def bare() -> Start:
    """Start the interpreter, to do nothing."""
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", "pass"], check=True)
    return Start(time.perf_counter() - begun, float("nan"))


def heavy_imports() -> list[str]:
    """Give what ``import agw_proxy.app`` pulls in of what must load only when its feature is used."""
    script = f"import sys, agw_proxy.app; print(*(name for name in {HEAVY!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    return done.stdout.split()


def measure(rounds: int) -> dict[str, list[Start]]:
    """Start each contestant ``rounds`` times in turn, after one unmeasured round that warms the page cache."""
    agw = [sys.executable, "-m", "agw_proxy", "serve"]
    contestants: dict[str, Callable[[], Start]] = {
        "`python -c pass`": bare,
        "aiohttp hello world": lambda: server(lambda port: [sys.executable, "-c", HELLO, str(port)], "/health"),
        "**`agw serve`**": lambda: server(lambda _: agw, "/health/ready"),
        "with the example agents, to the first run's end": lambda: server(lambda _: agw, "", agents=True),
    }
    found: dict[str, list[Start]] = {name: [] for name in contestants}
    for number in range(rounds + 1):
        for name, start in contestants.items():
            measured = start()
            if number:
                found[name].append(measured)
    return found


def table(found: dict[str, list[Start]]) -> list[str]:
    """Give the markdown table."""
    lines = ["| | first answer, median s | min - max s | idle PSS, median MB |", "|---|---:|---:|---:|"]
    for name, starts in found.items():
        seconds = sorted(start.seconds for start in starts)
        memory = statistics.median(start.pss_mb for start in starts)
        shown = "-" if memory != memory else f"{memory:.1f}"  # noqa: PLR0124  NaN is the one value unlike itself
        lines.append(f"| {name} | {statistics.median(seconds):.3f} | {seconds[0]:.3f} - {seconds[-1]:.3f} | {shown} |")
    return lines


def main() -> int:
    """Print and write the table; give 1 where a target is missed."""
    parser = argparse.ArgumentParser(description="Cold start and idle memory, gateway beside others.")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    rounds = parser.parse_args().rounds
    with awake(sorted(os.sched_getaffinity(0))):
        found = measure(rounds)
    ours = found["**`agw serve`**"]
    seconds = statistics.median(start.seconds for start in ours)
    memory = statistics.median(start.pss_mb for start in ours)
    agents = statistics.median(start.seconds for start in found["with the example agents, to the first run's end"])
    heavy = heavy_imports()
    lines = [
        "# Cold start and idle memory",
        "",
        f"`python -m bench.startup --rounds {rounds}` repeats this: {rounds} interleaved starts each, with warm files,",
        f"to the first answered request, in an empty folder; cores kept awake. Python {platform.python_version()}, {os.cpu_count()} CPUs.",
        "",
        *table(found),
        "",
        f"Targets: at most {TARGET_SECONDS} s and {TARGET_MB:.0f} MB; with agents {AGENTS_TARGET_SECONDS:.0f} s.",
        f"Loaded at start although their features are off: {', '.join(heavy) or 'none'} (of {', '.join(HEAVY)}).",
    ]
    print("\n".join(lines))
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text("\n".join(lines) + "\n")
    missed = seconds > TARGET_SECONDS or memory > TARGET_MB or agents > AGENTS_TARGET_SECONDS or bool(heavy)
    print("a target is missed" if missed else "all targets are met")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
