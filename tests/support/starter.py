"""Starts gateways by forking a process that has imported the package: what is tested is the same, its imports are not paid for.

Most of a start is imports, and the tests start hundreds of gateways. One *starter* a test process (this file, run as a
script) imports all of the package once; for each gateway it forks a child that gets the descriptors, the environment and
the folder it would have had, and runs ``agw``'s own ``main``. The child is handed to the test process as its own
(``PR_SET_CHILD_SUBREAPER``, prctl(2)), so that it can be waited for and signalled like any other.
"""

import ctypes
import json
import os
import pkgutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
MESSAGE_BYTES = 1 << 17  # a whole environment
POLL_SECONDS = 0.005


class Started:
    """A child of the starter: the part of ``subprocess.Popen`` that tests use."""

    def __init__(self, pid: int) -> None:
        """``pid``: a child of this process, not waited for yet."""
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit status (negative: the signal), or None while it runs."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The exit status, once it has ended; raises ``subprocess.TimeoutExpired`` after ``timeout`` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if deadline is not None and time.monotonic() >= deadline:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0.0)
            time.sleep(POLL_SECONDS)
        return code

    def send_signal(self, sig: int) -> None:
        """Signal it, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, sig)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)


class Starter:
    """The forking process of this test process; started with the first gateway."""

    _running: "Starter | None" = None

    def __init__(self, root: Path) -> None:
        """``root``: the folder that holds the package under test."""
        if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")
        self._pid = os.getpid()
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MESSAGE_BYTES)
        environ = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_PROCESS")}
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", __file__, str(theirs.fileno())],
                env={**environ, "PYTHONPATH": str(root), "PYTHONUNBUFFERED": "1"},
                cwd=root,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
            )

    @classmethod
    def get(cls, root: Path) -> "Starter":
        """The one of this process (a fork of it needs its own)."""
        if cls._running is None or cls._running._pid != os.getpid():
            cls._running = cls(root)
        return cls._running

    def start(self, argv: Sequence[str], env: Mapping[str, str], cwd: Path, out: int, err: int) -> Started:
        """Run ``agw *argv`` in ``cwd``, its output to the two descriptors."""
        body = json.dumps({"argv": list(argv), "env": dict(env), "cwd": str(cwd)}).encode()
        socket.send_fds(self._socket, [body], [out, err])
        answer = self._socket.recv(64)
        assert answer, "the starter of gateways has ended"
        return Started(int(answer))


def import_everything() -> None:
    """Import all of the package but what runs as a script or wants an extra, and what measures coverage."""
    import coverage
    import Cython.Coverage  # the plugin's, see tests/cython_lines.py

    import agw_proxy

    assert coverage
    assert Cython.Coverage

    for module in pkgutil.walk_packages(agw_proxy.__path__, "agw_proxy."):
        if not module.name.endswith("__main__"):
            try:
                __import__(module.name)
            except ImportError as error:
                if (error.name or "").startswith("agw_proxy"):
                    raise


def run(order: dict[str, object], fds: Sequence[int]) -> None:
    """The child's life: what ``python -m agw_proxy`` does, to the end of the process."""
    from agw_proxy.cli import main

    os.dup2(fds[0], 1)
    os.dup2(fds[1], 2)
    os.closerange(3, max(fds) + 1)
    env, argv = order["env"], order["argv"]
    assert isinstance(env, dict)
    assert isinstance(argv, list)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(str(order["cwd"]))
    sys.argv = ["agw", *argv]
    measured = None
    if "COVERAGE_PROCESS_CONFIG" in env:
        import coverage

        measured = coverage.process_startup(slug="starter")
    code = 1
    try:
        code = main(argv)
    except SystemExit as done:
        code = done.code if isinstance(done.code, int) else int(done.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        if measured is not None:
            measured.stop()
            measured.save()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def serve(channel: socket.socket) -> None:
    """Fork a child for each order, until the test process has gone."""
    while True:
        body, fds, _, _ = socket.recv_fds(channel, MESSAGE_BYTES, 2)
        if not body:
            return
        read, write = os.pipe()
        between = os.fork()
        if between == 0:
            child = os.fork()
            if child == 0:
                run(json.loads(body), fds)
            os.write(write, str(child).encode())
            os._exit(0)
        os.waitpid(between, 0)  # its child belongs to the test process from here on
        channel.send(os.read(read, 64))
        for fd in (read, write, *fds):
            os.close(fd)


if __name__ == "__main__":
    import_everything()
    serve(socket.socket(fileno=int(sys.argv[1])))
