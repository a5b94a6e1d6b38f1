"""Functions as tools: what models are told of them, what is taken from models, and what they get."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field

from agw_proxy.config.tools import Tool as Settings
from agw_proxy.tools import local
from agw_proxy.tools.local import Failed, Function, documented, load, words
from agw_proxy.tools.registry import Refused


class Place(BaseModel):
    city: str
    zip_code: int | None = None


def forecast(
    place: Place,
    on: date,
    unit: Literal["C", "F"] = "C",
    days: Annotated[int, Field(ge=1, le=7)] = 1,
    schema: dict[str, str] | None = None,
) -> dict[str, Any]:
    """Say what the weather will be.

    As far as anybody knows.

    Args:
        place: Where,
            with its city.
        on (date): The first day.
        days: How many days.

    Returns:
        A forecast: a guess.
    """
    return {"city": place.city, "on": on, "unit": unit, "days": days}


async def called(function: Function, arguments: str) -> str:
    free: list[int] = []
    result = await function.prepare(arguments)(lambda: free.append(1))
    async with asyncio.timeout(30):
        while not free:
            await asyncio.sleep(0)
    assert free == [1]
    return result


async def test_the_schema_of_a_signature_is_what_a_model_needs_to_know() -> None:
    spec = Function(forecast).spec
    assert spec.description == "Say what the weather will be.\n\nAs far as anybody knows."
    schema: Any = spec.schema
    assert (schema["type"], schema["required"], schema["additionalProperties"]) == ("object", ["place", "on"], False)
    properties = schema["properties"]
    assert list(properties) == ["place", "on", "unit", "days", "schema"]
    assert properties["place"]["description"] == "Where, with its city."
    assert properties["on"] == {"type": "string", "format": "date", "description": "The first day."}
    assert properties["unit"] == {"type": "string", "enum": ["C", "F"], "default": "C"}
    assert properties["days"] == {
        "type": "integer", "minimum": 1, "maximum": 7, "default": 1, "description": "How many days.",
    }  # fmt: skip
    assert "title" not in str(schema)
    assert Function(forecast, description="Other words.").spec.description == "Other words."


async def test_arguments_come_to_the_function_as_the_types_that_it_names() -> None:
    given = '{"place": {"city": "Oslo"}, "on": "2026-11-21", "unit": "F"}'
    assert await called(Function(forecast), given) == '{"city":"Oslo","on":"2026-11-21","unit":"F","days":1}'

    def nothing() -> None:
        return None

    assert await called(Function(nothing), "") == "null"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("{", "JSON"),
        ("[]", "input"),
        ("{}", "place: Field required"),
        ('{"place": {"city": 5}, "on": "2026-11-21"}', "place.city"),
        ('{"place": {"city": "Oslo"}, "on": "never", "s3cret": 1}', "s3cret: Extra inputs"),
        ('{"place": {"city": "Oslo"}, "on": "2026-11-21", "days": 9}', "days"),
        ('"' + "x" * local.MAX_ARGUMENT_BYTES + '"', "longer than"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_called(arguments: str, told: str) -> None:
    with pytest.raises(Refused, match=told) as refused:
        Function(forecast).prepare(arguments)
    assert refused.value.outcome == "invalid"
    assert "never" not in str(refused.value), "what came is not repeated"


async def test_what_is_async_runs_on_the_loop_and_what_is_not_on_a_thread_of_its_own() -> None:
    async def near() -> str:
        return threading.current_thread().name

    def far() -> str:
        return threading.current_thread().name

    class Object:
        async def __call__(self, text: str) -> str:
            return text

    assert await called(Function(near), "{}") == threading.current_thread().name
    assert await called(Function(far), "{}") == "agw-tool far"
    assert await called(Function(Object()), '{"text": "hi"}') == "hi"


async def test_a_place_is_free_only_when_the_thread_has_ended() -> None:
    gate, free = threading.Event(), asyncio.Event()

    def blocks() -> str:
        assert gate.wait(60)
        return "late"

    task = asyncio.ensure_future(Function(blocks).prepare("{}")(free.set))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert not free.is_set()
    gate.set()
    async with asyncio.timeout(30):
        await free.wait()


async def test_what_gives_no_result_is_told_to_its_author() -> None:
    async def later() -> str:
        return "late"

    async def stream() -> AsyncIterator[str]:
        yield "piece"

    with pytest.raises(TypeError, match="<lambda> gives a coroutine, and is not 'async def' itself"):
        await called(Function(lambda: later()), "{}")  # noqa: PLW0108  as a decorator may make of it
    with pytest.raises(Failed, match="an async generator"):
        Function(stream)


def test_what_a_tool_gives_becomes_words() -> None:
    @dataclass
    class Point:
        x: int

    assert words("as it is") == "as it is"
    assert words(Place(city="Oslo")) == '{"city":"Oslo","zip_code":null}'
    assert words([Point(1), {"on": date(2026, 1, 2)}]) == '[{"x":1},{"on":"2026-01-02"}]'
    assert "object at" in words(object())
    with pytest.raises(Refused, match="more than"):
        words("x" * (local.MAX_RESULT_BYTES + 1))


def _spread(*texts: str) -> None:
    """Refused."""


def _named(**texts: str) -> None:
    """Refused."""


def _placed(text: str, /) -> None:
    """Refused."""


def _unknown(text: "Nowhere") -> None:  # type: ignore[name-defined]  # noqa: F821
    """Refused."""


def _odd(text: threading.Event) -> None:
    """Refused."""


@pytest.mark.parametrize("function", [_spread, _named, _placed, _unknown, _odd])
def test_a_signature_that_is_no_schema_is_refused_with_the_reason(function: Callable[..., Any]) -> None:
    with pytest.raises(Failed, match=r"texts|text|Nowhere|Event"):
        Function(function)


def test_docstrings_of_both_common_forms_are_read() -> None:
    assert documented("Add.\n\n:param a: the first\n:param int b: the second\n:returns: their sum") == (
        "Add.",
        {"a": "the first", "b": "the second :returns: their sum"},
    )
    assert documented("") == ("", {})
    assert documented("Note: this is text.\nMore.") == ("Note: this is text.\nMore.", {})


def test_a_file_is_taken_up_anew_when_it_or_one_beside_it_changes(tmp_path: Path) -> None:
    file = tmp_path / "os.py"  # shadows nothing
    file.write_text("from .words import HELLO\ndef hello() -> str:\n    'Greet.'\n    return HELLO\n")
    (tmp_path / "words.py").write_text("HELLO = 'hi'\n")
    settings = Settings.model_validate({"name": "hello", "python": f"{file}:hello"})
    first = load(settings)
    assert load(settings, first) is first
    (tmp_path / "words.py").write_text("HELLO = 'ho'\n")
    second = load(settings, first)
    assert second.version != first.version
    assert asyncio.run(called(second, "{}")) == "ho"  # type: ignore[arg-type]  # it is a Function


@pytest.mark.parametrize(
    ("python", "source", "told"),
    [
        ("nowhere.py:f", None, "there is no file"),
        ("here.py:f", "g = 1", "has no f"),
        ("here.py:f", "f = 1", "is to be a function; came int"),
        ("here.py:f", "import nowhere_at_all", "ModuleNotFoundError"),
        ("here.py:f", "def f(", "SyntaxError"),
    ],
)
def test_what_cannot_be_loaded_says_why(tmp_path: Path, python: str, source: str | None, told: str) -> None:
    if source is not None:
        (tmp_path / "here.py").write_text(source)
    with pytest.raises(Failed, match=told):
        load(Settings.model_validate({"name": "f", "python": f"{tmp_path}/{python}"}))


def test_a_function_of_an_installed_package_may_be_one() -> None:
    made = load(Settings.model_validate({"name": "gcd", "python": "tests.tools.test_local:forecast"}))
    assert made.spec.description.startswith("Say what")
