"""The order of a Responses conversation, which is freer than that of other dialects: results stand behind their calls."""

from typing import Any

from agw_proxy.dialects.base import Message, Request, Text, ToolResult, ToolUse
from agw_proxy.dialects.openai_responses_requests import read_request

NOTE = {"role": "developer", "content": "note"}


def read(*items: dict[str, Any]) -> Request:
    return read_request({"model": "m", "input": list(items)})


def call(identity: str) -> dict[str, Any]:
    return {"type": "function_call", "call_id": identity, "name": "f", "arguments": "{}"}


def output(identity: str) -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": identity, "output": identity}


def result(identity: str) -> ToolResult:
    return ToolResult(identity, [Text(identity)])


def test_results_stand_right_behind_their_calls_whatever_came_between() -> None:
    question = {"role": "user", "content": "q"}
    made = read(call("a"), call("b"), NOTE, output("b"), call("c"), output("c"), question, output("a"))
    assert made.messages == [
        Message("assistant", [ToolUse("a", "f", "{}"), ToolUse("b", "f", "{}")]),
        Message("user", [result("b"), result("a")]),
        Message("system", [Text("note")]),
        Message("assistant", [ToolUse("c", "f", "{}")]),
        Message("user", [result("c")]),
        Message("user", [Text("q")]),
    ]


def test_results_in_their_place_and_those_without_a_call_stay_there() -> None:
    assert read(call("a"), output("a"), output("b")).messages == [
        Message("assistant", [ToolUse("a", "f", "{}")]),
        Message("user", [result("a"), result("b")]),
    ]
    assert read(output("x"), NOTE, output("y")).messages == [
        Message("user", [result("x")]),
        Message("system", [Text("note")]),
        Message("user", [result("y")]),
    ]


def test_an_id_that_comes_again_belongs_to_the_last_call_before() -> None:
    assert read(call("a"), output("a"), NOTE, call("a"), NOTE, output("a")).messages == [
        Message("assistant", [ToolUse("a", "f", "{}")]),
        Message("user", [result("a")]),
        Message("system", [Text("note")]),
        Message("assistant", [ToolUse("a", "f", "{}")]),
        Message("user", [result("a")]),
        Message("system", [Text("note")]),
    ]


def test_thoughts_of_which_nothing_is_told_are_none() -> None:
    made = read({"type": "reasoning", "id": "rs_1", "summary": []}, {"role": "user", "content": "q"})
    assert made.messages == [Message("user", [Text("q")])]
