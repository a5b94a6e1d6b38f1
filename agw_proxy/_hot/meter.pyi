"""Counters, gauges, histograms and tallies in fixed slots: a region for each worker, which alone writes it and all may read."""

from collections.abc import Sequence
from typing import Final, NamedTuple, final

from typing_extensions import Buffer

COUNTER: Final[int]
GAUGE: Final[int]
HISTOGRAM: Final[int]
TALLY: Final[int]
"""Seven counters under the same labels, counted together."""

class Family(NamedTuple):
    """A metric's name and shape.

    ``bounds`` are upper bucket bounds (inclusive) in the unit recorded (integers, ascending, without +Inf; 1 to 31 of
    them for a histogram, none otherwise). At most 8 ``labels``. ``max_series`` counts the ``other`` series too.
    """

    name: str
    kind: int
    labels: tuple[str, ...] = ()
    bounds: tuple[int, ...] = ()
    max_series: int = 256

class Sample(NamedTuple):
    """One series, summed over workers.

    Counters and gauges: ``value``; no ``buckets``, ``total`` 0. Histograms: ``value`` is the number of observations (a
    sum of ``buckets``), ``buckets`` are counts per bucket (not cumulative, last is +Inf), ``total`` is the sum of the
    values observed. Tallies: ``buckets`` are all seven, ``value`` is the first. Read while a
    worker writes, ``total`` may be one observation behind or ahead of ``buckets``.
    """

    family: Family
    labels: tuple[str, ...]
    value: int
    buckets: tuple[int, ...]
    total: int

@final
class Meter:
    """All families of a process, over a buffer that workers may share.

    One thread of one process writes a region (or several threads that hold the GIL). Values are single 64-bit words,
    stored whole: a reader anywhere sees the old or the new one. They stop at the ends of 64 bits instead of wrapping.
    """

    @property
    def families(self) -> tuple[Family, ...]: ...
    @property
    def worker(self) -> int: ...
    @property
    def workers(self) -> int: ...
    def __init__(
        self, families: Sequence[Family], buffer: Buffer | None = None, *, worker: int = 0, workers: int = 1
    ) -> None:
        """``buffer``: writable, 64-byte aligned, zeroed at first use, at least ``Meter.size(families, workers)``.

        A replaced worker finds its own region as it left it. A meter that only collects may be made with any
        ``worker``: nothing is written to a region before the first use of a series.
        Raises ValueError on a family that cannot be, a buffer that is too small, unaligned or was made for other
        families or another number of workers, and a worker out of range; BufferError on a read-only buffer.
        """
    @staticmethod
    def size(families: Sequence[Family], workers: int = 1) -> int:
        """Bytes that such a meter needs. Raises ValueError."""
    def series(self, family: str, labels: tuple[str, ...] = ()) -> int:
        """The handle of a series, made at first use; it stays valid for this worker and its replacements.

        Where the family is full, that of the series whose labels are all ``other`` (always there). A label's value is
        kept to 63 bytes of UTF-8, whole characters; values that are equal that far are one series.
        Raises KeyError for an unknown family, ValueError for a wrong number of labels.
        """
    def add(self, handle: int, amount: int = 1) -> None:
        """Counters and gauges.

        Raises IndexError for an unknown handle, ValueError for a histogram's or where a counter would go down.
        """
    def tally(self, handle: int, *amounts: int) -> None:
        """Tallies: add to all seven at once; amounts below 0 are none. Raises IndexError, ValueError."""
    def observe(self, handle: int, value: int) -> None:
        """Histograms: one observation, in the family's unit.

        Raises IndexError for an unknown handle, ValueError for one of another kind.
        """
    def overflowed(self) -> int:
        """How often ``series`` had no room and gave the ``other`` series instead, over all workers."""
    def forget_gauges(self, worker: int) -> None:
        """Set a dead worker's gauges to 0: what it held is gone. Before its replacement starts. Raises ValueError."""
    def collect(self, family: str | None = None) -> list[Sample]:
        """All series of all workers (of one family), summed by labels, in the order of the families, then of first use.

        The ``other`` series of a labelled family comes first, also while it is 0.
        """
