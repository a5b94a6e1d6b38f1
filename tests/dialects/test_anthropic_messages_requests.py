from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from agw_proxy.dialects.anthropic_messages_requests import read_request
from agw_proxy.dialects.base import (
    File,
    Hosted,
    Malformed,
    Message,
    Reasoning,
    Request,
    Text,
    Thinking,
    ToolResult,
    ToolUse,
)
from tests.dialects.messages_requests import OLD, talk, user, written
from tests.dialects.messages_schema import accept

HELLO = [{"role": "user", "content": "Hello"}]


def asked(**members: Any) -> Request:
    return read_request({"model": OLD, "max_tokens": 100, "messages": HELLO, **members})


# -- there and back

WHOLE: dict[str, Any] = {
    "model": OLD,
    "max_tokens": 9000,
    "system": [{"type": "text", "text": "Be kind.", "cache_control": {"type": "ephemeral", "ttl": "1h"}}],
    "messages": [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Look."},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
                {"type": "image", "source": {"type": "url", "url": "https://x.test/a.png"}},
                {
                    "type": "document",
                    "source": {"type": "base64", "media_type": "application/pdf", "data": "AAAA"},
                    "title": "Paper",
                    "citations": {"enabled": True},
                    "cache_control": {"type": "ephemeral"},
                },
                {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "words"}},
                {"type": "document", "source": {"type": "url", "url": "https://x.test/a.pdf"}},
            ],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "c2ln"},
                {"type": "redacted_thinking", "data": "ZGF0YQ"},
                {
                    "type": "text",
                    "text": "Yes.",
                    "citations": [
                        {
                            "type": "char_location", "cited_text": "w", "document_index": 1, "document_title": None,
                            "start_char_index": 0, "end_char_index": 1,
                        }
                    ],
                },
                {"type": "tool_use", "id": "toolu_1", "name": "see", "input": {"x": [1, None, "é"]}},
                {"type": "tool_use", "id": "toolu_2", "name": "see", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "toolu_1", "content": "seen", "is_error": True},
                {
                    "type": "tool_result",
                    "tool_use_id": "toolu_2",
                    "content": [
                        {"type": "text", "text": "a"},
                        {"type": "image", "source": {"type": "url", "url": "https://x.test/b.png"}},
                    ],
                    "cache_control": {"type": "ephemeral"},
                },
                {"type": "text", "text": "Well?"},
            ],
        },
    ],
    "tools": [
        {
            "name": "see",
            "description": "Looks.",
            "input_schema": {"type": "object", "properties": {"x": {"type": "array", "maxItems": 3}}},
            "cache_control": {"type": "ephemeral"},
        },
        {"type": "web_search_20250305", "name": "web_search", "max_uses": 2},
    ],
    "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
    "stop_sequences": ["END"],
    "thinking": {"type": "enabled", "budget_tokens": 2000},
    "stream": True,
    "metadata": {"user_id": "u-1"},
    "service_tier": "standard_only",
    "inference_geo": "us",
}  # fmt: skip


def test_a_whole_request_comes_back_as_it_was() -> None:
    assert written(read_request(WHOLE)) == WHOLE


def test_a_count_of_tokens_has_no_members_of_an_answer() -> None:
    asked = {name: WHOLE[name] for name in ("model", "messages", "system", "tools", "tool_choice")}
    assert written(read_request(asked, counting=True), counting=True) == asked


def test_members_are_read_into_their_places() -> None:
    request = read_request(WHOLE)
    assert [message.role for message in request.messages] == ["system", "user", "assistant", "user"]
    assert request.messages[2].blocks[0] == Thinking("hm", "agw:messages:c2ln")
    assert request.messages[2].blocks[3] == ToolUse("toolu_1", "see", '{"x":[1,null,"\xe9"]}')
    assert request.hosted == [Hosted("web_search_20250305", "messages", WHOLE["tools"][1])]
    assert (request.parallel, request.user, request.service_tier) == (False, "u-1", "default")
    assert request.reasoning == Reasoning("low", 2000, "auto", enabled=True)
    assert request.extra == {"inference_geo": "us"}


TEXTS = st.text(alphabet="ab é\n", min_size=1, max_size=5).filter(lambda text: bool(text.strip()))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | TEXTS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXTS, inner, max_size=2),
    max_leaves=5,
)
CACHE: Any = st.sampled_from([{}, {"cache_control": {"type": "ephemeral"}}])


def block(kind: str, **members: Any) -> Any:
    made = st.fixed_dictionaries({"type": st.just(kind), **members})
    return made if "signature" in members else st.builds(lambda tree, cache: {**tree, **cache}, made, CACHE)


PICTURE = block("image", source=st.just({"type": "url", "url": "https://x.test/a"}))
ASKING = st.lists(block("text", text=TEXTS) | PICTURE, min_size=1, max_size=3)


@st.composite
def conversations(draw: st.DrawFn) -> list[Any]:
    turns: list[Any] = [{"role": "user", "content": draw(ASKING)}]
    for number in range(draw(st.integers(0, 3))):
        calls = [
            draw(
                block("tool_use", id=st.just(f"t{number}-{one}"), name=st.just("f"), input=st.dictionaries(TEXTS, JSON))
            )
            for one in range(draw(st.integers(0, 2)))
        ]
        said = draw(st.lists(block("text", text=TEXTS), min_size=0 if calls else 1, max_size=2))
        thoughts = draw(st.lists(block("thinking", thinking=TEXTS, signature=st.just("s")), max_size=1))
        turns.append({"role": "assistant", "content": thoughts + said + calls})
        results = [
            draw(
                block(
                    "tool_result", tool_use_id=st.just(call["id"]), content=TEXTS | ASKING.filter(lambda a: len(a) > 1)
                )
            )
            for call in calls
        ]
        turns.append({"role": "user", "content": results + draw(ASKING)})
    return turns


@given(conversations())
def test_conversations_keep_their_meaning(turns: list[Any]) -> None:
    tree = {
        "model": OLD,
        "max_tokens": 5,
        "messages": turns,
        "tools": [{"name": "f", "input_schema": {"type": "object"}}],
    }
    back = written(read_request(tree))
    assert back["messages"] == turns
    assert read_request(back) == read_request({**tree, "tools": back["tools"]})


def malformed(tree: Any) -> str | None:
    """Where; None for a good request."""
    try:
        read_request(tree)
    except Malformed as error:
        return error.param or ""
    return None


MEMBERS = [*WHOLE, "temperature", "top_k", "output_config", "output_format"]


@given(st.sampled_from(MEMBERS), JSON | st.lists(st.fixed_dictionaries({"role": st.just("user"), "content": JSON})))
def test_whatever_comes_is_read_or_malformed(name: str, value: Any) -> None:
    assert malformed({**WHOLE, name: value}) != ""


@given(
    st.sampled_from(["text", "image", "document", "tool_use", "tool_result", "thinking", "search_result", "zzz"]), JSON
)
def test_whatever_block_comes_is_read_or_malformed(kind: str, value: Any) -> None:
    names = ("text", "source", "content", "input", "id", "name", "tool_use_id", "title", "thinking", "citations")
    tree = {"type": kind, **dict.fromkeys(names, value)}
    param = malformed({**WHOLE, "messages": [{"role": "user", "content": [tree]}]})
    assert param is None or param.startswith("messages[0].content[0]")


def test_the_schema_that_checks_is_strict_all_the_way_down() -> None:
    accept(WHOLE)
    for turn, block in ((0, 0), (0, 3), (1, 3), (2, 1)):
        broken = orjson.loads(orjson.dumps(WHOLE))
        broken["messages"][turn]["content"][block]["zzz"] = 1
        with pytest.raises(ValidationError):
            accept(broken)


# -- reading


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"max_tokens": None}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"model": None}, "model"),
        ({"messages": []}, "messages"),
        ({"messages": None}, "messages"),
        ({"messages": ["x"]}, "messages[0]"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
        ({"messages": [{"role": "user", "content": [{"text": "x"}]}]}, "messages[0].content[0].type"),
        (
            {"messages": [{"role": "assistant", "content": [{"type": "tool_result", "tool_use_id": "x"}]}]},
            "messages[0].content",
        ),
        ({"system": 1}, "system"),
        ({"system": [{"type": "image", "source": {"type": "url", "url": "x"}}]}, "system"),
        ({"temperature": 1.5}, "temperature"),
        ({"top_p": "1"}, "top_p"),
        ({"stop_sequences": [1]}, "stop_sequences[0]"),
        ({"stream": 1}, "stream"),
        ({"thinking": {"type": "enabled"}}, "thinking.budget_tokens"),
        ({"thinking": {"type": "enabled", "budget_tokens": 1023}}, "thinking.budget_tokens"),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, "thinking.budget_tokens"),
        ({"thinking": {"type": "enabled", "budget_tokens": 2000}, "max_tokens": 2000}, "thinking.budget_tokens"),
        ({"thinking": {"type": "yes"}}, "thinking.type"),
        ({"service_tier": "fast"}, "service_tier"),
        ({"tools": [{"name": "f"}]}, "tools[0].input_schema"),
        ({"tools": [{"input_schema": {}}]}, "tools[0].name"),
        ({"tool_choice": {"type": "tool"}}, "tool_choice.name"),
        ({"tool_choice": {"type": "maybe"}}, "tool_choice.type"),
        ({"output_config": {"format": {"type": "text"}}}, "output_config.format.type"),
        ({"output_config": {"format": {"type": "json_schema"}}}, "output_config.format.schema"),
    ],
)
def test_what_is_wrong_is_named(members: Any, param: str) -> None:
    with pytest.raises(Malformed) as caught:
        asked(**members)
    assert caught.value.param == param
    assert param in caught.value.message


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({}, None),
        ({"output_config": {"effort": "low"}}, Reasoning("low")),
        ({"thinking": {"type": "disabled"}}, Reasoning(enabled=False)),
        ({"thinking": {"type": "adaptive"}}, Reasoning(summary="auto", enabled=True, adaptive=True)),
        (
            {"thinking": {"type": "adaptive", "display": "omitted"}, "output_config": {"effort": "max"}},
            Reasoning("max", enabled=True, adaptive=True),
        ),
        ({"thinking": {"type": "between_tools"}}, Reasoning(summary="auto")),
        ({"thinking": {"type": "enabled", "budget_tokens": 16384}}, Reasoning("high", 16384, "auto", enabled=True)),
    ],
)
def test_thinking_is_read(members: Any, expected: Reasoning | None) -> None:
    assert asked(**{"max_tokens": 20000, **members}).reasoning == expected


def test_system_messages_amid_the_conversation_stay_in_their_place() -> None:
    request = asked(system="a", messages=[*HELLO, {"role": "system", "content": "b"}, *HELLO])
    assert [message.role for message in request.messages] == ["system", "user", "system", "user"]


DEEP: dict[str, Any] = {}
for _ in range(300):
    DEEP = {"a": DEEP}


@pytest.mark.parametrize(
    ("block", "param"),
    [
        ({"type": "tool_use", "id": "t", "name": "f", "input": DEEP}, "input"),
        ({"type": "tool_use", "id": "t", "name": "f"}, "input"),
        ({"type": "tool_result", "tool_use_id": "t", "content": [{"type": "thinking"}]}, "content"),
        ({"type": "image", "source": {"type": "ftp"}}, "source.type"),
        ({"type": "image", "source": {"type": "file"}}, "source.file_id"),
        ({"type": "document", "source": {"type": "base64", "data": "x"}}, "source.media_type"),
        ({"type": "document", "source": {"type": "ftp"}}, "source.type"),
    ],
)
def test_what_is_wrong_in_a_block_is_named(block: Any, param: str) -> None:
    with pytest.raises(Malformed) as caught:
        asked(messages=[{"role": "user", "content": [block]}])
    assert caught.value.param == f"messages[0].content[0].{param}"


def test_pictures_within_a_document_of_blocks_are_told() -> None:
    picture = {"type": "image", "source": {"type": "file", "file_id": "f"}}
    source = {"type": "content", "content": [{"type": "text", "text": "a"}, picture]}
    request = asked(messages=[{"role": "user", "content": [{"type": "document", "source": source}]}])
    assert request.messages[0].blocks == [File(text="a", media_type="text/plain")]
    written(request, "document.content")


def test_results_of_tools_stand_first_in_what_is_read() -> None:
    result = {"type": "tool_result", "tool_use_id": "t"}
    request = asked(messages=[{"role": "user", "content": [{"type": "text", "text": "a"}, result]}])
    assert request.messages[0].blocks == [ToolResult("t", []), Text("a")]


def test_documents_of_every_source_are_read() -> None:
    def source(**tree: Any) -> Any:
        return (
            asked(messages=[{"role": "user", "content": [{"type": "document", "source": tree}]}]).messages[0].blocks[0]
        )

    assert source(type="file", file_id="file_1") == File(file_id="file_1")
    assert source(type="content", content="a") == File(text="a", media_type="text/plain")
    inner = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert source(type="content", content=inner) == File(text="a\nb", media_type="text/plain")
    found = {"type": "search_result", "source": "https://x.test", "title": "T", "content": inner}
    request = asked(messages=[{"role": "user", "content": [found]}])
    assert request.messages[0].blocks == [File(text="Source: https://x.test\na\nb", media_type="text/plain", name="T")]


def test_what_no_other_dialect_knows_is_told_when_it_is_written() -> None:
    request = asked(
        messages=[
            *HELLO,
            {
                "role": "assistant",
                "content": [{"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}],
            },
            {"role": "user", "content": [{"type": "text", "text": "a"}]},
        ],
        tools=[{"name": "f", "input_schema": {}, "defer_loading": True}],
        betas_of_tomorrow=1,
    )
    assert set(request.extra) == {"server_tool_use", "tools.defer_loading", "betas_of_tomorrow"}
    written(request, *request.extra)


def test_members_of_this_api_alone_are_carried() -> None:
    extra = {
        "container": "c_1",
        "context_management": {"edits": []},
        "mcp_servers": [{"type": "url", "name": "x", "url": "https://x"}],
        "cache_control": {"type": "ephemeral"},
    }
    tree = written(asked(**extra))
    assert {name: tree[name] for name in extra} == extra
    # The Responses API's member of this name is a list.
    written(talk(user(Text("a")), extra={"context_management": []}), "context_management")


def test_what_a_compaction_tells_is_not_lost() -> None:
    def compacted(content: object) -> Any:
        block = {"type": "compaction", "content": content}
        return asked(messages=[*HELLO, {"role": "assistant", "content": [block]}, *HELLO])

    assert compacted("They greeted each other.").messages[1] == Message("assistant", [Text("They greeted each other.")])
    assert compacted(None).extra == {"compaction": True}


def test_empty_members_ask_for_nothing() -> None:
    assert asked(container=None, mcp_servers=[], context_management={}, betas=[]).extra == {}


def test_signatures_are_sealed_and_those_of_others_dropped() -> None:
    def thought(signature: str) -> dict[str, Any]:
        return {"type": "thinking", "thinking": "t", "signature": signature}

    said = {"type": "text", "text": "b"}
    own, foreign, unsigned = thought("own"), thought("agw:responses:xyz"), thought("")
    request = asked(messages=[*HELLO, {"role": "assistant", "content": [own, foreign, unsigned, said]}, *HELLO])
    blocks: list[Any] = request.messages[1].blocks
    assert [block.signature for block in blocks[:3]] == ["agw:messages:own", "agw:responses:xyz", None]
    assert written(request, "foreign_reasoning")["messages"][1]["content"] == [own, said]


def test_a_signature_of_gemini_goes_back_on_the_call_that_it_was_on() -> None:
    hidden = {"type": "redacted_thinking", "data": "agw:gemini:S"}
    call = {"type": "tool_use", "id": "t", "name": "f", "input": {}}
    request = asked(messages=[*HELLO, {"role": "assistant", "content": [hidden, call]}, *HELLO])
    assert request.messages[1].blocks == [ToolUse("t", "f", "{}", signature="agw:gemini:S")]
