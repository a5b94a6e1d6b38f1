"""How to generate, for Google: what each model takes of it."""

from typing import Any

import orjson
import pytest

from agw_proxy.dialects.base import Format, Message, Reasoning, Text, Thinking, Tool, ToolChoice, Untranslatable, sealed
from tests.dialects.test_gemini_requests_written import GEMINI_3, SCHEMA, written


def test_how_to_generate_is_written() -> None:
    tree, dropped = written(
        max_tokens=9, temperature=1.5, top_p=0.5, top_k=3, stop=["a", ""], seed=5, presence_penalty=0.1,
        frequency_penalty=0.2, logprobs=2, format=Format(SCHEMA), service_tier="flex", parallel=True, stream=True,
    )  # fmt: skip
    assert tree["generationConfig"] == {
        "maxOutputTokens": 9, "temperature": 1.5, "topP": 0.5, "topK": 3, "stopSequences": ["a"], "seed": 5,
        "presencePenalty": 0.1, "frequencyPenalty": 0.2, "responseLogprobs": True, "logprobs": 2,
        "responseMimeType": "application/json", "responseJsonSchema": SCHEMA,
    }  # fmt: skip
    assert (tree["serviceTier"], dropped) == ("flex", [])


@pytest.mark.parametrize(
    ("model", "asked", "config", "told"),
    [
        ("gemini-2.5-flash", Reasoning(effort="high"), {"thinkingBudget": 16384}, []),
        ("gemini-2.5-flash", Reasoning(budget=10**6), {"thinkingBudget": 24576}, []),
        ("gemini-2.5-pro", Reasoning(budget=10**6, summary="auto"), {"thinkingBudget": 32768, "includeThoughts": True}, []),
        ("gemini-2.5-flash-lite", Reasoning(budget=1), {"thinkingBudget": 512}, []),
        ("gemini-2.5-flash", Reasoning(enabled=False), {"thinkingBudget": 0}, []),
        ("gemini-2.5-pro", Reasoning(effort="none"), {"thinkingBudget": 128}, ["reasoning"]),
        ("gemini-2.5-flash", Reasoning(adaptive=True), {"thinkingBudget": -1}, []),
        ("models/gemini-2.5-flash", Reasoning(enabled=True), {"thinkingBudget": -1}, []),
        ("gemini-2.0-flash", Reasoning(effort="low"), None, ["reasoning"]),
        ("gemini-2.0-flash", Reasoning(effort="none"), None, []),
        (GEMINI_3, Reasoning(effort="minimal"), {"thinkingLevel": "minimal"}, []),
        ("gemini-3.1-pro-preview", Reasoning(effort="minimal"), {"thinkingLevel": "low"}, []),
        ("gemini-3.1-pro-preview", Reasoning(effort="medium"), {"thinkingLevel": "medium"}, []),
        ("gemini-3-pro-preview", Reasoning(effort="medium"), {"thinkingLevel": "high"}, []),
        (GEMINI_3, Reasoning(effort="xhigh"), {"thinkingLevel": "high"}, []),
        (GEMINI_3, Reasoning(budget=1024), {"thinkingLevel": "low"}, []),
        (GEMINI_3, Reasoning(adaptive=True, summary="detailed"), {"includeThoughts": True}, []),
        (GEMINI_3, Reasoning(enabled=False, summary="auto"), {"thinkingLevel": "minimal"}, ["reasoning"]),
        ("gemini-flash-latest", Reasoning(effort="medium"), {"thinkingLevel": "medium"}, []),
    ],
)  # fmt: skip
def test_thinking_is_asked_for_as_the_model_understands_it(model: Any, asked: Any, config: Any, told: Any) -> None:
    tree, dropped = written(model=model, reasoning=asked)
    assert (tree.get("generationConfig", {}).get("thinkingConfig"), dropped) == (config, told)


def test_a_format_beside_functions_is_told_in_words_to_models_that_refuse_both() -> None:
    tools, schema = [Tool("f", None, SCHEMA)], Format(SCHEMA)
    tree, dropped = written(model="gemini-2.5-pro", tools=tools, format=schema)
    told = tree["systemInstruction"]["parts"][-1]["text"]
    assert ("generationConfig" in tree, dropped) == (False, ["json_schema"])
    assert told.endswith(orjson.dumps(SCHEMA).decode())
    assert written(model="gemini-2.0-flash", tools=tools, format=Format())[1] == ["json_object"]
    tree, dropped = written(model="gemini-3-flash", tools=tools, format=schema)
    assert (tree["generationConfig"]["responseJsonSchema"], dropped) == (SCHEMA, [])
    # Functions that must not be called need not be there.
    tree, dropped = written(model="gemini-2.5-pro", tools=tools, format=schema, tool_choice=ToolChoice("none"))
    assert (tree["generationConfig"]["responseJsonSchema"], "tools" in tree, dropped) == (SCHEMA, False, [])
    deep: Any = {}
    for _ in range(300):
        deep = {"items": deep}
    with pytest.raises(Untranslatable):
        written(model="gemini-2.5-pro", tools=tools, format=Format(deep))


def test_what_stood_around_a_turn_of_which_nothing_is_left_is_one_content() -> None:
    tree, _ = written(
        [
            Message("user", [Text("a")]),
            Message("assistant", [Thinking("hm", sealed("messages", "x"))]),
            Message("user", [Text("b")]),
        ]
    )
    assert tree["contents"] == [{"role": "user", "parts": [{"text": "a"}, {"text": "b"}]}]
