"""Streams in chunks: the order of events that Chat's Writer and the older completions' keep alike."""

import pytest

from agw_proxy.dialects import openai_chat_streams, openai_completions
from agw_proxy.dialects.base import (
    Audio,
    Beat,
    BlockStart,
    BlockStop,
    Event,
    Fault,
    Finish,
    Part,
    Signature,
    Start,
    Text,
    Tokens,
    ToolUse,
)
from agw_proxy.dialects.openai_chunks import Chunks
from tests.dialects.chat_vectors import SHOWN

WRITERS: list[type[Chunks]] = [openai_chat_streams.Writer, openai_completions.Writer]
START, STOP, END = Start("up-1", "up-model", 1_600_000_000), BlockStop(), Finish("stop", Tokens(1, 1))
OPEN: list[Event] = [START, BlockStart(0, Text(""))]


@pytest.mark.parametrize("writer", WRITERS)
def test_beats_are_comments_at_any_point_before_the_end(writer: type[Chunks]) -> None:
    made = writer(SHOWN)
    assert made.write(Beat()) == b": ping\n\n"
    for event in OPEN:
        made.write(event)
    assert made.write(Beat()) == b": ping\n\n"


@pytest.mark.parametrize("writer", WRITERS)
def test_words_that_come_with_their_block_are_its_first_part(writer: type[Chunks]) -> None:
    def told(*events: Event) -> bytes:
        made = writer(SHOWN)
        return b"".join(made.write(event) for event in events)

    assert told(START, BlockStart(0, Text("Hi")), STOP, END) == told(*OPEN, Part("Hi"), Part(""), STOP, END)


@pytest.mark.parametrize(
    "events",
    [
        [Part("x")],
        [BlockStop()],
        [BlockStart(0, Text(""))],
        [END],
        [START, START],
        [START, Part("x")],
        [START, Signature("x")],
        [START, BlockStop()],
        [START, BlockStart(1, Text(""))],
        [*OPEN, BlockStart(1, Text(""))],
        [*OPEN, STOP, BlockStart(0, Text(""))],
        [*OPEN, END],
        [START, END, Beat()],
        [START, Fault("x"), Fault("y")],
        [Fault("x"), Beat()],
        [START, BlockStart(0, Audio("aGk=", "wav"))],
        [START, BlockStart(0, ToolUse("c", "f")), STOP, Part("{}")],
    ],
)
@pytest.mark.parametrize("writer", WRITERS)
def test_what_breaks_the_grammar_raises(writer: type[Chunks], events: list[Event]) -> None:
    made = writer(SHOWN)
    for event in events[:-1]:
        made.write(event)
    with pytest.raises(ValueError, match=r"."):
        made.write(events[-1])
