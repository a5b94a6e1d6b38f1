import pytest

from agw_proxy.dialects.anthropic_messages_models import (
    highest_effort,
    takes_sampling,
    takes_schemas,
    thinks_adaptively,
    version,
)
from agw_proxy.dialects.efforts import BUDGETS, budget_of, effort_of

VERSIONS = [
    ("claude-3-opus-20240229", (3, 0)),
    ("claude-3-7-sonnet-20250219", (3, 7)),
    ("claude-3-5-haiku-latest", (3, 5)),
    ("claude-sonnet-4-20250514", (4, 0)),
    ("claude-opus-4-1-20250805", (4, 1)),
    ("claude-haiku-4-5", (4, 5)),
    ("anthropic/claude-sonnet-4.6", (4, 6)),
    ("us.anthropic.claude-opus-4-7-v1:0", (4, 7)),
    ("claude-opus-5", (5, 0)),
    ("claude-fable-5-1", (5, 1)),
    ("claude-mythos-preview", (5, 0)),
    ("claude-latest", None),
    ("llama-3-7-b", None),
]


@pytest.mark.parametrize(("model", "expected"), VERSIONS)
def test_versions_are_read_from_names(model: str, expected: tuple[int, int] | None) -> None:
    assert version(model) == expected


@pytest.mark.parametrize(
    ("model", "adaptive", "sampling", "schemas"),
    [
        ("claude-3-7-sonnet-20250219", False, True, False),
        ("claude-sonnet-4-5", False, True, True),
        ("claude-opus-4-6", True, True, True),
        ("claude-opus-4-7", True, False, True),
        ("kimi-k2", False, True, True),
    ],
)
def test_what_models_take(model: str, adaptive: bool, sampling: bool, schemas: bool) -> None:
    assert (thinks_adaptively(model), takes_sampling(model), takes_schemas(model)) == (adaptive, sampling, schemas)


def test_efforts_and_budgets_agree() -> None:
    assert highest_effort("claude-opus-4-6", "max") == "max"
    assert [effort_of(budget_of(effort)) for effort in ("low", "medium", "high")] == ["low", "medium", "high"]
    assert [effort_of(budget) for budget in (0, 4000, 10_000, 16_000, 31_999)] == [
        "low",
        "low",
        "medium",
        "high",
        "high",
    ]
    assert budget_of(None) == budget_of("medium") == budget_of("whatever")
    assert sorted(BUDGETS.values()) == list(BUDGETS.values())
