"""Wires usage: from the meter that all workers count in to the file that one of them writes."""

import secrets
from collections.abc import Callable, Mapping
from pathlib import Path

from agw_proxy.config import devkey
from agw_proxy.config.settings import Settings
from agw_proxy.edge.shared import Shared
from agw_proxy.edge.state import State
from agw_proxy.observe.log import Log
from agw_proxy.observe.metrics import USAGE, Metrics, key_label
from agw_proxy.store.recorder import Recorder

FILE = "usage.db"


def recorder(
    settings: Settings,
    environ: Mapping[str, str],
    shared: Shared | None,
    metrics: Metrics,
    log: Log,
    state: Callable[[], State],
) -> Recorder:
    """What reads and writes the file. Where that is stays as it is in ``settings``, those of the start."""
    path = settings.usage.path or Path(devkey.state_dir(settings.server.state_dir, environ), FILE)
    run = secrets.token_hex(8) if shared is None else shared.run
    troubled = False

    def teams() -> Mapping[str, str]:
        return {key_label(key.name): key.team for key in state().settings.keys if key.team is not None}

    def tell(trouble: str | None) -> None:
        nonlocal troubled
        if trouble is None:
            log.events.warning("usage.written_again", path=str(path))
        else:
            metrics.dropped("usage")
            if not troubled:  # once, not every few seconds
                log.events.error("usage.not_written", path=str(path), error=trouble)
        troubled = trouble is not None

    return Recorder(path, run, lambda: metrics.meter.collect(USAGE), teams, tell=tell)
