"""docs/errors.md says what the error tree says."""

from pathlib import Path

from agw_proxy.api.error_reference import page
from agw_proxy.errors import CODES

ROOT = Path(__file__).parents[2]


def test_the_page_is_up_to_date() -> None:
    assert (ROOT / "docs" / "errors.md").read_text() == page()


def test_every_code_says_who_has_to_act() -> None:
    assert {code.partition("_")[0] for code in CODES} == {"caller", "policy", "upstream", "gateway"}
