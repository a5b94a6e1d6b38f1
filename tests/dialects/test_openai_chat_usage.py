"""What is told of usage where an upstream has told a part of it."""

import pytest

from agw_proxy.dialects import gemini_answers, openai_chat_usage
from agw_proxy.dialects.base import Tokens
from agw_proxy.dialects.openai_responses_shape import usage_tree


@pytest.mark.parametrize(
    ("tokens", "given"),
    [(Tokens(-1, 9, cached=8, written=3), 11), (Tokens(21, 9, cached=8), 21), (Tokens(-1, 9), 0), (Tokens(0, 9), 0)],
)
def test_a_prompt_has_at_least_what_the_cache_had_of_it(tokens: Tokens, given: int) -> None:
    chat = openai_chat_usage.write_tokens(tokens)
    assert chat is not None
    assert (chat["prompt_tokens"], chat["total_tokens"]) == (given, given + 9)
    response = usage_tree(tokens)
    assert (response["input_tokens"], response["total_tokens"]) == (given, given + 9)


def test_google_is_told_of_a_prompt_where_anything_is_known_of_it() -> None:
    told = gemini_answers.write_tokens(Tokens(-1, 9, cached=8))
    assert told == {
        "promptTokenCount": 8, "cachedContentTokenCount": 8, "candidatesTokenCount": 9, "totalTokenCount": 17,
    }  # fmt: skip
    assert gemini_answers.write_tokens(Tokens(-1, 9)) == {"candidatesTokenCount": 9}
