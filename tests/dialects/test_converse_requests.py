"""Requests for Converse are what Amazon's own model of it takes; what is lost is told."""

import base64
from typing import Any

import pytest

from agw_proxy.dialects.anthropic_messages_requests import read_request
from agw_proxy.dialects.base import Untranslatable
from agw_proxy.dialects.converse_requests import Writer
from tests.support.converse import check_converse

Tree = dict[str, Any]

PNG = base64.b64encode(b"\x89PNG").decode()
CACHE = {"type": "ephemeral"}
TOOL = {"name": "f", "description": "d", "input_schema": {"type": "object", "properties": {}}}
CALLED: list[Tree] = [
    {"role": "user", "content": "Go"},
    {
        "role": "assistant",
        "content": [
            {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"},
            {"type": "tool_use", "id": f"toolu_{'x' * 90}1", "name": "f", "input": {"a": 1}},
            {"type": "tool_use", "id": "toolu_2", "name": "f", "input": {}},
        ],
    },
    {
        "role": "user",
        "content": [
            {"type": "tool_result", "tool_use_id": f"toolu_{'x' * 90}1", "content": "12", "is_error": True},
            {
                "type": "tool_result",
                "tool_use_id": "toolu_2",
                "content": [{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}],
            },
        ],
    },
]


def write(**members: Any) -> tuple[Tree, list[str]]:
    """What is written, and what is lost."""
    tree = {"model": "amazon.nova", "max_tokens": 50, "messages": [{"role": "user", "content": "Hi"}], **members}
    writer = Writer()
    made = writer.write(read_request(tree))
    assert check_converse(made) is None, made
    return made, writer.dropped


def test_words_and_settings() -> None:
    made, dropped = write(system="Be brief.", temperature=0.5, stop_sequences=["x"])
    assert made == {
        "system": [{"text": "Be brief."}],
        "messages": [{"role": "user", "content": [{"text": "Hi"}]}],
        "inferenceConfig": {"maxTokens": 50, "temperature": 0.5, "stopSequences": ["x"]},
    }
    assert dropped == []


def test_calls_and_their_results_keep_together() -> None:
    made, dropped = write(messages=CALLED, tools=[TOOL])
    calls = [block["toolUse"] for block in made["messages"][1]["content"]]
    results = [block["toolResult"] for block in made["messages"][2]["content"]]
    assert [call["toolUseId"] for call in calls] == [result["toolUseId"] for result in results]
    assert all(len(call["toolUseId"]) <= 64 for call in calls)
    assert (calls[0]["input"], results[0]["status"], results[0]["content"]) == ({"a": 1}, "error", [{"text": "12"}])
    assert results[1]["content"] == [{"image": {"format": "png", "source": {"bytes": PNG}}}]
    assert dropped == ["foreign_reasoning"]


@pytest.mark.parametrize(
    ("choice", "made", "lost"),
    [
        ({"type": "auto"}, {"auto": {}}, []),
        ({"type": "any", "disable_parallel_tool_use": True}, {"any": {}}, ["parallel_tool_calls"]),
        ({"type": "tool", "name": "f"}, {"tool": {"name": "f"}}, []),
        ({"type": "none"}, None, ["tool_choice"]),
    ],
)
def test_which_tool_may_be_called(choice: Tree, made: Tree | None, lost: list[str]) -> None:
    history = [CALLED[0], {"role": "assistant", "content": CALLED[1]["content"][1:]}, CALLED[2]]
    tree, dropped = write(messages=history, tools=[TOOL], tool_choice=choice)
    assert tree["toolConfig"].get("toolChoice") == made
    assert dropped == lost


def test_a_tool_that_must_not_be_called_is_not_offered() -> None:
    made, _ = write(tools=[TOOL], tool_choice={"type": "none"})
    assert "toolConfig" not in made


def test_documents_have_names_that_differ() -> None:
    pdf = {"type": "base64", "media_type": "application/pdf", "data": PNG}
    text = {"type": "text", "media_type": "text/plain", "data": "words"}
    blocks = [
        {"type": "document", "source": pdf, "title": "A  report_(1).pdf"},
        {"type": "document", "source": text, "cache_control": CACHE},
        {"type": "text", "text": "Read."},
    ]
    made, dropped = write(messages=[{"role": "user", "content": blocks}])
    documents = [block["document"] for block in made["messages"][0]["content"] if "document" in block]
    assert [(one["format"], one["name"]) for one in documents] == [("pdf", "A report(1)pdf 1"), ("txt", "document 2")]
    assert base64.b64decode(documents[1]["source"]["bytes"]) == b"words"
    assert dropped == ["cache_control"]


def test_a_document_does_not_stand_without_words() -> None:
    pdf = {"type": "base64", "media_type": "application/pdf", "data": PNG}
    made, _ = write(messages=[{"role": "user", "content": [{"type": "document", "source": pdf}]}])
    assert [next(iter(block)) for block in made["messages"][0]["content"]] == ["document", "text"]


def test_a_schema_goes_along_and_an_effort_does_not() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
    config = {"format": {"type": "json_schema", "schema": schema}, "effort": "high"}
    made, dropped = write(output_config=config, metadata={"user_id": "u"}, top_k=3)
    assert '"required":["a"]' in made["outputConfig"]["textFormat"]["structure"]["jsonSchema"]["schema"]
    assert set(dropped) == {"reasoning", "metadata", "top_k"}


@pytest.mark.parametrize(
    "members",
    [
        {"messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": "http://h"}}]}]},
        {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
    ],
)
def test_what_would_mean_something_else_is_refused(members: Tree) -> None:
    with pytest.raises(Untranslatable):
        write(**members)
