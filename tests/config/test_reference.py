"""docs/configuration.md is what the models say, and its example loads."""

import re
from pathlib import Path

from agw_proxy.config import reference
from agw_proxy.config.environment import ALIASES, LOCATORS
from agw_proxy.config.settings import UNSUPPORTED
from tests.config.conftest import Folder

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == reference.render(), (
        "run: python -m agw_proxy.config.reference > docs/configuration.md"
    )


def test_the_page_names_every_special_name_and_every_later_section() -> None:
    page = reference.render()
    for name in (*ALIASES, *LOCATORS, *UNSUPPORTED):
        assert f"`{name}`" in page


def test_every_field_has_a_meaning() -> None:
    rows = [
        line
        for line in reference.render().splitlines()
        if line.startswith("| `") and "GATEWAY_" in line and line.count("|") == 6
    ]
    assert len(rows) > 50
    assert not [row for row in rows if row.endswith("|  |")]


def test_the_pages_example_loads(folder: Folder) -> None:
    match = re.search(r"```yaml\n(.*?)```", reference.render(), re.DOTALL)
    assert match is not None
    folder.write("agw-zyxwvutsrqponmlkjihgfe\n", "secret")
    text = match[1].replace("/run/secrets/app_key", "secret")
    made = folder.load(text, OPENAI_API_KEY="sk", GATEWAY_DEV_KEY="agw-0123456789abcdefghij").settings
    assert [key.name for key in made.keys] == ["dev", "app"]


def test_shares_and_factors_are_numbers_and_times_are_durations() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert "| `ratio` | number | `0.5` |" in page
    assert "| `replay_speed` | number | `1` |" in page
    assert "| `after` | duration | `p95` |" in page
    assert "| `first_token` | duration | null |" in page
