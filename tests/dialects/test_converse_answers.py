"""Answers and streams of Converse: each scene the same both ways, and well-formed whatever comes."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agw_proxy.dialects.anthropic_messages_streams import Writer
from agw_proxy.dialects.base import Event, Finish, Malformed, Shown, Text, Thinking, Tokens, ToolUse
from agw_proxy.dialects.converse_answers import Reader, read_answer
from tests.support.converse import answer, messages
from tests.support.providers import SCENES

SHOWN = Shown(id="r1", model="m", now=0)


def played(*told: tuple[str, dict[str, object]]) -> tuple[list[Event], bytes]:
    """The events, and a client's bytes of them (the writer refuses what is against the grammar)."""
    reader, writer = Reader(), Writer(SHOWN)
    events = [event for kind, payload in told for event in reader.read(kind, payload)]
    events += reader.end()
    return events, b"".join(writer.write(event) for event in events)


@pytest.mark.parametrize("scene", SCENES)
def test_an_answer_has_what_was_said(scene: str) -> None:
    told = SCENES[scene]
    found = read_answer(answer(told))
    assert "".join(block.text for block in found.blocks if isinstance(block, Text)) == "".join(told.text)
    assert [block.name for block in found.blocks if isinstance(block, ToolUse)] == [name for name, _ in told.calls]
    assert (found.stop, found.tokens.input, found.tokens.cached) == (told.stop, told.prompt, told.cached)


@pytest.mark.parametrize("scene", SCENES)
def test_a_stream_ends_as_it_has_said(scene: str) -> None:
    told = SCENES[scene]
    events, data = played(*messages(told))
    last = events[-1]
    assert isinstance(last, Finish)
    assert last.stop == told.stop
    assert last.tokens == Tokens(input=told.prompt, output=told.output, cached=told.cached)
    assert data.count(b"event: message_stop") == 1


def test_an_end_without_its_measurements_is_one() -> None:
    events, _ = played(*messages(SCENES["text"])[:-1])
    assert events[-1] == Finish("stop", Tokens())


def test_a_stream_that_has_not_said_why_it_stops_has_no_end() -> None:
    events, data = played(*messages(SCENES["text"])[:-2])
    assert not any(isinstance(event, Finish) for event in events)
    assert b"message_stop" not in data


def test_hidden_thoughts_and_cited_words_are_kept() -> None:
    content = [
        {"reasoningContent": {"redactedContent": "aGlk"}},
        {"citationsContent": {"content": [{"text": "ci"}, {"text": "ted"}], "citations": []}},
        {"somethingNew": {}},
    ]
    tree = {**answer(SCENES["text"]), "output": {"message": {"role": "assistant", "content": content}}}
    assert read_answer(tree).blocks == [Thinking(signature="aGlk", hidden=True), Text("cited")]


@pytest.mark.parametrize(
    "tree", [{}, {"output": {"message": []}}, {"output": {"message": {"content": []}}}, {"output": 1}]
)
def test_what_is_no_answer_is_malformed(tree: dict[str, object]) -> None:
    with pytest.raises(Malformed):
        read_answer(tree)


EVENTS = [
    *(message for scene in SCENES.values() for message in messages(scene)),
    ("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"reasoningContent": {"redactedContent": "aGlk"}}}),
    ("contentBlockDelta", {"contentBlockIndex": 3, "delta": {"citation": {}}}),
    ("contentBlockStop", {}),
    ("somethingNew", {}),
]


@given(st.lists(st.sampled_from(EVENTS), max_size=20))
@example([("messageStop", {"stopReason": "max_tokens"}), EVENTS[1]])  # words behind the end
def test_no_order_of_messages_makes_an_ill_formed_stream(told: list[tuple[str, dict[str, object]]]) -> None:
    try:
        events, _ = played(*told)
    except Malformed:
        return
    assert sum(isinstance(event, Finish) for event in events) <= 1
