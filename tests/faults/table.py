"""Makes docs/reliability.md of the results: ``python -m tests.faults.table build/faults.json docs/reliability.md``.

The text around the table stands in the page itself; the rows between the two marks are written here.
"""

import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.faults.fault import KINDS, LANES, WORKERS
from tests.faults.order import FAULTS
from tests.faults.processes import PROMISES

BEGIN, END = "<!-- faults: begin -->", "<!-- faults: end -->"
COLUMNS = tuple((kind, lane) for kind in KINDS for lane in LANES)
TITLES = ("JSON, fast lane", "JSON, full lane", "SSE, fast lane", "SSE, full lane")
OK, NOT_APPLICABLE, FAILED = "ok", "n.a.", "**failed**"
Cell = tuple[str, str, str, int]
"""Name, kind, lane, workers."""


def expected() -> Iterator[tuple[str, str, str, set[Cell]]]:
    """Each row: name, promise, guard, and the cells that it is played in."""
    for fault in FAULTS:
        kinds = [kind for kind in KINDS if fault.scene(kind) is not None]
        cells: set[Cell] = {
            (fault.name, kind, lane, workers) for kind in kinds for lane in LANES for workers in WORKERS
        }
        yield fault.name, fault.promise, fault.guard, cells
    for promise in PROMISES:
        every: set[Cell] = {
            (promise.name, kind, lane, one) for kind in KINDS for lane in LANES for one in promise.workers
        }
        yield promise.name, promise.promise, promise.guard, every


def render(results: Mapping[Cell, str]) -> str:
    """The lines between the marks. ``results``: ``passed`` or anything else."""
    lines = [f"| Fault | Promise | {' | '.join(TITLES)} |", "|---|---|---|---|---|---|"]
    lines += [
        f"| `{name}` | {promise} | " + " | ".join(cell(cells, results, *column) for column in COLUMNS) + " |"
        for name, promise, _, cells in expected()
    ]
    lines += ["", "What keeps each promise:", "", "| Fault | Guard |", "|---|---|"]
    lines += [f"| `{name}` | {guard} |" for name, _, guard, _ in expected()]
    return "\n".join(lines)


def cell(cells: set[Cell], results: Mapping[Cell, str], kind: str, lane: str) -> str:
    """The result of one kind and lane, over all numbers of workers."""
    mine = [one for one in cells if one[1:3] == (kind, lane)]
    if not mine:
        return NOT_APPLICABLE
    outcomes = {results.get(one, "missing") for one in mine}
    return OK if outcomes == {"passed"} else FAILED


def replaced(page: str, results: Mapping[Cell, str]) -> str:
    """The page with the rows of these results."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{render(results)}\n{END}{after}"


def told(page: str) -> dict[Cell, str]:
    """The results that a page tells of, to render it again."""
    marks = {OK: "passed"}
    shown: dict[tuple[str, str, str], str] = {
        (row[1], *column): marks.get(text.strip(), "failed")
        for row in re.finditer(r"^\| `([^`]+)` \|(?:[^|]*)\|([^|]*)\|([^|]*)\|([^|]*)\|([^|]*)\|$", page, re.MULTILINE)
        for column, text in zip(COLUMNS, row.groups()[1:], strict=True)
    }
    return {one: shown.get(one[:3], "missing") for _, _, _, cells in expected() for one in cells}


def main() -> None:
    """Read the results, write the page."""
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    results = {(name, kind, lane, workers): how for name, kind, lane, workers, how in json.loads(source.read_text())}
    target.write_text(replaced(target.read_text(encoding="utf-8"), results), encoding="utf-8")


if __name__ == "__main__":
    main()
