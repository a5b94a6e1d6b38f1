"""How much to think, in words and in tokens: the one table between them.

OpenAI asks in words (``reasoning_effort``), Anthropic's older models and Gemini 2 in tokens (``budget_tokens``,
``thinkingBudget``), Anthropic's newer models in words again (``output_config.effort``).
"""

BUDGETS = {"minimal": 1024, "low": 2048, "medium": 8192, "high": 16384, "xhigh": 20480, "max": 23552}
"""Tokens for a word. 1024 is the least that Anthropic takes; the most leaves room for an answer in the 32,000 tokens
that the smallest of its thinking models can write."""


def budget_of(effort: str | None) -> int:
    """Tokens for an effort; an unknown one, or None, is ``medium``, as with OpenAI."""
    return BUDGETS.get(effort or "medium", BUDGETS["medium"])


def effort_of(budget: int) -> str:
    """The word whose budget is nearest, of ``low``, ``medium`` and ``high``, which every model that thinks understands."""
    return min(("low", "medium", "high"), key=lambda word: abs(BUDGETS[word] - budget))
