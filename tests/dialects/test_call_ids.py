"""Ids of calls that a server of Chat does not take: they fit there, and calls and results still agree."""

import re
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agw_proxy.config.presets import BY_NAME, Quirks
from agw_proxy.dialects import translate
from agw_proxy.dialects.call_ids import fitting
from agw_proxy.dialects.gemini_names import made_id

LONG = "call_" + "x" * 59
"""As long as Responses takes them."""


@given(st.text(max_size=70))
def test_every_id_becomes_one_that_fits_and_stays_if_it_does(given_id: str) -> None:
    made, exact = fitting(given_id), fitting(given_id, 9)
    assert len(made) <= 40
    assert (made == given_id) == (len(given_id) <= 40)
    assert re.fullmatch("[a-zA-Z0-9]{9}", exact)
    assert (fitting(made), fitting(exact, 9)) == (made, exact)


def test_ids_that_differ_stay_different() -> None:
    ids = [LONG, LONG[:-1] + "y", "toolu_1", "toolu_2", "D681PevKs"]
    for exactly in (None, 9):
        assert len({fitting(each, exactly) for each in ids}) == len(ids)


@pytest.mark.parametrize(("quirks", "form"), [(Quirks(), ".{1,40}"), (BY_NAME["mistral"].quirks, "[a-zA-Z0-9]{9}")])
def test_a_call_and_its_result_agree(quirks: Quirks, form: str) -> None:
    items: list[dict[str, Any]] = [
        {"role": "user", "content": "Go"},
        {"type": "function_call", "call_id": LONG, "name": "f", "arguments": "{}"},
        {"type": "function_call", "call_id": "D681PevKs", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "D681PevKs", "output": "2"},
        {"type": "function_call_output", "call_id": LONG, "output": "1"},
    ]
    request = translate.read_request("responses", orjson.dumps({"model": "m", "input": items}))
    _, turn, *results = orjson.loads(translate.write_request(request, "chat", "m", quirks).body)["messages"]
    calls = [call["id"] for call in turn["tool_calls"]]
    assert all(re.fullmatch(form, call) for call in calls)
    assert {one["tool_call_id"]: one["content"] for one in results} == {calls[0]: "1", calls[1]: "2"}
    assert calls[1] == "D681PevKs"


def test_ids_that_are_made_here_are_taken_as_they_are() -> None:
    """They may come back to a server that they are relayed to."""
    assert len(made_id("x" * 80, b"{}", 99)) <= 40
