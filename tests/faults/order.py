"""All faults that are played on a running gateway, in the order of the table."""

from tests.faults import before, broken, circuits, clients, shapes, stalls, turns
from tests.faults.fault import KINDS, LANES, WORKERS, Fault, Kind, Lane

FAULTS: tuple[Fault, ...] = (
    *before.ROWS,
    *stalls.ROWS,
    *turns.ROWS,
    *circuits.ROWS,
    *broken.ROWS,
    *shapes.ROWS,
    *clients.ROWS,
)


def plays() -> list[tuple[Fault, Kind, Lane, int, bool]]:
    """Every (fault, kind, lane, workers), and whether it is the one of its fault that the quick tests play.

    Those go round, so that all lanes, kinds and numbers of workers are seen.
    """
    found = []
    for number, fault in enumerate(FAULTS):
        kinds = [kind for kind in KINDS if fault.scene(kind) is not None]
        chosen = (kinds[number // 2 % len(kinds)], LANES[number % 2], WORKERS[number % 2])
        found += [
            (fault, kind, lane, workers, (kind, lane, workers) == chosen)
            for kind in kinds
            for lane in LANES
            for workers in WORKERS
        ]
    return found
