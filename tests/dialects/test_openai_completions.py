"""The older completions: what is read, what is refused, and what is written, checked by the published types."""

from typing import Any

import orjson
import pytest
from openai.types import Completion

from agw_proxy.dialects.base import (
    Answer,
    Beat,
    Block,
    BlockStart,
    BlockStop,
    Citation,
    Event,
    Fault,
    Finish,
    Malformed,
    Message,
    Part,
    Refusal,
    Shown,
    Signature,
    Start,
    Text,
    Thinking,
    Tokens,
    ToolUse,
    Untranslatable,
)
from agw_proxy.dialects.openai_completions import Writer, read_request, write_answer
from agw_proxy.dialects.sse import Events
from tests.dialects.chat_vectors import SHOWN

LOGPROBS: list[dict[str, Any]] = [
    {"token": "Hé", "logprob": -0.5, "bytes": [72], "top_logprobs": [{"token": "Ha", "logprob": -1.0}, {"x": 1}]},
    {"token": "!", "logprob": -0.25, "top_logprobs": []},
    {"token": 1, "logprob": -0.25},
]


def asked(**members: Any) -> dict[str, Any]:
    return {"model": "m", "prompt": "Go on", **members}


def test_a_request_is_one_turn_of_the_user() -> None:
    for prompt in ("Go on", ["Go on"]):
        assert read_request(asked(prompt=prompt)).messages == [Message("user", [Text("Go on")])]
    request = read_request(
        asked(
            max_tokens=5, temperature=0, top_p=0.5, stop="x", stream=True, stream_options={"include_usage": True}, n=1,
            seed=3, presence_penalty=1, frequency_penalty=-1, logit_bias={"5": 1}, logprobs=0, user="u", suffix="",
            echo=False, best_of=1,
        )
    )  # fmt: skip
    assert (request.max_tokens, request.temperature, request.top_p, request.stop) == (5, 0, 0.5, ["x"])
    assert (request.stream, request.include_usage, request.n, request.seed) == (True, True, 1, 3)
    assert (request.presence_penalty, request.frequency_penalty, request.logit_bias) == (1, -1, {"5": 1})
    assert (request.logprobs, request.user, request.extra) == (0, "u", {})


def test_what_only_completions_know_goes_by_its_name_in_the_table() -> None:
    extra = read_request(asked(suffix="end", echo=True, best_of=2, odd=1, gone=None)).extra
    assert extra == {"suffix": "end", "echo": True, "best_of": 2, "odd": 1}


@pytest.mark.parametrize("prompt", ["", [""], ["a", "b"], [1], [1, 2], [[1, 2]], [[1], [2]]])
def test_what_is_not_one_text_is_refused(prompt: object) -> None:
    with pytest.raises(Untranslatable) as raised:
        read_request(asked(prompt=prompt))
    assert raised.value.param == "prompt"


@pytest.mark.parametrize(
    "members",
    [
        {"prompt": None}, {"prompt": 1}, {"prompt": []}, {"prompt": {}}, {"prompt": [True]}, {"prompt": [{}]},
        {"prompt": ["a", 1]}, {"model": 1}, {"max_tokens": 0}, {"echo": 1}, {"suffix": 1}, {"best_of": "x"},
        {"logprobs": True}, {"stream": "yes"}, {"stream_options": 1}, {"stop": [1]}, {"logit_bias": []},
    ],
)  # fmt: skip
def test_bad_manners_are_malformed(members: dict[str, Any]) -> None:
    with pytest.raises(Malformed) as raised:
        read_request(asked(**members))
    assert (raised.value.param or "").startswith(next(iter(members)))


def test_an_answer_is_its_words() -> None:
    blocks: list[Block] = [Thinking("hm"), Text("Hé!", logprobs=LOGPROBS), ToolUse("c", "f", "{}"), Text(" Yes")]
    tree = write_answer(Answer("up", "far", blocks, "tool", Tokens(3, 4, cached=1)), SHOWN)
    made = Completion.model_validate(tree, strict=True)
    choice, usage = made.choices[0], made.usage
    assert (made.id, made.created, made.model) == ("cmpl-abc123", SHOWN.now, "asked-for")
    assert (choice.text, choice.finish_reason) == ("Hé! Yes", "stop")
    assert choice.logprobs is not None
    assert choice.logprobs.tokens == ["Hé", "!"]
    assert choice.logprobs.token_logprobs == [-0.5, -0.25]
    assert choice.logprobs.top_logprobs == [{"Ha": -1.0, "Hé": -0.5}, {"!": -0.25}]
    assert choice.logprobs.text_offset == [0, 2]
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (3, 4, 7)
    unknown = write_answer(Answer("up", "far", [Refusal("No.")], "refusal", Tokens(), created=5), SHOWN)
    assert (unknown["choices"][0]["text"], unknown["choices"][0]["finish_reason"]) == ("No.", "stop")
    assert (unknown["created"], "usage" in unknown) == (5, False)
    silent = write_answer(Answer("up", "far", [], "refusal", Tokens()), SHOWN)
    assert (silent["choices"][0]["text"], silent["choices"][0]["finish_reason"]) == ("", "content_filter")


def written(*events: Event, shown: Shown = SHOWN) -> bytes:
    writer = Writer(shown)
    return b"".join(writer.write(event) for event in events)


def test_a_stream_is_its_words() -> None:
    body = written(
        Beat(),
        Start("up", "far"),
        BlockStart(0, Thinking()), Part("hm"), Signature("s"), BlockStop(),
        BlockStart(1, Text("H")), Part("é!", LOGPROBS), Part(""), Citation({}), BlockStop(),
        BlockStart(2, ToolUse("c", "f")), Part("{}"), BlockStop(),
        BlockStart(3, Refusal("")), Part("No."), BlockStop(),
        Finish("refusal", Tokens(3, 4)),
    )  # fmt: skip
    *events, last = [data for _, data in Events().feed(body)]
    assert last == b"[DONE]"
    chunks = [orjson.loads(data) for data in events]
    assert "".join(choice["text"] for chunk in chunks for choice in chunk["choices"]) == "Hé!No."
    for chunk in chunks:
        for choice in chunk["choices"]:
            choice["finish_reason"] = choice["finish_reason"] or "stop"  # the published type does not know of pieces
        assert Completion.model_validate(chunk, strict=True).id == "cmpl-abc123"
    assert chunks[2]["choices"][0]["logprobs"]["text_offset"] == [1, 3]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks[-2:-1]] == ["stop"]
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["total_tokens"] == 7
    assert body.count(b": ping\n\n") == 3  # the beat, the thought, and the call


def test_a_fault_ends_a_stream_without_its_terminator() -> None:
    body = written(Start("up", "far"), BlockStart(0, Text("")), Part("H"), Fault("Gone", "api_error"))
    assert Events().feed(body)[-1] == (
        "error",
        orjson.dumps({"error": {"message": "Gone", "type": "api_error", "param": None, "code": None}}),
    )
    quiet = written(Start("", "far"), Finish("length", Tokens(1, 1)), shown=Shown("i", "m", 1))
    assert b"usage" not in quiet
    assert b'"finish_reason":"length"' in quiet
