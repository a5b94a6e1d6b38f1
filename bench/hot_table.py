"""Turns pytest-benchmark's JSON into a small markdown table: ``python -m bench.hot_table run.json table.md``.

A group with a plain-Python model beside the compiled code also gets the ratio of the medians.
"""

import json
import sys
from itertools import groupby
from pathlib import Path
from typing import Any

COMMAND = "make bench"
UNITS = ((1e-6, 1e9, "ns"), (1e-3, 1e6, "us"), (1.0, 1e3, "ms"))


def time_text(seconds: float) -> str:
    """Give a time in the unit in which it is easily read."""
    for bound, factor, unit in UNITS:
        if seconds < bound:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds:.3g} s"


def rows(benchmarks: list[dict[str, Any]]) -> list[str]:
    """Give the table's lines, by group in the order of the run."""
    lines = ["| What | Case | Median | Quartiles | Against the model |", "|---|---|---:|---:|---:|"]
    grouped = sorted(benchmarks, key=lambda item: item["group"] or "")
    for group, members in groupby(grouped, key=lambda item: item["group"] or ""):
        listed = list(members)
        model = next((item["stats"]["median"] for item in listed if is_model(item)), None)
        for item in listed:
            stats = item["stats"]
            ratio = f"{model / stats['median']:.1f} x" if model and not is_model(item) else ""
            spread = f"{time_text(stats['q1'])} - {time_text(stats['q3'])}"
            case = item["name"].removeprefix("test_")
            lines.append(f"| {group or '-'} | {case} | {time_text(stats['median'])} | {spread} | {ratio} |")
    return lines


def is_model(item: dict[str, Any]) -> bool:
    """Whether a benchmark measures the plain-Python model."""
    return "model" in item["name"].replace("[", "_").replace("]", "_").split("_")


def main(source: Path, target: Path) -> None:
    """Write the table."""
    run = json.loads(source.read_text())
    machine = run["machine_info"]
    cpu = machine.get("cpu", {}).get("brand_raw", "unknown processor")
    head = [
        "# The compiled core, by itself",
        "",
        f"`{COMMAND}` repeats this. {cpu}, Python {machine['python_version']}, {run['datetime'][:10]}.",
        "Times are of one call, called from Python; compare within a group, and trust the ratios, not the digits.",
        "",
    ]
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text("\n".join([*head, *rows(run["benchmarks"])]) + "\n")
    print(f"wrote {target}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
