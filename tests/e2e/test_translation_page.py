"""docs/translation.md tells of exactly the cases that the tests play, and of the features as the code decides."""

from pathlib import Path

from tests.e2e.translation_page import replaced

PAGE = Path(__file__).parents[2] / "docs" / "translation.md"


def test_the_tables_are_those_of_the_code() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == replaced(page), "run: python -m tests.e2e.translation_page docs/translation.md"
