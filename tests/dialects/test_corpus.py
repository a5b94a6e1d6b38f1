"""The golden corpus: each case becomes in each other form what its file says, and what the form's own rules allow."""

from pathlib import Path
from types import ModuleType
from typing import Any

import orjson
import pytest
from anthropic.types import Message, RawMessageStreamEvent
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from agw_proxy.config.values import Spoken
from agw_proxy.conformance import chat, gemini, messages, responses
from agw_proxy.conformance.asking import check_error
from agw_proxy.conformance.frames import events
from tests.dialects import corpus
from tests.dialects.schema_gemini import conforms
from tests.support.published import check_request

GRAMMARS: dict[Spoken, ModuleType] = {"chat": chat, "responses": responses, "messages": messages, "gemini": gemini}
ANSWERS: dict[Spoken, TypeAdapter[Any]] = {
    "chat": TypeAdapter(ChatCompletion),
    "responses": TypeAdapter(Response),
    "messages": TypeAdapter(Message),
}
STREAMED: dict[Spoken, TypeAdapter[Any]] = {
    "chat": TypeAdapter(ChatCompletionChunk),
    "responses": TypeAdapter(ResponseStreamEvent),
    "messages": TypeAdapter(RawMessageStreamEvent),
}
UNTYPED = {"error", "ping"}
"""Events that are in no SDK's types: the one is raised, the other passed over."""


def published(form: Spoken, what: Any, adapters: dict[Spoken, TypeAdapter[Any]]) -> None:
    """Hold an answer, or a part of it, against the types that its provider publishes."""
    if form in adapters:
        adapters[form].validate_python(what)
    else:
        conforms(what, "Response")


def check(kind: str, form: Spoken, what: Any, status: int) -> None:
    """Hold it against what its form publishes."""
    if kind == "requests":
        if "body" in what:
            conforms(what["body"]) if form == "gemini" else check_request(form, what["body"])
    elif kind == "answers":
        GRAMMARS[form].whole(what)
        published(form, what, ANSWERS)
    elif kind == "streams":
        frames = list(events(corpus.wire(what).splitlines(keepends=True)))
        assert GRAMMARS[form].check(frames) is None
        for name, part in what:
            if name not in UNTYPED and part != "[DONE]" and "error" not in part:
                published(form, part, STREAMED)
    else:
        check_error(form, status, what)


@pytest.mark.parametrize(
    ("kind", "file"),
    [(kind, file) for kind in corpus.MAKERS for file in corpus.cases(kind)],
    ids=lambda part: part.stem if isinstance(part, Path) else part,
)
def test_a_case_is_said_in_each_other_form_as_its_file_has_it(kind: str, file: Path) -> None:
    case = orjson.loads(file.read_bytes())
    made = corpus.made(kind, case["said"])
    assert made == case["made"], "run python -m tests.dialects.corpus, and read what has changed"
    covered = [by for group in made for by in group["by"]]
    assert sorted(covered) == sorted(f"{one}>{other}" for one, other in corpus.pairs(case["said"]))
    for group in made:
        one, _, other = group["by"][0].partition(">")
        status = case["said"][one][0] if kind == "errors" else 200
        check(kind, other, group["what"], status)
    for form, said in case["said"].items():
        if kind == "requests":
            check(kind, form, {"body": said if form == "gemini" else {"model": "m", **said}}, 200)
        elif kind == "errors":
            check(kind, form, said[1], said[0])
        else:
            check(kind, form, said, 200)


@pytest.mark.parametrize("kind", corpus.MAKERS)
def test_every_form_says_something_and_is_said(kind: str) -> None:
    covered = {
        by
        for file in corpus.cases(kind)
        for group in orjson.loads(file.read_bytes())["made"]
        for by in group["by"]
        if not isinstance(group["what"], dict) or "refused" not in group["what"]
    }
    assert covered == {f"{one}>{other}" for one in corpus.FORMS for other in corpus.FORMS if one != other}
