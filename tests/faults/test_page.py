"""docs/reliability.md has exactly the faults of the suite, and claims nothing that was not played."""

from pathlib import Path

import pytest

from tests.faults.mutants import MUTANTS
from tests.faults.order import FAULTS
from tests.faults.processes import PROMISES
from tests.faults.table import FAILED, expected, render, replaced, told

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
NAMES = [fault.name for fault in FAULTS] + [promise.name for promise in PROMISES]


def page() -> str:
    return PAGE.read_text(encoding="utf-8")


def test_names_are_used_once() -> None:
    assert len(NAMES) == len(set(NAMES))


def test_the_table_is_that_of_the_suite() -> None:
    assert page() == replaced(page(), told(page())), "run: make faults"


def test_no_row_has_failed() -> None:
    assert FAILED not in page()


def test_a_result_that_is_missing_or_bad_is_seen() -> None:
    name, _, _, cells = next(iter(expected()))
    good = dict.fromkeys(cells, "passed")
    row = next(line for line in render(good).splitlines() if f"`{name}`" in line)
    assert FAILED not in row
    bad = next(line for line in render({**good, min(cells): "failed"}).splitlines() if f"`{name}`" in line)
    assert bad.count(FAILED) == 1
    assert FAILED in render({})


@pytest.mark.full  # they move whenever their line does
def test_each_mutant_belongs_to_a_row_and_finds_its_line() -> None:
    for mutant in MUTANTS:
        assert mutant.fault in NAMES
        assert (PAGE.parents[1] / mutant.file).read_text().count(mutant.line) == 1, mutant
