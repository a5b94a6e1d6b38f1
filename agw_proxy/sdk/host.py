"""The gateway around authors' helpers: memory for their limits, and where they count. In a plain script there is none."""

from collections.abc import Callable

import msgspec

from agw_proxy._hot.limit import Table


class Host(msgspec.Struct, frozen=True):
    """Of one process."""

    table: Table
    """Shared by all workers."""
    helped: Callable[[str, str, str], None]
    """Hears helper, name and outcome, where one had to do something. On any thread; quick."""
    tracked: Callable[[str, str, int], None]
    """Hears name, outcome and nanoseconds."""


ALONE_LINES = 1024
"""Places for limits where there is no gateway."""


def alone() -> Host:
    """Where there is no gateway: limits are of this process, and nothing is counted."""
    table = Table(slots=ALONE_LINES, gates=8, windows=32, leases=8)
    return Host(table, lambda *_: None, lambda *_: None)


_hosts: list[Host] = []


def serve(host: Host) -> None:
    """From now on helpers of this process work within that gateway."""
    _hosts[:] = [host]


def here() -> Host:
    """The gateway around, or none."""
    if not _hosts:
        _hosts.append(alone())
    return _hosts[0]
