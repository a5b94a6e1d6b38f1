"""Holds the configuration in force, and replaces it only by one that loads."""

import time
from collections.abc import Callable

from agw_proxy.config.loader import Loaded
from agw_proxy.config.tree import ConfigError


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
