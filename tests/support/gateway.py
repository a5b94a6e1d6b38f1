"""Runs the real ``agw serve`` as its users do: a process of its own, a file of configuration, a clean environment.

Nothing of the developer's machine leaks in: no ``GATEWAY_*``, no provider keys, home and state directory in a
temporary folder.
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

import orjson
import yaml

import agw_proxy
from tests.support.client import Connection, Reply, bearer, request
from tests.support.starter import Started, Starter

APP_KEY = "agw-bench-app-4f1c9a7d20e84b6c"
ADMIN_KEY = "agw-bench-admin-91d3e07b5a2c48f6"
UPSTREAM_KEY = "upstream-secret-7be2c1904d5f4a83"
PACKAGE_ROOT = Path(agw_proxy.__file__).resolve().parent.parent
# What a child needs to run at all, and what coverage and sanitizer runs set on purpose.
INHERITED = re.compile(r"PATH|LANG|LC_.*|TZ|TMPDIR|LD_PRELOAD|LD_LIBRARY_PATH|ASAN_OPTIONS|UBSAN_OPTIONS|COVERAGE_.*")
FOR_AN_INTERPRETER = frozenset({"PYTHONASYNCIODEBUG", "PYTHONMALLOC", "PYTHONWARNINGS", "PYTHONDEVMODE", "LD_PRELOAD"})
START_SECONDS = 40.0
LINE_SECONDS = 20.0  # until a log line that must come is there
STOP_SECONDS = 30.0
POLL_SECONDS = 0.01

Tree = dict[str, Any]
T = TypeVar("T")
Process = subprocess.Popen[bytes] | Started


def provider(url: str, name: str = "fake", **more: object) -> Tree:
    """An upstream entry for a scripted upstream."""
    models = ["gpt-*", "text-embedding-*", "omni-moderation-*"]
    entry = {"name": name, "dialect": "openai", "base_url": f"{url}/v1", "api_key": UPSTREAM_KEY, "models": models}
    entry["speaks"] = {"anthropic": ["messages"], "gemini": ["gemini"]}.get(
        str(more.get("dialect")), ["chat", "responses", "messages", "completions"]
    )
    return {**entry, **more}


def configuration(*upstreams: Tree, **sections: object) -> Tree:
    """A configuration with short time-outs, a plain key and an admin key; sections given replace whole sections.

    Circuits and retry budgets stay out of the way: tests about them bring their own sections.
    """
    base: Tree = {
        "server": {"port": 0, "drain_seconds": 1, "body_seconds": 1},
        "upstreams": list(upstreams),
        "keys": [
            {"name": "app", "key": APP_KEY, "models": ["*"]},
            {"name": "boss", "key": ADMIN_KEY, "models": ["*"], "admin": True},
        ],
        "timeouts": {"connect": "1s", "first_byte": "1s", "between_bytes": "1s", "total": "20s"},
        "retries": {"attempts": 3, "base": "10ms", "max": "50ms", "budget_floor": 1_000_000},
        "breaker": {"enabled": False},  # one test's failures are not the next one's
    }
    return {**base, **sections}


class Gateway:
    """``with Gateway(config) as gateway``: serving at ``gateway.url``; killed at the end, whatever happened."""

    def __init__(
        self,
        config: Tree | None,
        *,
        env: Mapping[str, str] | None = None,
        args: Sequence[str] = (),
        files: Mapping[str, str] | None = None,
        key: str = APP_KEY,
        descriptors: int | None = None,
        fresh: bool = False,
    ) -> None:
        """``config`` None: none is written, as in an empty folder. ``files``: more files of that folder.

        ``descriptors``: how many the process may have open; None: as many as the test. ``fresh``: a new interpreter,
        for tests of what a start imports or holds; one with workers or without a file always gets one.
        """
        limit = ["sh", "-c", f'ulimit -n {descriptors} && exec "$@"', "sh"]
        self._prefix = limit if descriptors is not None else []
        self.key = key
        self.url = ""
        self.admin_key = ADMIN_KEY
        self._temporary = tempfile.TemporaryDirectory(prefix="agw-e2e-", ignore_cleanup_errors=True)
        self.folder = Path(self._temporary.name)
        self.file = self.folder / "gateway.yaml"
        self._args = list(args)
        self._env = {name: value for name, value in os.environ.items() if INHERITED.fullmatch(name)}
        home = self.folder / "home"
        home.mkdir()
        self._env |= {
            "HOME": str(home),
            "XDG_STATE_HOME": str(home / "state"),
            "PYTHONPATH": str(PACKAGE_ROOT),
            "PYTHONUNBUFFERED": "1",
            **(env or {}),
        }
        if config is not None:
            self.write(config)
            self._args = ["--config", str(self.file), *self._args]
        for name, text in (files or {}).items():
            (self.folder / name).write_text(text)
        self._stdout = self.folder / "stdout"
        self._stderr = self.folder / "stderr"
        several = (config or {}).get("server", {}).get("workers", 1) != 1 or "--workers" in self._args
        self._fresh = (
            fresh or config is None or bool(several or self._prefix or FOR_AN_INTERPRETER.intersection(env or {}))
        )
        self._process: Process | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None and self._process.poll() is None:
            self._end(self._process)
        self._temporary.cleanup()

    @staticmethod
    def _end(process: Process) -> None:
        """Two signals end it at once, with its coverage written; what does not listen is killed."""
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.1)
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def write(self, config: Tree) -> None:
        """Replace the configuration file (the process learns of it by a reload)."""
        self.file.write_text(yaml.safe_dump(config, sort_keys=False))
        self.file.chmod(0o600)

    def start(self) -> None:
        """Start the process (again, after ``stop``) and wait until it serves."""
        self.launch()
        self.url = self._wait_ready()

    def launch(self) -> None:
        """Start the process and do not wait for it."""
        work = self.folder / "work"
        work.mkdir(exist_ok=True)
        with self._stdout.open("wb") as out, self._stderr.open("wb") as err:
            argv = ["serve", *self._args]
            if not self._fresh:
                starter = Starter.get(PACKAGE_ROOT)
                self._process = starter.start(argv, self._env, work, out.fileno(), err.fileno())
                return
            self._process = subprocess.Popen(
                [*self._prefix, sys.executable, "-m", "agw_proxy", *argv],
                cwd=work,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )

    @property
    def process(self) -> Process:
        """The running child."""
        assert self._process is not None, "the gateway was not started"
        return self._process

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    @property
    def rss_bytes(self) -> int:
        """Resident memory of the process."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert found is not None
        return int(found[1]) * 1024

    @property
    def output(self) -> str:
        """All that the process has printed."""
        return "\n".join(path.read_text(errors="replace") for path in (self._stdout, self._stderr) if path.exists())

    def logs(self) -> list[Tree]:
        """The JSON lines among what it has printed, in order."""
        trees: list[Tree] = []
        for line in self.output.splitlines():
            if line.startswith("{"):
                try:
                    tree = orjson.loads(line)
                except orjson.JSONDecodeError:
                    continue  # the line is still being written
                trees.append(tree)
        return trees

    def receipts(self, request_id: str, seconds: float = LINE_SECONDS) -> list[Tree]:
        """The canonical lines of one exchange; waits for the first."""

        def found() -> list[Tree]:
            return [
                line for line in self.logs() if line.get("event") == "request" and line.get("request_id") == request_id
            ]

        return self.until(found, f"no receipt for {request_id}", seconds)

    def receipt(self, request_id: str) -> Tree:
        """The one canonical line of an exchange.

        A later exchange is made and waited for first, so that a second line of the earlier one could not still be on
        its way.
        """
        self.receipts(request_id)
        fence = self.get("/health", key=None)
        self.receipts(fence.request_id)
        lines = self.receipts(request_id)
        assert len(lines) == 1, lines
        return lines[0]

    def last_receipt(self, count: int) -> Tree:
        """The newest canonical line once ``count`` are there (for exchanges that never learnt their id)."""

        def found() -> list[Tree]:
            lines = [line for line in self.logs() if line.get("event") == "request"]
            return lines if len(lines) >= count else []

        return self.until(found, f"fewer than {count} receipts", LINE_SECONDS)[-1]

    def until(self, probe: Callable[[], T], complaint: str, seconds: float = LINE_SECONDS) -> T:
        """The first true value of ``probe``; fails with the log."""
        deadline = time.monotonic() + seconds
        while not (value := probe()):
            assert time.monotonic() < deadline, f"{complaint}; the gateway printed:\n{self.output}"
            time.sleep(POLL_SECONDS)
        return value

    def wait(self, seconds: float = STOP_SECONDS) -> int:
        """The exit status, once it has ended."""
        return self.process.wait(seconds)

    def stop(self, sig: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and wait for the end."""
        self.process.send_signal(sig)
        return self.wait()

    def connect(self, *, receive_buffer: int = 0) -> Connection:
        """A connection of one's own."""
        return Connection(self.url, receive_buffer=receive_buffer)

    def headers(self, key: str | None = APP_KEY, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """Credential plus others."""
        return {**({} if key is None else bearer(key)), **(more or {})}

    def get(self, path: str, *, key: str | None = APP_KEY, headers: Mapping[str, str] | None = None) -> Reply:
        """GET on a new connection."""
        return request(self.url, "GET", path, None, self.headers(key, headers))

    def post(
        self, path: str, body: object = None, *, key: str | None = APP_KEY, headers: Mapping[str, str] | None = None
    ) -> Reply:
        """POST on a new connection."""
        return request(self.url, "POST", path, body, self.headers(key, headers))

    def chat(self, *, key: str | None = APP_KEY, headers: Mapping[str, str] | None = None, **members: object) -> Reply:
        """A chat request; ``members`` are added to (or replace) those of the body."""
        return self.post("/v1/chat/completions", chat_body(**members), key=key, headers=headers)

    def _wait_ready(self) -> str:
        deadline = time.monotonic() + START_SECONDS
        while True:
            for line in self.logs():
                if line.get("event") == "server.ready":
                    return str(line["url"]).rstrip("/").removesuffix("/v1")
            code = self.process.poll()
            assert code is None, f"the gateway ended with {code} before it was ready:\n{self.output}"
            assert time.monotonic() < deadline, f"the gateway was not ready in {START_SECONDS} s:\n{self.output}"
            time.sleep(POLL_SECONDS)


def chat_body(**members: object) -> Tree:
    """A small chat request."""
    return {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Say hello"}], **members}
