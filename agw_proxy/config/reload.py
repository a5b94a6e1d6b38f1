"""Holds the configuration in force, and replaces it only by one that loads."""

import time
from collections.abc import Callable
from datetime import UTC, datetime

from agw_proxy.config.loader import Loaded, refuse_emptied
from agw_proxy.config.settings import Log, Settings
from agw_proxy.config.tree import ConfigError

FIXED = (
    "host", "port", "workers", "heartbeat_seconds", "admin_port", "max_body_mb", "max_header_kb", "max_connections",
    "body_seconds", "state_dir", "record",
)  # fmt: skip
"""Of ``server``: what is read at the start and not at a reload."""

SECTIONS = ("redis", "trace", "usage", "runs")
"""Likewise, whole."""


class Reloader:
    """``current`` is always valid; ``version`` counts from 1 and grows by one with each accepted reload.

    ``last_success``: when ``current`` was accepted, in seconds of ``clock``. ``last_error``: why the latest reload was
    refused; None once one has been accepted again. Not thread-safe: one owner calls ``reload``.
    """

    def __init__(self, load: Callable[[], Loaded], current: Loaded, clock: Callable[[], float] = time.time) -> None:
        """``load`` reads the configuration anew and raises ConfigError where it is not valid."""
        self._load = load
        self._clock = clock
        self.current = current
        self.version = 1
        self.last_success = clock()
        self.last_error: ConfigError | None = None
        self.last_error_at: float | None = None

    def reload(self) -> Loaded:
        """Load anew and give what is now in force; on ConfigError, which is raised, the old configuration stays."""
        try:
            loaded = self._load()
            refuse_emptied(loaded, self.current)
        except ConfigError as error:
            self.last_error = error
            self.last_error_at = self._clock()
            raise
        self.current = loaded
        self.version += 1
        self.last_success = self._clock()
        self.last_error = None
        self.last_error_at = None
        return loaded

    def told(self) -> dict[str, object]:
        """Version, time, files and last error, as operators are told."""
        return {
            "version": self.version,
            "loaded_at": _stamp(self.last_success),
            "files": [str(file) for file in self.current.files],
            "last_error": str(self.last_error) if self.last_error is not None else None,
            "last_error_at": _stamp(self.last_error_at) if self.last_error_at is not None else None,
        }


def needs_restart(started: Settings, current: Settings) -> list[str]:
    """Fields by which ``current`` differs from the settings that the process has started with, and that are read then only.

    The first budgets of all are among them: they count, but the file that keeps what is spent is made at the start.
    """
    fixed = [f"server.{field}" for field in FIXED if getattr(started.server, field) != getattr(current.server, field)]
    fixed += [
        f"log.{field}" for field in Log.model_fields if getattr(started.log, field) != getattr(current.log, field)
    ]
    fixed += ["agents.workers"] if started.agents.workers != current.agents.workers else []
    fixed += ["metrics.prometheus"] if started.metrics.prometheus != current.metrics.prometheus else []
    fixed += [section for section in SECTIONS if getattr(started, section) != getattr(current, section)]
    return fixed + (["budgets"] if current.has_budgets and not started.has_budgets else [])


def with_fixed(started: Settings, current: Settings) -> Settings:
    """``current``, but for what is read at the start only: that stays, for processes that come later too."""
    metrics = current.metrics.model_copy(update={"prometheus": started.metrics.prometheus})
    server = current.server.model_copy(update={field: getattr(started.server, field) for field in FIXED})
    agents = current.agents.model_copy(update={"workers": started.agents.workers})
    sections = {section: getattr(started, section) for section in SECTIONS}
    return current.model_copy(
        update={"server": server, "agents": agents, "log": started.log, "metrics": metrics, **sections}
    )


def _stamp(seconds: float) -> str:
    """UTC in RFC 3339, to the second."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
